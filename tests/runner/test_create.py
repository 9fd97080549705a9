"""Creating as a library call, what a manifest keeps of a worker's facts, and how a worker is started."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.errors import UsageError
from harness.runner import create
from harness.runner.create import CreateRequest
from harness.runner.request import Places, Selection
from harness.runner.workers.process import worker_command
from tests.support.mini.world import HANDLER, World


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


def test_create_is_a_library_call(mini: World, tmp_path: Path) -> None:
    request = CreateRequest(
        mini.spec("1.0"), Places(mini.matrices, tmp_path / "new"), Selection("one-layer or later"),
        worker_handler=HANDLER,
    )  # fmt: skip
    lines: list[str] = []
    made = create.create(request, lines.append)
    assert {one.scenario: one.outcome for one in made} == {"one-layer": "stored", "later": "unsupported"}
    assert lines[-1].startswith("[2/2] ")
    assert {one.outcome for one in create.create(request)} == {"unchanged", "unsupported"}
    assert [(one.scenario, one.outcome) for one in create.recreate(request)] == [("one-layer", "same")]


BAD = [
    (CreateRequest("x", replace=True), "--replace without --reason"),
    (CreateRequest("x", replace=True, reason="  "), "--replace without --reason"),
    (CreateRequest("x", selection=Selection("no-such-scenario")), "no scenario is selected"),
]


@pytest.mark.parametrize(("request_", "found"), BAD)
def test_a_request_that_can_create_nothing_is_refused(mini: World, request_: CreateRequest, found: str) -> None:
    with pytest.raises(UsageError) as caught:
        create.create(replace(request_, places=Places(mini.matrices, mini.fixtures)))
    assert found in caught.value.found
