"""What a report says of one change that was held against a baseline (`check --against`). Pure; nothing is escaped."""

from __future__ import annotations

from collections import Counter

from harness.core.comparison import Against, Comparison
from harness.core.errors import ExitCode
from harness.core.run import Run, exit_code_of
from harness.core.text import enumerated, listed, many
from harness.core.verdict import Verdict
from harness.judge import causes

_FILES = 8
"""Changed files that are named; the rest is counted."""


def sentence(run: Run, against: Against) -> list[str]:
    """The parts of the verdict's sentence."""
    changes = Counter(comparison.change for comparison in run.comparisons)
    opening = {
        ExitCode.CLEAN: _clean,
        ExitCode.REGRESSED: _regressed,
        ExitCode.CANNOT_TELL: _could_not_tell,
        ExitCode.INTERRUPTED: _interrupted,
    }[exit_code_of(run)](run, against)
    rest = [
        f"{many(changes['fixed'], 'deviation')} fixed" if changes["fixed"] else "",
        f"{many(changes['still'], 'deviation')} on both sides alike" if changes["still"] else "",
        f"{many(len(run.left_out), 'scenario')} left out" if run.left_out else "",
    ]
    return [*opening, *rest]


def _clean(run: Run, against: Against) -> list[str]:
    return [f"{against.subject} makes none of {_adapters(run)} worse than {against.baseline}"]


def _regressed(run: Run, against: Against) -> list[str]:
    found = causes.unexpected(run)
    worst = enumerated((f"{n:,} {v}" for v, n in Counter(c.verdict for c in run.deviations).items()), 4)
    told = f"({worst}; {many(len(found), 'cause')})"
    bad = f"{against.subject} makes {len(run.deviations):,} of {_adapters(run)} worse than {against.baseline} {told}"
    return [bad, _untold(run)]


def _could_not_tell(run: Run, against: Against) -> list[str]:
    if against.failed:
        return [f"nothing was compared, since {against.failed} ({_failed(run, against)}) does not build or import"]
    if not run.cells:
        return ["nothing was compared"]
    return [_untold(run) or f"nothing of {_adapters(run)} could be compared", "nothing else regressed"]


def _interrupted(run: Run, against: Against) -> list[str]:
    done = f"{len(run.cells):,} of {many(len(run.plan), 'cell')} compared of {against.subject} and {against.baseline}"
    return [done, f"{len(run.deviations):,} worse so far"]


def _failed(run: Run, against: Against) -> str:
    name = next((one.name for one in run.environments if one.failed), "")
    return against.subject if against.failed == "the change" else name


def _untold(run: Run) -> str:
    count = len(untold(run))
    return f"{many(count, 'cell')} could not be judged on both sides" if count else ""


def untold(run: Run) -> tuple[Comparison, ...]:
    """The cells of which one side, or either, has no result; with what is known."""
    named = {comparison.cell: comparison for comparison in run.comparisons if comparison.unknown}
    bare = [cell for cell in run.cells if cell.verdict.cannot_tell and cell.id not in named]
    more = [Comparison(cell=cell.id, change="gone", now=cell.verdict, why=cell.reason) for cell in bare]
    return (*named.values(), *more)


def _adapters(run: Run) -> str:
    creators = list(dict.fromkeys(cell.creator for cell in run.cells))
    who = listed(creators) if len(creators) <= 2 else many(len(creators), "creator")
    asked = sum(cell.verdict is not Verdict.UNSUPPORTED for cell in run.cells)
    return f"{many(asked, 'adapter')} of {who}"


def about(against: Against) -> list[tuple[str, str]]:
    """What was compared, in rows of a label and a text."""
    files = enumerated(against.changed, _FILES)
    changed = f"{many(len(against.changed), 'file')}: {files}" if files else "nothing that is installed"
    since = f"{many(against.remembered, 'cell')} of it remembered" if against.remembered else ""
    when = f"{since}, computed since {against.remembered_since[:16].replace('T', ' ')} UTC" if since else ""
    rows = [
        ("change", against.subject),
        ("baseline", "; ".join(part for part in (against.baseline, when) if part)),
        ("changed", f"{changed} ({against.known_by})" if against.known_by else ""),
        ("checked", against.scope),
        ("differs too", enumerated(against.differs, _FILES)),
    ]
    return [(label, text) for label, text in rows if text]
