"""What a manifest keeps of a worker's facts, and how a worker is started."""

from __future__ import annotations

from pathlib import Path

from harness.runner import create
from harness.runner.workers.process import worker_command


def test_evidence_keeps_what_numbers_hang_on_and_no_path() -> None:
    environ = {"OMP_NUM_THREADS": "1", "MKL_CBWR": "COMPATIBLE", "HF_HOME": "/home/me", "PYTHONHASHSEED": "0"}
    facts = {
        "python": "3.11", "threads": 1, "import_s": 9.0, "executable": "/home/me/python",
        "numerics": {"environ": environ, "libc": "glibc 2.36", "executable": "/home/me/python"},
    }  # fmt: skip
    kept = create.evidence(facts)
    assert kept == {
        "python": "3.11", "threads": 1, "libc": "glibc 2.36",
        "pins": {"OMP_NUM_THREADS": "1", "MKL_CBWR": "COMPATIBLE", "PYTHONHASHSEED": "0"},
    }  # fmt: skip
    assert create.evidence({}) == {"pins": {}}


def test_a_worker_has_its_own_handler_unless_told() -> None:
    assert worker_command(Path("/x/python"))[-1] == "--serve"
    command = worker_command(Path("/x/python"), Path("/y/cell.py"))
    assert (command[0], command[-3:]) == ("/x/python", ["--serve", "--handler", "/y/cell.py"])
