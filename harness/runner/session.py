"""Schedules cells: each loader imports once, and fixtures are prepared and replays judged while the workers compute.

`harness.runner.pipeline` has the steps of one cell. One session serves one process.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from harness.core import observation
from harness.core.errors import HarnessError
from harness.core.progress import Log
from harness.core.run import Cell, EnvironmentReport
from harness.envs.environment import BuiltEnvironment, EnvFailed
from harness.envs.environments import Environments
from harness.judge import cell_result
from harness.runner import pipeline
from harness.runner.environments_seen import EnvironmentsSeen
from harness.runner.fixture_source import Fixture, FixtureSource
from harness.runner.how import How
from harness.runner.memory import FOLDER, Memory
from harness.runner.pipeline import Loader, Replay
from harness.runner.plan import Planned
from harness.runner.remembered import Remembered
from harness.runner.request import cores
from harness.runner.shared_replay import SharedReplays, Turn, fixed
from harness.runner.workers import gpus
from harness.runner.workers.gpus import WorkerPool
from harness.runner.workers.schedule import Closed, Key, Pools
from harness.runner.workers.start_limit import StartLimit
from harness.store.fixtures import Store
from harness.worker.files import remove


@dataclass
class Session:
    """Checks planned cells. Use it as a context manager; leaving it ends every worker.

    Args:
        store: where fixtures are read; with `how.creating`, also where they are made first.
    """

    environments: Environments
    store: Store
    scratch: Path
    how: How
    log: Log = print
    finished: Callable[[Cell], None] = field(default=lambda _: None)
    """Called with each finished cell, in the thread that checked it. Not called for cancelled cells."""

    def __post_init__(self) -> None:
        self._jobs = self.how.jobs or cores()
        self._pools = Pools(self._pool, self._jobs)
        self._seen = EnvironmentsSeen()
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        self._executor = ThreadPoolExecutor(max_workers=self._jobs + 2, thread_name_prefix="cell")
        self._futures: dict[str, Future[Cell]] = {}
        self._preload: list[str] = []
        self._ending = False
        self._source = FixtureSource(
            self.environments, self.store, self.scratch, self.how.creating,
            self._environment, self._pools, self._only_one,
        )  # fmt: skip
        self._shared = SharedReplays(self._source.store_of, self.scratch, self.log)
        self._remembered = Remembered(
            Memory(self.environments.cache / FOLDER, log=self.log), self.environments.is_unchanged,
            lambda name: self._seen.facts.get(name, {}), fresh=self.how.fresh, audit=self.how.audit,
            handler=self.how.handler, log=self.log,
        )  # fmt: skip

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers and forget the cells that have not begun."""
        self._ending = True
        self._executor.shutdown(wait=False, cancel_futures=True)
        for future in self._futures.values():
            future.cancel()
        self._pools.close()
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._remembered.close()
        remove(self.scratch)

    def start(self, cells: Sequence[Planned]) -> None:
        """Begin to check these cells, without waiting."""
        self._remember_models(cells)
        order = {
            spec: 0 if self.how.side_by_side else number
            for number, spec in enumerate(dict.fromkeys(cell.loader_spec for cell in cells))
        }
        new = {str(cell.id): cell for cell in cells if str(cell.id) not in self._futures}
        for cell in new.values():
            self._pools.expect(_loading(cell))
            self._source.expect(cell)
            self._futures[str(cell.id)] = Future()
        share = self.how.share and not self.how.creating
        turns = self._shared.arrange([*new.values()]) if share else [(cell, fixed(cell)) for cell in new.values()]
        for _, turn in sorted(turns, key=lambda one: order[one[0].loader_spec]):
            self._executor.submit(self._take, turn)

    def result(self, cell: Planned) -> Cell:
        """The cell's result; starts the cell if need be, and waits for it."""
        self.start([cell])
        return self._futures[str(cell.id)].result()

    def fixture(self, cell: Planned) -> Fixture | Cell:
        """The cell's fixture, made if need be; a `Cell` where there can be none.

        Raises:
            NoFixture, BadFixture, CreationRefused: see `FixtureSource.fixture`.
        """
        self._remember_models([cell])
        self._source.expect(cell)
        return self._source.fixture(cell)

    def traced(self, cell: Planned) -> tuple[observation.Observed, observation.Observed]:
        """The golden, and the observation of a replay that looks at each layer by itself (the worker's `trace`).

        Raises:
            HarnessError: the process died, or there is no fixture.
        """
        fixture = self.fixture(cell)
        if isinstance(fixture, Cell):
            raise HarnessError(f"{cell.id}: {fixture.reason}", "a fixture", "choose another cell")
        with self._replay(cell) as replay:
            reply = replay.run(fixture, "-trace", "trace")
        if reply.now is None:
            done = reply.done
            raise HarnessError(f"{cell.id}: tracing it: {done.outcome}: {done.detail}", "", done.log_tail)
        return reply.golden.observed, reply.now

    def cancel(self) -> None:
        """Forget the cells that have not begun, and report nothing of those that run."""
        self._ending = True
        for future in self._futures.values():
            future.cancel()
        for pool in self._pools.each():
            pool.cancel_pending()

    def environment_reports(self, names: Iterable[str] | None = None) -> tuple[EnvironmentReport, ...]:
        """Reports on every environment that the session used, or on those of these names."""
        return self._seen.reports(names)

    def failed_environments(self) -> tuple[EnvironmentReport, ...]:
        """Reports on environments that could not be built, with the installer's last lines."""
        return self._seen.not_built()

    def import_seconds(self) -> dict[str, float]:
        """Seconds that each loader's imports took, by environment."""
        return {name: float(facts.get("import_s", 0.0)) for name, facts in self._seen.facts.items()}

    # -- one cell ------------------------------------------------------------------------------------------------------

    def _take(self, turn: Turn) -> None:
        """Check the cell whose turn it is."""
        cell = turn()
        future = self._futures[str(cell.id)]
        if not future.set_running_or_notify_cancel():
            self._shared.done(cell)  # nobody waits for it now
            return
        try:
            future.set_result(self._check(cell))
        except BaseException as error:  # noqa: BLE001 - who asks for the result gets it
            future.set_exception(error)

    def _check(self, cell: Planned) -> Cell:
        begun = time.monotonic()
        try:
            result = pipeline.decorated(
                self._result(cell),
                family=cell.declared.scenario.family,
                method=cell.declared.method,
                reproduce=pipeline.reproduce(cell, self.how),
                duration_s=round(time.monotonic() - begun, 4),
            )
            if not self._ending:
                self.finished(result)  # may start more cells, for which the pool stays open
        finally:
            self._shared.done(cell)
            self._pools.done(_loading(cell))
            remove(self._folder(cell))
        return result

    def _result(self, cell: Planned) -> Cell:
        """The cell's verdict, whatever happens.

        Raises:
            CancelledError: the session ends.
        """
        try:
            return pipeline.then(self._source.fixture(cell), lambda fixture: self._replayed(cell, fixture))
        except HarnessError as error:
            return pipeline.failed(cell.id, error)
        except CancelledError:
            raise
        except Closed:
            raise CancelledError from None
        except Exception as error:  # noqa: BLE001 - a mistake, even of ours, must cost one cell only
            result = cell_result.own_failure(cell.id, error)
            self.log(f"{cell.id}: {result.reason}")
            return result

    def _replayed(self, cell: Planned, fixture: Fixture) -> Cell:
        with self._replay(cell) as replay:
            self._seen.pair(cell.id.creator, cell.id.loader, fixture.manifest)
            return replay.result(fixture)

    @contextlib.contextmanager
    def _replay(self, cell: Planned) -> Iterator[Replay]:
        """The cell's steps. Its loader's pool is opened when the cell must be computed."""
        with contextlib.ExitStack() as stack:
            loader = Loader(
                self._environment(cell.loader_spec),
                lambda: stack.enter_context(self._pools.use(_loading(cell))),
                self._seen,
            )
            folder, how = self._folder(cell), self.how
            yield Replay(cell, loader, self._shared, self._remembered, folder, how.forward, how.observations)

    def _folder(self, cell: Planned) -> Path:
        return self.scratch / "cells" / str(cell.id).replace("/", "_")

    # -- environments --------------------------------------------------------------------------------------------------

    def _remember_models(self, cells: Iterable[Planned]) -> None:
        for cell in cells:
            self._preload += [name for name in cell.declared.imports if name not in self._preload]

    def _environment(self, spec: str) -> BuiltEnvironment:
        with self._only_one(f"environment {spec}"):
            if spec not in self._seen.built:
                try:
                    self._seen.built[spec] = self.environments.build(spec)
                except EnvFailed as error:
                    self._seen.built[spec] = error
        found = self._seen.built[spec]
        if isinstance(found, EnvFailed):
            raise found
        return found

    def _pool(self, key: Key) -> WorkerPool:
        environment = self._environment(key.spec)
        log_dir = self.scratch / "logs" / f"{environment.name}-{key.device}-{key.role}{'-traced' * key.traced}"
        return gpus.pool_for(
            environment, jobs=self._jobs, log_dir=log_dir, temporary=self.scratch / "tmp", preload=self._preload,
            device=key.device, handler=self.how.handler, log=self.log,
            start_limit=StartLimit(self.how.startup_timeout), traced=key.traced,
        )  # fmt: skip

    @contextlib.contextmanager
    def _only_one(self, what: str) -> Iterator[None]:
        with self._lock:
            lock = self._locks.setdefault(what, threading.Lock())
        with lock:
            yield


def _loading(cell: Planned) -> Key:
    return Key(cell.loader_spec, cell.id.device, traced=cell.traced)
