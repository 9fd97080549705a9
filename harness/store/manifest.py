"""What a fixture is: the manifest, its format, which names it may hold, and what may follow what.

Pure: text in, values out. `harness.store.fixtures` keeps the files; `fixtures/FORMAT.md` documents the format.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pydantic

from harness.core.errors import HarnessError
from harness.core.model import Strict

FORMAT = 2
# What a manifest looks like, as a number. Fixtures are evidence and outlive this code, so when you add, rename or
# remove a key of `Manifest`, or give one another meaning:
#   1. raise FORMAT, and write the date and what changed under "History" in fixtures/FORMAT.md;
#   2. teach `parse` to lift the data of every older format to the new one *as it is read*; an old manifest is never
#      rewritten for that, and no older format is ever dropped;
#   3. copy one manifest of the old format, with its blobs, into a test that reads it for good.
# A reader refuses a newer format by name (`parse`), because it can't know what the newer one means.

OLDER = (1,)
"""Formats that `parse` lifts to the present one."""

BLOBS = "blobs"
PARTS = ("adapter", "base")
SHARED = ("facts", "resolved", "versions")
"""Keys whose values many fixtures have in common: they are kept as blobs, once."""
_NOTHING = hashlib.sha256().hexdigest()


class NoFixture(HarnessError):
    """There is no such fixture."""


class BadFixture(HarnessError):
    """A fixture is damaged, unsafe, or in a format that this version does not read."""


class NewerFormat(BadFixture):
    """A later version of this project wrote the manifest."""


class StoredFile(Strict):
    """The content of one file: also the name of its blob."""

    sha256: str = pydantic.Field(pattern=r"^[0-9a-f]{64}$")
    size: int = pydantic.Field(ge=0)

    def __str__(self) -> str:
        return f"{self.size} bytes with SHA-256 {self.sha256}"


class Replacement(Strict):
    """One time that the fixture was replaced: why, and the SHA-256 of the manifest file that stood there before."""

    date: str
    reason: str
    previous: str


ReadBlob = Callable[[StoredFile], bytes]
"""Gets a blob's content, checked; raises BadFixture."""


class Circumstances(Strict):
    """How a golden was made that another process than the fixture's first one added: on a GPU, as a rule."""

    created: str
    lock_digest: str
    versions: dict[str, str]
    facts: dict[str, Any]
    standing_defects: list[str]
    unstable: bool


class Manifest(Strict):
    """What a fixture is: what it was made from, by what, where, and which files it consists of."""

    format: int = FORMAT
    scenario: str
    creator: str
    scenario_digest: str
    resolved: dict[str, Any]
    """The scenario as the worker got it, so that it can be run again whatever becomes of `matrices/`."""
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
    """Device class → how its golden was made, where that was not the fixture's first process."""
    shared: dict[str, StoredFile] = {}
    """Which of `SHARED` the manifest's file leaves to a blob, and which blob that is."""

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
    def adapter_digest(self) -> str:
        """SHA-256 over names and contents of the adapter's files: tells checkpoints apart by content."""
        return self._digest(name for name in self.files if name.startswith("adapter/"))

    @property
    def weights_digest(self) -> str:
        """Like `adapter_digest`, without card and configuration, which name versions and so change with each."""
        card = ("adapter/README.md", "adapter/adapter_config.json")
        return self._digest(name for name in self.files if name.startswith("adapter/") and name not in card)

    def _digest(self, names: Iterable[str]) -> str:
        lines = [f"{name}\0{self.files[name].sha256}\n" for name in sorted(names)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def seen_on(self, device_class: str) -> Manifest:
        """The manifest with versions, facts, defects and date of the process that made this device class's golden."""
        elsewhere = self.elsewhere.get(device_class)
        return self.model_copy(update=dict(elsewhere)) if elsewhere else self

    def golden(self, device_class: str) -> dict[str, StoredFile]:
        """The files of this device class's golden; NoFixture where it has none."""
        if device_class in self.goldens:
            return self.goldens[device_class]
        raise NoFixture(
            f"fixture {self.creator}/{self.scenario} has no golden for device class {device_class!r}",
            f"one of {', '.join(sorted(self.goldens)) or '(it has none at all)'}",
            "create the fixture on that device too: the golden is added to the same fixture",
        )

    def laid_out(self, device_class: str) -> dict[str, StoredFile]:
        """All files as `materialise` writes them: `adapter/…`, `base/…` and `golden/…`."""
        golden = {f"golden/{name}": stored for name, stored in self.golden(device_class).items()}
        return {**self.files, **golden}

    def contents(self) -> Iterator[tuple[str, StoredFile]]:
        """Every blob that it names, goldens of all device classes included."""
        yield from self.files.items()
        yield from ((f"shared/{key}", stored) for key, stored in self.shared.items())
        for device_class, golden in self.goldens.items():
            yield from ((f"golden[{device_class}]/{name}", stored) for name, stored in golden.items())


def stored_file(data: bytes) -> StoredFile:
    """Size and SHA-256 of this content."""
    return StoredFile(sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def _checked_name(name: str) -> str:
    """The name if it is a plain relative POSIX path; ValueError with the reason where it is not."""
    if any(character in "\\:" or not character.isprintable() for character in name):
        raise ValueError(f"{name!r} holds a backslash, a colon or a character that does not print")
    for part in name.split("/"):
        if part in ("", ".", ".."):
            raise ValueError(f"{name!r} is not a plain relative path: it has a part {part!r}")
        if len(part.encode()) > 240:
            raise ValueError(f"a part of {name!r} is longer than 240 bytes")
    return name


def checked_part(name: str) -> str:
    """The name if it can be one part of a path in a store; ValueError with the reason where it can't."""
    if "/" in _checked_name(name) or name.startswith(".") or name.lower() == BLOBS:
        raise ValueError(f"{name!r} holds a slash, begins with a dot, or is {BLOBS!r}")
    return name


def _without_nesting(files: dict[str, StoredFile]) -> dict[str, StoredFile]:
    for name in files:
        if nested := next((other for other in files if other.startswith(f"{name}/")), None):
            raise ValueError(f"{name!r} would be a file and, for {nested!r}, a folder")
    return files


def text_of(data: Any) -> bytes:
    """Sorted, indented JSON, for diffs that people read. What is no Unicode (from a command line) becomes an escape."""
    return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def packed(manifest: Manifest) -> tuple[Manifest, bytes, dict[str, bytes]]:
    """The manifest as it will be read back, its file's text, and the contents that the text leaves to blobs."""
    data = manifest.model_dump()
    contents = {key: text_of(data.pop(key)) for key in SHARED}
    shared = {key: stored_file(content) for key, content in contents.items()}
    data |= {"format": FORMAT, "shared": {key: stored.model_dump() for key, stored in shared.items()}}
    return manifest.model_copy(update={"format": FORMAT, "shared": shared}), text_of(data), contents


def parse(path: Path, text: bytes, read: ReadBlob, mend: str = "") -> Manifest:
    """The manifest in a file's text, checked; BadFixture where it can't be used.

    Args:
        read: gets what the text leaves to blobs.
        mend: what to do about one that can't.
    """
    restore = mend or f"restore it with `git restore {path}`, or remove it and create the fixture again"
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadFixture(f"{path}: not JSON ({len(text)} bytes): {error}", "a whole manifest", restore) from error
    _refuse_other_formats(path, data.get("format") if isinstance(data, dict) else None, restore)
    data = _whole(path, data, read, restore)
    if missing := sorted(set(Manifest.model_fields) - set(data)):
        raise BadFixture(f"{path}: missing keys: {', '.join(missing)}", "all keys that FORMAT.md lists", restore)
    manifest = _validated(path, data, restore)
    _refuse_inconsistent(path, manifest, restore)
    return manifest


def _refuse_other_formats(path: Path, number: object, restore: str) -> None:
    found, expected = f"{path}: manifest format {number!r}", f"format {FORMAT}"
    if type(number) is int and number > FORMAT:
        raise NewerFormat(found, expected, "use the version of peft-regress that wrote it, or a later one")
    if type(number) is not int or number not in (*OLDER, FORMAT):
        raise BadFixture(found, expected, restore)


def _whole(path: Path, data: dict[str, Any], read: ReadBlob, restore: str) -> dict[str, Any]:
    """The manifest's data in the present format, with what it leaves to blobs put in."""
    whole = {"shared": {}, **data, "format": FORMAT}  # format 1 left nothing to blobs
    try:
        shared = {key: StoredFile.model_validate(stored) for key, stored in whole["shared"].items()}
    except (AttributeError, pydantic.ValidationError) as error:
        raise BadFixture(f"{path}: shared: {error}", "key → SHA-256 and size of a blob", restore) from error
    if wrong := sorted(key for key in shared if key not in SHARED or key in data):
        raise BadFixture(f"{path}: shared: {', '.join(wrong)}", f"only {', '.join(SHARED)}, each once", restore)
    for key, stored in shared.items():
        try:
            whole[key] = json.loads(read(stored))
        except (ValueError, RecursionError) as error:
            raise BadFixture(f"{path}: {key}: not JSON: {error}", "a blob with JSON", restore) from error
    return whole


def _validated(path: Path, data: Mapping[str, Any], restore: str) -> Manifest:
    try:
        return Manifest.model_validate(data)
    except pydantic.ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise BadFixture(f"{path}: {wrong}", "a manifest as FORMAT.md describes it", restore) from error


def _refuse_inconsistent(path: Path, manifest: Manifest, restore: str) -> None:
    if (manifest.creator, manifest.scenario) != (path.parent.name, path.stem):
        raise BadFixture(
            f"{path}: says that it is {manifest.creator}/{manifest.scenario}",
            f"{path.parent.name}/{path.stem}, as the file is called",
            restore,
        )
    if manifest.adapter_digest == _NOTHING or not manifest.goldens or not all(manifest.goldens.values()):
        raise BadFixture(f"{path}: no adapter file, or no golden", "at least one file of each", restore)


def with_files(manifest: Manifest, stored: Mapping[str, StoredFile], device_class: str) -> Manifest:
    """The manifest with these files in it and checked as a reader will check it."""
    golden = {name.removeprefix("golden/"): file for name, file in stored.items() if name.startswith("golden/")}
    files = {name: file for name, file in stored.items() if not name.startswith("golden/")}
    fields = manifest.model_dump() | {"format": FORMAT, "history": [], "elsewhere": {}, "shared": {}}
    whole = fields | {
        "files": {name: file.model_dump() for name, file in files.items()},
        "goldens": {device_class: {name: file.model_dump() for name, file in golden.items()}},
    }
    path = Path(manifest.creator) / f"{manifest.scenario}.json"
    mend = "look at what the worker left in the folders that were to be stored"
    made = _validated(path, json.loads(text_of(whole)), mend)
    _refuse_inconsistent(path, made, mend)
    return made


def successor(
    path: Path, before: bytes | None, new: Manifest, device_class: str, replace: str | None, read: ReadBlob
) -> Manifest:
    """What stands in the store after `new` was saved over `before`; HarnessError where that needs a reason.

    Args:
        path: the manifest's file, for messages.
        before: what is in it, None where there is none.
        device_class: of `new`'s only golden.
        replace: the reason to replace what differs.
        read: gets what `before` leaves to blobs.
    """
    if before is None:
        return new
    reason = (replace or "").strip()
    try:
        old = parse(path, before, read)
    except NewerFormat:
        raise
    except BadFixture:
        if not reason:
            raise
        return new.model_copy(update={"history": [_replacement(before, new, reason)]})
    changes = _changes(old, new, device_class)
    if not changes:
        return old if device_class in old.goldens else _with_golden(old, new, device_class)
    if not reason:
        raise HarnessError(
            f"{path}: a fixture is there already, and the new one differs in {'; '.join(changes)}",
            "the same content: a fixture is evidence, and nothing overwrites it unasked",
            "find out why it differs; where the new one is right, replace it and give the reason",
        )
    history = [*old.history, _replacement(before, new, reason)]
    kept = _with_golden(old, new, device_class) if _same_subject(old, new) else new
    return kept.model_copy(update={"history": history})


def _replacement(before: bytes, new: Manifest, reason: str) -> Replacement:
    return Replacement(date=new.created, reason=reason, previous=hashlib.sha256(before).hexdigest())


def _changes(old: Manifest, new: Manifest, device_class: str) -> list[str]:
    """What of `new`'s evidence is not `old`'s. Date and facts are no evidence: another machine may yield the same."""
    changes = [
        key for key in ("scenario_digest", "resolved") if text_of(getattr(old, key)) != text_of(getattr(new, key))
    ]
    changes += differences(old.files, new.files)
    if device_class in old.goldens:
        there = old.seen_on(device_class)
        made = ("lock_digest", "versions", "standing_defects", "unstable")
        changes += [key for key in made if getattr(there, key) != getattr(new, key)]
        changes += [f"golden/{line}" for line in differences(old.golden(device_class), new.golden(device_class))]
    return changes


def _same_subject(old: Manifest, new: Manifest) -> bool:
    """True where both are of the same adapter and base, so that the goldens of other device classes still hold."""
    subjects = [(m.files, m.scenario_digest, text_of(m.resolved)) for m in (old, new)]
    return subjects[0] == subjects[1]


def _with_golden(old: Manifest, new: Manifest, device_class: str) -> Manifest:
    """`old` with this device class's golden, and how it was made, taken from `new`."""
    goldens = {**old.goldens, device_class: new.golden(device_class)}
    made = {key: getattr(new, key) for key in Circumstances.model_fields}
    if set(old.goldens) - set(old.elsewhere) == {device_class}:  # it is the first process's golden
        return old.model_copy(update={**made, "goldens": goldens})
    elsewhere = {**old.elsewhere, device_class: Circumstances(**made)}
    return old.model_copy(update={"goldens": goldens, "elsewhere": elsewhere})


def differences(stored: Mapping[str, StoredFile], now: Mapping[str, StoredFile]) -> list[str]:
    """One line for each file that is not the same in both."""
    lines = []
    for name in sorted({*stored, *now}):
        if stored.get(name) != now.get(name):
            lines.append(f"{name}: now {now.get(name, 'not there')}, stored {stored.get(name, 'not at all')}")
    return lines
