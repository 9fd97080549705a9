"""What a report says about a run in a line: the sentence, its counts, and short texts on changes, causes and cells.

Pure. Nothing here is escaped: renderers do that with `harness.core.text`.
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
    "regressed": "fails now, and passed (or failed less badly) in the baseline",
    "new": "has a result now, and none in the baseline",
    "gone": "has a result in the baseline, and none now",
    "fixed": "failed in the baseline, and passes now",
    "still": "fails as it did in the baseline",
}
"""What each change against a baseline means, in the order in which changes are shown."""


@dataclass(frozen=True)
class Sentence:
    """The run in a few short sentences on one line."""

    word: str
    text: str

    def __str__(self) -> str:
        return f"{self.word}: {self.text}"


@dataclass(frozen=True)
class Tally:
    """A run in numbers. Each cell counts as one of `clean`, `deviating`, `known`, `undetermined` and `unsupported`."""

    cells: int
    clean: tuple[Cell, ...]
    deviating: tuple[Cell, ...]
    known: int
    undetermined: tuple[Cell, ...]
    unsupported: int
    refused: int
    """Those of `unsupported` that the loader tried and refused."""
    not_run: int
    fixed: int
    """Those of `clean` that the creator's own library cannot read back."""

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
        known=sum(cell.verdict.is_deviation for cell in rest),
        undetermined=tuple(cell for cell in rest if cell.verdict.cannot_tell),
        unsupported=sum(cell.verdict is Verdict.UNSUPPORTED for cell in rest),
        refused=sum(cell.verdict is Verdict.UNSUPPORTED and cell.reading == "refused" for cell in rest),
        not_run=len(run.not_run),
        fixed=sum(bool(cell.creators_own) for cell in rest if cell.verdict.is_clean),
    )


def sentence(run: Run) -> Sentence:
    """The verdict of a run with all its counts."""
    code, counts = exit_code_of(run), tally(run)
    if run.against is not None:
        return Sentence(WORDS[code], _sentences(change_summary.sentence(run)))
    opening = {
        ExitCode.CLEAN: _clean,
        ExitCode.REGRESSED: _regressed,
        ExitCode.CANNOT_TELL: _could_not_tell,
        ExitCode.INTERRUPTED: _interrupted,
    }[code](run, counts)
    return Sentence(WORDS[code], _sentences([*opening, _aside(run, counts), _against(run)]))


def _sentences(parts: Iterable[str]) -> str:
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in parts if part)


def _clean(run: Run, counts: Tally) -> list[str]:
    one = len(counts.clean) == 1
    verbs = ("loads", "computes") if one else ("load", "compute")
    same = f"{_of(run, len(counts.clean), counts.asked)} {verbs[0]} under {_loaders(run)} and {verbs[1]} the same"
    how = f" ({by_verdict(counts.clean)})" if counts.clean else ""
    return [f"{same}{how}", _fixed(counts), f"{_known(counts)}, 0 unexpected" if counts.known else ""]


def _regressed(run: Run, counts: Tally) -> list[str]:
    found = causes.unexpected(run)
    verb = "fails" if len(counts.deviating) == 1 else "fail"
    bad = f"{_of(run, len(counts.deviating), counts.asked)} {verb} under {_loaders(run)}"
    why = f"{by_verdict(counts.deviating)}; {many(len(found), 'cause')}"
    opening = f"{bad} ({why})" if counts.deviating else "No unexpected breaks"
    return [_problems(run), opening, _same(counts), _fixed(counts), _known(counts), _undetermined(counts)]


def _fixed(counts: Tally) -> str:
    """`1 is fixed: its creator's own library cannot read it back`."""
    if not counts.fixed:
        return ""
    verb, whose = (
        ("is", "its creator's own library cannot read it")
        if counts.fixed == 1
        else ("are", "their creators' own libraries cannot read them")
    )
    return f"{counts.fixed:,} {verb} fixed: {whose} back"


def _could_not_tell(run: Run, counts: Tally) -> list[str]:
    if not counts.clean and not counts.known:
        return ["Nothing was compared", _undetermined(counts)]
    unknown = f"{_of(run, len(counts.undetermined), counts.asked)} could not be judged under {_loaders(run)}"
    opening = f"{unknown} ({by_verdict(counts.undetermined)})" if counts.undetermined else ""
    return [opening, _same(counts), _fixed(counts), _known(counts), "No unexpected breaks"]


def _interrupted(run: Run, counts: Tally) -> list[str]:
    done = f"{counts.cells:,} of {many(counts.cells + counts.not_run, 'cell')} finished"
    deviating = f" ({by_verdict(counts.deviating)})" if counts.deviating else ""
    found = f"{many(len(counts.deviating), 'unexpected break')}{deviating}"
    return [done, found, _same(counts), _known(counts), _undetermined(counts), _problems(run)]


def _of(run: Run, count: int, total: int) -> str:
    """`60 of 64 adapters from v061`; cells, if an adapter was loaded more than once."""
    once = len({(cell.loader, cell.place) for cell in run.cells}) <= 1
    return f"{count:,} of {many(total, 'adapter' if once else 'cell')} from {change_summary.sources(run)}"


def _loaders(run: Run) -> str:
    names = _distinct(cell.loader for cell in run.cells)
    devices = [device for device in _distinct(cell.place for cell in run.cells) if device != "cpu"]
    loaders = listed(names) if len(names) <= 2 else many(len(names), "loader")
    return loaders + (f" on {listed(devices)}" if devices else "")


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _same(counts: Tally) -> str:
    if not counts.clean:
        return "0 compute the same"
    verb = "computes" if len(counts.clean) == 1 else "compute"
    return f"{len(counts.clean):,} {verb} the same ({by_verdict(counts.clean)})"


def _known(counts: Tally) -> str:
    return many(counts.known, "known break") if counts.known else ""


def _undetermined(counts: Tally) -> str:
    count = len(counts.undetermined)
    return f"{count:,} could not be judged ({by_verdict(counts.undetermined)})" if count else ""


def _problems(run: Run) -> str:
    by_kind = Counter(problem.problem for problem in run.expectation_problems)
    said = listed(f"{count} {kind}" for kind, count in sorted(by_kind.items()))
    known = many(by_kind.total(), "known break needs", "known breaks need")
    return f"{known} a review ({said})" if by_kind else ""


def _aside(run: Run, counts: Tally) -> str:
    parts = [
        f"{counts.unsupported:,} unsupported{_refused(counts)}" if counts.unsupported else "",
        f"{counts.not_run:,} planned but not run" if counts.not_run and not run.interrupted else "",
        f"{len(run.left_out):,} left out" if run.left_out else "",
    ]
    return ", ".join(part for part in parts if part)


def _refused(counts: Tally) -> str:
    return f" ({counts.refused:,} tried and refused by the loader)" if counts.refused else ""


def _against(run: Run) -> str:
    if not run.baseline:
        return ""
    by_change = Counter[str](comparison.change for comparison in run.comparisons)
    said = ", ".join(f"{by_change[change]:,} {change}" for change in CHANGES if by_change[change])
    return f"compared with {run.baseline}: {said or 'no change'}"


def by_verdict(cells: Iterable[Cell]) -> str:
    """`41 exact, 19 close`, the most frequent first; the verdict alone if there is only one."""
    found = Counter(cell.verdict for cell in cells)
    if len(found) == 1:
        return str(next(iter(found)))
    ranked = sorted(
        found.items(), key=lambda item: (-item[1], item[0].severity if item[0].is_deviation else -item[0].severity)
    )
    return ", ".join(f"{count:,} {verdict}" for verdict, count in ranked)


def changes(run: Run) -> dict[str, tuple[Comparison, ...]]:
    """What changed against the baseline: by change in the order of `CHANGES`, worst verdict first."""
    found = {change: [c for c in run.comparisons if c.change == change] for change in CHANGES}
    return {change: tuple(sorted(every, key=_weight)) for change, every in found.items() if every}


def _weight(comparison: Comparison) -> tuple[int, str]:
    verdict = comparison.now or comparison.before
    return (verdict.severity if verdict else 0, comparison.cell)


def change_rows(run: Run) -> dict[str, list[tuple[str, str]]]:
    """By change: the two verdicts with a remark, and the cell.

    The remark says that a known break covers the cell or, in a PR check, why the cell is worse.
    """
    covered = {cell.id for cell in run.cells if cell.expected} if run.against is None else set()
    return {
        change: [(arrow(each) + _remarked(each, each.cell in covered), each.cell) for each in every]
        for change, every in changes(run).items()
    }


def _remarked(comparison: Comparison, covered: bool) -> str:
    said = "known break" if covered else comparison.why
    return f" ({one_line(said, 200)})" if said else ""


def arrow(comparison: Comparison) -> str:
    """`exact → silent-wrong`; a dash for a side without a result."""
    if comparison.change == "still" and comparison.before == comparison.now:
        return str(comparison.now)
    return f"{comparison.before or '–'} → {comparison.now or '–'}"


def reach(cause: Cause) -> str:
    """Where a cause shows: `creators 0.6.1–0.13.2, loader 0.21.2, 2 scenarios: lokr-alpha, lokr-both`."""
    names = cause.scenarios
    more = f", … {len(names) - 6:,} more" if len(names) > 6 else ""
    where = f"{many(len(names), 'scenario')}: {', '.join(names[:6])}{more}"
    return f"{_releases('creator', cause.creators)}, {_releases('loader', cause.loaders)}, {where}"


def _releases(word: str, releases: Releases) -> str:
    return f"{word}{'s' * (len(releases.bad) > 1)} {releases.ranges}"


def since(cause: Cause) -> str:
    """The first bad creator and loader in release order; empty if there is only one of each."""
    if len(cause.creators.bad) < 2 and len(cause.loaders.bad) < 2:
        return ""
    return f"first bad creator {cause.creators.first}, first bad loader {cause.loaders.first}"


def others(cause: Cause) -> tuple[tuple[Cell, str], ...]:
    """The cells that share the cause with its representative, each with its error as a multiple of the allowance."""
    return tuple((cell, size(cell)) for cell in cause.cells[1:])


def size(cell: Cell) -> str:
    """How bad a cell is in one figure: error ÷ allowance; empty if nothing was measured."""
    return times(cell.worst_ratio) if cell.worst_ratio is not None else ""


def remark(cell: Cell) -> str:
    """Why a cell has its verdict, unless another section says so in full."""
    if cell.expected:
        return f"known break: {cell.expectation}"
    if cell.verdict.is_deviation:
        return ""
    if cell.verdict is Verdict.WARNED and cell.new_warnings:
        return cell.new_warnings[0]
    return cell.reason or "".join(f"fixed: {text}" for text in cell.fixed[:1] if cell.creators_own)


def lasts(cell: Cell) -> str:
    """How long a known break counts: `until 2027-06-30`, or `permanent`; empty if nobody recorded it as known."""
    if not cell.expectation_issue:
        return ""
    return f"until {cell.expectation_expires}" if cell.expectation_expires else "permanent"


def reference(cell: Cell) -> str:
    """The issue of a known break and how long it counts: `ISSUE, until 2027-06-30`."""
    return ", ".join(part for part in (cell.expectation_issue, lasts(cell)) if part)


def headline(run: Run) -> str:
    """One line about the run: cells, creators, loaders, devices, duration."""
    creators, loaders = len({c.creator for c in run.cells}), len({c.loader for c in run.cells})
    devices = listed(_distinct(cell.place for cell in run.cells)) or "no device"
    what = f"{many(len(run.cells), 'cell')}, {many(creators, 'creator')}, {many(loaders, 'loader')}"
    return f"{run.title or run.id}: {what}, {devices}{f', {seconds(run.duration_s)}' if run.duration_s else ''}"
