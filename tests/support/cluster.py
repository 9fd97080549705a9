"""Clusters that Dask's own commands start, as processes of this machine."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.core.run import Run

_WAIT_S = 60.0


class Cluster:
    """A scheduler and its nodes, as processes."""

    def __init__(self, environ: Mapping[str, str], folder: Path) -> None:
        self._environ, self._folder = environ, folder
        folder.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self.scheduler = self._started("scheduler", "scheduler", "--host", "127.0.0.1", "--port", str(self.port))

    @property
    def address(self) -> str:
        """What --cluster takes."""
        return f"dask://127.0.0.1:{self.port}"

    def node(self, name: str, *options: str, **environ: str) -> None:
        """Start a node."""
        self.nodes[name] = self._started(
            name, "worker", f"tcp://127.0.0.1:{self.port}", "--nworkers", "1", "--nthreads", "2", "--name", name,
            "--local-directory", str(self._folder / name), *options, **environ,
        )  # fmt: skip

    def ready(self) -> None:
        """Wait until the nodes that were started are there."""
        said = self._folder / "scheduler.log"
        end = time.monotonic() + _WAIT_S
        while said.read_text().count("Register worker") < len(self.nodes):
            assert time.monotonic() < end, said.read_text()
            time.sleep(0.05)

    def computes(self) -> int:
        """A process of a node that has a worker, which computes; 0 if none has."""
        for status in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (status / "cmdline").read_bytes().split(b"\0")
                if b"--serve" in words and any(word.endswith(b"harness/worker") for word in words):
                    number = int(status.name)
                    with contextlib.suppress(LookupError):
                        nanny = self.nodes[self.at(number)].pid
                        while _parent(number) != nanny:
                            number = _parent(number)
                        return number
        return 0

    def at(self, pid: int) -> str:
        """The node that a process belongs to."""
        numbers = {process.pid: name for name, process in self.nodes.items()}
        while pid > 1:
            if pid in numbers:
                return numbers[pid]
            pid = _parent(pid)
        raise LookupError("it is of no node")

    def kill(self, name: str) -> None:
        """End a node at once."""
        process = self.nodes.pop(name)
        process.kill()
        process.wait()

    def end(self) -> None:
        """End all of it."""
        for process in (*self.nodes.values(), self.scheduler):
            process.terminate()  # a nanny ends its worker process
        for process in (*self.nodes.values(), self.scheduler):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _started(self, name: str, *words: str, **more: str) -> subprocess.Popen[bytes]:
        environ = {**self._environ, **more}
        with (self._folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", *words, "--no-dashboard"], env=environ, cwd=self._folder, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def told(run: Run) -> Any:
    """A report without times, its own name and command, and what a second run remembers."""
    own = {"id", "created", "command", "timings", "notices", "duration_s"}
    found = _figures(run.model_dump(mode="json", exclude=own))
    cells = [{key: value for key, value in cell.items() if key != "remembered"} for cell in found["cells"]]
    return {**found, "cells": sorted(cells, key=lambda cell: str(cell["id"]))}


def _figures(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _figures(one) for key, one in value.items() if not key.endswith("_s") and key != "reproduce"}
    return [_figures(one) for one in value] if isinstance(value, list) else value
