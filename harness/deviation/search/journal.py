"""The journal of a search, one line per candidate: an interrupted search resumes from it, and it can be replayed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.core.errors import UsageError
from harness.core.files import append_lines
from harness.deviation.search.outcome import KIND_WORDS, Kind, Outcome, Seen, result_words
from harness.worker.files import parse_json, read_regular


@dataclass(frozen=True)
class Entry:
    """One candidate that was tried.

    Attributes:
        question: digest of the cell, its fixture and the worker's code.
        environment: digest of the candidate's packages.
        words: the candidate in words.
        kind: what `seen` says of the deviation in question. It is judged again when an entry is used again.
        built: True if its environment had to be built.
        times: how often the cell was tried; both ends are tried twice.
    """

    question: str
    environment: str
    words: str
    kind: Kind
    why: str
    verdict: str
    seconds: float
    built: bool
    seen: Seen
    day: str = ""
    times: int = 1

    @property
    def outcome(self) -> Outcome:
        """What was found."""
        return Outcome(self.kind, self.why, self.verdict)

    @property
    def shown(self) -> str:
        """What was found, for a person: `deviates (silent-wrong: lokr · layers: values differ)`."""
        return result_words(self.kind, self.verdict) + (f" ({self.why})" if self.why else "")


class Journal:
    """A file of entries. An incomplete last line, left by a killed process, is ignored.

    Args:
        path: the file; new entries are appended.
        replayed: another journal whose entries take precedence.
        anew: ignore the entries that the file has.

    Raises:
        UsageError: `replayed` has no entries.
    """

    def __init__(self, path: Path, replayed: Path | None = None, *, anew: bool = False) -> None:
        self.path = path
        self._known: dict[tuple[str, str], Entry] = {}
        for entry in [] if anew else read(path):
            self._known[entry.question, entry.environment] = entry
        if replayed is not None:
            entries = read(replayed)
            if not entries:
                raise UsageError(
                    f"{replayed} has no entries to replay", "a journal that blame or bisect wrote (*.jsonl)",
                    "check the path",
                )  # fmt: skip
            for entry in entries:
                self._known[entry.question, entry.environment] = entry

    def known(self, question: str, environment: str) -> Entry | None:
        """The entry of a candidate; None if it was not tried for this question."""
        return self._known.get((question, environment))

    def add(self, entry: Entry) -> None:
        """Append an entry. It is on disk when this returns."""
        self._known[entry.question, entry.environment] = entry
        append_lines(self.path, [json.dumps(asdict(entry))])


def read(path: Path) -> list[Entry]:
    """The entries of a journal; none if there is no such file."""
    try:
        lines = read_regular(path).splitlines()
    except FileNotFoundError:
        return []
    return [entry for entry in map(_entry, lines) if entry is not None]


def _entry(line: bytes) -> Entry | None:
    try:
        found: Any = parse_json(line)
        entry = Entry(**{**found, "seen": Seen.read(found["seen"])})
    except (ValueError, TypeError, KeyError):
        return None  # incomplete or of another format: the candidate is tried again
    return entry if entry.kind in KIND_WORDS else None
