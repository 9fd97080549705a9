"""Translates pip's configuration into uv's, which does not read it. `pip config list` tells what pip would use.

Addresses are passed in variables, not in arguments, so that no process list shows a password. The user's `UV_*`
variables always win.
"""

from __future__ import annotations

import ast
import functools
import re
import ssl
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import UsageError
from harness.core.files import expanded

_SECTIONS = ("global", "install", ":env:")  # as in pip, the later ones win
_OPTION = re.compile(r"^(?P<section>:env:|[\w-]+)\.(?P<name>[\w-]+)=(?P<value>['\"].*)$", re.MULTILINE)
_ALIASES = {"timeout": "default-timeout"}
_NAMED_INDEX = re.compile(r"^[A-Za-z0-9_.-]+=")  # in uv an index may have a name: `internal=https://…`
_TRUE = {"y", "yes", "t", "true", "on", "1"}
DEFAULT_INDEX = "https://pypi.org/simple"


@dataclass(frozen=True)
class UvSettings:
    """Variables and arguments with which uv finds what pip finds."""

    env: Mapping[str, str]
    args: tuple[str, ...] = ()

    def indexes(self) -> list[str]:
        """The addresses of the indexes, the default one first; empty with `no-index`."""
        if "--no-index" in self.args:
            return []
        first = self.env.get("UV_DEFAULT_INDEX") or self.env.get("UV_INDEX_URL") or DEFAULT_INDEX
        more = f"{self.env.get('UV_INDEX', '')} {self.env.get('UV_EXTRA_INDEX_URL', '')}".split()
        return [_NAMED_INDEX.sub("", address) for address in [first, *more]]


def read(environ: Mapping[str, str]) -> UvSettings:
    """uv's settings for this machine.

    Raises:
        UsageError: pip cannot read its configuration.
    """
    decides = {key: value for key, value in environ.items() if key.startswith(("PIP_", "XDG_")) or key == "HOME"}
    paths = ssl.get_default_verify_paths()
    return uv_settings(
        _asked(tuple(decides.items())), environ, here=Path.cwd(), system_store=bool(paths.cafile or paths.capath)
    )


@functools.lru_cache(maxsize=32)
def _asked(decides: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    """pip's options by name, as pip itself reads them under these variables."""
    # -vvv: `quiet` in the configuration would hide the answer
    command = [sys.executable, "-m", "pip", "-vvv", "config", "list"]
    done = subprocess.run(
        command, env=dict(decides), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    )
    if done.returncode != 0:
        raise UsageError(
            f"pip cannot read its configuration: {' '.join(done.stderr.split())}", "a configuration that pip reads",
            "fix the file that pip names; `pip config debug` lists all files",
        )  # fmt: skip
    return options(done.stdout)


def options(listed: str) -> dict[str, str]:
    """The options that count for `pip install`, from the lines of `pip config list`: `global.cert='/ca.pem'`."""
    lines = [line for line in _OPTION.finditer(listed) if line["section"] in _SECTIONS]
    lines.sort(key=lambda line: _SECTIONS.index(line["section"]))
    values = ((line["name"], str(ast.literal_eval(line["value"])).strip()) for line in lines)
    return {_ALIASES.get(name, name): value for name, value in values if value}


def uv_settings(
    pip: Mapping[str, str], environ: Mapping[str, str], *, here: Path, system_store: bool = False
) -> UvSettings:
    """Settings with which uv looks where pip looks.

    Args:
        pip: pip's options by name.
        environ: the user's variables; `UV_*` among them win over pip's options.
        here: the folder that relative paths in pip's options start from.
        system_store: this machine has a certificate store, which pip uses and uv does not use by default.
    """
    env: dict[str, str] = {"UV_INDEX_STRATEGY": "unsafe-best-match"}  # as in pip: the best version of all indexes
    args: tuple[str, ...] = ()
    if _is_true(pip.get("no-index")) and not _any(environ, "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX"):
        args = ("--no-index",)
    if "index-url" in pip and not _any(environ, "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        env["UV_DEFAULT_INDEX"] = _index(pip["index-url"], here)
    if "extra-index-url" in pip and not _any(environ, "UV_INDEX", "UV_EXTRA_INDEX_URL"):
        env["UV_INDEX"] = " ".join(_index(item, here) for item in pip["extra-index-url"].split())
    if "find-links" in pip:
        env["UV_FIND_LINKS"] = ",".join(_address(item, here) for item in pip["find-links"].split())
    if "trusted-host" in pip:
        env["UV_INSECURE_HOST"] = " ".join(pip["trusted-host"].split())
    if "default-timeout" in pip:
        env["UV_HTTP_TIMEOUT"] = pip["default-timeout"].split(".")[0]
    env |= _certificates(pip, environ, system_store) | _proxy(pip, environ)
    return UvSettings(env | {key: value for key, value in environ.items() if key.startswith("UV_")}, args)


def _certificates(pip: Mapping[str, str], environ: Mapping[str, str], system_store: bool) -> dict[str, str]:
    env: dict[str, str] = {}
    if "client-cert" in pip:
        env["SSL_CLIENT_CERT"] = str(expanded(pip["client-cert"]))
    # pip's own option, else what its HTTP library reads.
    bundle = pip.get("cert") or environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE")
    if bundle and ("cert" in pip or not environ.get("SSL_CERT_FILE")):
        path = expanded(bundle)
        env["SSL_CERT_DIR" if path.is_dir() else "SSL_CERT_FILE"] = str(path)
    elif system_store and not environ.get("SSL_CERT_FILE") and not _any(environ, "UV_SYSTEM_CERTS", "UV_NATIVE_TLS"):
        env |= {"UV_SYSTEM_CERTS": "true", "UV_NATIVE_TLS": "true"}  # the second is the name in an older uv
    return env


def _proxy(pip: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    names = ("HTTP_PROXY", "HTTPS_PROXY")
    if "proxy" not in pip or _any(environ, *names, *(name.lower() for name in names), "ALL_PROXY", "all_proxy"):
        return {}
    return dict.fromkeys(names, pip["proxy"])


def _any(environ: Mapping[str, str], *names: str) -> bool:
    return any(environ.get(name) for name in names)


def _is_true(value: str | None) -> bool:
    return (value or "").lower() in _TRUE


def _index(text: str, here: Path) -> str:
    return text if "://" in text else _address(text, here)


def _address(text: str, here: Path) -> str:
    """A local path as an address: it may hold blanks, and does not depend on the folder uv runs in."""
    if "://" in text or text.startswith("file:"):
        return text
    return (here / expanded(text)).absolute().as_uri()
