"""One pool of workers for each visible GPU, used like a single pool."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

from harness.core.observation import Done
from harness.core.progress import Log
from harness.envs.environment import BuiltEnvironment
from harness.runner.workers.job import Job
from harness.runner.workers.pool import Pool, WorkerFailed
from harness.runner.workers.process import worker_command
from harness.runner.workers.start_limit import BY_LOAD, StartLimit
from harness.worker.process import VISIBLE_GPUS, visible_gpus
from harness.worker.shared import CELLS


class WorkerPool(Protocol):
    """What computes an environment's cells: one pool, or one for each GPU."""

    def start(self) -> None:
        """Begins to start; does not wait."""

    def facts(self) -> Mapping[str, Any]:
        """What the environment said about itself."""

    def submit(self, job: Job) -> Future[Done]:
        """Runs the job."""

    def cancel_pending(self) -> None:
        """Cancels the jobs that have not been sent yet."""

    def close(self) -> None:
        """Ends everything."""


class GpuPools:
    """Pools that share the cells; each cell goes to the pool with the fewest running.

    A GPU that can't be used (busy, too small) is skipped. If none can be used, the facts are those of the first, which
    say why.

    Args:
        pools: by what each sees (CUDA_VISIBLE_DEVICES); at least one.
        log: called with each GPU that is skipped.
    """

    def __init__(self, pools: Mapping[str, Pool], log: Log) -> None:
        self._pools = dict(pools)
        self._log = log
        self._lock = threading.Lock()
        self._usable: Sequence[str] | None = None
        self._load = dict.fromkeys(self._pools, 0)

    def start(self) -> None:
        """Starts all pools; they import in parallel."""
        for pool in self._pools.values():
            pool.start()

    def facts(self) -> Mapping[str, Any]:
        """The facts of the first usable GPU, with the names of all usable ones; waits for them.

        Raises:
            WorkerFailed: none of them starts.
        """
        said: dict[str, Mapping[str, Any]] = {}
        failed: WorkerFailed | None = None
        for name, pool in self._pools.items():
            try:
                said[name] = pool.facts()
            except WorkerFailed as error:
                failed = error
        if not said:
            assert failed is not None
            raise failed
        return self._take_note(said)

    def _take_note(self, said: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
        usable = [name for name, facts in said.items() if facts.get("cuda")]
        with self._lock:
            first_time, self._usable = self._usable is None, usable or list(said)
        for name in sorted(set(self._pools) - set(usable)) if first_time and usable else ():
            why = said.get(name, {}).get("gpu", {}).get("why", "its worker does not start")
            self._log(f"GPU {name} is left out: {why}")
        facts = said[(usable or list(said))[0]]
        return {**facts, "gpus": usable} if usable else facts

    def submit(self, job: Job) -> Future[Done]:
        """Runs the job on the GPU with the fewest running."""
        if self._usable is None:
            self.facts()
        assert self._usable is not None
        with self._lock:
            name = min(self._usable, key=lambda one: self._load[one])
            self._load[name] += 1
        future = self._pools[name].submit(job)
        future.add_done_callback(lambda _: self._done(name))
        return future

    def _done(self, name: str) -> None:
        with self._lock:
            self._load[name] -= 1

    def cancel_pending(self) -> None:
        """Cancels the jobs that have not been sent yet."""
        for pool in self._pools.values():
            pool.cancel_pending()

    def close(self) -> None:
        """Ends all pools."""
        for pool in self._pools.values():
            pool.close()


def pool_for(
    environment: BuiltEnvironment,
    *,
    jobs: int,
    log_dir: Path,
    temporary: Path,
    preload: Sequence[Any],
    device: str,
    handler: Path | None,
    log: Log,
    start_limit: StartLimit = BY_LOAD,
    traced: bool = False,
) -> WorkerPool:
    """The pool that computes an environment's cells on a device; one pool for each GPU where several are visible.

    Args:
        preload: what a worker imports beside the libraries; a consumer's imports its driver.
        handler: in the place of the worker's own cell module for PEFT.
        traced: its cells are asked for what they execute.
    """
    consumer, cells = environment.consumer, CELLS[0]
    if consumer is not None:
        preload, handler, cells = [consumer.driver], None, CELLS[1]

    def pool(environ: Mapping[str, str] | None, folder: Path) -> Pool:
        return Pool(
            environment.python, jobs=jobs, log_dir=folder, temporary=temporary, preload=preload, device=device,
            command=worker_command(environment.python, handler, cells),
            environ=environ, start_limit=start_limit, untouched=environment.untouched, traced=traced,
        )  # fmt: skip

    gpus = visible_gpus(os.environ) if device == "cuda" else []
    if len(gpus) < 2:
        return pool(None, log_dir)
    log(f"{len(gpus)} GPUs: a process for each")
    shown = {gpu: {**os.environ, VISIBLE_GPUS: gpu} for gpu in gpus}
    return GpuPools({gpu: pool(shown[gpu], log_dir / str(place)) for place, gpu in enumerate(gpus)}, log)
