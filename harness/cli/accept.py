"""`accept`: a deviation that somebody decided about becomes an entry of `matrices/expectations.toml`."""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

from harness.cli import common
from harness.core import run_file
from harness.core.errors import ExitCode, UsageError
from harness.core.run import Run
from harness.core.text import enumerated, many, visible
from harness.deviation import one_cell
from harness.deviation.accept import entries, expiry, proposal, select
from harness.deviation.accept.entries import Said
from harness.deviation.accept.file import Snapshot
from harness.deviation.accept.proposal import Proposal
from harness.runner.request import Places

_SHOWN = 8


def accept(arguments: argparse.Namespace) -> int:
    """Write an expectation for cells of a run; or take one out, or give it another date."""
    today = datetime.date.today()
    if arguments.remove or arguments.renew:
        return _maintain(arguments, today)
    said = _said(arguments, today)
    folder = one_cell.run_folder(Places(reports=common.reports_folder(arguments)), common.path(arguments.run))
    before = Snapshot.of(expectations_file(arguments))
    run = entries.applied(run_file.load(folder), before.expectations, today)
    named = select.named(run, arguments.cell)
    proposed = proposal.propose(run, named.cells, said, before, today)
    for note in (*proposed.notes, *filter(None, [expiry.remark(said.expires, today)])):
        common.say(f"note: {note}")
    if not arguments.dry_run:
        before.write(proposed.text)
    if arguments.json:
        common.out_json(_data(proposed, arguments.dry_run))
        return ExitCode.CLEAN
    _tell(proposed, run, len(named.passed_over), arguments.dry_run)
    return ExitCode.CLEAN


def expectations_file(arguments: argparse.Namespace) -> Path:
    """The file that is edited."""
    return common.matrix_of(arguments).folder / "expectations.toml"


def _said(arguments: argparse.Namespace, today: datetime.date) -> Said:
    missing = [f"--{name}" for name in ("issue", "expires", "reason") if not getattr(arguments, name)]
    if not arguments.cell:
        raise UsageError(
            "accept: no cell is named", "a cell's id, a scenario's name or a glob",
            "`peft-regress triage` shows what deviates, with the cells to name",
        )  # fmt: skip
    if missing:
        raise UsageError(
            f"accept: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing",
            "where it is discussed, until when it counts, and why it deviates: an expectation is a decision",
            "for example: --issue https://github.com/huggingface/peft/issues/NUMBER --expires 6months --reason '…'",
        )
    return Said(
        arguments.issue, arguments.reason.strip(), expiry.parse(arguments.expires, today), arguments.id or "",
        arguments.creators or "", arguments.loaders or "", arguments.until or "", tuple(arguments.range),
        arguments.since or "", arguments.verified or "", arguments.workaround or "",
    )  # fmt: skip


def _tell(proposed: Proposal, run: Run, passed_over: int, dry: bool) -> None:
    if dry:
        common.out(proposed.diff)
    else:
        common.out("\n".join(proposed.entries).rstrip())
    common.out("")
    verb = "would be written" if dry else "written"
    common.out(f"{many(len(proposed.entries), 'entry', 'entries')} {verb} to {proposed.before.path}")
    covered = f"covers {many(len(proposed.cells), 'cell')}: " + enumerated(
        (visible(cell.id) for cell in proposed.cells), _SHOWN
    )
    common.out(covered + (f"; {passed_over} more that were meant need none" if passed_over else ""))
    common.out(left(proposed.after, run.id, "would be" if dry else "is now"))
    if not dry:
        common.out("next: `git diff`; `peft-regress docs` writes docs/known-breaks.md anew; commit both")


def left(run: Run, name: str, verb: str = "is now") -> str:
    """What of a run nobody has decided about, once the expectations are applied."""
    parts = [many(len(run.deviations), "unexplained deviation")] if run.deviations else []
    if run.expectation_problems:
        wrong = enumerated((f"{one.id} ({one.problem})" for one in run.expectation_problems), _SHOWN)
        parts.append(f"{many(len(run.expectation_problems), 'expectation')} that does not hold: {wrong}")
    if not parts:
        untold = sum(cell.verdict.cannot_tell for cell in run.cells)
        more = f"; {many(untold, 'cell')} could not be judged" if untold else ""
        return f"run {name} {verb} without an unexplained deviation{more}"
    return f"left in run {name}: {' and '.join(parts)}; `peft-regress triage` walks through them"


def _data(proposed: Proposal, dry: bool) -> dict[str, object]:
    return {
        "file": str(proposed.before.path),
        "written": not dry,
        "entries": [one.model_dump(mode="json", exclude_none=True) for one in proposed.stated],
        "covers": [cell.id for cell in proposed.cells],
        "deviations_left": [cell.id for cell in proposed.after.deviations],
        "problems_left": [one.model_dump(mode="json") for one in proposed.after.expectation_problems],
        "notes": list(proposed.notes),
    }


# -- entries that are there -------------------------------------------------------------------------------------------


def _maintain(arguments: argparse.Namespace, today: datetime.date) -> int:
    """--remove and --renew: what a run says of a stale or expired expectation."""
    given = [name for name in ("issue", "reason", "until", "creators", "loaders", "id") if getattr(arguments, name)]
    if arguments.cell or given or (arguments.remove and arguments.expires):
        raise UsageError(
            f"accept: --{'remove' if arguments.remove else 'renew'} together with "
            f"{'cells' if arguments.cell else '--' + given[0] if given else '--expires'}",
            "an expectation's id, and with --renew the new --expires", "run two commands",
        )  # fmt: skip
    before = Snapshot.of(expectations_file(arguments))
    if arguments.remove:
        done, text = f"{arguments.remove} removed", before.without(arguments.remove)
    else:
        if not arguments.expires:
            raise UsageError("accept: --renew without --expires", expiry.FORMS, "add --expires DATE")
        expires = expiry.parse(arguments.expires, today)
        if remark := expiry.remark(expires, today):
            common.say(f"note: {remark}")
        done, text = f"{arguments.renew} counts until {expires}", before.renewed(arguments.renew, expires)
    if not arguments.dry_run:
        before.write(text)
    common.out(proposal.unified(before, text))
    common.out(f"\n{done}{' (nothing was written)' if arguments.dry_run else ''}: {before.path}")
    return ExitCode.CLEAN
