"""The first sentence of every report: what the run found, with all its counts. Pure.

`check`, `check --against`, `pair` and `matrix` have the same one, and so have the terminal, Markdown, HTML, JUnit and
JSON. The answer comes first; whose adapters they were, and what was left out, follows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from harness.core.errors import ExitCode
from harness.core.run import Cell, Run, Shard, exit_code_of
from harness.core.text import listed, many
from harness.core.verdict import Verdict
from harness.judge import causes
from harness.report import change_summary, summary, written
from harness.report.summary import by_verdict

WORDS = {
    ExitCode.CLEAN: "CLEAN",
    ExitCode.REGRESSED: "REGRESSED",
    ExitCode.CANNOT_TELL: "COULD NOT TELL",
    ExitCode.INTERRUPTED: "INTERRUPTED",
}
"""The run's verdict in a word."""
NO_NEW_BREAKS = "NO NEW BREAKS"
"""The word of a run that passes, with breaks that are known or that the baseline has too."""


@dataclass(frozen=True)
class Sentence:
    """The run in a few short sentences on one line; the first is the answer."""

    word: str
    answer: str
    rest: str = ""

    @property
    def text(self) -> str:
        """All but the word."""
        return " ".join(part for part in (f"{self.answer}.", self.rest) if part)

    def __str__(self) -> str:
        return f"{self.word}: {self.text}"


@dataclass(frozen=True)
class Tally:
    """A run's cells by what they say. Each is in one of the groups."""

    clean: tuple[Cell, ...]
    deviating: tuple[Cell, ...]
    known: tuple[Cell, ...]
    """Known breaks; in a PR check, what fails on the baseline too."""
    neither: tuple[Cell, ...]
    """In a PR check: what neither side loads, so that nothing was compared."""
    undetermined: tuple[Cell, ...]
    unsupported: tuple[Cell, ...]
    refused: tuple[Cell, ...]
    not_run: int

    @property
    def asked(self) -> int:
        """The cells that should have been judged."""
        judged = (self.clean, self.deviating, self.known, self.neither, self.undetermined, self.refused)
        return sum(map(len, judged)) + self.not_run


def tally(run: Run) -> Tally:
    """Sort a run's cells."""
    deviating = run.deviations
    rest = [cell for cell in run.cells if cell.id not in {each.id for each in deviating}]
    apart = {each.cell for each in change_summary.undetermined(run)} if run.against else set()
    neither = {each.cell for each in run.comparisons if each.refused} if run.against else set()
    unknown = [cell for cell in rest if cell.verdict.cannot_tell or cell.id in apart]
    rest = [cell for cell in rest if cell not in unknown]
    broken = [cell for cell in rest if cell.verdict.is_deviation]
    return Tally(
        clean=tuple(cell for cell in rest if cell.verdict.is_clean),
        deviating=deviating,
        known=tuple(cell for cell in broken if cell.id not in neither),
        neither=tuple(cell for cell in broken if cell.id in neither),
        undetermined=tuple(unknown),
        unsupported=tuple(cell for cell in rest if cell.verdict is Verdict.UNSUPPORTED),
        refused=tuple(cell for cell in rest if cell.verdict is Verdict.REFUSED),
        not_run=len(run.not_run),
    )


def of(run: Run) -> Sentence:
    """The sentence of a run."""
    code, counts = exit_code_of(run), tally(run)
    passed_with_breaks = code is ExitCode.CLEAN and bool(counts.known or counts.neither)
    if run.against and run.against.failed:
        return Sentence(WORDS[code], f"nothing was compared: {change_summary.failed_side(run, run.against)}")
    if not run.plan and code is ExitCode.CLEAN and (why := change_summary.untouched(run.against)):
        return Sentence(WORDS[code], why)
    answer = "; ".join(part for part in _answer(run, code, counts) if part)
    rest = " ".join(f"{part[0].upper()}{part[1:]}." for part in _rest(run, counts) if part)
    return Sentence(NO_NEW_BREAKS if passed_with_breaks else WORDS[code], answer, rest)


def _answer(run: Run, code: ExitCode, counts: Tally) -> Iterable[str]:
    if code is ExitCode.INTERRUPTED:
        yield f"{len(run.cells):,} of {many(len(run.cells) + counts.not_run, 'cell')} finished"
    if code is ExitCode.CANNOT_TELL:
        if not any((counts.clean, counts.known, counts.refused)):
            yield "nothing was compared"
        yield _undetermined(counts)
    if code is not ExitCode.CLEAN and (counts.deviating or counts.clean or counts.known or counts.refused):
        yield _breaks(run, counts)
    if writes := _writes(run, worse=True):
        yield writes
    yield _problems(run)
    if any((counts.clean, counts.known, counts.deviating)):
        yield f"{_count(counts.clean, 'loads and computes', 'load and compute')} the same{_verdicts(counts.clean)}"
    if counts.refused:
        yield f"{_count(counts.refused, 'is', 'are')} refused by name"
    yield _fixed(run, counts)
    yield _known(run, counts)
    if counts.neither:
        yield f"{len(counts.neither):,} can't be loaded on either side"
    if code is not ExitCode.CANNOT_TELL:
        yield _undetermined(counts)


def _writes(run: Run, *, worse: bool) -> str:
    """What a change saves otherwise: part of the answer if released versions load that worse."""
    found = run.against.writes if run.against else None
    return written.sentence(found) if found is not None and bool(found.worse) is worse else ""


def _breaks(run: Run, counts: Tally) -> str:
    if not counts.deviating:
        return "no new breaks"
    why = f"{by_verdict(counts.deviating)}, {many(len(causes.unexpected(run)), 'cause')}"
    return f"{many(len(counts.deviating), 'new break')} ({why})"


def _known(run: Run, counts: Tally) -> str:
    if not counts.known:
        return ""
    if run.against is None:
        return f"{many(len(counts.known), 'known break')}{_verdicts(counts.known)}"
    return f"{_count(counts.known, 'fails', 'fail')} on the baseline too{_verdicts(counts.known)}"


def _fixed(run: Run, counts: Tally) -> str:
    if run.against:
        count = sum(comparison.change == "fixed" for comparison in run.comparisons)
        return f"{count:,} of them fixed" if count else ""
    count = sum(bool(cell.creators_own) for cell in counts.clean)
    whose = (
        "its creator's own library cannot read it" if count == 1 else "their creators' own libraries cannot read them"
    )
    return f"{count:,} of them fixed ({whose} back)" if count else ""


def _undetermined(counts: Tally) -> str:
    if not counts.undetermined:
        return ""
    unknown = [cell for cell in counts.undetermined if cell.verdict.cannot_tell]
    return f"{len(counts.undetermined):,} could not be judged{_verdicts(unknown)}"


def _problems(run: Run) -> str:
    by_kind = Counter(problem.problem for problem in run.expectation_problems)
    said = listed(f"{count} {kind}" for kind, count in sorted(by_kind.items()))
    known = many(by_kind.total(), "known break needs", "known breaks need")
    return f"{known} a review ({said})" if by_kind else ""


def _count(cells: tuple[Cell, ...], one: str, more: str) -> str:
    return f"{len(cells):,} {one if len(cells) == 1 else more}"


def _verdicts(cells: Iterable[Cell]) -> str:
    cells = list(cells)
    return f" ({by_verdict(cells)})" if cells else ""


def _rest(run: Run, counts: Tally) -> Iterable[str]:
    """Whose adapters, under what, what was left out, and how it compares with an earlier run."""
    yield _writes(run, worse=False)
    if run.cells:
        under = "" if run.against else f" under {_loaders(run)}"
        yield f"{_adapters(run, counts)} from {change_summary.sources(run)}{under}"
    scenarios = "scenario" if run.against else ""
    tried = sum(cell.reading == "refused" for cell in counts.unsupported)
    how = f" ({tried:,} tried and refused by the loader)" if tried else ""
    parts = [
        f"{len(counts.unsupported):,} unsupported{how}" if counts.unsupported else "",
        f"{counts.not_run:,} planned but not run" if counts.not_run and not run.interrupted else "",
        f"{many(len(run.left_out), scenarios) if scenarios else f'{len(run.left_out):,}'} left out" if run.left_out
        else "",
    ]  # fmt: skip
    yield ", ".join(part for part in parts if part)
    yield _shard(run.shard)
    if run.baseline and run.against is None:
        changed = Counter[str](comparison.change for comparison in run.comparisons)
        said = ", ".join(f"{changed[change]:,} {change}" for change in summary.CHANGES if changed[change])
        yield f"compared with {run.baseline}: {said or 'no change'}"


def _shard(shard: Shard | None) -> str:
    """`shard 2 of 3`, or what a merge lacks; empty for a whole plan."""
    if shard is None or len(shard.numbers) == shard.count:
        return ""
    if shard.missing:
        word = "shard" if len(shard.missing) == 1 else "shards"
        return f"{word} {listed(map(str, shard.missing))} of {shard.count} missing"
    return f"shard {listed(map(str, shard.numbers))} of {shard.count}"


def _adapters(run: Run, counts: Tally) -> str:
    """`64 adapters`; cells, if an adapter was loaded more than once."""
    once = len({(cell.loader, cell.place) for cell in run.cells}) <= 1
    return many(counts.asked, "adapter" if once else "cell")


def _loaders(run: Run) -> str:
    names = list(dict.fromkeys(cell.loader for cell in run.cells))
    devices = [device for device in dict.fromkeys(cell.place for cell in run.cells) if device != "cpu"]
    loaders = listed(names) if len(names) <= 2 else many(len(names), "loader")
    return loaders + (f" on {listed(devices)}" if devices else "")
