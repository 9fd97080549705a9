"""The text of `matrices/expectations.toml`: an entry as a person would write it, and where it goes. Pure.

Entries are spliced into the text, so that no comment, no order and no byte of anything else can change: what stands
before and after is copied, never written anew. Whoever splices reads the result again and compares
(`harness.expectation_file`).
"""

from __future__ import annotations

import json
import re
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from harness.errors import UsageError
from harness.report.text import visible

WIDTH = 120
"""Columns that a line may take."""
_ORDER = (
    "id", "scenarios", "creators", "loaders", "devices", "noted", "verdict", "kinds", "issue", "reason", "expires",
    "since", "verified", "workaround",
)  # fmt: skip
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_HEADER = re.compile(r"""^[ \t]*\[\[[ \t]*(?:expectation|"expectation"|'expectation')[ \t]*\]\][ \t]*(?:#.*)?$""")
_EXPIRES = re.compile(r"""^(?P<key>[ \t]*(?:expires|"expires"|'expires')[ \t]*=[ \t]*)(?P<date>\d{4}-\d\d-\d\d)""")


@dataclass(frozen=True)
class Span:
    """The lines of one entry in a file."""

    comment: int
    """The first line of the comment that stands right above it; its header where there is none."""
    header: int
    """The line with `[[expectation]]`."""
    end: int
    """The line after its last one."""


# -- writing ----------------------------------------------------------------------------------------------------------


def entry(fields: Mapping[str, Any], comment: str = "") -> str:
    """One `[[expectation]]`, laid out as those that are written by hand; ends with a line break.

    Args:
        fields: key → text, list of texts or date; absent where None.
        comment: what stands above it; its lines are wrapped, and nothing in them can end the comment.
    """
    wrapped = (textwrap.wrap(visible(part), WIDTH - 2, break_on_hyphens=False) for part in comment.splitlines())
    lines = [*(f"# {line}" for part in wrapped for line in part), "[[expectation]]"]
    keys = sorted((key for key in fields if fields[key] is not None), key=_ORDER.index)
    return "\n".join([*lines, *(_line(key, fields[key]) for key in keys)]) + "\n"


def _line(key: str, value: Any) -> str:
    if isinstance(value, date):
        return f"{key} = {value.isoformat()}"
    if isinstance(value, str):
        return _text(key, value)
    items = [quoted(item) for item in value]
    line = f"{key} = [{', '.join(items)}]"
    return line if len(line) <= WIDTH else f"{key} = [\n" + "".join(f"  {item},\n" for item in items) + "]"


def _text(key: str, value: str) -> str:
    line = f"{key} = {quoted(value)}"
    if len(line) <= WIDTH and "\n" not in value:
        return line
    return f'{key} = """\n' + "\n".join(_folded(_escaped(part)) for part in value.split("\n")) + '"""'


def quoted(value: str) -> str:
    """A TOML basic string. JSON's are the same; besides, no character is in the file that a reader could not see."""
    return "".join(c if c.isprintable() else _seen(c) for c in json.dumps(value, ensure_ascii=False))


def _seen(character: str) -> str:
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"


def _escaped(value: str) -> str:
    """Text for within three quotes: never two quotes in a row, and none at the end."""
    return re.sub(r'\\"(?!\\"|$)', '"', quoted(value)[1:-1])


def _folded(value: str) -> str:
    """The text over lines that end with a space and a backslash, which TOML reads as one."""
    lines, line = [], ""
    for word in re.findall(r"\S*\s*", value):
        if line.endswith(" ") and len(line) + len(word.rstrip()) + len('"""') > WIDTH:
            lines.append(f"{line}\\")
            line = ""
        line += word
    return "\n".join([*lines, line])


# -- splicing ---------------------------------------------------------------------------------------------------------


def spans(text: str, count: int) -> tuple[Span, ...]:
    """Where each entry of a file stands.

    Args:
        count: how many entries the file has, as a parser of TOML tells.

    Raises:
        UsageError: they are not written as `[[expectation]]` tables.
    """
    lines = _LINE.findall(text)
    headers = [index for index, line in enumerate(lines) if _HEADER.match(line.rstrip("\r\n"))]
    if len(headers) != count:  # what looks like a header may stand in a text over several lines
        headers = [index for index in headers if _whole("".join(lines[:index]))]
    if len(headers) != count:
        raise UsageError(
            f"of {count} expectations, {len(headers)} are written as a table of their own",
            "each under a line `[[expectation]]`", "write those of an inline array so, or edit the file by hand",
        )  # fmt: skip
    ends = [*headers[1:], len(lines)]
    return tuple(_span(lines, header, end) for header, end in zip(headers, ends, strict=False))


def _whole(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _span(lines: Sequence[str], header: int, following: int) -> Span:
    """An entry's lines: up to the blank line, or to the next one's comment, that stands behind its last value."""
    end = following
    while end > header + 1 and _is_aside(lines[end - 1]):
        end -= 1
    blank = next((index for index in range(end, following) if not lines[index].strip()), None)
    end = end if blank is None else blank
    comment = header
    while comment > 0 and lines[comment - 1].lstrip().startswith("#"):
        comment -= 1
    return Span(comment, header, end)


def _is_aside(line: str) -> bool:
    """True of blank lines and comments; a line with three quotes may be the end of a text."""
    line = line.strip()
    return not line or (line.startswith("#") and '"""' not in line and "'''" not in line)


def inserted(text: str, entries: Sequence[str], after: Span | None) -> str:
    """The file with entries behind one of its own, or at its end."""
    lines = _LINE.findall(text)
    at = len(lines) if after is None else after.end
    before, behind = "".join(lines[:at]), "".join(lines[at:])
    new = "\n".join(entries)
    if before and not before.endswith("\n"):
        new = "\n" + new
    if before.strip() and lines[at - 1].strip():
        new = "\n" + new
    if behind and behind.strip() and _LINE.findall(behind)[0].strip():
        new += "\n"
    return before + (new.replace("\n", "\r\n") if "\r\n" in text else new) + behind


def removed(text: str, span: Span) -> str:
    """The file without an entry, the comment right above it, and one blank line of the two that would meet.

    A comment that opens the file stays: it is the file's.
    """
    lines = _LINE.findall(text)
    start, end = span.comment or span.header, span.end
    if end < len(lines) and not lines[end].strip() and (start == 0 or not lines[start - 1].strip()):
        end += 1
    elif end == len(lines) and start > 0 and not lines[start - 1].strip():
        start -= 1
    return "".join(lines[:start] + lines[end:])


def renewed(text: str, span: Span, expires: date) -> str:
    """The file with another date in an entry."""
    lines = _LINE.findall(text)
    for index in range(span.header, span.end):
        if found := _EXPIRES.match(lines[index]):
            lines[index] = f"{found['key']}{expires.isoformat()}{lines[index][found.end() :]}"
    return "".join(lines)
