"""`env …`: the environments that fixtures are created and replayed in."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cli import common, env_add, env_verify
from harness.cli.parser import SPEC, Parser, command, count, where
from harness.core.errors import ExitCode, UsageError
from harness.core.text import many
from harness.envs import cached, wheelhouse
from harness.envs.environments import Environments
from harness.runner import fixture_source, memory
from harness.runner.request import Places, cores


@dataclass(frozen=True)
class ListOptions:
    places: Places = Places()
    json: bool = False


@dataclass(frozen=True)
class BuildOptions:
    specs: tuple[str, ...] = ()
    wheelhouse: Path | None = None
    jobs: int = 0
    rebuild: bool = False
    dry_run: bool = False
    places: Places = Places()


@dataclass(frozen=True)
class PackOptions:
    spec: str
    to: Path | None = None
    platforms: tuple[str, ...] = ()
    torch_build: str = ""
    places: Places = Places()


@dataclass(frozen=True)
class LockOptions:
    names: tuple[str, ...]
    places: Places = Places()


@dataclass(frozen=True)
class RemoveOptions:
    spec: str
    places: Places = Places()


@dataclass(frozen=True)
class CollectOptions:
    dry_run: bool = False
    places: Places = Places()


def add_to(commands: Any) -> None:
    purpose = "manage the environments that fixtures are created and replayed in"
    group = commands.add_parser("env", help=purpose, description=f"{purpose.capitalize()}.")
    inner = group.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    one = command(inner, "list", list_, "list the declared environments", "  peft-regress env list --json", ListOptions,
                  prints=True)  # fmt: skip
    one.add_argument("--json", action="store_true", help="print JSON")
    where(one, fixtures=False)
    _build(inner)
    env_verify.add_to(inner)
    _pack(inner)
    one = command(inner, "lock", lock, "resolve declared environments again and write their locks",
                  "  peft-regress env lock current", LockOptions)  # fmt: skip
    one.add_argument("names", nargs="+", metavar="NAME", help="a declared environment")
    where(one, fixtures=False)
    env_add.add_to(inner)
    one = command(inner, "rm", remove, "delete an environment's builds from the cache",
                  "  peft-regress env rm v061", RemoveOptions)  # fmt: skip
    one.add_argument("spec", metavar="SPEC", help=SPEC)
    where(one, fixtures=False)
    one = command(inner, "gc", collect_garbage, "delete cached environments, fixtures and results that are out of date",
                  "  peft-regress env gc --dry-run", CollectOptions)  # fmt: skip
    one.add_argument("--dry-run", action="store_true", help="print what would be deleted")
    where(one, fixtures=False)


def _build(commands: Any) -> None:
    one = command(commands, "build", build, "build environments that are not built yet",
                  "  peft-regress env build\n  peft-regress env build v061-torch21\n"
                  "  peft-regress env build current --wheelhouse wheelhouse-current    without network",
                  BuildOptions)  # fmt: skip
    one.add_argument("specs", nargs="*", metavar="SPEC",
                     help=f"{SPEC} (default: all declared environments, except those built on demand)")  # fmt: skip
    one.add_argument("--wheelhouse", metavar="DIR", help="install the wheels that `env pack` put there; ask no index")
    one.add_argument("--jobs", type=count, default=0, help="environments built at once (default: cores)")
    one.add_argument("--rebuild", action="store_true", help="build again what is built, for example after an edit")
    one.add_argument("--dry-run", action="store_true", help="print what would be built")
    where(one, fixtures=False)


def _pack(commands: Any) -> None:
    one = command(commands, "pack", pack, "download all wheels of an environment into a folder",
                  "  peft-regress env pack current\n"
                  "  peft-regress env pack v061 --to /media/usb/v061 --torch-build cu126\n"
                  "  (there)  peft-regress env build v061 --wheelhouse v061", PackOptions)  # fmt: skip
    one.add_argument("spec", metavar="NAME", help="a declared environment, or pins (peft==0.9.0)")
    one.add_argument("--to", metavar="DIR", help="an empty or new folder (default: wheelhouse-NAME)")
    one.add_argument("--platform", dest="platforms", action="append", default=[], metavar="TAG",
                     help="platform tag of the other machine, if it differs: manylinux_2_28_x86_64 "
                     "(repeatable; default: this machine's)")  # fmt: skip
    one.add_argument("--torch-build", metavar="TAG",
                     help="Torch's build: cpu, cu126, … (default: the index's first)")  # fmt: skip
    where(one, fixtures=False)


def list_(options: ListOptions) -> int:
    """List the declared environments."""
    found = options.places.environments(common.say).status()
    if options.json:
        common.out_json([dataclasses.asdict(e) for e in found])
        return ExitCode.CLEAN
    width = max((len(e.name) for e in found), default=0)
    for e in found:
        state = e.problem or (
            "lock is stale" if e.stale else "built" if e.built else "locked" if e.locked else "no lock"
        )
        common.out(f"{e.name:{width}}  {state:13}  {', '.join(f'{k} {v}' for k, v in e.pins.items())}")
        common.out(f"{'':{width}}  {e.why.strip()}")
    return ExitCode.CLEAN


def build(options: BuildOptions) -> int:
    """Build environments that are not built yet."""
    environments = options.places.environments(common.say)
    if options.wheelhouse:
        return _build_packed(options, options.wheelhouse, environments)
    names = options.specs or tuple(e.name for e in environments.status() if not e.on_demand)
    if options.dry_run:
        for described in map(environments.describe, names):
            common.out(f"{described.name}: {len(described.versions)} packages")
        return ExitCode.CLEAN
    if options.rebuild and not options.specs:
        raise UsageError("--rebuild without a SPEC", "the environments to build again", "name them")
    make = environments.rebuild if options.rebuild else environments.build
    # the first alone: the others take its byte code
    with ThreadPoolExecutor(max_workers=options.jobs or cores()) as pool:
        for built in (*map(make, names[:1]), *pool.map(make, names[1:])):
            common.out(f"{built.name}: {built.python}")
    return ExitCode.CLEAN


def _build_packed(options: BuildOptions, folder: Path, environments: Environments) -> int:
    """Build a wheelhouse's environment: as it is locked here, or as it was packed if nothing here declares it."""
    if len(options.specs) > 1:
        raise UsageError(f"{len(options.specs)} environments", "a wheelhouse holds one", "pass at most one SPEC")
    if options.rebuild:
        raise UsageError("--rebuild with --wheelhouse", "one of them", "run `peft-regress env rm SPEC` first")
    house = wheelhouse.read(folder)
    spec = options.specs[0] if options.specs else house.name
    declared = spec in environments.names()
    if not declared and spec != house.name:
        raise UsageError(f"{folder} holds {house.name!r}", f"a wheelhouse of {spec!r}", "name another folder")
    environment = environments.describe(spec) if declared else house.environment()
    wheelhouse.must_fit(house, environment)
    if options.dry_run:
        common.out(f"{environment.name}: {len(house.versions)} wheels")
        return ExitCode.CLEAN
    built = environments.build_packed(environment, folder)
    common.out(f"{built.name}: {built.python}")
    if not declared:
        common.say(f"{spec!r} is not declared here; as a loader, name it python:{built.python}")
    return ExitCode.CLEAN


def pack(options: PackOptions) -> int:
    """Download all wheels of an environment into a folder."""
    environment = options.places.environments(common.say).describe(options.spec)
    target = options.to or Path.cwd() / f"wheelhouse-{environment.name}"
    house = wheelhouse.pack(
        environment, target, common.say, platforms=options.platforms, torch_build=options.torch_build
    )
    common.out(f"{target}: {len(house.versions)} wheels of {environment.name}")
    for line in wheelhouse.usage(house):
        common.say(line)
    return ExitCode.CLEAN


def lock(options: LockOptions) -> int:
    """Resolve declared environments again and write their locks."""
    environments = options.places.environments(common.say)
    for name in options.names:
        common.out(str(environments.lock(name)))
    return ExitCode.CLEAN


def remove(options: RemoveOptions) -> int:
    """Delete an environment's builds from the cache."""
    for path in options.places.environments(common.say).remove(options.spec):
        common.out(str(path))
    return ExitCode.CLEAN


def collect_garbage(options: CollectOptions) -> int:
    """Delete cached environments that no declaration, lock or checkout needs, and fixtures and results out of date."""
    environments = options.places.environments(common.say)
    paths = environments.gc(dry_run=options.dry_run)
    old = fixture_source.out_of_date(environments)
    paths += [folder for folder in old if options.dry_run or cached.delete(folder, common.say)]
    paths += memory.other_formats(environments.cache / memory.FOLDER, dry_run=options.dry_run)
    for path in paths:
        common.out(str(path))
    entries, size = memory.Memory(environments.cache / memory.FOLDER).size()
    common.say(f"{many(entries, 'remembered observation')}, {size / 1e6:.0f} MB of at most {memory.LIMIT / 1e6:.0f} MB")
    common.say(f"{len(paths)} {'would be ' if options.dry_run else ''}removed")
    return ExitCode.CLEAN
