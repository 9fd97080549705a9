"""One text file for each creator: a line for each fixture, sorted by scenario (pure).

A line is `{"scenario":"…","sha256":"…","manifest":{…}}`, in exactly this form. The scenario comes first, so that one
fixture is found without parsing the others. `sha256` is the digest of the manifest's text, so that any change is found.
A damaged line costs its own fixture only.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from harness.core.text import visible
from harness.store.manifest import checked_part
from harness.worker.files import parse_json

SUFFIX = ".jsonl"
CRLF = "its lines end with CR LF"
"""The problem of lines whose ends git or an editor changed. It is the same for each, so that it is reported once."""

_NAME = re.compile(rb'\{"scenario":("(?:[^"\\]|\\.)*")')
_START = re.compile(_NAME.pattern + rb',"sha256":"([0-9a-f]{64})","manifest":')
_CONFLICT_START, _CONFLICT_END = b"<<<<<<<", b">>>>>>>"
_MARKERS = (_CONFLICT_START, _CONFLICT_END, b"|||||||", b"=======")


@dataclass(frozen=True)
class Line:
    """One line of the file.

    Attributes:
        number: from 1.
        raw: the bytes, without the newline.
        scenario: the fixture that it belongs to; empty if the line does not say, or says no plain name.
        problem: why the line cannot be used; empty if nothing is known to be wrong.
    """

    number: int
    raw: bytes
    scenario: str = ""
    problem: str = ""

    def opened(self) -> tuple[bytes, str]:
        """(the manifest's text, "") if the line is complete and unaltered; else (the line, why it cannot be used)."""
        if self.problem:
            return self.raw, self.problem
        start = _START.match(self.raw)
        if start is None or not self.raw.endswith(b"}}"):
            return self.raw, f"not a complete line of a fixture ({len(self.raw)} bytes)"
        manifest = self.raw[start.end() : -1]
        if hashlib.sha256(manifest).hexdigest() != start[2].decode():
            return self.raw, "altered: the manifest's SHA-256 is not the one that the line states"
        return manifest, ""


@dataclass(frozen=True)
class CreatorFile:
    """The lines of a file, in the order of the file."""

    lines: tuple[Line, ...] = ()

    @cached_property
    def fixtures(self) -> Mapping[str, Line]:
        """Scenario → its line; of several lines for one scenario the first, with the problem."""
        return {line.scenario: line for line in reversed(self.lines) if line.scenario}

    @cached_property
    def strays(self) -> tuple[Line, ...]:
        """Lines that belong to no fixture: damaged ones, and the marks of a merge conflict."""
        return tuple(line for line in self.lines if not line.scenario)

    @property
    def text(self) -> bytes:
        """The text of the file."""
        return _joined([line.raw for line in self.lines])

    def put(self, scenario: str, manifest: bytes) -> CreatorFile:
        """The file with this manifest for the scenario. Damaged lines of other fixtures are kept."""
        new = line_of(scenario, manifest)
        kept = [line for line in self.lines if line.raw and line.scenario != scenario]
        at = next((i for i, line in enumerate(kept) if line.scenario > scenario), len(kept))
        return read(_joined([*(line.raw for line in kept[:at]), new, *(line.raw for line in kept[at:])]))


def line_of(scenario: str, manifest: bytes) -> bytes:
    """The line of a fixture, without the newline."""
    name = json.dumps(scenario, ensure_ascii=False).encode()
    digest = hashlib.sha256(manifest).hexdigest().encode()
    return b'{"scenario":' + name + b',"sha256":"' + digest + b'","manifest":' + manifest + b"}"


def read(text: bytes) -> CreatorFile:
    """The lines of a file, damaged or not. An empty file has one line, which is damaged."""
    lines = [Line(number, raw, _scenario_of(raw)) for number, raw in enumerate(_split(text), start=1)]
    for problem, numbers in _problems(lines):
        for number in numbers:
            lines[number - 1] = replace(lines[number - 1], problem=problem)
    return CreatorFile(tuple(lines))


def _split(text: bytes) -> list[bytes]:
    return text.removesuffix(b"\n").split(b"\n")


def _joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _scenario_of(raw: bytes) -> str:
    if not (match := _NAME.match(raw)):
        return ""
    try:
        return checked_part(parse_json(match[1]))
    except ValueError:  # not JSON, or a name that leads out of the store
        return ""


def _problems(lines: list[Line]) -> Iterator[tuple[str, list[int]]]:
    """(what is wrong, numbers of the lines) for what can be seen without reading the manifests."""
    yield CRLF, [line.number for line in lines if line.scenario and line.raw.endswith(b"\r")]
    of: dict[str, list[int]] = {}
    if len(lines) == 1 and not lines[0].raw:
        yield "the file is empty", [1]
        return
    for line in lines:
        if line.scenario:
            of.setdefault(line.scenario, []).append(line.number)
        else:
            yield _stray(line.raw), [line.number]
    for numbers in of.values():
        if len(numbers) > 1:
            yield f"lines {', '.join(map(str, numbers))} are of the same fixture", numbers
    for first, last in _conflicts(lines):
        yield f"in the unresolved merge conflict of lines {first} to {last}", list(range(first, last + 1))


def _stray(raw: bytes) -> str:
    if raw.startswith(_MARKERS):
        return "a mark of an unresolved merge conflict"
    if raw.startswith(codecs.BOM_UTF8):
        return "a byte order mark before the line"
    if named := _NAME.match(raw):
        return f"{visible(named[1][:60].decode('ascii', 'backslashreplace'))} cannot name a fixture"
    return "an empty line" if not raw else f"not a line of a fixture: {raw[:40]!r}{'…' if len(raw) > 40 else ''}"


def _conflicts(lines: list[Line]) -> Iterator[tuple[int, int]]:
    """First and last line of each merge conflict."""
    first = 0
    for line in lines:
        if line.raw.startswith(_CONFLICT_START):
            first = first or line.number
        elif line.raw.startswith(_CONFLICT_END) and first:
            yield first, line.number
            first = 0
