"""Takes fixtures over from another store: all of them or none, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness.manifest import Manifest, successor, text_of
from harness.store import Store, write_durably


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
            yield sum(path.stat().st_size for path, content in before.items() if content is None)
        except BaseException:
            _undo(before)
            raise


def _adopt(store: Store, other: Store, manifest: Manifest, before: dict[Path, bytes | None]) -> None:
    path = store._manifest_path(manifest.creator, manifest.scenario)
    old = path.read_bytes() if path.exists() else None
    for device in manifest.goldens:
        text = text_of(successor(path, old, manifest, device, None).model_dump())
    for name, stored in manifest.contents():
        content = other._read_blob(stored, f"{manifest.creator}/{manifest.scenario}", name)
        if not (blob := store._blob_path(stored.sha256)).exists():
            before.setdefault(blob, None)  # noted first: an interruption may come at any time
        store._write_blob(stored, content)
    if old != text:
        before.setdefault(path, old)
        write_durably(path, text)


def _undo(before: dict[Path, bytes | None]) -> None:
    for path, content in reversed(before.items()):  # manifests before what they name
        if content is not None:
            write_durably(path, content)
            continue
        path.unlink(missing_ok=True)
        for folder in (path.parent, path.parent.parent):
            with contextlib.suppress(OSError):  # something else is in it
                folder.rmdir()
