"""Groups cells by cause, so that a reader sees three causes instead of ninety lines.

Two deviating cells share a cause if their most important findings have one signature: the same stage and the same error
without its numbers, paths and addresses; or the same kind of finding by the same probe in the same family of methods,
with the same pattern.
This is a guess for readers: no verdict depends on it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from harness.core.run import Cell, Finding, Run
from harness.core.verdict import Verdict, worst
from harness.core.versions import release_order

_KIND_ORDER = ("error", "lost-tensors", "layers-missing", "values", "tie-broken", "shape", "dtype", "probe-lost")
"""Kinds of finding, the most important first: a lost tensor explains values that differ, not the reverse."""
_PROBE_ORDER = (
    "load",
    "accounting",
    "layers",
    "forward",
    "base",
    "structure",
    "train",
    "merged",
    "safe_merged",
    "unmerged",
)
"""Probes, the most important first: what is wrong in the forward pass is wrong in all others."""

KIND_PHRASES = {
    "adapter-dtype": "the adapter has a narrower type than a new one",
    "adapter-not-autocast": "the adapter is not in float32, as promised",
    "as-saved-dtype": "on a base that is loaded without a type, the adapter has another one",
    "base-dtype": "the base is loaded in another type",
    "base-moved": "the base model's own output moved",
    "base-weights": "weights of the base change",
    "config": "the saved config differs",
    "baseline-values": "values differ from the baseline's",
    "disabled-differs": "disabled, the output is not the base's",
    "fresh-values": "a new adapter computes something else",
    "gradients-missing": "parameters get no gradient",
    "layers-missing": "adapter layers are missing",
    "lost-tensors": "tensors of the checkpoint never arrive",
    "new-warning": "a new warning",
    "no-switch": "switching adapters has no effect",
    "probe-lost": "no longer applies",
    "roundtrip-keys": "saved again, keys are missing",
    "roundtrip-tensors": "saved again, tensors differ",
    "tie-broken": "tied weights are no longer tied",
    "trainable-dtype": "loaded for training, the adapter has another type",
    "trainability": "other parameters are trainable",
    "train-mode": "train mode differs",
    "reloaded-differs": "saved and read again, a new adapter computes something else",
    "unreadable": "a new adapter cannot be read again",
    "values": "values differ",
    "written-config": "a new adapter is saved with another config",
    "written-dtype": "a new adapter is saved in another dtype",
    "written-files": "a new adapter is saved in fewer files",
    "written-keys": "a new adapter is saved without some tensors",
    "written-shape": "a new adapter is saved in other shapes",
}
"""Kind of finding → its words in a title; other kinds are shown by name."""


@dataclass(frozen=True)
class Releases:
    """The environments of a run that a cause affects, as ranges over those that ran."""

    bad: tuple[str, ...]
    """Labels of the affected environments, in release order."""
    ranges: str
    """`0.6.1–0.13.2, 0.17.1`: a range never spans a release that ran and is sound."""

    @property
    def first(self) -> str:
        """The first bad one in release order."""
        return self.bad[0] if self.bad else ""


@dataclass(frozen=True)
class Cause:
    """Cells that share a signature."""

    signature: tuple[str, ...]
    title: str
    verdict: Verdict
    """The worst of the cells'."""
    cells: tuple[Cell, ...]
    """The representative first, then worst first."""
    creators: Releases
    loaders: Releases
    finding: Finding | None = None
    """The representative's most important finding."""
    expected: bool = False
    details: dict[str, str] = field(default_factory=dict)
    """For an expected cause: `id`, `issue`, `expires`, `reason` of its expectation."""

    @property
    def representative(self) -> Cell:
        """The cell that shows the cause best: the worst verdict, then the greatest error ÷ allowance."""
        return self.cells[0]

    @cached_property
    def scenarios(self) -> tuple[str, ...]:
        """Names of the scenarios, in the order of the cells' ids."""
        return tuple(sorted({cell.scenario for cell in self.cells}))


def group(run: Run) -> tuple[Cause, ...]:
    """All deviations by cause: the unexpected ones first, then the expected ones; each worst first."""
    return (*unexpected(run), *expected(run))


def unexpected(run: Run) -> tuple[Cause, ...]:
    """The unexpected deviations by signature, worst and widest first.

    If the run has a baseline, cells that deviated before are grouped separately from cells that were sound.
    """
    before = {c.cell for c in run.comparisons if c.before and c.before.is_deviation} if run.against else set()
    return _gather(run, run.deviations, lambda cell: (*signature(cell), *(["before"] if cell.id in before else [])))


def expected(run: Run) -> tuple[Cause, ...]:
    """The deviations that an expectation covers, by expectation."""
    return _gather(run, (cell for cell in run.cells if cell.expected), lambda cell: ("expected", cell.expectation))


def undetermined(run: Run) -> tuple[Cause, ...]:
    """The cells that could not be judged, by reason."""
    return _gather(run, (cell for cell in run.cells if cell.verdict.cannot_tell), _reason_signature)


def unsupported(run: Run) -> tuple[Cause, ...]:
    """The cells whose creator or loader lacks the feature by declaration, or that a consumer refuses, by reason."""
    aside = (Verdict.UNSUPPORTED, Verdict.REFUSED)
    return _gather(run, (c for c in run.cells if c.verdict in aside and not c.expected), _reason_signature)


def main_finding(cell: Cell) -> Finding | None:
    """A cell's most important finding; None if it has none."""
    return min(cell.findings, key=importance, default=None)


def signature(cell: Cell) -> tuple[str, ...]:
    """What two cells of one cause have in common."""
    finding = main_finding(cell)
    if finding is not None and is_error(finding):
        return ("error", finding.stage or finding.probe, finding.error_type, normalised(raised(finding)))
    if finding is not None and finding.kind == "new-warning":
        return (finding.probe, finding.kind, normalised(finding.message))
    if finding is not None and finding.pattern is not None:
        return (finding.probe, finding.kind, cell.family, *finding.pattern.signature)
    if finding is not None:
        return (finding.probe, finding.kind, cell.family)
    if cell.error is not None:
        return ("error", cell.error.stage, cell.error.type, normalised(cell.error.message))
    return (str(cell.verdict), normalised(cell.reason or last_line(cell.log_tail)), "")


def is_of(cell: Cell, cause: Cause) -> bool:
    """True if a cell has the cause's signature."""
    own = signature(cell)
    return cause.signature[: len(own)] == own


def is_error(finding: Finding) -> bool:
    """True if something raised."""
    return finding.kind == "error" or bool(finding.error_type)


def raised(finding: Finding) -> str:
    """`Type: message` of the exception, without the finding's words around it."""
    kind, message = finding.error_type, finding.message
    return message[message.index(kind) :] if kind in message else f"{kind}: {message}"


def normalised(message: str) -> str:
    """An error message without what varies between two instances of one error: addresses, paths, numbers, names."""
    for pattern, word in _VARIABLE:
        message = pattern.sub(word, message)
    return " ".join(message.split())


_VARIABLE: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\b0x[0-9a-fA-F]+"), "<address>"),
    (re.compile(r"(?:[A-Za-z]:)?(?:[\\/]|\b\w[\w.-]*/)[\w.@+~-]+(?:[\\/][\w.@+~-]+)+[\\/]?"), "<path>"),
    (re.compile(r"""(["'`])[\w-]+(?:\.[\w-]+)+\1"""), "<module>"),
    (re.compile(r"\b[A-Za-z_]\w*(?:\.\w+){2,}"), "<module>"),
    (re.compile(r"[-+]?\d+(?:\.\d+)*(?:[eE][-+]?\d+)?"), "<n>"),
    (re.compile(r"<n>(?:\s*[,x×]\s*<n>)+"), "<n>"),
)
"""What varies and its replacement, in the order of replacement (an address contains digits)."""


def last_line(text: str) -> str:
    """The last line that is not empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def importance(finding: Finding) -> tuple[int, int, int]:
    """Sort key of findings, the most important first: verdict, kind, probe."""
    return (
        finding.verdict.severity,
        _position(_KIND_ORDER, "error" if finding.error_type else finding.kind),
        _position(_PROBE_ORDER, finding.probe),
    )


def _position(order: Sequence[str], word: str) -> int:
    return order.index(word) if word in order else len(order)


def _reason_signature(cell: Cell) -> tuple[str, ...]:
    return (str(cell.verdict), normalised(cell.reason or last_line(cell.log_tail)))


def _gather(run: Run, cells: Iterable[Cell], key: Callable[[Cell], tuple[str, ...]]) -> tuple[Cause, ...]:
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(key(cell), []).append(cell)
    calendar = Calendar(run)
    causes = [
        _cause(calendar, (*key, *expression), sorted(part, key=_badness))
        for key, cells in groups.items()
        for expression, part in _by_expression(cells)
    ]
    return tuple(sorted(causes, key=lambda cause: (cause.verdict.severity, -len(cause.cells), cause.title)))


def _by_expression(cells: Sequence[Cell]) -> Iterable[tuple[tuple[str, ...], Sequence[Cell]]]:
    """The cells, apart if their effects have factors that no one expression of their configs gives.

    A factor of 2 can be alpha/r in one cell and √r or 2 as well: it belongs with a cell where it can only be alpha/r.
    """
    rest = {cell.id: cell for cell in cells}
    of = {cell.id: _expressions(cell) for cell in cells}
    while counts := Counter(text for name in rest for text in of[name]):
        shared = counts.most_common(1)[0][0]  # of those that occur as often, the first one
        part = [rest.pop(name) for name in list(rest) if shared in of[name]]
        yield (shared,), part
    if rest:
        yield (), list(rest.values())


def _expressions(cell: Cell) -> tuple[str, ...]:
    finding = main_finding(cell)
    return finding.pattern.expressions if finding is not None and finding.pattern is not None else ()


def _badness(cell: Cell) -> tuple[int, float, str]:
    ratio = cell.worst_ratio if cell.worst_ratio is not None else -1.0
    return (cell.verdict.severity, -ratio, cell.id)


def _cause(calendar: Calendar, key: tuple[str, ...], cells: list[Cell]) -> Cause:
    first = cells[0]
    return Cause(
        signature=key,
        title=_shared_title(cells),
        verdict=worst(cell.verdict for cell in cells),
        cells=tuple(cells),
        creators=calendar.creators(cells),
        loaders=calendar.loaders(cells),
        finding=main_finding(first),
        expected=first.expected,
        details=_expectation(first) if first.expected else {},
    )


def _shared_title(cells: Sequence[Cell]) -> str:
    """The common title of the cells, without what varies if their titles differ."""
    titles = {title(cell) for cell in cells}
    return titles.pop() if len(titles) == 1 else normalised(title(cells[0]))


def title(cell: Cell) -> str:
    """The cause in a few words: `lokr · forward: values differ`."""
    if cell.expected:
        return cell.expectation_reason or cell.expectation
    if not cell.verdict.is_judged:
        return cell.reason or last_line(cell.log_tail) or "no reason was given"
    finding = main_finding(cell)
    if finding is not None and is_error(finding):
        return f"{finding.stage or finding.probe} · {raised(finding)}"
    if finding is not None and finding.kind == "new-warning":
        return f"a new warning: {finding.message}"
    if finding is not None:
        what = f"{finding.probe}: {phrase(finding)}"
        return f"{cell.family} · {what}" if cell.family else what
    if cell.error is not None:
        return f"{cell.error.stage} · {cell.error.type}: {cell.error.message}"
    return cell.reason or last_line(cell.log_tail) or str(cell.verdict)


def phrase(finding: Finding) -> str:
    """The kind of finding in words: `values differ`."""
    words = KIND_PHRASES.get(finding.kind, finding.kind.replace("-", " "))
    return f"{words}, {finding.pattern.short}" if finding.pattern is not None and finding.pattern.short else words


def _expectation(cell: Cell) -> dict[str, str]:
    return {
        "id": cell.expectation,
        "issue": cell.expectation_issue,
        "expires": cell.expectation_expires,
        "reason": cell.expectation_reason,
    }


class Calendar:
    """The creators and the loaders of a run in release order, with their labels.

    Args:
        package: whose releases they are sorted by.
    """

    def __init__(self, run: Run, package: str = "peft") -> None:
        versions = {environment.name: environment.versions.get(package, "") for environment in run.environments}
        self._creators = _Side(versions, [(cell.creator, cell) for cell in run.cells])
        self._loaders = _Side(versions, [(cell.loader, cell) for cell in run.cells])

    def creators(self, cells: Sequence[Cell]) -> Releases:
        """The creators of some cells."""
        return self._creators.releases({cell.creator for cell in cells}, {cell.scenario for cell in cells})

    def loaders(self, cells: Sequence[Cell]) -> Releases:
        """The loaders of some cells."""
        return self._loaders.releases({cell.loader for cell in cells}, {cell.scenario for cell in cells})


class _Side:
    """All creators of a run, or all its loaders."""

    def __init__(self, versions: dict[str, str], used: Sequence[tuple[str, Cell]]) -> None:
        own = {name: versions.get(name, "") for name, _ in used}
        self._order = sorted(own, key=lambda name: release_order(own[name], name))
        self._labels = {name: _label(name, own) for name in own}
        self._judged: dict[str, set[str]] = {}
        for name, cell in used:
            if cell.verdict.is_judged:
                self._judged.setdefault(cell.scenario, set()).add(name)

    def releases(self, bad: set[str], scenarios: set[str]) -> Releases:
        judged = bad.union(*(self._judged.get(scenario, set()) for scenario in scenarios))
        stretches: list[list[str]] = [[]]
        for name in self._order:
            if name in bad:
                stretches[-1].append(self._labels[name])
            elif name in judged and stretches[-1]:
                stretches.append([])
        ranges = ", ".join(part[0] if len(part) == 1 else f"{part[0]}–{part[-1]}" for part in stretches if part)
        return Releases(tuple(self._labels[name] for name in self._order if name in bad), ranges)


def _label(name: str, versions: dict[str, str]) -> str:
    """The release of an environment, with its name if another has the same release."""
    version = versions.get(name, "")
    if not version:
        return name
    return version if list(versions.values()).count(version) == 1 else f"{version} ({name})"
