"""Releases that no declaration names, with the libraries of their day; and adapters that are newer than the loader."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from harness.envs.environments import Environments
from tests.integration.conftest import Said

pytestmark = [pytest.mark.integration, pytest.mark.nightly, pytest.mark.xdist_group("real")]


@pytest.mark.parametrize(
    "creator",
    [
        "peft==0.3.0",
        "peft==0.8.0",
        "peft==0.13.0",
        "peft==0.3.0,safetensors==0.4.0",
        "accelerate==0.30.1 over peft==0.11.0",
    ],
)
def test_a_release_creates_with_the_libraries_of_its_day(creator: str, peft_regress: Callable[..., Said]) -> None:
    said = peft_regress("pair", "--creator", creator, "--loader", "current", "--cell", "lora-linear@*")
    assert set(said.verdicts.values()) <= {"exact", "close"}, said.out
    assert said.code == 0


def test_a_pinned_release_has_the_packages_of_the_environment_that_is_declared_for_it(
    environments: Environments,
) -> None:
    declared = {name: one for name, one in environments.declarations().items() if re.fullmatch(r"v\d+", name)}
    assert len(declared) > 15
    for name, one in declared.items():
        made = environments.describe(f"peft=={one.exact()['peft']}")
        assert made.versions == environments.locked_versions(name), name


def test_one_more_pin_does_not_move_the_day(environments: Environments) -> None:
    alone = environments.describe("peft==0.9.0").versions
    for pin in ("transformers==4.38.0", "setuptools==80.9.0", "bitsandbytes==0.46.0"):
        package = pin.partition("=")[0]
        with_pin = environments.describe(f"peft==0.9.0,{pin}").versions
        assert {name: version for name, version in with_pin.items() if name != package and alone.get(name)} == {
            name: version for name, version in alone.items() if name != package
        }


@pytest.mark.parametrize(
    ("scenario", "creator", "loader", "verdict", "reading"),
    [
        ("vera-linear", "v0140", "v061", "unsupported", "refused"),
        ("lora-activated", "v0200", "v0160", "silent-wrong", "ignored"),
    ],
)
def test_a_pair_tries_a_loader_that_is_older_than_the_feature(
    scenario: str, creator: str, loader: str, verdict: str, reading: str, peft_regress: Callable[..., Said]
) -> None:
    said = peft_regress("pair", "--creator", creator, "--loader", loader, "--cell", f"{scenario}@*")
    (cell,) = said.report["cells"]
    assert (cell["verdict"], cell["reading"]) == (verdict, reading)
