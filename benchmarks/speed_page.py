"""Writes docs/speed.md, and the table of figures in README.md, from benchmarks/speed.json.

python -m benchmarks.speed_page
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.speed import RESULTS, Figures, ratios
from harness.core import data

PAGE = data.root() / "docs" / "speed.md"
README = data.root() / "README.md"
_BEGIN, _END = "<!--speed-->", "<!--/speed-->"
_INTRO = """# Speed

How long a check takes, and how long it would have to take. `python -m benchmarks.speed` measures, and `python -m
benchmarks.speed_page` writes this page. The parts may be of several runs on one machine; the load at the end of a part
is given. A check of a change is measured twice: the first also computes the baseline where it is not remembered.
"""


def page(kept: Mapping[str, Any]) -> str:
    """The page, in Markdown."""
    parts: Mapping[str, Figures] = kept["parts"]
    ratio = [f"| {label} | {value:.2f} |" for label, value in ratios(parts).items()]
    lines = [_INTRO, f"Measured on {kept['day']}, {kept['cores']} cores.", "", *_head("ratio", ""), *ratio, ""]
    lines += [*_head("what", "seconds", "processor seconds", "cells", "note"), *_rows(parts), ""]
    if growth := parts.get("growth"):
        lines += ["## Growth", "", "The controller's own processor seconds, without the cells' compute:", ""]
        lines += _head("cells", "journal", "known breaks", "reports", "for 1,000 cells", "greatest memory")
        lines += [
            f"| {int(size):,} | {one['journal_s']:.2f} s | {one['breaks_s']:.2f} s | {one['reports_s']:.2f} s "
            f"| {one['seconds'] / int(size) * 1000:.2f} s | {one['peak_mb']:.0f} MB |"
            for size, one in sorted(growth.items(), key=lambda item: int(item[0]))
        ]
    return "\n".join(lines).rstrip() + "\n"


def table(kept: Mapping[str, Any]) -> str:
    """The README's table: what a user waits for, and the share of the first run."""
    parts: Mapping[str, Figures] = kept["parts"]
    first = parts["cold"]["seconds"]
    checks = {"PEFT 0.6.1's adapters": parts["cold"], "the same again": parts.get("memory")}
    checks |= {f"PR: {kind}": one for kind, one in parts.get("change", {}).items()}
    rows = [
        f"| {words} | {one['cells']:,} | {one['seconds']:.1f} | {one['seconds'] / first:.2f} |"
        for words, one in checks.items()
        if one
    ]
    return "\n".join([_BEGIN, *_head("[Check](docs/speed.md)", "adapters", "seconds", "÷ first"), *rows, _END])


def with_table(readme: str, kept: Mapping[str, Any]) -> str:
    """The README with its table renewed.

    Raises:
        ValueError: it has no place for it.
    """
    new, count = re.subn(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", lambda _: table(kept), readme, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"README.md has {count} places for the table of figures, expected one: {_BEGIN} … {_END}")
    return new


def _head(*names: str) -> list[str]:
    return [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]


def _rows(parts: Mapping[str, Figures]) -> Iterator[str]:
    for name, words in (("cold", "every cell computed"), ("memory", "every cell remembered")):
        if one := parts.get(name):
            note = f"load {one['load']:.1f}" if "load" in one else ""
            yield f"| {words} | {one['seconds']:.1f} | {one['cpu_s']:.1f} | {one['cells']:,} | {note} |"
    for kind, one in parts.get("change", {}).items():
        note = f"first {one['first_s']:.1f} s; exit {one['exit']}"
        yield f"| change: {kind} | {one['seconds']:.1f} | {one['cpu_s']:.1f} | {one['cells']:,} | {note} |"
    if one := parts.get("peft"):
        load = f"; load {one['load']:.1f}" if "load" in one else ""
        yield f"| a cell, median | {one['own_s']:.2f} | | {one['cells']} | {one['probes']:.0f} probes{load} |"
        yield f"| as PEFT's own tests do, median | {one['peft_s']:.2f} | | {one['cells']} | one forward pass |"


def main() -> None:
    """Write both."""
    kept = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(page(kept), encoding="utf-8")
    README.write_text(with_table(README.read_text(encoding="utf-8"), kept), encoding="utf-8")


if __name__ == "__main__":
    main()
