"""The rows to bisect: the releases of a package, the commits of a clone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from harness.core.errors import UsageError
from harness.envs import source_tree
from harness.envs.index import Known, Release

_REPOSITORIES = {
    "accelerate": "https://github.com/huggingface/accelerate",
    "bitsandbytes": "https://github.com/bitsandbytes-foundation/bitsandbytes",
    "diffusers": "https://github.com/huggingface/diffusers",
    "huggingface-hub": "https://github.com/huggingface/huggingface_hub",
    "peft": "https://github.com/huggingface/peft",
    "safetensors": "https://github.com/huggingface/safetensors",
    "tokenizers": "https://github.com/huggingface/tokenizers",
    "torch": "https://github.com/pytorch/pytorch",
    "transformers": "https://github.com/huggingface/transformers",
    "trl": "https://github.com/huggingface/trl",
}
_BARE_TAGS = frozenset({"bitsandbytes"})
"""Packages whose releases are tagged `0.46.0`; all others here tag `v0.46.0`."""


@dataclass(frozen=True)
class Row:
    """Releases to bisect, and those that were left out.

    Attributes:
        releases: the oldest first, including both ends.
        left_out: version → reason.
    """

    releases: tuple[Release, ...]
    left_out: Mapping[str, str]


def releases_between(
    known: Known, package: str, first: str, last: str, python: str, *, pre: bool = False, extracted: bool = False
) -> Row:
    """The releases from one to another that can be installed.

    Args:
        pre: include pre-releases.
        extracted: files of its sdist are needed, and no wheel.

    Raises:
        UsageError: an end cannot be installed, or both ends are the same.
    """
    low, high = Version(first), Version(last)
    if low == high:
        raise UsageError(f"both ends are {package} {first}", "two releases", "name another with --good or --bad")
    between, left_out = [], {}
    for release in sorted(known.releases.values(), key=lambda one: Version(one.version)):
        version = Version(release.version)
        if not low <= version <= high:
            continue
        if why := _unfit(release, version, python, pre=pre or version in (low, high), extracted=extracted):
            left_out[release.version] = why
        else:
            between.append(release)
    for end in (low, high):
        if end not in {Version(release.version) for release in between}:
            why = next((why for version, why in left_out.items() if Version(version) == end), "it is not on the index")
            raise UsageError(
                f"{package} {end} cannot be an end: {why}", "a release that can be installed", "choose a neighbour"
            )
    return Row(tuple(between), left_out)


def _unfit(release: Release, version: Version, python: str, *, pre: bool, extracted: bool = False) -> str:
    if release.yanked:
        return "yanked"
    if version.is_prerelease and not pre:
        return "a pre-release; --pre includes it"
    if extracted:
        return "" if release.sdist else "no sdist"
    return "" if release.fits(python) else f"no wheel for Python {python}"


def compare_url(package: str, before: str, after: str) -> str:
    """Address of the changes between two releases; empty if the repository is unknown."""
    if package not in _REPOSITORIES:
        return ""
    prefix = "" if package in _BARE_TAGS else "v"
    return f"{_REPOSITORIES[package]}/compare/{prefix}{before}...{prefix}{after}"


def commits_between(repository: Path, before: str, after: str) -> tuple[str, ...]:
    """Commits of a clone, the oldest first: from the merge base of both refs to the later one, along first parents.

    Args:
        before: a commit, tag or branch; for a release `0.13.2` the tag may have a `v`.

    Raises:
        UsageError: there is no clone or no such ref, or no commits lead from one to the other.
    """
    if _git(repository, "rev-parse", "--git-dir") is None:
        raise UsageError(f"{repository} is not a git clone", "a clone of the package", "clone it with its tags")
    first, last = (_resolved(repository, ref) for ref in (before, after))
    base = _git(repository, "merge-base", first, last)
    listed = _git(repository, "rev-list", "--reverse", "--first-parent", f"{base}..{last}") if base else None
    if not base or not listed:
        raise UsageError(
            f"{repository}: no commits lead from {before} to {after}", "an earlier and a later ref", "check their order"
        )
    return (base, *listed.split())


def subject(repository: Path, commit: str) -> str:
    """A commit's day and subject."""
    return _git(repository, "show", "-s", "--format=%cs %s", commit) or ""


def _resolved(repository: Path, ref: str) -> str:
    for candidate in (ref, f"v{ref}", f"refs/tags/{ref}"):
        if found := _git(repository, "rev-parse", "--verify", "--quiet", f"{candidate}^{{commit}}"):
            return found
    raise UsageError(
        f"{repository} has no commit, tag or branch {ref!r}", "a ref of the clone",
        f"fetch its tags: git -C {repository} fetch --tags",
    )  # fmt: skip


def _git(repository: Path, *arguments: str) -> str | None:
    """Git's output; None if it fails."""
    done = source_tree.run_git(repository, *arguments)
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None
