"""`fixtures`: the group of commands about the store, and its commands `diff` and `history`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from harness.cli import common, fixtures_archive, fixtures_verify, streams
from harness.cli.parser import Output, Parser, choice, command, where
from harness.core.errors import ExitCode
from harness.core.text import enumerated, many, visible, visible_lines
from harness.runner import saved_formats
from harness.runner.request import Places, Selection
from harness.runner.saved_formats import Diff, Histories
from harness.store import saved_diff
from harness.store.saved_diff import KINDS, Shared
from harness.store.saved_history import History

_NAMES = 4
"""How many scenarios are named without -v."""


@dataclass(frozen=True)
class DiffOptions:
    a: str
    b: str
    places: Places = Places()
    selection: Selection = Selection()
    output: Output = Output()


@dataclass(frozen=True)
class HistoryOptions:
    scenario: tuple[str, ...] = ()
    places: Places = Places()
    selection: Selection = Selection()
    output: Output = Output()


def add_to(commands: Any) -> None:
    group = commands.add_parser(
        "fixtures", help="manage the stored fixtures: verify, compare, fetch, pack, prune, convert",
        description="Manage the stored fixtures: verify, compare, fetch, pack, prune, convert.",
    )  # fmt: skip
    inner = group.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    fixtures_verify.add_to(inner)
    fixtures_archive.add_to(inner)
    one = command(
        inner, "diff", diff, "compare what two creators saved for the same scenarios",
        "  peft-regress fixtures diff v071 v082\n"
        "  peft-regress fixtures diff v0140 v0212 -k lora -v\n\n"
        "exit codes: 0 no difference except version strings, 1 a difference, "
        "2 nothing was compared, or a fixture is damaged",
        DiffOptions,
    )  # fmt: skip
    one.add_argument("a", metavar="A", help="a creator that has fixtures")
    one.add_argument("b", metavar="B", help="another creator")
    other = command(
        inner, "history", history, "show how each scenario's adapter changed over the releases",
        "  peft-regress fixtures history\n  peft-regress fixtures history -v lora-bias-all", HistoryOptions,
        prints=True,
    )  # fmt: skip
    other.add_argument("scenario", nargs="*", metavar="SCENARIO", help="names or globs (default: all)")
    for each in (one, other):
        where(each)
        choice(each, scenarios=False)
        each.add_argument("-v", "--verbose", action="count", default=0, help="list the keys of each change")
        each.add_argument("--json", action="store_true", help="print JSON")


# -- diff --------------------------------------------------------------------------------------------------------------


def diff(options: DiffOptions) -> int:
    """Compare what two creators saved; 0 if nothing differs, 1 if something does, 2 if something cannot be read."""
    found = saved_formats.diff(options.a, options.b, options.places, options.selection)
    if options.output.json:
        common.out_json(_diff_json(found))
    else:
        _print_changes(found, options.output.verbose > 0)
        for creator, names in ((found.a, found.only_a), (found.b, found.only_b)):
            _print_alone(creator, names, options.output.verbose > 0)
        common.out(_summary(found))
    _say_problems(found.problems)
    if not found.changes or found.problems:
        return ExitCode.CANNOT_TELL
    return ExitCode.REGRESSED if found.different else ExitCode.CLEAN


def _say_problems(problems: Sequence[str]) -> None:
    for problem in problems:
        common.say(f"not compared: {visible_lines(problem)}")


def _summary(found: Diff) -> str:
    total, different = len(found.changes), len(found.different)
    more = f"; {len(found.incomplete):,} not compared completely" if found.incomplete else ""
    return f"{many(total, 'common scenario')}: {different:,} different, {total - different:,} equal{more}"


def _print_changes(found: Diff, whole: bool) -> None:
    for (kind, scenarios), changes in saved_diff.together(saved_diff.shared(found.changes)).items():
        common.out(f"{KINDS[kind]}, {_which(scenarios, len(found.changes), whole)}")
        for each in changes:
            common.out(f"  {visible(each.what)}")
            for scenario, keys in sorted(each.details.items()) if whole else ():
                for key in keys:
                    common.out(f"      {scenario}: {visible(key)}")


def _which(names: Sequence[str], total: int, whole: bool) -> str:
    if len(names) == total and not whole:
        return f"all {total:,} scenarios" if total > 1 else names[0]
    return f"{many(len(names), 'scenario')}: {enumerated(names, len(names) if whole else _NAMES)}"


def _print_alone(creator: str, names: Mapping[str, str], whole: bool) -> None:
    by_reason: dict[str, list[str]] = {}
    for name, reason in names.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, those in by_reason.items():
        shown = enumerated(those, len(those) if whole else _NAMES)
        common.out(f"only {creator} has {many(len(those), 'scenario')}: {shown} ({reason})")


def _diff_json(found: Diff) -> dict[str, object]:
    return {
        "a": found.a,
        "b": found.b,
        "compared": list(found.changes),
        "changes": [_change_json(each) for each in saved_diff.shared(found.changes)],
        "only_a": dict(found.only_a),
        "only_b": dict(found.only_b),
        "problems": list(found.problems),
    }


def _change_json(each: Shared) -> dict[str, object]:
    return {
        "kind": each.kind,
        "what": each.what,
        "difference": saved_diff.differs(each.kind),
        "scenarios": list(each.scenarios),
        "keys": {name: list(keys) for name, keys in each.details.items() if keys},
    }


# -- history -----------------------------------------------------------------------------------------------------------


def history(options: HistoryOptions) -> int:
    """Show how often each scenario's adapter changed over the creators, and the size of the store."""
    found = saved_formats.history(options.scenario, options.places, options.selection)
    if options.output.json:
        common.out_json(_histories_json(found))
    else:
        _print_table(found.scenarios)
        for each in found.scenarios if options.output.verbose or len(found.scenarios) == 1 else ():
            _print_stretches(each, options.output.verbose > 0)
        common.out(_storage_line(found))
    _say_problems(found.problems)
    return ExitCode.CANNOT_TELL if found.problems else ExitCode.CLEAN


def _histories_json(found: Histories) -> dict[str, object]:
    return {
        "scenarios": [_history_json(each) for each in found.scenarios],
        "storage": {**found.storage.__dict__, "on_disk": found.on_disk},
        "problems": list(found.problems),
    }


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


def _print_table(every: Sequence[History]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for place, name in enumerate(("scenario", "creators", "weights files", "key sets", "configs")):
        table.add_column(Text(name), justify="right" if place else "left", no_wrap=True)
    for each in every:
        table.add_row(each.scenario, *map(str, (len(each.written), each.weights, each.keys, each.configs)))
    streams.console().print(table)


def _print_stretches(each: History, whole: bool) -> None:
    common.out(f"\n{each.scenario}")
    for stretch in each.stretches:
        common.out(f"  {stretch.span}: {stretch.form}")
        for change in stretch.changes:
            common.out(f"    {KINDS[change.kind]}: {visible(change.what)}")
            for key in change.details if whole else ():
                common.out(f"      {visible(key)}")


def _storage_line(found: Histories) -> str:
    storage = found.storage
    saved = 1 - storage.stored / storage.unshared if storage.unshared else 0.0
    return (
        f"{many(storage.fixtures, 'fixture')}, {many(storage.blobs, 'distinct blob')}: {storage.stored / 1e6:.1f} MB "
        f"({found.on_disk / 1e6:.1f} MB on disk); without sharing {storage.unshared / 1e6:.1f} MB ({saved:.0%} saved)"
    )
