"""Translates pip's configuration (files and `PIP_*` variables) into uv's, which does not read it.

`effective` and `uv_settings` are pure; `read` looks at this machine. Addresses go into variables, not into
arguments, so that a password in one shows in no process list. A `UV_*` variable that the user set always wins.
"""

from __future__ import annotations

import configparser
import os
import re
import ssl
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import UsageError

_SECTIONS = ("global", "install")  # the later wins, as in pip: a command's section goes before the global one
_NOT_OPTIONS = {"config-file", "version", "help"}
_NAMED_INDEX = re.compile(r"^[A-Za-z0-9_.-]+=")  # uv lets an index have a name: `internal=https://…`
_TRUE = {"y", "yes", "t", "true", "on", "1"}
DEFAULT_INDEX = "https://pypi.org/simple"


@dataclass(frozen=True)
class UvSettings:
    """What uv gets so that it finds what pip finds."""

    env: Mapping[str, str]
    args: tuple[str, ...] = ()

    def indexes(self) -> list[str]:
        """The addresses of the indexes, the default one first; none where an index must not be asked."""
        if "--no-index" in self.args:
            return []
        first = self.env.get("UV_DEFAULT_INDEX") or self.env.get("UV_INDEX_URL") or DEFAULT_INDEX
        more = f"{self.env.get('UV_INDEX', '')} {self.env.get('UV_EXTRA_INDEX_URL', '')}".split()
        return [_NAMED_INDEX.sub("", address) for address in [first, *more]]


def effective(sections: Iterable[Mapping[str, Mapping[str, str]]], environ: Mapping[str, str]) -> dict[str, str]:
    """pip's options by name, as `pip install` would see them.

    Args:
        sections: each configuration file's sections, the weakest file first.
        environ: the `PIP_*` variables are stronger than any file.
    """
    files = list(sections)
    options: dict[str, str] = {}
    for section in _SECTIONS:
        for file in files:
            options.update(_present(file.get(section, {})))
    variables = {key[len("PIP_") :]: value for key, value in environ.items() if key.startswith("PIP_")}
    options.update(_present(variables))
    return options


def _present(raw: Mapping[str, str]) -> dict[str, str]:
    """Normalised names; pip ignores what is empty."""
    named = {key.lower().replace("_", "-").removeprefix("--"): value.strip() for key, value in raw.items()}
    named = {{"timeout": "default-timeout", "i": "index-url", "f": "find-links"}.get(k, k): v for k, v in named.items()}
    return {key: value for key, value in named.items() if value and key not in _NOT_OPTIONS}


def uv_settings(
    pip: Mapping[str, str], environ: Mapping[str, str], *, here: Path, system_store: bool = False
) -> UvSettings:
    """What uv must be told so that it looks where pip looks.

    Args:
        pip: pip's options, as `effective` gives them.
        environ: the user's variables; of these the `UV_*` win over pip's.
        here: what a relative path in pip's options starts from.
        system_store: this machine has a store of certificates, which pip uses and uv does not by itself.
    """
    env: dict[str, str] = {"UV_INDEX_STRATEGY": "unsafe-best-match"}  # as pip: the best version wherever it lies
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
        env["SSL_CLIENT_CERT"] = str(Path(pip["client-cert"]).expanduser())
    # What pip is told, else what pip's HTTP library reads by itself.
    bundle = pip.get("cert") or environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE")
    if bundle and ("cert" in pip or not environ.get("SSL_CERT_FILE")):
        path = Path(bundle).expanduser()
        env["SSL_CERT_DIR" if path.is_dir() else "SSL_CERT_FILE"] = str(path)
    elif system_store and not environ.get("SSL_CERT_FILE") and not _any(environ, "UV_SYSTEM_CERTS", "UV_NATIVE_TLS"):
        env |= {"UV_SYSTEM_CERTS": "true", "UV_NATIVE_TLS": "true"}  # one is the other's name in an older uv
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
    """A local path as an address, which may hold blanks and does not depend on where uv runs."""
    if "://" in text or text.startswith("file:"):
        return text
    return (here / Path(text).expanduser()).absolute().as_uri()


def config_files(environ: Mapping[str, str], prefixes: Sequence[str], platform: str = sys.platform) -> list[Path]:
    """pip's configuration files, the weakest first (pip's own order), there or not.

    Args:
        prefixes: of the interpreters whose `pip.conf` counts: the base one's, then that of the virtual environment.
    """
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return []  # pip's way to say: no file at all
    home = Path(environ.get("HOME") or Path.home())
    folders = [Path(item) / "pip" for item in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")]
    files = [*folders, Path("/etc")]
    if platform == "darwin":
        files.insert(0, Path("/Library/Application Support/pip"))
    if not (named and Path(named).exists()):
        files += [home / ".pip", Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip"]
        if platform == "darwin":
            files.append(home / "Library/Application Support/pip")
    files += [Path(prefix) for prefix in dict.fromkeys(prefixes)]
    return [file / "pip.conf" for file in files] + ([Path(named)] if named else [])


def sections_of(path: Path) -> dict[str, dict[str, str]]:
    """A configuration file's sections; empty where there is no such file.

    Raises:
        UsageError: it cannot be read as pip's configuration.
    """
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8"), str(path))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    except (configparser.Error, UnicodeDecodeError) as error:
        message = " ".join(str(error).split())
        raise UsageError(f"{path}: {message}", "pip's configuration", "mend it: `pip config debug` names it") from error
    return {section: dict(parser.items(section)) for section in parser.sections()}


def read(environ: Mapping[str, str]) -> UvSettings:
    """What pip is told on this machine, as uv's settings."""
    files = config_files(environ, [sys.base_prefix, sys.prefix])
    pip = effective([sections_of(path) for path in files], environ)
    paths = ssl.get_default_verify_paths()
    return uv_settings(pip, environ, here=Path.cwd(), system_store=bool(paths.cafile or paths.capath))
