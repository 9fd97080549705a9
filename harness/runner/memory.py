"""A memory of observations: what a loader observed of a fixture is computed once.

A replay repeats to the bit, so an observation depends on the environment, the fixture, the scenario, the settings, the
worker's code and the machine's processor only. These are its key. Verdicts are not kept: a change of the judge judges
anew without computing.

The memory is one SQLite file in the cache. SQLite comes with Python, serves several processes, and survives one that is
killed. `diskcache` is SQLite with pickles, and nobody maintains it; LMDB needs a fixed map size and a compiled package.
Whatever is wrong with the file, the result is a cell that is computed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core import observation
from harness.core.errors import HarnessError
from harness.core.observation import Array, Observed
from harness.core.progress import Log, quiet
from harness.runner.executed import Numbers, Trace, digest

FORMAT = 1
"""Raise it when the tables or the content of an entry change. The file of another format is not read; `env gc` deletes
it."""
FOLDER = "observations"
"""The memory's folder in the cache."""
LIMIT = 2 << 30
"""Bytes of content. Beyond it, the entries that were not used for the longest time are deleted."""
_KEPT = 0.8
"""The share of the limit that is left then, so that this is rare."""
_BUSY_S = 20.0
_TABLES = """
    CREATE TABLE IF NOT EXISTS observation (
        key TEXT PRIMARY KEY, about TEXT, computed TEXT, used REAL, same_as TEXT, seconds REAL, sha256 TEXT,
        content BLOB
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS environment (key TEXT PRIMARY KEY, facts TEXT) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS executed (
        key TEXT PRIMARY KEY, environment TEXT, why TEXT, sha256 TEXT, content BLOB
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS code (environment TEXT PRIMARY KEY, sha256 TEXT, content BLOB) WITHOUT ROWID;
    CREATE TRIGGER IF NOT EXISTS without_its_observation AFTER DELETE ON observation
        BEGIN DELETE FROM executed WHERE key = old.key; END;
"""
_CONTENT = "(SELECT content FROM observation UNION ALL SELECT content FROM executed UNION ALL SELECT content FROM code)"


@dataclass(frozen=True)
class Entry:
    """An observation to keep.

    Attributes:
        about: the cell, for readers of the file.
        computed: the time in UTC.
        same_as: the cell whose replay observed it, if it was another one.
        seconds: what it took the worker.
        content: the observation, with references to equal arrays of the golden.
    """

    key: str
    about: str
    computed: str
    same_as: str
    seconds: float
    content: bytes


@dataclass(frozen=True)
class Known:
    """An observation that the memory has."""

    observed: Observed
    computed: str
    same_as: str
    seconds: float


class Memory:
    """The memory in a folder; all threads of a process share one.

    Args:
        log: called once if the memory cannot be used.
    """

    def __init__(self, folder: Path, *, limit: int = LIMIT, log: Log = quiet) -> None:
        self.path = folder / f"observations-{FORMAT}.sqlite"
        self._limit = limit
        self._log = log
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._used: set[str] = set()
        self._numbers: dict[str, Numbers] = {}
        self._failed = False

    def recall(self, key: str, golden: Mapping[str, Array]) -> Known | None:
        """The observation of a key; None if there is none, or if it is damaged.

        Args:
            golden: the arrays of the golden that the entry may refer to.
        """
        query = "SELECT content, sha256, computed, same_as, seconds FROM observation WHERE key = ?"
        rows = self._ask(lambda db: db.execute(query, (key,)).fetchall())
        for content, sha256, computed, same_as, seconds in rows or ():
            if isinstance(content, bytes) and hashlib.sha256(content).hexdigest() == sha256:
                with contextlib.suppress(HarnessError):
                    observed = observation.decoded(content, golden)
                    self._used.add(key)
                    return Known(observed, str(computed), str(same_as), float(seconds))
            self.forget(key)
        return None

    def keep(
        self, entries: Sequence[Entry], facts: Mapping[str, Mapping[str, Any]], environment: str = "",
        traces: Mapping[str, Trace] | None = None,
    ) -> None:  # fmt: skip
        """Keep observations with the traces of some, and what workers said of their environments.

        Args:
            facts: key of an environment → what its worker said.
            environment: the key of the environment that was traced.
            traces: by the key of the observation.
        """
        now = time.time()
        rows = [
            (e.key, e.about, e.computed, now, e.same_as, e.seconds, hashlib.sha256(e.content).hexdigest(), e.content)
            for e in entries
        ]
        said = [(key, json.dumps(dict(what))) for key, what in facts.items()]

        def write(db: sqlite3.Connection) -> None:
            db.executemany("INSERT OR REPLACE INTO observation VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            db.executemany("INSERT OR REPLACE INTO environment VALUES (?, ?)", said)
            if traces:
                _keep_traces(db, environment, traces)

        self._ask(write)

    def traces(self, keys: Iterable[str], files: Collection[str] | None = None) -> dict[str, Trace]:
        """The traces of those of these keys that have one. One that is damaged is deleted.

        Args:
            files: only what is in these files; None for all.
        """
        if not self.path.exists():
            return {}
        asked = json.dumps(list(keys))
        rows, numbers = self._ask(lambda db: _read_traces(db, asked, self._numbers)) or ((), {})
        found, damaged = dict[str, Trace](), list[tuple[str]]()
        for key, environment, why, sha256, content in rows:
            try:
                if digest(key, environment, why, content) != sha256:
                    raise ValueError("a trace is damaged")
                found[key] = Trace(None, why) if why else Trace(numbers[environment].decode(content, files))
            except (ValueError, TypeError, AttributeError, KeyError):
                damaged.append((key,))
        if damaged:
            self._ask(lambda db: db.executemany("DELETE FROM executed WHERE key = ?", damaged))
        return found

    def facts(self, environment: str) -> Mapping[str, Any]:
        """What the worker of an environment said of itself; empty if that is not known."""
        query = "SELECT facts FROM environment WHERE key = ?"
        rows = self._ask(lambda db: db.execute(query, (environment,)).fetchall())
        with contextlib.suppress(ValueError, TypeError):
            for (text,) in rows or ():
                said = json.loads(text)
                return said if isinstance(said, dict) else {}
        return {}

    def forget(self, key: str) -> None:
        """Delete an entry."""
        self._ask(lambda db: db.execute("DELETE FROM observation WHERE key = ?", (key,)))

    def entries(self, keys: Iterable[str]) -> list[Entry]:
        """The entries of those of these keys that have one, without damaged ones."""
        if not self.path.exists():
            return []
        query = "SELECT key, about, computed, same_as, seconds, content, sha256 FROM observation WHERE key = ?"
        rows = self._ask(lambda db: [row for key in keys for row in db.execute(query, (key,))])
        return [Entry(*row) for *row, sha256 in rows or () if hashlib.sha256(row[-1]).hexdigest() == sha256]

    def which(self, keys: Iterable[str]) -> set[str]:
        """Those of these keys that have an entry."""
        if not self.path.exists():
            return set()
        query = "SELECT key FROM observation WHERE key = ?"
        rows = self._ask(lambda db: [row for key in keys for row in db.execute(query, (key,))])
        return {str(key) for (key,) in rows or ()}

    def size(self) -> tuple[int, int]:
        """The number of entries, and their bytes."""
        if not self.path.exists():
            return 0, 0
        query = f"SELECT (SELECT count(*) FROM observation), coalesce(sum(length(content)), 0) FROM {_CONTENT}"
        rows = self._ask(lambda db: db.execute(query).fetchall())
        return (int(rows[0][0]), int(rows[0][1])) if rows else (0, 0)

    def close(self) -> None:
        """Record what was used, delete what is too much, and close the file."""
        if self._connection is None:
            return
        if os.access(self.path.parent, os.W_OK):
            now, used = time.time(), [(key,) for key in self._used]
            self._ask(lambda db: db.executemany(f"UPDATE observation SET used = {now!r} WHERE key = ?", used))
            self._ask(self._shrink)
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _shrink(self, db: sqlite3.Connection) -> None:
        (total,) = db.execute(f"SELECT coalesce(sum(length(content)), 0) FROM {_CONTENT}").fetchone()
        if total <= self._limit:
            return
        sizes = db.execute(
            """SELECT key, length(observation.content) + coalesce(length(executed.content), 0)
            FROM observation LEFT JOIN executed USING (key) ORDER BY used"""
        ).fetchall()
        for key, size in sizes:
            if total <= self._limit * _KEPT:
                break
            db.execute("DELETE FROM observation WHERE key = ?", (key,))
            total -= size
        db.execute("DELETE FROM code WHERE environment NOT IN (SELECT environment FROM executed)")

    def _ask(self, ask: Callable[[sqlite3.Connection], Any]) -> Any:
        """What a query gives; None if the file cannot be used. A damaged file is replaced."""
        with self._lock:
            for _ in range(2):
                try:
                    with self._transaction() as db:
                        return ask(db)
                except sqlite3.OperationalError as error:  # full, locked, read-only
                    if not re.search("no such (table|column)|has no column|columns but", str(error)):
                        return self._unusable(error)
                    self._replace()  # a database of another program
                except sqlite3.DatabaseError:
                    self._replace()
                except OSError as error:
                    return self._unusable(error)
        return None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self._connection is None:
            self._connection = self._read_only() or self._opened()
        with self._connection:
            yield self._connection

    def _opened(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=_BUSY_S, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_TABLES)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _read_only(self) -> sqlite3.Connection | None:
        """The memory of a cache that nobody can write to, such as a mounted one; None if this one is not."""
        folder = self.path.parent
        if not self.path.is_file() or os.access(folder, os.W_OK):
            return None
        place = f"{self.path.absolute().as_uri()}?mode=ro&immutable=1"
        return sqlite3.connect(place, uri=True, check_same_thread=False)

    def _replace(self) -> None:
        """Delete the file, which is damaged or no database."""
        connection, self._connection = self._connection, None
        with contextlib.suppress(sqlite3.Error):
            if connection is not None:
                connection.close()
        for path in (self.path, *(self.path.with_name(self.path.name + end) for end in ("-wal", "-shm"))):
            with contextlib.suppress(OSError):
                path.unlink()

    def _unusable(self, error: Exception) -> None:
        if not self._failed:
            self._failed = True
            self._log(f"{self.path}: {error}; what is computed now is not remembered")


def _keep_traces(db: sqlite3.Connection, environment: str, traces: Mapping[str, Trace]) -> None:
    """Number the code that is new, and keep the traces."""
    db.execute("INSERT OR IGNORE INTO code VALUES (?, '', '')", (environment,))  # locks the file before it is read
    numbers = _read_numbers(db, environment)
    if not len(numbers):
        db.execute(
            "DELETE FROM executed WHERE environment = ? AND why = ''", (environment,)
        )  # they have numbers that are lost
    before = len(numbers)
    for key, trace in traces.items():
        content = numbers.encode(trace.executed) if trace.executed else b""
        row = (key, environment, trace.why, digest(key, environment, trace.why, content), content)
        db.execute("INSERT OR REPLACE INTO executed VALUES (?, ?, ?, ?, ?)", row)
    if len(numbers) > before:
        code = numbers.encoded()
        db.execute("INSERT OR REPLACE INTO code VALUES (?, ?, ?)", (environment, digest(code), code))


def _read_traces(
    db: sqlite3.Connection, keys: str, known: dict[str, Numbers]
) -> tuple[list[tuple[Any, ...]], dict[str, Numbers]]:
    """The rows of these keys, a list in JSON, and the numbered code of their environments.

    Args:
        known: what was read before, by its digest.
    """
    db.execute("BEGIN")  # both as they are at one moment
    rows = db.execute("SELECT * FROM executed WHERE key IN (SELECT value FROM json_each(?))", (keys,)).fetchall()
    found: dict[str, Numbers] = {}
    for environment in {row[1] for row in rows}:
        query = "SELECT sha256 FROM code WHERE environment = ?"
        for (sha256,) in db.execute(query, (environment,)):
            if sha256 not in known:
                known[sha256] = _read_numbers(db, environment)
            found[environment] = known[sha256]
    return rows, found


def _read_numbers(db: sqlite3.Connection, environment: str) -> Numbers:
    """The numbered code of an environment; none if it is damaged."""
    query = "SELECT sha256, content FROM code WHERE environment = ?"
    for sha256, content in db.execute(query, (environment,)):
        with contextlib.suppress(ValueError):
            if isinstance(content, bytes) and digest(content) == sha256:
                return Numbers(content)
    return Numbers()


def other_formats(folder: Path, *, dry_run: bool) -> list[Path]:
    """Delete the files of a memory in another format; returns them."""
    found = [path for path in sorted(folder.glob("observations-*.sqlite*")) if f"-{FORMAT}.sqlite" not in path.name]
    for path in found if not dry_run else ():
        with contextlib.suppress(OSError):
            path.unlink()
    return found
