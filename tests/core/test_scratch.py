"""Temporary folders of processes that were killed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import filelock
import pytest

from harness.core import scratch
from harness.core.scratch import scratch_folder

PROGRAM = """
import sys
from harness.core.scratch import scratch_folder

with scratch_folder("test") as folder:
    (folder / "file").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of this test only."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def process() -> tuple[subprocess.Popen[str], Path]:
    """A process that has such a folder."""
    started = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=-1, stdout=-1, text=True, cwd=Path(__file__).parents[2]
    )
    assert started.stdout is not None
    return started, Path(started.stdout.readline().strip())


def test_it_is_removed_after_the_block_with_all_that_is_in_it() -> None:
    with scratch_folder() as folder:
        (folder / "a" / "b").mkdir(parents=True)
        (folder / "a" / "b").chmod(0)
        (folder / "a").chmod(0)
    assert not folder.exists()


def test_that_of_a_killed_process_is_removed_by_the_next() -> None:
    killed, abandoned = process()
    running, used = process()
    killed.kill()
    killed.communicate()
    with scratch_folder():
        assert not abandoned.exists()
        assert used.exists()
    running.communicate()
    assert not used.exists()


def test_nothing_else_is_removed(temporary: Path) -> None:
    (temporary / "peft-regress-mine").mkdir()
    (temporary / "peft-regress-file").touch()
    (temporary / "elsewhere").mkdir()
    (temporary / "elsewhere" / ".owner").touch()
    (temporary / "peft-regress-link").symlink_to(temporary / "elsewhere")
    os.mkfifo(temporary / "peft-regress-mine" / ".owner")
    with scratch_folder():
        pass
    assert {path.name for path in temporary.iterdir()} == {
        "peft-regress-mine", "peft-regress-file", "peft-regress-link", "elsewhere",
    }  # fmt: skip


def test_one_that_is_not_locked_yet_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process looks for abandoned folders while this one has made its folder, and does not hold the lock."""
    acquire = filelock.FileLock.acquire

    def acquire_late(lock: filelock.FileLock, **options: object) -> object:
        monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
        Path(lock.lock_file).touch()
        (Path(lock.lock_file).parent / "file").touch()
        scratch.remove_abandoned()
        return acquire(lock, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire_late)
    with scratch_folder() as folder:
        assert (folder / "file").exists()


def test_who_sees_no_locks_leaves_the_folders_of_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    running, used = process()

    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refused)
    with scratch_folder():
        assert used.exists()
    running.communicate()


def test_without_locks_it_is_removed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refused)
    with scratch_folder() as folder, scratch_folder() as other:
        assert folder.is_dir()
        assert other.is_dir()
    assert not folder.exists()
    assert not other.exists()
