"""The keys of an adapter's tensors, taken apart: which module of the base each belongs to, and what it is there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.own.written_by import own_parts

PROMPT = ("PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "CPT", "MULTITASK_PROMPT_TUNING", "CARTRIDGE")
"""Methods whose tensors belong to no module of the base."""
_PREFIX = re.compile(r"^base_model\.(model\.)?")
_WRAPPED = re.compile(r"(^|\.)(base_layer|modules_to_save|original_module)(?=\.|$)")
_REGEX_S = 3
_MATCH = (
    "import json, re, sys\n"
    "pattern, names = json.load(sys.stdin)\n"
    "json.dump([bool(re.fullmatch(pattern, name)) for name in names], sys.stdout)"
)


@dataclass(frozen=True)
class Place:
    """One tensor of an adapter.

    Attributes:
        module: the module of the base that it belongs to, without PEFT's prefixes.
        part: what it is there: `lora_A.weight`; `weight` for a whole tensor of the base.
        own: True if the method added it; False for a whole tensor of the base.
    """

    key: str
    module: str
    part: str
    own: bool
    shape: tuple[int, ...]


def places(method: str, shapes: Mapping[str, tuple[int, ...]]) -> list[Place]:
    """All tensors of an adapter, taken apart."""
    return [_place(method, key, shape) for key, shape in shapes.items()]


def _place(method: str, key: str, shape: tuple[int, ...]) -> Place:
    path = _PREFIX.sub("", key)
    parts = path.split(".")
    own = own_parts(method, [path]) - {"base_layer"}
    start = min((parts.index(part) for part in own), default=None)
    if start is None and (tokens := [part for part in ("token_adapter", "trainable_tokens_delta") if part in parts]):
        start = parts.index(tokens[0])
    if start is None:
        return Place(key, _plain(".".join(parts[:-1])), parts[-1], False, shape)
    return Place(key, _plain(".".join(parts[:start])), ".".join(parts[start:]), True, shape)


def _plain(module: str) -> str:
    return _WRAPPED.sub("", module).strip(".")


def named(module: str, names: Iterable[str]) -> bool:
    """True if a module is called one of these names, or ends in one after a dot."""
    return any(module == name or module.endswith(f".{name}") for name in names)


def within(module: str, names: Iterable[str]) -> bool:
    """True if a module is called one of these names, or is inside of such a module."""
    return any(f".{name}." in f".{module}." for name in names)


def saves(names: Iterable[str], module: str) -> bool:
    """True if `modules_to_save` with these names saves a module: PEFT compares the ends of names, dot or not."""
    parts = module.split(".")
    around = [".".join(parts[: end + 1]) for end in range(len(parts))]
    return any(one.endswith(name) for name in names for one in around)


def matching(pattern: str, modules: Sequence[str]) -> list[bool] | None:
    """Which modules match a regular expression as a whole; None if it is none, or takes too long.

    It is tried in a process of its own, because it comes from a stranger's file and may take forever.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _MATCH], input=json.dumps([pattern, list(modules)]), capture_output=True,
            text=True, timeout=_REGEX_S, check=True,
        )  # fmt: skip
        return [bool(one) for one in json.loads(done.stdout)]
    except (subprocess.SubprocessError, OSError, ValueError):
        return None


def pattern_value(patterns: Any, module: str, default: Any) -> Any:
    """The value of `rank_pattern` or `alpha_pattern` for a module, as PEFT finds it."""
    for name, value in patterns.items() if isinstance(patterns, Mapping) else ():
        if named(module, [name]) or (_SPECIAL.search(name) and _is_pattern_of(name, module)):
            return value
    return default


def are_simple(patterns: Any) -> bool:
    """False if some pattern is a regular expression that may take long: it has many or nested repetitions."""
    names = [name for name in patterns if _SPECIAL.search(name)] if isinstance(patterns, Mapping) else []
    return all(
        len(name) <= 300 and len(_REPETITION.findall(name)) <= 3 and not re.search(r"[*+?})]\)*[*+{]", name)
        for name in names
    )


_SPECIAL = re.compile(r"[\\^$*+?()\[\]|]")
_REPETITION = re.compile(r"[*+{?]")


def _is_pattern_of(name: str, module: str) -> bool:
    """True if a regular expression matches the end of a module."""
    try:
        return re.fullmatch(rf"(?:.*\.)?(?:{name})", module[:300]) is not None
    except re.error:
        return False
