"""Reads TOML files into pydantic models. Errors name the file, the key and what is allowed."""

from __future__ import annotations

import copy
import functools
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_args

import pydantic

from harness.core.errors import UsageError
from harness.core.text import did_you_mean
from harness.worker.files import LARGEST_JSON, read_regular

M = TypeVar("M", bound=pydantic.BaseModel)
_DOTS = 10_000
"""A line with more is no line of ours."""


def read(path: Path) -> dict[str, Any]:
    """What a file says.

    Raises:
        UsageError: it does not exist, is not UTF-8, or is not TOML (with line and column).
    """
    return parsed(content(path), path)


def content(path: Path) -> str:
    """The text of a TOML file, with its own line ends.

    Raises:
        UsageError: it is not there, not readable or not UTF-8.
    """
    try:
        return read_regular(path, LARGEST_JSON).decode("utf-8")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file", "a TOML file", "check the path, or create the file") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8: {error}", "a TOML file, which is UTF-8", "save it as UTF-8") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error}", "a readable TOML file", "check path and rights") from error


def parsed(text: str, path: Path) -> dict[str, Any]:
    """The data in the text of a file.

    Raises:
        UsageError: it is not TOML (with line and column), or nested too deeply, or has a number that is too long.
    """
    try:
        if any(line.count(".") > _DOTS for line in text.splitlines()):  # tomllib's time is quadratic in a key's length
            raise RecursionError
        return copy.deepcopy(_loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not TOML: {error}", "valid TOML", "correct the file at that place") from error
    except RecursionError:
        raise UsageError(
            f"{path}: nested too deeply to read", "tables as CONTRIBUTING.md shows", "correct it"
        ) from None
    except ValueError as error:  # Python reads no number of thousands of digits
        raise UsageError(f"{path}: cannot be read: {error}", "shorter numbers", "correct the file") from error


@functools.lru_cache(maxsize=1024)  # a command reads the matrix several times
def _loads(text: str) -> dict[str, Any]:
    return tomllib.loads(text)


def validated(model: type[M], data: Any, path: Path) -> M:
    """The data as `model`.

    Raises:
        UsageError: with one line for each thing that is wrong.
    """
    try:
        return model.model_validate(data)
    except pydantic.ValidationError as error:
        lines = [_line(model, problem) for problem in error.errors()]
        raise UsageError(
            f"{path}: " + "; ".join(found for found, _ in lines),
            "; ".join(dict.fromkeys(expected for _, expected in lines if expected)),
            "correct the file; CONTRIBUTING.md shows each key",
        ) from error


def _line(model: type[pydantic.BaseModel], problem: Any) -> tuple[str, str]:
    """(what was found and where, what is allowed) of one of pydantic's problems."""
    location = tuple(problem["loc"])
    where = _key_path(location)
    if not where:
        return "its keys do not fit together", problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        allowed = sorted(_fields(_model_at(model, location[:-1])))
        hint = did_you_mean(str(location[-1]), allowed, quote="`")
        return f"unknown key `{where}`{hint}", f"one of {', '.join(allowed)}" if allowed else "no such key"
    if problem["type"] == "missing":
        return f"key `{where}` is missing", f"`{location[-1]}`"
    return f"`{where}` = {problem.get('input')!r}", problem["msg"].removeprefix("Value error, ")


def _key_path(location: tuple[int | str, ...]) -> str:
    """`scenario[3].adapter.args` from pydantic's ("scenario", 3, "adapter", "args")."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _model_at(model: type[pydantic.BaseModel], location: tuple[int | str, ...]) -> type[pydantic.BaseModel] | None:
    """The model at a location within another, as far as the annotations show."""
    current: type[pydantic.BaseModel] | None = model
    for part in location:
        if isinstance(part, int) or current is None:
            continue
        by_key = {field.alias or name: field for name, field in current.model_fields.items()}
        if part not in by_key:  # the key of a mapping, or a branch of a union
            continue
        current = _model_in(by_key[part].annotation)
    return current


def _model_in(annotation: Any) -> type[pydantic.BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner)) is not None), None)


def _fields(model: type[pydantic.BaseModel] | None) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()] if model else []
