"""The library's API: docs/api.md runs as it is written, and gives what the command gives."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import UsageError
from harness.runner import CheckRequest, Places, Selection, check, planned
from harness.runner.folder import Recorder
from tests.support.mini.world import HANDLER, REPOSITORY, World

PAGE = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")


def places(world: World, reports: Path | None = None) -> Places:
    """The folders of a world."""
    return Places(world.matrices, world.fixtures, reports)


def request(world: World, *releases: str, **more: Any) -> CheckRequest:
    """A check of release 1.0's fixtures under other releases."""
    loaders = tuple(world.spec(release) for release in releases)
    return CheckRequest(loaders=loaders, worker_handler=HANDLER, **{"places": places(world), **more})


def test_the_page_runs(mini: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Its names of creators, loaders and scenarios are replaced by those of a world of fake libraries."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    # a change takes environments that are built: tests/end_to_end/test_against.py
    code = "\n".join(block for block in blocks if "check_change" not in block)
    folders = f'matrices=Path("{mini.matrices}"), fixtures=Path("{mini.fixtures}")'
    named = {
        'creator="v061"': f'creator="{mini.spec("1.0")}", worker_handler=Path("{HANDLER}")',
        "Places(fixtures": f'Places(matrices=Path("{mini.matrices}"), fixtures',
        '"v061"': f'"{mini.name("1.0")}"', '"current"': f'"{mini.spec("2.0")}"', '"../peft"': f'"{mini.spec("2.1")}"',
        '"lora"': '"two-layers"', '"lora-linear"': '"two-layers"',
        "CheckRequest(\n": f'CheckRequest(worker_handler=Path("{HANDLER}"),\n',
        "Places(reports": f"Places({folders}, reports", "Places()": f"Places({folders})",
    }  # fmt: skip
    for name, there in named.items():
        assert name in code
        code = code.replace(name, there)
    monkeypatch.chdir(mini.root)
    found: dict[str, Any] = {}
    exec(compile(code, "docs/api.md", "exec"), found)
    assert {str(cell.verdict) for cell in found["run"].cells} == {"exact", "silent-wrong"}
    assert found["run"].exit_code == 1
    assert found["finished"] != []
    assert found["earlier"].cells == found["run"].cells
    assert (mini.root / "rendered" / "report.html").is_file()
    assert {one.outcome for one in found["made"]} == {"stored", "unsupported"}
    assert {str(cell.verdict) for cell in found["elsewhere"].cells} == {"not-comparable"}, "no worker ran there"
    assert found["judgement"].verdict == "exact"
    assert "silent-wrong" in capsys.readouterr().out


def test_every_function_that_the_page_names_is_there() -> None:
    """A dotted name of a module, or of something in one."""
    import pkgutil

    for name in sorted(set(re.findall(r"`(harness(?:\.\w+)+)`", PAGE))):
        assert pkgutil.resolve_name(name) is not None


def test_a_check_gives_the_commands_cells_and_writes_nothing_unasked(mini: World) -> None:
    before = set(mini.root.rglob("*"))
    run = check(request(mini, "2.0", "2.1"))
    assert {path for path in set(mini.root.rglob("*")) - before if path != mini.trace} == set()
    mini.run("check", "--loader", mini.spec("2.0"), "--loader", mini.spec("2.1"))
    same = mini.report()
    assert [(c.id, c.verdict, c.findings) for c in run.cells] == [(c.id, c.verdict, c.findings) for c in same.cells]
    assert (run.exit_code, run.counts, run.left_out, run.plan) == (1, same.counts, same.left_out, same.plan)
    assert {one.name: one.versions for one in run.environments} == {e.name: e.versions for e in same.environments}


def test_known_breaks_apply(mini: World) -> None:
    mini.expect()
    run = check(request(mini, "2.1"))
    assert [(cell.scenario, cell.expectation) for cell in run.cells if cell.expected] == [("two-layers", "scaling")]
    assert run.exit_code == 0


def test_a_run_goes_on_where_it_stopped(mini: World) -> None:
    asked = request(mini, "2.0", places=places(mini, mini.reports))
    whole = check(asked)
    folder = mini.reports / whole.id
    (folder / "report.json").unlink()
    lines = (folder / "cells.jsonl").read_text().splitlines()
    (folder / "cells.jsonl").write_text(lines[0] + "\n")
    mini.trace.unlink()
    again = check(request(mini, "2.0", places=asked.places, resume=True))
    assert again.id == whole.id
    assert {cell.id for cell in again.cells} == {cell.id for cell in whole.cells}
    assert len(mini.traced("replay")) <= len(lines) - 1


def test_a_plan_starts_nothing_and_says_what_is_wrong(mini: World) -> None:
    asked = request(mini, "2.0", selection=Selection(keyword="one or two"))
    assert [cell.declared.name for cell in planned(asked)] == ["two-layers", "one-layer"]
    assert not mini.trace.exists()
    with pytest.raises(UsageError):
        planned(request(mini, "2.0", selection=Selection(keyword="nothing is called so")))
    with pytest.raises(UsageError):
        planned(request(mini, "2.0", every_creator=True, creators=("v1",)))


def test_a_folder_is_free_after_an_error(mini: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that an exception ends can be resumed in the same process."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("disk full")

    asked = request(mini, "2.0", places=places(mini, mini.reports))
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "run", broken)
        with pytest.raises(RuntimeError):
            check(asked)
    run = check(request(mini, "2.0", places=asked.places, resume=True))
    assert len(run.cells) == len(run.plan) == 3


@pytest.mark.parametrize(
    "wrong",
    [{"jobs": -1}, {"time_limit": 0.0}, {"time_limit": math.nan}, {"time_limit": math.inf}, {"creators": "v061"},
     {"loaders": "current"}, {"cells": "*"}],
    ids=str,
)  # fmt: skip
def test_a_request_that_would_be_misread_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as error:
        CheckRequest(**wrong)
    assert next(iter(wrong)) in error.value.found
    assert error.value.expected
    assert error.value.next_step


def test_no_module_has_the_name_of_what_the_package_offers() -> None:
    """Importing such a module would put it in the place of the function."""
    import harness.runner

    folder = Path(harness.runner.__file__).parent
    assert not {path.stem for path in folder.iterdir()} & set(harness.runner.__all__)
