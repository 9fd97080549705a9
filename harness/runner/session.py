"""Checks cells: prepares each fixture, has the loader's worker replay it, compares, and says what the cell's verdict
is.

One session serves one process. Each loader has one pool, and so one import, whatever the number of its cells;
preparing and judging go on in threads while the workers compute.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.core import matrix, observation
from harness.core.errors import HarnessError
from harness.core.observation import Done
from harness.core.run import Cell, EnvironmentReport
from harness.core.verdict import Verdict
from harness.envs.environment import BuiltEnvironment, EnvFailed
from harness.envs.environments import CURRENT, Environments
from harness.judge import cell_result, checkpoint_keys, load_behaviour
from harness.runner.create import CreationRefused, worker_command
from harness.runner.environments_seen import Met
from harness.runner.fixture_source import Supply
from harness.runner.plan import Planned
from harness.runner.shared_replay import Sharing
from harness.runner.workers import gpus
from harness.runner.workers.gpus import Serves
from harness.runner.workers.pool import Job, WorkerFailed
from harness.runner.workers.schedule import Closed, Key, Pools
from harness.store import device_class
from harness.store.fixtures import BadFixture, Manifest, NoFixture, Store

Log = Callable[[str], None]


@dataclass
class Session:
    """Checks planned cells. Use it as a context manager; leaving it ends every worker.

    Args:
        store: where fixtures are read; with `creating`, also where they are made first.
        jobs: cells at once.
        creating: make a fixture that is not in the store yet, in the creator's environment.
    """

    environments: Environments
    store: Store
    scratch: Path
    jobs: int = 2
    creating: bool = False
    forward: bool = False
    """Try a loader that lacks a scenario's feature by declaration too: does it refuse, or load something else?"""
    share: bool = True
    """Compute once what the loader can't tell apart (`harness.runner.shared_replay`)."""
    log: Log = print
    keep_scratch: bool = False
    handler: Path | None = None
    """In place of the worker's own cell module; for tests of everything around it."""
    options: str = ""
    """What a line that reproduces a cell needs besides: where matrices and fixtures are."""
    finished: Callable[[Cell], None] = field(default=lambda _: None)
    """Is told each cell as it finishes, in the thread that checked it; none that was broken off."""
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._pools = Pools(self._pool, self.jobs)
        self._met = Met()
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        self._executor = ThreadPoolExecutor(max_workers=self.jobs + 2, thread_name_prefix="cell")
        self._futures: dict[str, Future[Cell]] = {}
        self._preload: list[str] = []
        self._ending = False
        self._supply = Supply(
            self.environments, self.store, self.scratch, self.creating,
            self._environment, self._pools, self._only_one,
        )  # fmt: skip
        self._sharing = Sharing(self._supply.store_of, self.scratch, self.log)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers and forget what has not begun."""
        self._ending = True
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._pools.close()
        self._executor.shutdown(wait=True, cancel_futures=True)
        if not self.keep_scratch:
            shutil.rmtree(self.scratch, ignore_errors=True)

    # -- asking -----------------------------------------------------------------------------------------------------

    def start(self, cells: Sequence[Planned]) -> None:
        """Begin to check these cells, loader by loader, without waiting."""
        self._remember_models(cells)
        order = {spec: number for number, spec in enumerate(dict.fromkeys(cell.loader_spec for cell in cells))}
        new = {str(cell.id): cell for cell in cells if str(cell.id) not in self._futures}
        for cell in new.values():
            self._pools.expect(_loading(cell))
            self._supply.expect(cell)
        arranged = self._sharing.arrange(list(new.values())) if self.share and not self.creating else new.values()
        for cell in sorted(arranged, key=lambda cell: order[cell.loader_spec]):
            self._futures[str(cell.id)] = self._executor.submit(self._check, cell)

    def result(self, cell: Planned) -> Cell:
        """The cell's result; waits for it, and begins it where that has not been done."""
        self.start([cell])
        return self._futures[str(cell.id)].result()

    def fixture(self, cell: Planned) -> tuple[Store, Manifest | Cell]:
        """Where the cell's fixture is, and what it is, made if need be; the cell itself where there can be none."""
        self._remember_models([cell])
        self._supply.expect(cell)
        manifest = self._supply.manifest(cell)
        return self._supply.store_of(cell), manifest

    def traced(self, cell: Planned) -> tuple[observation.Observed, observation.Observed]:
        """The golden, and what is seen of the cell where each layer is looked at by itself (the worker's `trace`).

        Raises:
            HarnessError: the process died, or there is no fixture.
        """
        _, manifest = self.fixture(cell)
        if isinstance(manifest, Cell):
            raise HarnessError(f"{cell.id}: {manifest.reason}", "a fixture", "choose another cell")
        with self._pools.use(_loading(cell)) as pool:
            folder, _, done = self._ran(cell, manifest, pool, "-trace", "trace")
        if done.outcome != "done":
            raise HarnessError(f"{cell.id}: tracing it: {done.outcome}: {done.detail}", "", done.log_tail)
        return observation.read(folder / "golden"), observation.read(folder / "now")

    def cancel(self) -> None:
        """Forget the cells that have not begun, and those that are broken off now."""
        self._ending = True
        for future in self._futures.values():
            future.cancel()
        for pool in self._pools.each():
            pool.cancel_pending()

    def environment_reports(self, names: Iterable[str] | None = None) -> tuple[EnvironmentReport, ...]:
        """What is known of every environment that the session met, or of those of these names."""
        return self._met.reports(names)

    def failed_environments(self) -> tuple[EnvironmentReport, ...]:
        """Environments that could not be had, with the installer's last lines."""
        return self._met.not_built()

    def import_seconds(self) -> dict[str, float]:
        """Seconds that each loader's imports took, by environment."""
        return {name: float(facts.get("import_s", 0.0)) for name, facts in self._met.facts.items()}

    def _remember_models(self, cells: Iterable[Planned]) -> None:
        for cell in cells:
            self._preload += [name for name in cell.declared.imports if name not in self._preload]

    # -- one cell ---------------------------------------------------------------------------------------------------

    def _check(self, cell: Planned) -> Cell:
        begun = time.monotonic()
        try:
            result = self._checked(cell)
        except HarnessError as error:
            result = cell_result.failed(cell.id, _verdict_of(error), error)
        except CancelledError:
            raise
        except Closed:
            raise CancelledError from None
        except Exception as error:  # noqa: BLE001 - one cell's trouble, ours included, must not take the others along
            text = f"peft-regress itself failed: {type(error).__name__}: {error}"
            self.log(f"{cell.id}: {text}")
            result = cell_result.could_not_tell(cell.id, Verdict.NOT_COMPARABLE, text)
        finally:
            self._sharing.done(cell)
            self._pools.done(_loading(cell))
            if not self.keep_scratch:
                shutil.rmtree(self._folder(cell), ignore_errors=True)
        scenario = cell.declared.scenario
        result = result.model_copy(
            update={
                "family": scenario.family,
                "method": scenario.adapter.config.removesuffix("Config"),
                "duration_s": round(time.monotonic() - begun, 4),
                "reproduce": self._reproduce(cell),
            }
        )
        if not self._ending:
            self.finished(result)
        return result

    def _checked(self, cell: Planned) -> Cell:
        manifest = self._supply.manifest(cell)
        if isinstance(manifest, Cell):
            return manifest
        with self._pools.use(_loading(cell)) as pool:
            return self._compared(cell, manifest, pool)

    def _compared(self, cell: Planned, manifest: Manifest, pool: Serves) -> Cell:
        self._met.pair(cell.id.creator, cell.id.loader, manifest)
        lacks = matrix.unsupported(cell.declared, self._environment(cell.loader_spec).versions)
        if lacks and not self.forward:
            return cell_result.could_not_tell(cell.id, Verdict.UNSUPPORTED, f"loader: {lacks}")
        if cell.id.device != "cpu" and not (facts := self._learnt(cell, pool)).get("cuda"):
            return cell_result.no_device(cell.id, facts.get("gpu"))
        result = self._taken_over(cell, manifest, pool) or self._computed(cell, manifest, pool)
        result = load_behaviour.tried(result, lacks) if lacks else result
        origin = self._supply.store_of(cell).origin_of(manifest)
        return result.model_copy(update={"fixture": manifest.weights_digest, "fixture_origin": origin})

    def _taken_over(self, cell: Planned, manifest: Manifest, pool: Serves) -> Cell | None:
        """The cell as judged on what others of its kind observed; None where it must be computed for itself.

        What deviates must: no deviation rests on another cell's computation.
        """
        if not self._sharing.is_between(cell, manifest):
            return None
        golden = self._golden(cell, manifest)
        self._learnt(cell, pool)
        taken = self._sharing.taken_over(cell, pool, self._resolved(cell))
        if taken is None:
            return None
        now, other = taken
        result = cell_result.cell(cell.id, golden, now, Done(str(cell.id), "done", "", "", 0.0))
        return None if result.verdict.is_deviation else result.model_copy(update={"same_as": other})

    def _golden(self, cell: Planned, manifest: Manifest) -> observation.Observed:
        """The golden, with each of the fixture's files looked at."""
        store = self._supply.store_of(cell)
        data = {name: store.content(manifest, name) for name in manifest.laid_out("cpu")}
        golden = observation.parse(
            store.folder / cell.id.creator / cell.id.scenario,
            data["golden/observation.json"],
            data["golden/arrays.safetensors"],
        )
        self._refuse_unexpected(cell, manifest, golden)
        return golden

    def _resolved(self, cell: Planned) -> dict[str, Any]:
        return matrix.resolve(cell.declared, self._environment(cell.loader_spec).versions)

    def _computed(self, cell: Planned, manifest: Manifest, pool: Serves) -> Cell:
        result, now = self._replayed(cell, manifest, pool, "")
        self._sharing.observed(cell, manifest, now)
        if result.verdict is Verdict.SILENT_WRONG and now is not None:
            result = self._confirmed(cell, manifest, pool, result, now)
        return result

    def _replayed(
        self, cell: Planned, manifest: Manifest, pool: Serves, attempt: str
    ) -> tuple[Cell, observation.Observed | None]:
        folder, note, done = self._ran(cell, manifest, pool, attempt)
        result, now = self._judged(cell, observation.read(folder / "golden"), folder, done)
        return result.model_copy(update={"notes": (*result.notes, note)} if note else {}), now

    def _ran(
        self, cell: Planned, manifest: Manifest, pool: Serves, attempt: str, kind: str = "replay"
    ) -> tuple[Path, str, Done]:
        """Have the worker do a request; the folder with what it left, and what to say of the golden that is in it."""
        folder = self._folder(cell) / f"run{attempt}"
        held_against, note = self._golden_for(cell, manifest, pool)
        self._supply.store_of(cell).materialise(manifest, folder, held_against)
        self._refuse_unexpected(cell, manifest, observation.read(folder / "golden"))
        self._learnt(cell, pool)  # an environment that does not import is told before any cell is blamed
        request = {
            "kind": kind,
            "scratch": str(folder),
            "scenario": self._resolved(cell),
            "device": cell.id.device,
            **({"settings": dict(cell.id.settings.request)} if cell.id.settings.request else {}),
        }
        return folder, note, pool.submit(Job(f"{cell.id}{attempt}", request, folder, cell.time_limit_s)).result()

    def _golden_for(self, cell: Planned, manifest: Manifest, pool: Serves) -> tuple[str, str]:
        """Which of the fixture's goldens the replay is held against, and what to say of that."""
        facts = self._learnt(cell, pool).get("gpu") if cell.id.device != device_class.CPU else None
        return device_class.golden_for(manifest, device_class.Device.of(facts, cell.id.device))

    def _judged(
        self, cell: Planned, golden: observation.Observed, folder: Path, done: Done
    ) -> tuple[Cell, observation.Observed | None]:
        if done.outcome != "done":
            return cell_result.died(cell.id, done), None
        now = observation.read(folder / "now")
        return cell_result.cell(cell.id, golden, now, done), now

    def _confirmed(
        self, cell: Planned, manifest: Manifest, pool: Serves, first: Cell, now: observation.Observed
    ) -> Cell:
        """A silent deviation is looked at twice: two replays that disagree are `unstable`, not wrong.

        The replay of an equal fixture is a second look as good as another of the same.
        """
        if self._sharing.agree(cell, now):
            return first
        second, again = self._replayed(cell, manifest, pool, "-again")
        if again is None:
            return second
        return cell_result.unless_unstable(first, now, again)

    def _refuse_unexpected(self, cell: Planned, manifest: Manifest, golden: observation.Observed) -> None:
        if problems := checkpoint_keys.unmet(golden, manifest.resolved):
            raise BadFixture(
                f"{cell.id}: the checkpoint does not hold what the scenario `expects`: {'; '.join(problems)}",
                "the keys and shapes under `expects`",
                f"create it anew: `peft-regress create {cell.id.creator} -k {cell.id.scenario} --replace --reason …`",
            )

    def _learnt(self, cell: Planned, pool: Serves) -> Mapping[str, Any]:
        """What the loader's worker said of itself; kept, so that a report need not wait for one that still imports."""
        try:
            self._met.facts[cell.id.loader] = pool.facts()
        except WorkerFailed as error:
            self._met.failed[cell.id.loader] = cell_result.last_words(error) or str(error)
            raise
        return self._met.facts[cell.id.loader]

    # -- environments -----------------------------------------------------------------------------------------------

    def _environment(self, spec: str) -> BuiltEnvironment:
        with self._only_one(f"environment {spec}"):
            if spec not in self._met.built:
                try:
                    self._met.built[spec] = self.environments.build(spec)
                except EnvFailed as error:
                    self._met.built[spec] = error
        found = self._met.built[spec]
        if isinstance(found, EnvFailed):
            raise found
        return found

    def _pool(self, key: Key) -> Serves:
        environment = self._environment(key.spec)
        log_dir = self.scratch / "logs" / f"{environment.name}-{key.device}-{key.role}"
        return gpus.of(
            environment, jobs=self.jobs, log_dir=log_dir, preload=self._preload, device=key.device,
            command=worker_command(environment.python, self.handler), log=self.log,
        )  # fmt: skip

    @contextlib.contextmanager
    def _only_one(self, what: str) -> Iterator[None]:
        with self._lock:
            lock = self._locks.setdefault(what, threading.Lock())
        with lock:
            yield

    def _folder(self, cell: Planned) -> Path:
        return self.scratch / "cells" / str(cell.id).replace("/", "_")

    def _reproduce(self, cell: Planned) -> str:
        words = ["peft-regress", "pair" if self.creating else "check", "--cell", str(cell.id)]
        if self.creating:
            words += ["--creator", cell.creator_spec, "--scenarios", str(cell.declared.file)]
        if self.creating or cell.loader_spec != CURRENT:
            words += ["--loader", cell.loader_spec]
        words += ["--forward"] if self.forward else []
        words += ["--device", cell.id.device] if cell.id.device != "cpu" else []
        words += cell.id.settings.options
        return shlex.join(words) + self.options


def _loading(cell: Planned) -> Key:
    return Key(cell.loader_spec, cell.id.device)


def _verdict_of(error: HarnessError) -> Verdict:
    """What a failure on the way to a comparison is called."""
    if isinstance(error, (EnvFailed, WorkerFailed)):
        return Verdict.ENV_FAILED
    if isinstance(error, BadFixture):
        return Verdict.BAD_FIXTURE
    if isinstance(error, NoFixture | CreationRefused):
        return Verdict.NO_FIXTURE
    return Verdict.NOT_COMPARABLE
