"""An environment that a process uses is not deleted: by locks, and where there are none by files that name it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.core.progress import quiet
from harness.envs import cached
from harness.envs.environment import EnvFailed
from harness.worker import in_use
from tests.envs.test_envs_build import environments, make_wheel, room

__all__ = ["room"]
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def built(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "envs" / "v1-000000000000"
    directory.mkdir(parents=True)
    (directory / in_use.STAMP).touch()
    yield directory
    in_use.release(str(directory))


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a process that says when it is ready, and ends with its stdin."""
    command = [sys.executable, "-c", textwrap.dedent(code) + "\nprint('ready', flush=True)\nsys.stdin.read()"]
    process = subprocess.Popen(
        [*command, *map(str, arguments)], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().endswith("ready\n")
    return process


def ended(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=60)


HOLD = "import sys; from harness.worker import in_use; in_use.hold(sys.argv[1])"


def test_it_is_kept_while_any_process_uses_it(built: Path) -> None:
    log: list[str] = []
    users = [python(HOLD, built), python(HOLD, built)]
    assert not cached.delete(built, log.append)
    assert log == [f"kept, because another process builds or uses it: {built}"]
    ended(users[0])
    assert not cached.delete(built, log.append)
    ended(users[1])
    assert cached.delete(built, log.append)
    assert not built.exists()


def test_a_fork_keeps_it_when_its_parent_is_killed(built: Path) -> None:
    child = """
        import os, sys
        from harness.worker import in_use
        in_use.hold(sys.argv[1])
        if os.fork():
            os.kill(os.getpid(), 9)
    """
    parent = python(child, built)
    assert parent.wait() == -9
    assert not cached.delete(built, quiet)
    ended(parent)
    assert cached.delete(built, quiet)


def test_ones_own_use_does_not_keep_it(built: Path) -> None:
    assert in_use.hold(str(built)) == in_use.LOCK
    assert cached.delete(built, quiet)


def test_who_deletes_it_is_waited_for(built: Path) -> None:
    deletes = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire()"
    process = python(deletes, in_use.lock_path(str(built)))
    assert in_use.hold(str(built)) == in_use.BUSY
    ended(process)
    assert in_use.hold(str(built)) == in_use.LOCK


NO_LOCKS = """
    import errno, sys
    from harness.worker import in_use
    def none(_): raise OSError(errno.ENOLCK, "no locks")
    in_use._share = none
    assert in_use.hold(sys.argv[1]) == in_use.MARKER
"""


def test_a_file_names_the_process_where_there_are_no_locks(built: Path) -> None:
    process = python(NO_LOCKS, built)
    assert in_use.marked_by(str(built)) == [process.pid]
    assert not cached.delete(built, quiet)
    process.kill()  # its marker stays
    ended(process)
    assert cached.delete(built, quiet)
    assert list(built.parent.glob(".*used-by*")) == []


def test_a_later_process_with_the_same_number_is_another_one(built: Path) -> None:
    marker = Path(f"{in_use.lock_path(str(built))}.used-by-{os.getpid()}-1")
    marker.touch()
    assert in_use.marked_by(str(built)) == []
    assert not marker.exists()


def test_a_file_system_without_locks_is_said(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(in_use, "_share", none)
    log: list[str] = []
    directory = environments(room, log).build("current").python.parent.parent
    assert log[-1].startswith(f"no locks on the file system of {directory.parent}")
    in_use.release(str(directory))
    assert cached.delete(directory, quiet)


def out_of_date(room: Path) -> Path:
    """The directory of a build that no declaration needs any more."""
    make_wheel(room / "wheels of mine", "peft", "0.7.0")
    environments(room).lock("current")
    (directory,) = environments(room).gc(dry_run=True)
    return directory


def test_gc_keeps_what_a_controller_uses(room: Path) -> None:
    build = """
        import sys, pathlib
        from harness.envs.environments import Environments
        Environments(pathlib.Path(sys.argv[1])).build("current")
    """
    controller = python(build, room / "matrices")
    directory = out_of_date(room)
    assert environments(room).gc(dry_run=False) == []
    ended(controller)
    assert environments(room).gc(dry_run=False) == [directory]


def test_gc_keeps_what_a_worker_without_a_controller_uses(room: Path) -> None:
    built = environments(room).build("current")
    worker = subprocess.Popen(
        [built.python, REPOSITORY / "harness" / "worker", "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(b'{"id": "x", "kind": "no such request"}\n')
    worker.stdin.flush()
    assert worker.stdout.readline()
    directory = out_of_date(room)
    assert environments(room).gc(dry_run=False) == []  # releases what this process itself holds
    worker.communicate(timeout=60)
    assert environments(room).gc(dry_run=False) == [directory]


def test_what_another_process_uses_is_not_built_again(room: Path) -> None:
    directory = environments(room).build("current").python.parent.parent
    process = python(HOLD, directory)
    with pytest.raises(EnvFailed, match="another process uses it"):
        environments(room).rebuild("current")
    ended(process)
    environments(room).rebuild("current")


def test_an_interpreter_holds_its_environment_and_the_one_below(built: Path) -> None:
    above = built.with_name("checkout-peft-111111111111")
    above.mkdir()
    (above / in_use.STAMP).write_text(json.dumps({in_use.BELOW: str(built)}))
    process = python("import sys; from harness.worker import in_use; in_use.hold_own(sys.argv[1])", above)
    assert not cached.delete(above, quiet)
    assert not cached.delete(built, quiet)
    ended(process)
    assert cached.delete(built, quiet)


@pytest.mark.parametrize("stamp", [None, "", "[]", "{}"])
def test_an_interpreter_of_the_user_holds_nothing(built: Path, stamp: str | None) -> None:
    (built / in_use.STAMP).unlink()
    if stamp is not None:
        (built / in_use.STAMP).write_text(stamp)
    in_use.hold_own(str(built))
    assert cached.delete(built, quiet)
