"""Which cells `check --against` checks: scenarios that the change can affect, with one creator's fixture each. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from harness.core import matrix
from harness.core.matrix import Declared
from harness.core.text import enumerated, many
from harness.runner.change.files import Changed
from harness.runner.change.touched import Touched

REFERENCE = "v061"
"""The default creator: the oldest release that is checked every day."""


def choose(
    scenarios: Sequence[Declared], touched: Touched | None, why_all: str, versions: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str], str]:
    """The scenarios to check, those to leave out, both with reasons, and a sentence that sums up.

    Args:
        touched: what the change can affect; None to check every scenario.
        why_all: why every one is checked.
        versions: the baseline's; a scenario whose feature it lacks can't be compared.
    """
    able = {one.name: matrix.unsupported(one, versions) for one in scenarios}
    out = {name: f"the baseline lacks it: {why}" for name, why in able.items() if why}
    usable = [one for one in scenarios if not able[one.name]]
    if touched is None or touched.everything:
        why = touched.everything if touched else why_all
        return {one.name: why for one in usable}, out, f"every scenario: {why}"
    hit = {one.name: touched.scenarios[one.name] for one in usable if one.name in touched.scenarios}
    if hit:
        what = enumerated(touched.groups, 4)
        rest = {one.name: f"not affected: only {what} changed" for one in usable if one.name not in hit}
        return hit, out | rest, f"{many(len(hit), 'scenario')} that {what} can affect"
    nothing = f"no scenario is about {enumerated(touched.uncovered, 3)}" if touched.uncovered else NOTHING
    sample = _sample([one for one in usable if not touched.users or one.name in touched.users])
    rest = {one.name: f"{nothing}; a sample was checked" for one in usable if one.name not in sample}
    return (
        dict.fromkeys(sample, f"a sample: {nothing}"),
        out | rest,
        f"a sample, one scenario of each family: {nothing}",
    )


NOTHING = "nothing that is installed differs from the baseline"


def _sample(scenarios: Iterable[Declared]) -> list[str]:
    """The first scenario of each family."""
    found: dict[str, str] = {}
    for one in scenarios:
        found.setdefault(one.family, one.name)
    return list(found.values())


def pair(
    chosen: Collection[str],
    methods: Mapping[str, str],
    having: Mapping[str, Collection[str]],
    asked: Sequence[str],
    *,
    broad: bool,
) -> tuple[set[tuple[str, str]], dict[str, str]]:
    """The creator of each chosen scenario, and why some have none.

    Args:
        methods: scenario → its method.
        having: creator → the scenarios that it has fixtures of, from the oldest release to the newest.
        asked: the creators that the user names; empty for `REFERENCE`, or the oldest with a fixture where it has none.
        broad: all methods are checked: of a method without a fixture of `REFERENCE`, one scenario is enough.
    """
    if asked:
        pairs = {(name, creator) for name in chosen for creator in asked}
        return pairs, {}
    reference = having.get(REFERENCE, ())
    pairs = {(name, REFERENCE) for name in chosen if name in reference}
    seen = {methods[name] for name, _ in pairs}
    out: dict[str, str] = {}
    for name in chosen:
        if name in reference:
            continue
        oldest = next((creator for creator, names in having.items() if name in names), None)
        if oldest is None:
            out[name] = "no fixture of it is stored"
        elif broad and reference and methods[name] in seen:
            out[name] = (
                f"{REFERENCE} has no fixture of it, and another scenario of its method is checked; --every-scenario"
            )
        else:
            pairs.add((name, oldest))
            seen.add(methods[name])
    return pairs, out


def beside(files: Changed | None) -> list[str]:
    """Notes on files that were not considered."""
    notes = []
    if files is not None and files.further:
        notes.append(
            f"{many(files.further, 'more file')} differ from the baseline and are not part of this change; "
            "scenarios that only they affect were not checked. Check them with --all, or with --baseline PATH@REF"
        )
    return notes
