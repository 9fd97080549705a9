"""Keeps and reports a run of so many cells, as the controller of a check does; prints the seconds of each step.

python -m benchmarks.keeping REPORT.json CELLS
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.many_cells import RELEASES, multiplied
from harness import report
from harness.core import data, run_file
from harness.judge import breaks
from harness.runner.folder import Recorder


def main(source: Path, size: int) -> int:
    """Measure one size."""
    made = multiplied(run_file.load(source), size, RELEASES[-2:])
    known = breaks.load(data.matrices())
    with tempfile.TemporaryDirectory(prefix="keeping-") as folder:
        started = time.process_time()
        recorder = Recorder(Path(folder, "run"), made.plan)
        for cell in made.cells:
            recorder.add(cell)
        journal = time.process_time()
        run = recorder.run(made.environments, known)
        finished = time.process_time()
        report.write(run, recorder.folder)
        written = time.process_time()
        recorder.close()
    print(json.dumps({
        "seconds": written - started, "journal_s": journal - started, "breaks_s": finished - journal,
        "reports_s": written - finished,
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
