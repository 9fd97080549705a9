"""The archive of a store: packed, fetched without a network, and refused where it is damaged."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import tarfile
from pathlib import Path

import pytest

from harness import __version__
from harness.core.errors import HarnessError, UsageError
from harness.store import archive


def quiet(_line: str) -> None:
    """Say nothing."""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "fixtures"
    (folder / "blobs" / "ab").mkdir(parents=True)
    (folder / "blobs" / "ab" / "ab12").write_bytes(b"weights")
    (folder / "v1").mkdir()
    (folder / "v1" / "one.json").write_text("{}")
    (folder / ".lock").touch()
    return folder


@pytest.fixture
def packed(store: Path, tmp_path: Path) -> Path:
    archive.pack(store, tmp_path / "box" / archive.NAME)
    return tmp_path / "box" / archive.NAME


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("as_address", [True, False])
def test_there_and_back(store: Path, packed: Path, tmp_path: Path, as_address: bool) -> None:
    target = tmp_path / "cache" / "fixtures"
    assert archive.fetch(packed.as_uri() if as_address else str(packed), target, quiet) == 2
    (store / ".lock").unlink()
    assert content(target) == content(store)


def test_the_same_folder_gives_the_same_bytes(store: Path, packed: Path, tmp_path: Path) -> None:
    (store / "v1" / "one.json").touch()
    digest = archive.pack(store, tmp_path / "again.tar.gz")
    assert (tmp_path / "again.tar.gz").read_bytes() == packed.read_bytes()
    beside = packed.with_name(archive.NAME + archive.DIGEST).read_text()
    assert beside == f"{digest}  {archive.NAME}\n"


def test_an_altered_archive_is_refused_and_nothing_stays(packed: Path, tmp_path: Path) -> None:
    packed.write_bytes(packed.read_bytes()[:-1] + b"?")
    with pytest.raises(HarnessError, match="SHA-256"):
        archive.fetch(str(packed), tmp_path / "new" / "fixtures", quiet)
    assert not list((tmp_path / "new").iterdir())


@pytest.mark.parametrize("missing", [archive.NAME, archive.NAME + archive.DIGEST])
def test_a_missing_file_is_named(packed: Path, tmp_path: Path, missing: str) -> None:
    (packed.parent / missing).unlink()
    with pytest.raises(HarnessError, match=missing) as caught:
        archive.fetch(str(packed), tmp_path / "new", quiet)
    assert "--from" in caught.value.next_step
    assert not (tmp_path / "new").exists()


def test_an_existing_folder_is_kept(packed: Path, store: Path) -> None:
    with pytest.raises(UsageError, match="already exists"):
        archive.fetch(str(packed), store, quiet)
    assert (store / "v1" / "one.json").exists()


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out"])
def test_nothing_is_written_outside_of_the_folder(tmp_path: Path, name: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = 3
    refused(tmp_path, entry, b"bad")
    assert not (tmp_path / "out").exists()


def test_links_are_refused(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("link")
    entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
    refused(tmp_path, entry, b"")


def refused(tmp_path: Path, entry: tarfile.TarInfo, content: bytes) -> None:
    path = tmp_path / "bad.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(entry, io.BytesIO(content))
    path.with_name(path.name + archive.DIGEST).write_text(hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(HarnessError, match="not a plain file"):
        archive.fetch(str(path), tmp_path / "new", quiet)
    assert not (tmp_path / "new").exists()


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.tar.gz"
    path.write_text("not found")
    path.with_name(path.name + archive.DIGEST).write_text(hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(HarnessError, match="gzip"):
        archive.fetch(str(path), tmp_path / "new", quiet)


def test_the_default_is_an_asset_of_this_version(monkeypatch: pytest.MonkeyPatch) -> None:
    class Metadata:
        urls = ("Releases, https://host.example/project/releases",)

        def get_all(self, _name: str) -> list[str]:
            return list(self.urls)

    monkeypatch.setattr(importlib.metadata, "metadata", lambda _name: Metadata())
    expected = f"https://host.example/project/releases/download/v{__version__}/{archive.NAME}"
    assert archive.release_asset() == expected
    Metadata.urls = ()  # type: ignore[assignment]
    with pytest.raises(UsageError) as caught:
        archive.release_asset()
    assert "--from" in caught.value.next_step
