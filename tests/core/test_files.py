"""Files and folders that are complete or not there at all."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.core.files import append_lines, new_folder, write_atomically, write_durably


@pytest.mark.parametrize(("write", "fails"), [(write_atomically, "replace"), (write_durably, "fsync")])
def test_a_failed_write_keeps_the_old_content_and_leaves_no_file(
    write: Callable[[Path, bytes], None], fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "folder" / "report.json"
    write(file, b"old")

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path if fails == "replace" else os, fails, full)
    with pytest.raises(OSError, match="no space"):
        write(file, b"new")
    assert {path.name: path.read_bytes() for path in file.parent.iterdir()} == {"report.json": b"old"}


def test_permissions_allow_others_to_read(tmp_path: Path) -> None:
    write_atomically(tmp_path / "plain", b"")
    write_atomically(tmp_path / "program", b"", mode=0o755)
    rights = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert rights == {"plain": 0o644, "program": 0o755}


def test_a_last_check_can_keep_the_old_file(tmp_path: Path) -> None:
    write_durably(tmp_path / "file", b"old")

    def refuse() -> None:
        raise RuntimeError("changed meanwhile")

    with pytest.raises(RuntimeError, match="changed meanwhile"):
        write_atomically(tmp_path / "file", b"new", last=refuse)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}


def test_a_long_name_works_with_a_temporary_name(tmp_path: Path) -> None:
    file = tmp_path / ("n" * 250)
    write_atomically(file, b"data")
    assert file.read_bytes() == b"data"


def test_a_line_after_an_incomplete_one_starts_a_new_line(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "cells.jsonl"
    append_lines(file, ["one", "two"])
    file.write_bytes(file.read_bytes()[:-2])
    append_lines(file, ["three"], durable=False)
    assert file.read_bytes() == b"one\ntw\nthree\n"


@pytest.mark.parametrize("there", [False, True])
def test_a_new_folder_replaces_the_old_one_as_a_whole(there: bool, tmp_path: Path) -> None:
    target = tmp_path / "made"
    if there:
        (target / "old").mkdir(parents=True)
    with new_folder(target) as folder:
        (folder / "new").write_bytes(b"")
        assert target.exists() is there
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


@pytest.mark.parametrize("fails", ["block", "last", "rename"])
def test_a_new_folder_that_fails_leaves_the_old_one(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "made"
    (target / "old").mkdir(parents=True)

    def fail(*_: object) -> Path:
        raise OSError("no space left on device")

    rename = Path.rename
    if fails == "rename":

        def flaky(self: Path, to: Path) -> Path:
            return rename(self, to) if self.name in ("made", "old") else fail()

        monkeypatch.setattr(Path, "rename", flaky)
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.raises(OSError, match="no space"))
        stack.enter_context(new_folder(target, last=fail if fails == "last" else lambda: None))
        if fails == "block":
            fail()
    assert [path.name for path in target.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [target]
