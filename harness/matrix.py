"""Reads `matrices/` into typed values and selects cells.

Scenarios and bases are data. What depends on a library's version is said in the data too, under `when`; `resolve` makes
of a scenario and an environment's versions the plain dictionary that the worker gets.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pydantic

from harness import requirements, tomlfile
from harness.errors import UsageError
from harness.tomlfile import Strict

PROBES: tuple[str, ...] = (
    "forward",
    "layers",
    "base",
    "accounting",
    "structure",
    "train",
    "gradients",
    "merged",
    "unmerged",
    "safe_merged",
    "unloaded",
    "merge_and_unload",
    "merged_saved",
    "roundtrip",
    "renamed",
    "second",
    "generate",
    "fresh",
)
"""Every probe, in the order in which the worker runs them."""


class Input(Strict):
    """One named input of a base."""

    kind: Literal["tokens", "mask", "uniform", "values"]
    """`tokens`: whole numbers in [low, high); `uniform`: floats there; `mask`: ones, zeros where padded; `values`."""
    shape: list[int] | None = None
    low: float = 0
    high: float = 1
    contain: list[int] | None = None
    """For `tokens`: tokens that must occur; they are put at the beginning of the last row's unpadded part."""
    pad_left: list[int] | None = None
    """For `mask`: how many positions at the left of each row are padding."""
    pad_right: list[int] | None = None
    values: list[Any] | None = None
    dtype: Literal["int64", "float32"] | None = None

    @pydantic.model_validator(mode="after")
    def _complete(self) -> Input:
        if self.kind == "values" and self.values is None:
            raise ValueError("an input of kind `values` needs `values`")
        if self.kind != "values" and not self.shape:
            raise ValueError(f"an input of kind `{self.kind}` needs `shape`")
        return self


class Module(Strict):
    """One step of a plain base: a module of `torch.nn`, or Transformers' `Conv1D`."""

    name: str
    type: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}


class Transformers(Strict):
    """A model of Transformers, built from a configuration."""

    model: str
    config: str
    args: dict[str, Any] = {}


class BaseWhen(Strict):
    """What another version of a library needs otherwise."""

    if_: str = pydantic.Field(alias="if")
    args: dict[str, Any] = {}
    drop: list[str] = []
    model: str | None = None
    load_with: dict[str, Any] = {}

    _check = pydantic.field_validator("if_")(lambda text: _condition(text))


class Base(Strict):
    """A tiny model that adapters are put on, with its inputs (`matrices/bases/NAME.toml`)."""

    why: str
    transformers: Transformers | None = None
    modules: list[Module] | None = None
    python: str | None = None
    """A Python file beside this one with a function `build()` that returns a `torch.nn.Module`."""
    inputs: dict[str, Input] = {}
    outputs: list[str] = []
    """Which fields of the model's output are compared; empty for a model that returns a tensor."""
    generate: dict[str, Any] | None = None
    """Arguments of `generate` where the model can; absent: the probe does not apply."""
    resize_to: int | None = None
    """The vocabulary's size after loading: what is on disk has fewer tokens, as before a user added some."""
    load_with: dict[str, Any] = {}
    """Further arguments of the base's `from_pretrained`."""
    when: list[BaseWhen] = []

    @pydantic.model_validator(mode="after")
    def _one_kind(self) -> Base:
        if sum(kind is not None for kind in (self.transformers, self.modules, self.python)) != 1:
            raise ValueError("a base has exactly one of `transformers`, `modules`, `python`")
        return self


class Adapter(Strict):
    """The adapter's configuration: the class's name and its arguments, as in PEFT's documentation."""

    config: str
    args: dict[str, Any] = {}
    convert: bool = False
    """Saved as plain LoRA, as PEFT does it for initialisations that change the base (`pissa`, `olora`)."""


class Expects(Strict):
    """What the checkpoint must hold: glob pattern of keys → how many keys match it. Every key must match one."""

    keys: dict[str, int]
    shapes: dict[str, list[int]] = {}
    """Glob pattern of keys → the shape that each of them has."""


class When(Strict):
    """What another version of a library needs otherwise; merged in, in order, where the condition holds."""

    if_: str = pydantic.Field(alias="if")
    args: dict[str, Any] = {}
    drop: list[str] = []
    """Adapter arguments that this version does not know."""
    config: str | None = None
    expects: Expects | None = None
    skip: dict[str, str] = {}

    _check = pydantic.field_validator("if_")(lambda text: _condition(text))


class Scenario(Strict):
    """A base, an adapter configuration, and what is observed (`[[scenario]]` in `matrices/scenarios/*.toml`)."""

    name: str = pydantic.Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    why: str = pydantic.Field(min_length=1)
    guards: list[str] = []
    """Public issues and pull requests that it stands guard over."""
    family: str = ""
    """What it is grouped under; the file's name where it says nothing."""
    base: str | None = None
    base_file: str | None = None
    """A Python file beside the scenario file with `build()`, for a base that the declarative form can't say."""
    adapter: Adapter
    beside: Adapter | None = None
    """Another adapter in the same model: when saving, of which only the first is saved, and in the probe `second`."""
    adapter_name: str = "default"
    inputs: dict[str, Input] = {}
    """In place of the base's inputs of the same name."""
    outputs: list[str] | None = None
    requires: list[str] = []
    """What creator and loader must be to have the feature: `["peft>=0.6"]`."""
    expects: Expects | None = None
    skip: dict[str, str] = {}
    """Probe → why it is not run."""
    fill: dict[str, list[float]] = {}
    """Glob of parameter names → [centre, spread], in place of the method's recipe."""
    time_limit_s: float = 120.0
    when: list[When] = []

    _requires = pydantic.field_validator("requires")(lambda texts: [_condition(text) for text in texts])

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Scenario:
        if (self.base is None) == (self.base_file is None):
            raise ValueError("a scenario has exactly one of `base`, `base_file`")
        unknown = sorted(set(self.skip) - set(PROBES))
        if unknown:
            raise ValueError(f"`skip` names no probe: {', '.join(unknown)}; probes are {', '.join(PROBES)}")
        return self


class ScenarioFile(Strict):
    """The content of one file of scenarios."""

    family: str = ""
    scenario: list[Scenario] = pydantic.Field(min_length=1)


def _condition(text: str) -> str:
    requirements.parse(text)
    return text


@dataclass(frozen=True)
class Declared:
    """A scenario with the base that it names and where both were read."""

    scenario: Scenario
    base: Base
    base_name: str
    file: Path
    sources: Mapping[str, str]
    """Text of the Python files that it names, by file name."""

    @property
    def name(self) -> str:
        """The scenario's name."""
        return self.scenario.name

    @property
    def family(self) -> str:
        """What it is grouped under."""
        return self.scenario.family


@dataclass(frozen=True)
class CellId:
    """One (scenario, creator, loader, device)."""

    scenario: str
    creator: str
    loader: str
    device: str = "cpu"

    def __str__(self) -> str:
        return f"{self.scenario}@{self.creator}:{self.loader}[{self.device}]"


class Matrix:
    """All scenarios and bases of a folder laid out as `matrices/`, over a fallback for what it does not have."""

    def __init__(self, folder: Path, fallback: Path | None = None) -> None:
        self.folder = folder
        self.fallback = fallback if fallback and fallback.resolve() != folder.resolve() else None
        if not folder.is_dir():
            raise UsageError(
                f"no folder {folder}", "a folder with scenarios/, and bases/ and envs/ where needed", "check --matrices"
            )
        self._bases: dict[str, tuple[Base, Path]] = {}

    def scenario_files(self) -> list[Path]:
        """All scenario files of the folder itself, sorted by name."""
        return sorted((self.folder / "scenarios").glob("*.toml"))

    def scenarios(self, where: Iterable[Path] | None = None) -> list[Declared]:
        """The scenarios of these files and folders (all of the matrix where None), in file order.

        Raises:
            UsageError: a file is wrong, two scenarios have one name, or there is none.
        """
        files = list(_toml_files(where)) if where is not None else self.scenario_files()
        found: dict[str, Declared] = {}
        for file in files:
            for declared in self.read(file):
                if declared.name in found:
                    raise UsageError(
                        f"{file}: scenario name {declared.name!r} is taken by {found[declared.name].file}",
                        "one name for one scenario",
                        "rename one of them",
                    )
                found[declared.name] = declared
        if not found:
            places = ", ".join(map(str, where or [self.folder / "scenarios"]))
            raise UsageError(f"no scenario in {places}", "at least one *.toml with [[scenario]]", "check the path")
        return list(found.values())

    def read(self, file: Path) -> list[Declared]:
        """The scenarios of one file."""
        parsed = tomlfile.validated(ScenarioFile, tomlfile.read(file), file)
        family = parsed.family or file.stem
        return [self._declare(s, family, file, index) for index, s in enumerate(parsed.scenario)]

    def _declare(self, scenario: Scenario, family: str, file: Path, index: int) -> Declared:
        if not scenario.family:
            scenario = scenario.model_copy(update={"family": family})
        if scenario.base_file is not None:
            sources = _source(file, scenario.base_file, f"scenario[{index}].base_file")
            base = Base(why=scenario.why, python=scenario.base_file)
            return Declared(scenario, base, Path(scenario.base_file).stem, file, sources)
        assert scenario.base is not None
        base, base_path = self._base(scenario.base, file, index)
        sources = _source(base_path, base.python, "python") if base.python else {}
        return Declared(scenario, base, scenario.base, file, sources)

    def _base(self, name: str, file: Path, index: int) -> tuple[Base, Path]:
        if name not in self._bases:
            # a scenario file outside the matrix may bring its bases along, in bases/ beside it or beside its folder
            folders = [file.parent / "bases", file.parent.parent / "bases", self.folder / "bases"]
            folders += [self.fallback / "bases"] if self.fallback else []
            path = next((p for folder in folders if (p := folder / f"{name}.toml").is_file()), None)
            if path is None:
                known = sorted({p.stem for folder in folders for p in folder.glob("*.toml")})
                close = difflib.get_close_matches(name, known, n=1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise UsageError(
                    f"{file}: `scenario[{index}].base` = {name!r}: no such base{hint}",
                    f"one of {', '.join(known)}",
                    f"mend the name, or add {self.folder / 'bases' / (name + '.toml')}",
                )
            self._bases[name] = (tomlfile.validated(Base, tomlfile.read(path), path), path)
        return self._bases[name]


def _toml_files(where: Iterable[Path]) -> Iterable[Path]:
    for path in where:
        if path.is_dir():
            folder = path / "scenarios" if (path / "scenarios").is_dir() else path
            yield from sorted(folder.glob("*.toml"))
        else:
            yield path


def _source(beside: Path, name: str, key: str) -> dict[str, str]:
    path = beside.parent / name
    try:
        return {name: path.read_text(encoding="utf-8")}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{beside}: `{key}` = {name!r}: {error}", "a Python file beside this one", "check the name"
        ) from error


def unsupported(declared: Declared, versions: Mapping[str, str]) -> str:
    """Why an environment with these versions has no such feature; empty where it has."""
    unmet = (requirements.parse(text).unmet(versions) for text in declared.scenario.requires)
    return next((reason for reason in unmet if reason), "")


def resolve(declared: Declared, versions: Mapping[str, str]) -> dict[str, Any]:
    """The scenario as the worker gets it: plain data, with everything that hangs on a version decided.

    Args:
        versions: canonical package name → version of the environment that will run it.
    """
    scenario, base = declared.scenario, declared.base
    args, config = dict(scenario.adapter.args), scenario.adapter.config
    expects, skip = scenario.expects, dict(scenario.skip)
    for when in scenario.when:
        if requirements.parse(when.if_).holds(versions):
            args = {key: value for key, value in (args | when.args).items() if key not in when.drop}
            config, expects, skip = when.config or config, when.expects or expects, skip | when.skip
    # what few scenarios say is left out of the others', so that their digests stay
    rare: dict[str, Any] = {"expects_shapes": expects.shapes} if expects and expects.shapes else {}
    if scenario.beside:
        rare["beside"] = {"config": scenario.beside.config, "args": scenario.beside.args, "name": "beside"}
    convert = {"convert": True} if scenario.adapter.convert else {}
    return rare | {
        "name": scenario.name,
        "base": _resolved_base(declared, versions),
        "inputs": {name: spec.model_dump(exclude_none=True) for name, spec in (base.inputs | scenario.inputs).items()},
        "outputs": scenario.outputs if scenario.outputs is not None else base.outputs,
        "generate": base.generate,
        "adapter": {"config": config, "args": args, "name": scenario.adapter_name} | convert,
        "expects": expects.keys if expects else None,
        "skip": skip,
        "fill": scenario.fill,
    }


def _resolved_base(declared: Declared, versions: Mapping[str, str]) -> dict[str, Any]:
    base = declared.base
    resolved: dict[str, Any] = {"name": declared.base_name, "load_with": base.load_with}
    resolved |= {"resize_to": base.resize_to} if base.resize_to else {}
    if base.modules is not None:
        return resolved | {"kind": "modules", "modules": [module.model_dump() for module in base.modules]}
    if base.python is not None:
        return resolved | {"kind": "python", "file": base.python, "source": declared.sources[base.python]}
    assert base.transformers is not None
    args, model = dict(base.transformers.args), base.transformers.model
    for when in base.when:
        if requirements.parse(when.if_).holds(versions):
            args = {key: value for key, value in (args | when.args).items() if key not in when.drop}
            model = when.model or model
            resolved = resolved | {"load_with": resolved["load_with"] | when.load_with}
    return resolved | {"kind": "transformers", "model": model, "config": base.transformers.config, "args": args}


def digest(resolved: Mapping[str, Any]) -> str:
    """SHA-256 of a resolved scenario: what a fixture was made from."""
    return hashlib.sha256(json.dumps(resolved, sort_keys=True).encode()).hexdigest()
