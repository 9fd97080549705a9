"""What a report says of a run, as plain data: the sentence, the causes and the changes that all renderers show.

Pure. Nothing here is escaped: these are the values, a renderer makes them fit its format with `harness.core.text`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from harness.core.comparison import Comparison
from harness.core.errors import ExitCode
from harness.core.run import Cell, Run, exit_code_of
from harness.core.text import listed, many, one_line, seconds, times
from harness.core.verdict import Verdict
from harness.judge import causes
from harness.judge.causes import Cause, Releases
from harness.report import change_summary

WORDS = {
    ExitCode.CLEAN: "CLEAN",
    ExitCode.REGRESSED: "REGRESSED",
    ExitCode.CANNOT_TELL: "COULD NOT TELL",
    ExitCode.INTERRUPTED: "INTERRUPTED",
}
"""The run's verdict in a word."""

CHANGES: dict[str, str] = {
    "regressed": "deviates now, and did not (or less badly) in the baseline",
    "new": "judged now, and not in the baseline",
    "gone": "judged in the baseline, and not now",
    "fixed": "deviated in the baseline, is sound now",
    "still": "deviates as it did in the baseline",
}
"""What a change against a baseline means, in the order in which changes are shown."""


@dataclass(frozen=True)
class Sentence:
    """The run in one sentence."""

    word: str
    text: str

    def __str__(self) -> str:
        return f"{self.word}: {self.text}."


@dataclass(frozen=True)
class Tally:
    """A run in numbers. Every cell is in exactly one of `clean`, `deviating`, `expected`, `untold`, `unsupported`."""

    cells: int
    clean: tuple[Cell, ...]
    deviating: tuple[Cell, ...]
    expected: int
    untold: tuple[Cell, ...]
    unsupported: int
    not_run: int

    @property
    def asked(self) -> int:
        """The cells that should have been judged."""
        return self.cells - self.unsupported + self.not_run


def tally(run: Run) -> Tally:
    """Count a run's cells."""
    deviating = run.deviations
    named = {cell.id for cell in deviating}
    rest = [cell for cell in run.cells if cell.id not in named]
    return Tally(
        cells=len(run.cells),
        clean=tuple(cell for cell in rest if cell.verdict.is_clean),
        deviating=deviating,
        expected=sum(cell.verdict.is_deviation for cell in rest),
        untold=tuple(cell for cell in rest if cell.verdict.cannot_tell),
        unsupported=sum(cell.verdict is Verdict.UNSUPPORTED for cell in rest),
        not_run=len(run.not_run),
    )


def sentence(run: Run) -> Sentence:
    """The verdict of a run with its counts, so that nobody has to add them up."""
    code, counts = exit_code_of(run), tally(run)
    if run.against is not None:
        return Sentence(WORDS[code], "; ".join(part for part in change_summary.sentence(run, run.against) if part))
    opening = {
        ExitCode.CLEAN: _clean,
        ExitCode.REGRESSED: _regressed,
        ExitCode.CANNOT_TELL: _could_not_tell,
        ExitCode.INTERRUPTED: _interrupted,
    }[code](run, counts)
    return Sentence(WORDS[code], "; ".join(part for part in [*opening, *_against(run)] if part))


def _clean(run: Run, counts: Tally) -> list[str]:
    same = f"{_of(run, len(counts.clean), counts.asked)} load under {_loaders(run)} and compute the same"
    how = f" ({by_verdict(counts.clean)})" if counts.clean else ""
    return [f"{same}{how}", _expected(counts), "0 unexpected", *_aside(run, counts)]


def _regressed(run: Run, counts: Tally) -> list[str]:
    found = causes.unexpected(run)
    verb = "deviates" if len(counts.deviating) == 1 else "deviate"
    bad = f"{_of(run, len(counts.deviating), counts.asked)} {verb} under {_loaders(run)}"
    why = f"{by_verdict(counts.deviating)}; {many(len(found), 'cause')}"
    opening = f"{bad} ({why})" if counts.deviating else "0 unexpected deviations"
    return [_problems(run), opening, _same(counts), _expected(counts), _untold(counts), *_aside(run, counts)]


def _could_not_tell(run: Run, counts: Tally) -> list[str]:
    if not counts.clean and not counts.expected:
        why = f"{_untold(counts)}" if counts.untold else ""
        return ["nothing was compared", why, *_aside(run, counts)]
    unknown = f"{_of(run, len(counts.untold), counts.asked)} could not be judged under {_loaders(run)}"
    opening = f"{unknown} ({by_verdict(counts.untold)})" if counts.untold else ""
    return [opening, _same(counts), _expected(counts), "0 unexpected", *_aside(run, counts)]


def _interrupted(run: Run, counts: Tally) -> list[str]:
    done = f"{counts.cells:,} of {many(counts.cells + counts.not_run, 'cell')} finished"
    deviating = by_verdict(counts.deviating)
    found = f"{many(len(counts.deviating), 'unexpected deviation')}{f' ({deviating})' * bool(deviating)}"
    aside = _aside(run, counts)
    return [done, found, _same(counts), _expected(counts), _untold(counts), _problems(run), *aside]


def _of(run: Run, count: int, total: int) -> str:
    """`60 of 64 adapters of v061`; cells, where an adapter was loaded more than once."""
    once = len({(cell.loader, cell.place) for cell in run.cells}) <= 1
    creators = _named(_distinct(cell.creator for cell in run.cells), "creator")
    return f"{count:,} of {many(total, 'adapter' if once else 'cell')} of {creators}"


def _loaders(run: Run) -> str:
    devices = [device for device in _distinct(cell.place for cell in run.cells) if device != "cpu"]
    return _named(_distinct(c.loader for c in run.cells), "loader") + (f" on {listed(devices)}" if devices else "")


def _named(names: list[str], word: str) -> str:
    return listed(names) if len(names) <= 2 else many(len(names), word)


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _same(counts: Tally) -> str:
    return f"{len(counts.clean):,} the same ({by_verdict(counts.clean)})" if counts.clean else "0 the same"


def _expected(counts: Tally) -> str:
    return many(counts.expected, "expected deviation") if counts.expected else ""


def _untold(counts: Tally) -> str:
    return f"{len(counts.untold):,} could not be judged ({by_verdict(counts.untold)})" if counts.untold else ""


def _problems(run: Run) -> str:
    by_kind = Counter(problem.problem for problem in run.expectation_problems)
    said = listed(f"{count} {kind}" for kind, count in sorted(by_kind.items()))
    holds = "no longer holds" if by_kind.total() == 1 else "no longer hold"
    return f"{many(by_kind.total(), 'expectation')} {holds} ({said})" if by_kind else ""


def _aside(run: Run, counts: Tally) -> list[str]:
    return [
        f"{counts.unsupported:,} unsupported" if counts.unsupported else "",
        f"{counts.not_run:,} planned but not run" if counts.not_run and not run.interrupted else "",
        f"{len(run.left_out):,} left out" if run.left_out else "",
    ]


def _against(run: Run) -> list[str]:
    if not run.baseline:
        return []
    by_change = Counter(comparison.change for comparison in run.comparisons)
    said = ", ".join(f"{by_change[change]:,} {change}" for change in CHANGES if by_change[change])  # type: ignore[index]
    return [f"against {run.baseline}: {said or 'no change'}"]


def by_verdict(cells: Iterable[Cell]) -> str:
    """`41 exact, 19 close`, the commonest first; where all are alike, the verdict alone."""
    found = Counter(cell.verdict for cell in cells)
    if len(found) == 1:
        return str(next(iter(found)))
    ranked = sorted(
        found.items(), key=lambda item: (-item[1], item[0].severity if item[0].is_deviation else -item[0].severity)
    )
    return ", ".join(f"{count:,} {verdict}" for verdict, count in ranked)


def changes(run: Run) -> dict[str, tuple[Comparison, ...]]:
    """What changed against the baseline, in the order in which it matters, worst verdict first."""
    found = {change: [c for c in run.comparisons if c.change == change] for change in CHANGES}
    return {change: tuple(sorted(every, key=_weight)) for change, every in found.items() if every}


def _weight(comparison: Comparison) -> tuple[int, str]:
    verdict = comparison.now or comparison.before
    return (verdict.severity if verdict else 0, comparison.cell)


def change_rows(run: Run) -> dict[str, list[tuple[str, str]]]:
    """By change: the two verdicts and the cell; a deviation that an expectation covers says so.

    Of a change that was held against a baseline: why it is worse, or what is known of it.
    """
    covered = {cell.id for cell in run.cells if cell.expected} if run.against is None else set()
    return {
        change: [(arrow(each) + _remarked(each, each.cell in covered), each.cell) for each in every]
        for change, every in changes(run).items()
    }


def _remarked(comparison: Comparison, covered: bool) -> str:
    said = "expected" if covered else comparison.why
    return f" ({one_line(said, 200)})" if said else ""


def arrow(comparison: Comparison) -> str:
    """`exact → silent-wrong`; a side that has no result is a dash."""
    if comparison.change == "still" and comparison.before == comparison.now:
        return str(comparison.now)
    return f"{comparison.before or '–'} → {comparison.now or '–'}"


def reach(cause: Cause, scenarios: int = 6) -> str:
    """Where a cause shows: `creators 0.6.1–0.13.2, loader 0.21.2, 2 scenarios: lokr-alpha, lokr-both`."""
    names = cause.scenarios
    more = f", … {len(names) - scenarios:,} more" if len(names) > scenarios else ""
    where = f"{many(len(names), 'scenario')}: {', '.join(names[:scenarios])}{more}"
    return f"{_releases('creator', cause.creators)}, {_releases('loader', cause.loaders)}, {where}"


def _releases(word: str, releases: Releases) -> str:
    return f"{word}{'s' * (len(releases.bad) > 1)} {releases.ranges}"


def since(cause: Cause) -> str:
    """The first bad creator and loader in release order; nothing where there is only one of each."""
    if len(cause.creators.bad) < 2 and len(cause.loaders.bad) < 2:
        return ""
    return f"first bad creator {cause.creators.first}, first bad loader {cause.loaders.first}"


def others(cause: Cause) -> tuple[tuple[Cell, str], ...]:
    """The cells that share the cause with its representative, each with its error as a multiple of the allowance."""
    return tuple((cell, size(cell)) for cell in cause.cells[1:])


def size(cell: Cell) -> str:
    """How bad a cell is in one figure: error ÷ allowance; nothing where nothing was measured."""
    return times(cell.worst_ratio) if cell.worst_ratio is not None else ""


def remark(cell: Cell) -> str:
    """Why a cell is where it is, where that is not told in full elsewhere."""
    if cell.expected:
        return f"expected: {cell.expectation}"
    if cell.verdict.is_deviation:
        return ""
    if cell.verdict is Verdict.WARNED and cell.new_warnings:
        return cell.new_warnings[0]
    return cell.reason


def standing(run: Run) -> tuple[tuple[Cell, str], ...]:
    """Every standing defect with its cell."""
    return tuple((cell, defect) for cell in run.cells for defect in cell.standing_defects)


def expiry(cause: Cause) -> str:
    """Where an expected deviation is dealt with and until when it is one: `ISSUE, until 2027-06-30`."""
    until = f"until {cause.details['expires']}" if cause.details.get("expires") else ""
    return ", ".join(part for part in (cause.details.get("issue", ""), until) if part)


def headline(run: Run) -> str:
    """What the run was, in a line: how many cells of how many environments, where, how long."""
    creators, loaders = len({c.creator for c in run.cells}), len({c.loader for c in run.cells})
    devices = listed(_distinct(cell.place for cell in run.cells)) or "no device"
    what = f"{many(len(run.cells), 'cell')}, {many(creators, 'creator')}, {many(loaders, 'loader')}"
    return f"{run.title or run.id}: {what}, {devices}{f', {seconds(run.duration_s)}' if run.duration_s else ''}"
