"""`accept`: write a known break for cells of a run; or remove one, or give it a later date."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.cli import common
from harness.cli.parser import command, where
from harness.core import run_file
from harness.core.errors import ExitCode, UsageError
from harness.core.run import Run
from harness.core.text import enumerated, many, visible
from harness.deviation import one_cell
from harness.deviation.accept import break_file, conditions, expiry, measure, proposal, select
from harness.deviation.accept.break_file import Change
from harness.deviation.accept.conditions import Said
from harness.deviation.accept.proposal import Proposal
from harness.runner.request import Places

NEXT = "next: `git diff`; `peft-regress docs` updates docs/known-breaks/; commit both"
_SHOWN = 8


@dataclass(frozen=True)
class AcceptOptions:
    said: Said
    cells: tuple[str, ...] = ()
    """Ids, scenarios or globs."""
    run: Path | None = None
    last_day: str = ""
    """Of `--expires`: a date or a span."""
    remove: str = ""
    renew: str = ""
    update: str = ""
    dry_run: bool = False
    json: bool = False
    places: Places = Places()


def add_to(commands: Any) -> None:
    one = command(
        commands, "accept", accept, "record cells that deviate as a known break",
        "  peft-regress accept lokr-alpha-differs --issue https://github.com/huggingface/peft/pull/2180"
        " --expires '6 months' --reason 'Since 0.14.0 LoKr scales by alpha/r, whichever release saved the adapter.'\n"
        "  peft-regress accept 'lora-bias-*' --until 'peft<0.22' --issue … --expires 2027-05-31 --reason …\n"
        "  peft-regress accept 'lokr-*' --range peft --dry-run --issue … --expires 90d --reason …\n"
        "  peft-regress accept --renew lokr-scaled-by-alpha-over-r --expires 90d\n"
        "  peft-regress accept --update lokr-scaled-by-alpha-over-r --dry-run\n"
        "  peft-regress accept --remove lokr-scaled-by-alpha-over-r\n"
        "\nThe break is a new file in matrices/breaks/. It selects the named cells and no other cell that was judged\n"
        "in the run. It names creators and loaders as the run does, or by versions with --range, --until, --creators\n"
        "and --loaders. Each verdict and set of kinds becomes a separate condition. See docs/expectations.md.\n"
        "\nexit codes:\n  0    written (or, with --dry-run, would be)\n"
        "  2    the file can't be written, or somebody else changed it meanwhile; it is unchanged\n"
        "  64   an unknown cell, one that does not deviate or is expected already, no https address, a day that has\n"
        "       passed, a condition that selects more or less than was named, a damaged file; nothing was written",
        AcceptOptions,
    )  # fmt: skip
    one.add_argument(
        "cells", metavar="CELL", nargs="*", help="a cell's id; or a scenario or glob, for its unexplained deviations"
    )
    one.add_argument("--run", metavar="RUN", help="a run's folder (default: the newest)")
    one.add_argument("--reports", metavar="DIR", help="where runs are (default: reports/)")
    one.add_argument("--issue", metavar="URL", help="https address where the deviation is discussed")
    one.add_argument("--expires", dest="last_day", metavar="DATE", help=expiry.FORMS)
    one.add_argument("--reason", metavar="TEXT", help="why it deviates; reports show it")
    one.add_argument("--id", metavar="ID", help="the file's name (default: made from scenarios and verdict)")
    by = one.add_argument_group("select creators and loaders (default: by name)")
    add_range(by)
    by.add_argument(
        "--creators", metavar="COND", help="a version condition (peft<0.7), or names and globs separated by commas"
    )
    loaders = by.add_mutually_exclusive_group()
    loaders.add_argument("--loaders", metavar="COND", help="the same for loaders")
    loaders.add_argument(
        "--until", metavar="COND", help="from the cells' version up to this bound: peft<0.22 (the loaders must meet it)"
    )
    more = one.add_argument_group("texts for docs/known-breaks/")
    more.add_argument("--title", metavar="TEXT", help="what goes wrong (default: the reason's first sentence)")
    more.add_argument("--since", metavar="TEXT", help="the release that introduced it: 'PEFT 0.14.0'")
    more.add_argument("--verified", metavar="TEXT", help="which releases work and which fail, and how that was tested")
    more.add_argument("--workaround", metavar="TEXT", help="what the owner of such an adapter can do")
    there = one.add_argument_group("existing breaks").add_mutually_exclusive_group()
    there.add_argument("--remove", metavar="ID", help="remove a break whose cells no longer deviate (stale)")
    there.add_argument("--renew", metavar="ID", help="give a break that still holds (expired) another --expires")
    there.add_argument(
        "--update", metavar="ID", help="widen a break's shape and sizes to what its cells show in --run (mismatch)"
    )
    one.add_argument("--dry-run", action="store_true", help="show what would change, and write nothing")
    one.add_argument("--json", action="store_true", help="print JSON")
    where(one, fixtures=False)


def add_range(group: Any) -> None:
    """The option that selects environments by version."""
    group.add_argument(
        "--range", dest="ranges", metavar="PACKAGE", action="append", default=[],
        help="by versions of this package (peft), from the lowest to the highest that deviates (repeatable)",
    )  # fmt: skip


def accept(options: AcceptOptions) -> int:
    """Write a known break for cells of a run; or remove one, or give it another date."""
    today = datetime.date.today()
    if options.remove or options.renew or options.update:
        return _maintain(options, today)
    said = _said(options, today)
    folder = one_cell.run_folder(options.places, options.run)
    there = common.known_breaks(options.places)
    run = conditions.applied(run_file.load(folder), there, today)
    named = select.named(run, options.cells)
    proposed = proposal.propose(run, named.cells, said, there, options.places.matrices_folder, today)
    for note in (*proposed.notes, *filter(None, [expiry.remark(said.expires, today)])):
        common.say(f"note: {note}")
    if not options.dry_run:
        proposed.change.write()
    if options.json:
        common.out_json(_data(proposed, options.dry_run))
    else:
        _show(proposed, run, len(named.passed_over), options.dry_run)
    return ExitCode.CLEAN


def _said(options: AcceptOptions, today: datetime.date) -> Said:
    needed = {"--issue": options.said.issue, "--expires": options.last_day, "--reason": options.said.reason}
    missing = [option for option, given in needed.items() if not given]
    if not options.cells:
        raise UsageError(
            "accept: no cell is named", "a cell's id, a scenario's name or a glob",
            "`peft-regress triage` shows what deviates, with the cells to name",
        )  # fmt: skip
    if missing:
        raise UsageError(
            f"accept: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing",
            "where it is discussed, until when it counts, and why it deviates",
            "for example: --issue https://github.com/huggingface/peft/issues/NUMBER --expires 6months --reason '…'",
        )
    expires = expiry.parse(options.last_day, today)
    return replace(options.said, expires=expires, reason=options.said.reason.strip())


def _show(proposed: Proposal, run: Run, passed_over: int, dry: bool) -> None:
    common.out(proposed.change.after or "")
    common.out(f"{'would be written' if dry else 'written'} to {proposed.change.path}")
    covered = enumerated((visible(cell.id) for cell in proposed.cells), _SHOWN)
    more = f"; {passed_over} more match and need no known break" if passed_over else ""
    common.out(f"covers {many(len(proposed.cells), 'cell')}: {covered}{more}")
    common.out(left(proposed.after, run.id, "would have" if dry else "has"))
    if not dry:
        common.out(NEXT)


def left(run: Run, name: str, has: str = "has") -> str:
    """What is undecided in a run, with the known breaks applied."""
    parts = [many(len(run.deviations), "unexplained deviation")] if run.deviations else []
    if run.expectation_problems:
        wrong = enumerated((f"{one.id} ({one.problem})" for one in run.expectation_problems), _SHOWN)
        count = many(len(run.expectation_problems), "known break")
        parts.append(f"{count} that {'does' if count[:2] == '1 ' else 'do'} not hold: {wrong}")
    if not parts:
        unjudged = sum(cell.verdict.cannot_tell for cell in run.cells)
        more = f"; {many(unjudged, 'cell')} could not be judged" if unjudged else ""
        return f"run {name} {has} no unexplained deviation{more}"
    return f"left in run {name}: {' and '.join(parts)}; `peft-regress triage` walks through them"


def _data(proposed: Proposal, dry: bool) -> dict[str, object]:
    return {
        "file": str(proposed.change.path),
        "written": not dry,
        "entries": [proposed.known.model_dump(mode="json", exclude_none=True)],
        "covers": [cell.id for cell in proposed.cells],
        "deviations_left": [cell.id for cell in proposed.after.deviations],
        "problems_left": [one.model_dump(mode="json") for one in proposed.after.expectation_problems],
        "notes": list(proposed.notes),
    }


# -- existing breaks --------------------------------------------------------------------------------------------------


def _maintain(options: AcceptOptions, today: datetime.date) -> int:
    """--remove, --renew and --update, for a break that does not hold."""
    action = next(name for name in ("remove", "renew", "update") if getattr(options, name))
    given = [name for name in ("issue", "reason", "until", "creators", "loaders", "id") if getattr(options.said, name)]
    if options.cells or given or (action != "renew" and options.last_day):
        other = "cells" if options.cells else f"--{given[0]}" if given else "--expires"
        raise UsageError(
            f"accept: --{action} together with {other}",
            "a known break's id, and with --renew the new --expires", "run two commands",
        )  # fmt: skip
    done, change = {"remove": _removed, "renew": _renewed, "update": _updated}[action](options, today)
    if not options.dry_run:
        change.write()
    common.out(change.diff)
    common.out(f"\n{done}{' (nothing was written)' if options.dry_run else ''}: {change.path}")
    return ExitCode.CLEAN


def _removed(options: AcceptOptions, today: datetime.date) -> tuple[str, Change]:  # noqa: ARG001
    return f"{options.remove} removed", break_file.removed(options.places.matrix().folder, options.remove)


def _renewed(options: AcceptOptions, today: datetime.date) -> tuple[str, Change]:
    if not options.last_day:
        raise UsageError("accept: --renew without --expires", expiry.FORMS, "add --expires DATE")
    expires = expiry.parse(options.last_day, today)
    if remark := expiry.remark(expires, today):
        common.say(f"note: {remark}")
    change = break_file.renewed(options.places.matrix().folder, options.renew, expires)
    return f"{options.renew} counts until {expires}", change


def _updated(options: AcceptOptions, today: datetime.date) -> tuple[str, Change]:
    known = break_file.one(options.places.matrix().folder, options.update)
    run = conditions.applied(run_file.load(one_cell.run_folder(options.places, options.run)), [], today)
    change = break_file.remeasured(options.places.matrix().folder, measure.updated(run, known))
    return f"{options.update} allows what its cells show in run {run.id}", change
