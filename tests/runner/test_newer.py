"""Which newer creators' adapters are checked as well, as the baseline's cells become known."""

from __future__ import annotations

import dataclasses

import pytest

from harness.core.matrix import CellId
from harness.core.run import Cell
from harness.core.verdict import Verdict
from harness.runner.change.newer import NewerCreators
from harness.runner.plan import Planned
from tests.support import samples

CREATORS = ("v061", "v0100", "v0140", "v0191", "v0212")


def planned(scenario: str, creator: str) -> list[Planned]:
    return [dataclasses.replace(_PLANNED, id=CellId(scenario, creator, loader, "cpu")) for loader in ("mine", "base")]


_PLANNED = Planned(CellId("s", "c", "l", "cpu"), None, "c", "l")  # type: ignore[arg-type]


def baseline(creator: str, verdict: Verdict) -> Cell:
    return samples.cell("a", verdict, creator=creator)


@pytest.mark.parametrize(
    ("verdicts", "asked"),
    [
        ([Verdict.EXACT], []),
        ([Verdict.WARNED], []),
        ([Verdict.UNSUPPORTED], []),
        ([Verdict.SILENT_WRONG, Verdict.CLOSE], ["v0212"]),
        ([Verdict.NOT_COMPARABLE, Verdict.CLOSE], ["v0212"]),
        ([Verdict.LOAD_ERROR, Verdict.CONTRACT, Verdict.EXACT], ["v0212", "v0140"]),
        ([Verdict.LOAD_ERROR, Verdict.CONTRACT, Verdict.CRASH], ["v0212", "v0140"]),
    ],
)
def test_the_newest_and_then_one_in_the_middle(verdicts: list[Verdict], asked: list[str]) -> None:
    newer = NewerCreators({"a": CREATORS}, planned)
    creators, found = ["v061"], []
    for verdict in verdicts:
        cells = newer.after(baseline(creators[-1], verdict))
        found += sorted({cell.id.creator for cell in cells})
        creators += found[-1:]
    assert found == asked
    assert newer.words.startswith(f"+{4 * len(asked) // 2} cells: 1 of 1 deviate" if asked else "")
    every_one_hides = not any(verdict.is_clean or verdict is Verdict.UNSUPPORTED for verdict in verdicts)
    assert bool(newer.blind()) == every_one_hides


def test_a_scenario_that_no_other_creator_has_is_blind() -> None:
    newer = NewerCreators({"a": ("v061",)}, planned)
    assert newer.after(baseline("v061", Verdict.SILENT_WRONG)) == ()
    assert newer.blind() == {"a": "silent-wrong with the adapter of v061"}
    assert newer.words == ""


def test_where_the_user_names_creators_none_is_added() -> None:
    newer = NewerCreators({}, planned)
    assert newer.after(baseline("v061", Verdict.SILENT_WRONG)) == ()
