"""The changes that `check --against` was measured with: well-formed, and the page shows their results."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import changes_page
from benchmarks.changes import KINDS, RESULTS, Change, changes, of_different_methods, results, stacks

SHARED = Change("a", "peft/x.py", "old", "new", "break", "LoRA", "It breaks.")


def test_changes_are_well_formed() -> None:
    every = changes()
    assert len({one.id for one in every}) == len(every)
    assert {one.kind for one in every} <= set(KINDS)
    assert all(one.old != one.new for one in every)
    assert all(one.what.endswith(".") for one in every)


def test_the_page_shows_the_results() -> None:
    page = changes_page.page(changes(), results(RESULTS), changes_page.reasons())
    assert changes_page.PAGE.read_text(encoding="utf-8") == page


def test_reasons_are_of_missed_breaks() -> None:
    missed = {id for id, result in results(RESULTS).items() if result.exit_code == 0}
    reasons = changes_page.reasons()
    undetermined = reasons.pop(changes_page.UNDETERMINED, {})
    assert {results(RESULTS)[id].exit_code for id in undetermined} <= {2}
    explained = [id for each in reasons.values() for id in each]
    assert set(explained) <= missed
    assert len(explained) == len(set(explained)), "one reason each"
    assert reasons.keys() <= changes_page.REASONS.keys()


@pytest.mark.parametrize(
    ("text", "after", "changed"),
    [
        ("an old one", "", "an new one"),
        ("old, then old", "then", "old, then new"),
        ("old old", "", None),
        ("none", "", None),
        ("old, then none", "then", None),
    ],
)
def test_a_change_needs_one_place(text: str, after: str, changed: str | None) -> None:
    change = Change("a", "peft/x.py", "old", "new", "break", "LoRA", "It breaks.", after)
    if changed is None:
        with pytest.raises(ValueError, match="the old text occurs"):
            change.changed(text)
    else:
        assert change.changed(text) == changed


def test_changes_in_one_tree_are_of_different_methods() -> None:
    places = {"b": ("peft", "LoRA"), "c": ("peft", "VeRA"), "d": ("bitsandbytes", "VeRA")}
    lora, vera, other = (replace(SHARED, id=id, file=f"{top}/x.py", area=area) for id, (top, area) in places.items())
    assert of_different_methods([SHARED, lora, vera, other], 9) == [[SHARED, vera], [lora], [other]]
    assert stacks([SHARED, other, lora, vera]) == [[SHARED, lora, vera], [other]]
    assert of_different_methods([SHARED, lora, vera, other], 1) == [[SHARED], [lora], [vera], [other]]
