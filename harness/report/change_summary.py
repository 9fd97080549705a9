"""What a report says about one change that was compared with a baseline (`check --against`). Pure."""

from __future__ import annotations

from collections import Counter

from harness.core.comparison import Against, Comparison
from harness.core.errors import ExitCode
from harness.core.run import Run, exit_code_of
from harness.core.text import enumerated, listed, many
from harness.core.verdict import Verdict
from harness.judge import causes
from harness.report import written

_FILES = 8
"""How many changed files are named."""


def sentence(run: Run) -> list[str]:
    """The run's verdict as a list of sentences; empty ones are dropped by the caller."""
    changes = Counter(comparison.change for comparison in run.comparisons)
    opening = {
        ExitCode.CLEAN: _clean,
        ExitCode.REGRESSED: _regressed,
        ExitCode.CANNOT_TELL: _could_not_tell,
        ExitCode.INTERRUPTED: _interrupted,
    }[exit_code_of(run)](run)
    rest = [
        f"{changes['fixed']:,} fixed" if changes["fixed"] else "",
        f"{changes['still']:,} also fail{'s' * (changes['still'] == 1)} on the baseline" if changes["still"] else "",
        f"{many(len(run.left_out), 'scenario')} left out" if run.left_out else "",
    ]
    return [*opening, written.sentence(run.against.writes if run.against else None), *rest]


def _clean(run: Run) -> list[str]:
    return [f"No regressions in {_adapters(run)}"]


def _regressed(run: Run) -> list[str]:
    if not run.deviations:
        return [f"No regressions in {_adapters(run)}, but in what the change writes", _undetermined(run)]
    found = causes.unexpected(run)
    worst = enumerated((f"{n:,} {v}" for v, n in Counter(c.verdict for c in run.deviations).items()), 4)
    why = f"({worst}; {many(len(found), 'cause')})"
    verb = "regresses" if len(run.deviations) == 1 else "regress"
    return [f"{len(run.deviations):,} of {_adapters(run)} {verb} {why}", _undetermined(run)]


def _could_not_tell(run: Run) -> list[str]:
    if run.against and run.against.failed:
        return [f"Nothing was compared: {run.against.failed} ({_failed(run, run.against)}) does not build or import"]
    if not run.cells:
        return ["Nothing was compared"]
    return [_undetermined(run) or f"None of {_adapters(run)} could be compared", "No regressions in the rest"]


def _interrupted(run: Run) -> list[str]:
    done = f"{len(run.cells):,} of {many(len(run.plan), 'cell')} compared"
    return [done, f"{many(len(run.deviations), 'regression')} so far"]


def _failed(run: Run, against: Against) -> str:
    name = next((one.name for one in run.environments if one.failed), "")
    return against.subject if against.failed == "the change" else name


def _undetermined(run: Run) -> str:
    count = len(undetermined(run))
    return f"{many(count, 'cell')} could not be judged on both sides" if count else ""


def undetermined(run: Run) -> tuple[Comparison, ...]:
    """The cells without a result on one side or both."""
    named = {comparison.cell: comparison for comparison in run.comparisons if comparison.unknown}
    bare = [cell for cell in run.cells if cell.verdict.cannot_tell and cell.id not in named]
    more = [Comparison(cell=cell.id, change="gone", now=cell.verdict, why=cell.reason) for cell in bare]
    return (*named.values(), *more)


def _adapters(run: Run) -> str:
    asked = sum(cell.verdict is not Verdict.UNSUPPORTED for cell in run.cells)
    return f"{many(asked, 'adapter')} from {sources(run)}"


def sources(run: Run) -> str:
    """Who made the adapters: up to two creators by name, else `12 PEFT releases` (environments, if two share one)."""
    creators = list(dict.fromkeys(cell.creator for cell in run.cells))
    if len(creators) <= 2:
        return listed(creators)
    releases = {one.name: one.versions.get("peft", "") for one in run.environments}
    distinct = {releases[name] for name in creators if releases.get(name)}
    return many(len(creators), "PEFT release" if len(distinct) == len(creators) else "environment")


def about(against: Against) -> list[tuple[str, str]]:
    """What was compared, as rows of a label and a text."""
    files = enumerated(against.changed, _FILES)
    changed = f"{many(len(against.changed), 'file')}: {files}" if files else "no installed file"
    since = f"{many(against.remembered, 'cell')} from the cache" if against.remembered else ""
    when = f"{since}, computed since {against.remembered_since[:16].replace('T', ' ')} UTC" if since else ""
    rows = [
        ("change", against.subject),
        ("baseline", "; ".join(part for part in (against.baseline, when) if part)),
        ("changed", f"{changed} ({against.known_by})" if against.known_by else ""),
        ("checked", against.scope),
        ("also differs", enumerated(against.differs, _FILES)),
    ]
    return [(label, text) for label, text in rows if text]
