"""What may replace what: a fixture is evidence, and nothing overwrites it without a reason (pure)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from harness.core.errors import HarnessError
from harness.store.manifest import FORMAT, BadFixture, Circumstances, Manifest, NewerFormat, Replacement, StoredFile
from harness.store.manifest_text import Place, ReadBlob, checked, json_text
from harness.store.manifests import Found
from harness.worker.files import parse_json


def with_files(manifest: Manifest, stored: Mapping[str, StoredFile], device_class: str) -> Manifest:
    """The manifest with these files in it, checked as a reader will check it."""
    golden = {name.removeprefix("golden/"): file for name, file in stored.items() if name.startswith("golden/")}
    files = {name: file for name, file in stored.items() if not name.startswith("golden/")}
    fields = manifest.model_dump() | {"format": FORMAT, "history": [], "elsewhere": {}, "shared": {}}
    whole = fields | {
        "files": {name: file.model_dump() for name, file in files.items()},
        "goldens": {device_class: {name: file.model_dump() for name, file in golden.items()}},
    }
    place = Place(
        manifest.creator,
        manifest.scenario,
        Path(manifest.creator) / manifest.scenario,
        fix="check what the worker left in the folders to be stored",
    )
    return checked(place, parse_json(json_text(whole)))


def successor(before: Found | None, new: Manifest, device_class: str, replace: str | None, read: ReadBlob) -> Manifest:
    """What the store holds after `new` was saved over `before`.

    Args:
        before: the manifest that is stored, if any.
        device_class: of the only golden of `new`.
        replace: the reason to replace what differs.
        read: reads the blobs of shared values.

    Raises:
        HarnessError: the two differ, and there is no reason.
        NewerFormat: a later version of this project wrote what is stored.
        BadFixture: what is stored cannot be used, and there is no reason.
    """
    if before is None:
        return new
    reason = (replace or "").strip()
    try:
        old = before.manifest(read)
    except NewerFormat:
        raise
    except BadFixture:
        if not reason:
            raise
        return new.model_copy(update={"history": [_replacement(before.text, new, reason)]})
    changes = _changes(old, new, device_class)
    if not changes:
        return old if device_class in old.goldens else _with_golden(old, new, device_class)
    if not reason:
        raise HarnessError(
            f"{before.place}: the new fixture differs from the stored one: {'; '.join(changes)}",
            "the same content: a fixture is evidence, and nothing overwrites it without a reason",
            "find out why it differs; if the new one is right, replace it and give the reason",
        )
    history = [*old.history, _replacement(before.text, new, reason)]
    kept = _with_golden(old, new, device_class) if _same_subject(old, new) else new
    return kept.model_copy(update={"history": history})


def _replacement(before: bytes, new: Manifest, reason: str) -> Replacement:
    return Replacement(date=new.created, reason=reason, previous=hashlib.sha256(before).hexdigest())


def _changes(old: Manifest, new: Manifest, device_class: str) -> list[str]:
    """How the evidence of `new` differs. Date and facts are not evidence: another machine may produce the same."""
    changes = [
        key for key in ("scenario_digest", "resolved") if json_text(getattr(old, key)) != json_text(getattr(new, key))
    ]
    changes += differences(old.files, new.files)
    if device_class in old.goldens:
        there = old.seen_on(device_class)
        made = ("lock_digest", "versions", "standing_defects", "unstable")
        changes += [key for key in made if getattr(there, key) != getattr(new, key)]
        changes += [f"golden/{line}" for line in differences(old.golden(device_class), new.golden(device_class))]
    return changes


def _same_subject(old: Manifest, new: Manifest) -> bool:
    """True if both have the same adapter and base, so that the goldens of other device classes stay valid."""
    subjects = [(m.files, m.scenario_digest, json_text(m.resolved)) for m in (old, new)]
    return subjects[0] == subjects[1]


def _with_golden(old: Manifest, new: Manifest, device_class: str) -> Manifest:
    """`old` with the golden of this device class, and how it was made, from `new`."""
    goldens = {**old.goldens, device_class: new.golden(device_class)}
    made = {key: getattr(new, key) for key in Circumstances.model_fields}
    if set(old.goldens) - set(old.elsewhere) == {device_class}:  # the first process made it
        return old.model_copy(update={**made, "goldens": goldens})
    elsewhere = {**old.elsewhere, device_class: Circumstances(**made)}
    return old.model_copy(update={"goldens": goldens, "elsewhere": elsewhere})


def differences(stored: Mapping[str, StoredFile], now: Mapping[str, StoredFile]) -> list[str]:
    """One line for each file that differs."""
    lines = []
    for name in sorted({*stored, *now}):
        if stored.get(name) != now.get(name):
            lines.append(f"{name}: now {now.get(name, 'not there')}, stored {stored.get(name, 'not at all')}")
    return lines
