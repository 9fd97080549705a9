"""Says what an adapter is, which releases can have written it, which known breaks apply to it, and what is damaged."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.core import data
from harness.core.errors import ExitCode, HarnessError
from harness.core.versions import version_of
from harness.judge import applies, breaks
from harness.judge.applies import Applies
from harness.own import (
    base_config,
    base_fit,
    base_guess,
    config_values,
    damage,
    dating,
    folder,
    target,
    values,
    written_by,
)
from harness.own.damage import Damage
from harness.own.dating import Dated
from harness.own.folder import Folder
from harness.own.target import Target
from harness.own.values import Scan
from harness.own.written_by import Table
from harness.runner.request import Places
from harness.store.adapter import Adapter


@dataclass(frozen=True)
class Diagnosis:
    """Everything that is said of an adapter.

    Attributes:
        base: where the base's configuration was found; empty if it was not.
        guess: the type of model that the base has by its name, if its configuration was not found.
        applies: the known breaks that apply or may apply, the worst first.
        unsure: why something could not be told, in sentences.
    """

    folder: Folder
    base: str
    guess: str
    dated: Dated
    target: Target
    applies: tuple[Applies, ...]
    damage: tuple[Damage, ...]
    scan: Scan
    unsure: tuple[str, ...]

    @property
    def certain(self) -> list[Applies]:
        """The known breaks that apply whatever the user does."""
        return [one for one in self.applies if one.certain and not one.only_if]

    @property
    def possible(self) -> list[Applies]:
        """The known breaks that may apply whatever the user does: the files do not say."""
        return [one for one in self.applies if not one.certain and not one.only_if]

    @property
    def exit_code(self) -> ExitCode:
        """Of the command."""
        if self.certain or any(one.serious for one in self.damage):
            return ExitCode.REGRESSED
        return ExitCode.CANNOT_TELL if self.unsure or self.possible else ExitCode.CLEAN


@dataclass(frozen=True)
class Question:
    """What is asked of an adapter.

    Attributes:
        path: the adapter's folder, or a file in it.
        to: the environment that is to load it.
        base: a folder with the base's `config.json`.
    """

    path: Path
    to: Target
    base: Path | None = None


def known(places: Places) -> target.Known:
    """The environments that can be asked for their versions."""
    return places.environments_as(target.Known)


def diagnose(question: Question, places: Places) -> Diagnosis:
    """Everything that can be said of an adapter without loading it.

    Raises:
        UsageError: there is no adapter of PEFT, or `base` has no configuration.
        HarnessError: its configuration cannot be read.
    """
    config = folder.config_of(folder.find(question.path))
    base, origin = _base(config, question.base)
    found = folder.read(question.path, base)
    matrices = places.matrix().folder
    table = written_by.load(matrices if (matrices / written_by.FILE).is_file() else data.matrices())
    dated = dating.date(found.adapter, table)
    scan = values.scan(found.path, found.tensors)
    apply = applies.applying(
        found.adapter, dated.creators, question.to.versions, breaks.load(matrices), _Locks(known(places))
    )
    guess = "" if origin else base_guess.model_type(str(config.get("base_model_name_or_path") or ""))
    unsure = [*_newer(found, question.to, table), *question.to.unsure]
    return Diagnosis(
        found, origin, guess, dated, question.to,
        tuple(base_guess.without_other_models(_ordinary(apply, found.adapter), guess)),
        tuple(damage_of(damage.Case(found.adapter, scan, found.unreadable))), scan, tuple(unsure),
    )  # fmt: skip


def _ordinary(apply: Iterable[Applies], adapter: Adapter) -> list[Applies]:
    """The same, worst first, where `generate` is nothing special for a model that writes text."""
    if adapter.config.get("task_type") not in ("CAUSAL_LM", "SEQ_2_SEQ_LM"):
        return list(apply)
    return sorted(map(_generating, apply), key=lambda one: one.order)


def _generating(one: Applies) -> Applies:
    left = [use for use in one.only_if if use != "generate"]
    return replace(one, rule=one.rule.model_copy(update={"only_if": left}))


def _newer(found: Folder, to: Target, table: Table) -> Iterator[str]:
    """What nobody has measured yet."""
    method = found.adapter.method
    if method not in table.methods and method.upper() in table.methods:
        yield f"PEFT knows no method `{method}`; `peft_type` has to be `{method.upper()}`"
    elif method not in table.methods:
        yield f"the method {method} is newer than this tool"
    release = version_of(to.versions.get("peft", ""))
    if release and release.release > dating.Version(table.newest).release:
        yield f"this tool knows PEFT up to {table.newest}, not {release}"


def damage_of(case: damage.Case) -> list[Damage]:
    """Everything that looks damaged, the serious first."""
    fit = [] if case.unreadable else [*base_fit.find(case)]
    return sorted([*config_values.find(case), *damage.find(case), *fit], key=lambda one: not one.serious)


class _Locks(Mapping[str, Mapping[str, str]]):
    """Declared environments → their packages; a lock is read when it is asked for."""

    def __init__(self, environments: target.Known) -> None:
        self._environments = environments
        self._names = environments.names()

    def __getitem__(self, name: str) -> Mapping[str, str]:
        return self._environments.locked_versions(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _base(config: Mapping[str, Any], asked: Path | None) -> tuple[Mapping[str, Any] | None, str]:
    if asked is not None:
        found = base_config.find(config, asked, os.environ)
        return found.values, found.origin
    try:
        there = base_config.known(config, os.environ)
    except HarnessError:
        there = None  # not what was asked for: the answer says that it is not known
    return (there.values, there.origin) if there else (None, "")
