"""The factors that an adapter's config can give a layer's effect (pure).

A method scales its update by some expression of its alpha and its rank. A factor between two releases is a quotient of
two such expressions. They are derived from the numbers of the config, for each layer with its own rank and alpha.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

TWICE = {"2": 2.0, "1/2": 0.5}
"""What no config holds: an effect is added twice, or half of it."""

_ALPHA, _RANK = re.compile(r"(^|_)alpha$"), re.compile(r"^r$|_r$|(^|_)rank$")
_SCALINGS = {
    "{a}/{r}": (1, -1.0),
    "{r}/{a}": (-1, 1.0),
    "√{r}": (0, 0.5),
    "1/√{r}": (0, -0.5),
    "{a}/√{r}": (1, -0.5),
    "√{r}/{a}": (-1, 0.5),
    "{a}": (1, 0.0),
    "1/{a}": (-1, 0.0),
    "{r}": (0, 1.0),
    "1/{r}": (0, -1.0),
    "{a}·√{r}": (1, 0.5),
    "{a}·{r}": (1, 1.0),
    "1/({a}·√{r})": (-1, -0.5),
    "1/({a}·{r})": (-1, -1.0),
}
"""Expression → exponents of alpha and rank: all quotients of two of 1, alpha, alpha/r, alpha/√r, √r, r."""


def of(config: Mapping[str, Any], layer: str) -> dict[str, float]:
    """Expression → its value for a layer, without expressions that are 1 there."""
    alphas = _named(config, _ALPHA, "alpha_pattern", layer)
    ranks = _named(config, _RANK, "rank_pattern", layer)
    found: dict[str, float] = {}
    for alpha_name, alpha in alphas.items() or [("", 1.0)]:
        for rank_name, rank in ranks.items() or [("", 1.0)]:
            for text, (of_alpha, of_rank) in _SCALINGS.items():
                if (of_alpha and not alpha_name) or (of_rank and not rank_name):
                    continue
                found[text.format(a=alpha_name, r=rank_name)] = float(alpha**of_alpha * rank**of_rank)
    found |= _pattern_ignored(config, layer)
    found |= TWICE
    found |= _of_others(config, {*found})
    return {text: value for text, value in found.items() if value != 1}


def _named(config: Mapping[str, Any], kind: re.Pattern[str], pattern: str, layer: str) -> dict[str, float]:
    """Short name → value for this layer, of the config's numbers of a kind."""
    found = {}
    for key, value in config.items():
        if kind.search(key) and _is_number(value) and value > 0:
            own = _override(config.get(pattern), layer)
            found[kind.search(key).group().strip("_") if kind is _ALPHA else key] = float(value if own is None else own)  # type: ignore[union-attr]
    return found


def _override(pattern: Any, layer: str) -> float | None:
    """The value of `rank_pattern` or `alpha_pattern` for a layer, as PEFT looks it up."""
    for key, value in pattern.items() if isinstance(pattern, Mapping) else ():
        try:
            fits = re.fullmatch(rf"(.*\.)?({key})", layer)
        except re.error:
            continue
        if fits and _is_number(value) and value > 0:
            return float(value)
    return None


def _pattern_ignored(config: Mapping[str, Any], layer: str) -> dict[str, float]:
    """The factor if a layer is scaled by the whole adapter's alpha or rank instead of its own."""
    found, both = {}, 1.0
    for pattern, kind, exponent in (("alpha_pattern", _ALPHA, 1), ("rank_pattern", _RANK, -1)):
        own = _override(config.get(pattern), layer)
        general = next((float(v) for k, v in config.items() if kind.search(k) and _is_number(v) and v > 0), None)
        ratio = (general / own) ** exponent if own and general else 1.0
        found[f"{pattern} ignored"] = ratio
        both *= ratio
    if config.get("alpha_pattern") and config.get("rank_pattern"):
        found["alpha_pattern and rank_pattern ignored"] = both
    return found


def _of_others(config: Mapping[str, Any], known: Iterable[str]) -> dict[str, float]:
    """Every other number of the config, and what dropout scales by."""
    found = {}
    for key, value in config.items():
        if not _is_number(value) or value <= 0 or value == 1 or _ALPHA.search(key) or _RANK.search(key):
            continue
        found[key], found[f"1/{key}"] = float(value), 1 / float(value)
        if value < 1:
            found[f"1 − {key}"], found[f"1/(1 − {key})"] = 1 - float(value), 1 / (1 - float(value))
    return {text: value for text, value in found.items() if text not in set(known)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
