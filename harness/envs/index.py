"""The releases of a package and their days, from pip's index. Answers are cached."""

from __future__ import annotations

import base64
import datetime
import functools
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from packaging import tags
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

from harness.core.errors import UsageError
from harness.core.text import similar
from harness.envs import lock
from harness.envs.environment import EnvFailed
from harness.worker.files import parse_json, read_json

_JSON = "application/vnd.pypi.simple.v1+json"
_TIMEOUT_S = 60

Fetch = Callable[[str], bytes]
"""The content at an address; raises OSError."""


@dataclass(frozen=True)
class Release:
    """One version of a package on the index."""

    version: str
    """As the index spells it: `0.9.0`, also if `0.9` was asked for."""
    day: str
    """The day its first file was uploaded, `2023-11-09` (UTC)."""
    yanked: bool
    wheels: tuple[str, ...]
    requires_python: str
    sdist: str = ""
    """SHA-256 of its sdist; empty if it has none."""

    @property
    def date(self) -> datetime.date:
        return datetime.date.fromisoformat(self.day)

    def fits(self, python: str) -> bool:
        """True if it has a wheel for this platform and a version of Python."""
        version = tuple(int(part) for part in python.split("."))
        accepted = {*tags.cpython_tags(version), *tags.compatible_tags(version, f"cp{version[0]}{version[1]}")}
        return self.admits(python) and any(parse_wheel_filename(wheel)[3] & accepted for wheel in self.wheels)

    def admits(self, python: str) -> bool:
        """True if it says that it works with a version of Python."""
        try:
            # `>=3.8.1` admits 3.8 as a series.
            return SpecifierSet(self.requires_python).contains(f"{python}.99")
        except InvalidSpecifier:
            return True


@dataclass(frozen=True)
class Known:
    """An index's answer about a package."""

    releases: Mapping[str, Release]
    """By version, as the index spells it."""
    day: str = ""
    """The day of the answer, `2026-11-22` (UTC); empty if there is none."""

    @property
    def newest(self) -> str:
        """The newest version that is neither yanked nor a pre-release; empty if there is none."""
        return max(self.stable(), key=Version, default="")

    def newest_for(self, python: str, admitted: SpecifierSet) -> Release | None:
        """The newest version, as above, that works with a version of Python and that other packages admit."""
        fitting = [v for v in self.stable() if self.releases[v].admits(python) and admitted.contains(v)]
        return self.releases[max(fitting, key=Version)] if fitting else None

    def stable(self) -> list[str]:
        """The versions that are neither yanked nor pre-releases."""
        return [v for v, one in self.releases.items() if not one.yanked and not Version(v).is_prerelease]


class Releases:
    """Releases of packages by version.

    Args:
        indexes: returns the addresses of simple indexes, in the order in which they are asked. Those on this disk are
            skipped: they have no upload times.
        cache: a folder for the answers.
        fetch: gets an address's content.
    """

    def __init__(self, indexes: Callable[[], Iterable[str]], cache: Path, fetch: Fetch) -> None:
        self._indexes = indexes
        self._cache = cache
        self._fetch = fetch

    def of(self, package: str, version: str, *, anew: bool = False) -> Release:
        """One release.

        Args:
            anew: ask the index even if an answer is cached: a release may have been yanked since.

        Raises:
            UsageError: the package has no such version.
            EnvFailed: no index answered.
        """
        known: Mapping[str, Release] = {} if anew else self.kept(package).releases
        found = _same(version, known)
        if found is None:
            known = self.ask(package).releases
            found = _same(version, known)
        if found is None:
            close = similar(version, known)
            newest = max((item for item in known if not Version(item).is_prerelease), key=Version, default="none")
            raise UsageError(
                f"{package} has no release {version}", f"a release on the index, up to {newest}",
                f"did you mean {', '.join(close)}?" if close else "check the version",
            )  # fmt: skip
        return found

    def sdist_digest(self, package: str, version: str) -> str:
        """SHA-256 of a release's sdist.

        Raises:
            UsageError: there is no such release, or it has no sdist.
            EnvFailed: no index answered.
        """
        found = self.of(package, version).sdist or self.of(package, version, anew=True).sdist
        if not found:
            raise UsageError(f"{package} {version} has no sdist on the index", "a release with one", "choose another")
        return found

    def sdist(self, package: str, version: str) -> bytes:
        """The content of a release's sdist.

        Raises:
            EnvFailed: no index has it.
        """
        said = []
        for index in self._indexes():
            page = f"{index.rstrip('/')}/{package}/"
            try:
                files = parse_json(self._fetch(page)).get("files", []) if not index.startswith("file:") else []
                for file in files:
                    if _is_sdist(file) and Version(_version_of(str(file["filename"])) or "0") == Version(version):
                        return self._fetch(_beside(page, str(file["url"])))
            except (OSError, ValueError, AttributeError) as error:
                said.append(f"{_without_password(index)}: {error}")
        raise EnvFailed(
            package, "build", f"no index has the sdist of {package} {version}", "an index with it",
            "check the network and pip's index-url", tail="\n".join(said),
        )  # fmt: skip

    def ask(self, package: str) -> Known:
        """Ask the index for all releases; the answer is cached.

        Raises:
            EnvFailed: no index answered.
        """
        known = Known(self._asked(package), datetime.datetime.now(datetime.UTC).date().isoformat())
        self._keep(package, known)
        return known

    def kept(self, package: str) -> Known:
        """The cached answer; empty if there is none, or it has another format."""
        try:
            raw = read_json(self._cache / f"{package}.json", links=True)
            found = {v: Release(**{**item, "wheels": tuple(item["wheels"])}) for v, item in raw["releases"].items()}
            return Known(found, datetime.date.fromisoformat(raw["day"]).isoformat())
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return Known({})

    def _keep(self, package: str, known: Known) -> None:
        releases = {version: asdict(release) for version, release in known.releases.items()}
        lock.write(self._cache / f"{package}.json", json.dumps({"day": known.day, "releases": releases}, indent=1))

    def _asked(self, package: str) -> dict[str, Release]:
        said: list[str] = []
        for index in self._indexes():
            if index.startswith("file:"):
                continue
            try:
                found = parse(parse_json(self._fetch(f"{index.rstrip('/')}/{package}/")))
            except (OSError, ValueError) as error:
                said.append(f"{_without_password(index)}: {error}")
                continue
            if found:
                return found
            said.append(f"{_without_password(index)}: has no upload times")
        raise EnvFailed(
            package, "resolve", f"no index says when {package} was released", "an index with upload times (PEP 700)",
            "check the network and pip's index-url, or declare the environment with `released` yourself",
            tail="\n".join(said) or "no index is configured (no-index)",
        )  # fmt: skip


def parse(page: Mapping[str, Any]) -> dict[str, Release]:
    """Releases by version, from a page of the simple API in JSON. Files without an upload time do not count."""
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for file in page.get("files", []):
        version = _version_of(str(file.get("filename", "")))
        if version and file.get("upload-time"):
            grouped.setdefault(version, []).append(file)
    return {version: _release(version, files) for version, files in grouped.items()}


def _same(version: str, known: Mapping[str, Release]) -> Release | None:
    return next((release for item, release in known.items() if Version(item) == Version(version)), None)


def _release(version: str, files: list[Mapping[str, Any]]) -> Release:
    kept = [file for file in files if not file.get("yanked")]
    return Release(
        version=version,
        day=min(str(file["upload-time"]) for file in files)[:10],
        yanked=not kept,
        wheels=tuple(str(file["filename"]) for file in kept if str(file["filename"]).endswith(".whl")),
        requires_python=str((kept or files)[0].get("requires-python") or ""),
        sdist=next((_sha256(file) for file in kept if _is_sdist(file)), ""),
    )


def _is_sdist(file: Mapping[str, Any]) -> bool:
    return str(file.get("filename", "")).endswith(".tar.gz")


def _sha256(file: Mapping[str, Any]) -> str:
    return str((file.get("hashes") or {}).get("sha256", ""))


def _version_of(filename: str) -> str | None:
    try:
        if filename.endswith(".whl"):
            return str(parse_wheel_filename(filename)[1])
        return str(parse_sdist_filename(filename)[1])
    except (InvalidWheelFilename, InvalidSdistFilename):
        return None


def _beside(page: str, address: str) -> str:
    """The address of a file, with the page's password where both are on one server."""
    whole = urljoin(_without_password(page), address)
    parts, user = urlsplit(whole), urlsplit(page).netloc.rpartition("@")[0]
    same = urlsplit(_without_password(page)).netloc == parts.netloc
    return urlunsplit(parts._replace(netloc=f"{user}@{parts.netloc}")) if user and same else whole


def _without_password(address: str) -> str:
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def fetcher(settings: Callable[[], Mapping[str, str]]) -> Fetch:
    """Gets addresses with the certificates and the password that uv would use.

    Args:
        settings: returns uv's variables; called at the first address.
    """

    @functools.cache
    def context() -> ssl.SSLContext:
        env = settings()
        made = ssl.create_default_context(cafile=env.get("SSL_CERT_FILE"), capath=env.get("SSL_CERT_DIR"))
        if env.get("SSL_CLIENT_CERT"):
            made.load_cert_chain(env["SSL_CLIENT_CERT"])
        return made

    def fetch(address: str) -> bytes:
        request = urllib.request.Request(_without_password(address), headers={"Accept": _JSON})
        user = urlsplit(address).netloc.rpartition("@")[0]
        if user:
            request.add_header("Authorization", "Basic " + base64.b64encode(unquote(user).encode()).decode())
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=context()) as answer:
            return bytes(answer.read())

    return fetch
