"""Copies fixtures from another store: all of them or none, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness.core.files import write_durably
from harness.store.fixtures import Store
from harness.store.manifest import Manifest, StoredFile
from harness.store.manifest_text import packed
from harness.store.succession import successor


@contextlib.contextmanager
def adopting(store: Store, other: Store, creator: str, scenarios: Iterable[str]) -> Iterator[int]:
    """Copy fixtures of another store. They stay if the block succeeds, and are removed if it raises.

    Nobody else can write to the store meanwhile, so nothing else refers to what is removed.

    Yields:
        the number of bytes added.

    Raises:
        HarnessError: there is another fixture of that name.
    """
    before: dict[Path, bytes | None] = {}
    with store.locked():
        try:
            for scenario in scenarios:
                _adopt(store, other, other.manifest(creator, scenario), before)
            yield _added(before)
        except BaseException:
            _undo(store, before)
            store.manifests.forget()
            raise


def _added(before: dict[Path, bytes | None]) -> int:
    """Bytes of what is there now, less those of what was."""
    return sum(path.stat().st_size - len(old or b"") for path, old in before.items() if path.exists())


def _adopt(store: Store, other: Store, manifest: Manifest, before: dict[Path, bytes | None]) -> None:
    there = store.manifests.find(manifest.creator, manifest.scenario)
    after = manifest
    for device in manifest.goldens:
        after = successor(there, manifest, device, None, store.read_shared)
    for name, stored in manifest.contents():
        content = other.read_blob(stored, f"{manifest.creator}/{manifest.scenario}", name)
        _note_blob(store, stored, before)
        store.blobs.write(stored, content, name.startswith(("golden", "shared")))
    for stored in packed(after)[0].shared.values():
        _note_blob(store, stored, before)
    for path in store.manifests.paths(manifest.creator, manifest.scenario):
        before.setdefault(path, path.read_bytes() if path.exists() else None)
    store.put(there, after)


def _note_blob(store: Store, stored: StoredFile, before: dict[Path, bytes | None]) -> None:
    """Note that a blob is not there yet. This comes before writing it: an interruption may come at any time."""
    for place in store.blobs.places(stored.sha256):
        if not place.exists():
            before.setdefault(place, None)


def _undo(store: Store, before: dict[Path, bytes | None]) -> None:
    manifests_first = sorted(before, key=lambda path: path.is_relative_to(store.blobs.folder))
    for path in manifests_first:
        content = before[path]
        if content is not None:
            write_durably(path, content)
            continue
        path.unlink(missing_ok=True)
        for folder in (path.parent, path.parent.parent):
            with contextlib.suppress(OSError):  # the folder has other files
                folder.rmdir()
