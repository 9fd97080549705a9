"""What a fixture is: the manifest, and the names that it may hold."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pydantic

from harness.core.errors import HarnessError
from harness.core.model import Strict

FORMAT = 3
# The number of the manifest format. Fixtures are evidence and outlive this code. To add, rename or remove a key of
# `Manifest`, or to change the meaning of one:
#   1. raise FORMAT, and add the date and the change to "History" in fixtures/FORMAT.md;
#   2. make `manifest_text.parse` convert the data of every older format when it reads it, and `fixtures convert` when a
#      user asks for it; never drop an older format;
#   3. add one fixture of the old format, with its blobs, to tests/store/data, and a test that reads it.
# `parse` refuses a newer format by its number, because it cannot know what a newer one means.

OLDER = (1, 2)
"""Older formats, which are still read."""

BLOBS = "blobs"
PARTS = ("adapter", "base")
SHARED = ("facts", "resolved", "versions")
"""Keys whose values many fixtures have in common. They are stored once, as blobs."""


class NoFixture(HarnessError):
    """There is no such fixture."""


class BadFixture(HarnessError):
    """A fixture is damaged, unsafe, or in a format that this version does not read."""


class NewerFormat(BadFixture):
    """A later version of this project wrote the manifest."""


class StoredFile(Strict):
    """The content of one file. The digest is also the name of its blob."""

    sha256: str = pydantic.Field(pattern=r"^[0-9a-f]{64}$")
    size: int = pydantic.Field(ge=0)

    def __str__(self) -> str:
        return f"{self.size} bytes with SHA-256 {self.sha256}"


class Replacement(Strict):
    """One replacement of the fixture: when, why, and which manifest it replaced.

    `previous` is the SHA-256 of the text of the manifest before: in format 3 the `sha256` of its line, in formats 1
    and 2 the digest of its file.
    """

    date: str
    reason: str
    previous: str


class Circumstances(Strict):
    """How a golden was made that another process added later, usually on a GPU."""

    created: str
    lock_digest: str
    versions: dict[str, str]
    facts: dict[str, Any]
    standing_defects: list[str]
    unstable: bool


class Manifest(Strict):
    """What a fixture was made from, by what and where, and which files it consists of."""

    format: int = FORMAT
    scenario: str
    creator: str
    scenario_digest: str
    resolved: dict[str, Any]
    """The scenario as the worker got it. It can be run again even if `matrices/` changes."""
    lock_digest: str
    versions: dict[str, str]
    """Package → version, as found in the process."""
    facts: dict[str, Any]
    """Device, threads, processor, Python, platform, …"""
    files: dict[str, StoredFile] = {}
    """`adapter/…` and `base/…`, as the creator's library saved them."""
    goldens: dict[str, dict[str, StoredFile]] = {}
    """Device class → the creator's observation there."""
    standing_defects: list[str] = []
    unstable: bool = False
    created: str
    """ISO 8601 date, or date and time."""
    history: list[Replacement] = []
    elsewhere: dict[str, Circumstances] = {}
    """Device class → how its golden was made, if another process added it later."""
    shared: dict[str, StoredFile] = {}
    """Which of `SHARED` are stored as a blob, and which blob that is."""

    @pydantic.field_validator("scenario", "creator")
    @classmethod
    def _plain_part(cls, name: str) -> str:
        return checked_part(name)

    @pydantic.field_validator("files")
    @classmethod
    def _files_in_place(cls, files: dict[str, StoredFile]) -> dict[str, StoredFile]:
        for name in files:
            if len(parts := _checked_name(name).split("/")) < 2 or parts[0] not in PARTS:
                raise ValueError(f"{name!r} is not under adapter/ or base/")
        return _without_nesting(files)

    @pydantic.field_validator("goldens")
    @classmethod
    def _goldens_in_place(cls, goldens: dict[str, dict[str, StoredFile]]) -> dict[str, dict[str, StoredFile]]:
        for device_class, golden in goldens.items():
            checked_part(device_class)
            _without_nesting({_checked_name(name): stored for name, stored in golden.items()})
        return goldens

    @pydantic.field_validator("created")
    @classmethod
    def _iso(cls, created: str) -> str:
        datetime.fromisoformat(created)
        return created

    @property
    def weights_digest(self) -> str:
        """SHA-256 over the adapter's files, without model card and configuration, which contain version numbers."""
        card = ("adapter/README.md", "adapter/adapter_config.json")
        names = [name for name in sorted(self.files) if name.startswith("adapter/") and name not in card]
        lines = [f"{name}\0{self.files[name].sha256}\n" for name in names]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def seen_on(self, device_class: str) -> Manifest:
        """The manifest with versions, facts, defects and date of the process that made the golden of a device class."""
        elsewhere = self.elsewhere.get(device_class)
        return self.model_copy(update=dict(elsewhere)) if elsewhere else self

    def golden(self, device_class: str) -> dict[str, StoredFile]:
        """The files of the golden of a device class.

        Raises:
            NoFixture: there is no golden for it.
        """
        if device_class in self.goldens:
            return self.goldens[device_class]
        raise NoFixture(
            f"fixture {self.creator}/{self.scenario} has no golden for device class {device_class!r}",
            f"one of {', '.join(sorted(self.goldens)) or '(there is none)'}",
            "run `create` on that device: it adds a golden to the same fixture",
        )

    def laid_out(self, device_class: str) -> dict[str, StoredFile]:
        """All files as `materialise` writes them: `adapter/…`, `base/…` and `golden/…`."""
        golden = {f"golden/{name}": stored for name, stored in self.golden(device_class).items()}
        return {**self.files, **golden}

    def contents(self) -> Iterator[tuple[str, StoredFile]]:
        """Every blob that the manifest refers to, including the goldens of all device classes."""
        yield from self.files.items()
        yield from ((f"shared/{key}", stored) for key, stored in self.shared.items())
        for device_class, golden in self.goldens.items():
            yield from ((f"golden[{device_class}]/{name}", stored) for name, stored in golden.items())


def stored_file(data: bytes) -> StoredFile:
    """Size and SHA-256 of this content."""
    return StoredFile(sha256=hashlib.sha256(data).hexdigest(), size=len(data))


@functools.cache
def _checked_name(name: str) -> str:
    """The name, if it is a plain relative POSIX path; else ValueError with the reason."""
    if any(character in "\\:" or not character.isprintable() for character in name):
        raise ValueError(f"{name!r} contains a backslash, a colon or a character that does not print")
    for part in name.split("/"):
        if part in ("", ".", ".."):
            raise ValueError(f"{name!r} is not a plain relative path: it has a part {part!r}")
        if len(part.encode()) > 240:
            raise ValueError(f"a part of {name!r} is longer than 240 bytes")
    return name


def checked_part(name: str) -> str:
    """The name, if it can be one part of a path in a store; else ValueError with the reason."""
    if "/" in _checked_name(name) or name.startswith(".") or name.lower() == BLOBS:
        raise ValueError(f"{name!r} contains a slash, starts with a dot, or is {BLOBS!r}")
    return name


def _without_nesting(files: dict[str, StoredFile]) -> dict[str, StoredFile]:
    for name in files:
        if nested := next((other for other in files if other.startswith(f"{name}/")), None):
            raise ValueError(f"{name!r} would be a file and, because of {nested!r}, also a folder")
    return files
