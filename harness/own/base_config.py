"""Finds the configuration of an adapter's base model: a folder that is named, a local path, the Hub's cache, the Hub.

The Hub itself is asked only if the user says so (`fetch`), and only for `config.json`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.errors import HarnessError, UsageError
from harness.core.files import expanded
from harness.core.text import one_line
from harness.worker.files import parse_json, read_regular

NAME = "config.json"
LARGEST = 16 << 20
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")
_REVISION = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)*")
_ENDPOINT = "https://huggingface.co"
_TIMEOUT_S = 30


@dataclass(frozen=True)
class BaseConfig:
    """A base model's configuration.

    Attributes:
        values: `config.json`, whole.
        origin: the file's path, or its address on the Hub.
    """

    values: Mapping[str, Any]
    origin: str


def find(
    adapter: Mapping[str, Any], base: Path | None, environ: Mapping[str, str], *, fetch: bool = False
) -> BaseConfig:
    """The configuration of the base model that an adapter was trained on.

    Args:
        adapter: the adapter's configuration. It names the base.
        base: the folder of the base, or its `config.json`; None to look it up.
        environ: the variables that say where the Hub's cache is, and the Hub.
        fetch: get `config.json` from the Hub if it is not on this machine.

    Raises:
        UsageError: it is not on this machine, or it is not the configuration of a model.
        HarnessError: the Hub does not answer, or does not give it.
    """
    if base is not None:
        return _read(_named(base))
    name, revision = base_of(adapter)
    found = known(adapter, environ)
    if found is not None:
        return found
    if fetch and _is_repo(name):
        return _fetched(name, revision, environ)
    raise _missing(name, revision, environ, fetch)


def known(adapter: Mapping[str, Any], environ: Mapping[str, str]) -> BaseConfig | None:
    """The base's configuration, if it is on this machine; None if it is not.

    Raises:
        UsageError: it is there, but is not the configuration of a model.
    """
    name, revision = base_of(adapter)
    if not name:
        return None
    local = expanded(name) / NAME
    if _is_file(local):
        return _read(local)
    file = _in_cache(name, revision, environ) if _is_repo(name) else None
    return _read(file) if file is not None else None


def _is_file(path: Path) -> bool:
    """True for a file; a name that is too long for a path is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def base_of(adapter: Mapping[str, Any]) -> tuple[str, str]:
    """The base's name and revision, as the adapter's configuration has them; an empty name if it has none."""
    name, revision = adapter.get("base_model_name_or_path"), adapter.get("revision")
    return (name if isinstance(name, str) and "\0" not in name else ""), (
        revision if isinstance(revision, str) and revision else "main"
    )


def hub_cache(environ: Mapping[str, str]) -> Path:
    """The Hub's cache on this machine, by the variables that its client reads."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(name):
            return expanded(environ[name])
    home = environ.get("HF_HOME") or f"{environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return expanded(home) / "hub"


def _is_repo(name: str) -> bool:
    return bool(_REPO.fullmatch(name)) and ".." not in name


def _in_cache(name: str, revision: str, environ: Mapping[str, str]) -> Path | None:
    repo = hub_cache(environ) / ("models--" + name.replace("/", "--"))
    if not _REVISION.fullmatch(revision) or ".." in revision:
        return None
    commit = revision
    with contextlib.suppress(OSError, UnicodeDecodeError):  # a commit has no file of its own
        commit = read_regular(repo / "refs" / revision, 1000).decode("ascii").strip()
    if not re.fullmatch(r"[\w.-]+", commit) or ".." in commit:
        return None
    file = repo / "snapshots" / commit / NAME
    return file if _is_file(file) else None


def _named(base: Path) -> Path:
    if base.is_dir():
        if not (base / NAME).exists():
            raise UsageError(
                f"{base}: no {NAME}", f"the folder of a model, which has a {NAME}",
                "pass the base model's folder; its weights are not needed",
            )  # fmt: skip
        return base / NAME
    if not base.exists():
        raise UsageError(f"{base}: no such file or folder", f"a model's folder, or its {NAME}", "check --base")
    return base


def _read(file: Path) -> BaseConfig:
    try:
        return BaseConfig(_checked(parse_json(read_regular(file, LARGEST))), str(file))
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error}", "a readable file", "check path and rights") from error
    except ValueError as error:
        raise UsageError(
            f"{file}: not the configuration of a model: {one_line(str(error))}",
            "a JSON object with `model_type`, as Transformers writes it",
            "pass the base model's own config.json with --base",
        ) from error


def _checked(values: Any) -> Mapping[str, Any]:
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    if "peft_type" in values:
        raise ValueError("it is an adapter's configuration")
    if not isinstance(values.get("model_type"), str) or not values["model_type"]:
        raise ValueError("it has no `model_type`")
    return values


def _missing(name: str, revision: str, environ: Mapping[str, str], fetch: bool) -> UsageError:
    if not name:
        return UsageError(
            "the adapter's configuration does not name its base model (`base_model_name_or_path`)",
            f"the base model's {NAME}", "pass --base DIR with the base model's folder, or its config.json",
        )  # fmt: skip
    shown = one_line(name)
    if not _is_repo(name):
        return UsageError(
            f"the base model {shown!r} of the adapter is not on this machine", f"{shown}/{NAME}",
            "pass --base DIR with the base model's folder, or its config.json",
        )  # fmt: skip
    where = hub_cache(environ)
    at = "" if revision == "main" else f" at {one_line(revision)}"
    more = "" if fetch else ", or add --fetch to download this one file"
    return UsageError(
        f"the configuration of the base model {shown}{at} is not on this machine: neither a folder of that name here, "
        f"nor in the Hub's cache ({where})",
        f"{NAME} of {shown}; its weights are not needed",
        f"get {_address(name, revision, environ)} and pass it with --base{more}",
    )


def _address(name: str, revision: str, environ: Mapping[str, str]) -> str:
    endpoint = (environ.get("HF_ENDPOINT") or _ENDPOINT).rstrip("/")
    return f"{endpoint}/{name}/resolve/{revision}/{NAME}"


def _fetched(name: str, revision: str, environ: Mapping[str, str]) -> BaseConfig:
    import urllib.error
    import urllib.request

    address = _address(name, revision, environ)
    if not address.startswith(("https://", "http://")):
        raise UsageError(
            f"HF_ENDPOINT: {one_line(address)} is no address of the Hub", "https://…", "correct HF_ENDPOINT"
        )
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer:
            data = bytes(answer.read(LARGEST + 1))
        if len(data) > LARGEST:
            raise ValueError(f"larger than {LARGEST:,} bytes")
        return BaseConfig(_checked(parse_json(data)), address)
    except urllib.error.HTTPError as error:
        reasons = {401: "it is gated or private, or does not exist", 403: "it is gated", 404: "it does not exist there"}
        why = f"the Hub answers {error.code}: {reasons.get(error.code, one_line(str(error.reason)))}"
    except (OSError, ValueError) as error:
        why = one_line(str(getattr(error, "reason", "") or error))
    raise HarnessError(
        f"{address}: {why}", "the base model's config.json",
        "download it where you have access, and pass it with --base",
    )  # fmt: skip
