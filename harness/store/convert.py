"""Converts manifests of older formats, a file for each fixture, to the present one, a file for each creator."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from harness.core.errors import HarnessError
from harness.core.files import write_durably
from harness.store.fixtures import Store
from harness.store.integrity import Problem, same_fixture
from harness.store.manifest import Manifest
from harness.store.manifest_text import packed
from harness.store.manifests import Found


@dataclass(frozen=True)
class Converted:
    """What `convert` did.

    Attributes:
        fixtures: creator → scenarios whose manifest was converted.
        problems: manifests that stay as they are, because they cannot be used or differ from the line that is there.
    """

    fixtures: dict[str, tuple[str, ...]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def convert(store: Store) -> Converted:
    """Convert all manifests of older formats in the folder.

    An old manifest is removed only after the new file is on the disk and was read back. An interrupted conversion
    therefore loses nothing, and the next one finishes it.
    """
    done = Converted()
    for creator in sorted({path.parent.name for path in store.manifests.singles()}):
        with store.locked():
            if names := _convert(store, creator, done.problems):
                done.fixtures[creator] = tuple(names)
    return done


def _convert(store: Store, creator: str, problems: list[Problem]) -> list[str]:
    old: dict[Path, Manifest] = {}
    for single in store.manifests.every_single(creator):
        path = single.place.file
        try:
            old[path] = _usable(store, single)
        except HarnessError as error:
            problems.append(Problem(path, "manifest", str(error), (f"{creator}/{path.stem}",)))
    if not old:
        return []
    _write(store, creator, old)
    for path, manifest in old.items():
        if not same_fixture(store.manifest(creator, path.stem), manifest):
            raise HarnessError(
                f"{store.manifests.file(creator)}: {path.stem} reads back otherwise than it was written",
                "the same manifest",
                "report this; the old manifests are still there",
            )
    for path in old:
        store.manifests.remove_single(path)
    return [path.stem for path in old]


def _usable(store: Store, single: Found) -> Manifest:
    """The manifest of an old file, if it can be used and no line contradicts it."""
    manifest = single.manifest(store.read_shared)
    line = store.manifests.find(manifest.creator, manifest.scenario)
    if line and line.place.line and not same_fixture(line.manifest(store.read_shared), manifest):
        raise single.place.bad(f"another manifest of this fixture is in {line.place}", "one manifest of each fixture")
    return manifest


def _write(store: Store, creator: str, old: dict[Path, Manifest]) -> None:
    """Put these manifests into the creator's file, in one write."""
    file = store.manifests.read(creator)
    missing = [manifest for path, manifest in old.items() if path.stem not in file.fixtures]
    for manifest in missing:
        whole, text, shared = packed(manifest)
        for key, content in shared.items():
            store.blobs.write(whole.shared[key], content, compress=True)
        file = file.put(manifest.scenario, text)
    if missing:
        write_durably(store.manifests.file(creator), file.text)
        store.manifests.forget()
