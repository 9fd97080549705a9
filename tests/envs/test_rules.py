"""`matrices/environment-rules.toml`: the committed locks follow it, and each rule has a release that needs it."""

from __future__ import annotations

import re

import pytest

from harness.core import data
from harness.envs import rules
from harness.envs.declaration import Declaration
from harness.envs.environments import Environments
from harness.envs.rules import Rule

RULES = rules.load(data.matrices())


def rule(condition: str, add: str) -> Rule:
    return Rule.model_validate({"if": condition, "add": add, "reason": "x"})


@pytest.mark.parametrize(
    ("condition", "add", "packages", "unmet"),
    [
        ("accelerate<0.21", "setuptools<81", {"accelerate": "0.18.0", "setuptools": "83.0.0"}, True),
        ("accelerate<0.21", "setuptools<81", {"accelerate": "0.18.0"}, True),
        ("accelerate<0.21", "setuptools<81", {"accelerate": "0.18.0", "setuptools": "80.9.0"}, False),
        ("accelerate<0.21", "setuptools<81", {"accelerate": "0.21.0", "setuptools": "83.0.0"}, False),
        ("accelerate<0.21", "setuptools<81", {"setuptools": "83.0.0"}, False),
        ("peft>=0.19", "scikit-learn", {"peft": "0.19.0", "scikit-learn": "1.9"}, False),
    ],
)
def test_when_a_rule_is_unmet(condition: str, add: str, packages: dict[str, str], unmet: bool) -> None:
    assert rule(condition, add).unmet(packages) is unmet


def test_a_pinned_package_is_left_alone() -> None:
    declared = Declaration(why="x", python="3.11", pins={"accelerate": "0.18.0", "setuptools": "83.0.0"})
    packages = {"accelerate": "0.18.0", "setuptools": "83.0.0"}
    assert rules.applied(RULES, declared, packages) is declared


def test_the_template_leaves_to_the_rules_what_they_add() -> None:
    declared = Declaration(why="x", python="3.11", pins={"a": "1"}, extra={"b<2": "x", "c": "x"})
    assert rules.governed([rule("a<2", "b<2")], declared).extra == {"c": "x"}


def test_every_committed_lock_of_a_release_follows_the_rules() -> None:
    environments = Environments(data.matrices())
    locked = {
        name: environments.locked_versions(name)
        for name, declared in environments.declarations().items()
        if declared.released and not declared.on_demand and re.fullmatch(r"v\d+", name)
    }
    assert len(locked) > 15
    for one in RULES:
        assert not [name for name, packages in locked.items() if one.unmet(packages)], one.add
