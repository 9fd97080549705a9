"""The closed list, and how several verdicts become one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.verdict import Verdict, worst

VERDICTS = st.lists(st.sampled_from(Verdict))


def test_every_verdict_is_of_one_class() -> None:
    for verdict in Verdict:
        apart = (verdict is Verdict.UNSUPPORTED, verdict is Verdict.REFUSED)
        classes = (verdict.is_deviation, verdict.is_clean, verdict.cannot_tell, *apart)
        assert sum(classes) == 1, verdict


def test_each_verdict_has_its_own_letter() -> None:
    assert len({verdict.letter for verdict in Verdict}) == len(Verdict)


def test_every_verdict_has_a_meaning() -> None:
    assert all(verdict.meaning for verdict in Verdict)


def test_the_list_is_ordered_worst_first() -> None:
    assert [verdict.severity for verdict in Verdict] == list(range(len(Verdict)))


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], Verdict.NOT_COMPARABLE),
        ([Verdict.EXACT, Verdict.CLOSE], Verdict.CLOSE),
        ([Verdict.CLOSE, Verdict.WARNED], Verdict.WARNED),
        ([Verdict.CONTRACT, Verdict.SILENT_WRONG], Verdict.SILENT_WRONG),
        ([Verdict.UNSTABLE, Verdict.CLOSE], Verdict.UNSTABLE),
        ([Verdict.NOT_COMPARABLE, Verdict.WARNED], Verdict.NOT_COMPARABLE),
        ([Verdict.UNSTABLE, Verdict.BASE_MOVED], Verdict.BASE_MOVED),
    ],
)
def test_worst(verdicts: list[Verdict], expected: Verdict) -> None:
    assert worst(verdicts) is expected


@given(VERDICTS.flatmap(lambda found: st.tuples(st.just(found), st.permutations(found))))
def test_worst_does_not_depend_on_the_order(both: tuple[list[Verdict], list[Verdict]]) -> None:
    assert worst(both[0]) is worst(both[1])


@given(VERDICTS)
def test_worst_of_the_worst_is_itself(verdicts: list[Verdict]) -> None:
    assert worst([worst(verdicts), *verdicts]) is worst(verdicts)


@given(VERDICTS, st.sampled_from(Verdict))
def test_worst_is_green_only_if_all_are(verdicts: list[Verdict], one: Verdict) -> None:
    if worst([*verdicts, one]).is_clean:
        assert not one.is_deviation
        assert not one.cannot_tell
