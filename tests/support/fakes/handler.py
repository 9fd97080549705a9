"""A stand-in for `cell.py`: does to its process whatever the request's `do` says."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

_MEGABYTE = "x" * (1 << 20)


def preload(request: dict[str, Any]) -> dict[str, Any]:
    """Says which process serves; fails or hangs where `preload` asks for it."""
    wish = (request.get("preload") or [""])[0]
    print("printed at import")
    if wish == "raise":
        raise ImportError("no module named frobnicate")
    if wish == "exit":
        os._exit(3)
    if wish == "hang":
        time.sleep(600)
    return {"pid": os.getpid(), "argv": sys.argv, "path": sys.path, "pythonpath": os.environ.get("PYTHONPATH")}


def handle(request: dict[str, Any]) -> None:
    """Does what the request says, in its scratch folder."""
    os.chdir(request["scratch"])
    name = request.get("do", "nothing")
    print(f"doing {name}")
    globals()[f"do_{name}"](request)
    Path("now").mkdir(exist_ok=True)
    Path("now/result.json").write_text(json.dumps({"pid": os.getpid(), "given": request.get("given")}))


def do_nothing(_request: dict[str, Any]) -> None:
    """Succeeds."""


def do_meet(request: dict[str, Any]) -> None:
    """Succeeds only while another cell of the same meeting runs."""
    place = Path(request["meeting"])
    (place / request["id"]).touch()
    while len(list(place.iterdir())) < 2:
        time.sleep(0.005)


def do_wait_for(request: dict[str, Any]) -> None:
    """Runs until a file is there."""
    while not Path(request["file"]).exists():
        time.sleep(0.005)


def do_raise(request: dict[str, Any]) -> None:
    """A mistake in the harness's own part of the worker."""
    raise ValueError(request.get("text", "a mistake of ours"))


def do_sigkill(_request: dict[str, Any]) -> None:
    """What the kernel does to a process that took too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def do_sigsegv(_request: dict[str, Any]) -> None:
    """A wild pointer."""
    ctypes.string_at(0)


def do_exit(_request: dict[str, Any]) -> None:
    """A library that ends the process and calls it a success."""
    os._exit(0)


def do_kill_server(_request: dict[str, Any]) -> None:
    """Takes the whole worker along."""
    print("about to kill the server", flush=True)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)


def do_kill_server_once(request: dict[str, Any]) -> None:
    """Takes the whole worker along, the first time."""
    mark = Path(request["mark"])
    if not mark.exists():
        mark.touch()
        do_kill_server(request)


def do_exit_and_hold(_request: dict[str, Any]) -> None:
    """Ends the process, while a copy of it keeps all of its descriptors."""
    if os.fork() == 0:
        time.sleep(600)
    os._exit(3)


def do_stop_server(_request: dict[str, Any]) -> None:
    """Leaves a worker that is alive and never replies."""
    os.kill(os.getppid(), signal.SIGSTOP)


def do_stop_itself(_request: dict[str, Any]) -> None:
    """Stops, as by Ctrl-Z."""
    os.kill(os.getpid(), signal.SIGSTOP)


def do_deadlock(_request: dict[str, Any]) -> None:
    """Waits for a lock that nobody releases."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def do_pause(_request: dict[str, Any]) -> None:
    """Waits for any signal."""
    signal.pause()


def do_loop_once(request: dict[str, Any]) -> None:
    """Never ends, the first time."""
    mark = Path(request["mark"])
    if not mark.exists():
        mark.touch()
        do_loop(request)


def do_compute(request: dict[str, Any]) -> None:
    """Takes some seconds of a processor."""
    end = time.process_time() + request["seconds"]
    while time.process_time() < end:
        pass


def do_compute_last(request: dict[str, Any]) -> None:
    """The same, on a processor that nobody else wants."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with contextlib.suppress(OSError):  # where the kernel shares processors among sessions, and not processes
        Path("/proc/self/autogroup").write_text("19")
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    do_compute(request)


def do_loop(_request: dict[str, Any]) -> None:
    """Never ends, and never lets Python handle a signal politely."""
    while True:
        pass


def do_stubborn(_request: dict[str, Any]) -> None:
    """Never ends, ignores SIGTERM, and has a child that does so too; their numbers are in `pids`."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, 1); time.sleep(600)"])
    Path("pids.partial").write_text(f"{os.getpid()} {child.pid}")
    Path("pids.partial").replace("pids")
    time.sleep(600)


def do_leave_child(_request: dict[str, Any]) -> None:
    """Succeeds and leaves a process behind that holds its descriptors."""
    child = subprocess.Popen(["sleep", "600"])
    Path("pids").write_text(str(child.pid))


def do_print(_request: dict[str, Any]) -> None:
    """Prints 100 MB, by Python, by descriptor and by another process; looks like the protocol too."""
    print("the first line")
    os.write(1, b'{"id": "forged", "outcome": "done"}\n')
    for _ in range(34):
        print(_MEGABYTE)
        os.write(1, _MEGABYTE.encode())
    subprocess.run([sys.executable, "-c", "import os; [os.write(1, b'y' * (1 << 20)) for _ in range(34)]"], check=True)
    print("the last line")


def do_print_in_c(_request: dict[str, Any]) -> None:
    """Prints through C's own buffer."""
    libc = ctypes.CDLL(None)
    libc.puts(b"from C")
    libc.puts(b'{"id": "forged", "outcome": "done"}')
    libc.write(1, b"from C, unbuffered\n", 19)
    os.system("echo from a shell")
