"""`fixtures diff` and `fixtures history`: what releases wrote, whatever becomes of it on loading."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from rich.table import Table
from rich.text import Text

from harness.cli import common
from harness.core import matrix
from harness.core.errors import ExitCode, HarnessError, UsageError
from harness.core.text import enumerated, many, visible
from harness.store import integrity, saved_adapter, saved_diff, saved_history
from harness.store.fixtures import Store, recorded_versions
from harness.store.saved_adapter import Written
from harness.store.saved_diff import KINDS, Change, Shared
from harness.store.saved_history import History, Storage

_NAMES = 4
"""Scenarios that are named without -v; the rest is counted."""


def diff(arguments: argparse.Namespace) -> int:
    """Hold what two creators wrote against each other, scenario by scenario; 0 nothing differs, 1 something does."""
    store = common.store_of(arguments)
    sides = [_read(store, creator, _selected(arguments, store, creator)) for creator in (arguments.a, arguments.b)]
    both = sorted(set(sides[0]) & set(sides[1]))
    found = {name: saved_diff.changes(sides[0][name], sides[1][name]) for name in both}
    alone = [
        {name: _why_not(arguments, store, name, other) for name in sorted(set(side) - set(both))}
        for side, other in zip(sides, (arguments.b, arguments.a), strict=True)
    ]
    if arguments.json:
        common.out_json(_as_json(arguments, found, alone))
    else:
        _say_changes(arguments, found)
        _say_alone((arguments.a, arguments.b), alone, arguments.verbose > 0)
        common.out(_sum(found))
    if not both:
        return ExitCode.CANNOT_TELL
    return ExitCode.REGRESSED if any(c.differs for every in found.values() for c in every) else ExitCode.CLEAN


def _read(store: Store, creator: str, names: Iterable[str]) -> dict[str, Written]:
    return {name: saved_adapter.read(store, store.manifest(creator, name)) for name in names}


def _selected(arguments: argparse.Namespace, store: Store, creator: str) -> list[str]:
    """The creator's scenarios that -k and --family choose; also such as are declared no more, by name."""
    names = store.scenarios(creator)
    if not names:
        raise UsageError(
            f"{creator} has no fixtures", f"one of {', '.join(store.creators()) or '(there is none)'}", "mend the name"
        )
    declared = common.matrix_of(arguments).scenarios()
    known = {one.name for one in declared}
    chosen = {one.name for one in common.chosen(declared, arguments.keyword, arguments.families)}
    parts = [part.strip() for part in (arguments.keyword or "").split(" or ")]
    stray = {name for name in names if name not in known and any(part in name for part in parts)}
    return [name for name in names if name in chosen or (name in stray and not arguments.families)]


def _why_not(arguments: argparse.Namespace, store: Store, scenario: str, creator: str) -> str:
    """Why the other creator has no such fixture, as far as anybody declared."""
    declared = {one.name: one for one in common.matrix_of(arguments).scenarios()}.get(scenario)
    if declared is None:
        return "no scenario of that name is declared any more"
    return matrix.unstored(declared, recorded_versions(store, creator)) or "no fixture was made"


def _sum(found: Mapping[str, Sequence[Change]]) -> str:
    differing = sum(any(change.differs for change in every) for every in found.values())
    doubtful = sum(any(change.kind == "unknown" for change in every) for every in found.values())
    more = f"; of {doubtful:,} not everything could be compared" if doubtful else ""
    counts = f"{differing:,} written otherwise, {len(found) - differing:,} the same"
    return f"{many(len(found), 'scenario')} of both: {counts}{more}"


def _say_changes(arguments: argparse.Namespace, found: Mapping[str, Sequence[Change]]) -> None:
    for (kind, scenarios), changes in saved_diff.together(saved_diff.shared(found)).items():
        common.out(f"{KINDS[kind]}, {_where(scenarios, len(found), arguments.verbose > 0)}")
        for each in changes:
            common.out(f"  {visible(each.what)}")
            for scenario, keys in sorted(each.details.items()) if arguments.verbose else ():
                for key in keys:
                    common.out(f"      {scenario}: {visible(key)}")


def _where(names: Sequence[str], total: int, whole: bool) -> str:
    if len(names) == total and not whole:
        return f"all {total:,} scenarios" if total > 1 else names[0]
    return f"{many(len(names), 'scenario')}: {enumerated(names, len(names) if whole else _NAMES)}"


def _say_alone(creators: Sequence[str], alone: Sequence[Mapping[str, str]], whole: bool) -> None:
    for creator, names in zip(creators, alone, strict=True):
        by_reason: dict[str, list[str]] = {}
        for name, reason in names.items():
            by_reason.setdefault(reason, []).append(name)
        for reason, those in by_reason.items():
            shown = enumerated(those, len(those) if whole else _NAMES)
            common.out(f"only {creator} has {many(len(those), 'scenario')}: {shown} ({reason})")


def _as_json(
    arguments: argparse.Namespace, found: Mapping[str, Sequence[Change]], alone: Sequence[Mapping[str, str]]
) -> dict[str, object]:
    return {
        "a": arguments.a,
        "b": arguments.b,
        "compared": list(found),
        "changes": [_change_json(each) for each in saved_diff.shared(found)],
        "only_a": dict(alone[0]),
        "only_b": dict(alone[1]),
    }  # fmt: skip


def _change_json(each: Shared) -> dict[str, object]:
    return {
        "kind": each.kind,
        "what": each.what,
        "difference": saved_diff.differs(each.kind),
        "scenarios": list(each.scenarios),
        "keys": {name: list(keys) for name, keys in each.details.items() if keys},
    }


# -- history -----------------------------------------------------------------------------------------------------------


def history(arguments: argparse.Namespace) -> int:
    """Tell how many forms each scenario's adapter had over its creators, and what the store holds."""
    store = common.store_of(arguments)
    every = histories(store, arguments)
    storage = saved_history.storage(store.manifest(c, name) for c in store.creators() for name in store.scenarios(c))
    if arguments.json:
        common.out_json(
            {
                "scenarios": [_history_json(each) for each in every],
                "storage": {**storage.__dict__, "on_disk": integrity.size(store)},
            }
        )
    else:
        _say_table(every)
        for each in every if arguments.verbose or len(every) == 1 else ():
            _say_stretches(each, arguments.verbose > 0)
        common.out(_storage_line(storage, integrity.size(store)))
    return ExitCode.CLEAN if every else ExitCode.CANNOT_TELL


def histories(store: Store, arguments: argparse.Namespace) -> tuple[History, ...]:
    """The histories of the scenarios that are asked for.

    Raises:
        UsageError: there is no fixture, or none of these.
    """
    wanted = arguments.scenario
    found = [
        saved_adapter.read(store, store.manifest(creator, name))
        for creator in store.creators()
        for name in _selected(arguments, store, creator)
        if not wanted or any(fnmatchcase(name, pattern) for pattern in wanted)
    ]
    if not found:
        raise NoHistory(
            f"{store.folder}: no fixture of {', '.join(wanted) or 'any scenario'}", "at least one", "mend the name"
        )
    return saved_history.of(found)


class NoHistory(HarnessError):
    """There is nothing to tell a history of."""

    exit_code = ExitCode.CANNOT_TELL


def _history_json(each: History) -> dict[str, object]:
    return {
        "scenario": each.scenario, "method": each.method,
        "creators": [one.creator for one in each.written],
        "weights": each.weights, "keys": each.keys, "configs": each.configs,
        "stretches": [
            {"span": s.span, "creators": [one.creator for one in s.creators], "form": s.form,
             "changes": [c.what for c in s.changes]}
            for s in each.stretches
        ],
    }  # fmt: skip


def _say_table(every: Sequence[History]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for place, name in enumerate(("scenario", "creators", "weights files", "key sets", "configs")):
        table.add_column(Text(name), justify="right" if place else "left", no_wrap=True)
    for each in every:
        table.add_row(each.scenario, *map(str, (len(each.written), each.weights, each.keys, each.configs)))
    common.console().print(table)


def _say_stretches(each: History, whole: bool) -> None:
    common.out(f"\n{each.scenario}")
    for stretch in each.stretches:
        common.out(f"  {stretch.span}: {stretch.form}")
        for change in stretch.changes:
            common.out(f"    {KINDS[change.kind]}: {visible(change.what)}")
            for key in change.details if whole else ():
                common.out(f"      {visible(key)}")


def _storage_line(storage: Storage, on_disk: int) -> str:
    """What the store holds, in a line."""
    saved = 1 - storage.stored / storage.unshared if storage.unshared else 0.0
    held = f"{many(storage.fixtures, 'fixture')}, {many(storage.blobs, 'distinct blob')}"
    unshared = f"{storage.unshared / 1e6:.1f} MB if nothing were shared ({saved:.0%} saved)"
    return f"{held}: {storage.stored / 1e6:.1f} MB ({on_disk / 1e6:.1f} MB on disk, packed), {unshared}"
