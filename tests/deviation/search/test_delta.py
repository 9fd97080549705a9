"""Delta debugging over pins: every kind of culprit, requirements between packages, and untestable mixes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.deviation.search.coupling import Ends
from harness.deviation.search.delta import Blame, Candidate, search
from harness.deviation.search.outcome import Outcome

Judge = Callable[[Mapping[str, str]], str]
NAMES = ("peft", "transformers", "accelerate", "numpy", "tokenizers", "tqdm", "regex", "psutil", "pyyaml", "idna")


def ends(names: tuple[str, ...], old: Mapping[str, list[str]] = {}, new: Mapping[str, list[str]] = {}) -> Ends:
    """Two environments in which all these packages differ."""
    return Ends(dict.fromkeys(names, "1"), dict.fromkeys(names, "2"), old, new)


def played(between: Ends, judge: Judge) -> tuple[Blame, list[Candidate]]:
    """The result if `judge` gives the outcome of each candidate's versions."""
    asked: list[Candidate] = []
    known: dict[tuple[tuple[str, str], ...], str] = {}
    hunt = search(between)
    ask = next(hunt)
    most = ask.left
    while True:
        versions = {**ask.candidate.versions, **(ask.candidate.pins or {})}
        key = tuple(sorted(versions.items()))
        if key not in known:
            asked.append(ask.candidate)
        known.setdefault(key, judge(versions))
        try:
            ask = hunt.send(Outcome(known[key]))  # type: ignore[arg-type]
        except StopIteration as stop:
            found: Blame = stop.value
            break
    assert len(asked) <= most * (1 + len(found.culprits))
    return found, asked


def when(*sets: set[str]) -> Judge:
    """Bad if all packages of one of the sets are new."""
    return lambda versions: "bad" if any(all(versions.get(n) == "2" for n in one) for one in sets) else "good"


def test_one_likely_culprit_takes_two_candidates() -> None:
    found, asked = played(ends(NAMES), when({"peft"}))
    assert [one.packages for one in found.culprits] == [("peft",)]
    assert found.complete
    assert len(asked) == 2


def test_two_culprits_only_together() -> None:
    found, _ = played(ends(NAMES), when({"peft", "transformers"}))
    assert [one.packages for one in found.culprits] == [("peft", "transformers")]
    assert found.complete


def test_two_independent_culprits() -> None:
    found, _ = played(ends(NAMES), when({"peft"}, {"transformers"}))
    assert {one.packages for one in found.culprits} == {("peft",), ("transformers",)}
    assert found.complete


def test_an_unlikely_culprit_is_found_in_halves() -> None:
    found, asked = played(ends(NAMES), when({"psutil"}))
    assert [one.packages for one in found.culprits] == [("psutil",)]
    assert len(asked) <= 12


def test_a_package_that_must_change_too_is_a_companion_and_not_a_culprit() -> None:
    needs = {"transformers": ["tokenizers==1"]}, {"transformers": ["tokenizers==2"]}
    found, asked = played(ends(NAMES, *needs), when({"transformers"}))
    (one,) = found.culprits
    assert one.packages == ("transformers",)
    assert one.companions == {"transformers": ("tokenizers",)}
    assert "peft" in one.still_bad_without
    assert all(c.versions["tokenizers"] == c.versions["transformers"] for c in asked)


def test_a_library_held_by_requirements_is_tried_with_the_rest_resolved_around_it() -> None:
    needs: tuple[dict[str, list[str]], dict[str, list[str]]] = (
        {"transformers": ["hub==1"]}, {"peft": ["hub==2"], "transformers": ["hub==2"]}
    )  # fmt: skip
    names = ("peft", "transformers", "hub")

    def refusing(versions: Mapping[str, str]) -> str:
        return "untestable" if (versions["peft"], versions["transformers"]) == ("2", "1") else when({"peft"})(versions)

    found, asked = played(ends(names, *needs), refusing)
    (one,) = found.culprits
    assert one.packages == ("peft",)
    assert asked[-1].pins == {"peft": "2", "transformers": "1"}
    assert "transformers" in one.tied

    found, asked = played(ends(names, *needs), when({"peft", "transformers"}))
    assert found.culprits[0].packages == ("peft", "transformers")

    found, asked = played(ends(names, *needs), when({"peft"}))
    assert found.culprits[0].packages == ("peft",)
    assert found.culprits[0].still_bad_without == ("transformers",)


def test_there_is_no_culprit_if_nothing_can_be_tested() -> None:
    def judge(versions: Mapping[str, str]) -> str:
        return "bad" if set(versions.values()) == {"2"} else "untestable"

    found, _ = played(ends(NAMES), judge)
    assert found.culprits == ()
    assert not found.complete
    assert found.why_not


@settings(max_examples=300, deadline=None)
@given(st.sets(st.sampled_from(NAMES), min_size=1, max_size=4))
def test_any_set_of_culprits_is_found(culprits: set[str]) -> None:
    found, _ = played(ends(NAMES), when(culprits))
    assert [set(one.packages) for one in found.culprits] == [culprits]
    assert found.complete


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sets(st.sampled_from(NAMES), min_size=1, max_size=3), min_size=1, max_size=2),
    st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from([f"{n}==2" for n in NAMES]), max_size=2)),
    st.integers(0, 2**32),
)
def test_every_answer_has_a_sound_and_a_bad_candidate(
    sets: list[set[str]], needs: dict[str, list[str]], seed: int
) -> None:
    between = ends(NAMES, {}, needs)

    def judge(versions: Mapping[str, str]) -> str:
        skipped = hash((seed, tuple(sorted(versions.items())))) % 4 == 0 and len(set(versions.values())) > 1
        return "untestable" if skipped else when(*sets)(versions)

    found, _ = played(between, judge)
    for one in found.culprits:
        sound, bad = ({**c.versions, **(c.pins or {})} for c in (one.sound, one.bad))
        assert judge(sound) == "good"
        assert when(*sets)(bad) == "bad"
        differing = {n for n in NAMES if sound[n] != bad[n]}
        assert set(one.packages) & differing
