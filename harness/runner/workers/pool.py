"""Worker processes on the controller's side: the line protocol, time limits, and who is to blame for a death.

One pool is one pinned environment: one worker process that forks a child per cell (`harness/worker/`). A worker that
dies or goes silent costs the cell that it was working on, never another one.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, cast, get_args

from harness.core.errors import HarnessError
from harness.core.observation import Done
from harness.runner.workers.process import Eof, Event, Processes, WorkerProcess, environment, tail, worker_command
from harness.runner.workers.start_limit import BY_LOAD, StartLimit
from harness.worker.shared import Hello, Outcome

GRACE_S = 15.0
"""Time after a cell's own limit until the worker counts as hanging. The worker enforces the limit itself."""

_STARTS = 2
_TICK_S = 1.0
_CLOSE_S = 2.0


@dataclass(frozen=True)
class Job:
    """One cell's work."""

    id: str
    request: Mapping[str, Any]
    scratch: Path
    time_limit_s: float


class WorkerFailed(HarnessError):
    """The worker did not start, or the environment does not import."""

    def __init__(
        self, found: str, tail: str = "", expected: str = "an environment that imports",
        next_step: str = "read the lines above; rebuild it",
    ) -> None:  # fmt: skip
        super().__init__(found + (f"\n{tail}" if tail else ""), expected, next_step)
        self.tail = tail


@dataclass(eq=False)
class _Task:
    job: Job
    future: Future[Done] = field(default_factory=Future)
    alone: bool = False
    """Run it with nothing beside it: it was in flight with others when a worker died, and one must be to blame."""
    note: str = ""
    sent: float = 0.0
    times_sent: int = 0

    def to_be_sent(self) -> None:
        """Records the sending; deletes the mark of an earlier start."""
        self.sent = time.monotonic()
        self.times_sent += 1
        (self.job.scratch / "pid").unlink(missing_ok=True)

    @property
    def may_be_to_blame(self) -> bool:
        """False where the worker died before it started this job for the first time."""
        return self.times_sent > 1 or (self.job.scratch / "pid").exists()

    @property
    def overdue(self) -> float:
        """When the worker counts as hanging."""
        return self.sent + self.job.time_limit_s + GRACE_S


class Pool:
    """A worker process of one environment that serves up to `jobs` cells at once."""

    def __init__(
        self,
        python: Path,
        *,
        jobs: int,
        log_dir: Path,
        preload: Sequence[Any] = (),
        device: str = "cpu",
        command: Sequence[str] | None = None,
        environ: Mapping[str, str] | None = None,
        start_limit: StartLimit = BY_LOAD,
        untouched: bool = False,
    ) -> None:
        """Starts nothing yet.

        Args:
            python: the pinned environment's interpreter.
            log_dir: gets `worker-N.log`, what the Nth process printed outside cells.
            preload: what `hello` imports; see the worker's `cell.preload`.
            command: replaces `[python, harness/worker, "--serve"]`; `--device` and `--log` are added.
            environ: replaces this process's environment variables.
            untouched: keeps PYTHONPATH and the like, for a developer's own interpreter.
        """
        self._command = [*(command or worker_command(python)), "--device", device]
        self._environ = environment(os.environ if environ is None else environ, untouched)
        self._jobs = max(1, jobs)
        self._log_dir = log_dir
        self._hello: Hello = {"id": "hello", "kind": "hello", "device": device, "preload": list(preload)}
        self._device = device
        self._start_limit = start_limit
        self._lock = threading.Lock()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._facts: Future[Mapping[str, Any]] = Future()
        self._thread: threading.Thread | None = None
        self._ids: set[str] = set()
        self._waiting: deque[_Task] = deque()
        # Only the thread uses these.
        self._flying: dict[str, _Task] = {}
        self._worker: WorkerProcess | None = None
        self._ready = False
        self._started_at = 0.0
        self._failed_starts = 0
        self._starts = 0
        # Kills the worker at exit where close() was never called.
        self._processes = Processes()
        self._finalizer = weakref.finalize(self, self._processes.close)

    def start(self) -> None:
        """Begins to start the worker; does not wait."""
        with self._lock:
            if self._thread is None and not self._processes.closed:
                self._thread = threading.Thread(target=self._run, name=f"pool {self._log_dir.name}", daemon=True)
                self._thread.start()

    def facts(self) -> Mapping[str, Any]:
        """What the environment says about itself after its imports; waits for it.

        Raises:
            WorkerFailed: it does not start or does not import.
        """
        self.start()
        return self._facts.result()

    def submit(self, job: Job) -> Future[Done]:
        """Runs the job; the future gets WorkerFailed where the environment does not start.

        Raises:
            ValueError: a job of this id has not ended yet.
        """
        task = _Task(job)
        with self._lock:
            if self._processes.closed:
                raise RuntimeError("the pool is closed")
            if job.id in self._ids:
                raise ValueError(f"a job {job.id!r} is in the pool already")
            self._ids.add(job.id)
            self._waiting.append(task)
        task.future.add_done_callback(lambda _: self._ids.discard(job.id))
        self.start()
        self._events.put(None)
        return task.future

    def cancel_pending(self) -> None:
        """Cancels the jobs that have not been sent to the worker yet."""
        with self._lock:
            tasks = list(self._waiting)
            self._waiting.clear()
        for task in tasks:
            _cancel(task.future)

    def close(self) -> None:
        """Cancels all jobs and kills the worker with its children; returns when they are gone."""
        self._processes.close()
        with self._lock:
            thread = self._thread
        self.cancel_pending()
        self._events.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join(_CLOSE_S)
        self.cancel_pending()  # jobs submitted meanwhile
        _cancel(self._facts)
        self._finalizer.detach()

    def __enter__(self) -> Pool:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Everything below runs in the thread only.

    def _run(self) -> None:
        try:
            self._start_worker()
            while not self._processes.closed:
                self._dispatch()
                self._handle(self._next_event())
                self._check_clock()
        except Exception as error:  # noqa: BLE001 - callers that wait must get the error
            self._give_up(error)
        finally:
            self._processes.close()
            for task in self._flying.values():
                _cancel(task.future)
            self.cancel_pending()

    def _start_worker(self) -> None:
        self._starts += 1
        self._ready = False
        self._started_at = time.monotonic()
        log = self._log_dir / f"worker-{self._starts}.log"
        command = [*self._command, "--log", str(log)]
        try:
            self._worker = self._processes.start(lambda: WorkerProcess(command, self._environ, log, self._events))
        except OSError as error:
            self._give_up(WorkerFailed(f"{self._command[0]} does not start: {error}"))
            return
        if self._worker is not None:
            self._worker.send(self._hello)

    def _next_event(self) -> Event:
        try:
            return self._events.get(timeout=_TICK_S if self._worker else None)
        except queue.Empty:
            return None

    def _dispatch(self) -> None:
        while self._has_room() and (task := self._next_task()) is not None:
            if self._worker is None:
                self._put_back([task])
                self._start_worker()
                return
            task.to_be_sent()
            self._flying[task.job.id] = task
            where = {"scratch": str(task.job.scratch.absolute()), "time_limit_s": task.job.time_limit_s}
            self._worker.send({"device": self._device, **task.job.request, "id": task.job.id, **where})

    def _has_room(self) -> bool:
        if self._worker is not None and not self._ready:
            return False
        with self._lock:
            next_alone = bool(self._waiting) and self._waiting[0].alone
        alone = next_alone or any(task.alone for task in self._flying.values())
        return len(self._flying) < (1 if alone else self._jobs)

    def _next_task(self) -> _Task | None:
        while True:
            with self._lock:
                if not self._waiting:
                    return None
                task = self._waiting.popleft()
            if task.future.running() or task.future.set_running_or_notify_cancel():
                return task

    def _handle(self, event: Event) -> None:
        if event is None or event.worker is not self._worker or self._worker is None or self._processes.closed:
            return  # a wake-up, or the last lines of a worker that is gone or was killed by `close`
        if isinstance(event, Eof):
            self._worker_ended(f"the worker process ended: {self._worker.ending()}")
            return
        reply = event.reply()
        if reply is not None and not self._ready and reply.get("id") == "hello":
            self._greeted(reply)
        elif reply is not None and reply.get("id") in self._flying and reply.get("outcome") in get_args(Outcome):
            self._replied(reply)
        else:
            self._worker_ended(f"the worker wrote a line that is no reply: {event.shown()}")

    def _greeted(self, reply: Mapping[str, Any]) -> None:
        if reply.get("outcome") != "done":
            self._give_up(WorkerFailed("the environment does not import", str(reply.get("detail", ""))))
            return
        self._ready = True
        self._failed_starts = 0
        if not self._facts.done():
            self._facts.set_result(cast("Mapping[str, Any]", reply.get("facts", {})))

    def _replied(self, reply: Mapping[str, Any]) -> None:
        assert self._worker is not None
        self._worker.replied(reply["id"])
        task = self._flying.pop(reply["id"])
        self._finish(task, reply["outcome"], str(reply.get("detail") or ""), float(reply.get("duration_s") or 0.0))

    def _finish(
        self, task: _Task, outcome: Outcome, detail: str, duration_s: float, worker_log: Path | None = None
    ) -> None:
        log = tail(task.job.scratch / "log.txt") or (tail(worker_log) if worker_log else "")
        done = Done(task.job.id, outcome, detail, log, duration_s, task.note)
        if not task.future.done():
            task.future.set_result(done)

    def _check_clock(self) -> None:
        now = time.monotonic()
        if self._worker is None:
            return
        if not self._ready:
            if now > self._started_at + self._start_limit.seconds():
                found, expected, next_step = self._start_limit.missed(now - self._started_at)
                self._give_up(WorkerFailed(found, tail(self._worker.log), expected, next_step))
        elif any(now > task.overdue for task in self._flying.values()):
            self._worker_ended("the worker was silent past the time limit", "timeout")
        elif self._worker.is_gone():  # a process that it started keeps stdout open, so no end was read
            self._handle(Eof(self._worker))

    def _worker_ended(self, detail: str, outcome: Outcome = "died") -> None:
        """Finds the cell that is to blame; starts a new worker if jobs are left."""
        assert self._worker is not None
        log, was_ready = self._worker.log, self._ready
        tasks = list(self._flying.values())
        self._drop_worker()
        self._flying.clear()
        suspects = [task for task in tasks if task.may_be_to_blame]
        if not was_ready:
            self._start_failed(detail, log)
        elif len(suspects) == 1:
            self._blame(suspects[0], detail, outcome, log)
        else:
            self._suspect(suspects, detail)
        self._put_back([task for task in tasks if task not in suspects])

    def _drop_worker(self) -> None:
        if self._worker is not None:
            self._worker.kill()
        self._worker, self._ready = None, False

    def _start_failed(self, detail: str, log: Path) -> None:
        self._failed_starts += 1
        if self._failed_starts >= _STARTS:
            self._give_up(WorkerFailed(f"{detail}, at its start, {self._failed_starts} times", tail(log)))
        else:
            self._start_worker()

    def _blame(self, task: _Task, detail: str, outcome: Outcome, log: Path) -> None:
        duration_s = time.monotonic() - task.sent
        if duration_s >= task.job.time_limit_s:  # a worker that can't fork ends itself at a cell's limit
            outcome = "timeout"
        if task.alone:
            task.note += "; alone, it ended the worker again"
        self._finish(task, outcome, detail, duration_s, log)

    def _suspect(self, tasks: Sequence[_Task], detail: str) -> None:
        for task in tasks:
            task.alone = True
            task.note = f"run twice: with {len(tasks)} cells in flight, {detail}"
        self._put_back(tasks)

    def _put_back(self, tasks: Sequence[_Task]) -> None:
        with self._lock:
            self._waiting.extendleft(reversed(tasks))

    def _give_up(self, error: Exception) -> None:
        """Fails all jobs that wait, and all that are submitted later."""
        self._drop_worker()
        if not self._facts.done():
            self._facts.set_exception(error)
        failed = list(self._flying.values())
        self._flying.clear()
        while not self._processes.closed:
            with self._lock:
                failed += self._waiting
                self._waiting.clear()
            for task in failed:
                if task.future.running() or task.future.set_running_or_notify_cancel():
                    task.future.set_exception(error)
            failed = []
            self._events.get()


def _cancel(future: Future[Any]) -> None:
    """Ends a future in any state, so that no caller waits for it."""
    if not future.cancel() and not future.done():
        with contextlib.suppress(Exception):  # the thread may just have ended it
            future.set_exception(CancelledError())
