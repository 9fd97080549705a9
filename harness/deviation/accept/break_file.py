"""The file of one known break: its text, and changes on disk.

A change is made from the file as it was read. It is written whole or not at all, and never over what somebody else
wrote in the meantime. Files of other breaks are not touched.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import filelock

from harness.core import data, toml_files
from harness.core.errors import HarnessError, UsageError
from harness.core.files import write_atomically
from harness.core.lock import file_lock
from harness.core.text import similar, visible
from harness.judge import breaks
from harness.judge.breaks import Break

WIDTH = 120
"""Columns of a line."""
LOCK = ".breaks.lock"
LOCK_TIMEOUT_S = 10.0
KEYS = ("title", "cause", "references", "since", "fixed", "verified", "workaround", "expires", "permanent")
"""The keys of a break, in the order of the file; its conditions follow."""
CONDITION = ("note", "scenarios", "creators", "loaders", "devices", "noted", "verdict", "kinds")
"""The keys of a condition, in the order of the file."""


# -- the text ---------------------------------------------------------------------------------------------------------


def text(fields: Mapping[str, Any], remarks: Iterable[str] = ()) -> str:
    """The file of a break, as a person would write it.

    Args:
        fields: the keys of the file; those that are None are left out, and so is the id.
        remarks: lines of the comment at its top; they are wrapped, and nothing in them can end the comment.
    """
    comment = [line for one in remarks for line in textwrap.wrap(visible(one), WIDTH - 2, break_on_hyphens=False)]
    parts = ["".join(f"# {line}\n" for line in comment) + _table(fields, KEYS) + _rule("adapter", fields)]
    for one in fields["condition"]:
        parts += ["[[condition]]\n" + _table(one, CONDITION) + _rule("condition.adapter", one) + measured_text(one)]
    return "\n".join(parts)


def _rule(table: str, fields: Mapping[str, Any]) -> str:
    """The table `adapter` after an empty line; entries of its tables are written with dots."""
    rule: Mapping[str, Any] = fields.get("adapter") or {}
    flat: dict[str, Any] = {}
    for key, value in rule.items():
        dotted = value if isinstance(value, Mapping) else {}
        flat |= {f"{key}.{_key(own)}": entry for own, entry in dotted.items()} or {key: value}
    lines = [f"{key} = {_value(value, WIDTH - len(key) - len(' = '))}\n" for key, value in flat.items()]
    return "".join([f"\n[{table}]\n", *lines]) if lines else ""


def measured_text(condition: Mapping[str, Any]) -> str:
    """The tables `shape` and `size` of a condition, each after an empty line."""
    parts = []
    for name in ("shape", "size"):
        entries = {_key(key): _entries(value) for key, value in (condition.get(name) or {}).items()}
        lines = {key: _inline(own) for key, own in entries.items()}
        short = {key: line for key, line in lines.items() if len(key) + len(" = ") + len(line) <= WIDTH}
        if short:
            parts += [f"\n[condition.{name}]\n", *(f"{key} = {line}\n" for key, line in short.items())]
        for key in [key for key in entries if key not in short]:
            parts += [f"\n[condition.{name}.{key}]\n"]
            parts += [f"{own} = {_value(value, WIDTH - len(own) - 3)}\n" for own, value in entries[key].items()]
    return "".join(parts)


def _entries(value: Mapping[str, Any]) -> dict[str, Any]:
    """What is there, by key as TOML; a list of one text is that text."""
    there = {_key(key): one for key, one in value.items() if one is not None}
    return {k: one[0] if isinstance(one, list) and len(one) == 1 else one for k, one in there.items()}


def _inline(entries: Mapping[str, Any]) -> str:
    return (
        f"{{ {', '.join(f'{key} = {_value(value, 10**6)}' for key, value in entries.items())} }}" if entries else "{}"
    )


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _quoted(key)


def _table(fields: Mapping[str, Any], keys: Iterable[str]) -> str:
    there = [key for key in keys if fields.get(key) is not None]
    return "".join(f"{key} = {_value(fields[key], WIDTH - len(key) - len(' = '))}\n" for key in there)


def _value(value: Any, room: int) -> str:
    """A value in one line if there is room, else in several."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str):
        line = _quoted(value)
        return line if len(line) <= room else _folded(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value}"
    if isinstance(value, Mapping):
        return _inline({_key(key): one for key, one in value.items()})
    items = [_value(one, 10**6) for one in value]
    line = f"[{', '.join(items)}]"
    return line if len(line) <= room else "[\n" + "".join(f"  {item},\n" for item in items) + "]"


def _quoted(value: str) -> str:
    """The text as TOML. A JSON string is one too; characters that a reader cannot see are escaped as well."""
    raw = json.dumps(str(value), ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in raw)


def _folded(value: str) -> str:
    """The text over several lines, each ending with a space and a backslash, which TOML reads as one line."""
    lines, line = [], ""
    for place, word in enumerate(_quoted(value)[1:-1].split(" ")):
        line += " " * bool(place)
        if word and line.endswith(" ") and len(line) + len(word) + 2 > WIDTH:  # TOML skips spaces that begin a line
            lines.append(f"{line}\\\n")
            line = ""
        line += word
    raw = "".join([*lines, line])
    plain = raw if '""' in value or value.endswith('"') else raw.replace('\\"', '"')
    return f'"""\n{plain}"""'


# -- changes ----------------------------------------------------------------------------------------------------------


class Changed(HarnessError):
    """The file is no longer what the change was made from; nothing was written."""


@dataclass(frozen=True)
class Change:
    """A change of one file: its text before and after, None for no file."""

    path: Path
    before: str | None
    after: str | None

    @property
    def diff(self) -> str:
        """What changes, as `diff -u` shows it."""
        was, will = (text.splitlines() if text else [] for text in (self.before, self.after))
        return "\n".join(difflib.unified_diff(was, will, str(self.path), str(self.path), lineterm=""))

    def write(self) -> None:
        """Make the change, if the file is still what was read.

        Raises:
            Changed: it is not.
            HarnessError: it cannot be written; the old file is unchanged.
        """
        data.refuse_packaged(self.path)
        with _locked(self.path.parent.parent):
            self._check()
            try:
                target = self.path.resolve()  # a link stays a link
                if self.after is None:
                    self.path.unlink()
                else:
                    mode = target.stat().st_mode & 0o7777 if target.exists() else 0o644
                    write_atomically(target, self.after.encode(), durable=True, mode=mode, last=self._check)
            except OSError as error:
                raise HarnessError(
                    f"{self.path} can't be written: {error}; it is unchanged",
                    "a folder with free space and write permission",
                    "fix that, then run the same command again",
                ) from error

    def _check(self) -> None:
        there = toml_files.content(self.path) if self.path.exists() else None
        if there != self.before:
            raise Changed(
                f"{self.path} was changed by somebody else meanwhile; nothing was written",
                "the file as it was read",
                "run the same command again: it starts from the file as it is now",
            )


def added(matrices: Path, fields: Mapping[str, Any]) -> Change:
    """A new break; `fields` has its id too."""
    return Change(_path(matrices, fields["id"]), None, text(fields))


def removed(matrices: Path, id: str) -> Change:
    """A break taken out.

    Raises:
        UsageError: there is no such break.
    """
    return Change(*_read(matrices, id), None)


def renewed(matrices: Path, id: str, expires: date) -> Change:
    """A break with another date.

    Raises:
        UsageError: there is no such break, or it has no date that a command can change.
    """
    path, before = _read(matrices, id)
    known = breaks.parse(before, path)
    after = re.sub(r"(?m)^expires *= *[0-9-]+", f"expires = {expires}", before)
    if known.expires is None or breaks.parse(after, path) != known.model_copy(update={"expires": expires}):
        has = "is permanent" if known.permanent else "is written in a way that a command can't change"
        raise UsageError(f"{path} {has}; nothing was written", "a line `expires = DATE`", "edit the file by hand")
    return Change(path, before, after)


def one(matrices: Path, id: str) -> Break:
    """The break with an id.

    Raises:
        UsageError: there is no such break.
    """
    path, text = _read(matrices, id)
    return breaks.parse(text, path)


_CONDITION = re.compile(r"(?m)^\[\[condition\]\][^\n]*\n")
_REPLACED = re.compile(r"(?ms)^kinds *= *\[[^\]]*\][^\n]*\n|\n*^\[condition\.(shape|size)\b.*")


def remeasured(matrices: Path, known: Break) -> Change:
    """A break with the shapes and sizes of this one; the rest of its file stays as it is.

    Raises:
        UsageError: there is no such break, or it is written in a way that a command can't change.
    """
    path, before = _read(matrices, known.id)
    head, *parts = _CONDITION.split(before)
    places = _CONDITION.findall(before)
    after = head
    for place, part, one in zip(places, parts, known.condition, strict=True):
        own = _REPLACED.sub("", part).rstrip("\n") + "\n"
        tables = measured_text(one.model_dump(exclude_none=True)) if one.shape is not None else ""
        after += place + (own + tables if tables else part.rstrip("\n") + "\n") + "\n"
    after = after.rstrip("\n") + "\n"
    try:
        meant = breaks.parse(after, path) == known
    except UsageError:
        meant = False
    if not meant:
        raise UsageError(
            f"{path} is written in a way that a command can't change; nothing was written",
            "`[[condition]]` tables whose last tables are `[condition.shape]` and `[condition.size]`",
            "edit the file by hand",
        )
    return Change(path, before, after)


def _path(matrices: Path, id: str) -> Path:
    if not re.fullmatch(breaks.ID, id):  # it could lead out of the folder
        raise UsageError(
            f"{id!r} cannot be the id of a known break",
            "lower-case letters, digits, - _ and .",
            f"the ids are the names of the files in {matrices / breaks.FOLDER}, without .toml",
        )
    return matrices / breaks.FOLDER / f"{id}.toml"


def _read(matrices: Path, id: str) -> tuple[Path, str]:
    """The file of a break, and its text."""
    known = breaks.load(matrices)
    path = _path(matrices, id)
    if id in (one.id for one in known) and path.exists():
        return path, toml_files.content(path)
    old = matrices / breaks.OLD_FILE
    if id in (one.id for one in known):
        raise UsageError(f"{id!r} is in {old}, the old form", "a file of its own", "edit the old file by hand")
    ids = [one.id for one in known]
    near = ", ".join(similar(id, ids) or ids[:5]) or "none: there is no known break"
    raise UsageError(f"there is no known break {id!r} in {path.parent}", f"one of {near}", "check what `check` says")


@contextlib.contextmanager
def _locked(matrices: Path) -> Iterator[None]:
    """One writer at a time. The lock ends with its process, so a killed one blocks nobody."""
    lock = matrices / LOCK
    try:
        with file_lock(lock, timeout=LOCK_TIMEOUT_S):
            yield
    except filelock.Timeout as error:
        raise HarnessError(
            f"{lock}: another process has been changing the known breaks for {LOCK_TIMEOUT_S:g} s",
            "one writer at a time, each for a moment",
            "look for a hanging peft-regress process, end it and try again",
        ) from error
    except OSError as error:
        raise HarnessError(
            f"{matrices} can't be written to: {error}; nothing was changed",
            "a folder with free space and write permission",
            "fix that, then run the same command again",
        ) from error
