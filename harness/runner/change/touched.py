"""Which scenarios a change can affect: changed files → scenarios, with the reason. Pure.

A method's own file (`peft/tuners/lora/…`) affects the scenarios of that method and of methods whose files use it. So
does a file that only methods' files import (`peft/tuners/lycoris_utils.py`). A model's own file
(`transformers/models/llama/…`) affects the scenarios on that model. All other installed files are shared and affect
every scenario; so do files of an unknown layout. To check too much costs seconds, too little a break.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from harness.core import syntax, versions
from harness.core.matrix import Declared
from harness.runner.change import imports

ROOTS = {"peft": "peft/tuners", "transformers": "transformers/models"}
"""Package → the folder with one folder for each method or model."""
_USED_BY_SOME = {"trl", "bitsandbytes"}
"""Packages that only some scenarios use."""
_NOT_INSTALLED = {
    "tests", "test", "docs", "doc", "examples", "example", "benchmarks", "method_comparison", "scripts", "docker",
    "notebooks", "templates", "i18n", "assets", "ci", "utils", "Makefile", "LICENSE", "CITATION.cff", "conftest.py",
}  # fmt: skip
"""Top-level names in a checkout that are in no wheel."""
_WORDS = {".md", ".rst", ".ipynb"}
_REGISTRY = "auto"  # Transformers' `auto` imports all models and belongs to none
_CLASS = re.compile(r"^class (\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Touched:
    """What a change can affect."""

    scenarios: dict[str, str] = field(default_factory=dict)
    """Name → why it is checked."""
    everything: str = ""
    """Why every scenario is checked; empty where some are not."""
    uncovered: tuple[str, ...] = ()
    """Changed files that no scenario is about."""
    groups: tuple[str, ...] = ()
    """The changed methods or models; the package itself where it has no such parts."""
    users: frozenset[str] = frozenset()
    """The scenarios that use the package; empty where all do."""


@dataclass(frozen=True)
class Files:
    """A package's installed files; names start with the package: `peft/tuners/lora/layer.py`."""

    names: frozenset[str]
    read: Callable[[str], str]


def installed_name(name: str, tops: Collection[str]) -> str | None:
    """The installed name of a checkout's file; None for a file that is not installed.

    Args:
        name: from the checkout's root, `src/peft/tuners/lora/layer.py`.
        tops: the top-level names that the package installs: `peft`.
    """
    parts = PurePosixPath(name.strip().removeprefix("./")).parts
    if not parts or name.endswith(".pyc") or parts[0].endswith((".dist-info", ".egg-info")):
        return None
    inner = parts[1:] if parts[:1] == ("src",) else parts
    if inner and inner[0] in tops:
        return "/".join(inner)
    loose = len(parts) == 1 and (PurePosixPath(name).suffix in _WORDS or name.startswith("."))
    if parts[0] in _NOT_INSTALLED or parts[0].startswith(".") or loose:
        return None
    return "/".join(parts)


def of(package: str, changed: Iterable[str], files: Files, scenarios: Sequence[Declared]) -> Touched:
    """What the changed files of a package can affect.

    Args:
        package: its canonical name.
        changed: installed names; a file outside the package (`pyproject.toml`) counts as shared.
        files: the package's, with the change.
    """
    changed = sorted(set(changed))
    if package not in ROOTS:
        if changed and package not in _USED_BY_SOME:
            why = f"everything uses {package}"
            return Touched({one.name: why for one in scenarios}, everything=why)
        users = {one.name: why for one in scenarios if (why := _uses(package, one))}
        uncovered = tuple(changed) if not users else ()
        return Touched(users if changed else {}, uncovered=uncovered, users=frozenset(users), groups=(package,))
    layout = _Layout(ROOTS[package], files)
    own = {name: groups for name in changed if (groups := layout.affected_by(name))}
    if shared := [name for name in changed if name not in own]:
        why = f"{shared[0]} is shared by all{f', as are {len(shared) - 1} more' if len(shared) > 1 else ''}"
        return Touched({one.name: why for one in scenarios}, everything=why)
    found: dict[str, str] = {}
    touched: set[str] = set()
    for one in scenarios:
        needs = layout.needs(_groups(package, one, layout))
        needs = needs if needs is None else needs | {*one.scenario.every_load_path()}  # `mixed` is a folder of its own
        hits = [name for name, groups in own.items() if needs is None or groups & needs]
        touched.update(hits)
        if hits:
            found[one.name] = f"{hits[0]}{f' and {len(hits) - 1} more' if len(hits) > 1 else ''} changed"
    uncovered = tuple(name for name in changed if name not in touched)
    return Touched(found, uncovered=uncovered, groups=tuple(sorted(set().union(*own.values()))))


# -- what a scenario is about ------------------------------------------------------------------------------------------


def _groups(package: str, one: Declared, layout: _Layout) -> set[str] | None:
    """The methods or models of a scenario; None where they are unknown."""
    names = _configs(one) if package == "peft" else _models(one)
    if names is None:
        return None
    found = {layout.home_of(name) for name in names}
    if None in found:
        return None
    groups = {group for group in found if group}
    more = _said_by_arguments(one) if package == "peft" else {word.replace("-", "_") for word in _model_types(one)}
    return groups | {group for group in layout.groups if _mentions(more, group)}


def _configs(one: Declared) -> set[str]:
    scenario = one.scenario
    every = [scenario.adapter, *scenario.adapter.experts.values(), *([scenario.beside] if scenario.beside else [])]
    every += list(scenario.wrap.adapters.values()) if scenario.wrap else []
    return {each.config for each in every} | {when.config for when in scenario.when if when.config}


def _said_by_arguments(one: Declared) -> set[str]:
    """Further names in a scenario's arguments: `trainable_token_indices`."""
    return set(one.scenario.adapter.args) | {key for when in one.scenario.when for key in when.args}


def _mentions(words: Iterable[str], group: str) -> bool:
    stem = group.removesuffix("s")
    return any(word in (group, stem) or word.startswith(f"{stem}_") for word in words)


def _models(one: Declared) -> set[str] | None:
    base = one.base
    if base.modules is not None:
        return set()
    if base.python is not None:
        return None if any("transformers" in text for text in one.sources.values()) else set()
    named = {when.model for when in base.when if when.model}
    named |= {base.transformers.model} if base.transformers else set()
    return named | ({base.hub.model} if base.hub else set())


def _model_types(one: Declared) -> set[str]:
    """Models named as parts of a base: `text_config = { model_type = "llama" }`."""
    args = [one.base.transformers.args] if one.base.transformers else []
    return {text for each in [*args, *(when.args for when in one.base.when)] for text in _named_types(each)}


def _named_types(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key == "model_type" and isinstance(inner, str):
                yield inner
            yield from _named_types(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _named_types(inner)


def _uses(package: str, one: Declared) -> str:
    """Why a scenario needs a package that is neither PEFT nor Transformers; empty where it does not."""
    scenario = one.scenario
    required = {name for text in scenario.requires + scenario.creator_requires
                for name, _ in versions.parse(text).parts}  # fmt: skip
    wrapped = scenario.wrap is not None and "value-head" in (*scenario.wrap.saved, *scenario.wrap.loaded)
    needs = {"trl": scenario.sft is not None or wrapped, "bitsandbytes": one.quantize is not None}
    if package not in needs:
        return f"everything uses {package}"  # nothing of it changed: all are among the sample
    return f"it uses {package}" if needs[package] or package in required else ""


# -- how a package is laid out -----------------------------------------------------------------------------------------


@dataclass
class _Layout:
    """A package's folders, one for each method or model, and their imports of each other."""

    root: str
    files: Files
    _imports: dict[str, frozenset[str] | None] = field(default_factory=dict)

    @cached_property
    def groups(self) -> frozenset[str]:
        """Folders that define a class which a scenario may name. A folder that defines none is shared."""
        return frozenset(group for group in self._members if group in self._homes.values() and group != _REGISTRY)

    @cached_property
    def _members(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in sorted(self.files.names):
            inner = name.removeprefix(f"{self.root}/")
            if inner != name and "/" in inner:
                found.setdefault(inner.partition("/")[0], []).append(name)
        return found

    @cached_property
    def _homes(self) -> dict[str, str]:
        """Class → the folder that defines it, for configs and models."""
        found: dict[str, str] = {}
        for group, names in self._members.items():
            for name in names:
                if self._may_define(name):
                    found |= dict.fromkeys(_CLASS.findall(self._text(name)), group)
        return found

    def _may_define(self, name: str) -> bool:
        stem = PurePosixPath(name).name
        return stem.startswith("modeling_") if self.root.startswith("transformers") else stem.endswith(".py")

    def group_of(self, name: str) -> str:
        """The group of a file; empty for a shared one."""
        inner = name.removeprefix(f"{self.root}/")
        group = inner.partition("/")[0] if inner != name and "/" in inner else ""
        known = group in self.groups or (group and group not in self._members)  # the folder may be gone
        return group if known else ""

    def affected_by(self, name: str) -> frozenset[str]:
        """The group of a file, or those whose files import it; empty for a shared file."""
        group = self.group_of(name)
        return frozenset({group}) if group else self._importing(name, frozenset())

    def _importing(self, name: str, seen: frozenset[str]) -> frozenset[str]:
        """The groups that import a file, directly or through other files; empty if anything else does, or nothing."""
        found = set[str]()
        for user in self._calls.importers(name) if name in self.files.names else ():
            groups = {self.group_of(user)} - {""} or (self._importing(user, seen | {name}) if user not in seen else ())
            if not groups and user not in seen:
                return frozenset()
            found |= set(groups)
        return frozenset(found)

    def home_of(self, name: str) -> str | None:
        """The group that defines a class; None where none does."""
        return self._homes.get(name)

    def needs(self, groups: set[str] | None) -> set[str] | None:
        """These groups and all that their files import, directly or indirectly; None where that is unknown."""
        if groups is None:
            return None
        found, waiting = set[str](), list(groups)
        while waiting:
            group = waiting.pop()
            if group in found:
                continue
            found.add(group)
            imported = self._imported(group)
            if imported is None:
                return None
            waiting += imported - found
        return found

    def _imported(self, group: str) -> frozenset[str] | None:
        if group not in self._imports:
            try:
                names = [name for name in self._members.get(group, ()) if name.endswith(".py")]
                found = {other for name in names for other in self._imported_by(name)}
            except SyntaxError:  # it does not compile, so all that may need it is checked
                self._imports[group] = None
            else:
                self._imports[group] = frozenset(found & set(self._members)) - {group}
        return self._imports[group]

    def _imported_by(self, name: str) -> Iterator[str]:
        tree = syntax.module(self._text(name))
        of_any = False
        for each in imports.used(tree, self._calls.reach):
            node, imported = each.node, each.alias.name
            if isinstance(node, ast.ImportFrom):
                module = _absolute(name, node)
                of_any = of_any or _REGISTRY in (module.rpartition("/")[2], imported)
                yield self._group_in(f"{module}/{imported}") or self._homes.get(imported, "")
            else:
                yield self._group_in(imported.replace(".", "/"))
        if of_any:  # `auto` chooses the parts of such a model by their names
            constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
            yield from (value for value in constants if isinstance(value, str) and value in self._members)

    @cached_property
    def _calls(self) -> imports.Calls:
        return imports.Calls(self.files.names, self.files.read)

    def _group_in(self, module: str) -> str:
        inner = module.removeprefix(f"{self.root}/")
        return inner.partition("/")[0] if inner != module else ""

    def _text(self, name: str) -> str:
        return self.files.read(name)


def _absolute(name: str, node: ast.ImportFrom) -> str:
    """The module that an import names, as a path from above the package."""
    module = (node.module or "").replace(".", "/")
    if not node.level:
        return module
    above = PurePosixPath(name).parts[: -node.level]
    return "/".join([*above, module] if module else above)
