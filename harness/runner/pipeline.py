"""One cell, step by step: fixture → golden → request → reply → judged → decorated.

A step takes what the step before it returned. It returns the value for the next step, or a `Cell`: the verdict, which
skips the steps that are left (`then`). Three ways share these steps: a session replays in a pool, a shared replay takes
over what other cells observed, and judging offline reads what a worker left in a folder.
"""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from harness.core import matrix, observation
from harness.core.errors import HarnessError
from harness.core.matrix import CellId
from harness.core.observation import Done, Observed
from harness.core.run import Cell
from harness.core.verdict import Verdict
from harness.envs.environment import BuiltEnvironment, EnvFailed
from harness.envs.environments import CURRENT
from harness.judge import cell_result, load_behaviour
from harness.judge.new_golden import CreationRefused
from harness.runner import consumers, executed
from harness.runner.alike import differing, equal
from harness.runner.environments_seen import EnvironmentsSeen
from harness.runner.executed import Trace
from harness.runner.fixture_source import Fixture
from harness.runner.golden import Golden, in_store, laid_out
from harness.runner.how import How
from harness.runner.memory import Known
from harness.runner.plan import Planned
from harness.runner.remembered import Remembered
from harness.runner.shared_replay import SharedReplays, Taken
from harness.runner.workers.gpus import WorkerPool
from harness.runner.workers.job import Job
from harness.runner.workers.pool import WorkerFailed
from harness.store import device_class
from harness.store.device_class import Device
from harness.store.manifest import BadFixture, NoFixture
from harness.worker.shared import Kind, Task

_VERDICTS: tuple[tuple[type[HarnessError], Verdict], ...] = (
    (EnvFailed, Verdict.ENV_FAILED),
    (WorkerFailed, Verdict.ENV_FAILED),
    (BadFixture, Verdict.BAD_FIXTURE),
    (NoFixture, Verdict.NO_FIXTURE),
    (CreationRefused, Verdict.NO_FIXTURE),
    (HarnessError, Verdict.NOT_COMPARABLE),
)
"""The verdict of a cell whose way ends with an error; the first type that fits counts."""

_TRACING = 3
"""How much longer a cell may take while what it executes is recorded."""
T = TypeVar("T")
U = TypeVar("U")


def then(previous: T | Cell, step: Callable[[T], U | Cell]) -> U | Cell:
    """Take the next step with what the one before returned; a verdict is passed on as it is."""
    return previous if isinstance(previous, Cell) else step(previous)


@dataclass(frozen=True)
class Request:
    """What the worker is asked to do."""

    golden: Golden
    job: Job


@dataclass(frozen=True)
class Reply:
    """How a replay ended."""

    golden: Golden
    done: Done
    now: Observed | None
    """What it observed; None where the process died or went silent."""
    trace: Trace | None = None
    """What it executed, where it was asked for it."""


# -- request, reply, judged, decorated ---------------------------------------------------------------------------------


def request(cell: Planned, versions: Mapping[str, str], kind: Kind = "replay") -> Task:
    """The worker's task for a cell.

    Args:
        versions: of the loader's packages.
        kind: `replay`, or `trace`, which looks at each layer by itself.
    """
    task: Task = {"kind": kind, "scenario": matrix.resolve(cell.declared, versions), "device": cell.id.device}
    if settings := cell.id.settings.request:
        task["settings"] = dict(settings)
    if cell.further and kind == "replay":
        task["further"] = True
    return task


def reply(golden: Golden, done: Done, folder: Path) -> Reply:
    """A worker's reply with what it observed.

    Args:
        folder: what the worker was given to write into.
    """
    return Reply(golden, done, observation.read(folder / "now") if done.outcome == "done" else None)


def judged(identity: CellId, reply: Reply) -> Cell:
    """The verdict on a reply."""
    if reply.now is None:
        result = cell_result.died(identity, reply.done)
    else:
        result = cell_result.cell(identity, reply.golden.observed, reply.now, reply.done)
    note = reply.golden.note
    return result.model_copy(update={"notes": (*result.notes, note)}) if note else result


def decorated(result: Cell, *, family: str, method: str, reproduce: str, **more: Any) -> Cell:
    """A result with what does not depend on its verdict."""
    return result.model_copy(update={"family": family, "method": method, "reproduce": reproduce, **more})


def failed(identity: CellId, error: HarnessError) -> Cell:
    """The cell without a judgement because a step failed."""
    verdict = next(verdict for kind, verdict in _VERDICTS if isinstance(error, kind))
    return cell_result.failed(identity, verdict, error)


def reproduce(cell: Planned, how: How) -> str:
    """The command that checks this cell again."""
    words = ["peft-regress", "pair" if how.creating else "check", "--cell", str(cell.id)]
    if how.creating:
        words += ["--creator", cell.creator_spec, "--scenarios", str(cell.declared.file)]
    if how.creating or cell.loader_spec != CURRENT:
        words += ["--loader", cell.loader_spec]
    words += ["--forward"] if how.forward and not how.creating else []  # `pair` always does so
    words += ["--device", cell.id.device] if cell.id.device != device_class.CPU else []
    words += cell.id.settings.options
    words += ["--further"] if cell.further else []
    return shlex.join(words) + how.options


def _disagreement(identity: CellId, known: Known, now: Observed | None) -> HarnessError:
    """The error of an audit: what was remembered is not what is computed today."""
    apart = "nothing" if now is None else differing(now, known.observed)
    return HarnessError(
        f"{identity}: remembered of {known.computed} and computed now differ: {apart}",
        "equal observations: environment, fixture, scenario and worker are the same",
        "run `peft-regress env verify` to look for changed files, and the check again with --fresh",
    )


# -- in a session ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loader:
    """The environment that replays a cell, with its worker processes."""

    environment: BuiltEnvironment
    opened: Callable[[], WorkerPool]
    """Opens the pool, which imports the libraries: at the first cell that is not remembered."""
    seen: EnvironmentsSeen

    @functools.cached_property
    def pool(self) -> WorkerPool:
        """Its worker processes."""
        return self.opened()

    def facts(self, name: str) -> Mapping[str, Any]:
        """What its worker says of itself.

        Raises:
            WorkerFailed: it does not start or does not import.
        """
        return self.seen.facts_of(name, self.pool)


@dataclass(frozen=True)
class Replay:
    """The steps of one cell under a loader, once its fixture is known."""

    cell: Planned
    loader: Loader
    shared: SharedReplays
    remembered: Remembered
    folder: Path
    """The cell's own, for all that its replays leave."""
    forward: bool = False
    """Also run a loader that lacks a feature which the scenario requires."""
    observations: bool = False
    """Keep in the cell what was observed."""

    def result(self, fixture: Fixture) -> Cell:
        """The cell's verdict."""
        return then(self._usable(fixture), self._compared)

    def run(self, fixture: Fixture, attempt: str = "", kind: Kind = "replay", *, traced: bool = False) -> Reply:
        """Have the loader compute the cell: golden → request → reply.

        Args:
            traced: record what it executes.
        """
        folder = self.folder / f"run{attempt}"

        def golden() -> Golden:
            return self._golden(fixture, folder)

        return self._reply(self._request(golden(), folder, attempt, kind, golden, traced))

    def _usable(self, fixture: Fixture) -> Fixture | Cell:
        identity = self.cell.id
        if (lacks := self._lacks(fixture)) and (not self.forward or self.loader.environment.consumer):
            return cell_result.could_not_tell(identity, Verdict.UNSUPPORTED, f"loader: {lacks}")
        if identity.device != device_class.CPU and not (facts := self._facts()).get("cuda"):
            return cell_result.no_device(identity, facts.get("gpu"))
        return fixture

    def _compared(self, fixture: Fixture) -> Cell:
        result = self._recalled(fixture) or self._taken_over(fixture) or self._computed(fixture)
        if lacks := self._lacks(fixture):
            result = load_behaviour.tried(result, lacks)
        return result.model_copy(update={"fixture": fixture.manifest.weights_digest, "fixture_origin": fixture.origin})

    def _recalled(self, fixture: Fixture) -> Cell | None:
        """The cell as judged on what the memory has; None where it must be computed.

        A cell of the sample that is audited, or whose trace is asked for, is computed as well. Both must be equal.
        """
        key = self._key(fixture)
        if not key:
            return None
        golden = in_store(self.cell.id, fixture)
        known = self.remembered.recall(self.cell, self.loader.environment, fixture.manifest, golden.observed)
        if known is None:
            return None
        trace = self._trace(fixture)
        lacks = self.cell.traced and trace is None
        if lacks or self.remembered.audits(key):
            now, trace = self._again(fixture, lacks)
            if now is None or not equal(now, known.observed):
                self.remembered.forget(key)
                return cell_result.failed(self.cell.id, Verdict.UNSTABLE, _disagreement(self.cell.id, known, now))
            if lacks:
                self._keep(fixture, golden, now, known.seconds, known.same_as, trace)
        else:
            self.loader.seen.recall(self.cell.id.loader, self.remembered.facts(self.loader.environment))
        self.shared.observed(self.cell, fixture.manifest, known.observed, trace)
        done = Done(str(self.cell.id), "done", "", "", known.seconds)
        result = self._judged(Reply(golden, done, known.observed))
        return result.model_copy(update={"same_as": known.same_as, "remembered": known.computed})

    def _key(self, fixture: Fixture) -> str:
        return self.remembered.key(self.cell, self.loader.environment, fixture.manifest)

    def _keep(
        self, fixture: Fixture, golden: Golden, now: Observed, seconds: float, same_as: str = "",
        trace: Trace | None = None,
    ) -> None:  # fmt: skip
        key, environment = self._key(fixture), self.loader.environment
        self.remembered.keep(key, self.cell, environment, now, golden.observed, seconds, same_as, trace)

    def _trace(self, fixture: Fixture) -> Trace | None:
        return self.remembered.trace(self.cell, self.loader.environment, fixture.manifest) if self.cell.traced else None

    def _again(self, fixture: Fixture, lacks: bool) -> tuple[Observed | None, Trace | None]:
        """What a remembered cell observes when it is computed again, and its trace if it lacks one."""
        if lacks:
            taken = self._shared(fixture)
            if taken is not None and taken.trace is not None:
                return taken.now, taken.trace
        again = self.run(fixture, "-audit", traced=lacks)
        if lacks and again.now is None:
            again = self.run(fixture, "-untraced")
        return again.now, again.trace

    def _taken_over(self, fixture: Fixture) -> Cell | None:
        """The cell as judged on what others of its kind observed; None where it must be computed for itself.

        A deviation never rests on another cell's computation: such a cell is computed.
        """
        taken = self._shared(fixture)
        if taken is None:
            return None
        golden = in_store(self.cell.id, fixture)
        result = self._judged(Reply(golden, Done(str(self.cell.id), "done", "", "", 0.0), taken.now))
        if result.verdict.is_deviation:
            return None
        self._keep(fixture, golden, taken.now, 0.0, taken.other, taken.trace)
        return result.model_copy(update={"same_as": taken.other})

    def _shared(self, fixture: Fixture) -> Taken | None:
        if not self.shared.has(self.cell, fixture.manifest):
            return None
        self._facts()
        resolved = matrix.resolve(self.cell.declared, self.loader.environment.versions)
        return self.shared.taken_over(self.cell, self.loader.pool, resolved)

    def _computed(self, fixture: Fixture) -> Cell:
        traced = self.cell.traced and bool(self._key(fixture)) and self._trace(fixture) is None
        first = self.run(fixture, traced=traced)
        if traced and first.now is None:
            first = self.run(fixture, "-untraced")  # a cell never fails because it was recorded
        result = self._judged(first)
        self.shared.observed(self.cell, fixture.manifest, first.now, first.trace)
        if result.verdict is Verdict.SILENT_WRONG and first.now is not None:
            result = self._confirmed(fixture, result, first.now)
        if first.now is not None and result.verdict is not Verdict.UNSTABLE and not first.done.note:
            self._keep(fixture, first.golden, first.now, first.done.duration_s, trace=first.trace)
        return result

    def _confirmed(self, fixture: Fixture, result: Cell, now: Observed) -> Cell:
        """A second look at a silent deviation: two replays that disagree are `unstable`, not wrong.

        The replay of an equal fixture serves as well as another one of this fixture.
        """
        if self.shared.agree(self.cell, now):
            return result
        # no further probe gives a silent deviation
        again = replace(self, cell=replace(self.cell, further=False)).run(fixture, "-again")
        second = self._judged(again)
        return second if again.now is None else cell_result.unless_unstable(result, second, now, again.now)

    def _judged(self, reply: Reply) -> Cell:
        result = judged(self.cell.id, reply)
        if not self.observations or reply.now is None:
            return result
        return result.model_copy(update={"observed": observation.packed(reply.now)})

    def _golden(self, fixture: Fixture, folder: Path) -> Golden:
        asked = self.cell.id.device
        facts = self._facts().get("gpu") if asked != device_class.CPU else None
        return laid_out(self.cell.id, fixture, folder, Device.of(facts, asked))

    def _request(
        self, golden: Golden, folder: Path, attempt: str, kind: Kind, fill: Callable[[], object], traced: bool
    ) -> Request:
        self._facts()  # an environment that does not import is reported before any cell is blamed
        content = request(self.cell, self.loader.environment.versions, kind) | {"scratch": str(folder)}
        limit_s = self.cell.time_limit_s
        if traced:
            content, limit_s = content | {"executed": True}, limit_s * _TRACING
        return Request(golden, Job(f"{self.cell.id}{attempt}", content, folder, limit_s, fill))

    def _reply(self, asked: Request) -> Reply:
        found = reply(asked.golden, self.loader.pool.submit(asked.job).result(), asked.job.scratch)
        if found.now is None or not asked.job.request.get("executed"):
            return found
        return replace(found, trace=executed.read(asked.job.scratch) or Trace(None, "what it executed cannot be read"))

    def _facts(self) -> Mapping[str, Any]:
        return self.loader.facts(self.cell.id.loader)

    def _lacks(self, fixture: Fixture) -> str:
        if consumer := self.loader.environment.consumer:
            return consumers.lacks(self.cell, consumer, fixture)
        return matrix.unsupported(self.cell.declared, self.loader.environment.versions)
