"""Takes the shape and the sizes of a known break from cells that show it. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from harness.core.run import Cell, Finding
from harness.core.text import encodable
from harness.judge import causes, shape
from harness.judge.shape import Line, Shape, Size, Sizes

NEAR = 3.0
"""Error ÷ allowance below which a finding may be absent on another machine."""
_FEW = 6
"""Globs in a line, if names can be shortened to so few."""
_PARTS = (3, 2, 1)
"""How many parts of a tensor's name a glob keeps: its beginning differs between base models."""
_VARIES = re.compile(r"\b0x[0-9a-f]+|(?:\b[\w.-]+)?[/\\][\w.@+~-]+(?:[/\\][\w.@+~-]+)+|(?<![A-Za-z_])\d+(?:\.\d+)*")
"""What varies between two instances of one message: addresses, paths, numbers."""
_LONG = 100
"""Characters of a message that are kept."""


def measured(
    cells: Sequence[Cell], known: Shape | None = None, sizes: Mapping[str, Sizes] | None = None
) -> tuple[dict[str, Line], dict[str, dict[str, Size]]]:
    """The shape of these cells, and their sizes by scenario.

    Args:
        known: lines that are widened where a cell differs. What a line leaves open stays open.
        sizes: sizes that are widened.
    """
    lines = dict(known or {})
    by_key: dict[str, list[Finding]] = {}
    for finding in (finding for cell in cells for finding in shape.deviating(cell)):
        key = next((key for key in lines if shape.described_by(key, finding)), shape.key_of(finding))
        by_key.setdefault(key, []).append(finding)
    for key, findings in by_key.items():
        lines[key] = _widened(lines[key], findings) if key in lines else _line(findings)
    rows = {name: dict(row) for name, row in (sizes or {}).items()}
    for name in dict.fromkeys(cell.scenario for cell in cells):
        of_it = [cell for cell in cells if cell.scenario == name]
        if row := _row(of_it, rows.get(name)):
            rows[name] = row
    return lines, rows


def worse(before: Cell, now: Cell) -> tuple[str, ...]:
    """How a cell deviates otherwise than it did before, or by more; empty if it is the same or less of it."""
    lines, rows = measured([before])
    loose = {key: line.model_copy(update={"pattern": _partly(line.pattern)}) for key, line in lines.items()}
    sizes = rows.get(before.scenario, {})
    return shape.unlike(loose, {key: [0, shape.bounds(size)[1]] for key, size in sizes.items()}, now)


def _partly(patterns: Sequence[str] | None) -> list[str] | None:
    return [one if one.endswith(shape.SOME) else f"{one}{shape.SOME}" for one in patterns] if patterns else None


# -- lines ------------------------------------------------------------------------------------------------------------


def _line(findings: Sequence[Finding]) -> Line:
    """What several findings with one key have in common."""
    silent = all(finding.figures is None and not finding.details for finding in findings)
    return Line(
        pattern=_patterns(findings),
        names=_names({detail for finding in findings for detail in finding.details}) or None,
        says=_messages(findings) if silent else None,
    )


def _widened(line: Line, findings: Sequence[Finding]) -> Line:
    """A line with what it did not allow yet."""
    new = {}
    if line.pattern and (others := [f for f in findings if not _allows(Line(pattern=line.pattern), f)]):
        patterns = _patterns(others)
        new["pattern"] = [*line.pattern, *patterns] if patterns else None
    if line.names and (names := {d for f in findings for d in f.details if not _allows(Line(names=line.names), f)}):
        new["names"] = sorted({*line.names, *_names(names)})
    if line.says and (others := [f for f in findings if not _allows(Line(says=line.says), f)]):
        new["says"] = [*line.says, *_messages(others)]
    return line.model_copy(update=new)


def _allows(line: Line, finding: Finding) -> bool:
    return not list(shape.differences(line, finding))


def _patterns(findings: Iterable[Finding]) -> list[str] | None:
    """As few statements as describe the patterns of all findings; None if one has no pattern."""
    left = [shape.words_of(f.pattern) if f.pattern else () for f in findings]
    if not all(left):
        return None
    found = []
    while counts := Counter(word for words in left for word in words):
        found.append(counts.most_common(1)[0][0])  # of those that occur as often, the first: an expression
        left = [words for words in left if found[-1] not in words]
    return found


def _names(details: Iterable[str]) -> list[str]:
    """Globs of names: without numbers, and short if many would be needed."""
    details = sorted(details)
    every = (sorted({_glob(detail, parts) for detail in details}) for parts in _PARTS)
    return next((globs for globs in every if len(globs) <= _FEW), sorted({_glob(one, _PARTS[1]) for one in details}))


def _glob(detail: str, parts: int) -> str:
    """`newly trainable: *.q_proj.bias`, `use_dora: *`, `*.lora_A.weight: bfloat16 → float32`."""
    if entry := re.match(r"[-+] [\w.-]+ ", detail):  # of a config: `- random_seed (was 3)`
        return f"{entry[0]}*"
    parted = re.match(r"((?:[\w .-]+: )*)(.*)", encodable(detail), re.DOTALL)
    assert parted is not None
    head, rest = parted[1].removesuffix(": "), parted[2]
    if not head:
        return _shortened(rest, parts)
    if re.fullmatch(r"[\w.-]+", rest):
        return f"{head}: {_shortened(rest, parts)}"
    if "." in head and re.fullmatch(r"[\w.]+ → [\w.]+", rest):
        return f"{_shortened(head, parts)}: {rest}"
    return f"{head}: *"


def _shortened(name: str, parts: int) -> str:
    own = re.sub(r"\d+", "*", name).split(".")
    kept = ".".join(own) if len(own) <= parts else ".".join(["*", *own[-parts:]])
    return re.sub(r"^(\*\.)+", "*.", kept)


def _messages(findings: Iterable[Finding]) -> list[str]:
    """Globs of messages, without what varies between two instances of one; one glob if many would be needed."""
    globs = sorted({_message(finding) for finding in findings})
    return globs if len(globs) <= _FEW else [_common(globs)]


def _message(finding: Finding) -> str:
    said = encodable(shape.says(finding))
    own = encodable(shape.error_message(finding)) if causes.is_error(finding) else said
    text = said.removesuffix(own) + _VARIES.sub("*", own)
    return text if len(text) <= _LONG else f"{text[:_LONG].rpartition(' ')[0]} *"


def _common(globs: Sequence[str]) -> str:
    """What all begin with, a `*`, and what all end with."""
    words = [glob.split(" ") for glob in globs]
    first = _shared(words)
    last = _shared([part[len(first) :][::-1] for part in words])[::-1]
    return " ".join([*first, "*", *last])


def _shared(words: Sequence[Sequence[str]]) -> list[str]:
    columns = zip(*words, strict=False)
    return [column[0] for column in _while_equal(columns)]


def _while_equal(columns: Iterable[tuple[str, ...]]) -> Iterable[tuple[str, ...]]:
    for column in columns:
        if len(set(column)) > 1:
            return
        yield column


# -- sizes ------------------------------------------------------------------------------------------------------------


def _row(cells: Sequence[Cell], known: Sizes | None) -> dict[str, Size]:
    """The sizes of one scenario; a finding that one of its cells does not have begins at 0."""
    found: dict[str, list[float]] = {key: list(shape.bounds(size)) for key, size in (known or {}).items()}
    every = [_sizes(cell) for cell in cells]
    for key in dict.fromkeys([*found, *(key for row in every for key in row)]):
        values = [value for row in every for value in row.get(key, [0.0])]
        found[key] = [*found.get(key, [0.0] if known else []), *values]
    return {key: _size(values) for key, values in found.items()}


def _sizes(cell: Cell) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for finding in shape.deviating(cell):
        if (size := shape.size_of(finding, cell)) is not None:
            near = [0.0] if finding.figures and finding.figures.ratio < NEAR else []
            found.setdefault(shape.key_of(finding), []).extend([*near, size.value])
    return found


def _size(values: Sequence[float]) -> Size:
    """A number, or the two ends, with three digits."""
    low, high = (_rounded(value) for value in (min(values), max(values)))
    return low if low == high else [low, high]


def _rounded(value: float) -> float | int:
    return int(value) if value == int(value) else float(f"{value:.3g}")
