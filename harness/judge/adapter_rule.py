"""Which adapters a known break is about, by what their own files say: the table `adapter` of a break or a condition.

All entries of a table must hold. A list holds if one of its items does. An answer is yes, no, or unknown (None): the
base's configuration may be missing. Pure. docs/expectations.md documents each key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any

import pydantic

from harness.core.model import Strict
from harness.judge.adapter_facts import FACTS, Fact, mapped_type, tied
from harness.judge.adapter_uses import Use
from harness.store.adapter import Adapter

Answer = bool | None
"""Yes, no, or unknown."""
_Plain = bool | int | float | str


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


Names = Annotated[list[str], pydantic.Field(min_length=1), pydantic.BeforeValidator(_listed)]
"""One text, or a list."""
Facts = Annotated[list[Fact], pydantic.Field(min_length=1), pydantic.BeforeValidator(_listed)]
_ABSENT = object()


class Test(Strict):
    """Conditions on one entry of a configuration. All that are given must hold."""

    set: bool | None = None
    """True: the entry exists and is not null, false or empty. False: the opposite."""
    present: bool | None = None
    """True: the key exists, whatever its value."""
    differs_from: str | None = None
    """The key of another entry. The two values must differ."""
    above: float | None = None
    """The value must be a greater number."""

    @pydantic.model_validator(mode="after")
    def _something(self) -> Test:
        if all(value is None for value in (self.set, self.present, self.differs_from, self.above)):
            raise ValueError("one of `set`, `present`, `differs_from`, `above`")
        return self

    def holds(self, value: Any, config: Mapping[str, Any]) -> bool:
        """True if the value meets the conditions. `_ABSENT` stands for a missing entry."""
        if self.set is not None and (value is not _ABSENT and bool(value)) is not self.set:
            return False
        if self.present is not None and (value is not _ABSENT) is not self.present:
            return False
        if self.differs_from is not None:
            other = entry(config, self.differs_from)
            if _ABSENT in (value, other) or value == other:
                return False
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return self.above is None or (number and value > self.above)


Value = _Plain | list[_Plain] | Test
"""A value, a list of values of which one must match, or a test. Strings are globs. An entry that is a list or a table
matches if one of its items or keys does."""


class Rule(Strict):
    """Facts of an adapter. Every entry that is given must hold."""

    method: Names | None = None
    """PEFT's name of the method, as in `peft_type`: `LORA`."""
    config: dict[str, Value] = {}
    """Entry of `adapter_config.json` → its value. Dots lead into tables."""
    keys: Names | None = None
    """Globs. At least one tensor's key must match; after `!`, at least one must not."""
    dimensions: dict[str, int] = {}
    """Glob of keys → number of dimensions. At least one of these tensors must have it: 4 for a 2-D convolution."""
    dtypes: Names | None = None
    """Names of Torch types. At least one tensor must have one of them."""
    files: Names | None = None
    """Globs. At least one file of the folder must match."""
    base: dict[str, Value] = {}
    """Entry of the base's `config.json` → its value. `tied` says whether embedding and head are one matrix."""
    has: Facts | None = None
    """Names of facts that depend on several entries (`harness/judge/adapter_facts.py`)."""
    any: list[Rule] | None = pydantic.Field(default=None, min_length=1)
    """Further rules. At least one must hold."""
    unless: list[Rule] | None = pydantic.Field(default=None, min_length=1)
    """Further rules. None may hold."""

    @property
    def given(self) -> set[str]:
        """The names of the facts that the rule uses."""
        return {name for name in Rule.model_fields if getattr(self, name)}

    def about(self, adapter: Adapter) -> Answer:
        """True if the rule holds for the adapter; None if its files do not say."""
        return every(self._answers(adapter))

    def _answers(self, adapter: Adapter) -> Iterable[Answer]:
        yield self.method is None or adapter.method in self.method
        yield every(_is(value, adapter.config, key) for key, value in self.config.items())
        yield self.keys is None or any(_some(adapter.shapes, glob) for glob in self.keys)
        yield all(
            any(len(shape) == number and fnmatchcase(key, glob) for key, shape in adapter.shapes.items())
            for glob, number in self.dimensions.items()
        )
        yield self.dtypes is None or not set(self.dtypes).isdisjoint(adapter.dtypes.values())
        yield self.files is None or any(_some(adapter.files, glob) for glob in self.files)
        yield every(_base_is(value, adapter, key) for key, value in self.base.items())
        yield self.has is None or some(FACTS[fact](adapter) for fact in self.has)
        yield self.any is None or some(rule.about(adapter) for rule in self.any)
        yield self.unless is None or opposite(some(rule.about(adapter) for rule in self.unless))


class AdapterRule(Rule):
    """The table `adapter` of a break or of a condition.

    A condition's own table counts instead of the break's.
    """

    only_if: list[Use] = []
    """What the user must do for the break to show: all of it."""
    hidden: dict[str, str] = {}
    """Glob of fixtures (`SCENARIO@CREATOR`) that the rule selects, but whose cells do not show the break → why."""
    untold: str | None = pydantic.Field(default=None, min_length=1)
    """Instead of facts: why the adapter's files cannot say whether the break applies."""

    @pydantic.model_validator(mode="after")
    def _told(self) -> AdapterRule:
        if self.untold and self.given:
            raise ValueError("either facts of the adapter or `untold`")
        if not (self.given or self.untold or self.only_if):
            raise ValueError("facts of the adapter, `only_if`, or `untold`")
        return self

    @property
    def is_general(self) -> bool:
        """True if it says nothing that an adapter must have: the break is about what the user does."""
        return not self.given - {"unless"}

    def about(self, adapter: Adapter) -> Answer:
        """True if the break can show in the adapter; None if its files do not say."""
        return None if self.untold else super().about(adapter)


def every(answers: Iterable[Answer]) -> Answer:
    """False if one is false, else None if one is unknown, else True."""
    result: Answer = True
    for answer in answers:
        if answer is False:
            return False
        result = None if answer is None else result
    return result


def some(answers: Iterable[Answer]) -> Answer:
    """True if one is true, else None if one is unknown, else False."""
    return opposite(every(opposite(answer) for answer in answers))


def opposite(answer: Answer) -> Answer:
    """The other answer; None stays unknown."""
    return None if answer is None else not answer


def entry(config: Mapping[str, Any], key: str) -> Any:
    """The value of an entry; dots lead into tables. `_ABSENT` if there is none."""
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return _ABSENT
        value = value[part]
    return value


def _is(wanted: Value, config: Mapping[str, Any], key: str) -> bool:
    value = entry(config, key)
    if isinstance(wanted, Test):
        return wanted.holds(value, config)
    values = list(value) if isinstance(value, (list, tuple, Mapping)) else [value]
    return any(_equal(one, found) for one in _listed(wanted) for found in values)


def _base_is(wanted: Value, adapter: Adapter, key: str) -> Answer:
    if key == "tied":
        answer = tied(adapter)
        return None if answer is None else answer is wanted
    if adapter.base is None and (key != "model_type" or not mapped_type(adapter)):
        return None
    return _is(wanted, {"model_type": mapped_type(adapter)} if adapter.base is None else adapter.base, key)


def _equal(wanted: _Plain, found: Any) -> bool:
    if isinstance(wanted, str):
        return isinstance(found, str) and fnmatchcase(found, wanted)
    return isinstance(found, bool) is isinstance(wanted, bool) and bool(found == wanted)


def _some(names: Iterable[str], glob: str) -> bool:
    return any(fnmatchcase(name, glob.removeprefix("!")) is not glob.startswith("!") for name in names)
