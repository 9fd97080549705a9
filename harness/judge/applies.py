"""Which known breaks apply to one adapter, on the way from the release that wrote it to one environment. Pure."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from harness.core.versions import Condition as Requirement
from harness.judge import breaks
from harness.judge.adapter_rule import AdapterRule, Answer, every, some
from harness.judge.adapter_uses import Use
from harness.judge.breaks import Break, Condition
from harness.store.adapter import Adapter

Versions = Mapping[str, str]
"""Package → version. A package that is not in it is unknown for a creator, and not installed for a loader."""
Environments = Mapping[str, Versions]
"""Environment name → its packages: for conditions that name environments instead of versions."""


Unknown = Literal["base", "creator"]


@dataclass(frozen=True)
class Applies:
    """A known break that applies to an adapter.

    Attributes:
        known: the break.
        condition: its worst condition that applies.
        rule: the rule of that condition.
        unknown: why it only may apply: `base`, where the base's configuration would say, and `creator`, where it
            depends on the release that wrote the adapter. Empty if it applies.
    """

    known: Break
    condition: Condition
    rule: AdapterRule
    unknown: tuple[Unknown, ...] = ()

    @property
    def only_if(self) -> tuple[Use, ...]:
        """What the user must do for it to show, all of it; empty if loading and running is enough."""
        return tuple(self.rule.only_if)

    @property
    def certain(self) -> bool:
        """True if it applies, false if it may apply."""
        return not self.unknown

    @property
    def order(self) -> tuple[bool, bool, bool, int, str]:
        """The sort key: the worst first, and last what is about all adapters."""
        severity = self.condition.verdict.severity
        return (not self.certain, bool(self.only_if), self.rule.is_general, severity, self.known.id)


def applying(
    adapter: Adapter,
    creators: Sequence[Versions],
    loader: Versions,
    known: Sequence[Break],
    environments: Environments | None = None,
) -> list[Applies]:
    """The known breaks that apply or may apply, the worst first; of each break its worst condition.

    Args:
        creators: what can have written it, each as package → version. Packages may be missing: then unknown.
        loader: what is to load it.
        known: the breaks to ask about. Breaks and conditions without a rule are left out.
        environments: the declared environments, for conditions that name them.
    """
    found = [worst for one in known if (worst := _of(one, adapter, creators, loader, environments or {}))]
    return sorted(found, key=lambda applies: applies.order)


def _of(
    known: Break, adapter: Adapter, creators: Sequence[Versions], loader: Versions, environments: Environments
) -> Applies | None:
    every_one = []
    for condition in known.condition:
        rule = known.rule(condition)
        if rule is None or not _loads(condition, loader, environments):
            continue
        if (wrote := written(condition, creators, environments)) is False:
            continue
        if (about := rule.about(adapter)) is not False:
            answers: dict[Unknown, Answer] = {"base": about, "creator": wrote}
            unknown = tuple(why for why, answer in answers.items() if answer is None)
            every_one.append(Applies(known, condition, rule, unknown))
    return min(every_one, key=lambda applies: applies.order, default=None)


def written(condition: Condition, creators: Sequence[Versions], environments: Environments) -> Answer:
    """True if each possible creator is one that the condition is about, None if only some are, or may be."""
    answers = [_wrote(condition.creators, creator, environments) for creator in creators]
    return every(answers) if every(answers) is not False else None if some(answers) is not False else False


def _wrote(rule: str | list[str], creator: Versions, environments: Environments) -> Answer:
    if isinstance(rule, list):
        return creator.get("peft") in {versions.get("peft") for versions in _named(rule, environments)}
    parts = breaks.version_condition(rule).by_package
    return every(_meets(part, creator[name]) if name in creator else None for name, part in parts)


def _loads(condition: Condition, loader: Versions, environments: Environments) -> bool:
    if isinstance(condition.loaders, list):
        return any(dict(versions) == dict(loader) for versions in _named(condition.loaders, environments))
    parts = breaks.version_condition(condition.loaders).by_package
    return all(name in loader and _meets(part, loader[name]) for name, part in parts)


@functools.lru_cache(maxsize=4096)
def _meets(part: Requirement, version: str) -> bool:
    """True if a version meets what a condition asks of one package; remembered, because it is asked again and again."""
    return part.holds({part.parts[0][0]: version})


def _named(globs: Iterable[str], environments: Environments) -> list[Versions]:
    return [v for name, v in environments.items() if any(fnmatchcase(name, glob) for glob in globs)]
