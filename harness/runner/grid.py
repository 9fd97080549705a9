"""A grid's creators and loaders: lists, globs and `all` become names and specifications."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness.core.errors import UsageError
from harness.envs import spec
from harness.envs.environments import Environments
from harness.runner import plan
from harness.runner.request import CheckRequest

ALL = "all"
_GLOB = "*?["


def expanded(request: CheckRequest, environments: Environments) -> CheckRequest:
    """A request with the lists, globs and `all` of its creators and loaders expanded.

    Raises:
        UsageError: a glob that matches none, or names and several pins in one value.
    """
    declared = [one.name for one in environments.status() if not one.on_demand and not _is_consumer(one.name)]
    declared += environments.consumers() if any(map(_is_consumer, request.loaders)) else []
    having = plan.creators_with_fixtures(request.places.store(), (), environments)
    return replace(request, creators=creators(request.creators, having), loaders=loaders(request.loaders, declared))


def creators(values: Iterable[str], having: Sequence[str]) -> tuple[str, ...]:
    """The chosen creators, each once.

    Args:
        values: names and globs, separated by commas, or `all`. Globs and `all` choose among `having`. A name is used
            as it is: if it has no fixtures, its cells say so.
        having: the creators that have fixtures, stored or made on demand.

    Raises:
        UsageError: a glob that matches none.
    """
    return _chosen((part for value in values for part in _parts(value)), having, "creator with fixtures")


def loaders(values: Iterable[str], declared: Sequence[str]) -> tuple[str, ...]:
    """The chosen loaders, each once.

    Args:
        values: specifications of any form, separated by commas, globs, or `all`. Several pins in one value
            (`peft==0.9.0,transformers==4.38.2`) are one loader, as everywhere; so is a value with a path.
        declared: the declared environments that globs and `all` choose among.

    Raises:
        UsageError: a glob that matches none, or names and several pins in one value.
    """
    return _chosen((part for value in values for part in _specs(value)), declared, "declared environment")


def _parts(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def _specs(value: str) -> list[str]:
    """The specifications in one value. A comma separates them, except in a path, a URL, or a list of pins."""
    parts = _parts(value)
    if value.startswith(("python:", "git+")) or spec.is_path(value):
        return [value.strip()]
    pins = [part for part in parts if "=" in part and not _is_consumer(part)]
    if pins == parts and pins:
        return [value.strip()]
    if len(pins) > 1:
        raise UsageError(
            f"{value!r} mixes names and {len(pins)} pins, so it is not clear which pins belong together",
            "the pins of one environment, or a list of names",
            f"repeat the option: --loaders {','.join(p for p in parts if p not in pins)} --loaders {','.join(pins)}",
        )
    return parts


def _is_consumer(text: str) -> bool:
    return text.startswith(spec.CONSUMER)


def _chosen(parts: Iterable[str], known: Sequence[str], what: str) -> tuple[str, ...]:
    found: list[str] = []
    for part in parts:
        found += _matching(part, known, what)
    return tuple(dict.fromkeys(found))


def _matching(part: str, known: Sequence[str], what: str) -> list[str]:
    is_name = not any(sign in part for sign in _GLOB) or spec.is_path(part) or part.startswith(("python:", "git+"))
    if part != ALL and is_name:
        return [part]
    matching = [name for name in known if part == ALL or fnmatch.fnmatchcase(name, part)]
    if not matching:
        raise UsageError(
            f"{part!r} matches no {what}", f"one of {', '.join(known) or '(there is none)'}", "fix the glob"
        )
    return matching
