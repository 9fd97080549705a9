"""Lists, globs and `all` of creators and loaders."""

from __future__ import annotations

import pytest

from harness.core.errors import UsageError
from harness.runner import grid

KNOWN = ["current", "v061", "v0100", "v0111"]

CREATORS = [
    (["all"], KNOWN),
    (["v061,current"], ["v061", "current"]),
    (["v01*"], ["v0100", "v0111"]),
    (["v061", "v01*, v061"], ["v061", "v0100", "v0111"]),
    (["nobody"], ["nobody"]),  # its cells are `no-fixture`, which is told
]


@pytest.mark.parametrize(("values", "expected"), CREATORS)
def test_creators(values: list[str], expected: list[str]) -> None:
    assert grid.creators(values, KNOWN) == tuple(expected)


LOADERS = [
    (["all"], KNOWN),
    (["v061, current"], ["v061", "current"]),
    (["v01*,current"], ["v0100", "v0111", "current"]),
    (["peft==0.9.0"], ["peft==0.9.0"]),
    (["peft==0.9.0,transformers==4.38.2"], ["peft==0.9.0,transformers==4.38.2"]),
    (["v061,peft==0.9.0"], ["v061", "peft==0.9.0"]),
    (["v061", "peft==0.9.0,transformers==4.38.2"], ["v061", "peft==0.9.0,transformers==4.38.2"]),
    (["python:/a,b/python"], ["python:/a,b/python"]),
    (["../a,b*"], ["../a,b*"]),
    (["git+https://x.example/peft@v1,2"], ["git+https://x.example/peft@v1,2"]),
]


@pytest.mark.parametrize(("values", "expected"), LOADERS)
def test_loaders(values: list[str], expected: list[str]) -> None:
    assert grid.loaders(values, KNOWN) == tuple(expected)


WRONG = [
    (grid.creators, ["w*"], "matches no creator with fixtures"),
    (grid.loaders, ["w*"], "matches no declared environment"),
    (grid.loaders, ["v061,peft==0.9.0,torch==2"], "mixes names and 2 pins"),
]


@pytest.mark.parametrize(("choose", "values", "said"), WRONG)
def test_what_can_not_be_meant(choose: object, values: list[str], said: str) -> None:
    assert callable(choose)
    with pytest.raises(UsageError) as caught:
        choose(values, KNOWN)
    assert said in caught.value.found
    assert caught.value.next_step
