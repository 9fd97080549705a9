"""Known breaks: reviewed statements that cells deviate. One file a break, `matrices/breaks/<id>.toml`.

A break has one or more conditions. A condition selects cells and states the verdict that they show. It must hold for
every cell that it selects (`harness.judge.expected`): a statement that is no longer true fails the run.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import pydantic

from harness.core import toml_files
from harness.core import versions as requirements
from harness.core.errors import UsageError
from harness.core.model import Strict
from harness.core.run import KnownBreak
from harness.core.text import first_sentence
from harness.core.verdict import Verdict
from harness.judge.adapter_rule import AdapterRule
from harness.judge.shape import Line, Size

FOLDER = "breaks"
"""The folder with one file a break, inside the matrices folder."""
OLD_FILE = "expectations.toml"
"""The former form, beside that folder: all entries in one file. Still read."""
ID = r"[a-z0-9][a-z0-9_.-]*"
_ADDRESS = r"https://[^\s/]+/\S+"


class _Written(Strict):
    """Text that can be written to a file."""

    @pydantic.field_validator("*")
    @classmethod
    def _encodable(cls, value: Any) -> Any:
        """Undecodable bytes of a command line arrive as surrogates; pydantic 2.14 accepts them, no file does."""
        texts = value if isinstance(value, list) else [value]
        if any(isinstance(text, str) and re.search("[\ud800-\udfff]", text) for text in texts):
            raise ValueError("text that can be written as UTF-8")
        return value


class Condition(_Written):
    """One `[[condition]]` of a break: the cells it selects, and what they show."""

    scenarios: list[str] = pydantic.Field(min_length=1)
    """Globs of scenario names."""
    creators: str | list[str]
    """A version condition on the creator's environment (`peft<0.7`), or globs of environment names."""
    loaders: str | list[str]
    """The same for the loader."""
    devices: list[str] | None = None
    """Globs of device names; all devices if absent."""
    noted: str | None = pydantic.Field(default=None, min_length=1)
    """Glob of a note that the cell must have, or after `!` must not have: for what depends on the processor."""
    verdict: Verdict = pydantic.Field(strict=False)
    """The verdict that it covers. Any other verdict stays red."""
    kinds: list[str] | None = pydantic.Field(default=None, min_length=1)
    """The kinds of findings that it covers, as long as nobody measured its shape; all kinds if absent."""
    shape: dict[str, Line] | None = pydantic.Field(default=None, min_length=1)
    """What each finding is like (`harness.judge.shape`); replaces `kinds`."""
    size: dict[str, dict[str, Size]] = pydantic.Field(default_factory=dict)
    """Scenario → finding → its measured size."""
    note: str | None = pydantic.Field(default=None, min_length=1)
    """For readers: what is special about these cells."""
    adapter: AdapterRule | None = None
    """Which adapters it is about, by their own files (`harness.judge.adapter_rule`); counts instead of the break's."""

    @pydantic.field_validator("creators", "loaders", mode="before")
    @classmethod
    def _condition_or_globs(cls, value: Any) -> str | list[str]:
        if isinstance(value, str):
            return _condition_text(value)
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            return [_glob(item) for item in value]
        raise ValueError("a version condition like 'peft<0.7', or a list of globs of environment names like ['v06*']")

    @pydantic.field_validator("scenarios", "devices")
    @classmethod
    def _globs(cls, value: list[str] | None) -> list[str] | None:
        return [_glob(item) for item in value] if value is not None else None

    @pydantic.field_validator("verdict")
    @classmethod
    def _deviation(cls, verdict: Verdict) -> Verdict:
        if not (verdict.is_deviation or verdict is Verdict.WARNED):
            allowed = [v for v in Verdict if v.is_deviation or v is Verdict.WARNED]
            raise ValueError(f"a deviation: one of {', '.join(allowed)}; nothing else can be expected")
        return verdict

    @pydantic.model_validator(mode="after")
    def _one_statement(self) -> Condition:
        if self.shape is not None and self.kinds is not None:
            raise ValueError("either `kinds` or, measured, `shape`")
        if self.size and self.shape is None:
            raise ValueError("`size` together with `shape`")
        return self

    @property
    def lines(self) -> dict[str, Line]:
        """The shape; before it is measured, its kinds."""
        return self.shape or {kind: Line() for kind in self.kinds or ["*"]}

    @property
    def of_kinds(self) -> tuple[str, ...]:
        """The kinds of findings that it covers; empty for all."""
        return tuple(dict.fromkeys(key.rpartition(" ")[2] for key in self.lines if key != "*"))

    @property
    def stated(self) -> str:
        """What the selected cells show: `silent-wrong (lost-tensors, values)`."""
        return f"{self.verdict}" + (f" ({', '.join(self.of_kinds)})" if self.of_kinds else "")


_TEXTS = ("title", "since", "fixed", "verified", "workaround")


class Break(_Written):
    """A known break. Its id is the name of its file; the file has the other keys."""

    id: str = pydantic.Field(pattern=rf"^{ID}$")
    title: str
    """What goes wrong, in one line."""
    cause: str
    """Why it goes wrong."""
    references: list[str] = pydantic.Field(min_length=1)
    """Addresses where it is discussed; the first is the one that reports show."""
    since: str | None = pydantic.Field(default=None, min_length=1)
    """The release that introduced it: `PEFT 0.7.0`. For readers, like the next three."""
    fixed: str | None = pydantic.Field(default=None, min_length=1)
    """The release that fixed it."""
    verified: str | None = pydantic.Field(default=None, min_length=1)
    """Which releases were seen to work and which to fail, and how that was found."""
    workaround: str | None = pydantic.Field(default=None, min_length=1)
    """What the owner of such an adapter can do."""
    expires: date | None = None
    """The last day on which it counts. Either this or `permanent`."""
    permanent: str | None = pydantic.Field(default=None, min_length=1)
    """Why it never expires: for what only old releases do."""
    adapter: AdapterRule | None = None
    """Which adapters it is about, by their own files, for conditions that do not say it themselves."""
    condition: list[Condition] = pydantic.Field(min_length=1)

    @pydantic.field_validator("references")
    @classmethod
    def _addresses(cls, references: list[str]) -> list[str]:
        if not all(map(is_address, references)):
            raise ValueError("https addresses where the break is discussed")
        return references

    @pydantic.field_validator("title", "cause")
    @classmethod
    def _said(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("a text in words")
        return text

    @pydantic.model_validator(mode="after")
    def _either(self) -> Break:
        if (self.expires is None) == (self.permanent is None):
            raise ValueError("either `expires` (a date) or `permanent` (why it never expires)")
        return self

    @property
    def issue(self) -> str:
        """The first reference."""
        return self.references[0]

    def rule(self, condition: Condition) -> AdapterRule | None:
        """Which adapters one of its conditions is about; None if nobody has said it."""
        return condition.adapter or self.adapter

    @property
    def report(self) -> KnownBreak:
        """What a run's report says of it."""
        texts = {name: " ".join((getattr(self, name) or "").split()) for name in _TEXTS}
        return KnownBreak(**texts, references=tuple(self.references))

    def counts_on(self, day: date) -> bool:
        """True until it expires."""
        return self.expires is None or day <= self.expires


class _OldEntry(Condition):
    """One `[[expectation]]` of the former file."""

    id: str = pydantic.Field(pattern=rf"^{ID}$")
    issue: str = pydantic.Field(pattern=f"^{_ADDRESS}$")
    reason: str = pydantic.Field(pattern=r"\S")
    expires: date
    since: str | None = pydantic.Field(default=None, min_length=1)
    verified: str | None = pydantic.Field(default=None, min_length=1)
    workaround: str | None = pydantic.Field(default=None, min_length=1)

    def as_break(self) -> Break:
        """The break with this entry as its only condition."""
        own = {"id", "since", "verified", "workaround", "expires"}
        texts = {"title": first_sentence(self.reason), "cause": self.reason, "references": [self.issue]}
        condition = self.model_dump(include=set(Condition.model_fields))
        return Break.model_validate(self.model_dump(include=own) | texts | {"condition": [condition]})


class _OldFile(Strict):
    """The content of `expectations.toml`."""

    expectation: list[_OldEntry] = pydantic.Field(default_factory=list)


def is_address(text: str) -> bool:
    """True if a text can be a reference."""
    return re.fullmatch(_ADDRESS, text) is not None


def load(matrices: Path) -> tuple[Break, ...]:
    """The known breaks of a matrices folder, by id; then those of the former file.

    Raises:
        UsageError: with file and key path of what is wrong.
    """
    found = [*map(read, files(matrices)), *read_old(matrices)]
    ids = [one.id for one in found]
    if twice := next((id for id in ids if ids.count(id) > 1), None):
        raise UsageError(
            f"{matrices / OLD_FILE}: {twice!r} is the id of two known breaks", "one id for one break", "rename one"
        )
    return tuple(found)


def without_rule(known: Iterable[Break]) -> list[str]:
    """The breaks of which a condition does not say which adapters it is about."""
    return [one.id for one in known if not all(one.rule(condition) for condition in one.condition)]


def files(matrices: Path) -> list[Path]:
    """The files of the known breaks of a matrices folder, by id."""
    return sorted((matrices / FOLDER).glob("*.toml"))


def read(path: Path) -> Break:
    """The break of a file.

    Raises:
        UsageError: with the key path of what is wrong.
    """
    return parse(toml_files.content(path), path)


def read_old(matrices: Path) -> list[Break]:
    """A break for each entry of the former file, if there is one."""
    path = matrices / OLD_FILE
    entries = toml_files.validated(_OldFile, toml_files.read(path), path).expectation if path.exists() else []
    return [entry.as_break() for entry in entries]


def old_form(matrices: Path) -> str:
    """What to tell a user who has the former file; empty if there is none."""
    path = matrices / OLD_FILE
    return (
        f"note: {path} is the old form of known breaks. It is still read. Next: move each entry to "
        f"{path.parent / FOLDER}/<id>.toml (docs/expectations.md shows the keys)"
        if path.exists()
        else ""
    )


def parse(text: str, path: Path) -> Break:
    """The break in a file's text.

    Raises:
        UsageError: with the key path of what is wrong.
    """
    data = toml_files.parsed(text, path)
    if not re.fullmatch(ID, path.stem) or "id" in data:
        raise UsageError(
            f"{path}: " + ("unknown key `id`" if "id" in data else f"{path.stem!r} is no id"),
            "the id as the file's name: lower-case letters, digits, - _ and .",
            "rename the file, and leave the id out of it",
        )
    return toml_files.validated(Break, data | {"id": path.stem}, path)


version_condition = functools.lru_cache(maxsize=1024)(requirements.parse)
"""The version condition that a text means; cached."""


def _condition_text(text: str) -> str:
    """The text, if it is a condition in which every package has a specifier; else ValueError.

    A bare word would mean "has a package of that name", but is most likely an environment's name.
    """
    bare = [name for name, specifiers in version_condition(text).parts if not len(specifiers)]
    if bare:
        raise ValueError(
            f"{bare[0]!r} has no version; write 'peft<0.7', or a list for environment names: ['{bare[0]}']"
        )
    return text


def _glob(text: str) -> str:
    """The text, if it is a glob that can match something; else ValueError."""
    if not text.strip() or text != text.strip():
        raise ValueError(f"{text!r} is no glob: it is empty, or has spaces around it")
    if text.count("[") != text.count("]"):
        raise ValueError(f"{text!r} is no glob: a bracket is not closed")
    return text
