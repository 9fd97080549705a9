"""Reads the scenarios and bases of `matrices/`.

Scenarios and bases are data, and so is what depends on a library's version (`when`). `resolve` turns a scenario and the
versions of an environment into the plain dictionary that the worker gets.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core import toml_files
from harness.core import versions as requirements
from harness.core.cell_settings import OWN, Settings, place
from harness.core.errors import UsageError
from harness.core.files import read_text
from harness.core.scenario import Base, Input, Quantize, Scenario, ScenarioFile
from harness.core.text import did_you_mean, similar
from harness.worker.files import parse_json, tree_digest
from harness.worker.shared import FROM_FILE, TRAINER

ADAPTER_CONFIG = "adapter_config.json"
NEEDS_HUB = "needs --hub"
"""Why a scenario on a model of the Hub is not run."""


@dataclass(frozen=True)
class Given:
    """A saved adapter beside a scenario file: its folder, and SHA-256 of its files."""

    folder: Path
    digest: str


@dataclass(frozen=True)
class Declared:
    """A scenario with its base, and the file that declares it."""

    scenario: Scenario
    base: Base
    base_name: str
    file: Path
    sources: Mapping[str, str]
    """File name → text of each Python file, or configuration of a model, that it refers to."""
    given: Given | None = None
    """The saved adapter that is loaded; None if the adapter is made."""

    @property
    def name(self) -> str:
        """The scenario's name."""
        return self.scenario.name

    @property
    def family(self) -> str:
        """The group that it belongs to."""
        return self.scenario.family

    @property
    def quantize(self) -> Quantize | None:
        """How its base is quantised. The scenario's own setting comes first."""
        return self.scenario.quantize or self.base.quantize

    @property
    def method(self) -> str:
        """PEFT's method: `Lora` for `LoraConfig`."""
        return self.scenario.adapter.config.removesuffix("Config")

    @property
    def imports(self) -> tuple[str, ...]:
        """What a worker imports in advance: classes of Transformers, and TRL's trainer."""
        model = self.base.transformers
        return (*([model.model] if model else []), *([TRAINER] if self.scenario.sft else []))

    def is_of(self, families: Collection[str]) -> bool:
        """True if it belongs to one of these families (names or globs such as `bnb-*`), or if there are none."""
        return not families or any(fnmatch.fnmatchcase(self.family, name) for name in families)

    @property
    def needs_hub(self) -> bool:
        """True if its base is a real model, which is only used with `--hub`."""
        return self.base.hub is not None


@dataclass(frozen=True)
class CellId:
    """One (scenario, creator, loader, device), with the settings of the computation."""

    scenario: str
    creator: str
    loader: str
    device: str = "cpu"
    settings: Settings = OWN

    @property
    def place(self) -> str:
        """The device with its settings: `cpu`, `cpu+bfloat16`."""
        return place(self.device, str(self.settings))

    def __str__(self) -> str:
        return f"{self.scenario}@{self.creator}:{self.loader}[{self.place}]"


def of_families(scenarios: Iterable[Declared], families: Collection[str]) -> list[Declared]:
    """The scenarios of these families (names or globs such as `bnb-*`); all if there are none.

    Raises:
        UsageError: one of them has no scenario.
    """
    scenarios = list(scenarios)
    known = sorted({one.family for one in scenarios})
    for name in families:
        if not any(one.is_of([name]) for one in scenarios):
            close = [one for one in known if name in one] or similar(name, known, most=3)
            raise UsageError(
                f"no scenario of family {name!r}", f"a family, or a glob: {', '.join(close or known)}",
                "`peft-regress list` shows them",
            )  # fmt: skip
    return [one for one in scenarios if one.is_of(families)]


class Matrix:
    """The scenarios and bases of a folder like `matrices/`, and of a fallback for what it lacks."""

    def __init__(self, folder: Path, fallback: Path | None = None) -> None:
        self.folder = folder
        self.fallback = fallback if fallback and fallback.resolve() != folder.resolve() else None
        if not folder.is_dir():
            raise UsageError(
                f"no folder {folder}", "a folder with scenarios/, and if needed bases/ and envs/", "check --matrices"
            )
        self._bases: dict[Path, Base] = {}

    def scenario_files(self) -> list[Path]:
        """The scenario files of the folder, without the fallback, sorted by name."""
        return sorted((self.folder / "scenarios").glob("*.toml"))

    def scenarios(
        self, where: Iterable[Path] | None = None, *, hub: bool = False, families: Collection[str] = ()
    ) -> list[Declared]:
        """The scenarios of these files and folders, in file order; all of the matrix if None.

        Args:
            hub: include those on models of the Hub.
            families: names or globs; empty for all.

        Raises:
            UsageError: a file is wrong, two scenarios have the same name, a family has no scenario, or there is none.
        """
        files = list(_toml_files(where)) if where is not None else self.scenario_files()
        found: dict[str, Declared] = {}
        for file in files:
            for declared in self.read(file):
                if declared.name in found:
                    raise UsageError(
                        f"{file}: scenario name {declared.name!r} is taken by {found[declared.name].file}",
                        "a name that no other scenario has",
                        "rename one of them",
                    )
                found[declared.name] = declared
        named = of_families(found.values(), families) if found else []
        chosen = [one for one in named if hub or not one.needs_hub]
        if named and not chosen:
            names = ", ".join(one.name for one in named)
            raise UsageError(
                f"{names}: {NEEDS_HUB}", "a scenario on a tiny base", "add --hub if the models are in the local cache"
            )
        if not found:
            places = ", ".join(map(str, where or [self.folder / "scenarios"]))
            raise UsageError(f"no scenario in {places}", "at least one *.toml with [[scenario]]", "check the path")
        return chosen

    def read(self, file: Path) -> list[Declared]:
        """The scenarios of one file."""
        parsed = toml_files.validated(ScenarioFile, toml_files.read(file), file)
        family = parsed.family or file.stem
        stored_by = {"stored_by": parsed.stored_by}
        every = [one if one.stored_by else one.model_copy(update=stored_by) for one in parsed.scenario]
        return [self._declare(one, family, file, index) for index, one in enumerate(every)]

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
        if base.transformers and (name := base.transformers.config_file):
            sources = _source(base_path, name, "transformers.config_file")
            _json_object(sources[name], base_path.parent / name)
            for code in base.transformers.code:
                sources |= _source(base_path, code, "transformers.code")
        return Declared(scenario, base, scenario.base, file, sources, _given(scenario, file, index))

    def _base(self, name: str, file: Path, index: int) -> tuple[Base, Path]:
        # a scenario file outside the matrix may have its own bases, in bases/ beside it or beside its folder
        folders = [file.parent / "bases", file.parent.parent / "bases", self.folder / "bases"]
        folders += [self.fallback / "bases"] if self.fallback else []
        path = next((p for folder in folders if (p := folder / f"{name}.toml").is_file()), None)
        if path is None:
            known = sorted({p.stem for folder in folders for p in folder.glob("*.toml")})
            raise UsageError(
                f"{file}: `scenario[{index}].base` = {name!r}: no such base{did_you_mean(name, known)}",
                f"one of {', '.join(known)}",
                f"correct the name, or add {self.folder / 'bases' / (name + '.toml')}",
            )
        if path not in self._bases:
            self._bases[path] = toml_files.validated(Base, toml_files.read(path), path)
        return self._bases[path], path


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
        return {name: read_text(path)}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{beside}: `{key}` = {name!r}: {error}", "a Python file beside this one", "check the name"
        ) from error


def _json_object(text: str, path: Path) -> dict[str, Any]:
    try:
        found = parse_json(text)
        if not isinstance(found, dict) or not isinstance(found.get("model_type"), str):
            raise ValueError("it is no object with `model_type`")
    except ValueError as error:
        raise UsageError(
            f"{path}: not the configuration of a model: {error}", "a model's config.json", "correct the file"
        ) from error
    return found


def _given(scenario: Scenario, file: Path, index: int) -> Given | None:
    if scenario.adapter_files is None:
        return None
    folder = file.parent / scenario.adapter_files
    try:
        if not (folder / ADAPTER_CONFIG).is_file():
            raise FileNotFoundError(f"no {ADAPTER_CONFIG} in it")
        return Given(folder, tree_digest(folder))
    except OSError as error:
        raise UsageError(
            f"{file}: `scenario[{index}].adapter_files` = {scenario.adapter_files!r}: {error}",
            "a folder with a saved adapter, beside this file", "check the name",
        ) from error  # fmt: skip


def unsupported(declared: Declared, versions: Mapping[str, str], *, creating: bool = False) -> str:
    """Why an environment with these versions lacks the feature, or cannot create it; empty if it can."""
    conditions = declared.scenario.requires + (declared.scenario.creator_requires if creating else [])
    unmet = (requirements.parse(text).unmet(versions) for text in conditions)
    return next((reason for reason in unmet if reason), "")


def unstored(declared: Declared, versions: Mapping[str, str]) -> str:
    """Why no fixture of a creator with these versions is stored; empty if one is."""
    reason = unsupported(declared, versions, creating=True)
    kept = [requirements.parse(text) for text in declared.scenario.stored_by]
    if reason or not kept or any(condition.holds(versions) for condition in kept):
        return reason
    return f"fixtures are stored only for {' or '.join(one.text for one in kept)}; `pair` makes one"


def resolve(declared: Declared, versions: Mapping[str, str]) -> dict[str, Any]:
    """The scenario as the worker gets it: plain data, with everything that depends on a version decided.

    Args:
        versions: canonical package name → version of the environment that will run it.
    """
    scenario, base = declared.scenario, declared.base
    args, config = dict(scenario.adapter.args), scenario.adapter.config
    expects, skip, leaves_out = scenario.expects, dict(scenario.skip), scenario.leaves_out
    for when in scenario.when:
        if requirements.parse(when.if_).holds(versions):
            args = {key: value for key, value in (args | when.args).items() if key not in when.drop}
            config, expects, skip = when.config or config, when.expects or expects, skip | when.skip
            leaves_out = when.leaves_out or leaves_out
    adapter: dict[str, Any] = {"config": config, "args": args, "name": scenario.adapter_name}
    resolved: dict[str, Any] = {
        "name": scenario.name,
        "base": _resolved_base(declared, versions),
        "inputs": _inputs(base.inputs | scenario.inputs),
        "outputs": scenario.outputs if scenario.outputs is not None else base.outputs,
        "generate": base.generate,
        "adapter": adapter,
        "expects": expects.keys if expects else None,
        "skip": skip,
        "fill": scenario.fill,
    }
    # only if set: the digest of a scenario must not change because others have more keys
    if declared.given:
        adapter["given"] = declared.given.digest
    if scenario.adapter.convert:
        adapter["convert"] = True
    if scenario.adapter.experts:
        adapter["experts"] = {name: expert.model_dump() for name, expert in scenario.adapter.experts.items()}
    if scenario.adapter_inputs:
        resolved["adapter_inputs"] = _inputs(scenario.adapter_inputs)
    if scenario.beside:
        resolved["beside"] = {"config": scenario.beside.config, "args": scenario.beside.args, "name": "beside"}
    if scenario.steps:
        resolved["steps"] = scenario.steps.model_dump()
    if scenario.sft:
        resolved["sft"] = scenario.sft.model_dump()
    if scenario.wrap:
        resolved["wrap"] = scenario.wrap.model_dump()
    if load_paths := scenario.every_load_path():
        resolved["doors"] = list(load_paths)  # stored fixtures have this spelling
    if leaves_out:
        resolved["leaves_out"] = leaves_out
    if expects and expects.shapes:
        resolved["expects_shapes"] = expects.shapes
    return resolved


def _inputs(specs: Mapping[str, Input]) -> dict[str, Any]:
    return {name: spec.model_dump(exclude_none=True) for name, spec in specs.items()}


def _resolved_base(declared: Declared, versions: Mapping[str, str]) -> dict[str, Any]:
    base = declared.base
    resolved: dict[str, Any] = {"name": declared.base_name, "load_with": base.load_with}
    resolved |= {"resize_to": base.resize_to} if base.resize_to else {}
    resolved |= {"saved_dtype": base.dtype} if base.dtype else {}
    resolved |= {"tokenizer": base.tokenizer} if base.tokenizer else {}
    if quantize := declared.quantize:
        resolved["quantize"] = quantize.model_dump(by_alias=True)
    if base.modules is not None:
        return resolved | {"kind": "modules", "modules": [module.model_dump() for module in base.modules]}
    if base.hub is not None:
        return resolved | {"kind": "hub", **base.hub.model_dump()}
    if base.python is not None:
        return resolved | {"kind": "python", "file": base.python, "source": declared.sources[base.python]}
    assert base.transformers is not None
    args, model = dict(base.transformers.args), base.transformers.model
    for when in base.when:
        if requirements.parse(when.if_).holds(versions):
            args = {key: value for key, value in (args | when.args).items() if key not in when.drop}
            model = when.model or model
            resolved = resolved | {"load_with": resolved["load_with"] | when.load_with}
    if name := base.transformers.config_file:
        args = _json_object(declared.sources[name], Path(name)) | args
    if base.transformers.code:
        resolved["code"] = {name: declared.sources[name] for name in base.transformers.code}
        resolved["load_with"] = {**resolved["load_with"], "trust_remote_code": True}
    config = base.transformers.config or FROM_FILE
    return resolved | {"kind": "transformers", "model": model, "config": config, "args": args}


def digest(resolved: Mapping[str, Any]) -> str:
    """SHA-256 of a resolved scenario: what a fixture was made from."""
    return hashlib.sha256(json.dumps(resolved, sort_keys=True).encode()).hexdigest()
