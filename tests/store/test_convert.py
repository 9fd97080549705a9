"""Conversion of older formats: nothing is lost, whenever it is interrupted."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.core.files import write_durably
from harness.store import integrity
from harness.store.convert import convert
from harness.store.fixtures import Store
from harness.store.manifest import FORMAT, BadFixture, Manifest, stored_file
from tests.store.test_fixtures import OTHER, blank, content, save
from tests.support import manifests

DATA = Path(__file__).parent / "data"
OLD = ("format1", "format2")


def old_store(path: Path, *formats: str) -> Store:
    """A store with one fixture of each of these formats, each of a creator of its own."""
    for name in formats:
        shutil.copytree(DATA / name / "blobs", path / "blobs", dirs_exist_ok=True)
        (path / name).mkdir(parents=True)
        data = json.loads((DATA / name / "v061" / "ia3-mlp.json").read_text())
        (path / name / "ia3-mlp.json").write_text(json.dumps({**data, "creator": name}, indent=2, sort_keys=True))
    return Store(path)


def without_shared(manifest: Manifest) -> Manifest:
    return manifest.model_copy(update={"shared": {}})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two creators in older formats, and one in the present."""
    made = old_store(tmp_path / "fixtures", *OLD)
    save(made, blank())
    return made


def every(store: Store) -> list[Manifest]:
    return [without_shared(store.manifest(c, name)) for c in store.creators() for name in store.scenarios(c)]


@pytest.mark.parametrize("name", OLD)
def test_an_older_format_is_read_and_left_as_it_is(name: str, tmp_path: Path) -> None:
    shutil.copytree(DATA / name, tmp_path / "fixtures")
    store = Store(tmp_path / "fixtures")
    before = content(store.folder)
    assert json.loads(before["v061/ia3-mlp.json"])["format"] == int(name[-1])
    manifest = store.manifest("v061", "ia3-mlp")
    assert (manifest.format, manifest.versions["peft"], manifest.resolved["name"]) == (FORMAT, "0.6.1", "ia3-mlp")
    assert integrity.verify(store) == []
    store.materialise(manifest, tmp_path / "out")
    parts = (tmp_path / "out" / part for part in ("adapter", "base", "golden"))
    assert store.save(manifest.model_copy(update={"created": "2030-01-01"}), *parts) == manifest
    assert {path: text for path, text in content(store.folder).items() if path != ".lock"} == before


def test_a_store_may_hold_several_formats(store: Store) -> None:
    assert store.creators() == ["format1", "format2", "v061"]
    assert integrity.verify(store) == []
    shutil.copy(DATA / "format2/v061/ia3-mlp.json", store.folder / "format2" / "other.json")
    assert store.scenarios("format2") == ["ia3-mlp", "other"]
    assert [problem.path.name for problem in integrity.verify(store)] == ["other.json"], "it is another fixture's"


def test_conversion_keeps_every_manifest_and_runs_twice(store: Store) -> None:
    before = every(store)
    done = convert(store)
    assert (done.fixtures, done.problems) == (dict.fromkeys(OLD, ("ia3-mlp",)), [])
    assert every(store) == before
    assert integrity.verify(store) == []
    assert sorted(path.name for path in store.folder.iterdir()) == [
        ".lock", "blobs", "format1.jsonl", "format2.jsonl", "v061.jsonl",
    ]  # fmt: skip
    files = content(store.folder)
    assert convert(store).fixtures == {}
    assert content(store.folder) == files


@pytest.mark.parametrize("call", range(1, 7))
def test_an_interrupted_conversion_loses_nothing(store: Store, call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped before the nth write of a creator's file or removal of an old manifest."""
    before, calls = every(store), iter(range(1, 99))

    def stopping(run: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            if next(calls) == call:
                raise KeyboardInterrupt
            return run(*arguments, **named)

        return step

    monkeypatch.setattr("harness.store.convert.write_durably", stopping(write_durably))
    monkeypatch.setattr(Path, "unlink", stopping(Path.unlink))
    monkeypatch.setattr(Path, "rmdir", stopping(Path.rmdir))
    with pytest.raises(KeyboardInterrupt):
        convert(store)
    monkeypatch.undo()
    assert every(store) == before
    assert {problem.kind for problem in integrity.verify(store)} <= {"orphan"}
    assert convert(store).problems == []
    assert every(store) == before
    assert integrity.verify(store) == []
    assert store.manifests.singles() == []


def test_a_damaged_manifest_stays_and_is_reported(store: Store) -> None:
    path = store.folder / "format2" / "broken.json"
    path.write_bytes(b"{")
    done = convert(store)
    assert [(problem.path, problem.fixtures) for problem in done.problems] == [(path, ("format2/broken",))]
    assert path.read_bytes() == b"{"
    assert store.scenarios("format2") == ["broken", "ia3-mlp"]
    assert store.manifests.singles() == [path]


def test_two_manifests_of_one_fixture_that_differ_are_reported(store: Store) -> None:
    path = store.folder / "format2" / "ia3-mlp.json"
    data = json.loads(path.read_bytes())
    convert(store)
    path.parent.mkdir()
    path.write_text(json.dumps({**data, "unstable": True}))
    assert [(problem.path, problem.kind) for problem in integrity.verify(store)] == [(path, "manifest")]
    assert [problem.path for problem in convert(store).problems] == [path]
    path.write_text(json.dumps(data))
    assert [(problem.path, problem.kind) for problem in integrity.verify(store)] == [(path, "orphan")]
    assert integrity.prune(store, dry_run=False) == [path]
    assert integrity.verify(store) == []


def test_replacing_an_older_fixture_moves_it_to_the_creators_file(store: Store) -> None:
    path = store.folder / "format2" / "ia3-mlp.json"
    text, old = path.read_bytes(), store.manifest("format2", "ia3-mlp")
    new = blank("ia3-mlp", "format2", resolved=old.resolved, scenario_digest=old.scenario_digest)
    after = save(store, new, adapter=OTHER, replace="another fill")
    assert not path.exists()
    assert len(after.history) == len(old.history) + 1
    assert after.history[-1].previous == stored_file(text).sha256
    assert manifests.read(store.folder, "format2", "ia3-mlp")["format"] == FORMAT
    assert {problem.kind for problem in integrity.verify(store)} == {"orphan"}


@pytest.mark.parametrize("put", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path.name)])
def test_an_old_manifest_that_is_no_file_stays_and_is_reported(
    store: Store, put: Callable[[Path], None]
) -> None:  # fmt: skip
    path = store.folder / "format1" / "not-a-file.json"
    put(path)
    done = convert(store)
    assert done.fixtures == dict.fromkeys(OLD, ("ia3-mlp",))
    assert [(problem.path, problem.fixtures) for problem in done.problems] == [(path, ("format1/not-a-file",))]
    assert "cannot be read" in done.problems[0].message
    assert os.path.lexists(path)
    with pytest.raises(BadFixture, match="cannot be read"):
        store.manifest("format1", "not-a-file")
    assert [problem.path for problem in integrity.verify(store)] == [path]


def test_old_manifests_stay_if_the_new_file_is_not_readable(store: Store) -> None:
    """Nothing overwrites it, and the other creators are converted."""
    path = manifests.file_of(store.folder, "format1")
    path.mkdir()
    done = convert(store)
    assert list(done.fixtures) == ["format2"]
    assert "format1.jsonl: cannot be read" in done.problems[0].message
    assert (store.folder / "format1" / "ia3-mlp.json").is_file()
    assert path.is_dir()
