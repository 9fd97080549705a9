"""A part of a cell's work in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.worker.serve import apart

REPOSITORY = Path(__file__).parents[2]
AROUND = "import os, signal\nfrom harness.worker.serve import apart\n{work}\napart.run(work)\nprint('went on')"


def ended(work: str) -> subprocess.CompletedProcess[str]:
    """A process that does this work apart."""
    code = AROUND.format(work="def work():\n    " + work)
    return subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_what_is_left_in_its_process_is_not_left_in_ours(tmp_path: Path) -> None:
    once: list[int] = []

    def work() -> None:
        once.append(1)
        (tmp_path / "file").write_text("stays")

    apart.run(work)
    assert once == []
    assert (tmp_path / "file").read_text() == "stays"


@pytest.mark.parametrize(
    ("work", "code"),
    [
        ("pass", 0),
        ("os._exit(3)", 3),
        ("raise ValueError('its own words')", 70),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
    ],
)
def test_it_ends_as_its_part_ended(work: str, code: int) -> None:
    said = ended(work)
    assert said.returncode == code
    assert ("went on" in said.stdout) is (code == 0)
    assert ("its own words" in said.stderr) is (code == 70)


def test_what_was_printed_is_printed_once() -> None:
    said = ended("print('inside')")
    assert said.stdout.splitlines() == ["inside", "went on"]
