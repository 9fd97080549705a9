"""The text of `matrices/expectations.toml`: an entry as a person would write it, and where it goes. Pure.

tomlkit reads the file with its comments and blank lines and writes it again, byte for byte as it was but for what was
changed; a file that it would write otherwise is refused. Whoever changes a file reads the result again and compares
(`harness.deviation.accept.file`).

tomlkit gives a comment or a blank line to the table before it, so what stands above an entry is at the end of the entry
before, or of the document. Hence an entry that is put in takes over the end of the one before it, and one that is taken
out hands its own end back.

Two things are ours, since tomlkit has no such layout: texts folded over several lines, and characters escaped that TOML
allows and no reader can see.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, TypeAlias

import tomlkit
from tomlkit.container import Container
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT, Comment, Item, Key, Whitespace

from harness.core.errors import UsageError
from harness.core.text import visible

WIDTH = 120
"""Columns that a line may take."""
_TABLES = "expectation"
_ORDER = (
    "id", "scenarios", "creators", "loaders", "devices", "noted", "verdict", "kinds", "issue", "reason", "expires",
    "since", "verified", "workaround",
)  # fmt: skip
_Body: TypeAlias = list[tuple[Key | None, Item]]
"""What tomlkit has of a table in the order of the file; comments and blank lines have no key."""


# -- writing ----------------------------------------------------------------------------------------------------------


def entry(fields: Mapping[str, Any], comment: str = "") -> str:
    """One `[[expectation]]`, laid out as those that are written by hand; ends with a line break.

    Args:
        fields: key → text, list of texts or date; absent where None.
        comment: what stands above it; its lines are wrapped, and nothing in them can end the comment.
    """
    wrapped = (textwrap.wrap(visible(part), WIDTH - 2, break_on_hyphens=False) for part in comment.splitlines())
    above = "".join(tomlkit.comment(line).as_string() for part in wrapped for line in part)
    table = tomlkit.table()
    for key in sorted((key for key in fields if fields[key] is not None), key=_ORDER.index):
        table.add(key, _item(fields[key], WIDTH - len(f"{key} = ")))
    tables = tomlkit.aot()
    tables.append(table)
    return above + tomlkit.document().add(_TABLES, tables).as_string()


def _item(value: Any, room: int) -> Item:
    """A value in one line where it has room there, else over several."""
    if isinstance(value, str):
        line = tomlkit.value(_escaped(value))
        return line if len(line.as_string()) <= room and "\n" not in value else _folded(value)
    if isinstance(value, date):
        return tomlkit.item(value)
    items = [tomlkit.value(_escaped(one)) for one in value]
    line = tomlkit.array()
    line.extend(items)
    return line if len(line.as_string()) <= room else _listed(items)


def _listed(items: Iterable[Item]) -> Item:
    array = tomlkit.array()
    for one in items:
        array.add_line(one, indent="  ")
    array.add_line(indent="")
    return array


def _escaped(value: str, multiline: bool = False) -> str:
    """The text as TOML, with its quotes; besides, no character is in the file that a reader could not see."""
    raw = tomlkit.string(value, multiline=multiline).as_string()
    return "".join(c if c.isprintable() else _seen(c) for c in raw)


def _seen(character: str) -> str:
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"


def _folded(value: str) -> Item:
    """The text within three quotes, over lines that end with a space and a backslash, which TOML reads as one."""
    quotes = '"""'
    parts = (_escaped(part, multiline=True).removeprefix(quotes).removesuffix(quotes) for part in value.split("\n"))
    return tomlkit.value(f"{quotes}\n" + "\n".join("\\\n".join(_lines(part)) for part in parts) + quotes)


def _lines(part: str) -> list[str]:
    """A line of text in pieces, each but the last with a space at its end and each but the first with none before it:
    TOML drops what stands before the first word of a line that continues one."""
    lines, line = [], ""
    for place, word in enumerate(part.split(" ")):
        line += " " if place else ""
        if word and line.endswith(" ") and len(line) + len(word) + len('"""') > WIDTH:
            lines.append(line)
            line = ""
        line += word
    return [*lines, line]


# -- changing a file --------------------------------------------------------------------------------------------------


class _File:
    """A file's entries, apart from the document until it is written: so what stands above an entry, the first one too,
    is at the end of some body. Bodies are changed as the lists that they are, and the document is good for one text."""

    def __init__(self, text: str) -> None:
        self._document = _parsed(text)
        self.entries = AoT([], parsed=True)  # as one that was read: else tomlkit adds blank lines of its own
        self._key: Key | None = None
        keys = [key for key, _ in self._document.body if key is not None]
        if keys:
            self._key, entries = self._document.body[-1]
            if len(keys) > 1 or not isinstance(entries, AoT):
                raise _unchangeable("its expectations are not each written as a table of their own")
            self.entries = entries
            del self._document.body[-1]

    def above(self, place: int) -> Container:
        """Where that is at the end which stands above an entry."""
        return self.entries[place - 1].value if place else self._document

    def insert(self, place: int, entries: AoT) -> None:
        """Put entries before that at a place."""
        for number, one in enumerate(entries):
            self.entries.insert(place + number, one)

    def text(self) -> str:
        """The file. Without an entry there is no key either: tomlkit would write an empty array."""
        if self.entries:
            self._document.body.append((self._key or tomlkit.key(_TABLES), self.entries))
        return tomlkit.dumps(self._document)


def inserted(text: str, entries: Sequence[str], after: int | None) -> str:
    """The file with entries behind one of its own, or at its end.

    Args:
        entries: as `entry` writes them.
        after: the place of that entry among the file's.

    Raises:
        UsageError: tomlkit can't change this file, or would change more of it.
    """
    file = _File(text)
    newline = "\r\n" if "\r\n" in text else "\n"
    new: Any = tomlkit.parse("\n".join(entries).replace("\n", newline))[_TABLES]
    place = len(file.entries) if after is None else after + 1
    above = file.above(place)
    below = [] if after is None else _cut(above.body)
    before = above.as_string()
    if before and not before.endswith("\n"):
        above.body.append((None, Whitespace(newline)))
    if before.removesuffix("\n").rpartition("\n")[2].strip():
        above.body.append((None, Whitespace(newline)))
    if (below or place < len(file.entries)) and not _is_blank(below, 0):
        new[-1].value.body.append((None, Whitespace(newline)))
    new[-1].value.body.extend(below)
    file.insert(place, new)
    return file.text()


def removed(text: str, place: int) -> str:
    """The file without an entry, the comment right above it, and one blank line of the two that would meet.

    A comment that opens the file stays: it is the file's.

    Raises:
        UsageError: tomlkit can't change this file, or would change more of it.
    """
    file = _File(text)
    below = _cut(file.entries[place].value.body)
    del file.entries[place]
    above = file.above(place).body
    start = len(above)
    while start and isinstance(above[start - 1][1], Comment):
        start -= 1
    if start:
        del above[start:]
    if _is_blank(below, 0) and (not above or _is_blank(above, -1)):
        below[0] = (None, Whitespace("".join(_blank_lines(below[0])[1:])))
    elif not below and place == len(file.entries) and _is_blank(above, -1):
        above[-1] = (None, Whitespace("".join(_blank_lines(above[-1])[:-1])))
    above.extend(below)
    return file.text()


def renewed(text: str, place: int, expires: date) -> str:
    """The file with another date in an entry.

    Raises:
        UsageError: tomlkit can't change this file, or would change more of it.
    """
    file = _File(text)
    file.entries[place]["expires"] = expires
    return file.text()


def _cut(body: _Body) -> _Body:
    """Take from an entry's body what is not its own: from the first blank line behind its last value on, or where there
    is none the comments, which then stand right above the next entry."""
    end = 1 + max(index for index, (key, _) in enumerate(body) if key is not None)
    end = next((index for index in range(end, len(body)) if _is_blank(body, index)), end)
    below = body[end:]
    del body[end:]
    return below


def _is_blank(body: _Body, place: int) -> bool:
    """True of blank lines, which tomlkit has as one item, however many they are; False of nothing."""
    return bool(body) and isinstance(body[place][1], Whitespace)


def _blank_lines(one: tuple[Key | None, Item]) -> list[str]:
    return one[1].as_string().splitlines(keepends=True)


def _parsed(text: str) -> tomlkit.TOMLDocument:
    try:
        document = tomlkit.parse(text)
    except TOMLKitError as error:
        raise _unchangeable(f"tomlkit can't read it: {error}") from error
    written = tomlkit.dumps(document)
    if written != text:
        pairs = enumerate(itertools.zip_longest(text.split("\n"), written.split("\n"), fillvalue=""), 1)
        number, (line, other) = next((number, pair) for number, pair in pairs if len({*pair}) > 1)
        raise _unchangeable(f"line {number} is {line!r}, and tomlkit would write {other!r}")
    return document


def _unchangeable(found: str) -> UsageError:
    return UsageError(
        f"the file can't be changed by a command: {found}; nothing was written",
        "expectations that each stand under a line `[[expectation]]`",
        "write them so, or edit the file by hand",
    )
