"""What a search has tried, a line a candidate: it resumes from there, and can be played again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.core.errors import UsageError
from harness.core.files import append_lines
from harness.deviation.search.outcome import Outcome

KINDS = ("good", "bad", "other", "untestable")


@dataclass(frozen=True)
class Entry:
    """One candidate that was tried.

    Attributes:
        question: digest of what was asked: the fixture, the worker's code, the deviation.
        environment: digest of the candidate's packages.
        words: what it is.
        built: True where its environment had to be built.
    """

    question: str
    environment: str
    words: str
    kind: str
    why: str
    verdict: str
    seconds: float
    built: bool
    day: str = ""

    @property
    def outcome(self) -> Outcome:
        """What became of it."""
        return Outcome(self.kind, self.why, self.verdict)  # type: ignore[arg-type]


class Journal:
    """A file of entries; a last line that was torn by a kill is passed over.

    Args:
        path: where entries are added.
        replayed: a journal to be played again; its entries are taken whatever the file at `path` has.
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
                    f"{replayed} holds nothing to be played again", "a journal that blame or bisect wrote (*.jsonl)",
                    "check the path",
                )  # fmt: skip
            for entry in entries:
                self._known[entry.question, entry.environment] = entry

    def known(self, question: str, environment: str) -> Entry | None:
        """What was found of a candidate before; None where it was not tried, or not for this question."""
        return self._known.get((question, environment))

    def add(self, entry: Entry) -> None:
        """Keep an entry; on disk before this returns."""
        self._known[entry.question, entry.environment] = entry
        append_lines(self.path, [json.dumps(asdict(entry))])


def read(path: Path) -> list[Entry]:
    """The entries of a journal; none where there is no such file."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return [entry for entry in map(_entry, lines) if entry is not None]


def _entry(line: bytes) -> Entry | None:
    try:
        found: Any = json.loads(line)
        entry = Entry(**found)
    except (ValueError, TypeError):
        return None  # torn, or of another format: it is tried again
    return entry if entry.kind in KINDS else None
