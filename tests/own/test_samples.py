"""The bad folders that other tests use are built, each in an empty folder, and none of them does anything yet."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from tests.support.own import bad, damaged, folders, sample


@pytest.mark.parametrize("case", [*bad.NO_ADAPTER, *damaged.DAMAGED], ids=lambda case: case.name)
def test_a_bad_folder_is_built(case: sample.Bad, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    case.build(folder)

    assert any(folder.iterdir()) or case.build is bad.empty_folder
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_the_hubs_cache_is_links_to_blobs(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    sample.good(tmp_path / "files")
    snapshot = folders.hub_cache(tmp_path / "files", tmp_path / "hub", "acme/adapter")

    assert all(path.is_symlink() for path in snapshot.iterdir())
    assert (snapshot / "adapter_config.json").read_bytes() == (tmp_path / "files/adapter_config.json").read_bytes()


def test_a_listing_shows_every_change(tmp_path: Path) -> None:
    sample.good(tmp_path)
    before = folders.listing(tmp_path)
    (tmp_path / "adapter_config.json").touch()

    assert folders.listing(tmp_path) != before


def test_the_pickles_do_execute_when_something_unpickles_them(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    bad.old_pickle_executes(folder)
    with (folder / "adapter_model.bin").open("rb") as file:
        for _ in range(4):
            pickle.load(file)

    assert bad.marker(folder).is_dir()
