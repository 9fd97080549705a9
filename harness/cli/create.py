"""`create`: makes fixtures in the environment that they name; and `fixtures …`: looks after those that are there."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.cli import common
from harness.core import matrix
from harness.core.errors import ExitCode, HarnessError, UsageError
from harness.core.matrix import Declared
from harness.envs.environment import BuiltEnvironment
from harness.runner import create as creation
from harness.runner import plan
from harness.runner.workers import gpus
from harness.runner.workers.gpus import WorkerPool
from harness.store import device_class as devices
from harness.store.fixtures import BadFixture, Manifest, NoFixture, Store


@dataclass(frozen=True)
class Made:
    """What became of creating one scenario."""

    scenario: str
    outcome: str
    """`stored`, `unchanged`, `unsupported`, `refused`, `differs` or `same`."""
    detail: str = ""


def create(arguments: argparse.Namespace) -> int:
    """Create fixtures under a pinned environment and store them."""
    if arguments.replace and not (arguments.reason or "").strip():
        raise UsageError(
            "--replace without --reason", "why stored evidence is replaced", 'add --reason "…"; the manifest keeps it'
        )
    declared = common.chosen(_scenarios(arguments), arguments.keyword, arguments.families)
    every = common.matrix_of(arguments).scenarios(
        [Path(text).resolve() for text in arguments.scenarios] or None, hub=True
    )
    for name, why in common.left_out(every, arguments).items():
        common.say(f"{name}: {why}")
    if not declared:
        raise UsageError("no scenario is selected", "at least one", "loosen -k or --family; `list` shows them")
    environments = common.environments_of(arguments)
    declared = [one for one in declared if plan.makes(environments, arguments.creator, one.family)]
    if not declared:
        raise UsageError(
            f"{arguments.creator} makes fixtures of none of these families",
            "a scenario of a family that its declaration names under `families`",
            f"see matrices/envs/{arguments.creator}.toml, or name another creator",
        )
    slips = plan.unmeetable(declared, arguments.creator, environments)
    if len(slips) == len(declared):
        raise next(iter(slips.values()))
    for slip in slips.values():
        common.say(slip.found)
    if arguments.dry_run:
        common.out("\n".join(f"{one.name}@{arguments.creator}" for one in declared))
        common.out(f"{len(declared)} fixtures would be created in {arguments.creator}")
        return ExitCode.CLEAN
    store = common.store_of(arguments)
    reason = arguments.reason if arguments.replace else None
    with _creating(arguments, declared, arguments.device) as (pool, environment, scratch):
        device_class = _class_of(pool, arguments)

        def keep(manifest: Manifest, folder: Path) -> Made:
            before = _stored(store, manifest)
            stored = creation.save(store, manifest, folder, device_class=device_class, replace=reason)
            outcome = "unchanged" if stored == before else "stored"
            return Made(manifest.scenario, outcome, "; ".join(manifest.standing_defects))

        maker = _Maker(pool, environment, scratch, arguments.device, store)
        made = _each(maker, declared, keep, arguments.jobs or common.cores())
    return _tell(made, arguments)


def _class_of(pool: WorkerPool, arguments: argparse.Namespace) -> str:
    """The class that the goldens get: the CPU's, what the user names, or kind and architecture of the device."""
    if arguments.device == devices.CPU:
        if arguments.device_class not in (None, devices.CPU):
            raise UsageError(f"--device-class {arguments.device_class} on the CPU", "cpu", "add --device cuda")
        return devices.CPU
    facts = pool.facts()
    if not facts.get("cuda"):
        why = facts.get("gpu", {}).get("why", "")
        raise HarnessError(
            f"no device {arguments.device!r}: {why}", "a GPU that Torch can use and that has room",
            "look at what else uses it, or at CUDA_VISIBLE_DEVICES",
        )  # fmt: skip
    device = devices.Device.of(facts.get("gpu"), arguments.device)
    return devices.checked_class(arguments.device_class, device) if arguments.device_class else device.own_class


def _stored(store: Store, manifest: Manifest) -> Manifest | None:
    """The sound fixture that is there already."""
    try:
        return store.manifest(manifest.creator, manifest.scenario)
    except (BadFixture, NoFixture):
        return None


def recreate(arguments: argparse.Namespace, spec: str) -> int:
    """Create everything of a creator anew, beside what is stored, and say which bytes differ."""
    store = common.store_of(arguments)
    creator = spec if spec in store.creators() else plan.name_of(common.environments_of(arguments), spec)
    known = {one.name: one for one in _scenarios(arguments)}
    names = store.scenarios(creator)
    if not names:
        raise UsageError(f"{creator} has no fixtures", f"one of {', '.join(store.creators())}", "mend the name")
    declared = common.chosen([known[name] for name in names if name in known], arguments.keyword)
    arguments.creator = spec
    with _creating(arguments, declared) as (pool, environment, scratch):

        def hold(manifest: Manifest, folder: Path) -> Made:
            stored = store.manifest(creator, manifest.scenario)
            differing = store.compare(stored, folder / "adapter", folder / "base", folder / "golden")
            return Made(manifest.scenario, "differs" if differing else "same", ", ".join(differing))

        made = _each(_Maker(pool, environment, scratch), declared, hold, arguments.jobs or common.cores())
    return _tell(made, arguments)


@contextmanager
def _creating(
    arguments: argparse.Namespace, declared: Sequence[Declared], device: str = devices.CPU
) -> Iterator[tuple[WorkerPool, BuiltEnvironment, Path]]:
    environment = common.environments_of(arguments).build(arguments.creator)
    scratch = Path(tempfile.mkdtemp(prefix="peft-regress-create-"))
    preload = sorted({name for d in declared for name in d.imports})
    pool = gpus.pool_for(
        environment, jobs=arguments.jobs or common.cores(), log_dir=scratch / "logs", preload=preload, device=device,
        command=creation.worker_command(environment.python, common.path(arguments.worker_handler)), log=common.say,
    )  # fmt: skip
    try:
        pool.start()
        yield pool, environment, scratch
    finally:
        pool.close()
        shutil.rmtree(scratch, ignore_errors=True)


@dataclass(frozen=True)
class _Maker:
    """Has fixtures made, or on another device than the CPU those that are stored observed there."""

    pool: WorkerPool
    environment: BuiltEnvironment
    scratch: Path
    device: str = devices.CPU
    store: Store | None = None

    def make(self, scenario: Declared) -> tuple[Manifest, Path]:
        """The manifest and the folder of what was made."""
        environment, folder = self.environment, self.scratch / scenario.name
        if self.device != devices.CPU:
            self._lay_out(scenario, folder)
        return creation.create(
            self.pool, scenario, environment.name, environment.lock_digest, folder, device=self.device
        )

    def _lay_out(self, scenario: Declared, folder: Path) -> None:
        """Adapter and base as they were made on the CPU, with inputs: a further golden is of the very same files."""
        assert self.store is not None
        try:
            stored = self.store.manifest(self.environment.name, scenario.name)
        except NoFixture as error:
            raise NoFixture(
                error.found, "the fixture as it is made on the CPU, to be observed on another device too",
                f"make it first, without --device: `peft-regress create {self.environment.name} -k {scenario.name}`",
            ) from None  # fmt: skip
        given = devices.CPU if devices.CPU in stored.goldens else sorted(stored.goldens)[0]
        self.store.materialise(stored, folder, given)


def _each(
    maker: _Maker,
    declared: Sequence[Declared],
    then: Callable[[Manifest, Path], Made],
    jobs: int,
) -> list[Made]:
    """Create every scenario, several at once, and hand each on; one that is refused does not stop the others."""

    def one(scenario: Declared) -> Made:
        if reason := matrix.unstored(scenario, maker.environment.versions):
            return Made(scenario.name, "unsupported", reason)
        try:
            return then(*maker.make(scenario))
        except HarnessError as error:
            return Made(scenario.name, "refused", str(error))
        finally:
            shutil.rmtree(maker.scratch / scenario.name, ignore_errors=True)

    made = []
    with ThreadPoolExecutor(max_workers=jobs + 1) as executor:
        for result in executor.map(one, declared):
            made.append(result)
            common.say(f"[{len(made)}/{len(declared)}] {result.scenario}: {result.outcome}")
    return made


def _tell(made: Sequence[Made], arguments: argparse.Namespace) -> int:
    """Print what became of each, and count."""
    if arguments.json:
        common.out_json([one.__dict__ for one in made])
    else:
        for one in made:
            if one.outcome in ("refused", "differs"):
                common.out(f"{one.scenario}: {one.outcome}: {one.detail}")
            elif one.detail and arguments.verbose:
                common.out(f"{one.scenario}: {one.outcome} ({one.detail})")
        counts = {
            outcome: sum(one.outcome == outcome for one in made) for outcome in dict.fromkeys(m.outcome for m in made)
        }
        common.out(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    if any(one.outcome == "differs" for one in made):
        return ExitCode.REGRESSED
    useful = any(one.outcome in ("stored", "unchanged", "same") for one in made)
    return ExitCode.CLEAN if useful and not any(one.outcome == "refused" for one in made) else ExitCode.CANNOT_TELL


def _scenarios(arguments: argparse.Namespace) -> list[Declared]:
    where = [Path(text).resolve() for text in arguments.scenarios] or None
    return common.matrix_of(arguments).scenarios(where, hub=getattr(arguments, "hub", True))


def verify(arguments: argparse.Namespace) -> int:
    """Check every stored file's size and SHA-256; with --recreate, make a creator's fixtures anew and compare bytes."""
    store = common.store_of(arguments)
    problems = store.verify()
    broken = [problem for problem in problems if problem.kind != "orphan"]
    if arguments.json and not arguments.recreate:
        common.out_json([{"path": str(p.path), "kind": p.kind, "message": p.message} for p in problems])
    else:
        for problem in problems:
            common.out(f"{problem.kind}: {problem.message}")
    count = sum(len(store.scenarios(creator)) for creator in store.creators())
    common.say(
        f"{count} fixtures of {len(store.creators())} creators, {store.size() / 1e6:.1f} MB, {len(broken)} problems"
    )
    if broken or not count:
        return ExitCode.CANNOT_TELL
    return recreate(arguments, arguments.recreate) if arguments.recreate else ExitCode.CLEAN


def prune(arguments: argparse.Namespace) -> int:
    """Remove blobs that no manifest names."""
    removed = common.store_of(arguments).prune(dry_run=arguments.dry_run)
    for file in removed:
        common.out(str(file))
    common.say(f"{len(removed)} blobs {'would be ' if arguments.dry_run else ''}removed")
    return ExitCode.CLEAN
