"""Attacks by single cells with the real libraries: a handler for the worker (`--worker-handler`).

The variable PEFT_REGRESS_ATTACKS holds JSON: `scenario@creator` → one of the functions `before_…` or `after_…` below.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_cell = importlib.import_module("peft_regress_worker.observe.cell")
_attacks: dict[str, str] = json.loads(os.environ["PEFT_REGRESS_ATTACKS"])

preload = _cell.preload
warm_up = _cell.warm_up
is_sound = _cell.is_sound


def handle(request: dict[str, Any]) -> None:
    """Do what the worker does, with an attack before or after it."""
    cell = next((part for part in Path(request["scratch"]).parts if "@" in part), "")
    name = _attacks.get(cell.partition(":")[0], "")
    os.chdir(request["scratch"])
    if name.startswith("before"):
        globals()[name](request)
    _cell.handle(request)
    if name.startswith("after"):
        globals()[name](request)


def before_breaking_and_forging(_request: dict[str, Any]) -> None:
    """Compute something else; what then stands in `golden` is this cell's own result."""
    import peft

    layer = peft.tuners.lora.layer.Linear
    right = layer.forward
    layer.forward = lambda self, x, *args, **kwargs: right(self, x, *args, **kwargs) * 1.5
    for path in Path("golden").iterdir():
        path.chmod(0o644)
    real = _cell.Observation.write

    def write(observation: Any, folder: str) -> None:
        real(observation, folder)
        real(observation, "golden")

    _cell.Observation.write = write


def after_fifo(_request: dict[str, Any]) -> None:
    """A pipe that nobody writes to."""
    Path("now/arrays.safetensors").unlink()
    os.mkfifo("now/arrays.safetensors")


def after_endless_file(_request: dict[str, Any]) -> None:
    """A file that never ends."""
    Path("now/observation.json").unlink()
    Path("now/observation.json").symlink_to("/dev/zero")


def after_detaching(_request: dict[str, Any]) -> None:
    """A process of a session of its own, for the test to look for."""
    program = "import os, time\nif os.fork(): os._exit(0)\nos.setsid()\nos.chdir('/')\ntime.sleep(654.321)"
    subprocess.run([sys.executable, "-c", program, os.environ["PEFT_REGRESS_MARK"]], check=True, close_fds=True)
    time.sleep(0.5)


def before_lying_about_its_process(_request: dict[str, Any]) -> None:
    """The numbers of the worker, of its parent and of all processes, where one was kept before."""
    for place, number in (("pid", 0), ("../pid", -1), ("now", os.getppid())):
        Path(place).write_text(str(number)) if place != "now" else None


def after_flooding(_request: dict[str, Any]) -> None:
    """100 MB on all streams, with control characters."""
    for _ in range(100):
        os.write(1, b"\x1b[2J\x1b]0;title\x07" * (1 << 16))


def before_killing_the_worker(_request: dict[str, Any]) -> None:
    """The parent of every cell."""
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)


def after_stopping_the_worker(_request: dict[str, Any]) -> None:
    """As a debugger would."""
    os.kill(os.getppid(), signal.SIGSTOP)


def before_multiplying(_request: dict[str, Any]) -> None:
    """Many processes, each with the memory of the libraries."""
    for _ in range(700):
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
    time.sleep(600)


def before_waiting_forever(_request: dict[str, Any]) -> None:
    """A deadlock."""
    signal.pause()


def after_linking(_request: dict[str, Any]) -> None:
    """Fail if a file of the fixture is one with the store's."""
    files = [path for part in ("golden", "adapter", "base") for path in Path(part).rglob("*") if path.is_file()]
    assert files
    assert {path.stat().st_nlink for path in files} == {1}
