"""A rule in words, for a reader: pages of known breaks, and the report of `doctor`. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.judge.adapter_facts import meaning
from harness.judge.adapter_rule import AdapterRule, Rule, Test, Value
from harness.judge.adapter_uses import USES


def about(rule: Rule) -> str:
    """Which adapters: "`LOKR` adapters where `alpha` differs from `r`, or `rank_pattern` is set"."""
    who = f"{_one_of(rule.method)} adapters" if rule.method else "adapters"
    facts = "; and ".join(_facts(rule))
    but = f", but not where {', or '.join(map(_nested, rule.unless))}" if rule.unless else ""
    everyone = "" if facts or rule.method else "all "
    return f"{everyone}{who}" + (f" where {facts}" if facts else "") + but


def only_if(rule: AdapterRule) -> str:
    """What the user must do: "only if you unload the adapter"; empty if loading and running is enough."""
    return f"only if {', and '.join(USES[use].words for use in rule.only_if)}" if rule.only_if else ""


def sentences(rule: AdapterRule) -> str:
    """Both: "Applies to `POLY` adapters. Only if you unload the adapter."; or why the files do not say it."""
    if rule.untold:
        return f"The adapter's files do not say whether it applies: {rule.untold}"
    condition = only_if(rule)
    return f"Applies to {about(rule)}." + (f" {condition[0].upper()}{condition[1:]}." if condition else "")


def _facts(rule: Rule) -> Iterator[str]:
    yield from (_entry(f"`{key}`", value) for key, value in rule.config.items())
    if rule.keys:
        called = [f"another name than `{one[1:]}`" if one[0] == "!" else f"a name like `{one}`" for one in rule.keys]
        yield f"a tensor has {' or '.join(called)}"
    yield from (f"a tensor `{glob}` has {number} dimensions" for glob, number in rule.dimensions.items())
    if rule.dtypes:
        yield f"a tensor is of type {_one_of(rule.dtypes)}"
    if rule.files:
        yield f"a file is called {_one_of(rule.files)}"
    yield from (_base(key, value) for key, value in rule.base.items())
    if rule.has:
        yield ", or ".join(meaning(fact) for fact in rule.has)
    if rule.any:
        yield ", or ".join(_nested(one) for one in rule.any)


def _nested(rule: Rule) -> str:
    """A rule inside another one."""
    methods = [f"the method is {_one_of(rule.method)}"] if rule.method else []
    but = [f"not where {', or '.join(map(_nested, rule.unless))}"] if rule.unless else []
    return " and ".join([*methods, *_facts(rule), *but])


def _base(key: str, value: Value) -> str:
    if key == "tied":
        return "the base's embedding and head are " + ("one matrix" if value is True else "two matrices")
    return _entry(f"the base's `{key}`", value)


def _entry(name: str, value: Value) -> str:
    if isinstance(value, Test):
        return f"{name} {_test(value)}"
    globs = any(
        isinstance(one, str) and set("*?[") & set(one) for one in (value if isinstance(value, list) else [value])
    )
    return f"{name} {'matches' if globs else 'is'} {_one_of(value)}"


def _test(test: Test) -> str:
    said = {
        "is set" if test.set else "is not set": test.set is not None,
        "is there" if test.present else "is missing": test.present is not None,
        f"differs from `{test.differs_from}`": test.differs_from is not None,
        f"is above {test.above}": test.above is not None,
    }
    return " and ".join(text for text, there in said.items() if there)


def _one_of(value: object) -> str:
    shown = [f"`{_plain(one)}`" for one in _listed(value)]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
