"""The files that a change changed: those that differ between two environments, and those that git names."""

from __future__ import annotations

import ast
import base64
import csv
import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.utils import canonicalize_name

from harness.envs import source_tree
from harness.envs.environment import BuiltEnvironment
from harness.runner.change import touched
from harness.runner.change.touched import Files

_UPSTREAM = ("refs/remotes/origin/HEAD", "origin/main", "origin/master", "upstream/main", "upstream/master", "main",
             "master")  # fmt: skip
_VERSION = ("__version__", "__version_info__", "version", "VERSION")


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
            return (self.site / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""


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
    try:
        rows = list(csv.reader((info / "RECORD").read_text(encoding="utf-8").splitlines()))
    except OSError:
        return
    for row in rows:
        name = row[0] if row else ""
        if name and not name.startswith((f"{info.name}/", "../", "/")) and not name.endswith(".pyc"):
            yield name, (row[1] if len(row) > 1 and row[1] else _digest(site / name))


def _digest(file: Path) -> str:
    try:
        found = base64.urlsafe_b64encode(hashlib.sha256(file.read_bytes()).digest())
    except OSError:
        return "unreadable"
    return f"sha256={found.rstrip(b'=').decode()}"


def differing(before: Installed, now: Installed) -> tuple[str, ...]:
    """The files that differ in more than comments and a version number."""
    names = sorted(before.digests.keys() | now.digests.keys())
    apart = [name for name in names if before.digests.get(name) != now.digests.get(name)]
    return tuple(name for name in apart if not _same_program(name, before, now))


def _same_program(name: str, before: Installed, now: Installed) -> bool:
    if not name.endswith(".py") or name not in before.digests or name not in now.digests:
        return False
    try:
        one, other = (_program(each.text(name)) for each in (before, now))
    except (SyntaxError, ValueError):
        return False
    return one == other


def _program(text: str) -> str:
    module = ast.parse(text)
    module.body = [node for node in module.body if not _states_version(node)]
    return ast.dump(module)


def _states_version(node: ast.stmt) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else []
    return bool(targets) and all(isinstance(each, ast.Name) and each.id in _VERSION for each in targets)


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
