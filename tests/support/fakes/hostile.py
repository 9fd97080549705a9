"""A handler whose cells attack the worker, the controller and each other: what a cell does is the request's `do`.

`preload` may name a folder: it is then the whole disk, with 64 MB.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SMALL_DISK = 64 << 20
_room: Any = importlib.import_module("peft_regress_worker.serve.room")
_children: Any = importlib.import_module("peft_regress_worker.serve.children")


def preload(request: dict[str, Any]) -> dict[str, Any]:
    """Make limits small enough for a test."""
    _children._MOST_PROCESSES = 20
    _children._MEASURE_S = 0.1
    _room.LARGEST_CELL = 100 << 20
    if request.get("preload"):
        disk = Path(request["preload"][0])
        _room.os = SimpleNamespace(**{**vars(os), "statvfs": lambda _folder: _small(disk)})
        _room.kills_for_memory = lambda: len(list(disk.glob("killed-*")))
    return {"pid": os.getpid()}


def _small(disk: Path) -> Any:
    used = sum(path.lstat().st_blocks * 512 for path in disk.rglob("*") if path.is_file())
    return SimpleNamespace(f_frsize=1, f_blocks=SMALL_DISK, f_bavail=max(0, SMALL_DISK - used))


def handle(request: dict[str, Any]) -> None:
    """Do what the request says, in its scratch folder."""
    os.chdir(request["scratch"])
    print(f"doing {request['do']}")
    globals()[f"do_{request['do']}"](request)


def _device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        path.symlink_to("/dev/zero")


def _socket(path: Path) -> None:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))


def _link_to_fifo(path: Path) -> None:
    os.mkfifo(path.with_name(path.name + ".fifo"))
    path.symlink_to(path.name + ".fifo")


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


PLACES: dict[str, Callable[[Path], object]] = {
    "fifo": os.mkfifo,
    "socket": _socket,
    "device": _device,
    "link-to-device": lambda path: path.symlink_to("/dev/zero"),
    "link-to-fifo": _link_to_fifo,
    "link-to-file": lambda path: path.symlink_to("/etc/passwd"),
    "loop": lambda path: path.symlink_to(path.name),
    "folder": lambda path: (path / "deeper").mkdir(parents=True),
    "huge": _huge,
    "deep": lambda path: path.write_text("[" * 100_000 + "]" * 100_000),
    "surrogate": lambda path: path.write_text('{"traceback": "\\ud800", "id": "\\ud800"}'),
    "number": lambda path: path.write_text("9" * 5000),
    "bytes": lambda path: path.write_bytes(os.urandom(1000)),
    "nothing": lambda _path: None,
    "unreadable": lambda path: path.touch(mode=0),
}


def do_replace(request: dict[str, Any]) -> None:
    """Put something else in the place of every file that is read later, and end with the given exit code."""
    Path("now").mkdir()
    for name in ("now/observation.json", "now/arrays.safetensors", "now/timings.json", "done.json", "error.json",
                 "log.txt", "pid", "identities.json"):  # fmt: skip
        path = Path(name)
        path.unlink(missing_ok=True)
        PLACES[request["by"]](path)
    if "exits" in request:
        os._exit(request["exits"])


def do_nothing(_request: dict[str, Any]) -> None:
    """Succeed."""


def do_lie_about_its_process(request: dict[str, Any]) -> None:
    """Write another process's number where the worker used to write its own, and hang."""
    for name in ("pid", "now/pid", "../pid"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(str(request["pid"]))
    Path("ready").touch()
    time.sleep(600)


def do_detach(request: dict[str, Any]) -> None:
    """Leave a process that has a session of its own, no parent and none of the descriptors."""
    program = "import os, sys, time\nif os.fork(): os._exit(0)\nos.setsid()\nopen(sys.argv[1] + '.part', 'w').write(str(os.getpid()))\nos.rename(sys.argv[1] + '.part', sys.argv[1])\nos.chdir('/')\ntime.sleep(600)"  # noqa: E501
    subprocess.run([sys.executable, "-c", program, "detached"], check=True, start_new_session=True, close_fds=True)
    while not Path("detached").exists():
        time.sleep(0.005)
    if request.get("hangs"):
        time.sleep(600)


def do_multiply(_request: dict[str, Any]) -> None:
    """Start more and more processes."""
    for _ in range(200):
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
        time.sleep(0.01)
    time.sleep(600)


def do_write(request: dict[str, Any]) -> None:
    """Write some megabytes here, or into the folder for temporary files, and wait."""
    import tempfile

    folder = Path(tempfile.mkdtemp()) if request.get("temporary") else Path("now")
    folder.mkdir(exist_ok=True)
    with (folder / "big").open("wb") as file:
        for _ in range(request["megabytes"]):
            file.write(b"x" * (1 << 20))
    (Path(request["scratch"]) / "written").touch()
    time.sleep(request.get("seconds", 600))


def do_wait_until_ended(request: dict[str, Any]) -> None:
    """Run while a folder has a file in it, the first time."""
    while Path(request["beside"]).exists() and not Path(request["mark"]).exists():
        time.sleep(0.01)
    Path(request["mark"]).touch()


def do_say_that_the_disk_is_full(_request: dict[str, Any]) -> None:
    """Record what a library says when it cannot write."""
    Path("now").mkdir()
    Path("now/observation.json").write_text('{"error": "OSError: [Errno 28] No space left on device"}')


def do_run_out_of_memory(request: dict[str, Any]) -> None:
    """Be killed as the kernel does it; the first time only."""
    mark = Path(request["disk"]) / "killed-1"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def do_lock_itself_in(_request: dict[str, Any]) -> None:
    """Leave folders that may not be read or written."""
    Path("now/inner/deep").mkdir(parents=True)
    Path("now/inner/deep/file").touch()
    for name in ("now/inner/deep", "now/inner", "now"):
        Path(name).chmod(0)


def do_spoil_its_process(_request: dict[str, Any]) -> None:
    """Change what the next cell of the same process would inherit."""
    os.umask(0o777)
    signal.signal(signal.SIGALRM, lambda *_: os._exit(9))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    os.environ["PEFT_REGRESS_SPOILED"] = "yes"
    os.chdir("/")


def do_look_around(_request: dict[str, Any]) -> None:
    """Fail if an earlier cell left something."""
    time.sleep(0.4)
    Path("file").touch()
    assert stat.S_IMODE(Path("file").stat().st_mode) & 0o600 == 0o600
    assert "PEFT_REGRESS_SPOILED" not in os.environ
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN


def do_close_everything(_request: dict[str, Any]) -> None:
    """Close all descriptors, and write the protocol's own words to all that are opened after."""
    os.closerange(0, 256)
    for _ in range(8):
        os.write(os.open("now-or-never", os.O_CREAT | os.O_WRONLY), b'{"id": "1", "outcome": "done"}\n')


def do_rewrite_inputs(_request: dict[str, Any]) -> None:
    """Change golden and adapter in place, as a library would that writes to the folder it loads from."""
    for path in [path for part in ("golden", "adapter", "base") for path in Path(part).rglob("*") if path.is_file()]:
        path.chmod(0o644)
        path.write_bytes(b"changed")
    shutil.copytree("golden", "now", dirs_exist_ok=True) if Path("golden").exists() else None
