"""`check --against`: what one change does, compared with a baseline, so that only that is red."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness import report
from harness.cli import common, pytest_run
from harness.cli.check_options import CheckOptions
from harness.core.errors import ExitCode, UsageError
from harness.core.text import many
from harness.report import change_summary
from harness.runner import folder as runs
from harness.runner import shards
from harness.runner.change import select
from harness.runner.change import sides as two_sides
from harness.runner.change.check import failed_run, untouched_run
from harness.runner.change.plan import ChangePlan, again, plan_change, ready
from harness.runner.change.sides import SideFailed, Sides

_LONGEST = 16 << 20


def check(options: CheckOptions) -> int:
    """Check a change; its exit code says what the change alone made worse."""
    _refuse(options)
    common.known_breaks(options.request.places)
    change = replace(options.change, changed_files=_changed_files(options.change.changed_files))
    environments = options.request.places.environments(common.say)
    sides = two_sides.sides(change.change, change.baseline, environments)
    request = again(change, options.request, sides)
    select.refuse_unknown(request, environments, sides)
    try:
        planned = plan_change(change, request, environments, sides)
        planned = planned if options.dry_run else ready(planned, change, request)
    except SideFailed as failed:
        return _failed(sides, failed, options)
    shard = None
    if options.shard and not planned.nothing_runs:
        shard, own = shards.of(planned.cells, options.shard)
        planned.narrow(own)
    left_out = {**planned.left_out, **options.left_out()}
    if options.dry_run:
        return _dry_run(planned, left_out, verbose=options.output.verbose > 0)
    if not planned.to_run:
        return _untouched(planned, left_out, options)
    if not options.quiet:
        common.say(_what_runs(planned))
    return pytest_run.replay(
        options, planned.request, planned.to_run, environments, left_out=left_out,
        finishing=lambda run, recorder: planned.finished(run.model_copy(update={"shard": shard}), recorder.cells),
        growing=planned,
    )  # fmt: skip


def _refuse(options: CheckOptions) -> None:
    """Refuse options that do not go with `--against`.

    Raises:
        UsageError: one is given.
    """
    given = {"--loader": options.loaders, "-n": options.runner.numprocesses}
    for option, value in given.items():
        if value:
            raise UsageError(
                f"{option} with --against", "the change, and --baseline for what it is compared with",
                "leave it out; --jobs says how many cells run at once",
            )  # fmt: skip


def _changed_files(words: Sequence[str]) -> tuple[str, ...]:
    """The names that `--changed-files` gives: as words, or a line each on stdin.

    Raises:
        UsageError: it is given and names none, or stdin is no text of a bounded size.
    """
    names = [name for word in words for name in (_lines_of_stdin() if word == "-" else [word])]
    found = tuple(name.strip() for name in names if name.strip())
    if words and not found:
        raise UsageError("--changed-files names no file", "names, or - with a name a line on stdin", "leave it out")
    return found


def _lines_of_stdin() -> list[str]:
    text = sys.stdin.read(_LONGEST + 1)
    if "\0" in text or len(text) > _LONGEST:
        what = "a NUL" if "\0" in text else f"more than {_LONGEST:,} characters"
        raise UsageError(
            f"--changed-files: stdin has {what}", "a name a line", "pass what `git diff --name-only` prints"
        )
    return text.splitlines()


def _failed(sides: Sides, failed: SideFailed, options: CheckOptions) -> int:
    """Report that one side can't be built: nothing was compared, and why."""
    folder = _new_folder(sides, options)
    run = failed_run(sides, failed, folder.name, shlex.join(["peft-regress", *sys.argv[1:]]))
    report.write(run, folder)
    pytest_run.print_run(run, folder, options)
    common.say(f"peft-regress: {failed.what} can't be had: {failed.error}")
    return run.exit_code


def _untouched(planned: ChangePlan, left_out: Mapping[str, str], options: CheckOptions) -> int:
    """Report that no adapter can differ: nothing was compared, and why."""
    folder = _new_folder(planned.sides, options)
    run = untouched_run(planned, folder.name, left_out, shlex.join(["peft-regress", *sys.argv[1:]]))
    report.write(run, folder)
    pytest_run.print_run(run, folder, options)
    return run.exit_code


def _new_folder(sides: Sides, options: CheckOptions) -> Path:
    return runs.new_folder(options.request.places.reports_folder, f"against-{sides.change.name}")


def _what_runs(planned: ChangePlan) -> str:
    """`15 cells: 8 under the change, 7 under the baseline; 7 are remembered`, and why some were added."""
    mine, baseline = len(planned.cells), len(planned.baseline)
    counts = f"{mine:,} under the change, {baseline:,} under the baseline{_remembered(planned)}"
    return "\n".join([f"{many(mine + baseline, 'cell')}: {counts}", *filter(None, [planned.newer.words])])


def _remembered(planned: ChangePlan) -> str:
    known = planned.remembered()
    return f"; {known:,} {'is' if known == 1 else 'are'} remembered" if known else ""


def _dry_run(planned: ChangePlan, left_out: Mapping[str, str], *, verbose: bool) -> int:
    about = planned.about
    common.out(f"{about.subject} against {about.baseline}: {about.scope}")
    for name in about.changed:
        common.out(f"changed: {name}")
    for words in change_summary.code(about):
        common.out(words)
    for cell in planned.cells:
        common.out(str(cell.id))
        if verbose and (features := planned.features.get(cell.id.scenario)):
            common.out(f"  covers {', '.join(sorted(features))}")
    for name, why in left_out.items():
        common.out(f"left out: {name}: {why}")
    if words := planned.newer.words:
        common.out(words)
    counts = f"{len(planned.cells):,} under the change, {len(planned.baseline):,} under the baseline"
    common.out(f"{many(len(planned.to_run), 'cell')} would be checked: {counts}{_remembered(planned)}")
    return ExitCode.CLEAN
