"""The page of the checkpoint format: what each release writes differently from the one before it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

from harness.core.text import code, enumerated, many
from harness.core.versions import release_order
from harness.report.pages import page, table
from harness.store import saved_diff, saved_history
from harness.store.saved_adapter import Written
from harness.store.saved_diff import KINDS, Shared

_INTRO = """\
This page lists what each PEFT release changed in the files of a saved adapter: files, keys, shapes, types and the \
entries of `adapter_config.json`, without version strings. The stored adapters are the source. A change here is not \
a break; `peft-regress check` tests whether adapters still load. `peft-regress fixtures diff A B` compares any two \
creators, and `peft-regress fixtures history -v SCENARIO` shows one scenario.

Each creator is compared with the previous creator of the same kind of fixtures."""
_NAMES = 6
_BESIDE = {"peft": "PEFT", "trl": "TRL", "transformers": "Transformers", "bitsandbytes": "bitsandbytes"}
"""The libraries that may have changed what is written."""

Creators = Mapping[str, Sequence[Written]]
"""Creator → its adapters."""


def render(written: Iterable[Written]) -> str:
    """The page."""
    written = list(written)
    creators: dict[str, list[Written]] = {}
    for one in written:
        creators.setdefault(one.creator, []).append(one)
    kinds = [_ordered({name: creators[name] for name in kind}) for kind in saved_history.kinds(_scenarios(creators))]
    said = f"{many(len(written), 'fixture')} by {many(len(creators), 'creator')}." if written else "No fixture."
    sections = [block for number, kind in enumerate(kinds) for block in _section(kind, first=number == 0)]
    return page("Format history", "fixtures/", _INTRO, said, *sections, _by_scenario(written))


def _scenarios(creators: Creators) -> dict[str, list[str]]:
    return {name: [one.scenario for one in every] for name, every in creators.items()}


def _ordered(creators: Creators) -> Creators:
    """The creators by the releases of PEFT, TRL and bitsandbytes."""

    def order(name: str) -> tuple[object, ...]:
        one = creators[name][0]
        others = (release_order(one.libraries.get(package, "")) for package in ("trl", "bitsandbytes"))
        return (release_order(one.release), *others, name)

    return {name: creators[name] for name in sorted(creators, key=order)}


def _section(creators: Creators, *, first: bool) -> list[str]:
    """The steps of one kind of creators."""
    labels = _labels(creators)
    steps = [_step(creators, labels, a, b) for a, b in itertools.pairwise(creators)]
    same = [text for changed, text in steps if not changed]
    heading = "## By release" if first else f"## By release: {_name(list(creators))}"
    listed = f"{many(len(creators), 'creator')}: {', '.join(labels.values())}."
    unchanged = [f"No change: {', '.join(same)}."] if same else []
    return [heading, listed, *(text for changed, text in steps if changed), *unchanged]


def _labels(creators: Creators) -> dict[str, str]:
    """Creator → its release; its name if the release is unknown or not its alone."""
    releases = {name: every[0].release for name, every in creators.items()}
    taken = list(releases.values())
    return {name: release if release and taken.count(release) == 1 else name for name, release in releases.items()}


def _name(creators: Sequence[str]) -> str:
    letters = itertools.takewhile(lambda same: len(set(same)) == 1, zip(*creators, strict=False))
    prefix = "".join(same[0] for same in letters)
    return code(f"{prefix}*" if len(creators) > 1 and prefix else ", ".join(creators))


def _step(creators: Creators, labels: Mapping[str, str], before: str, after: str) -> tuple[bool, str]:
    """(True, what the later creator writes differently), or (False, the labels of both) if nothing differs."""
    earlier, later = ({one.scenario: one for one in creators[name]} for name in (before, after))
    both = sorted(set(earlier) & set(later))
    found = saved_diff.shared({name: saved_diff.changes(earlier[name], later[name]) for name in both})
    changes = [each for each in found if saved_diff.differs(each.kind)]
    label = f"{labels[before]} → {labels[after]}"
    if not both:
        return True, f"### {label}\n\nNo common scenario."
    if not changes:
        return False, f"{label} ({many(len(both), 'scenario')})"
    groups = saved_diff.together(changes)
    lines = [_line(kind, those, scenarios, len(both)) for (kind, scenarios), those in groups.items()]
    moved = _moved(creators[before][0], creators[after][0])
    return True, "\n".join([f"### {label}", "", f"{many(len(both), 'common scenario')}. {moved}", "", *lines])


def _moved(before: Written, after: Written) -> str:
    """The libraries whose version changed: `PEFT 0.6.2 → 0.7.1.`"""
    pairs = {name: (before.libraries.get(key), after.libraries.get(key)) for key, name in _BESIDE.items()}
    changed = [f"{name} {was or 'none'} → {now or 'none'}" for name, (was, now) in pairs.items() if was != now]
    return f"{', '.join(changed)}." if changed else "Equal versions of PEFT and the libraries around it."


def _line(kind: str, changes: Sequence[Shared], scenarios: Sequence[str], total: int) -> str:
    names = f"{many(len(scenarios), 'scenario')} ({enumerated(scenarios, _NAMES)})"
    said = ", ".join(code(each.what) for each in changes)
    return f"- {KINDS[kind]}: {said}; in {'all' if len(scenarios) == total else names}"  # type: ignore[index]


def _by_scenario(written: Sequence[Written]) -> str:
    rows = [
        (each.scenario, each.method, str(len(each.written)), str(each.weights), str(each.keys), str(each.configs))
        for each in saved_history.of(written)
    ]
    header = ("scenario", "method", "creators", "weights files", "key sets", "configs")
    note = "How many different ones there are over all creators."
    return f"## By scenario\n\n{note}\n\n{table(header, rows, right=(2, 3, 4, 5))}"
