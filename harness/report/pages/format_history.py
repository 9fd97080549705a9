"""The page of the checkpoint format: what each release writes otherwise than the one before it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from harness.core.text import code, enumerated, many
from harness.core.versions import release_order
from harness.report.pages import page, table
from harness.store import saved_diff, saved_history
from harness.store.saved_adapter import Written
from harness.store.saved_diff import KINDS, Shared

_INTRO = """\
What PEFT writes when an adapter is saved, from release to release, as the stored adapters show it: files, keys, \
shapes, types and the entries of `adapter_config.json` (version strings left out). A change here breaks nothing by \
itself: reading is tested by `peft-regress check`. `peft-regress fixtures diff A B` compares any two creators, \
`peft-regress fixtures history -v SCENARIO` tells of one scenario."""
_NAMES = 6


def render(written: Iterable[Written]) -> str:
    """The page."""
    written = list(written)
    creators: dict[str, list[Written]] = {}
    for one in written:
        creators.setdefault(one.creator, []).append(one)
    order = sorted(creators, key=lambda name: release_order(creators[name][0].release, name))
    steps = [_step(creators[a], creators[b]) for a, b in itertools.pairwise(order)]
    labels = ", ".join(_label(creators[name]) for name in order)
    said = f"{many(len(written), 'fixture')} by {many(len(order), 'creator')}: {labels}." if order else "No fixture."
    return page("Format history", "fixtures/", _INTRO, said, "## By release", *steps, _by_scenario(written))


def _label(every: Sequence[Written]) -> str:
    return every[0].release or every[0].creator


def _step(before: Sequence[Written], after: Sequence[Written]) -> str:
    """What the later of two creators writes otherwise, over the scenarios that both have."""
    earlier, later = ({one.scenario: one for one in side} for side in (before, after))
    both = sorted(set(earlier) & set(later))
    found = saved_diff.shared({name: saved_diff.changes(earlier[name], later[name]) for name in both})
    changes = [each for each in found if saved_diff.differs(each.kind)]
    title = f"### {_label(before)} → {_label(after)}"
    if not both:
        return f"{title}\n\nNo scenario of both."
    said = many(len(both), "scenario")
    if not changes:
        return f"{title}\n\n{said} of both, written alike."
    groups = saved_diff.together(changes)
    lines = [_line(kind, those, scenarios, len(both)) for (kind, scenarios), those in groups.items()]
    return "\n".join([title, "", f"{said} of both.", "", *lines])


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
    note = "How many of each are distinct over all creators."
    return f"## By scenario\n\n{note}\n\n{table(header, rows, right=(2, 3, 4, 5))}"
