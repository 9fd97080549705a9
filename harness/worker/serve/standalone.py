"""Runs the cells of a plan without a controller. The controller judges the results folder later.

    PLAN.json = {"format": 1, "preload": [...], "cells": [{"id", "kind", "scenario", "fixture", "time_limit_s", …}]}
    DIR/hello.json                     the facts of the environment (hello-1.json … of further GPUs)
    DIR/worker.log                     what libraries printed at import
    DIR/cells/<n>/request.json         the cell as the plan has it, n = its place in the plan
    DIR/cells/<n>/reply.json           how it ended (as in the protocol); written last: a cell with a reply is done
    DIR/cells/<n>/log.txt, now/, …     its output and results

With several visible GPUs there is a process for each; they share the cells.

`fixture` is a folder beside the plan. Its content is copied into the cell's folder, and removed after the run.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from ..files import read_json, remove, tree_digest
from ..process import VISIBLE_GPUS, visible_gpus
from ..shared import PLAN_FORMAT, Reply, Request
from . import room
from .children import DEFAULT_LIMIT_S, Children
from .in_process import InProcess
from .server import Handler
from .work import redirect

_ONCE = "PEFT_REGRESS_ONCE"
_SHARE = "PEFT_REGRESS_SHARE"
"""Number of this process and of all, as in `1/4`: it runs every fourth cell."""
_POLL_S = 0.005
_OK, _CANNOT_TELL, _USAGE, _AGAIN, _INTERRUPTED = 0, 2, 64, 75, 130


class PlanError(Exception):
    """The plan cannot be read, or no cell of it is selected."""


def main(options: argparse.Namespace, handler_file: Path | None, forks: bool) -> int:
    """Run the remaining cells of the plan; returns the exit code."""
    try:
        if options.out is None:
            raise PlanError("--plan needs --out DIR, where the observations go")
        cells, preload = _read(options.plan, options.k)
    except PlanError as error:
        print(f"worker: {error}", file=sys.stderr)
        return _USAGE
    run = _Run(options, cells, preload)
    try:
        if forks:
            return run.forked(handler_file)
        return run.in_process(handler_file) if os.environ.get(_ONCE) else _on_each_device(run, options, cells)
    except KeyboardInterrupt:
        run.say("interrupted; run the same command to continue")
        return _INTERRUPTED


class _Cell:
    """One cell of the plan with its folder."""

    def __init__(self, number: int, content: dict[str, Any], plan: Path) -> None:
        self.number = number
        self.content = content
        self.fixture = plan.parent / content["fixture"] if content.get("fixture") else None
        self.id = content["id"]

    def folder(self, out: Path) -> Path:
        return out / "cells" / str(self.number)


def _read(plan: Path, pattern: str) -> tuple[list[_Cell], list[Any]]:
    try:
        content = read_json(plan, links=True)
    except (OSError, ValueError) as error:
        raise PlanError(f"{plan}: {error}; expected a plan file (see --help)") from error
    if not isinstance(content, dict) or content.get("format") != PLAN_FORMAT:
        raise PlanError(f"{plan}: not a plan of format {PLAN_FORMAT}: export it again")
    if problem := _problem(content):
        raise PlanError(f"{plan}: {problem}: export it again")
    cells = [_Cell(number, cell, plan) for number, cell in enumerate(content["cells"])]
    chosen = [cell for cell in cells if fnmatch.fnmatch(cell.id, _glob(pattern))]
    if not chosen:
        raise PlanError(f"{plan}: none of its {len(cells)} cells matches {pattern!r}")
    return chosen, list(content.get("preload", []))


def _problem(content: Mapping[str, Any]) -> str:
    """What is wrong with a plan; empty if nothing is."""
    if not isinstance(content.get("cells"), list) or not isinstance(content.get("preload", []), list):
        return "`cells` and `preload` are not lists"
    for number, cell in enumerate(content["cells"]):
        if not isinstance(cell, dict):
            return f"cell {number} is not a table"
        if wrong := [key for key, is_right in _RIGHT.items() if not is_right(cell.get(key))]:
            return f"cell {number} has no usable {' and '.join(f'`{key}`' for key in wrong)}"
    return ""


def _is_inside(fixture: Any) -> bool:
    """True for the path of a folder that is not outside of the plan's."""
    return isinstance(fixture, str) and not os.path.isabs(fixture) and ".." not in Path(fixture).parts


_RIGHT: Mapping[str, Callable[[Any], bool]] = {
    "id": lambda id: isinstance(id, str) and id.isprintable(),
    "kind": lambda kind: isinstance(kind, str),
    "scenario": lambda scenario: isinstance(scenario, dict),
    "fixture": lambda fixture: not fixture or _is_inside(fixture),
    "time_limit_s": lambda limit: limit is None or (isinstance(limit, (int, float)) and 0 < limit < float("inf")),
}
"""Key of a cell → whether its value can be used. The controller checks what it exported by hash; this keeps a damaged
plan from ending the worker, and its cells from writing control characters to the terminal."""


def _glob(pattern: str) -> str:
    # Ids contain `[cpu]`: brackets are literal.
    escaped = pattern.replace("[", "[[]")
    return escaped if "*" in pattern or "?" in pattern else f"*{escaped}*"


class _Run:
    """One pass over the plan."""

    def __init__(
        self,
        options: argparse.Namespace,
        cells: list[_Cell],
        preload: list[Any],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.out = options.out.resolve()
        self.device = options.device
        self.jobs = max(1, options.jobs)
        self.share, self.shares = _share(environ)
        self.cells = cells[self.share :: self.shares]
        self.preload = preload
        self._done = 0
        self._terminal = os.dup(2)  # 1 and 2 become a log
        self.out.mkdir(parents=True, exist_ok=True)

    def forked(self, handler_file: Path | None) -> int:
        """Run each cell in its own child, several at once."""
        handler = self._hello(handler_file)
        if handler is None:
            return _CANNOT_TELL
        children = Children(handler, [self._terminal])
        children.warmed_up()
        waiting = self._left()
        running: dict[str | None, _Cell] = {}
        try:
            while True:
                for cell in _take(waiting, self.jobs - len(running)):
                    if (request := self._prepared(cell)) is not None:
                        running[str(cell.number)] = cell
                        children.start(request)
                if not running and not waiting:
                    return _OK
                for reply in children.collect():
                    self._finish(running.pop(reply["id"]), reply)
                time.sleep(min(children.timeout() or 0.0, _POLL_S))
        finally:
            children.kill_all()

    def in_process(self, handler_file: Path | None) -> int:
        """Run one cell after the other in this process, which a cell can end."""
        handler = self._hello(handler_file)
        if handler is None:
            return _CANNOT_TELL
        runner = InProcess(handler)
        for cell in self._left():
            if (request := self._prepared(cell)) is None:
                continue
            started = cell.folder(self.out) / "started"
            started.touch()
            try:
                runner.start(request)
            except KeyboardInterrupt:
                started.unlink()
                raise
            for reply in runner.collect():
                self._finish(cell, reply)
            if not runner.is_sound:
                self.say("the device no longer works in this process; continuing in a fresh one")
                return _AGAIN
        return _OK

    def blame(self) -> int:
        """Write a reply for the cell that was running when the process ended; returns how many there were."""
        blamed = 0
        left = self._left()
        self._done = len(self.cells) - len(left)
        for cell in left:
            started = cell.folder(self.out) / "started"
            if started.exists():
                duration_s = _seconds_since(started)
                late = duration_s >= float(cell.content.get("time_limit_s") or DEFAULT_LIMIT_S)
                reply: Reply = {
                    "outcome": "timeout" if late else "died",
                    "signal": None,
                    "exit": None,
                    "max_rss_mb": None,
                    "detail": "the process ended while it worked on this cell",
                    "duration_s": round(duration_s, 3),
                }
                self._finish(cell, reply)
                blamed += 1
        return blamed

    def say(self, text: str) -> None:
        """Write a line to the terminal, without what could control it; descriptor 2 may be a log by now."""
        shown = "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)
        with contextlib.suppress(OSError):
            os.write(self._terminal, (shown + "\n").encode())

    def _hello(self, handler_file: Path | None) -> Handler | None:
        left = len(self._left())
        self._done = len(self.cells) - left
        self.say(f"{left} of {len(self.cells)} cells to run; {self._done} are done")
        if not left:
            return Handler(handler_file)
        number = f"-{self.share}" if self.share else ""
        redirect(self.out / f"worker{number}.log")
        handler = Handler(handler_file)
        reply = handler.hello({"id": "hello", "kind": "hello", "device": self.device, "preload": self.preload})
        _write(self.out / f"hello{number}.json", reply)
        if reply["outcome"] != "done":
            self.say(f"the environment does not import:\n{reply['detail']}")
            return None
        gpu = reply["facts"].get("gpu") or {}
        if self.device != "cpu" and gpu and not gpu.get("usable"):
            self.say(f"no device: {self.device} cannot be used here: {gpu.get('why')}")
            return None
        self.say(f"imported in {reply['duration_s']:.1f} s")
        return handler

    def _left(self) -> list[_Cell]:
        return [cell for cell in self.cells if not self._is_done(cell)]

    def _is_done(self, cell: _Cell) -> bool:
        folder = cell.folder(self.out)
        try:
            asked, _ = read_json(folder / "request.json"), read_json(folder / "reply.json")
        except (OSError, ValueError):
            return False
        return bool(asked == {**cell.content, "device": self.device})  # another plan may have been in the same place

    def _prepared(self, cell: _Cell) -> Request | None:
        """The cell's request, its folder filled; None for a cell that cannot be run, which then has its reply."""
        try:
            return self._prepare(cell)
        except (OSError, shutil.Error, PlanError) as error:
            full = isinstance(error, OSError) and error.errno in room.FULL
            detail = f"its folder could not be filled: {error}"
            self._finish(cell, {"outcome": "starved" if full else "error", "detail": detail, "duration_s": 0.0})
            return None

    def _prepare(self, cell: _Cell) -> Request:
        folder = cell.folder(self.out)
        remove(folder)
        if cell.fixture is not None:
            asked = cell.content.get("fixture_digest")
            if asked and tree_digest(cell.fixture) != asked:
                raise PlanError(f"{cell.fixture} is not what was exported; expected SHA-256 {asked}")
            shutil.copytree(cell.fixture, folder)
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "request.json", {**cell.content, "device": self.device})
        where = {"device": self.device, "id": str(cell.number), "scratch": str(folder)}
        return cast(Request, {**cell.content, **where})

    def _finish(self, cell: _Cell, reply: Reply) -> None:
        folder = cell.folder(self.out)
        copied = [entry.name for entry in cell.fixture.iterdir()] if cell.fixture and cell.fixture.is_dir() else []
        for name in [*copied, "done.json", "started", "reply.json", "reply.json.partial"]:
            remove(folder / name)
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "reply.json", {**reply, "id": cell.content["id"]})
        width = len(str(len(self.cells)))
        self._done += 1
        line = f"[{self._done:{width}}/{len(self.cells)}] {reply['outcome']:8}{reply['duration_s']:7.2f} s  {cell.id}"
        self.say(line + (f"  ({reply['detail'].strip().splitlines()[-1]})" if reply.get("detail") else ""))


def _share(environ: Mapping[str, str]) -> tuple[int, int]:
    number, _, count = str(environ.get(_SHARE, "0/1")).partition("/")
    return int(number), int(count)


def _on_each_device(run: _Run, options: argparse.Namespace, cells: list[_Cell]) -> int:
    """A process for each GPU that the caller shows, if there are several; else one that takes what it finds."""
    gpus = visible_gpus(os.environ) if run.device.partition(":")[0] == "cuda" and ":" not in run.device else []
    if len(gpus) < 2:
        return _again_until_done(run, {})
    run.say(f"{len(gpus)} GPUs: a process for each")
    codes: dict[int, int] = {}

    def one(number: int, gpu: str) -> None:
        environ = {VISIBLE_GPUS: gpu, _SHARE: f"{number}/{len(gpus)}"}
        codes[number] = _again_until_done(_Run(options, cells, run.preload, environ), environ)

    with ThreadPoolExecutor(max_workers=len(gpus)) as executor:
        list(executor.map(one, range(len(gpus)), gpus))
    return max(codes.values())


def _again_until_done(run: _Run, environ: Mapping[str, str]) -> int:
    """Run this command in a process of its own, and again after each cell that ended the process."""
    while True:
        command = [sys.executable, *getattr(sys, "orig_argv", [sys.executable, *sys.argv])[1:]]
        code = subprocess.call(command, env={**os.environ, **environ, _ONCE: "1"})
        if not run.blame() and code != _AGAIN:  # the code may be 0: a library can end the process
            return code if code >= 0 else _CANNOT_TELL


def _take(cells: list[_Cell], count: int) -> list[_Cell]:
    taken = cells[: max(0, count)]
    del cells[: len(taken)]
    return taken


def _seconds_since(started: Path) -> float:
    try:
        return max(0.0, time.time() - started.lstat().st_mtime)
    except OSError:
        return 0.0


def _write(path: Path, content: Mapping[str, Any]) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")
    partial.replace(path)
