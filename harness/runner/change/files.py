"""The files that a change changed: those that differ between two environments, and those that git names."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from packaging.utils import canonicalize_name

from harness.core.files import read_text
from harness.envs import record, source_tree
from harness.envs.environment import BuiltEnvironment
from harness.runner.change import code_diff, touched
from harness.runner.change.code_diff import Difference
from harness.runner.change.new_names import Package
from harness.runner.change.touched import Files
from harness.worker.files import open_regular, read_regular

_UPSTREAM = ("refs/remotes/origin/HEAD", "origin/main", "origin/master", "upstream/main", "upstream/master", "main",
             "master")  # fmt: skip
_METADATA = (".dist-info", ".egg-info", ".data")
_COMPILED = (".so", ".pyd", ".dll", ".dylib")
_MADE_BY_BUILDS = {"version", "_version"}
_LARGEST = 64 << 20
"""Bytes of a source file."""


@dataclass(frozen=True)
class Installed:
    """A package as an environment has it."""

    site: Path
    digests: dict[str, str]
    """File → digest; names start with the package: `peft/tuners/lora/layer.py`."""

    @property
    def tops(self) -> set[str]:
        """The top-level names that it installs."""
        return {name.partition("/")[0] for name in self.digests}

    @property
    def files(self) -> Files:
        """Its files, readable."""
        return Files(frozenset(self.digests), self.text)

    def text(self, name: str) -> str:
        """One file's text; empty for a file that can't be read."""
        try:
            return read_text(self.site / name, errors="replace")
        except OSError:
            return ""

    def content(self, name: str) -> bytes | None:
        """One file's content; None for a file that is not there or can't be read."""
        try:
            return read_regular(self.site / name, _LARGEST, links=True) if name in self.digests else None
        except (OSError, ValueError):
            return None


@dataclass(frozen=True)
class Changed:
    """The changed files by their installed names, and how they are known."""

    names: tuple[str, ...]
    known_by: str
    further: int = 0
    """How many files differ from the baseline and are not part of this change."""
    elsewhere: int = 0
    """How many changed files are not installed: tests, documentation."""


def installed(environment: BuiltEnvironment, package: str) -> Installed | None:
    """A package's files in an environment that was built here; None where they can't be found."""
    for site in environment.python.parent.parent.glob("lib/python*/site-packages"):
        for info in site.glob("*.dist-info"):
            if canonicalize_name(info.name.removesuffix(".dist-info").rpartition("-")[0]) == package:
                return Installed(site, dict(_recorded(site, info)))
    return None


def _recorded(site: Path, info: Path) -> Iterable[tuple[str, str]]:
    for name, *row in record.rows(info):
        if not name.startswith((f"{info.name}/", "../", "/")) and not name.endswith(".pyc"):
            yield name, (row[0] if row and row[0] else _digest(site / name))


def _digest(file: Path) -> str:
    try:
        with open_regular(file, links=True) as content:
            found = base64.urlsafe_b64encode(hashlib.file_digest(content, "sha256").digest())
    except OSError:
        return "unreadable"
    return f"sha256={found.rstrip(b'=').decode()}"


def of_tree(tree: Path, known: Installed) -> Installed | None:
    """A package as a source tree would install it; None where only a build can tell.

    Args:
        known: the package as some environment has it: its folders, and which kinds of data files it has.
    """
    if source_tree.is_wheel(tree):
        inside = {name: name for name in source_tree.files(tree) if not name.partition("/")[0].endswith(_METADATA)}
        return Installed(tree, {name: _digest(tree / name) for name in inside})
    if any(name.endswith(_COMPILED) for name in known.digests):
        return None
    names = source_tree.files(tree)
    above = next((above for above in ("src/", "") if known.tops <= _tops(names, above)), None)
    if above is None:
        return None
    kinds = {PurePosixPath(name).suffix for name in known.digests} | {".py"}
    inside = {name.removeprefix(above): name for name in names if name.startswith(above)}
    digests = {
        name: _digest(tree / place) for name, place in inside.items()
        if name.partition("/")[0] in known.tops and (name in known.digests or PurePosixPath(name).suffix in kinds)
    }  # fmt: skip
    made = {name: digest for name, digest in known.digests.items()
            if name not in digests and PurePosixPath(name).stem in _MADE_BY_BUILDS}  # fmt: skip
    return Installed(tree / above, made | digests)


def _tops(names: Iterable[str], above: str) -> set[str]:
    return {name.removeprefix(above).partition("/")[0] for name in names if name.startswith(above)}


def differing(before: Installed, now: Installed) -> tuple[str, ...]:
    """The files that differ in more than comments, docstrings that nothing reads, and a version number."""
    package = Package(before.files, now.files)
    return tuple(
        name for name in of_other_bytes(before, now)
        if code_diff.between([name], before.content, now.content, package)
    )  # fmt: skip


def of_other_bytes(before: Installed, now: Installed) -> tuple[str, ...]:
    """The files that are not equal to the byte, in their order."""
    names = sorted(before.digests.keys() | now.digests.keys())
    return tuple(name for name in names if before.digests.get(name) != now.digests.get(name))


def difference(
    names: Iterable[str], before: Installed, now: Installed, others: Callable[[str], bool]
) -> Difference:  # fmt: skip
    """What runs differently in these files.

    Args:
        others: whether a name occurs in code besides the package.
    """
    return code_diff.between(names, before.content, now.content, Package(before.files, now.files, others))


def given(names: Iterable[str], tops: Collection[str]) -> Changed:
    """The changed files that the user names."""
    names = [name for name in names if name.strip()]
    inside = [found for name in names if (found := touched.installed_name(name, tops)) is not None]
    return Changed(tuple(dict.fromkeys(inside)), "as --changed-files says", elsewhere=len(names) - len(inside))


def of_git(tree: Path, ref: str, tops: Collection[str], differs: Collection[str]) -> Changed | None:
    """The files that a checkout's branch changed, committed or not, since it left its base.

    Args:
        ref: the commit or branch that it left; empty for the default branch of its origin.
        differs: the installed files that differ from the baseline. A file that the branch changed and that is not among
            them is in the baseline already.

    Returns:
        None where git does not know: no work tree, or the branch is the default branch itself.
    """
    if not source_tree.in_git(tree):
        return None
    head = source_tree.run_git(tree, "symbolic-ref", "--short", "-q", "HEAD").stdout.decode(errors="replace").strip()
    for candidate in [ref] if ref else _UPSTREAM:
        if candidate == head:
            continue
        base = source_tree.run_git(tree, "merge-base", candidate, "HEAD")
        if base.returncode != 0:
            continue
        since = base.stdout.decode().strip()
        names = _names(tree, "diff", "--name-only", "-z", "--relative", "--no-renames", since)
        names += _names(tree, "ls-files", "--others", "--exclude-standard", "-z")
        if not names:
            return None
        found = given(names, tops)
        short = candidate.removeprefix("refs/remotes/")
        known = f"git: since {since[:10]}, where it left {short}, with what is not committed"
        kept = tuple(name for name in found.names if name in differs or name.partition("/")[0] not in tops)
        return replace(found, names=kept, known_by=known, further=len(set(differs) - set(kept)))
    return None


def _names(tree: Path, *args: str) -> list[str]:
    said = source_tree.run_git(tree, *args)
    return [name for name in said.stdout.decode(errors="replace").split("\0") if name] if said.returncode == 0 else []
