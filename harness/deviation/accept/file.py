"""Changes `matrices/expectations.toml` on disk: whole or not at all, and never over what somebody else wrote meanwhile.

Changes are made in the text (`harness.deviation.accept.toml_text`). The result is read as the program reads it and
compared before it is written: the entries that were there must be there, unchanged and in their order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import filelock

from harness.core.errors import HarnessError, UsageError
from harness.core.files import write_atomically
from harness.core.text import similar
from harness.deviation.accept import toml_text
from harness.judge import expectations as expect
from harness.judge.expectations import Expectation

LOCK = ".expectations.lock"
LOCK_TIMEOUT_S = 10.0


class Changed(HarnessError):
    """The file is not what it was when the change was made up; nothing was written."""


@dataclass(frozen=True)
class Snapshot:
    """The file as it was read."""

    path: Path
    text: str
    expectations: tuple[Expectation, ...]
    exists: bool = True

    @classmethod
    def of(cls, path: Path) -> Snapshot:
        """Read the file; an empty one where there is none.

        Raises:
            UsageError: it is damaged.
        """
        content = _content(path)
        if content is None:
            return cls(path, "", (), exists=False)
        return cls(path, content, expect.parse(content, path))

    def with_entries(self, entries: Sequence[str], beside: str | None = None) -> str:
        """The text with entries behind that of an id, or at the end.

        Raises:
            UsageError: the file is written in a way that can't be changed by a command.
        """
        at = next((index for index, one in enumerate(self.expectations) if one.id == beside), None)
        text = toml_text.inserted(self.text, entries, at)
        place = len(self.expectations) if at is None else at + 1
        found = self._read(text)
        end = place + len(found) - len(self.expectations)
        self._must_keep(found[:place] + found[end:], self.expectations)
        return text

    def without(self, id: str) -> str:
        """The text without an entry.

        Raises:
            UsageError: there is no such entry, or the file can't be changed by a command.
        """
        place = self._place(id)
        text = toml_text.removed(self.text, place)
        self._must_keep(self._read(text), self.expectations[:place] + self.expectations[place + 1 :])
        return text

    def renewed(self, id: str, expires: date) -> str:
        """The text with another date in an entry.

        Raises:
            UsageError: there is no such entry, or the file can't be changed by a command.
        """
        place = self._place(id)
        text = toml_text.renewed(self.text, place, expires)
        new = self.expectations[place].model_copy(update={"expires": expires})
        self._must_keep(self._read(text), (*self.expectations[:place], new, *self.expectations[place + 1 :]))
        return text

    def write(self, text: str) -> Snapshot:
        """Put the text in the file's place, if it still is what was read; the file as it is then.

        Raises:
            Changed: it is not.
            HarnessError: it can't be written; the old file is as it was.
        """
        with _locked(self.path):
            self._must_be_unchanged()
            try:
                target = self.path.resolve()  # through a link, to where it leads
                mode = target.stat().st_mode & 0o7777 if target.exists() else 0o644
                write_atomically(target, text.encode(), durable=True, mode=mode, last=self._must_be_unchanged)
            except OSError as error:
                raise HarnessError(
                    f"{self.path} can't be written: {error}; it is as it was",
                    "a folder with room and rights",
                    "make some, then run the same command again",
                ) from error
        return Snapshot.of(self.path)

    def _must_be_unchanged(self) -> None:
        now = _content(self.path)
        if (now is not None) != self.exists or (now or "") != self.text:
            raise Changed(
                f"{self.path} was changed by somebody else meanwhile; nothing was written",
                "the file as it was read",
                "run the same command again: it starts from the file as it is now",
            )

    def _place(self, id: str) -> int:
        places = {one.id: index for index, one in enumerate(self.expectations)}
        if id not in places:
            raise UsageError(
                f"{self.path}: there is no expectation {id!r}",
                f"one of {', '.join(similar(id, places) or list(places)[:5]) or 'those in the file, and it has none'}",
                "look for it in the file, or in what `check` says",
            )
        return places[id]

    def _read(self, text: str) -> tuple[Expectation, ...]:
        try:
            return expect.parse(text, self.path)
        except UsageError as error:
            raise self._unchangeable() from error

    def _must_keep(self, found: Sequence[Expectation], wanted: Sequence[Expectation]) -> None:
        if tuple(found) != tuple(wanted):
            raise self._unchangeable()

    def _unchangeable(self) -> UsageError:
        return UsageError(
            f"{self.path} is written in a way that can't be changed by a command; nothing was written",
            "expectations that each stand under a line `[[expectation]]`",
            "edit it by hand",
        )


def _content(path: Path) -> str | None:
    """The text with the line ends that it has; None where there is no file."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8: {error}", "a TOML file, which is UTF-8", "save it as UTF-8") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error}", "a readable TOML file", "check path and rights") from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time. The lock goes with its process, so that a killed one blocks nobody."""
    lock = path.parent / LOCK
    try:
        with filelock.FileLock(lock, timeout=LOCK_TIMEOUT_S):
            yield
    except filelock.Timeout as error:
        raise HarnessError(
            f"{lock}: another process has been changing the expectations for {LOCK_TIMEOUT_S:g} s",
            "one writer at a time, each for a moment",
            "look for a hanging peft-regress process, end it and try again",
        ) from error
    except OSError as error:
        raise HarnessError(
            f"{path.parent} can't be written to: {error}; nothing was changed",
            "a folder with room and rights", "make some, then run the same command again",
        ) from error  # fmt: skip
