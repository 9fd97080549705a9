"""Sends batches of cells to the nodes of a cluster. `checking` uses it as it uses a local session."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from harness.core.errors import HarnessError
from harness.core.progress import Log
from harness.core.run import Cell, EnvironmentReport
from harness.core.verdict import Verdict
from harness.envs.environment import EnvFailed
from harness.judge import cell_result
from harness.runner import pipeline
from harness.runner.cluster import node, nodes
from harness.runner.cluster.batch import Batch, Done
from harness.runner.cluster.engine import Engine, NodeLost, Running
from harness.runner.cluster.packing import Packing
from harness.runner.cluster.waiting import Piece, Waiting, units_of
from harness.runner.plan import Planned
from harness.runner.workers.job import GRACE_S
from harness.worker.shared import PATIENCE

_LOOK_S = 0.25
_NODES_S = 1.0
"""How often we ask which nodes there are."""
_NO_NODE_S = 30.0
"""How long we wait for another node when all have ended: Dask starts a worker process again that ended."""
_FIRST_NODE_S = 3.0
_BUILD_S = 900.0
"""How long a node may say nothing while it builds an environment."""
_CHUNK = 16 << 20
"""Bytes that are sent to a node at once, or one file."""


@dataclass
class _Node:
    """A node that is used."""

    address: str
    threads: int
    last: str = ""
    """The loader of its last batch."""
    busy: bool = False
    silent: bool = False
    """It is there, and is not used any more."""


@dataclass
class ClusterSession:
    """Checks planned cells on a cluster. Use it as a context manager; leaving it ends what the nodes do.

    Args:
        cluster: `dask://HOST:PORT`.
        packing: makes the batches.
        silent_s: how long a node may say nothing, besides what its cells may take.
        finished: called with each finished cell, in one of our threads. Not called for cancelled cells.

    Raises:
        ClusterLost: nothing answers there, or it has no node that can be used.
    """

    cluster: str
    packing: Packing
    log: Log
    finished: Callable[[Cell], None]
    silent_s: float = _BUILD_S

    def __post_init__(self) -> None:
        self._heard: dict[str, float] = {}
        self._waiting = Waiting()
        self._futures: dict[str, Future[Cell]] = {}
        self._done: list[Done] = []
        self._failed: dict[str, EnvironmentReport] = {}
        self._running: dict[str, Running] = {}
        self._nodes: dict[str, _Node] = {}
        self._known: set[str] = set()
        """Addresses of nodes that are used or left out."""
        self._left_out: dict[str, str] = {}
        self._fitting = nodes.Fitting(nodes.facts())
        self._numbers = iter(range(1 << 62))
        self._greeting = 0
        """Groups of new nodes that are being asked what they are."""
        self._executor = ThreadPoolExecutor(thread_name_prefix="node", max_workers=1024)
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._ending = False
        self._error: BaseException | None = None
        self._engine = Engine(self.cluster, self._hear)
        try:
            if why := self._fitting.unlike(self._engine.scheduler()):
                raise nodes.scheduler_does_not_fit(self.cluster, why)
            self._wait_for_a_node(_FIRST_NODE_S)
        except BaseException:
            self._executor.shutdown(wait=False)
            self._engine.close()
            raise
        self._thread = threading.Thread(target=self._serve, name="cluster", daemon=True)
        self._thread.start()

    def __enter__(self) -> ClusterSession:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- as a local session ------------------------------------------------------------------------------------------

    def start(self, cells: Sequence[Planned]) -> None:
        """Begin to check these cells, without waiting."""
        new = []
        with self._lock:
            for cell in cells:
                if str(cell.id) not in self._futures:
                    self._futures[str(cell.id)] = Future()
                    new.append(cell)
        if self._error is not None:
            for cell in new:
                self._futures[str(cell.id)].set_exception(self._error)
            return
        sent = [unit for unit in units_of(new) if self._described(unit)]
        with self._lock:
            self._waiting.add(cell for unit in sent for cell in unit)
        self._changed.set()

    def result(self, cell: Planned) -> Cell:
        """The cell's result; starts the cell if need be, and waits for it.

        Raises:
            HarnessError: the cluster is lost.
        """
        self.start([cell])
        return self._futures[str(cell.id)].result()

    def cancel(self) -> None:
        """Forget the cells that have no result yet."""
        self._ending = True
        for running in list(self._running.values()):
            running.cancel()
        for future in list(self._futures.values()):
            future.cancel()
        self._changed.set()

    def close(self) -> None:
        """End what the nodes do for this session, and the connection."""
        self.cancel()
        self._thread.join()
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._engine.close()

    def environment_reports(self, names: Iterable[str] | None = None) -> tuple[EnvironmentReport, ...]:
        """Reports on every environment that the nodes used, or on those of these names."""
        wanted = None if names is None else set(names)
        reports = [one for done in list(self._done) for one in done.environments]
        return tuple(one for one in reports if wanted is None or one.name in wanted)

    def failed_environments(self) -> tuple[EnvironmentReport, ...]:
        """Reports on environments that could not be built."""
        failed = {one.spec: one for done in list(self._done) for one in done.failed}
        return tuple((self._failed | failed).values())

    def import_seconds(self) -> dict[str, float]:
        """Seconds that each loader's imports took, where they took longest, by environment."""
        longest: dict[str, float] = {}
        for done in list(self._done):
            for name, seconds in done.import_seconds.items():
                longest[name] = max(seconds, longest.get(name, 0.0))
        return longest

    # -- cells -------------------------------------------------------------------------------------------------------

    def _described(self, unit: Sequence[Planned]) -> bool:
        """False where an environment cannot be described; the cells have their verdict then.

        Raises:
            UsageError: one of them is an interpreter of this machine.
        """
        spec = unit[0].loader_spec
        try:
            self.packing.described(spec)
            for creator in {cell.creator_spec for cell in unit} if self.packing.how.creating else ():
                spec = creator
                self.packing.described(spec)
        except EnvFailed as error:
            self._failed[spec] = EnvironmentReport(
                name=error.name, spec=spec, role=("loader",), failed=error.tail or str(error)
            )
            for cell in unit:
                self._finish(cell, self._decorated(cell, pipeline.failed(cell.id, error)))
            return False
        return True

    def _finish(self, cell: Planned, result: Cell) -> None:
        future = self._futures[str(cell.id)]
        if self._ending or future.done():
            return
        self.finished(result)  # may start more cells
        if not future.cancelled():
            future.set_result(result)

    def _decorated(self, cell: Planned, result: Cell) -> Cell:
        how = self.packing.how
        return pipeline.decorated(
            result, family=cell.declared.scenario.family, method=cell.declared.method,
            reproduce=pipeline.reproduce(cell, how),
        )  # fmt: skip

    # -- nodes -------------------------------------------------------------------------------------------------------

    def _hear(self, number: str, line: str) -> None:
        """A node has something to say, or has finished a cell."""
        self._heard[number] = time.monotonic()
        if line and not self._ending:
            self.log(f"node: {line}")

    def _wait_for_a_node(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._nodes and (self._look() or time.monotonic() < end):
            time.sleep(_LOOK_S)
        if not self._nodes:
            raise nodes.none_fits(self.cluster, self._left_out)

    def _look(self) -> bool:
        """Ask new nodes what they are, and forget those that ended; False if none is left."""
        found = self._engine.nodes()
        if new := {address: threads for address, threads in found.items() if address not in self._known}:
            self._known.update(new)
            self._greeting += 1
            self._executor.submit(self._greet, new)
        for address in [one for one in self._nodes if one not in found]:
            self._nodes.pop(address, None)
        self._known &= found.keys()
        return bool(self._nodes or self._greeting)

    def _greet(self, new: Mapping[str, int]) -> None:
        """Use the new nodes that fit. A silent one does not hold up the others."""
        try:
            left_out = self._fitting.choose(self._engine.facts(new))
            for address, why in left_out.items():
                self._left_out[address] = why
                self.log(f"{self.cluster}: {address} is left out: {why}")
            self._nodes |= {one: _Node(one, threads) for one, threads in new.items() if one not in left_out}
        finally:
            self._greeting -= 1
            self._changed.set()

    def _serve(self) -> None:
        """Give a batch to each node that is free, until the session ends."""
        looked = last_seen = time.monotonic()
        try:
            while not self._ending:
                self._changed.wait(_LOOK_S)
                self._changed.clear()
                if time.monotonic() - looked >= _NODES_S:
                    looked = time.monotonic()
                    last_seen = looked if self._look() else last_seen
                if looked - last_seen > _NO_NODE_S:
                    raise nodes.none_left(self.cluster)
                self._dispatch()
        except BaseException as error:  # noqa: BLE001 - who waits for a cell gets it
            self._error = error
            for future in list(self._futures.values()):
                if not future.done():
                    future.set_exception(error)

    def _dispatch(self) -> None:
        for one in list(self._nodes.values()):
            if one.busy:
                continue
            with self._lock:
                piece = self._waiting.take(
                    len(self._nodes), self.packing.how.jobs or one.threads, one.last, one.address
                )
            if piece is None:
                continue
            one.busy, one.last = True, piece.loader
            self._executor.submit(self._work, one, piece)

    def _work(self, one: _Node, piece: Piece) -> None:
        """Have a node check a piece."""
        number = str(next(self._numbers))
        try:
            self._begun(one, piece, number)
            done = self._result(one, piece, number)
        except NodeLost as lost:
            self._forget(one)
            self._lost(piece, str(lost), begun=number in self._running)
        except HarnessError as error:
            self._failed_at(piece, error)
        except Exception as error:  # noqa: BLE001 - a mistake of ours must not leave cells without a result
            for cell in piece.cells:
                self._finish(cell, self._decorated(cell, cell_result.own_failure(cell.id, error)))
        else:
            if done.failed and not piece.ends and len(self._nodes) > 1:
                names = ", ".join(environment.name for environment in done.failed)
                self._lost(piece, f"{one.address} cannot build {names}")
                return
            with self._lock:
                self._waiting.done(piece)
                self._done.append(done)
            self.packing.keep(done)
            results = {result.id: result for result in done.cells}
            for cell in piece.cells:
                self._finish(cell, results[str(cell.id)])
        finally:
            self._running.pop(number, None)
            one.busy = False
            self._changed.set()

    def _begun(self, one: _Node, piece: Piece, number: str) -> None:
        batch = self.packing.batch(piece.cells)
        self._send(one, batch)
        self._heard[number] = time.monotonic()
        self._running[number] = self._engine.run(one.address, batch, number)

    def _result(self, one: _Node, piece: Piece, number: str) -> Done:
        running = self._running[number]
        limit = self.silent_s + PATIENCE * max(cell.time_limit_s for cell in piece.cells) + GRACE_S
        while not running.ended():
            if self._ending or self._error:
                running.cancel()
                raise NodeLost("the run ends")
            if self._nodes.get(one.address) is not one:
                running.cancel()
                raise NodeLost(f"{one.address} ended")
            if time.monotonic() - self._heard[number] > limit:
                running.cancel()
                one.silent = True
                raise NodeLost(f"{one.address} said nothing for {limit:.0f} s, and is not used any more")
            time.sleep(_LOOK_S)
        return running.result()

    def _send(self, one: _Node, batch: Batch) -> None:
        chunk: dict[str, bytes] = {}
        for sha256 in self._engine.call(one.address, node.missing, batch.contents):
            chunk[sha256] = self.packing.read(sha256)
            if sum(map(len, chunk.values())) >= _CHUNK:
                self._engine.call(one.address, node.take, chunk)
                chunk = {}
        if chunk:
            self._engine.call(one.address, node.take, chunk)

    def _forget(self, one: _Node) -> None:
        """Give no more to a node that is lost. One that starts again may have the same address."""
        if self._nodes.get(one.address) is one:
            del self._nodes[one.address]
            if not one.silent:
                self._known.discard(one.address)

    def _lost(self, piece: Piece, why: str, *, begun: bool = True) -> None:
        """Have another node check a piece. A node that was lost before it began says nothing of the cells."""
        if self._ending or self._error:
            return
        guilty = None
        with self._lock:
            if begun:
                guilty = self._waiting.ended(piece, why)
            else:
                self._waiting.back(piece)
        self.log(f"{self.cluster}: {why}; its {len(piece.cells)} cells are checked again")
        if guilty is not None:
            reason = f"each node that checked it ended: {'; '.join((*piece.ends, why))}"
            self._finish(
                guilty,
                self._decorated(guilty, cell_result.could_not_tell(guilty.id, Verdict.NOT_COMPARABLE, reason)),
            )

    def _failed_at(self, piece: Piece, error: HarnessError) -> None:
        """A node cannot check a piece, for example because its disk is full: another one tries it once more."""
        if not piece.ends:
            self._lost(piece, str(error))
            return
        with self._lock:
            self._waiting.done(piece)
        for cell in piece.cells:
            self._finish(cell, self._decorated(cell, pipeline.failed(cell.id, error)))
