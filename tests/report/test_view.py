"""The report as data: its sections, their order, and what each of them holds.

The goldens are views as JSON, without titles and sentences. After an intended change, run
`python -m tests.report.test_view` and read the difference before you commit it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.core.run import Cell, Run
from harness.core.verdict import Verdict
from harness.report import view
from harness.report.html import data as html_data
from harness.report.view import Section
from tests.report.test_grid import run as grid_run
from tests.support import samples

GOLDEN = Path(__file__).parent / "golden"
WORDING = ("title", "note", "sentence", "headline", "meaning", "forward", "remark", "about")
RUNS: dict[str, Callable[[], Run]] = {
    "against-baseline": samples.against_baseline,
    "every-verdict": samples.every_verdict,
    "across-releases": samples.across_releases,
    "clean": samples.clean,
    "grid": grid_run,
    "nothing": samples.nothing,
    "hostile": lambda: samples.hostile("\x1b[31m[red]| <b>\n`\u202e"),
}


def as_data(value: Any) -> Any:
    """A view as plain values without its wording; a section has its id."""
    if isinstance(value, Cell):
        return value.id
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        named = {"section": value.id} if isinstance(value, Section) else {}
        return named | {name: as_data(each) for name, each in fields.items() if name not in WORDING}
    if isinstance(value, tuple | list):
        return [as_data(each) for each in value]
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def text(name: str) -> str:
    """A golden's content."""
    return json.dumps(as_data(view.build(RUNS[name]())), indent=1) + "\n"


@pytest.mark.parametrize("name", RUNS)
def test_the_view_is_as_reviewed(name: str) -> None:
    assert text(name) == (GOLDEN / f"{name}.json").read_text(encoding="utf-8")


def sections(run: Run) -> dict[str, Any]:
    """The sections of a run's view by id."""
    return {section.id: section for section in view.build(run).sections}


ORDER = ["failures", "baseline", "grid", "causes", "problems", "undetermined", "structure", "known", "aside",
         "environments", "cells", "notices"]  # fmt: skip


@pytest.mark.parametrize("run", [make() for make in RUNS.values()])
def test_sections_have_one_order(run: Run) -> None:
    found = list(sections(run))
    assert found == [name for name in ORDER if name in found]


def test_an_empty_run_has_no_section_but_its_environments() -> None:
    assert list(sections(samples.empty())) == ["environments"]


def test_causes_have_one_cell_in_full_and_the_others_listed() -> None:
    found = sections(samples.regressed())
    assert [(group.number, group.verdict, len(group.cells)) for group in found["causes"].groups] == [
        (1, Verdict.SILENT_WRONG, 3),
        (2, Verdict.SILENT_WRONG, 1),
        (3, Verdict.LOAD_ERROR, 1),
    ]
    first = found["causes"].groups[0]
    assert first.facts[-1].label == "reproduce"
    assert [line.index for line in first.cells] == [3, 2, 4]
    (known,) = found["known"].groups
    assert known.number == 4
    assert (known.issue, known.lasts) == ("https://github.com/huggingface/peft/issues/1", "until 2027-06-30")


def test_causes_have_the_numbers_of_the_html_filter() -> None:
    numbers = html_data.index(samples.regressed())["cause"]
    found = sections(samples.regressed())
    for group in found["causes"].groups + found["known"].groups:
        assert {numbers[line.index] for line in group.cells} == {group.number}


def test_what_was_not_compared_has_its_reason() -> None:
    found = sections(samples.every_verdict())
    undetermined = found["undetermined"]
    assert {group.verdict for group in undetermined.groups} == {each for each in Verdict if each.cannot_tell}
    assert undetermined.not_run == ("lora-never@v061:current[cpu]",)
    assert found["aside"].left_out == (("takes an hour; ask with --slow", ("lora-slow",)),)
    assert [group.title for group in found["aside"].unsupported] == [
        "the reason for refused",
        "the reason for unsupported",
    ]
    assert [problem.problem for problem in found["problems"].problems] == ["stale", "expired"]


def test_regressions_come_first_in_the_comparison() -> None:
    kinds = sections(samples.against_baseline())["baseline"].kinds
    assert [change.name for change in kinds] == ["regressed", "new", "gone", "fixed", "still"]
    assert kinds[0].rows == (("exact → silent-wrong", "lokr-alpha@v061:current[cpu]", 2),)
    assert kinds[2].rows[0][2] is None


def test_environments_are_side_by_side_with_their_differences() -> None:
    found = sections(samples.regressed())["environments"]
    assert found.names == ("v061", "current")
    assert [name for name, _ in found.differing] == ["peft", "transformers", "accelerate"]
    assert dict(found.differing)["peft"] == ("0.6.1", "0.21.2")
    assert dict(found.alike) == {"torch": "2.13.0+cpu", "safetensors": "0.6.2", "python": "3.11.7"}
    assert found.fixtures == "1 checkpoint read, digests intact (1 committed); 1 missing"


def test_a_failed_environment_does_not_make_all_packages_differ() -> None:
    failed = samples.environment("current", "", "loader", failed="no").model_copy(update={"versions": {}, "python": ""})
    found = sections(samples.run(samples.cell("a", "env-failed"), environments=(samples.V061, failed)))
    assert found["environments"].differing == ()
    assert found["failures"].environments == (("current", "no"),)


def test_a_whole_view_shortens_no_fact() -> None:
    run = samples.run(samples.wrong("lokr-alpha", config_differences=tuple(f"key{n}" for n in range(9))))
    facts = [len(view.build(run, whole).sections[0].groups[0].facts) for whole in (False, True)]  # type: ignore[union-attr]
    assert facts[1] > facts[0]


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name in RUNS:
        (GOLDEN / f"{name}.json").write_text(text(name), encoding="utf-8")
