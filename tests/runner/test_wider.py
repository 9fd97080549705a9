"""The baseline of a check: the environment in which most of what a change can affect can be compared."""

from __future__ import annotations

import pytest

from harness.core.matrix import Declared
from harness.runner.change import wider
from tests.runner.test_touched import declared

CURRENT = {"peft": "0.21.2", "torch": "2.13.0"}
BNB = CURRENT | {"bitsandbytes": "0.50.2"}
EVERY = {
    "current": CURRENT,
    "current-bnb": BNB,
    "current-both": BNB | {"trl": "1.0.0"},
    "old-bnb": BNB | {"peft": "0.20.0"},
}
PLAIN = declared("plain")
QUANTISED = declared("bnb4", requires=["bitsandbytes>=0.46"])
SFT = declared("sft", requires=["trl"])


@pytest.mark.parametrize(
    ("scenarios", "name"),
    [
        ([PLAIN], ""),
        ([], ""),
        ([PLAIN, QUANTISED], "current-bnb"),
        ([QUANTISED, SFT], "current-both"),
        ([declared("new", requires=["peft>=0.22"])], ""),
    ],
)
def test_it_has_what_the_affected_scenarios_need(scenarios: list[Declared], name: str) -> None:
    assert wider.environment(CURRENT, scenarios, EVERY) == name
