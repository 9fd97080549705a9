"""The README of a repro: what deviates, by how much, between which versions, and how to see it (pure)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from harness.core.run import Cell, Finding
from harness.deviation.repro import pins
from harness.deviation.repro.aspects import Aspect
from harness.deviation.repro.pins import Pinned

_ROWS = 6
_LINES = 20


@dataclass(frozen=True)
class Ran:
    """The result of running the two scripts.

    Attributes:
        shown: True if they show the deviation.
        before: output of `before.py`; likewise `after`.
        why_not: why they do not show it, or were not run.
    """

    shown: bool
    before: str = ""
    after: str = ""
    code_before: int = 0
    code_after: int = 0
    why_not: str = ""


def text(
    cell: Cell, finding: Finding | None, aspect: Aspect, before: Pinned, after: Pinned, ran: Ran | None,
    digests: Mapping[str, str], hub: str = "",
) -> str:  # fmt: skip
    """The whole file.

    Args:
        finding: the cell's main finding.
        ran: None if the scripts were not run.
        digests: file → SHA-256.
        hub: the Hub model that the scripts fetch; empty if the base is in the folder.
    """
    method = cell.method or "PEFT"
    lines = [f"# {_title(cell, method, before, after)}", "", _said(cell, finding), ""]
    lines += [f"What the scripts compare: {aspect.title}.", ""]
    lines += _issue(cell)
    lines += ["| package | before | after |", "|---|---|---|"]
    rows = pins.differing(before, after)
    lines += [f"| {name} | {old} | {new} |" for name, old, new in rows[:_ROWS]]
    if len(rows) > _ROWS:
        lines.append(f"| {len(rows) - _ROWS} more | see `requirements-before.txt` | see `requirements-after.txt` |")
    lines += [f"| Python | {before.python} | {after.python} |", ""]
    lines += _how(before, after, aspect, hub)
    lines += _outcome(ran)
    lines += ["## Files", "", *_files(hub), "", "```", *_digests(digests), "```"]
    return "\n".join(lines) + "\n"


def _title(cell: Cell, method: str, before: Pinned, after: Pinned) -> str:
    old, new = (side.versions.get("peft", "?") for side in (before, after))
    versions = f"saved by PEFT {old}, loaded by PEFT {new}" if old != new else f"PEFT {old}, other libraries"
    return f"{method} adapter ({cell.scenario}), {versions}"


def _said(cell: Cell, finding: Finding | None) -> str:
    if finding is None:
        found = f"{cell.error.type}: {cell.error.message}" if cell.error else cell.reason or str(cell.verdict)
        return f"{_sentence(found)}"
    sizes = ""
    if (figures := finding.figures) and figures.is_size:
        sizes = (f" The greatest difference is {figures.max_abs:.3g}; rounding explains at most"
                 f" {figures.allowance:.1g} (values are about {figures.scale:.2g}).")  # fmt: skip
    details = f" For example: {', '.join(f'`{d}`' for d in finding.details[:3])}." if finding.details else ""
    return f"{_sentence(finding.message)}{sizes}{details}"


_PLAINLY = (
    (re.compile(r"the (?:load path|door) [\w-]+ \(([^)]*)\)"), r"`\1`"),
    (
        re.compile(r"\bthe creator's own library\b|\bthe creator's library\b|\bthe creator\b"),
        "the libraries that saved it",
    ),
    (re.compile(r"\bthe loader\b"), "the newer libraries"),
    (re.compile(r"\bthe golden's\b"), "the original"),
)
"""Words of this project → words for a reader who does not know it."""


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    for pattern, words in _PLAINLY:
        text = pattern.sub(words, text)
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _issue(cell: Cell) -> list[str]:
    if not cell.expectation_issue:
        return []
    reason = " ".join(cell.expectation_reason.split())
    return [f"This is a known issue: <{cell.expectation_issue}>. {reason}", ""]


def _how(before: Pinned, after: Pinned, aspect: Aspect, hub: str) -> list[str]:
    ends = f"`after.py` raises `{aspect.raises}`" if aspect.raises else "`after.py` exits with 1"
    if aspect.dies:
        ends = "the process of `after.py` dies or hangs"
    fetched = f" The base `{hub}` is fetched from the Hub." if hub else ""
    return [
        "## Run it", "", "```sh",
        f"python{before.short_python} -m venv before && before/bin/pip install -r requirements-before.txt",
        f"python{after.short_python} -m venv after && after/bin/pip install -r requirements-after.txt",
        "before/bin/python before.py", "after/bin/python after.py", "```", "",
        f"Run both scripts in this folder. If the deviation shows, {ends}; otherwise it exits with 0.{fetched}",
        "A CPU build of Torch is sufficient.", "",
    ]  # fmt: skip


def _outcome(ran: Ran | None) -> list[str]:
    if ran is None:
        return ["**The scripts were not run when this folder was made.**", ""]
    lines = []
    if not ran.shown:
        lines += [f"**The scripts do not show the deviation: {ran.why_not}.** It was observed in another way. Do not "
                  "pass this folder on.", ""]  # fmt: skip
    if ran.before or ran.after:
        lines += ["Output:", "", "```"]
        lines += ["$ before/bin/python before.py", *_tail(ran.before), f"(exit code {ran.code_before})"]
        lines += ["$ after/bin/python after.py", *_tail(ran.after), f"(exit code {ran.code_after})", "```", ""]
    return lines


def _tail(said: str) -> list[str]:
    lines = said.rstrip().splitlines()
    return ["…", *lines[-_LINES:]] if len(lines) > _LINES else lines


def _files(hub: str) -> list[str]:
    base = [] if hub else ["- `base/`: a tiny base model, saved by the same libraries"]
    return [
        "- `before.py`, `after.py`: the two scripts; `before.py` saves its results in `before.pt`",
        "- `requirements-before.txt`, `requirements-after.txt`: the libraries for each, pinned",
        "- `adapter/`: the adapter, saved by the libraries in `requirements-before.txt`",
        *base, "", "SHA-256:",
    ]  # fmt: skip


def _digests(digests: Mapping[str, str]) -> list[str]:
    return [f"{digest}  {name}" for name, digest in sorted(digests.items())]
