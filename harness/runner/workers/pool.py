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
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from harness.core.errors import HarnessError
from harness.core.observation import Done
from harness.runner.workers.job import Job, Task
from harness.runner.workers.process import Eof, Event, Processes, WorkerProcess, environment, tail, worker_command
from harness.runner.workers.start_limit import BY_LOAD, StartLimit
from harness.worker.shared import Hello, Outcome

_BELIEVED = 3
"""After this many cells in a row that exceeded their limit twice, the next one is believed at once."""

_STARTS = 2
_TICK_S = 1.0
_CLOSE_S = 2.0


class WorkerFailed(HarnessError):
    """The worker did not start, or the environment does not import."""

    def __init__(
        self, found: str, tail: str = "", expected: str = "an environment that imports",
        next_step: str = "read the lines above; install what is missing, or rebuild it",
    ) -> None:  # fmt: skip
        super().__init__(found + (f"\n{tail}" if tail else ""), expected, next_step)
        self.tail = tail


class Pool:
    """A worker process of one environment that serves up to `jobs` cells at once."""

    def __init__(
        self,
        python: Path,
        *,
        jobs: int,
        log_dir: Path,
        temporary: Path | None = None,
        preload: Sequence[Any] = (),
        device: str = "cpu",
        command: Sequence[str] | None = None,
        environ: Mapping[str, str] | None = None,
        start_limit: StartLimit = BY_LOAD,
        untouched: bool = False,
        traced: bool = False,
    ) -> None:
        """Starts nothing yet.

        Args:
            python: the pinned environment's interpreter.
            log_dir: gets `worker-N.log`, what the Nth process printed outside cells.
            temporary: the worker's TMPDIR, so that what it leaves there goes with the session.
            preload: what `hello` imports; see the worker's `cell.preload`.
            command: replaces `[python, harness/worker, "--serve"]`; `--device` and `--log` are added.
            environ: replaces this process's environment variables.
            untouched: keeps PYTHONPATH and the like, for a developer's own interpreter.
            traced: its cells are asked for what they execute.
        """
        self._command = [*(command or worker_command(python)), "--device", device]
        self._environ = environment(os.environ if environ is None else environ, untouched)
        if temporary is not None:
            temporary.mkdir(parents=True, exist_ok=True)
            self._environ["TMPDIR"] = str(temporary.absolute())
        self._jobs = max(1, jobs)
        self._log_dir = log_dir
        self._hello: Hello = {"id": "hello", "kind": "hello", "device": device, "preload": list(preload)}
        if traced:
            self._hello["executed"] = True
        self._device = device
        self._start_limit = start_limit
        self._lock = threading.Lock()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._facts: Future[Mapping[str, Any]] = Future()
        self._thread: threading.Thread | None = None
        self._ids: set[str] = set()
        self._waiting: deque[Task] = deque()
        # Only the thread uses these.
        self._flying: dict[str, Task] = {}
        self._worker: WorkerProcess | None = None
        self._ready = False
        self._started_at = 0.0
        self._failed_starts = 0
        self._starts = 0
        self._hung_twice = 0
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
        task = Task(job)
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
            try:
                task.to_be_sent()
            except (HarnessError, OSError) as error:
                task.future.set_exception(error)
                continue
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

    def _next_task(self) -> Task | None:
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
        reply = event.reply() or {}
        if not self._ready and reply.get("id") == "hello":
            self._greeted(reply)
            return
        task = self._flying.get(str(reply.get("id")))
        if task is not None and reply.get("started") is True:
            task.started = True
        elif task is None or not self._replied(task, reply):
            self._worker_ended(f"the worker wrote a line that is no reply: {event.shown()}")

    def _greeted(self, reply: Mapping[str, Any]) -> None:
        if reply.get("outcome") != "done":
            self._give_up(WorkerFailed("the environment does not import", str(reply.get("detail", ""))))
            return
        self._ready = True
        self._failed_starts = 0
        if not self._facts.done():
            self._facts.set_result(cast("Mapping[str, Any]", reply.get("facts", {})))

    def _replied(self, task: Task, reply: Mapping[str, Any]) -> bool:
        """Takes the reply to a job; False where it is none."""
        try:
            done = Done.of(task.job.id, reply, tail(task.job.scratch / "log.txt"), task.note)
        except ValueError:
            return False
        del self._flying[task.job.id]
        self._finish(task, done)
        return True

    def _finish(self, task: Task, done: Done) -> None:
        if self._tries_again(task, done):
            task.alone = True
            task.note = f"run twice: the first time, {done.detail}"
            self._put_back([task])
        elif not task.future.done():
            task.future.set_result(done)

    def _tries_again(self, task: Task, done: Done) -> bool:
        """Whether a cell that took too long runs once more, alone: other cells or a busy machine may be the cause."""
        if task.alone:
            self._hung_twice = self._hung_twice + 1 if done.outcome == "timeout" else 0
            return False
        return done.outcome == "starved" or (done.outcome == "timeout" and self._hung_twice < _BELIEVED)

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

    def _blame(self, task: Task, detail: str, outcome: Outcome, log: Path) -> None:
        duration_s = time.monotonic() - task.sent
        if duration_s >= task.job.time_limit_s:  # a worker that can't fork ends itself at a cell's limit
            outcome = "timeout"
        note = f"{task.note}; alone, it ended the worker again" if task.alone else task.note
        said = tail(task.job.scratch / "log.txt") or tail(log)
        self._finish(task, Done(task.job.id, outcome, detail, said, duration_s, note))

    def _suspect(self, tasks: Sequence[Task], detail: str) -> None:
        for task in tasks:
            task.alone = True
            task.note = f"run twice: with {len(tasks)} cells in flight, {detail}"
        self._put_back(tasks)

    def _put_back(self, tasks: Sequence[Task]) -> None:
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
