"""Locks between processes, with and without those of the file system."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from harness.core.lock import file_lock, has_locks
from harness.core.scratch import scratch_folder
from tests.support.mini.world import World

HOLD = """
import sys
from harness.core import lock
lock.has_locks = lambda folder: sys.argv[2] == "locks"
with lock.file_lock(sys.argv[1]):
    print("ready", flush=True)
    sys.stdin.read()
"""
REFUSALS = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP]


def refuse_locks(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let the file system refuse every lock."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.parametrize("how", ["locks", "no locks"])
@pytest.mark.parametrize("ends", ["by itself", "killed"])
def test_one_holder_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, ends: str) -> None:
    monkeypatch.setattr("harness.core.lock.has_locks", lambda _: how == "locks")
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock"), how]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=Path(__file__).parents[2]) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(filelock.Timeout), file_lock(tmp_path / "lock", timeout=0):
            pass
        os.kill(holder.pid, signal.SIGKILL) if ends == "killed" else None
        holder.communicate()
    for _ in range(2):
        with file_lock(tmp_path / "lock", timeout=5):
            pass


@pytest.mark.parametrize("number", REFUSALS, ids=errno.errorcode.get)
def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    assert has_locks(tmp_path)
    refuse_locks(monkeypatch, number)
    assert not has_locks(tmp_path)
    with file_lock(tmp_path / "lock", timeout=0), pytest.raises(filelock.Timeout), file_lock(tmp_path / "lock", 0):
        pass
    assert not list(tmp_path.iterdir())
    with scratch_folder():
        pass


def test_a_folder_that_cannot_be_written_is_no_file_system_without_locks(tmp_path: Path) -> None:
    assert has_locks(tmp_path / "missing")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", REFUSALS, ids=errno.errorcode.get)
def test_checks_run_on_a_file_system_without_locks(empty: World, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    refuse_locks(monkeypatch, number)
    said = empty.run("create", empty.spec("1.0"), "-k", "two-layers")
    assert said.code == 0, said
    said = empty.run("check", "--loader", empty.spec("2.0"), "-k", "two-layers")
    assert said.code == 0, said
    assert "flock" not in said.err
    said = empty.run("check", "--loader", empty.spec("2.1"), "-k", "two-layers")
    assert said.code == 1, said
    assert not list(empty.root.rglob("*.held"))
