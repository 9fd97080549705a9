"""The known breaks of the repository: each condition selects cells that a run can have, and no cell has two breaks."""

from __future__ import annotations

import itertools
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from harness.core import versions
from harness.core.errors import HarnessError
from harness.judge import breaks, expected
from harness.judge.breaks import Break, Condition
from harness.runner.request import Places
from harness.store.fixtures import recorded_versions

MATRICES = Path(__file__).parents[2] / "matrices"
BREAKS = breaks.load(MATRICES)
Cells = frozenset[tuple[str, str, str]]
"""Scenario, creator and loader of each."""
AD_HOC = {
    "lora-target-parameters-layout-swapped": "peft>=0.19,<0.19.1, transformers>=5",
    "multitask-prompt-tuning-generate-0.7": "peft>=0.8",
}
"""Conditions (break → loaders) that only ad-hoc environments meet: PEFT 0.19.0; PEFT 0.7 on Transformers 4.36."""


class Planned:
    """The cells of the stored fixtures under the declared environments."""

    def __init__(self) -> None:
        store, environments = Places().store(), Places().environments()
        self.fixtures = {creator: frozenset(store.scenarios(creator)) for creator in store.creators()}
        self.creators = {creator: dict(recorded_versions(store, creator)) for creator in self.fixtures}
        self.loaders = {}
        for spec in (*environments.names(), *environments.consumers()):
            try:
                self.loaders[environments.describe(spec).name] = dict(environments.locked_versions(spec))
            except HarnessError:
                continue

    def selected(self, one: Condition) -> Cells:
        """The cells that a condition selects; notes and devices are not known beforehand."""
        creators = [name for name in self.creators if expected.admits(one.creators, name, self.creators)]
        loaders = [name for name in self.loaders if expected.admits(one.loaders, name, self.loaders)]
        return frozenset(
            (scenario, creator, loader)
            for creator in creators
            for scenario in self.fixtures[creator]
            if any(fnmatchcase(scenario, glob) for glob in one.scenarios)
            for loader in loaders
        )


@pytest.fixture(scope="module")
def planned() -> Planned:
    return Planned()


def test_there_are_known_breaks_and_no_old_file() -> None:
    assert len(BREAKS) > 80
    assert not (MATRICES / breaks.OLD_FILE).exists()


def test_every_condition_selects_a_cell(planned: Planned) -> None:
    empty = [(known.id, one.loaders) for known in BREAKS for one in known.condition if not planned.selected(one)]
    assert empty == list(AD_HOC.items())


def test_conditions_about_a_consumer_select_its_cells_and_no_others(planned: Planned) -> None:
    """And conditions on versions of PEFT select none of a consumer."""
    loaders = {
        known.id: {loader for one in known.condition for _, _, loader in planned.selected(one)} for known in BREAKS
    }
    consumers = {id: names for id, names in loaders.items() if any(name.startswith("consumer-") for name in names)}
    assert all(len(names) == 1 for names in consumers.values())
    found = {name for names in consumers.values() for name in names}
    assert found == {"consumer-llama.cpp", "consumer-mistralrs", "consumer-vllm"}


def test_no_cell_is_covered_by_two_breaks(planned: Planned) -> None:
    """Else it would depend on the ids which one a report names."""
    every = [(known, one, planned.selected(one)) for known in BREAKS for one in known.condition]
    both = {
        (known.id, other.id)
        for (known, one, cells), (other, two, others) in itertools.combinations(every, 2)
        if known is not other and one.verdict is two.verdict and not apart(one, two) and cells & others
    }
    assert both == set()


def apart(one: Condition, two: Condition) -> bool:
    """True if no cell has a note that both want."""
    return bool(one.noted and two.noted) and {f"!{one.noted}", f"!{two.noted}"} & {one.noted, two.noted} != set()


@pytest.mark.parametrize("known", BREAKS, ids=lambda known: known.id)
def test_a_break_says_since_when_and_how_that_is_known(known: Break) -> None:
    assert known.since
    assert known.verified
    assert known.title[-1] != "."
    assert len(known.title) <= 100


def test_breaks_do_not_all_expire_on_one_day() -> None:
    days = [known.expires for known in BREAKS if known.expires]
    assert len(set(days)) >= 5
    assert max(days.count(day) for day in days) <= len(days) / 2
    assert max(days) <= date(2027, 12, 31)


def test_what_is_permanent_has_only_loaders_that_will_not_change() -> None:
    """Each loader range has an upper bound that lies before PEFT 0.20."""
    for known in BREAKS:
        for one in known.condition if known.permanent else []:
            assert isinstance(one.loaders, str), known.id
            bounded = {name for name, rule in versions.parse(one.loaders).parts if any("<" in r.operator for r in rule)}
            assert bounded, (known.id, one.loaders)
            if bounded == {"peft"}:
                assert not versions.parse(one.loaders).holds({"peft": "0.20.0"}), known.id
