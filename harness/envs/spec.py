"""Parses specs, which name a creator or loader: a declared name, pins, a checkout, a git URL, an interpreter, a
user's lock, a consumer, or `ABOVE over BASE`. Runs nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from packaging.utils import canonicalize_name

from harness.core.errors import UsageError
from harness.core.files import expanded
from harness.core.text import similar
from harness.core.versions import version_of
from harness.envs import lock_file, unpacked_wheel

FORMS = (
    "a name (v061), pins (peft==0.9.0,transformers==4.38.2), a checkout or an unpacked wheel (../peft), a clone's ref "
    "(../peft@main), git+https://host/repository@ref, a lock file (lock.txt), python:/path/to/python, or "
    "consumer:llama.cpp"
)
_OVER = " over "
_PIN = re.compile(r"^\s*(?P<package>[A-Za-z0-9][A-Za-z0-9._-]*)\s*==\s*(?P<version>[^\s=,;]+)\s*$")
CONSUMER = "consumer:"
_SCHEMES = ("https", "http", "ssh", "file")
_CONSUMER_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_FIRST = ("peft", "transformers", "accelerate", "torch")  # the order of packages in names


@dataclass(frozen=True)
class Named:
    """`matrices/envs/NAME.toml`."""

    name: str


@dataclass(frozen=True)
class Consumer:
    """`matrices/consumers/NAME.toml`: a library other than PEFT that reads what PEFT saves."""

    name: str
    version: str = ""
    """A release of the package that it is about; empty for the locked one."""


@dataclass(frozen=True)
class Pins:
    """Exact versions of some packages. All others are resolved as of their release date."""

    pins: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        return "+".join(f"{package}-{version}".replace("+", "-").replace("!", "-") for package, version in self.pins)


@dataclass(frozen=True)
class Checkout:
    """A folder with a Python project, or with an unpacked wheel."""

    path: Path


@dataclass(frozen=True)
class Git:
    """A repository's tree at a ref; empty ref: its default branch."""

    url: str
    """Its address; for a clone on this machine its folder."""
    ref: str
    subdirectory: str


@dataclass(frozen=True)
class Interpreter:
    """A Python that has the libraries, used untouched."""

    python: Path


@dataclass(frozen=True)
class UserLock:
    """A file with all packages of an environment: `pip freeze`, requirements with `==`, a pylock.toml."""

    path: Path


@dataclass(frozen=True)
class Over:
    """A package that replaces the same package of another environment. All others stay as locked."""

    above: Pins | Checkout | Git
    base: str
    """The base environment: a name, pins or a consumer."""


Spec = Named | Consumer | Pins | Checkout | Git | Interpreter | UserLock | Over


def parse(text: str, names: Iterable[str]) -> Spec:
    """Parse a spec.

    Args:
        names: the declared environments.

    Raises:
        UsageError: it has none of the forms, or names an environment or path that does not exist.
    """
    text = text.strip()
    above, over, base = text.rpartition(_OVER)
    if over:
        return _over(text, above, base.strip(), names)
    if text.startswith(CONSUMER):
        return _consumer(text)
    if text.startswith("python:"):
        return Interpreter(_interpreter(text))
    if text.startswith("git+"):
        return _git(text)
    if text.endswith(lock_file.SUFFIXES) and (is_path(text) or Path(text).is_file()):
        return UserLock(_lock(text))
    if is_path(text):
        return _at_ref(text) or Checkout(_checkout(text))
    if "=" in text:
        return parse_pins(text)
    known = sorted(names)
    if text in known:
        return Named(text)
    raise _unknown(text, known)


def _over(text: str, above: str, base: str, names: Iterable[str]) -> Over:
    known = list(names)
    laid, beneath = parse(above, known), parse(base, known)
    if not isinstance(laid, Pins | Checkout | Git) or not isinstance(beneath, Named | Pins | Consumer):
        raise UsageError(
            f"{text!r}: these cannot be combined",
            "a checkout, a Git URL or pins over a named or pinned environment, or over a consumer",
            "for example '../peft over current'",
        )  # fmt: skip
    return Over(laid, base)


def _consumer(text: str) -> Consumer:
    name, equal, version = text.removeprefix(CONSUMER).partition("==")
    if not _CONSUMER_NAME.fullmatch(name) or (equal and not version.strip()):
        raise UsageError(f"{text!r} names no consumer", f"{CONSUMER}NAME or {CONSUMER}NAME==VERSION", FORMS)
    return Consumer(name, _version(version.strip(), text) if equal else "")


def over(above: str, base: str) -> str:
    """The spec of one spec over an environment."""
    return f"{above.strip()}{_OVER}{base}"


def _at_ref(text: str) -> Git | None:
    """`PATH@ref`: a ref of a clone on this machine. None if the whole text is a path, or no part of it is a folder."""
    path, at, ref = text.partition("@")
    while at and not expanded(path).is_dir():
        more, at, ref = ref.partition("@")
        path = f"{path}@{more}"
    if not at or expanded(text).exists():
        return None
    if not ref or ref.startswith("-"):
        raise UsageError(f"{text!r} names no ref", "PATH@ and a branch, tag or commit", f"{path}@main")
    return Git(str(expanded(path).resolve()), ref, "")


def reads_only(text: str) -> bool:
    """True for a consumer, a release of one, or packages over one."""
    return text.rpartition(_OVER)[2].strip().startswith(CONSUMER)


def is_path(text: str) -> bool:
    """True for a path: it holds a separator, or starts with a dot or a tilde."""
    return text.startswith((".", "~")) or os.sep in text


def _unknown(text: str, known: list[str]) -> UsageError:
    close = similar(text, known, most=3)
    next_step = f"did you mean {' or '.join(close)}?" if close else f"declared here: {', '.join(known) or 'none'}"
    if text and Path(text).is_dir():
        next_step = f"for the folder of this name pass ./{text}"
    return UsageError(f"no environment {text!r}", FORMS, next_step)


def parse_pins(text: str) -> Pins:
    """Parse `peft==0.9.0,transformers==4.38.2`; the order does not matter.

    Raises:
        UsageError: it has another form, or names a package twice.
    """
    pins: dict[str, str] = {}
    for piece in text.split(","):
        match = _PIN.match(piece)
        if not match or match["version"].endswith("*"):
            raise UsageError(f"{piece.strip()!r} in {text!r} does not pin a version", "package==version", FORMS)
        package = canonicalize_name(match["package"])
        if package in pins:
            raise UsageError(f"{text!r} pins {package} twice", "each package once", "remove one of them")
        pins[package] = _version(match["version"], text)
    return Pins(tuple(sorted(pins.items(), key=lambda pin: (_rank(pin[0]), pin[0]))))


def _rank(package: str) -> int:
    return _FIRST.index(package) if package in _FIRST else len(_FIRST)


def _version(text: str, spec: str) -> str:
    version = version_of(text)
    if version is None:
        raise UsageError(f"{text!r} in {spec!r} is not a version", "package==version", FORMS)
    return str(version)


def _interpreter(text: str) -> Path:
    # Not resolved: a virtual environment's interpreter is a link to another one that has none of its packages.
    path = expanded(text.removeprefix("python:")).absolute()
    if path.is_dir() and (path / "bin" / "python").exists():
        path = path / "bin" / "python"  # a virtual environment's folder
    if not path.is_file() or not os.access(path, os.X_OK):
        raise UsageError(f"{text!r}: {path} is not a program", "python:/path/to/python", "check the path")
    return path


def _lock(text: str) -> Path:
    path = expanded(text).resolve()
    if not path.is_file():
        raise UsageError(f"{text!r}: {path} is not a file", "a lock file: pip freeze > lock.txt", "check the path")
    return path


def _checkout(text: str) -> Path:
    path = expanded(text).resolve()
    if not path.is_dir():
        raise UsageError(
            f"{text!r}: {path} is not a folder", "a folder with pyproject.toml or setup.py", "check the path"
        )
    if not is_project(path):
        infos = sum(each.name.endswith(".dist-info") for each in path.iterdir())
        wheel = f"; it holds the .dist-info of {infos} packages, and an unpacked wheel holds one" if infos else ""
        inner = [each.name for each in sorted(path.iterdir()) if each.is_dir() and is_project(each)]
        raise UsageError(
            f"{text!r}: {path} holds no Python project{wheel}",
            "a folder with pyproject.toml or setup.py, or an unpacked wheel with its .dist-info",
            f"did you mean {Path(text) / inner[0]}?" if inner else "pass the project's folder",
        )
    return path


def is_project(folder: Path) -> bool:
    """True for a folder that a package can be installed from."""
    named = any((folder / name).is_file() for name in ("pyproject.toml", "setup.py"))
    return named or unpacked_wheel.package_of(folder) is not None


def _git(text: str) -> Git:
    address, _, fragment = text.removeprefix("git+").partition("#")
    head, slash, last = address.rpartition("/")
    last, _, ref = last.partition("@")
    if "@" in head.partition("://")[2].partition("/")[2]:  # the ref has a slash: …/peft@user/branch
        head, _, rest = address.rpartition("@")
        url, ref = head, rest
    else:
        url = head + slash + last
    parts = urlsplit(url)
    subdirectory = fragment.removeprefix("subdirectory=") if fragment.startswith("subdirectory=") else ""
    wrong = ref.startswith("-") or ".." in Path(subdirectory).parts or Path(subdirectory).is_absolute()
    if parts.scheme not in _SCHEMES or not parts.path.strip("/") or wrong:
        raise UsageError(f"{text!r} is not a git address", f"git+({'|'.join(_SCHEMES)})://…@ref", FORMS)
    return Git(url, ref, subdirectory)
