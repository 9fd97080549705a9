"""Makes fixtures: a worker of the creator's environment makes each adapter, and what would prove nothing is refused."""

from __future__ import annotations

import contextlib
import datetime
import functools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.core import matrix, observation
from harness.core.errors import HarnessError, UsageError
from harness.core.files import must_take_files
from harness.core.matrix import Declared
from harness.core.observation import Done, Observed
from harness.core.progress import Log, quiet
from harness.core.scratch import scratch_folder
from harness.envs.environment import BuiltEnvironment
from harness.judge import outcomes
from harness.judge.new_golden import CreationRefused, kept, refuse_unfit, standing_defects
from harness.runner import plan
from harness.runner.request import Places, Selection, cores, must_be_count
from harness.runner.workers import gpus
from harness.runner.workers.gpus import WorkerPool
from harness.runner.workers.job import Job
from harness.store.device_class import CPU, Device, checked_class
from harness.store.fixtures import Store
from harness.store.manifest import BadFixture, Manifest, NoFixture
from harness.worker.files import remove
from harness.worker.shared import Task

_FACTS = ("python", "platform", "machine", "cpu", "threads")
_NUMERICS = ("ATEN_", "CUBLAS", "GLIBC_TUNABLES", "MKL_", "NVIDIA_TF32", "OMP_", "ONEDNN", "OPENBLAS", "PYTHONHASHSEED")


@dataclass(frozen=True)
class CreateRequest:
    """Which fixtures to create, and how."""

    creator: str
    """The environment: a name, `peft==X`, a checkout, `python:PATH`."""
    places: Places = Places()
    selection: Selection = Selection()
    jobs: int = 0
    """Fixtures at once; 0 for one on each core."""
    replace: bool = False
    """Overwrite stored fixtures; needs a reason."""
    reason: str = ""
    """Why stored fixtures are replaced; kept in the manifest."""
    device: str = CPU
    """Other than `cpu`: observe the stored fixtures there, and add a golden of that device class."""
    device_class: str = ""
    """The class of that golden; default: the device's kind and architecture, such as `cuda-sm90`."""
    worker_handler: Path | None = None
    """Replaces the worker's own cell module, for tests."""

    def __post_init__(self) -> None:
        """Refuse a number of jobs below 0."""
        must_be_count("jobs", self.jobs)

    @property
    def at_once(self) -> int:
        """Fixtures at once."""
        return self.jobs or cores()


@dataclass(frozen=True)
class Made:
    """The outcome of creating one scenario's fixture."""

    scenario: str
    outcome: Literal["stored", "unchanged", "unsupported", "refused", "differs", "same"]
    detail: str = ""
    kept: str = ""
    """Why it is stored although its creator cannot read it back."""


# -- several fixtures --------------------------------------------------------------------------------------------------


def selected(request: CreateRequest, log: Log = quiet) -> list[Declared]:
    """The scenarios that `create` would try.

    Args:
        log: gets a line for each scenario that is skipped.

    Raises:
        UsageError: nothing is selected, the creator makes none of it, or none can ever be made.
    """
    must_take_files(request.places.fixtures_folder)
    if request.replace and not request.reason.strip():
        raise UsageError(
            "--replace without --reason", "why stored evidence is replaced", 'add --reason "…"; the manifest keeps it'
        )
    where, environments = request.places.matrix(), request.places.environments(log)
    for name, why in request.selection.left_out(where).items():
        log(f"{name}: {why}")
    declared = request.selection.chosen(where)
    if not declared:
        raise UsageError("no scenario is selected", "at least one", "change -k or --family; `list` shows scenarios")
    declared = [one for one in declared if plan.makes(environments, request.creator, one.family)]
    if not declared:
        raise UsageError(
            f"{request.creator} makes fixtures of none of these families",
            "a scenario of a family that its declaration names under `families`",
            f"see matrices/envs/{request.creator}.toml, or name another creator",
        )
    slips = plan.unmeetable(declared, request.creator, environments)
    if len(slips) == len(declared):
        raise next(iter(slips.values()))
    for slip in slips.values():
        log(slip.found)
    return declared


def create(request: CreateRequest, log: Log = quiet) -> list[Made]:
    """Create fixtures in a pinned environment and store them.

    A scenario that is refused does not stop the others.

    Args:
        log: gets a line for each fixture, and for what takes time.

    Raises:
        UsageError: nothing to create; see `selected`.
        EnvFailed: the environment does not resolve, build or import.
    """
    declared, store = selected(request, log), request.places.store()
    with _environment_at_work(request, declared, log) as maker:
        device_class = _device_class(maker.pool, request)

        def keep(manifest: Manifest, folder: Path) -> Made:
            before = _sound(store, manifest)
            stored = save(
                store, manifest, folder, device_class=device_class, replace=request.reason if request.replace else None
            )
            outcome: Literal["stored", "unchanged"] = "unchanged" if stored == before else "stored"
            defects = manifest.standing_defects
            return Made(manifest.scenario, outcome, "; ".join(defects), kept(defects))

        return maker.each(declared, store, keep)


def recreate(request: CreateRequest, log: Log = quiet) -> list[Made]:
    """Create all fixtures of a creator again, beside the stored ones, and compare the bytes. Stores nothing.

    Args:
        request: its selection's keyword chooses among the stored fixtures.

    Raises:
        UsageError: the creator has no fixtures.
        EnvFailed: the environment does not resolve, build or import.
    """
    store = request.places.store()
    spec = request.creator
    creator = spec if spec in store.creators() else plan.name_of(request.places.environments(log), spec)
    known = {one.name: one for one in request.selection.declared(request.places.matrix(), hub=True)}
    names = store.scenarios(creator)
    if not names:
        raise UsageError(f"{creator} has no fixtures", f"one of {', '.join(store.creators())}", "name one of them")
    declared = Selection(request.selection.keyword).of(known[name] for name in names if name in known)

    def hold(manifest: Manifest, folder: Path) -> Made:
        stored = store.manifest(creator, manifest.scenario)
        differing = store.compare(stored, folder / "adapter", folder / "base", folder / "golden")
        if stored.unstable:  # two runs of the creator differ, so the golden of a third does too
            differing = [name for name in differing if not name.startswith("golden/")]
        return Made(manifest.scenario, "differs" if differing else "same", ", ".join(differing))

    with _environment_at_work(request, declared, log) as maker:
        return maker.each(declared, store, hold)


def _device_class(pool: WorkerPool, request: CreateRequest) -> str:
    """The class of the new goldens: the CPU's, the one that the user names, or the device's own."""
    named = request.device_class
    if request.device == CPU:
        if named not in ("", CPU):
            raise UsageError(f"--device-class {named} on the CPU", "cpu", "add --device cuda")
        return CPU
    facts = pool.facts()
    if not facts.get("cuda"):
        why = facts.get("gpu", {}).get("why", "")
        raise HarnessError(
            f"no device {request.device!r}: {why}", "a GPU that Torch can use and that has room",
            "look at what else uses it, or at CUDA_VISIBLE_DEVICES",
        )  # fmt: skip
    device = Device.of(facts.get("gpu"), request.device)
    return checked_class(named, device) if named else device.own_class


def _sound(store: Store, manifest: Manifest) -> Manifest | None:
    """The fixture that is stored already; None where there is none, or a damaged one."""
    try:
        return store.manifest(manifest.creator, manifest.scenario)
    except (BadFixture, NoFixture):
        return None


@contextlib.contextmanager
def _environment_at_work(request: CreateRequest, declared: Sequence[Declared], log: Log) -> Iterator[_Maker]:
    environment = request.places.environments(log).build(request.creator)
    with scratch_folder("create") as scratch:
        pool = gpus.pool_for(
            environment, jobs=request.at_once, log_dir=scratch / "logs", temporary=scratch / "tmp",
            device=request.device, log=log, handler=request.worker_handler,
            preload=sorted({name for one in declared for name in one.imports}),
        )  # fmt: skip
        try:
            pool.start()
            yield _Maker(pool, environment, scratch, request, log)
        finally:
            pool.close()


@dataclass(frozen=True)
class _Maker:
    """Makes fixtures; on a device other than the CPU it observes the stored ones there."""

    pool: WorkerPool
    environment: BuiltEnvironment
    scratch: Path
    request: CreateRequest
    log: Log

    def each(self, declared: Sequence[Declared], store: Store, then: Callable[[Manifest, Path], Made]) -> list[Made]:
        """Make every fixture, several at once, and hand each on."""

        def one(scenario: Declared) -> Made:
            if reason := matrix.unstored(scenario, self.environment.versions):
                return Made(scenario.name, "unsupported", reason)
            try:
                return then(*self._make(scenario, store))
            except HarnessError as error:
                return Made(scenario.name, "refused", str(error))
            finally:
                remove(self.scratch / scenario.name)

        made: list[Made] = []
        with ThreadPoolExecutor(max_workers=self.request.at_once + 1) as executor:
            for result in executor.map(one, declared):
                made.append(result)
                self.log(f"[{len(made)}/{len(declared)}] {result.scenario}: {result.outcome}")
        return made

    def _make(self, scenario: Declared, store: Store) -> tuple[Manifest, Path]:
        environment, folder, device = self.environment, self.scratch / scenario.name, self.request.device

        def fill() -> None:
            if device != CPU:
                self._lay_out(scenario, store, folder)

        fill()
        return create_one(
            self.pool, scenario, environment.name, environment.lock_digest, folder, device=device, fill=fill
        )

    def _lay_out(self, scenario: Declared, store: Store, folder: Path) -> None:
        """Lay out the stored adapter, base and inputs: a golden of another device is of the very same files."""
        try:
            stored = store.manifest(self.environment.name, scenario.name)
        except NoFixture as error:
            raise NoFixture(
                error.found, "the fixture as it is made on the CPU, to be observed on another device too",
                f"make it first, without --device: `peft-regress create {self.environment.name} -k {scenario.name}`",
            ) from None  # fmt: skip
        store.materialise(stored, folder, CPU if CPU in stored.goldens else sorted(stored.goldens)[0])


# -- one fixture -------------------------------------------------------------------------------------------------------


def create_one(
    pool: WorkerPool, declared: Declared, creator: str, lock_digest: str, scratch: Path, *, device: str = CPU,
    fill: Callable[[], object] = lambda: None,
) -> tuple[Manifest, Path]:  # fmt: skip
    """Have a fixture's files made in `scratch`, and check them.

    Args:
        device: other than the CPU: `scratch` holds the fixture as it was made on the CPU, and is only observed there.
        fill: fills `scratch` for a second try.

    Returns:
        the manifest as far as it is known without the store, and the folder with `adapter/`, `base/` and `golden/`.

    Raises:
        CreationRefused: the libraries raise, the adapter has no effect, a value is not finite, or the checkpoint lacks
            what the scenario `expects`.
        WorkerFailed: the environment's worker does not start.
    """
    facts = pool.facts()
    versions = {str(k): str(v) for k, v in facts["versions"].items()}
    resolved = matrix.resolve(declared, versions)
    scratch.mkdir(parents=True, exist_ok=True)
    request: Task = {"kind": "create", "scenario": resolved, "device": device}
    if device != CPU:
        request["stored"] = True
    elif given := declared.given:
        fill = functools.partial(shutil.copytree, given.folder, scratch / "adapter", dirs_exist_ok=True)
        fill()
    name = f"create:{declared.name}@{creator}"
    done = pool.submit(Job(name, request, scratch, declared.scenario.time_limit_s, fill)).result()
    golden = _read(done, scratch, declared.name, declared.given is not None)
    refuse_unfit(golden, resolved)
    (scratch / "golden" / "timings.json").unlink(missing_ok=True)
    manifest = Manifest(
        scenario=declared.name,
        creator=creator,
        scenario_digest=matrix.digest(resolved),
        resolved=resolved,
        lock_digest=lock_digest,
        versions=versions,
        facts=evidence(facts) | {"device": device} | ({"gpu": facts["gpu"]} if "gpu" in facts else {}),
        standing_defects=list(standing_defects(golden)),
        unstable=bool(golden.facts.get("repeat")),
        created=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
    return manifest, scratch


def save(
    store: Store, manifest: Manifest, folder: Path, *, device_class: str = CPU, replace: str | None = None
) -> Manifest:
    """Store what `create_one` left in a folder."""
    return store.save(
        manifest, folder / "adapter", folder / "base", folder / "golden", device_class=device_class, replace=replace
    )


def evidence(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a worker's facts that a manifest keeps: what numbers may depend on, and no path of the machine."""
    numerics = facts.get("numerics", {})
    pins = {name: value for name, value in numerics.get("environ", {}).items() if name.startswith(_NUMERICS)}
    libc = {"libc": numerics["libc"]} if "libc" in numerics else {}
    return {key: facts[key] for key in _FACTS if key in facts} | libc | {"pins": pins}


def _read(done: Done, scratch: Path, scenario: str, given: bool) -> Observed:
    if done.outcome != "done":
        raise CreationRefused(
            f"{scenario}: creating it ended with {done.outcome}: {done.detail}\n{done.log_tail}".rstrip(),
            "a creation that ends",
            "run it alone with `create -k` and read the log",
        )
    golden = observation.read(scratch / "golden")
    made = golden.load.get("create", {})
    if made.get("outcome") != "ok":
        error = outcomes.error_report(made.get("error"))
        what = f"{error.type}: {error.message} (stage {error.stage})" if error else "no outcome"
        raise CreationRefused(
            f"{scenario}: the creator's libraries refuse it: {what}",
            "a base that this release can build" if given else "a scenario that this release can create",
            "name another release with --from, or another base with --base"
            if given
            else "fix the scenario, or state under `requires` or `when` what it needs",
        )
    return golden
