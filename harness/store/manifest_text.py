"""The text of a manifest: writes the present format, reads all formats (pure).

`harness.store.creator_file` describes the file in which a manifest of format 3 is one line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from harness.store.manifest import (
    FORMAT,
    OLDER,
    SHARED,
    BadFixture,
    Manifest,
    NewerFormat,
    StoredFile,
    stored_file,
)
from harness.worker.files import parse_json

ReadBlob = Callable[[StoredFile], bytes]
"""Returns the checked content of a blob; raises BadFixture."""


@dataclass(frozen=True)
class Place:
    """Where a manifest is stored.

    Attributes:
        line: in the creator's file, from 1; 0 if the manifest is a file of its own (formats 1 and 2).
        fix: what to do if the manifest cannot be used.
    """

    creator: str
    scenario: str
    file: Path
    line: int = 0
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else str(self.file)

    @property
    def next_step(self) -> str:
        """What to do if the manifest cannot be used."""
        again = f"create {self.creator}/{self.scenario} again with a reason to replace it"
        if not self.scenario:
            again = "remove this line, and create the fixture again that it was"
        return self.fix or f"restore it with `git restore {self.file}`, or {again}"

    def bad(self, found: str, expected: str = "a manifest as FORMAT.md describes it") -> BadFixture:
        """The error that says what is wrong at this place."""
        return BadFixture(f"{self}: {found}", expected, self.next_step)


def json_text(data: Any, *, indent: int | None = None) -> bytes:
    """JSON with sorted keys. Characters that are not Unicode (from a command line) are escaped."""
    separators = (",", ":") if indent is None else None
    text = json.dumps(data, indent=indent, separators=separators, sort_keys=True, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace")


def shared_text(data: Any) -> bytes:
    """The content of the blob that holds a shared value. It is the same in all formats, so that blobs are reused."""
    return json_text(data, indent=2) + b"\n"


def packed(manifest: Manifest) -> tuple[Manifest, bytes, dict[str, bytes]]:
    """The manifest as it will be read back, its text, and the blobs for the values that are not in the text."""
    data = manifest.model_dump()
    contents = {key: shared_text(data.pop(key)) for key in SHARED}
    shared = {key: stored_file(content) for key, content in contents.items()}
    data |= {"format": FORMAT, "shared": {key: stored.model_dump() for key, stored in shared.items()}}
    return manifest.model_copy(update={"format": FORMAT, "shared": shared}), json_text(data), contents


def parse(place: Place, text: bytes, read: ReadBlob) -> Manifest:
    """The checked manifest.

    Args:
        read: reads the blobs of shared values.

    Raises:
        NewerFormat: a later version of this project wrote it.
        BadFixture: it cannot be used.
    """
    try:
        data = parse_json(text)
    except ValueError as error:
        raise place.bad(f"not JSON ({len(text)} bytes): {error}", "a complete manifest") from error
    _check_format(place, data.get("format") if isinstance(data, dict) else None)
    data = _with_shared(place, data, read)
    if missing := sorted(set(Manifest.model_fields) - set(data)):
        raise place.bad(f"missing keys: {', '.join(missing)}", "all keys that FORMAT.md lists")
    return checked(place, data)


def _check_format(place: Place, number: object) -> None:
    if type(number) is int and number > FORMAT:
        raise NewerFormat(
            f"{place}: manifest format {number!r}",
            f"format {FORMAT}",
            "use the version of peft-regress that wrote it, or a later one",
        )
    if type(number) is not int or number not in (*OLDER, FORMAT):
        raise place.bad(f"manifest format {number!r}", f"format {FORMAT}")


def _with_shared(place: Place, data: dict[str, Any], read: ReadBlob) -> dict[str, Any]:
    """The manifest's data in the present format, with the shared values filled in."""
    whole = {"shared": {}, **data, "format": FORMAT}  # format 1 had no shared values
    try:
        shared = {key: StoredFile.model_validate(stored) for key, stored in whole["shared"].items()}
    except (AttributeError, pydantic.ValidationError) as error:
        raise place.bad(f"shared: {error}", "key → SHA-256 and size of a blob") from error
    if wrong := sorted(key for key in shared if key not in SHARED or key in data):
        raise place.bad(f"shared: {', '.join(wrong)}", f"only {', '.join(SHARED)}, each once")
    for key, stored in shared.items():
        try:
            whole[key] = parse_json(read(stored))
        except ValueError as error:
            raise place.bad(f"{key}: not JSON: {error}", "a blob with JSON") from error
    return whole


def checked(place: Place, data: Mapping[str, Any]) -> Manifest:
    """The manifest with this data.

    Raises:
        BadFixture: a value is not allowed, it is another fixture's, or it has no adapter or no golden.
    """
    try:
        manifest = Manifest.model_validate(data)
    except pydantic.ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise place.bad(wrong) from error
    if (manifest.creator, manifest.scenario) != (place.creator, place.scenario):
        raise place.bad(
            f"the manifest is of {manifest.creator}/{manifest.scenario}", f"one of {place.creator}/{place.scenario}"
        )
    has_adapter = any(name.startswith("adapter/") for name in manifest.files)
    if not (has_adapter and manifest.goldens and all(manifest.goldens.values())):
        raise place.bad("no adapter file, or no golden", "at least one file of each")
    return manifest
