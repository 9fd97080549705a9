"""Delta debugging over pins: every kind of culprit, requirements between packages, and untestable mixes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.deviation.search.conclusion import Blame
from harness.deviation.search.coupling import Ends
from harness.deviation.search.delta import Candidate
from harness.deviation.search.hunt import Result, hunt
from harness.deviation.search.outcome import Deviation
from tests.deviation.search.test_sentence import CLEAN, FAILED, SAME

Judge = Callable[[Mapping[str, str]], str]
NAMES = ("peft", "transformers", "accelerate", "numpy", "tokenizers", "tqdm", "regex", "psutil", "pyyaml", "idna")


def ends(names: tuple[str, ...], old: Mapping[str, list[str]] = {}, new: Mapping[str, list[str]] = {}) -> Ends:
    """Two environments in which all these packages differ."""
    return Ends(dict.fromkeys(names, "1"), dict.fromkeys(names, "2"), old, new)


SEEN = {"good": CLEAN, "bad": SAME, "untestable": FAILED}


def played(between: Ends, judge: Judge) -> tuple[Blame, list[Candidate]]:
    """The result if `judge` gives the outcome of each candidate's versions."""
    asked: list[Candidate] = []
    search = hunt(between, Deviation.of(SAME), CLEAN, SAME)
    try:
        ask = next(search)
        most = ask.left
        while True:
            asked.append(ask.candidate)
            versions = {**ask.candidate.versions, **(ask.candidate.pins or {})}
            ask = search.send(Result(SEEN[judge(versions)], versions))
    except StopIteration as stop:
        found: Blame = stop.value
    assert len(asked) <= most * (1 + len(found.causes))
    return found, asked


def causes(found: Blame) -> list[tuple[str, ...]]:
    """The packages that each cause needs."""
    return [one.needed for one in found.causes]


def when(*sets: set[str]) -> Judge:
    """Bad if all packages of one of the sets are new."""
    return lambda versions: "bad" if any(all(versions.get(n) == "2" for n in one) for one in sets) else "good"


def test_one_likely_culprit_takes_two_candidates() -> None:
    found, asked = played(ends(NAMES), when({"peft"}))
    assert causes(found) == [("peft",)]
    assert found.complete
    assert len(asked) == 2


def test_two_culprits_only_together() -> None:
    found, _ = played(ends(NAMES), when({"peft", "transformers"}))
    assert causes(found) == [("peft", "transformers")]
    assert found.complete


def test_two_independent_culprits() -> None:
    found, _ = played(ends(NAMES), when({"peft"}, {"transformers"}))
    assert set(causes(found)) == {("peft",), ("transformers",)}
    assert found.complete


def test_an_unlikely_culprit_is_found_in_halves() -> None:
    found, asked = played(ends(NAMES), when({"psutil"}))
    assert causes(found) == [("psutil",)]
    assert len(asked) <= 12


def test_a_package_that_must_change_too_is_a_companion_and_not_a_culprit() -> None:
    needs = {"transformers": ["tokenizers==1"]}, {"transformers": ["tokenizers==2"]}
    found, asked = played(ends(NAMES, *needs), when({"transformers"}))
    (one,) = found.causes
    assert one.needed == ("transformers",)
    assert one.companions == {"transformers": ("tokenizers",)}
    assert "peft" in one.free
    assert all(c.versions["tokenizers"] == c.versions["transformers"] for c in asked)


def test_a_library_held_by_requirements_is_tried_with_the_rest_resolved_around_it() -> None:
    needs: tuple[dict[str, list[str]], dict[str, list[str]]] = (
        {"transformers": ["hub==1"]}, {"peft": ["hub==2"], "transformers": ["hub==2"]}
    )  # fmt: skip
    names = ("peft", "transformers", "hub")

    def refusing(versions: Mapping[str, str]) -> str:
        return "untestable" if (versions["peft"], versions["transformers"]) == ("2", "1") else when({"peft"})(versions)

    found, asked = played(ends(names, *needs), refusing)
    (one,) = found.causes
    assert one.needed == ("peft",)
    assert asked[-1].pins == {"peft": "2", "transformers": "1"}
    assert one.unknown["transformers"].kind == "untestable"

    found, asked = played(ends(names, *needs), when({"peft", "transformers"}))
    assert found.causes[0].needed == ("peft", "transformers")

    found, asked = played(ends(names, *needs), when({"peft"}))
    assert found.causes[0].needed == ("peft",)
    assert found.causes[0].free == ("transformers",)


def test_nothing_is_known_if_nothing_can_be_tested() -> None:
    def judge(versions: Mapping[str, str]) -> str:
        return "bad" if set(versions.values()) == {"2"} else "untestable"

    found, _ = played(ends(NAMES), judge)
    assert causes(found) == [()]
    assert set(found.causes[0].unknown) == set(NAMES)
    assert not found.complete
    assert found.why_not


@settings(max_examples=200, deadline=None)
@given(st.sets(st.sampled_from(NAMES), min_size=1, max_size=4))
def test_any_set_of_culprits_is_found(culprits: set[str]) -> None:
    found, _ = played(ends(NAMES), when(culprits))
    assert [set(one) for one in causes(found)] == [culprits]
    assert found.complete


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sets(st.sampled_from(NAMES), min_size=1, max_size=3), min_size=1, max_size=2),
    st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from([f"{n}==2" for n in NAMES]), max_size=2)),
    st.integers(0, 2**32),
)
def test_every_needed_package_is_one_of_a_culprit(sets: list[set[str]], needs: dict[str, list[str]], seed: int) -> None:
    between = ends(NAMES, {}, needs)

    def judge(versions: Mapping[str, str]) -> str:
        skipped = hash((seed, tuple(sorted(versions.items())))) % 4 == 0 and len(set(versions.values())) > 1
        return "untestable" if skipped else when(*sets)(versions)

    found, _ = played(between, judge)
    assert not found.misfits
    for one in found.causes:
        assert when(*sets)(one.bad.versions) == "bad"
        assert one.clean is None or when(*sets)(one.clean.versions) == "good"
        for package in one.needed:
            along = {package, *one.companions.get(package, ())}
            assert any(along & culprits for culprits in sets), "it, or what has to change together with it"
