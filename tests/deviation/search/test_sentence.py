"""What `blame` says, from the table of its trials: every outcome of every mix of two and of three libraries."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.deviation.search.conclusion import Blame, Trial
from harness.deviation.search.coupling import Ends
from harness.deviation.search.hunt import Result, hunt
from harness.deviation.search.outcome import Deviation, Seen, Sign
from harness.deviation.search.sentence import is_answer, notes, sentence

WRONG = "silent-wrong: forward: values differ"
SAME = Seen("silent-wrong", WRONG, (Sign("silent-wrong", ("forward", "values"), size=1.0),))
SMALLER = Seen("silent-wrong", WRONG, (Sign("silent-wrong", ("forward", "values"), size=0.1),))
OTHER = Seen("load-error", "load-error: KeyError", (Sign("load-error", ("error", "load", "KeyError"), "KeyError: x"),))
TIMEOUT = Seen("timeout", "timeout: no reply", (Sign("timeout", ("load", "timeout"), "no reply"),))
CLEAN = Seen("exact", "exact")
FAILED = Seen("", "it cannot be installed")
ALL = {"same": SAME, "other": OTHER, "clean": CLEAN, "env-failed": FAILED, "timeout": TIMEOUT}

World = Callable[[frozenset[str]], Seen]
"""What the cell shows under a mix, given by the packages that are new."""


@dataclass
class Played:
    """An answer, and the trials that it rests on, judged by the deviation in question."""

    ends: Ends
    found: Blame
    trials: list[Trial]

    @property
    def said(self) -> str:
        return sentence(self.found, self.ends)

    def of(self, kind: str) -> list[Trial]:
        return [one for one in self.trials if one.kind == kind]


def ends(*names: str) -> Ends:
    """Two environments in which all these packages differ."""
    return Ends(dict.fromkeys(names, "1"), dict.fromkeys(names, "2"), {}, {})


def played(world: World, *names: str) -> Played:
    """The answer about a world."""
    between = ends(*names)
    deviation = Deviation.of(SAME)
    trials = [_trial(between, deviation, one, world) for one in (between.old, between.new)]
    search = hunt(between, deviation, CLEAN, SAME)
    try:
        ask = next(search)
        while True:
            assert ask.candidate.pins is None
            trials.append(_trial(between, deviation, ask.candidate.versions, world))
            ask = search.send(Result(world(trials[-1].new), ask.candidate.versions))
    except StopIteration as stop:
        return Played(between, stop.value, trials)


def _trial(between: Ends, deviation: Deviation, versions: Mapping[str, str], world: World) -> Trial:
    mix = Trial.of(between, versions, "", "bad").new
    outcome = deviation.outcome(world(mix))
    return Trial.of(between, versions, "", outcome.kind, outcome.why)


def table(rows: Mapping[str, Seen], *names: str) -> World:
    """A world from its mixes: `peft+trl` → what is seen with both new, and all others old."""
    known = {frozenset(mix.split("+")): seen for mix, seen in rows.items()}
    return {frozenset(): CLEAN, frozenset(names): SAME, **known}.__getitem__


def every_world(*names: str) -> Iterator[Played]:
    """The answers about every world of some libraries: any outcome for each mix that is tried."""
    waiting: list[dict[frozenset[str], Seen]] = [{frozenset(): CLEAN, frozenset(names): SAME}]
    while waiting:
        known = waiting.pop()
        try:
            yield played(known.__getitem__, *names)
        except KeyError as untried:
            waiting += [{**known, untried.args[0]: seen} for seen in ALL.values()]


# -- every world ------------------------------------------------------------------------------------------------------


def contradictions(one: Played) -> list[str]:
    """What a sentence says although no trial shows it, or a trial shows the opposite."""
    said, names = one.said, one.ends.differing
    bad, clean = one.of("bad"), one.of("good")
    wrong = [word for word in ("innocent", "sound") if word in said]
    if "the trials do not fit together" in said:
        return wrong
    about_it = [part for part in said.split("; ") if not re.search(r"causes? that", part)]
    alone = {name for part in about_it for name in re.findall(r"(\w+) 1 → 2 alone causes it", part)}
    for name in alone:
        wrong += [f"{name} alone: never tried"] * (frozenset({name}) not in [trial.new for trial in bad])
        wrong += [f"{name} alone: clean with it"] * any(name in trial.new for trial in clean)
        wrong += [f"{name} alone: no clean trial without"] * all(name in trial.new for trial in clean)
    together = [set(re.findall(r"(\w+) 1 → 2", part)) for part in about_it if "only together" in part]
    causes = [{name} for name in alone] + together
    causes += [{name} for part in about_it for name in re.findall(r"(\w+) 1 → 2 causes it", part)]
    for cause in causes:
        for name in cause:
            shown = any(trial.new - other.new == {name} for trial in bad for other in clean)
            wrong += [f"{name}: no pair of trials shows that it is needed"] * (not shown)
    either = [set(re.findall(r"(\w+) 1 → 2", part)) for part in about_it if "alone or together" in part]
    for trial in bad if causes or either else ():
        explained = any(other.new == trial.new for other in one.found.unexplained)
        explained |= any(one <= trial.new for one in causes) or any(one & trial.new for one in either)
        wrong += ["it deviates without any cause"] * (not explained)
    for name, count in re.findall(r"(\w+) alone does not cause it: (\d+) trial", said):
        wrong += [f"{name} alone"] * (int(count) != sum(name in trial.new for trial in clean))
    for names_free in re.findall(r"without the changes? of ([\w, ]+) \(", said):
        for name in re.split(r", | and ", names_free):
            wrong += [f"{name} is not needed"] * all(name in trial.new for trial in bad)
    for name, why in re.findall(r"with (\w+) 1 another deviation comes \(([^)]*)\)", said):
        alike = [trial for trial in one.trials if trial.why.startswith(why.partition(", by ")[0])]
        wrong += [f"{name}: otherwise"] * (not any(name in trial.old for trial in alike))
    for name in re.findall(r"(\w+) 1 could not be tested", " ".join(notes(one.found, one.ends))):
        wrong += [f"{name}: untestable"] * (not any(name in trial.old for trial in one.of("untestable")))
    counted = "more package" in said or "which of" in said
    unnamed = [n for n in names if not counted and n not in said and all(n in trial.new for trial in bad)]
    return wrong + [f"{name} is new wherever it deviates, and not named" for name in unnamed]


@pytest.mark.parametrize(
    "names", [("peft", "transformers"), ("peft", "transformers", "idna"), ("peft", "trl", "torch")]
)
def test_every_world_of_two_and_of_three_libraries(names: tuple[str, ...]) -> None:
    count = 0
    for one in every_world(*names):
        count += 1
        assert contradictions(one) == [], one.said
    assert count >= 5 ** len(names)


TWO = ("peft", "transformers")
NAMES = (*TWO, "trl", "accelerate", "idna")


SUSPECTS_ALONE = {
    frozenset({"peft"}): SAME,
    frozenset({"transformers"}): SAME,
    frozenset({"trl"}): SAME,
    frozenset({"peft", "transformers"}): SAME,
    frozenset({"trl", "transformers"}): SAME,
    frozenset({"accelerate"}): OTHER,
    frozenset({"idna"}): OTHER,
    frozenset({"accelerate", "idna"}): SAME,
}
"""The first cause has suspects only; PEFT alone deviates too, without any of them."""


@settings(max_examples=300, deadline=None)
@example(SUSPECTS_ALONE)
@given(st.dictionaries(st.frozensets(st.sampled_from(NAMES)), st.sampled_from([*ALL.values(), SMALLER])))
def test_no_sentence_contradicts_a_trial(rows: dict[frozenset[str], Seen]) -> None:
    known = rows | {frozenset(): CLEAN, frozenset(NAMES): SAME}
    one = played(lambda mix: known.get(mix, CLEAN if len(mix) < 3 else SAME), *NAMES)
    assert contradictions(one) == [], one.said


def test_the_check_above_finds_a_wrong_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    one = played(table({"peft": OTHER, "transformers": CLEAN}, *TWO), *TWO)
    monkeypatch.setattr(Played, "said", "peft 1 → 2 alone causes it; transformers is innocent")
    assert contradictions(one) == ["innocent", "peft alone: never tried"]
    monkeypatch.setattr(Played, "said", "transformers 1 → 2 alone causes it")
    assert "transformers alone: clean with it" in contradictions(one)
    monkeypatch.setattr(Played, "said", "peft 1 → 2 causes it")
    assert contradictions(one) == ["transformers is new wherever it deviates, and not named"]
    monkeypatch.setattr(Played, "said", "peft 1 → 2 causes it; transformers alone does not cause it: 2 trials")
    assert contradictions(one) == ["transformers alone"]


# -- what is said -----------------------------------------------------------------------------------------------------

P, T = "peft 1 → 2", "transformers 1 → 2"

#: what is new → what is seen; the answer
SAYS: list[tuple[tuple[str, ...], dict[str, Seen], str]] = [
    (TWO, {"peft": SAME, "transformers": CLEAN},
     f"{P} alone causes it; it deviates in the same way without the change of transformers (1 trial)"),
    (TWO, {"peft": CLEAN, "transformers": CLEAN}, f"{P} and {T} cause it only together"),
    (TWO, {"peft": OTHER, "transformers": CLEAN},
     f"{P} causes it; whether {T} is needed too is not known; with transformers 1 another deviation comes "
     "(load-error: KeyError); transformers alone does not cause it: 1 trial"),
    (TWO, {"peft": CLEAN, "transformers": OTHER},
     f"{T} causes it; whether {P} is needed too is not known; with peft 1 another deviation comes "
     "(load-error: KeyError); peft alone does not cause it: 1 trial"),
    (TWO, {"peft": OTHER, "transformers": TIMEOUT},
     f"{P} or {T} cause it, alone or together: which is not known; with peft 1 another "
     "deviation comes (timeout: no reply); with transformers 1 another deviation comes (load-error: KeyError)"),
    (TWO, {"peft": SAME, "transformers": OTHER},
     f"{P} alone causes it; with peft 1 it deviates otherwise (load-error: KeyError), and {T} alone causes that"),
    (TWO, {"peft": SAME, "transformers": SAME}, f"{T} alone causes it; independently, {P} alone causes it"),
    (TWO, {"peft": FAILED, "transformers": CLEAN},
     f"{P} causes it; whether {T} is needed too is not known; transformers alone does not cause it: 1 trial"),
    (TWO, {"peft": SMALLER, "transformers": CLEAN},
     f"{P} causes it; whether {T} is needed too is not known; with transformers 1 another deviation comes "
     "(silent-wrong: forward: values differ, by 0.1 instead of 1); transformers alone does not cause it: 1 trial"),
]  # fmt: skip


@pytest.mark.parametrize(("names", "rows", "says"), SAYS)
def test_the_sentence(names: tuple[str, ...], rows: dict[str, Seen], says: str) -> None:
    one = played(table(rows, *names), *names)
    assert one.said == says
    assert is_answer(one.found) is not says.startswith(f"{P} or ")
