"""Writes docs/measured-changes.md: what `check --against` said of each change of benchmarks/changes.

    python -m benchmarks.changes_page

It reads benchmarks/changes/*.toml and results.jsonl. Why a break was missed is in missed.toml.
"""

from __future__ import annotations

import statistics
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from benchmarks.changes import HERE, KINDS, RESULTS, Change, Result, changes, results
from harness.core import data

PAGE = data.root() / "docs" / "measured-changes.md"
_WORDS = _SEEN, _MISSED, _PARTLY, _UNKNOWN = "red", "not red", "not red in the first cells", "could not tell"
REASONS = {
    "no-scenario": "no scenario has the feature",
    "no-probe": "no probe looks there",
    "hidden": "the cells deviate on the baseline too, which hides it",
    "tolerated": "within what rounding may be",
    "not-run": "only some cells of the default scope were checked",
    "": "not looked into yet",
}
"""The kinds of reasons why a break was missed, as missed.toml names them."""
UNDETERMINED = "undetermined"
"""Where missed.toml says why `check` could not tell."""
_TITLES = {"break": "Breaks", "harmless": "Harmless changes", "rounding": "Rounding"}
_INTRO = """# Measured changes

What `check --against` says of changes to PEFT, Transformers and bitsandbytes, each in one place of the newest release.
A *break* must be red. A *harmless* change, which no user sees, must not be red, nor a change that only *rounds*
otherwise. If a change can affect many scenarios, up to six cells that should see it are checked first. Where they do
not, the rest of the default scope was not run, unless the table says so. `python -m benchmarks.changes` runs the
changes that have no result yet, and `python -m benchmarks.changes_page` writes this page. The changes are data in
`benchmarks/changes/`.
"""


def reasons() -> dict[str, dict[str, str]]:
    """Why breaks were missed: kind of reason → change → sentence."""
    found: dict[str, dict[str, str]] = tomllib.loads((HERE / "missed.toml").read_text(encoding="utf-8"))
    return found


def page(every: Sequence[Change], found: Mapping[str, Result], reasons: Mapping[str, Mapping[str, str]]) -> str:
    """The page, in Markdown."""
    parts = [_INTRO, "## Totals\n", _table(("kind", "changes", "run", *_WORDS), _totals(every, found))]
    parts += ["## Seconds\n", _table(("checked", "changes", "wall: median", "wall: longest", "CPU: median"),
                                     _seconds(every, found))]  # fmt: skip
    parts += ["Measured on two cores that other programs used at the same time.\n"]
    areas = _table(("area", "breaks", "seen"), _areas(every, found))
    parts += ["## By area\n", areas, "## Missed, or not judged\n", *_missed(every, found, reasons)]
    for kind in KINDS:
        rows = [_row(one, found[one.id]) for one in every if one.kind == kind and one.id in found]
        head = ("change", "area", "cells", "seconds", "CPU", "result", "first red cell, its first finding", "commit")
        parts += [f"## {_TITLES[kind]}\n", _table(head, rows)]
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)


def _totals(every: Sequence[Change], found: Mapping[str, Result]) -> Iterator[Sequence[object]]:
    for kind in KINDS:
        mine = [one for one in every if one.kind == kind]
        said = [_said(found[one.id]) for one in mine if one.id in found]
        yield kind, len(mine), len(said), *(said.count(word) for word in _WORDS)


def _said(result: Result) -> str:
    if result.exit_code == 0:
        return _MISSED if result.cells == result.of else _PARTLY
    return _SEEN if result.exit_code == 1 else _UNKNOWN


def _seconds(every: Sequence[Change], found: Mapping[str, Result]) -> Iterator[Sequence[object]]:
    alone = [found[one.id] for one in every if one.id in found and not found[one.id].beside]
    kinds = {
        "all cells of the default scope, up to 20": [one for one in alone if one.cells == one.of <= 20],
        "all cells of the default scope, more than 20": [one for one in alone if one.cells == one.of > 20],
        "the cells of the default scope that should see it": [one for one in alone if one.cells < one.of],
    }
    for words, mine in kinds.items():
        if mine:
            walls, cpus = [one.seconds for one in mine], [one.cpu_s for one in mine]
            yield (words, len(mine), f"{statistics.median(walls):.0f}", f"{max(walls):.0f}",
                   f"{statistics.median(cpus):.0f}")  # fmt: skip


def _areas(every: Sequence[Change], found: Mapping[str, Result]) -> Iterator[Sequence[object]]:
    breaks = [one for one in every if one.kind == "break" and one.id in found]
    for area in sorted({one.area for one in breaks}, key=str.lower):
        codes = [found[one.id].exit_code for one in breaks if one.area == area]
        yield area, len(codes), codes.count(1)


def _missed(
    every: Sequence[Change], found: Mapping[str, Result], reasons: Mapping[str, Mapping[str, str]]
) -> Iterator[str]:
    missed = [one for one in every if one.kind == "break" and one.id in found and found[one.id].exit_code == 0]
    kinds = {id: kind for kind, mine in reasons.items() for id in mine}
    groups = {words: [one for one in missed if kinds.get(one.id, "") == kind] for kind, words in REASONS.items()}
    yield _table(("why", "breaks"), [(words, len(mine)) for words, mine in groups.items() if mine])
    yield from (f"`{id}`: {why}\n" for id, why in reasons.get(UNDETERMINED, {}).items() if found[id].exit_code == 2)
    for words, mine in groups.items():
        if mine:
            yield f"### {words[0].upper()}{words[1:]}\n"
            yield "\n".join(_why(one, found[one.id], reasons.get(kinds.get(one.id, ""), {})) for one in mine) + "\n"


def _why(one: Change, result: Result, sentences: Mapping[str, str]) -> str:
    checked = f"{result.cells} of the {result.of} cells of the default scope were checked."
    return " ".join(filter(None, [f"* `{one.id}` ({one.area}). {one.what} {checked}", sentences.get(one.id, "")]))


def _row(change: Change, result: Result) -> Sequence[object]:
    cells = str(result.cells) if result.cells == result.of else f"{result.cells} of {result.of}"
    seconds = f"{result.seconds:.0f}" + (f" ({result.beside} more in the same tree)" if result.beside else "")
    said = result.verdict or _said(result)
    return (f"`{change.id}`<br>{change.what}", change.area, cells, seconds, f"{result.cpu_s:.0f}", said, result.first,
            f"`{result.commit}`")  # fmt: skip


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(changes(), results(RESULTS), reasons()), encoding="utf-8")


if __name__ == "__main__":
    main()
