"""Which cells `check --against` checks: scenarios that the change can affect, with one creator's fixture each. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Literal

from harness.core import matrix
from harness.core.matrix import Declared
from harness.core.text import enumerated, many
from harness.runner.change import cover
from harness.runner.change.files import Changed
from harness.runner.change.touched import Touched

REFERENCE = "v061"
"""The default creator: the oldest release that is checked every day."""


@dataclass(frozen=True)
class Scope:
    """The scenarios that a change can affect, before it is known which have fixtures."""

    scenarios: dict[str, str]
    """Name → why it is checked."""
    left_out: dict[str, str]
    """Name → why it is not checked."""
    words: str
    """What is checked, for the report."""
    rule: Rule = "affected"


Rule = Literal["affected", "cover", "sample"]
"""`affected`: check all of them. `cover`: check those that have every feature. `sample`: check one of each family."""


def choose(scenarios: Sequence[Declared], touched: Touched | None, why_all: str, versions: Mapping[str, str]) -> Scope:
    """The scenarios that may be checked, and those to leave out, with reasons.

    Args:
        touched: what the change can affect; None if it can affect every scenario.
        why_all: why it can.
        versions: the baseline's; a scenario whose feature it lacks can't be compared.
    """
    able = {one.name: matrix.unsupported(one, versions) for one in scenarios}
    out = {name: f"the baseline lacks it: {why}" for name, why in able.items() if why}
    usable = [one for one in scenarios if not able[one.name]]
    if touched is None or touched.everything:
        why = touched.everything if touched else why_all
        return Scope({one.name: why for one in usable}, out, why, "cover")
    hit = {one.name: touched.scenarios[one.name] for one in usable if one.name in touched.scenarios}
    if hit:
        what = enumerated(touched.groups, 4)
        rest = {one.name: f"not affected: only {what} changed" for one in usable if one.name not in hit}
        return Scope(hit, out | rest, f"{many(len(hit), 'scenario')} that {what} can affect")
    nothing = f"no scenario is about {enumerated(touched.uncovered, 3)}" if touched.uncovered else NOTHING
    users = [one.name for one in usable if not touched.users or one.name in touched.users]
    rest = {one.name: f"{nothing}; a sample was checked" for one in usable if one.name not in users}
    return Scope(dict.fromkeys(users, f"a sample: {nothing}"), out | rest, nothing, "sample")


NOTHING = "nothing that is installed differs from the baseline"


def reduced(scope: Scope, able: Sequence[Declared], cost: Mapping[str, float]) -> tuple[Scope, dict[str, Set[str]]]:
    """The scope without the scenarios that need not be checked, and the features of the others.

    Args:
        able: its scenarios that have a fixture, and that the user's options select.
        cost: name → what it costs to check.
    """
    features: dict[str, Set[str]] = {}
    match scope.rule:
        case "affected":
            return scope, features
        case "sample":
            kept, why = _sample(able), f"{scope.words}; a sample was checked"
            words = f"a sample, one scenario of each family: {scope.words}"
        case "cover":
            features = {one.name: cover.features(one) for one in able}
            kept = cover.smallest(features, cost)
            count = f"all {many(len(set().union(*features.values())), 'feature')}"
            words = f"{len(kept):,} of {many(len(able), 'scenario')}, which cover {count}: {scope.words}"
            why = "the scenarios that are checked have its features too; --every-scenario checks it"
    out = {one.name: why for one in able if one.name not in kept}
    names = {name: reason for name, reason in scope.scenarios.items() if name not in out}
    return Scope(names, scope.left_out | out, words), {name: features[name] for name in kept if name in features}


MANY = 60
"""More scenarios than these are reduced, also if all of them have to do with what changed."""


def fewer(
    running: Sequence[str], importing: Sequence[str], by_files: Sequence[str], declared: Mapping[str, Declared],
    scope: Scope, cost: Mapping[str, float],
) -> tuple[set[str], dict[str, Set[str]], dict[str, str]]:  # fmt: skip
    """The scenarios to check, the features of those that were chosen by them, and why others are left out.

    Args:
        running: those that run a function which changed. All are checked, unless they are many.
        importing: those that only import a file which changed elsewhere.
        by_files: those that the changed files select: it is not recorded what they execute.
        scope: of the changed files.
    """
    chosen, pool, out = set[str](), list[str](), dict[str, str]()
    for names in (running, importing):
        if len(names) + len(chosen) <= MANY:
            chosen |= set(names)
        elif names is running or scope.rule != "affected":
            pool += names
        else:
            others = [name for name in names if name not in scope.scenarios]
            sample = _sample(declared[name] for name in others)
            chosen |= {*names} - {*others} | {*sample}
            why = "it imports what changed and executes nothing of it; one scenario of each family was checked"
            out |= {name: why for name in others if name not in sample}
    match scope.rule:
        case "affected":
            chosen |= set(by_files)
        case "sample":
            sample = _sample(declared[name] for name in by_files)
            chosen |= set(sample)
            out |= {name: f"{scope.words}; a sample was checked" for name in by_files if name not in sample}
        case "cover":
            pool += by_files
    had = set[str]().union(*(cover.features(declared[name]) for name in chosen)) if pool else set()
    features = {name: cover.features(declared[name]) for name in pool}
    kept = cover.smallest({name: having - had for name, having in features.items()}, cost)
    why = "the scenarios that are checked have its features too; --every-scenario checks it"
    out |= {name: why for name in pool if name not in kept}
    return chosen | set(kept), {name: features[name] for name in kept}, out


def _sample(scenarios: Iterable[Declared]) -> list[str]:
    """The first scenario of each family."""
    found: dict[str, str] = {}
    for one in scenarios:
        found.setdefault(one.family, one.name)
    return list(found.values())


def pair(
    chosen: Collection[str], having: Mapping[str, Collection[str]], asked: Sequence[str]
) -> tuple[set[tuple[str, str]], dict[str, str]]:
    """The creator of each chosen scenario, and why some have none.

    Args:
        having: creator → the scenarios that it has fixtures of, from the oldest release to the newest.
        asked: the creators that the user names; empty for `REFERENCE`, or the oldest with a fixture where it has none.
    """
    if asked:
        return {(name, creator) for name in chosen for creator in asked}, {}
    order = [*([REFERENCE] if REFERENCE in having else []), *having]
    creators = {name: next((creator for creator in order if name in having[creator]), None) for name in chosen}
    pairs = {(name, creator) for name, creator in creators.items() if creator}
    return pairs, {name: "no fixture of it is stored" for name, creator in creators.items() if not creator}


def beside(files: Changed | None) -> list[str]:
    """Notes on files that were not considered."""
    notes = []
    if files is not None and files.further:
        notes.append(
            f"{many(files.further, 'more file')} differ from the baseline and are not part of this change; "
            "scenarios that only they affect were not checked. Check them with --all, or with --baseline PATH@REF"
        )
    return notes
