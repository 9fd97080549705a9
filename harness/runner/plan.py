"""From a request to the cells that are checked."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from packaging.version import Version

from harness.core import keyword, matrix, versions
from harness.core.cell_settings import placed
from harness.core.errors import HarnessError, UsageError
from harness.core.matrix import CellId, Declared
from harness.core.versions import version_of
from harness.envs import spec as specs
from harness.envs.declaration import Declaration
from harness.envs.environment import EnvFailed
from harness.envs.environments import Environments
from harness.runner.request import CheckRequest
from harness.store.fixtures import Store, recorded_versions


@dataclass(frozen=True)
class Planned:
    """A cell to check."""

    id: CellId
    declared: Declared
    creator_spec: str
    loader_spec: str
    limit_s: float | None = None
    further: bool = False
    """Run the further probes too (`FURTHER` in `harness/worker/shared.py`)."""
    traced: bool = False
    """Record which code of the libraries it executes, and keep that with its observation."""

    @property
    def time_limit_s(self) -> float:
        """How long the worker may be silent about it."""
        return self.limit_s or self.declared.scenario.time_limit_s


def creators_with_fixtures(
    store: Store, asked: Sequence[str], environments: Environments | None = None
) -> tuple[str, ...]:
    """The named creators, or all that have fixtures, in the order of their PEFT releases.

    Args:
        environments: where given, those whose fixtures are made on demand are among all.

    Raises:
        UsageError: there is no fixture at all.
    """
    if asked:
        return tuple(asked)
    found = sorted(store.creators(), key=lambda name: (release(store, name), name))
    if environments is not None:
        made = [name for name in environments.names() if _made_on_demand(environments, name)]
        found += [name for name in made if name not in found]
    if not found:
        raise UsageError("there are no fixtures", "fixtures/<creator>.jsonl", "make some: `peft-regress create v061`")
    return tuple(found)


def release(store: Store, creator: str) -> Version:
    """A creator's PEFT version; an unknown one sorts first."""
    return version_of(recorded_versions(store, creator).get("peft", "0")) or Version("0")


def _made_on_demand(environments: Environments, name: str) -> bool:
    """True if a declaration says so. Whoever needs one that cannot be read reports it."""
    try:
        return environments.makes_fixtures_on_demand(name)
    except HarnessError:
        return False


def named(request: CheckRequest, environments: Environments) -> CheckRequest:
    """The request with its creators named, where it leaves them open.

    Raises:
        UsageError: there is no fixture at all, or the request names creators and asks for all too.
    """
    if request.every_creator and request.creators:
        raise UsageError("--all and --creator", "one of them", "leave one out")
    if request.pair:
        return request
    made = environments if request.every_creator else None
    creators = creators_with_fixtures(request.places.store(), request.creators, made)
    return replace(request, creators=creators, every_creator=False)


def plan(scenarios: Iterable[Declared], request: CheckRequest, environments: Environments) -> list[Planned]:
    """The cells: each scenario with each creator and each loader, grouped by loader so that each is imported once.

    The scenarios are narrowed by the request's families and `hub`. A creator that is declared for some families has no
    cells of the others. With `pair`, creators that are specifications (`peft==0.9.0`) get their environment's name.
    """
    selection = request.selection
    scenarios = [s for s in scenarios if s.is_of(selection.families) and (selection.hub or not s.needs_hub)]
    for spec in request.creators if request.pair else ():
        if specs.reads_only(spec):
            raise UsageError(f"{spec!r} makes no fixtures", "an environment with PEFT", "name the consumer as --loader")
    loaders = {name_of(environments, spec): spec for spec in request.loaders}
    creators = {name_of(environments, spec) if request.pair else spec: spec for spec in request.creators}
    cells = [
        Planned(
            CellId(s.name, creator, loader, request.device, request.settings),
            s, creator_spec, loader_spec, request.time_limit, request.further, request.trace,
        )
        for loader, loader_spec in loaders.items()
        for creator, creator_spec in creators.items()
        for s in scenarios
        if makes(environments, creator_spec, s.family)
    ]  # fmt: skip
    return [cell for cell in cells if is_selected(cell, request)]


def with_further(cells: Iterable[Planned]) -> list[Planned]:
    """The cells; of each loader, the first with a family, a config class or a switch of it runs the further probes.

    They take half as long as all others, and what they use depends on the method more than on the scenario.
    """
    seen = set[tuple[str, ...]]()
    found = []
    for cell in cells:
        own = {(cell.loader_spec, *use) for use in _uses(cell.declared)}
        found.append(replace(cell, further=cell.further or not own <= seen))
        seen |= own
    return found


_BESIDE_LAYERS = ("bias", "modules_to_save", "trainable_token_indices")
"""Arguments that put more into an adapter than its method's layers."""


def _uses(one: Declared) -> set[tuple[str, ...]]:
    adapter = one.scenario.adapter
    switches = {name for name, value in adapter.args.items() if value is True or name in _BESIDE_LAYERS}
    return {(one.family, adapter.config), *((adapter.config, name) for name in switches)}


def is_selected(cell: Planned, request: CheckRequest) -> bool:
    """True if `--cell` and `-k` select it."""
    wanted = not request.cells or matches(str(cell.id), request.cells)
    return wanted and (not request.expression or keyword.parse(request.expression)(names_of(cell)))


def names_of(cell: Planned) -> tuple[str, ...]:
    """The names in which a word of -k may occur."""
    declared = cell.declared
    config = declared.scenario.adapter.config
    return (str(cell.id), declared.file.name, declared.family, cell.id.creator, cell.id.loader, config)


def makes(environments: Environments, creator: str, family: str) -> bool:
    """True if a creator makes fixtures of a family. All do, except those that are declared for some families."""
    declared = _declaration(environments, creator)
    return declared is None or declared.makes(family)


@functools.lru_cache(maxsize=1024)  # read once, not once for each scenario
def _declaration(environments: Environments, creator: str) -> Declaration | None:
    return environments.declaration(creator)


def unmeetable(scenarios: Iterable[Declared], creator: str, environments: Environments) -> dict[str, UsageError]:
    """Scenarios that no environment can run, by name, each with its error. Without it they would stay `unsupported`.

    Args:
        creator: the environment that is to make fixtures. It need not be declared; a requirement on a package that
            only this environment has is not an error.
    """
    asked, declared = versions_of(environments, creator), environments.names()
    found = {}
    for one in scenarios:
        if not (texts := one.scenario.requires + one.scenario.creator_requires):
            continue
        packages = {name for text in texts for name, _ in versions.parse(text).parts}
        having = {name: has for name in declared if packages <= set(has := versions_of(environments, name))}
        reasons = {name: matrix.unsupported(one, has, creating=True) for name, has in having.items()}
        reasons |= {creator: matrix.unsupported(one, asked, creating=True)} if asked else {}
        if not reasons or not all(reasons.values()) or (not having and packages <= set(asked)):
            continue
        shown = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[-3:])
        found[one.name] = UsageError(
            f"{one.file}: scenario {one.name!r} has requirements that no environment meets ({shown})",
            "at least one creator that can make it",
            "fix `requires`, or declare an environment that has it: `peft-regress env add peft==…`",
        )
    return found


@functools.lru_cache(maxsize=256)
def versions_of(environments: Environments, spec: str) -> Mapping[str, str]:
    """The package versions of an environment; empty if it cannot be described."""
    try:
        return environments.describe(spec).versions
    except HarnessError:
        return {}


def parsed(text: str) -> CellId:
    """A cell's id from its text: `scenario@creator:loader[device]`, or `…[device+bfloat16+sdpa]` with settings."""
    scenario, _, rest = text.partition("@")
    creator, _, rest = rest.partition(":")
    loader, _, place = rest.rpartition("[")
    return CellId(scenario, creator, loader, *placed(place.rstrip("]")))


@functools.lru_cache(maxsize=256)  # starts interpreters and reads checkouts: once, not for each scenario file
def name_of(environments: Environments, spec: str) -> str:
    """The short name of an environment. One that cannot be resolved has a name too; its cells are `env-failed`."""
    try:
        return environments.describe(spec).name
    except EnvFailed as error:
        return error.name


def matches(cell: str, wanted: Iterable[str]) -> bool:
    """True if a cell's id is one of these ids, or matches one of these globs."""
    return any(cell == one or fnmatch.fnmatchcase(cell, one.replace("[", "[[]")) for one in wanted)
