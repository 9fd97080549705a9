"""`env …`: the environments that fixtures are made and replayed in."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from harness.cli import common
from harness.core.errors import ExitCode, UsageError
from harness.envs import wheelhouse, wheelhouse_pack
from harness.runner import fixture_source
from harness.runner.change import known_cells


def list_(arguments: argparse.Namespace) -> int:
    """List the declared environments."""
    found = common.environments_of(arguments).status()
    if arguments.json:
        common.out_json(
            [
                {
                    "name": e.name, "why": e.why, "python": e.python, "pins": dict(e.pins), "locked": e.locked,
                    "stale": e.stale, "built": str(e.built) if e.built else None, "on_demand": e.on_demand,
                    "problem": e.problem,
                }
                for e in found
            ]
        )  # fmt: skip
        return ExitCode.CLEAN
    width = max((len(e.name) for e in found), default=0)
    for e in found:
        state = e.problem or (
            "lock is stale" if e.stale else "built" if e.built else "locked" if e.locked else "no lock"
        )
        common.out(f"{e.name:{width}}  {state:13}  {', '.join(f'{k} {v}' for k, v in e.pins.items())}")
        common.out(f"{'':{width}}  {e.why.strip()}")
    return ExitCode.CLEAN


def build(arguments: argparse.Namespace) -> int:
    """Build environments that are not built yet."""
    environments = common.environments_of(arguments)
    if arguments.wheelhouse:
        return _build_packed(arguments)
    names = arguments.spec or [e.name for e in environments.status() if not e.on_demand]
    for spec in names:
        if arguments.dry_run:
            described = environments.describe(spec)
            common.out(f"{described.name}: {len(described.versions)} packages")
            continue
        built = environments.build(spec)
        common.out(f"{built.name}: {built.python}")
    return ExitCode.CLEAN


def _build_packed(arguments: argparse.Namespace) -> int:
    """Build the environment that a wheelhouse was packed of, as it is locked here where it is declared."""
    folder, environments = Path(arguments.wheelhouse).expanduser().resolve(), common.environments_of(arguments)
    if len(arguments.spec) > 1:
        raise UsageError(f"{len(arguments.spec)} environments", "one for a wheelhouse", "name one, or none")
    house = wheelhouse.read(folder)
    spec = arguments.spec[0] if arguments.spec else house.spec
    if spec in environments.names():
        environment = environments.describe(spec)
    elif spec in (house.spec, house.name):  # pins, or a name that is not declared here: it says itself what it is
        environment = house.environment()
    else:
        raise UsageError(f"{folder} was packed of {house.spec!r}", f"a wheelhouse of {spec!r}", "name another")
    _, wheels = wheelhouse.checked(folder, environment)
    if arguments.dry_run:
        common.out(f"{environment.name}: {len(wheels)} wheels, all as they were packed")
        return ExitCode.CLEAN
    built = environments.build_packed(environment, wheels)
    common.out(f"{built.name}: {built.python}")
    if spec not in environments.names():
        common.say(f"{spec!r} is declared nowhere here; as a loader it is python:{built.python}")
    return ExitCode.CLEAN


def pack(arguments: argparse.Namespace) -> int:
    """Put all wheels of an environment into a folder."""
    environment = common.environments_of(arguments).describe(arguments.spec)
    target = Path(arguments.to or f"wheelhouse-{environment.name}").expanduser().resolve()
    made = wheelhouse_pack.pack(
        environment, target, common.say, platforms=arguments.platform, torch_build=arguments.torch_build
    )
    common.out(f"{target}: {len(made.wheels)} wheels of {made.name}")
    for line in wheelhouse_pack.commands(made, target):
        common.say(line)
    return ExitCode.CLEAN


def lock(arguments: argparse.Namespace) -> int:
    """Resolve declared environments anew and write their locks."""
    environments = common.environments_of(arguments)
    for name in arguments.name:
        common.out(str(environments.lock(name)))
    return ExitCode.CLEAN


def remove(arguments: argparse.Namespace) -> int:
    """Delete what is built of an environment from the cache."""
    for path in common.environments_of(arguments).remove(arguments.spec):
        common.out(str(path))
    return ExitCode.CLEAN


def collect_garbage(arguments: argparse.Namespace) -> int:
    """Delete cached environments that nothing names any more, half-built ones, and fixtures and results out of date."""
    environments = common.environments_of(arguments)
    paths = environments.gc(dry_run=arguments.dry_run)
    for folder in fixture_source.out_of_date(environments):
        paths.append(folder)
        if not arguments.dry_run:
            shutil.rmtree(folder, ignore_errors=True)
    paths += known_cells.forget_others(environments.cache, dry_run=arguments.dry_run)
    for path in paths:
        common.out(str(path))
    common.say(f"{len(paths)} {'would be ' if arguments.dry_run else ''}removed")
    return ExitCode.CLEAN
