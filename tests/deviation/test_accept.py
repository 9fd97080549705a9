"""What is written for cells that are accepted: just these, and no other that the run judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import UsageError
from harness.core.run import Cell, EnvironmentReport, Finding, Run, finished
from harness.core.verdict import Verdict
from harness.deviation.accept import blocks, conditions, expiry, select
from harness.deviation.accept.blocks import place_of
from harness.deviation.accept.conditions import Said
from harness.judge import expected
from harness.judge.breaks import Break, Condition
from tests.support.breaks import known

TODAY = date(2026, 11, 22)
SAID = Said("https://example.org/issues/1", "Known.", date(2027, 5, 31))
PEFT = {"v061": "0.6.1", "v070": "0.7.0", "v080": "0.8.0", "old": "0.20.0", "current": "0.21.2", "dev": "0.22.0.dev0"}


def cell(name: str, verdict: str = "silent-wrong", kinds: Sequence[str] = ("values",), **more: Any) -> Cell:
    """A cell from `scenario@creator:loader[device]`."""
    scenario, _, rest = name.partition("@")
    creator, _, loader = rest.removesuffix("]").partition(":")
    loader, _, device = loader.partition("[")
    found = Verdict(verdict)
    deviating = found.is_deviation or found is Verdict.WARNED
    findings = tuple(Finding(probe="forward", kind=kind, verdict=found, message="…") for kind in kinds if deviating)
    return Cell(
        id=f"{scenario}@{creator}:{loader}[{device or 'cpu'}]", scenario=scenario, creator=creator, loader=loader,
        device=device or "cpu", family=scenario.split("-")[0], method=scenario.split("-")[0].upper(), verdict=found,
        findings=findings, **more,
    )  # fmt: skip


def run(*cells: Cell, strict: bool = False, **kinds: str) -> Run:
    """A run of cells, in environments with a PEFT each."""
    environments = tuple(
        EnvironmentReport(name=name, kind=kinds.get(name, "named"), versions={"peft": version, "torch": "2.13.0+cpu"})
        for name, version in PEFT.items()
    )
    plan = tuple(one.id for one in cells)
    return finished(
        Run(id="r", created="", tool_version="0", environments=environments, cells=cells, plan=plan, strict=strict)
    )


def accepted(where: Run, *words: str, said: Said = SAID, there: Sequence[Break] = ()) -> Break:
    """The break that accepting words would make."""
    now = conditions.applied(where, there, TODAY)
    cells = select.named(now, words).cells
    return conditions.checked(now, cells, conditions.drafted(now, cells, said, [one.id for one in there]))


def stated(where: Run, *words: str, **more: Any) -> list[Condition]:
    """Its conditions."""
    return accepted(where, *words, **more).condition


def with_(**more: Any) -> Said:
    """What is said, with something else."""
    return dataclasses.replace(SAID, **more)


SOUND = cell("sound@v061:current", "exact")
WRONG = cell("lokr-a@v061:current")


def test_one_cell_by_its_names() -> None:
    assert accepted(run(WRONG, SOUND), WRONG.id) == known(
        id="lokr-a-silent-wrong", title="Known", cause="Known.", references=[SAID.issue], expires=SAID.expires,
        scenarios=["lokr-a"], creators=["v061"], loaders=["current"], verdict="silent-wrong",
        shape={"forward values": {"says": "…"}},
    )  # fmt: skip


CELLS = run(
    cell("lokr-a@v061:current"), cell("lokr-a@v070:current"), cell("lokr-b@v061:current"),
    cell("lokr-b@v070:current", "exact"), cell("lokr-c@v061:current", "load-error", ["error"]),
    cell("lokr-d@v061:current", "crash", []), cell("lora@v061:current", kinds=["values", "config"]), SOUND,
)  # fmt: skip

WORDS = [
    # what is named, the id, (verdict, scenarios, creators) of each condition
    ("lokr-a", "lokr-a-silent-wrong", [("silent-wrong", ["lokr-a"], ["v061", "v070"])]),
    ("lokr-b", "lokr-b-silent-wrong", [("silent-wrong", ["lokr-b"], ["v061"])]),  # a cell that agrees is left out
    ("lokr-?@v061:*", "lokr-silent-wrong", [
        ("silent-wrong", ["lokr-a", "lokr-b"], ["v061"]),
        ("load-error", ["lokr-c"], ["v061"]), ("crash", ["lokr-d"], ["v061"]),
    ]),
    ("*@*:current[cpu]", "lokr-silent-wrong", [
        ("silent-wrong", ["lokr-a"], ["v061", "v070"]), ("silent-wrong", ["lokr-b"], ["v061"]),
        ("load-error", ["lokr-c"], ["v061"]), ("crash", ["lokr-d"], ["v061"]), ("silent-wrong", ["lora"], ["v061"]),
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("word", "id", "wanted"), WORDS, ids=[row[0] for row in WORDS])
def test_each_verdict_and_set_of_kinds_is_a_condition(
    word: str, id: str, wanted: list[tuple[str, list[str], list[str]]]
) -> None:
    found = accepted(CELLS, word)
    assert found.id == id
    assert [(one.verdict, one.scenarios, one.creators) for one in found.condition] == wanted


def test_a_cell_without_findings_has_no_kinds() -> None:
    assert stated(CELLS, "lokr-d")[0].shape is None


THERE: dict[str, Any] = {
    "id": "known", "scenarios": ["lokr-a"], "creators": ["*"], "loaders": ["*"], "references": [SAID.issue],
    "cause": "Known.", "expires": SAID.expires,
}  # fmt: skip
KNOWN = known(**THERE)
MIXED = run(
    WRONG, SOUND, cell("w@v061:current", "warned", ["new-warning"]), cell("e@v061:current", "env-failed", reason="no"),
    cell("u@v061:current", "unsupported"),
)  # fmt: skip

REFUSED = [
    # what is named, what is said of it
    ("lokr", "has no cell 'lokr'"),
    ("lokr-a@v061:curent[cpu]", "lokr-a@v061:current[cpu]"),
    ("sound@v061:current[cpu]", "is exact: it does not deviate in run r"),
    (
        "sound",
        "nothing that 'sound' means is an unexplained deviation (1 cell): sound@v061:current[cpu] is exact",
    ),
    ("w", "is only warned, which fails a run under --strict alone"),
    ("e", "is env-failed (no): it was not judged"),
    ("u", "is unsupported: it was not judged"),
    ("lokr-a", "is expected already, by 'known' until 2027-05-31"),
    ("*", "nothing that '*' means is an unexplained deviation (5 cells): lokr-a@"),
]


@pytest.mark.parametrize(("word", "words"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_cannot_be_accepted(word: str, words: str) -> None:
    with pytest.raises(UsageError) as error:
        accepted(MIXED, word, there=[KNOWN])
    assert words in f"{error.value.found} {error.value.expected}"
    assert error.value.next_step


def test_a_warning_by_its_id_or_in_a_strict_run() -> None:
    warned = cell("w@v061:current", "warned", ["new-warning"])
    for where, word in ((run(warned), warned.id), (run(warned, strict=True), "w")):
        found = accepted(where, word)
        assert [(one.verdict, list(one.lines)) for one in found.condition] == [("warned", ["forward new-warning"])]
        assert not conditions.applied(run(warned, strict=True), [found], TODAY).deviations


RULES = [
    # what is said besides, creators, loaders
    ({}, ["v061", "v070"], ["current"]),
    ({"ranges": ("peft",)}, "peft>=0.6.1,<=0.7.0", "peft==0.21.2"),
    ({"ranges": ("peft", "torch")}, "peft>=0.6.1,<=0.7.0, torch==2.13.0", "peft==0.21.2, torch==2.13.0"),
    ({"until": "peft<0.22"}, ["v061", "v070"], "peft>=0.21.2,<0.22"),
    ({"until": "peft<0.22, torch<3"}, ["v061", "v070"], "peft>=0.21.2,<0.22, torch>=2.13.0,<3"),
    ({"until": "peft>=0.20.1,<0.22"}, ["v061", "v070"], "peft>=0.20.1,<0.22"),
    ({"until": "peft~=0.21.2"}, ["v061", "v070"], "peft~=0.21.2"),
    ({"until": "peft<0.22", "ranges": ("peft",)}, "peft>=0.6.1,<=0.7.0", "peft>=0.21.2,<0.22"),
    ({"creators": "peft<0.8", "loaders": "cur*,nobody"}, "peft<0.8", ["cur*", "nobody"]),
]


@pytest.mark.parametrize(("more", "creators", "loaders"), RULES)
def test_creators_and_loaders_by_name_or_by_version(
    more: dict[str, Any], creators: str | list[str], loaders: str | list[str]
) -> None:
    (one,) = stated(CELLS, "lokr-a", said=with_(**more))
    assert (one.creators, one.loaders) == (creators, loaders)


OTHER_LOADERS = run(
    WRONG, cell("lokr-a@v061:old", "exact"), cell("lokr-a@v070:current", "load-error", ["error"]),
    cell("lokr-a@v080:current"), cell("lokr-a@v061:dev"),
)  # fmt: skip

TOO_MUCH = [
    # what is said besides, what is found
    ({"loaders": "peft>=0.19,<0.22"}, "would take in 1 more: lokr-a@v061:old[cpu] is exact"),
    ({"creators": "peft<0.8"}, "would take in 1 more: lokr-a@v070:current[cpu] is load-error (error)"),
    ({"creators": "peft>=0.6,<0.9"}, "would take in 2 more: lokr-a@v070:current[cpu] is load-error (error), "
     "lokr-a@v080:current[cpu] is silent-wrong (values)"),  # alike, and not named
    ({"creators": "peft<0.6"}, "leave out lokr-a@v061:current[cpu] (v061 has peft 0.6.1, torch 2.13.0+cpu;"),
    ({"loaders": "elsewhere"}, "loaders = ['elsewhere'] leave out lokr-a@v061:current[cpu]"),
    ({"until": "peft<0.21"}, "--until peft<0.21 does not hold of the loader current: it needs peft<0.21, has"),
    ({"until": "peft>=0.21"}, "--until peft>=0.21 does not end"),
    ({"until": "peft"}, "--until peft does not end"),
    ({"until": "0.22"}, "--until 0.22: '0.22' is no condition"),
    ({"ranges": ("nothing",)}, "v061 has no known version of nothing in this run"),
    ({"creators": "peft<<1"}, "--creators 'peft<<1'"),
    ({"loaders": "a,,b"}, "--loaders ['a', '', 'b']: '' is no glob"),
    ({"issue": "http://example.org/1"}, "--issue ['http://example.org/1']"),
    ({"issue": "peft#1"}, "--issue ['peft#1']"),
    ({"issue": "https://…"}, "--issue ['https://…']"),
    ({"reason": "  "}, "--reason '  ': a text in words"),
    ({"reason": "\udcff"}, "--reason"),
    ({"since": "PEFT \udcff"}, "--since"),
    ({"loaders": "current,\udcff"}, "--loaders"),
    ({"id": "With Spaces"}, "--id 'With Spaces'"),
    ({"id": "known"}, "there is a known break 'known' already"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "words"), TOO_MUCH)
def test_more_or_less_than_what_was_named_is_refused(more: dict[str, Any], words: str) -> None:
    there = [known(**THERE | {"scenarios": ["elsewhere"]})]
    with pytest.raises(UsageError) as error:
        accepted(OTHER_LOADERS, WRONG.id, said=with_(**more), there=there)
    assert words in error.value.found
    assert error.value.expected
    assert error.value.next_step


def test_an_id_is_numbered_if_it_is_in_use() -> None:
    assert accepted(CELLS, "lokr-?", said=with_(id="x")).id == "x"
    there = [known(**THERE | {"id": "lokr-b-silent-wrong"})]
    assert accepted(CELLS, "lokr-b", there=there).id == "lokr-b-silent-wrong-2"


def test_the_title_is_what_was_given_or_the_first_sentence_of_the_reason() -> None:
    reason = "It is scaled twice. Since 0.14."
    assert accepted(CELLS, "lokr-a", said=with_(reason=reason)).title == "It is scaled twice"
    assert accepted(CELLS, "lokr-a", said=with_(reason=reason, title="Other")).title == "Other"


def test_a_device_is_named_where_there_are_several() -> None:
    both = run(cell("a@v061:current[cuda]"), cell("a@v061:current", "exact"))
    assert stated(both, "a")[0].devices == ["cuda"]


def test_a_condition_may_select_unsupported_cells() -> None:
    """No condition can be wrong about them, and one condition is enough."""
    where = run(
        cell("a@v061:current"), cell("b@v061:current"), cell("a@v070:current"), cell("b@v070:current", "unsupported")
    )
    (one,) = stated(where, "*")
    assert (one.scenarios, one.creators) == (["a", "b"], ["v061", "v070"])


NAMES = [[f"{letter}{number}" for number in range(3)] for letter in "scl"]
PLACES = st.lists(st.tuples(*map(st.sampled_from, NAMES), st.just("cpu")), unique=True, max_size=20)


@given(wanted=PLACES, harmless=PLACES)
def test_blocks_hold_all_that_is_wanted_and_nothing_that_does_harm(
    wanted: list[blocks.Place], harmless: list[blocks.Place]
) -> None:
    found = blocks.blocks(wanted, harmless)
    held = {place for block in found for place in block.places()}
    assert set(wanted) <= held <= {*wanted, *harmless}
    assert len(found) <= len(wanted)


VERDICTS = st.sampled_from(
    ["exact", "close", "warned", "silent-wrong", "contract", "load-error", "unsupported", "no-fixture"]
)
KINDS = st.lists(st.sampled_from(["values", "config", "error"]), min_size=1, max_size=2, unique=True)
RUNS = st.lists(
    st.builds(
        lambda scenario, creator, loader, verdict, kinds: cell(f"{scenario}@{creator}:{loader}", verdict, kinds),
        st.sampled_from(["a", "a-b", "c"]), st.sampled_from(["v061", "v070", "v080"]),
        st.sampled_from(["old", "current", "dev"]), VERDICTS, KINDS,
    ),
    min_size=1, max_size=14, unique_by=lambda one: one.id,
)  # fmt: skip


@settings(max_examples=200)
@given(cells=RUNS, data=st.data())
def test_a_break_covers_the_named_cells_and_selects_no_other(cells: list[Cell], data: st.DataObject) -> None:
    where = run(*cells)
    named = data.draw(st.lists(st.sampled_from(cells), unique_by=lambda one: one.id))
    named = [one for one in named if one.verdict.is_deviation or one.verdict is Verdict.WARNED]
    found = [accepted(where, *(one.id for one in named))] if named else []
    after = conditions.applied(where, found, TODAY)
    assert {one.id for one in after.cells if one.expected} == {one.id for one in named}
    assert after.expectation_problems == ()
    versions = conditions.versions_of(where)
    for one in cells:
        by = [each for known in found for each in known.condition if expected.selects(each, one, versions)]
        assert len(by) == (one in named) or one.verdict in (Verdict.UNSUPPORTED, Verdict.NO_FIXTURE), (
            place_of(one),
            by,
        )


def test_the_guard_bites(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that were too large would be found out before anything is written."""

    def whole(wanted: Sequence[blocks.Place], _harmless: object) -> list[blocks.Block]:
        return [blocks.Block(*map(frozenset, zip(*wanted, strict=True)))]

    monkeypatch.setattr(blocks, "blocks", whole)
    with pytest.raises(UsageError, match="would take in 1 more"):
        stated(CELLS, "lokr-a", "lokr-b")


# -- dates ------------------------------------------------------------------------------------------------------------

DATES = [
    ("2027-05-31", date(2027, 5, 31)), ("2026-11-22", TODAY), ("90d", date(2027, 2, 20)), ("+90d", date(2027, 2, 20)),
    ("2 weeks", date(2026, 12, 6)), ("6 months", date(2027, 5, 22)), ("6m", date(2027, 5, 22)),
    ("1 year", date(2027, 11, 22)), ("1y", date(2027, 11, 22)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "day"), DATES)
def test_dates_and_spans(text: str, day: date) -> None:
    assert expiry.parse(text, TODAY) == day


@pytest.mark.parametrize(
    "text", ["2026-11-21", "1999-12-31", "tomorrow", "", "2027-02-30", "20270531", "9999y", "-90d", "90", "٣d ago"]
)
def test_no_dates(text: str) -> None:
    with pytest.raises(UsageError) as error:
        expiry.parse(text, TODAY)
    assert "--expires" in error.value.found
    assert "for example: --expires 2027-05-22" in error.value.next_step


def test_a_month_that_is_shorter_and_a_date_that_is_far() -> None:
    assert expiry.after(date(2026, 8, 31)) == date(2027, 2, 28)
    assert "more than a year" in expiry.remark(date(2028, 1, 1), TODAY)
    assert expiry.remark(date(2027, 11, 22), TODAY) == ""
