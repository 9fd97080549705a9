"""Takes fixtures over from another store: all of them or none, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness.core.files import write_durably
from harness.store.fixtures import Store
from harness.store.manifest import Manifest, StoredFile, packed, successor


@contextlib.contextmanager
def adopting(store: Store, other: Store, creator: str, scenarios: Iterable[str]) -> Iterator[int]:
    """Hold fixtures of another store: for good where the block ends well, none of them where it raises.

    Nobody else writes to the store meanwhile, so that what is taken back is named by nothing else.

    Yields:
        the bytes that were added.

    Raises:
        HarnessError: another fixture of that name is there.
    """
    before: dict[Path, bytes | None] = {}
    with store._locked():
        try:
            for scenario in scenarios:
                _adopt(store, other, other.manifest(creator, scenario), before)
            yield sum(path.stat().st_size for path, old in before.items() if old is None and path.exists())
        except BaseException:
            _undo(before)
            raise


def _adopt(store: Store, other: Store, manifest: Manifest, before: dict[Path, bytes | None]) -> None:
    path = store._manifest_path(manifest.creator, manifest.scenario)
    old = path.read_bytes() if path.exists() else None
    after = manifest
    for device in manifest.goldens:
        after = successor(path, old, manifest, device, None, store._read_shared)
    after, text, shared = packed(after)
    for name, stored in manifest.contents():
        content = other._read_blob(stored, f"{manifest.creator}/{manifest.scenario}", name)
        _write(store, stored, content, name.startswith(("golden", "shared")), before)
    for key, content in shared.items():
        _write(store, after.shared[key], content, True, before)
    if old != text:
        before.setdefault(path, old)
        write_durably(path, text)


def _write(store: Store, stored: StoredFile, content: bytes, compress: bool, before: dict[Path, bytes | None]) -> None:
    for place in store._blobs.places(stored.sha256):
        if not place.exists():
            before.setdefault(place, None)  # noted first: an interruption may come at any time
    store._blobs.write(stored, content, compress)


def _undo(before: dict[Path, bytes | None]) -> None:
    for path, content in reversed(before.items()):  # manifests before what they name
        if content is not None:
            write_durably(path, content)
            continue
        path.unlink(missing_ok=True)
        for folder in (path.parent, path.parent.parent):
            with contextlib.suppress(OSError):  # something else is in it
                folder.rmdir()
