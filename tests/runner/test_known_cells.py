"""What the cache of baseline cells depends on."""

from __future__ import annotations

import subprocess
import sys

from harness.core import data
from harness.runner.change import known_cells

_LOADED = """
import sys
import harness.runner.session
print(*(module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] == "harness"))
"""


def test_all_code_that_a_session_runs_decides() -> None:
    found = subprocess.run(
        [sys.executable, "-c", _LOADED], capture_output=True, text=True, check=True, cwd=data.CODE.parent
    )
    loaded = {name.removeprefix(f"{data.CODE}/") for name in found.stdout.split()}
    assert "judge/compare.py" in loaded
    assert loaded <= set(known_cells.deciding())


def test_the_whole_worker_decides_and_no_report_does() -> None:
    deciding = set(known_cells.deciding())
    assert {path.relative_to(data.CODE).as_posix() for path in (data.CODE / "worker").rglob("*.py")} <= deciding
    assert not [name for name in deciding if name.startswith(("cli/", "report/", "deviation/"))]
