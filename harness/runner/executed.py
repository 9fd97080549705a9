"""What a cell executed of the libraries: which functions ran, and which modules its process had imported.

A cell whose process ran none of the changed functions, and imported none of the modules with another change, observes
under a change what it observed before. The worker records it (`harness/worker/serve/executed.py`).

The memory keeps it in some kilobytes: the code of an environment is numbered, and a cell's trace is a set of numbers.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.worker.files import parse_json, read_regular
from harness.worker.shared import EXECUTED

_LARGEST = 64 << 20
"""Bytes of a trace that a worker wrote, and of one that is unpacked."""
SOURCE = (0, "<source>")
"""In the place of a function: the file was read as text, so that all of it counts."""
Code = tuple[str, int, str]
"""File, first line and name of a code object; for an imported module 0 and an empty name."""


@dataclass(frozen=True)
class Executed:
    """The code of the libraries that a cell executed.

    Files are relative to the site-packages that they are imported from, with `/`. The standard library, torch and the
    worker are left out.

    Attributes:
        functions: file → first line (that of the first decorator) and name of each function, method, lambda and class
            in a function that ran: in the cell, or before in its process, when libraries were imported. Or `SOURCE`.
        imported: the files of all modules that the cell's process had imported.
    """

    functions: Mapping[str, frozenset[tuple[int, str]]]
    imported: frozenset[str]


@dataclass(frozen=True)
class Trace:
    """What was recorded of one cell.

    Attributes:
        executed: None where it cannot be recorded.
        why: why it cannot.
    """

    executed: Executed | None
    why: str = ""


def read(folder: Path) -> Trace | None:
    """What a worker recorded in a cell's folder; None if it recorded nothing, or if something else is there."""
    try:
        said = parse_json(read_regular(folder / EXECUTED, _LARGEST, links=False))
        if said["why"]:
            return Trace(None, str(said["why"])[:200])
        functions = {
            str(file): frozenset((int(line), str(name)) for line, name in codes)
            for file, codes in said["functions"].items()
        }
        return Trace(Executed(functions, frozenset(map(str, said["imported"]))))
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return None


def united(traces: Iterable[Trace | None]) -> Trace | None:
    """What several cells executed in all; None if it was not recorded of one of them."""
    functions: dict[str, frozenset[tuple[int, str]]] = {}
    imported: frozenset[str] = frozenset()
    for trace in traces:
        if trace is None or trace.executed is None:
            return trace
        for file, codes in trace.executed.functions.items():
            functions[file] = functions.get(file, frozenset()) | codes
        imported |= trace.executed.imported
    return Trace(Executed(functions, imported))


class Numbers:
    """The code of an environment, numbered in the order in which it was first seen."""

    def __init__(self, content: bytes = b"") -> None:
        """Read what `encoded` gave.

        Raises:
            ValueError: it is something else.
        """
        said = _unpacked(content) if content else []
        if not isinstance(said, list) or not all(map(_is_code, said)):
            raise ValueError("no numbered code")
        self._codes: list[Code] = [(file, line, name) for file, line, name in said]
        self._number = {code: number for number, code in enumerate(self._codes)}
        self._of_files: tuple[frozenset[str], Any] = (frozenset(), None)

    def __len__(self) -> int:
        return len(self._codes)

    def encoded(self) -> bytes:
        """All code, for the memory."""
        return _packed(self._codes)

    def encode(self, executed: Executed) -> bytes:
        """A trace as a set of numbers. Code that is new gets the next ones."""
        numbers = [self._of(code) for code in _codes(executed)]
        bits = np.zeros(len(self._codes), dtype=np.uint8)
        bits[numbers] = 1
        return zlib.compress(np.packbits(bits, bitorder="little").tobytes(), 9)

    def decode(self, content: bytes, files: Collection[str] | None = None) -> Executed:
        """The trace that `encode` gave.

        Args:
            files: only what is in these files; None for all.

        Raises:
            ValueError: it is none, or has numbers that no code has.
        """
        packed = np.frombuffer(_inflated(content), dtype=np.uint8)
        numbers = np.unpackbits(packed, bitorder="little").nonzero()[0]
        if len(numbers) and int(numbers[-1]) >= len(self._codes):
            raise ValueError("a trace has numbers that no code has")
        if files is not None:
            numbers = numbers[np.isin(numbers, self._within(frozenset(files)), assume_unique=True)]
        functions: dict[str, set[tuple[int, str]]] = {}
        imported: set[str] = set()
        for file, line, name in (self._codes[number] for number in numbers):
            if name:
                functions.setdefault(file, set()).add((line, name))
            else:
                imported.add(file)
        return Executed({file: frozenset(codes) for file, codes in functions.items()}, frozenset(imported))

    def _of(self, code: Code) -> int:
        number = self._number.setdefault(code, len(self._codes))
        if number == len(self._codes):
            self._codes.append(code)
        return number

    def _within(self, files: frozenset[str]) -> Any:
        if self._of_files[0] != files or self._of_files[1] is None:
            within = [number for number, (file, _, _) in enumerate(self._codes) if file in files]
            self._of_files = files, np.array(within, dtype=np.int64)
        return self._of_files[1]


def digest(*parts: str | bytes) -> str:
    """SHA-256 of what the memory keeps of a trace."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part if isinstance(part, bytes) else part.encode() + b"\0")
    return whole.hexdigest()


def _codes(executed: Executed) -> Iterable[Code]:
    for file in sorted(executed.imported):
        yield file, 0, ""
    for file, codes in sorted(executed.functions.items()):
        for line, name in sorted(codes):
            yield file, line, name


def _is_code(one: Any) -> bool:
    return isinstance(one, list) and list(map(type, one)) == [str, int, str]


def _packed(said: Any) -> bytes:
    return zlib.compress(json.dumps(said, separators=(",", ":")).encode(), 9)


def _unpacked(content: bytes) -> Any:
    return parse_json(_inflated(content))


def _inflated(content: bytes) -> bytes:
    """Uncompressed content.

    Raises:
        ValueError: it is damaged, or larger than any trace.
    """
    one = zlib.decompressobj()
    try:
        data = one.decompress(content, _LARGEST)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not one.eof:
        raise ValueError("a trace is cut short")
    return data
