"""Known breaks as a long table: what is stated, what was found, and the result."""

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
from harness.judge import breaks, expected
from harness.judge.breaks import Break
from tests.support.breaks import known as stated

TODAY = date(2026, 6, 1)
VERSIONS = {
    "v061": {"peft": "0.6.1", "transformers": "4.35.0"},
    "v070": {"peft": "0.7.0", "transformers": "4.36.0"},
    "current": {"peft": "0.20.0", "transformers": "5.2.0"},
    "dev": {"peft": "0.21.0.dev0", "transformers": "5.2.0"},
}

TOML = """
title = "Trained biases are dropped"
cause = "the keys were renamed"
references = ["https://github.com/huggingface/peft/issues/1"]
expires = 2027-05-31

[[condition]]
scenarios = ["lora-bias-*"]
creators = "peft<0.7"
loaders = "peft>=0.7"
verdict = "silent-wrong"
kinds = ["values", "lost-tensors"]
"""
OLD = """
[[expectation]]
id = "lora-bias-key-renamed"
scenarios = ["lora-bias-*"]
creators = "peft<0.7"
loaders = "peft>=0.7"
verdict = "silent-wrong"
kinds = ["values"]
issue = "https://github.com/huggingface/peft/issues/1"
reason = "The keys were renamed. Nothing says so."
expires = 2027-05-31
"""

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


def outcome(cells: list[Cell], *known: Break, **more: Any) -> tuple[list[str], list[tuple[str, str]]]:
    """(covering break of each cell or "", (id, problem) of each problem)."""
    judged, problems = expected.apply(cells, known, VERSIONS, TODAY, **more)
    assert [c.id for c in judged] == [c.id for c in cells]
    assert all(c.expected == bool(c.expectation) for c in judged)
    return [c.expectation for c in judged], [(p.id, p.problem) for p in problems]


WARNING = finding("new-warning", Verdict.WARNED)
CONTRACT = finding("config", Verdict.CONTRACT)
MISMATCH = [("e1", "mismatch")]
STALE = [("e1", "stale")]


def noting(note: str) -> Cell:
    return cell().model_copy(update={"notes": (note,)})


# what the break states besides the defaults, the cell, its covering break, the problems
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
    (
        "its creator's own, which is judged with its own defects",
        {"loaders": ["v0*"]},
        cell("exact", loader="v061"),
        "",
        [],
    ),
    ("its creator's own, which deviates", {"loaders": ["v0*"]}, cell(loader="v061"), "e1", []),
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
def test_one_break_and_one_cell(
    says: dict[str, Any], found: Cell, covered: str, problems: list[tuple[str, str]]
) -> None:
    assert outcome([found], stated(**says)) == ([covered], problems)


def test_a_covered_cell_says_why() -> None:
    (judged,), problems = expected.apply([cell()], [stated()], VERSIONS, TODAY)
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
    assert expected.apply([], [stated()], VERSIONS, TODAY) == ((), ())
    assert outcome([cell()]) == ([""], [])


SEVERAL: list[tuple[str, list[Break], list[Cell], list[str], list[tuple[str, str]]]] = [
    ("the first that matches", [stated(), stated(id="e2")], [cell()], ["e1"], []),
    ("the one whose verdict matches", [stated(verdict="contract"), stated(id="e2")], [cell()], ["e2"], MISMATCH),
    ("the one whose kinds match", [stated(kinds=["lost-tensors"]), stated(id="e2")], [cell()], ["e2"], MISMATCH),
    ("each must hold", [stated(), stated(id="e2")], [cell("exact")], [""], [*STALE, ("e2", "stale")]),
    ("not the expired one", [stated(expires=date(2026, 1, 1)), stated(id="e2")], [cell()], ["e2"], [("e1", "expired")]),
    ("one cell agrees again", [stated()], [cell(), cell("exact", scenario="lora-b")], ["e1", ""], STALE),
    (
        "stale here, another deviation there",
        [stated()],
        [cell(), cell("exact", scenario="lora-b"), cell("crash", scenario="lora-c")],
        ["e1", "", ""],
        STALE + MISMATCH,
    ),
    ("one could not be compared", [stated()], [cell(), cell("no-fixture", scenario="lora-b")], ["e1", ""], []),
    (
        "one break each",
        [stated(id="e2", scenarios=["ia3"]), stated()],
        [cell(), cell(scenario="ia3")],
        ["e1", "e2"],
        [],
    ),
]


@pytest.mark.parametrize(
    ("known", "cells", "covered", "problems"), [pytest.param(*row[1:], id=row[0]) for row in SEVERAL]
)
def test_several_breaks_and_cells(
    known: list[Break], cells: list[Cell], covered: list[str], problems: list[tuple[str, str]]
) -> None:
    assert outcome(cells, *known) == (covered, problems)


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
                "Next: narrow its conditions",
            ],
        ),
        ({}, [cell("exact")], ["1 of 1 cell no longer deviates", "Next: remove the break"]),
        (
            {"kinds": ["values"]},
            [cell(kinds=["values", "lost-tensors"])],
            [
                "known break, but not as known: 1 cell deviates otherwise",
                "lora-linear@v061:current[cpu]: forward lost-tensors is not known",
                "expected: silent-wrong (values)",
                "Next: `peft-regress show 'lora-linear@v061:current[cpu]'`",
                "`peft-regress accept --update e1`",
            ],
        ),
        (
            {"expires": date(2026, 1, 1)},
            [cell(), cell("exact", scenario="lora-b")],
            [
                "expired on 2026-01-01 (today is 2026-06-01)",
                "1 of 2 cells still shows silent-wrong: lora-linear@",
                "set a later date",
            ],
        ),
        (
            {"expires": date(2026, 1, 1)},
            [cell("exact")],
            ["0 of 1 cell still show silent-wrong", "Next: remove the break"],
        ),
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
    _, (problem,) = expected.apply(cells, [stated(**says)], VERSIONS, TODAY)
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
_BREAKS = st.lists(
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


@given(cells=_CELLS, known=_BREAKS)
def test_applying_twice_is_applying_once_and_only_the_mark_changes(cells: list[Cell], known: list[Break]) -> None:
    judged, problems = expected.apply(cells, known, VERSIONS, TODAY)
    assert expected.apply(judged, known, VERSIONS, TODAY) == (judged, problems)
    assert expected.apply(judged, [], VERSIONS, TODAY) == (tuple(cells), ())


@given(cells=_CELLS, known=_BREAKS)
def test_what_is_expected_deviates_and_is_covered(cells: list[Cell], known: list[Break]) -> None:
    for judged in expected.apply(cells, known, VERSIONS, TODAY)[0]:
        covering = [e for e in known if e.counts_on(TODAY) and expected.covers(e, judged, VERSIONS)]
        assert judged.expected == bool(covering)
        assert not judged.expected or judged.verdict.is_deviation or judged.verdict is Verdict.WARNED


# ---- the file -------------------------------------------------------------------------------------------------------


def written(matrices: Path, text: str, name: str = "lora-bias-key-renamed") -> Path:
    path = matrices / "breaks" / f"{name}.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_is_read(tmp_path: Path) -> None:
    written(tmp_path, TOML)
    (read,) = breaks.load(tmp_path)
    (condition,) = read.condition
    assert (read.id, condition.verdict, condition.devices) == ("lora-bias-key-renamed", Verdict.SILENT_WRONG, None)
    assert (condition.kinds, read.expires) == (["values", "lost-tensors"], date(2027, 5, 31))


def test_no_folder_or_an_empty_one_has_none(tmp_path: Path) -> None:
    assert breaks.load(tmp_path) == ()
    (tmp_path / "breaks").mkdir()
    assert breaks.load(tmp_path) == ()


def test_breaks_are_sorted_by_id(tmp_path: Path) -> None:
    for name in ("b", "a", "c.2"):
        written(tmp_path, TOML, name)
    assert [one.id for one in breaks.load(tmp_path)] == ["a", "b", "c.2"]


PATHS = {"scenarios", "creators", "loaders", "verdict", "kinds"}
LINES = {line.split(" = ")[0]: line for line in TOML.splitlines() if " = " in line}


def key_path(key: str) -> str:
    return rf"condition\[0\]\.{key}" if key in PATHS else key


@pytest.mark.parametrize("key", sorted(set(LINES) - {"kinds", "expires"}))
def test_a_required_key_is_missed(tmp_path: Path, key: str) -> None:
    path = written(tmp_path, TOML.replace(LINES[key] + "\n", ""))
    with pytest.raises(UsageError, match=f"key `{key_path(key)}` is missing"):
        breaks.read(path)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
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
        ("references", "[]", "at least 1 item"),
        ("references", '["http://example.org/1"]', "https addresses"),
        ("references", '["https://"]', "https addresses"),
        ("references", '["https://example.org/1", "later"]', "https addresses"),
        ("title", '""', "a text in words"),
        ("cause", '"  "', "a text in words"),
        ("expires", '"2027-05-31"', "valid date"),
        ("expires", "2027-05-31T10:00:00", "valid date"),
    ],
)
def test_a_wrong_value_is_reported_with_its_key_path(tmp_path: Path, key: str, value: str, said: str) -> None:
    path = written(tmp_path, TOML.replace(LINES[key], f"{key} = {value}"))
    with pytest.raises(UsageError) as error:
        breaks.load(tmp_path)
    assert re.search(rf"{path.name}: `{key_path(key)}(\[\d+\])?` = ", error.value.found)
    assert said in error.value.expected
    assert error.value.next_step


def test_an_unknown_key_is_reported_with_file_and_place(tmp_path: Path) -> None:
    path = written(tmp_path, TOML.replace("expires", "expire"))
    with pytest.raises(UsageError, match=r"renamed\.toml: unknown key `expire` \(did you mean `expires`\?\)"):
        breaks.read(path)
    path.write_text(TOML.replace("kinds", "kind"))
    with pytest.raises(UsageError, match=r"unknown key `condition\[0\]\.kind` \(did you mean `kinds`\?\)"):
        breaks.read(path)


@pytest.mark.parametrize("line", ["", 'expires = 2027-05-31\npermanent = "old"'])
def test_a_break_expires_or_is_permanent(tmp_path: Path, line: str) -> None:
    path = written(tmp_path, TOML.replace(LINES["expires"], line))
    with pytest.raises(UsageError, match="its keys do not fit together") as error:
        breaks.read(path)
    assert "either `expires` (a date) or `permanent`" in error.value.expected


def test_a_permanent_break_counts_for_ever(tmp_path: Path) -> None:
    known = breaks.read(written(tmp_path, TOML.replace(LINES["expires"], 'permanent = "released"')))
    assert known.counts_on(date(2999, 1, 1))
    (judged,), problems = expected.apply([cell(scenario="lora-bias-all")], [known], VERSIONS, date(2999, 1, 1))
    assert (judged.expected, judged.expectation_expires, problems) == (True, "", ())


@pytest.mark.parametrize(("name", "text"), [("Two Words", TOML), ("a", 'id = "a"\n' + TOML)])
def test_the_files_name_is_the_id(tmp_path: Path, name: str, text: str) -> None:
    path = written(tmp_path, text, name)
    with pytest.raises(UsageError, match=r"is no id|unknown key `id`"):
        breaks.read(path)


TWO = stated(
    condition=[
        {"scenarios": ["lora-a"], "creators": ["*"], "loaders": ["*"], "verdict": "silent-wrong", "kinds": ["values"]},
        {"scenarios": ["lora-b"], "creators": ["*"], "loaders": ["*"], "verdict": "load-error"},
    ]
)


def test_each_condition_covers_its_own_cells() -> None:
    cells = [cell(scenario="lora-a"), cell("load-error", scenario="lora-b")]
    assert outcome(cells, TWO) == (["e1", "e1"], [])
    assert outcome([cell(scenario="lora-b")], TWO) == ([""], MISMATCH)


def test_the_conditions_of_a_break_make_one_problem_of_a_kind() -> None:
    _, problems = expected.apply([cell("exact", scenario=f"lora-{x}") for x in "ab"], [TWO], VERSIONS, TODAY)
    (problem,) = problems
    assert "2 of 2 cells no longer deviate" in problem.message
    assert "expected: silent-wrong (values) or load-error" in problem.message


# ---- the former file ------------------------------------------------------------------------------------------------


def test_an_old_file_is_still_read_and_reported(tmp_path: Path) -> None:
    assert breaks.old_form(tmp_path) == ""
    (tmp_path / "expectations.toml").write_text(OLD)
    written(tmp_path, TOML, "new")
    new, old = breaks.load(tmp_path)
    assert (new.id, old.id) == ("new", "lora-bias-key-renamed")
    assert (old.title, old.cause) == ("The keys were renamed.", "The keys were renamed. Nothing says so.")
    assert (old.issue, old.expires) == ("https://github.com/huggingface/peft/issues/1", date(2027, 5, 31))
    assert old.condition[0].kinds == ["values"]
    assert "expectations.toml is the old form" in breaks.old_form(tmp_path)


def test_what_is_wrong_in_an_old_file_is_reported_with_its_key_path(tmp_path: Path) -> None:
    path = tmp_path / "expectations.toml"
    for wrong, found in (
        (OLD.replace("silent-wrong", "exact"), r"`expectation\[0\]\.verdict` = 'exact'"),
        (OLD.replace("expires", "expire"), r"unknown key `expectation\[0\]\.expire`"),
        (OLD + OLD, "'lora-bias-key-renamed' is the id of two known breaks"),
    ):
        path.write_text(wrong)
        with pytest.raises(UsageError, match=found):
            breaks.load(tmp_path)
