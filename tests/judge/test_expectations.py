"""Expectations as a long table: what is stated, what was found, what comes of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import UsageError
from harness.core.run import Cell, Finding
from harness.core.verdict import Verdict
from harness.judge import expectations as expect
from harness.judge.expectations import Expectation

TODAY = date(2026, 6, 1)
VERSIONS = {
    "v061": {"peft": "0.6.1", "transformers": "4.35.0"},
    "v070": {"peft": "0.7.0", "transformers": "4.36.0"},
    "current": {"peft": "0.20.0", "transformers": "5.2.0"},
    "dev": {"peft": "0.21.0.dev0", "transformers": "5.2.0"},
}

TOML = """
[[expectation]]
id = "lora-bias-key-renamed"
scenarios = ["lora-bias-*"]
creators = "peft<0.7"
loaders = "peft>=0.7"
verdict = "silent-wrong"
kinds = ["values", "lost-tensors"]
issue = "https://github.com/huggingface/peft/issues/1"
reason = "the keys were renamed"
expires = 2027-05-31
"""


def stated(**changes: Any) -> Expectation:
    fields: dict[str, Any] = {
        "id": "e1",
        "scenarios": ["lora-*"],
        "creators": "peft<0.7",
        "loaders": "peft>=0.7",
        "verdict": "silent-wrong",
        "issue": "https://example.org/1",
        "reason": "known",
        "expires": date(2026, 6, 1),
    }
    return Expectation(**(fields | changes))


KIND_OF = {Verdict.SILENT_WRONG: "values", Verdict.WARNED: "new-warning", Verdict.LOAD_ERROR: "error"}


def finding(kind: str, verdict: Verdict) -> Finding:
    return Finding(probe="forward", kind=kind, verdict=verdict, message="…")


def cell(
    verdict: str = "silent-wrong",
    kinds: Iterable[str] | None = None,
    *,
    scenario: str = "lora-linear",
    creator: str = "v061",
    loader: str = "current",
    device: str = "cpu",
    also: tuple[Finding, ...] = (),
) -> Cell:
    """A cell whose findings all have its verdict, and further ones."""
    parsed = Verdict(verdict)
    if kinds is None:
        kinds = [KIND_OF[parsed]] if parsed in KIND_OF else []
    return Cell(
        id=f"{scenario}@{creator}:{loader}[{device}]",
        scenario=scenario,
        creator=creator,
        loader=loader,
        device=device,
        verdict=parsed,
        findings=tuple(finding(kind, parsed) for kind in kinds) + also,
    )


def outcome(cells: list[Cell], *expectations: Expectation, **more: Any) -> tuple[list[str], list[tuple[str, str]]]:
    """(covering expectation of each cell or "", (id, problem) of each problem)."""
    judged, problems = expect.apply(cells, expectations, VERSIONS, TODAY, **more)
    assert [c.id for c in judged] == [c.id for c in cells]
    assert all(c.expected == bool(c.expectation) for c in judged)
    return [c.expectation for c in judged], [(p.id, p.problem) for p in problems]


WARNING = finding("new-warning", Verdict.WARNED)
CONTRACT = finding("config", Verdict.CONTRACT)
MISMATCH = [("e1", "mismatch")]
STALE = [("e1", "stale")]


def noting(note: str) -> Cell:
    return cell().model_copy(update={"notes": (note,)})


# what the expectation says besides the defaults, the cell, its covering expectation, the problems
TABLE: list[tuple[str, dict[str, Any], Cell, str, list[tuple[str, str]]]] = [
    ("as stated", {}, cell(), "e1", []),
    ("on its last day", {"expires": TODAY}, cell(), "e1", []),
    ("another verdict, less bad", {}, cell("contract"), "", MISMATCH),
    ("another verdict, worse", {"verdict": "contract"}, cell(), "", MISMATCH),
    ("an error for a wrong value", {}, cell("load-error"), "", MISMATCH),
    ("a crash", {"verdict": "crash", "kinds": ["error"]}, cell("crash"), "e1", []),
    ("every kind where none is stated", {}, cell(kinds=["values", "lost-tensors"]), "e1", []),
    ("its kinds", {"kinds": ["values", "lost-tensors"]}, cell(kinds=["lost-tensors", "values"]), "e1", []),
    ("some of its kinds", {"kinds": ["values", "lost-tensors"]}, cell(), "e1", []),
    ("a kind too many", {"kinds": ["values"]}, cell(kinds=["values", "lost-tensors"]), "", MISMATCH),
    ("a lesser deviation of another kind", {"kinds": ["values"]}, cell(also=(CONTRACT,)), "", MISMATCH),
    ("a lesser deviation, all kinds", {}, cell(also=(CONTRACT,)), "e1", []),
    ("a warning is no deviating finding", {"kinds": ["values"]}, cell(also=(WARNING,)), "e1", []),
    ("exact", {}, cell("exact"), "", STALE),
    ("close", {}, cell("close"), "", STALE),
    ("warned for a deviation", {}, cell("warned"), "", STALE),
    ("a warning as stated", {"verdict": "warned"}, cell("warned"), "e1", []),
    ("a warning of its kind", {"verdict": "warned", "kinds": ["new-warning"]}, cell("warned"), "e1", []),
    ("a warning of another kind", {"verdict": "warned", "kinds": ["values"]}, cell("warned"), "", MISMATCH),
    ("no warning any more", {"verdict": "warned"}, cell("exact"), "", STALE),
    ("a deviation for a warning", {"verdict": "warned"}, cell("contract"), "", MISMATCH),
    *((f"cannot tell: {v}", {}, cell(v), "", []) for v in Verdict if v.cannot_tell),
    ("unsupported", {}, cell("unsupported"), "", []),
    ("another scenario", {}, cell(scenario="ia3"), "", []),
    ("another scenario that is clean", {}, cell("exact", scenario="ia3"), "", []),
    ("a newer creator", {}, cell(creator="v070"), "", []),
    ("an older loader", {}, cell(loader="v061"), "", []),
    ("a development version", {"loaders": "peft>=0.21"}, cell(loader="dev"), "e1", []),
    ("two packages", {"loaders": "peft>=0.7, transformers>=5"}, cell(), "e1", []),
    ("one of two packages", {"loaders": "peft>=0.7, transformers>=5"}, cell(loader="v070"), "", []),
    ("a package that is not there", {"loaders": "bitsandbytes>=0"}, cell(), "", []),
    ("an environment without versions", {}, cell(loader="broken"), "", []),
    ("environments by name", {"creators": ["v06*"], "loaders": ["v0*", "current"]}, cell(), "e1", []),
    ("a name without versions", {"loaders": ["bro*"]}, cell(loader="broken"), "e1", []),
    ("other names", {"creators": ["v07*"]}, cell(), "", []),
    ("a name in another case", {"creators": ["V06*"]}, cell(), "", []),
    ("its device", {"devices": ["cpu"]}, cell(), "e1", []),
    ("devices by glob", {"devices": ["cuda*"]}, cell(device="cuda:0"), "e1", []),
    ("another device", {"devices": ["cuda*"]}, cell(), "", []),
    ("its note", {"noted": "*out anew*"}, noting("14 of 14 laid out anew"), "e1", []),
    ("another note", {"noted": "*out anew*"}, noting("left as it was"), "", []),
    ("no note", {"noted": "*out anew*"}, cell("exact"), "", []),
    ("a note that must not be there", {"noted": "!*out anew*"}, noting("14 of 14 laid out anew"), "", []),
    ("another note than that", {"noted": "!*out anew*"}, noting("left as it was"), "e1", []),
    ("no note, as it must be", {"noted": "!*out anew*"}, cell(), "e1", []),
    ("expired and it deviates", {"expires": date(2026, 5, 31)}, cell(), "", [("e1", "expired")]),
    ("expired and it is clean", {"expires": date(2026, 5, 31)}, cell("exact"), "", [("e1", "expired")]),
    ("expired and of another kind", {"expires": date(2026, 5, 31)}, cell("contract"), "", [("e1", "expired")]),
    ("expired, and of no cell here", {"expires": date(2020, 1, 1)}, cell(scenario="ia3"), "", []),
]


@pytest.mark.parametrize(("says", "found", "covered", "problems"), [pytest.param(*row[1:], id=row[0]) for row in TABLE])
def test_what_comes_of_an_expectation(
    says: dict[str, Any], found: Cell, covered: str, problems: list[tuple[str, str]]
) -> None:
    assert outcome([found], stated(**says)) == ([covered], problems)


def test_a_covered_cell_says_why() -> None:
    (judged,), problems = expect.apply([cell()], [stated()], VERSIONS, TODAY)
    assert judged == cell().model_copy(
        update={
            "expected": True,
            "expectation": "e1",
            "expectation_issue": "https://example.org/1",
            "expectation_expires": "2026-06-01",
            "expectation_reason": "known",
        }
    )
    assert not judged.deviates
    assert problems == ()


def test_nothing_of_nothing() -> None:
    assert expect.apply([], [stated()], VERSIONS, TODAY) == ((), ())
    assert outcome([cell()]) == ([""], [])


SEVERAL: list[tuple[str, list[Expectation], list[Cell], list[str], list[tuple[str, str]]]] = [
    ("the first that matches", [stated(), stated(id="e2")], [cell()], ["e1"], []),
    ("the one whose verdict matches", [stated(verdict="contract"), stated(id="e2")], [cell()], ["e2"], MISMATCH),
    ("the one whose kinds match", [stated(kinds=["lost-tensors"]), stated(id="e2")], [cell()], ["e2"], MISMATCH),
    ("each must hold", [stated(), stated(id="e2")], [cell("exact")], [""], [*STALE, ("e2", "stale")]),
    ("not the expired one", [stated(expires=date(2026, 1, 1)), stated(id="e2")], [cell()], ["e2"], [("e1", "expired")]),
    ("one cell agrees again", [stated()], [cell(), cell("exact", scenario="lora-b")], ["e1", ""], STALE),
    (
        "stale here, otherwise there",
        [stated()],
        [cell(), cell("exact", scenario="lora-b"), cell("crash", scenario="lora-c")],
        ["e1", "", ""],
        STALE + MISMATCH,
    ),
    ("one could not be compared", [stated()], [cell(), cell("no-fixture", scenario="lora-b")], ["e1", ""], []),
    (
        "one expectation each",
        [stated(id="e2", scenarios=["ia3"]), stated()],
        [cell(), cell(scenario="ia3")],
        ["e1", "e2"],
        [],
    ),
]


@pytest.mark.parametrize(
    ("expectations", "cells", "covered", "problems"), [pytest.param(*row[1:], id=row[0]) for row in SEVERAL]
)
def test_several_expectations_and_cells(
    expectations: list[Expectation], cells: list[Cell], covered: list[str], problems: list[tuple[str, str]]
) -> None:
    assert outcome(cells, *expectations) == (covered, problems)


@pytest.mark.parametrize(("found", "problems"), [(cell("exact"), []), (cell("contract"), MISMATCH), (cell(), [])])
def test_half_a_look_makes_nothing_stale(found: Cell, problems: list[tuple[str, str]]) -> None:
    assert outcome([found], stated(), complete=False)[1] == problems


@pytest.mark.parametrize(
    ("says", "cells", "parts"),
    [
        (
            {},
            [cell(), cell("exact", scenario="lora-b"), cell("close", scenario="lora-c")],
            [
                "2 of 3 cells no longer deviate",
                "lora-b@v061:current[cpu] is exact",
                "lora-c@v061:current[cpu] is close",
                "expected: silent-wrong",
                "Next: narrow it",
            ],
        ),
        ({}, [cell("exact")], ["1 of 1 cell no longer deviates", "Next: remove the expectation"]),
        (
            {"kinds": ["values"]},
            [cell(kinds=["values", "lost-tensors"])],
            [
                "lora-linear@v061:current[cpu] is silent-wrong (lost-tensors, values)",
                "expected: silent-wrong (values)",
                "Next:",
            ],
        ),
        (
            {"expires": date(2026, 1, 1)},
            [cell(), cell("exact", scenario="lora-b")],
            [
                "expired on 2026-01-01 (today is 2026-06-01)",
                "2 cells",
                "1 shows silent-wrong: lora-linear@",
                "set a later date",
            ],
        ),
        ({"expires": date(2026, 1, 1)}, [cell("exact")], ["0 show silent-wrong", "Next: remove the expectation"]),
        (
            {},
            [cell("exact", scenario=f"lora-{n}") for n in range(20)],
            ["lora-7@v061:current[cpu] is exact and 12 more"],
        ),
    ],
)
def test_a_problem_says_what_was_found_expected_and_is_next(
    says: dict[str, Any], cells: list[Cell], parts: list[str]
) -> None:
    _, (problem,) = expect.apply(cells, [stated(**says)], VERSIONS, TODAY)
    assert [part for part in parts if part not in problem.message] == []
    assert "\n" not in problem.message


# ---- invariants -----------------------------------------------------------------------------------------------------

_CELLS = st.lists(
    st.builds(
        cell,
        st.sampled_from([str(verdict) for verdict in Verdict]),
        st.lists(st.sampled_from(["values", "error", "lost-tensors"]), max_size=2),
        scenario=st.sampled_from(["lora-a", "lora-b", "ia3"]),
        creator=st.sampled_from(["v061", "v070"]),
    ),
    max_size=6,
)
_EXPECTATIONS = st.lists(
    st.builds(
        stated,
        id=st.sampled_from(["e1", "e2"]),
        verdict=st.sampled_from([str(v) for v in Verdict if v.is_deviation or v is Verdict.WARNED]),
        kinds=st.none() | st.lists(st.sampled_from(["values", "error"]), min_size=1),
        scenarios=st.lists(st.sampled_from(["lora-*", "ia3", "*"]), min_size=1),
        expires=st.sampled_from([date(2026, 5, 31), date(2026, 6, 1)]),
    ),
    max_size=4,
)


@given(cells=_CELLS, expectations=_EXPECTATIONS)
def test_applying_twice_is_applying_once_and_only_the_mark_changes(
    cells: list[Cell], expectations: list[Expectation]
) -> None:
    judged, problems = expect.apply(cells, expectations, VERSIONS, TODAY)
    assert expect.apply(judged, expectations, VERSIONS, TODAY) == (judged, problems)
    assert expect.apply(judged, [], VERSIONS, TODAY) == (tuple(cells), ())


@given(cells=_CELLS, expectations=_EXPECTATIONS)
def test_what_is_expected_deviates_and_is_covered(cells: list[Cell], expectations: list[Expectation]) -> None:
    for judged in expect.apply(cells, expectations, VERSIONS, TODAY)[0]:
        covering = [e for e in expectations if e.expires >= TODAY and expect.covers(e, judged, VERSIONS)]
        assert judged.expected == bool(covering)
        assert not judged.expected or judged.verdict.is_deviation or judged.verdict is Verdict.WARNED


# ---- the file -------------------------------------------------------------------------------------------------------


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "expectations.toml"
    path.write_text(text)
    return path


def test_a_file_is_read(tmp_path: Path) -> None:
    (read,) = expect.load(written(tmp_path, TOML))
    assert (read.id, read.verdict, read.devices) == ("lora-bias-key-renamed", Verdict.SILENT_WRONG, None)
    assert (read.kinds, read.expires) == (["values", "lost-tensors"], date(2027, 5, 31))


@pytest.mark.parametrize("text", [None, "", "# nothing known yet\n"])
def test_no_file_or_an_empty_one_has_none(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "expectations.toml" if text is None else written(tmp_path, text)
    assert expect.load(path) == ()


def test_the_commented_example_of_the_matrix_can_be_used_as_it_is(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "matrices" / "expectations.toml").read_text()
    example = re.sub(r"^# (?=\[\[|\w+ = )", "", text, flags=re.MULTILINE)
    assert [e.id for e in expect.load(written(tmp_path, example))][:1] == ["lora-bias-key-renamed"]


LINES = {line.split(" = ")[0]: line for line in TOML.splitlines() if " = " in line}


@pytest.mark.parametrize("key", sorted(set(LINES) - {"kinds"}))
def test_a_required_key_is_missed(tmp_path: Path, key: str) -> None:
    with pytest.raises(UsageError, match=rf"key `expectation\[0\]\.{key}` is missing"):
        expect.load(written(tmp_path, TOML.replace(LINES[key] + "\n", "")))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("id", '"Two Words"', "should match pattern"),
        ("scenarios", "[]", "at least 1 item"),
        ("scenarios", '[""]', "is no glob"),
        ("scenarios", '["lora-[ab"]', "a bracket is not closed"),
        ("scenarios", '" lora"', "valid list"),
        ("creators", '"peft<"', "is no condition"),
        ("creators", '""', "is no condition"),
        ("creators", '"v06*"', "is no condition"),
        ("creators", '"v061"', "a list for environment names: ['v061']"),
        ("creators", "[]", "a version condition like"),
        ("creators", "7", "a version condition like"),
        ("loaders", '["ok", " x"]', "spaces around it"),
        ("loaders", '["ok", 1]', "a version condition like"),
        ("verdict", '"wrong"', "'silent-wrong', 'load-error'"),
        ("verdict", '"exact"', "a deviation: one of silent-wrong, load-error"),
        ("verdict", '"no-fixture"', "nothing else can be expected"),
        ("kinds", "[]", "at least 1 item"),
        ("issue", '"http://example.org/1"', "an https address"),
        ("issue", '"https://"', "an https address"),
        ("issue", '"later"', "an https address"),
        ("reason", '""', "a reason in words"),
        ("reason", '"  "', "a reason in words"),
        ("expires", '"2027-05-31"', "valid date"),
        ("expires", "2027-05-31T10:00:00", "valid date"),
    ],
)
def test_a_wrong_value_is_told_with_its_key_path(tmp_path: Path, key: str, value: str, said: str) -> None:
    path = written(tmp_path, TOML.replace(LINES[key], f"{key} = {value}"))
    with pytest.raises(UsageError) as error:
        expect.load(path)
    assert re.search(rf"expectations\.toml: `expectation\[0\]\.{key}(\[\d+\])?` = ", error.value.found)
    assert said in error.value.expected
    assert error.value.next_step


def test_an_unknown_key_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown key `expectation\[0\]\.expire` \(did you mean `expires`\?\)"):
        expect.load(written(tmp_path, TOML.replace("expires", "expire")))
    with pytest.raises(UsageError, match="unknown key `expectations`"):
        expect.load(written(tmp_path, TOML.replace("[[expectation]]", "[[expectations]]")))


def test_an_id_is_given_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        expect.load(written(tmp_path, TOML + TOML))
    assert "`expectation[1].id` = 'lora-bias-key-renamed' is the id of `expectation[0]` too" in error.value.found
