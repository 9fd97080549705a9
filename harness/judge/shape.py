"""The shape of a known deviation: what each finding is like, and how large. Pure.

A line of a shape describes one finding in words that hold on any machine: the pattern of its numbers, the names of what
is lost, the error. Sizes are measured, for each scenario: an error relative to the RMS of the array that it is in, or a
number of tensors. `harness.judge.shape_measured` takes both from cells. `unlike` is the only place that compares.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any

import pydantic

from harness.core.model import Strict
from harness.core.pattern import Pattern
from harness.core.run import Cell, Finding
from harness.core.text import enumerated, listed, one_line
from harness.core.verdict import Verdict
from harness.judge import causes

MARGIN = 0.1
"""How far an error may be from the measured one, as a share of it.

What a break does to the numbers follows from the adapter and the base, so machines and releases of Torch differ in it
by no more than rounding. The allowance for rounding is added twice: the golden and the replay each have it.
"""
OF_FACTOR = 0.01
"""The same for a factor that is a number: a factor is fitted to many values."""
NOT_FINITE = "not-finite"
_EXACT = ("factor", "zero", "sign")
"""Patterns that leave nothing open in the layers' own effects."""
SOME = " in some layers"
_SHOWN = 4


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Texts = Annotated[list[str], pydantic.BeforeValidator(_listed), pydantic.Field(min_length=1)]
"""One text, or a list of them."""


class Line(Strict):
    """What is known of one finding. An absent key allows everything, except numbers that are not finite."""

    pattern: Texts | None = None
    """Patterns that it may have: `factor alpha/r`, `zero`, `permutation features reversed`, `not-finite NaN`."""
    names: Texts | None = None
    """Globs of the tensors, parameters or entries of the config that it may name."""
    says: Texts | None = None
    """Globs of its message; for an error `stage · Type: message`."""


Size = float | int | Annotated[list[float | int], pydantic.Field(min_length=2, max_length=2)]
"""A measured size, or the lowest and the highest; 0 as the lowest: the finding may be absent."""
Shape = Mapping[str, Line]
"""Finding → what is known of it. A key is `probe kind`, a kind alone, or a glob of either."""
Sizes = Mapping[str, Size]
"""`probe kind` → size, in one scenario."""


def deviating(cell: Cell) -> list[Finding]:
    """The findings that make a cell deviate; of a `warned` cell, those that warn."""
    warned = cell.verdict is Verdict.WARNED
    return [f for f in cell.findings if f.verdict.is_deviation or (warned and f.verdict is Verdict.WARNED)]


def key_of(finding: Finding) -> str:
    """`layers values`; the kind alone if it begins with the probe: `roundtrip-keys`, `hotswap-error`."""
    own = finding.kind.startswith(f"{finding.probe.rpartition('.')[2]}-")
    return finding.kind if own else f"{finding.probe} {finding.kind}"


def described_by(key: str, finding: Finding) -> bool:
    """True if a line with this key is about the finding."""
    return fnmatchcase(key_of(finding), key) or fnmatchcase(finding.kind, key)


def unlike(shape: Shape, sizes: Sizes, cell: Cell) -> tuple[str, ...]:
    """How a cell's findings differ from the known ones, a sentence each; empty if they do not.

    Args:
        shape: what is known; a finding that no line describes is not known.
        sizes: those of the cell's scenario; empty if they were not measured.
    """
    findings = deviating(cell)
    found = [text for finding in findings for text in _unlike(shape, finding)]
    sized = {key_of(finding): size_of(finding, cell) for finding in findings}
    found += filter(None, (_resized(key, bounds(size), sized.get(key)) for key, size in sizes.items()))
    return tuple(dict.fromkeys(found))


def _unlike(shape: Shape, finding: Finding) -> list[str]:
    """How one finding differs from the line that describes it best."""
    lines = [line for key, line in shape.items() if described_by(key, finding)]
    if not lines:
        return [f"{key_of(finding)} is not known: {one_line(finding.message, 200)}"]
    return min(([f"{key_of(finding)}: {text}" for text in differences(line, finding)] for line in lines), key=len)


def differences(line: Line, finding: Finding) -> Iterable[str]:
    patterns = line.pattern or []
    if is_infinite(finding) and not any(known.startswith(NOT_FINITE) for known in patterns):
        yield f"found values that are not finite{_known(patterns)}"
    elif patterns and not any(has_pattern(known, finding.pattern) for known in patterns):
        found = finding.pattern.says if finding.pattern else "no pattern"
        yield f"found {one_line(found, 160)}{_known(patterns)}"
    if line.names and (others := [n for n in finding.details if not _any(line.names, n)]):
        yield f"found {enumerated(others, _SHOWN)}{_known(line.names)}"
    if line.says and not _any(line.says, said := says(finding)):
        yield f"found {one_line(said, 200)!r}{_known(map(repr, line.says))}"


def _known(known: Iterable[str]) -> str:
    texts = list(known)
    return f", known is {listed(texts)}" if texts else ""


# -- patterns ---------------------------------------------------------------------------------------------------------


def words_of(pattern: Pattern) -> tuple[str, ...]:
    """Each way to state a pattern: a factor by an expression of the config, then by its number."""
    some = SOME if pattern.compared > len(pattern.layers) > 0 else ""
    if pattern.kind == "dropped":
        return ()  # the names say it
    if pattern.kind != "factor":
        return (f"{' '.join(pattern.signature)}{some}",)
    numbers = [f"{pattern.factor:.4g}"] if pattern.factor is not None else []
    return tuple(f"factor {what}{some}" for what in (*pattern.expressions, *numbers)) or (f"factor{some}",)


def has_pattern(known: str, found: Pattern | None) -> bool:
    """True if a stated pattern is the found one; one `in some layers` may be in all."""
    if found is None:
        return False
    words = words_of(found)
    if known in words or known.removesuffix(SOME) in words:
        return True
    try:
        number = float(known.removeprefix("factor ").removesuffix(SOME))
    except ValueError:
        return False
    whole = known.endswith(SOME) or not any(word.endswith(SOME) for word in words)
    return whole and found.factor is not None and abs(found.factor - number) <= OF_FACTOR * abs(number)


# -- texts ------------------------------------------------------------------------------------------------------------


def says(finding: Finding) -> str:
    """What a finding without figures and names says: an error with its stage, else its message."""
    if not causes.is_error(finding):
        return " ".join(finding.message.split())
    kind = finding.error_type.rpartition(".")[2]
    return f"{finding.stage or finding.probe} · {kind}: {error_message(finding)}"


def error_message(finding: Finding) -> str:
    """The message of an exception, in one line."""
    return " ".join(causes.raised(finding).removeprefix(f"{finding.error_type}:").split())


def _any(globs: Sequence[str], text: str) -> bool:
    # names of layers and messages have brackets: here they mean themselves
    return any(fnmatchcase(text, re.sub(r"\[", "[[]", glob)) for glob in globs)


# -- sizes ------------------------------------------------------------------------------------------------------------


class Measured(Strict):
    """The size of one finding."""

    value: float
    slack: float = 0.0
    """How far it may be from the known one besides `MARGIN`: what rounding allows, relative to the RMS."""
    unit: str = ""
    """Empty for a number of things."""


def size_of(finding: Finding, cell: Cell) -> Measured | None:
    """The size of a finding; None if it has none (an error, token ids), or only follows from what the verdict is about.

    Of several arrays (the layers of a model) the greatest: which of them leads a finding depends on rounding.
    """
    if finding.verdict is not cell.verdict:
        return None
    if finding.probe == "layers" and finding.pattern and finding.pattern.kind in _EXACT:
        return None
    if finding.figures is None:
        return Measured(value=float(len(finding.details))) if finding.details else None
    probe = cell.probes.get(finding.probe)
    others = probe.figures if probe and finding.figures in probe.figures else ()
    sized = [f for f in (finding.figures, *others) if f.is_size and f.scale > 0 and math.isfinite(f.max_abs)]
    if not sized:
        return None
    value, slack = max((f.max_abs / f.scale, 2 * f.allowance / f.scale) for f in sized)
    return Measured(value=value, slack=slack, unit=" × the RMS")


def is_infinite(finding: Finding) -> bool:
    """True if values became NaN or infinite."""
    of_pattern = finding.pattern is not None and finding.pattern.kind == NOT_FINITE
    return of_pattern or (finding.figures is not None and not math.isfinite(finding.figures.max_abs))


def bounds(size: Size) -> tuple[float, float]:
    """The lowest and the highest of a measured size."""
    low, high = (size[0], size[1]) if isinstance(size, list) else (size, size)
    return float(low), float(high)


def _resized(key: str, known: tuple[float, float], found: Measured | None) -> str:
    """How a size differs from the known one; empty if it does not."""
    low, high = known
    if found is None:
        return f"{key} is known, but was not found" if low > 0 else ""
    margin = MARGIN if found.unit else 0.0
    if low * (1 - margin) - found.slack <= found.value <= high * (1 + margin) + found.slack:
        return ""
    shown = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    return f"{key}: the size is {found.value:.3g}{found.unit}, known is {shown}"
