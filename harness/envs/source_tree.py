"""Source trees: digest, copy, the package that they build, and fetching them with git."""

from __future__ import annotations

import ast
import configparser
import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from packaging.utils import canonicalize_name

from harness.core import syntax, toml_files
from harness.core.errors import UsageError
from harness.core.files import read_text
from harness.envs import unpacked_wheel
from harness.envs.environment import EnvFailed
from harness.envs.spec import Git
from harness.worker import in_use
from harness.worker.files import open_regular

_LEFT_OUT = {
    ".git", "__pycache__", ".venv", "venv", ".tox", ".nox", "build", "dist", "node_modules", ".mypy_cache",
    ".pytest_cache", ".ruff_cache", ".idea", ".vscode",
}  # fmt: skip
_COMMIT = re.compile(r"[0-9a-f]{40}")


def digest(tree: Path) -> str:
    """SHA-256 of the names and contents of a tree's files, without those that git ignores."""
    return _digest(tree, files(tree))


def packed(tree: Path) -> bytes:
    """A tar file of the files that `digest` counts. The same files give the same bytes."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in files(tree):
            path, entry = tree / name, tarfile.TarInfo(name)
            if path.is_symlink():
                entry.type, entry.linkname = tarfile.SYMTYPE, str(path.readlink())
                tar.addfile(entry)
                continue
            with open_regular(path, links=False) as file:
                entry.size, entry.mode = os.fstat(file.fileno()).st_size, 0o755 if os.access(path, os.X_OK) else 0o644
                tar.addfile(entry, file)
    return data.getvalue()


def unpack(data: bytes, to: Path) -> tuple[str, ...]:
    """Write the files of a `packed` tree into a new folder; returns their names.

    Raises:
        ValueError: a name leads out of the folder, or something is no file and no link.
    """
    links: dict[Path, str] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        entries = tar.getmembers()
        for entry in entries:
            path = to / entry.name
            if ".." in Path(entry.name).parts or Path(entry.name).is_absolute():
                raise ValueError(f"{entry.name!r} leads out of the tree")
            path.parent.mkdir(parents=True, exist_ok=True)
            if entry.issym():
                links[path] = entry.linkname  # made last, so that no file is written through one
            elif (file := tar.extractfile(entry)) is not None:
                path.write_bytes(file.read())
                path.chmod(entry.mode)
            else:
                raise ValueError(f"{entry.name!r} is no file")
    for path, target in links.items():
        path.symlink_to(target)
    return tuple(entry.name for entry in entries)


def _digest(tree: Path, names: Sequence[str]) -> str:
    total = hashlib.sha256()
    for name in names:
        path = tree / name
        kind = "link" if path.is_symlink() else "program" if os.access(path, os.X_OK) else "file"
        total.update(f"{kind} {name}\0{_content_digest(path)}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def _content_digest(path: Path) -> str:
    if path.is_symlink():
        return hashlib.sha256(os.fsencode(path.readlink())).hexdigest()
    with open_regular(path, links=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy(tree: Path, to: Path, names: Sequence[str] = ()) -> str:
    """Copy the files that `digest` counts; returns the digest of the copy, to compare with the expected one.

    Args:
        names: the files, if they are known; default: list them.
    """
    to.mkdir(parents=True)
    names = names or files(tree)
    for name in names:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(tree / name, to / name, follow_symlinks=False)
    return _digest(to, names)


def files(tree: Path) -> list[str]:
    """Names of the files, sorted: those that git knows or would add. Without git, all but caches and build outputs.

    Pipes, sockets and devices are none of them, as for git.
    """
    return [name for name in _listed(tree) if (tree / name).is_symlink() or (tree / name).is_file()]


def _listed(tree: Path) -> list[str]:
    if is_wheel(tree):  # all of its folders are installed, also one called `build`
        return sorted(unpacked_wheel.files(tree))
    listed = run_git(tree, "ls-files", "--cached", "--others", "--exclude-standard", "-z") if in_git(tree) else None
    if listed is None or listed.returncode != 0:
        return sorted(_walked(tree, ""))
    names: set[str] = set()
    for name in os.fsdecode(listed.stdout).split("\0"):
        path = tree / name
        if name and path.is_dir() and not path.is_symlink():  # a submodule
            names.update(_walked(tree, name.rstrip("/")))
        elif name and os.path.lexists(path):  # else deleted, but the deletion is not committed
            names.add(name)
    return sorted(names)


def in_git(tree: Path) -> bool:
    """True if the tree belongs to a git work tree, and is not a folder that the work tree ignores."""
    inside = run_git(tree, "rev-parse", "--is-inside-work-tree")
    return inside.stdout.strip() == b"true" and run_git(tree, "check-ignore", "-q", ".").returncode != 0


def _walked(tree: Path, under: str) -> Iterator[str]:
    for folder, folders, files in os.walk(tree / under):
        folders[:] = [name for name in folders if name not in _LEFT_OUT and not name.endswith(".egg-info")]
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        yield from (
            str((Path(folder) / name).relative_to(tree)) for name in [*files, *links] if not name.endswith(".pyc")
        )


_NO_PROGRAMS = ("-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}")
"""A tree's `.git/config` may name programs that git runs, also for `status`. Reading a checkout runs nothing of it."""


def run_git(folder: Path, *args: str) -> subprocess.CompletedProcess[bytes]:
    """Run git without a surrounding hook's variables, without prompts, and without programs that the tree names."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environ |= {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "LC_ALL": "C"}
    command = ["git", *_NO_PROGRAMS, "-C", str(folder), *args]
    try:
        return subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, b"", b"git is not installed")


def commit_of(tree: Path) -> tuple[str, str]:
    """The commit of a work tree and the address others fetch it from, without a password.

    Both are empty if the tree has changes or is no work tree.
    """
    if not in_git(tree) or run_git(tree, "status", "--porcelain").stdout.strip():
        return "", ""
    commit = run_git(tree, "rev-parse", "HEAD").stdout.decode(errors="replace").strip()
    remote = run_git(tree, "remote", "get-url", "origin").stdout.decode(errors="replace").strip()
    return commit, re.sub(r"(?<=://)[^/@]+@", "", remote) if remote.startswith("https://") else ""


def is_wheel(tree: Path) -> bool:
    """True for an unpacked wheel: a folder with the metadata of one package, and no build configuration."""
    project = any((tree / name).is_file() for name in ("pyproject.toml", "setup.py"))
    return not project and unpacked_wheel.package_of(tree) is not None


def package_of(tree: Path) -> tuple[str, str | None]:
    """Canonical name of the package that a tree builds, and its version (None if only a build could tell).

    Read from an unpacked wheel's metadata, or from pyproject.toml, setup.cfg and setup.py, without running them. The
    folder's name is the fallback.
    """
    if is_wheel(tree) and (found := unpacked_wheel.package_of(tree)) is not None:
        return found
    name: str | None = None
    version: str | None = None
    for reader in (_from_pyproject, _from_setup_cfg, _from_setup_py):
        found_name, found_version = reader(tree)
        name, version = name or found_name, version or found_version
    return canonicalize_name(name or tree.name), version


def _from_pyproject(tree: Path) -> tuple[str | None, str | None]:
    try:
        project = toml_files.read(tree / "pyproject.toml").get("project", {})
    except UsageError:
        return None, None
    found = (project.get(key) if isinstance(project, dict) else None for key in ("name", "version"))
    name, version = (one if isinstance(one, str) else None for one in found)
    return name, version


def _from_setup_cfg(tree: Path) -> tuple[str | None, str | None]:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(read_text(tree / "setup.cfg"))
    except (OSError, ValueError, configparser.Error):
        return None, None
    version = parser.get("metadata", "version", fallback=None)
    return parser.get("metadata", "name", fallback=None), version if version and ":" not in version else None


def _from_setup_py(tree: Path) -> tuple[str | None, str | None]:
    """`name` and `version` in the call of `setup`, if they are constants or names of constants."""
    try:
        module = syntax.module(read_text(tree / "setup.py"))
    except (OSError, ValueError, SyntaxError):
        return None, None
    constants = {
        target.id: node.value.value
        for node in module.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    given = {key.arg: _constant(key.value, constants) for call in ast.walk(module) if _is_setup(call)
             for key in getattr(call, "keywords", [])}  # fmt: skip
    return given.get("name"), given.get("version")


def _is_setup(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "setup"


def _constant(node: ast.expr, constants: Mapping[str, object]) -> str | None:
    value = node.value if isinstance(node, ast.Constant) else constants.get(getattr(node, "id", ""))
    return value if isinstance(value, str) else None


def fetch(spec: str, git: Git, cache: Path) -> tuple[Path, str]:
    """The tree of a git URL at its ref, and its commit. Each commit is fetched once.

    Raises:
        EnvFailed: there is no such repository or ref, or it cannot be reached.
    """
    if shutil.which("git") is None:
        raise EnvFailed(spec, "resolve", "git is not installed", "git on the PATH", "install git: https://git-scm.com")
    cache.mkdir(parents=True, exist_ok=True)
    if Path(git.url).is_absolute():
        git = _of_clone(spec, git)
    commit = git.ref if _COMMIT.fullmatch(git.ref) else None
    if commit is None:
        commit = _remote_commit(git, cache)
    stem = hashlib.sha256(git.url.encode()).hexdigest()[:8]
    tree = cache / f"{stem}-{commit or git.ref.replace('/', '-')}"
    if commit is None or not tree.is_dir() or in_use.hold(str(tree)) == in_use.BUSY:
        tree, commit = _fetched(spec, git, commit, cache, stem)
        in_use.hold(str(tree))
    return tree / git.subdirectory, commit


def _of_clone(spec: str, wanted: Git) -> Git:
    """The commit of a ref in a clone on this machine. The work tree is not touched."""
    folder = Path(wanted.url)
    said = run_git(folder, "rev-parse", "--verify", "--quiet", f"{wanted.ref or 'HEAD'}^{{commit}}")
    if said.returncode != 0:
        heads = run_git(folder, "for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/remotes", "refs/tags")
        known = ", ".join(heads.stdout.decode(errors="replace").split()[:12])
        raise EnvFailed(
            spec, "resolve", f"{folder} has no commit {wanted.ref!r}", "a branch, tag or commit of this clone",
            f"it has {known}" if known else "check that it is a git clone", tail=said.stderr.decode(errors="replace"),
        )  # fmt: skip
    bare = run_git(folder, "rev-parse", "--is-bare-repository").stdout.strip() == b"true"
    top = "" if bare else run_git(folder, "rev-parse", "--show-toplevel").stdout.decode(errors="replace").strip()
    below = "" if bare else run_git(folder, "rev-parse", "--show-prefix").stdout.decode(errors="replace").strip()
    return Git(top or str(folder), said.stdout.decode().strip(), below.rstrip("/"))


def _remote_commit(git: Git, cache: Path) -> str | None:
    """The commit of a branch, a tag or the default branch; None if the ref is something else."""
    wanted = [f"refs/heads/{git.ref}", f"refs/tags/{git.ref}^{{}}", f"refs/tags/{git.ref}", git.ref or "HEAD"]
    lines = run_git(cache, "ls-remote", "--", git.url, *wanted).stdout.decode(errors="replace").splitlines()
    commits = {name: commit for commit, _, name in (line.partition("\t") for line in lines)}
    return next((commits[name] for name in wanted if name in commits), None)


def _fetched(spec: str, git: Git, commit: str | None, cache: Path, stem: str) -> tuple[Path, str]:
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as name:
        folder = Path(name) / "tree"
        folder.mkdir()
        run_git(folder, "init", "-q")
        done = run_git(folder, "fetch", "-q", "--depth", "1", "--", git.url, commit or git.ref)
        at, said = "FETCH_HEAD", done.stderr
        if done.returncode != 0 and git.ref:  # a short commit, or a server that does not serve single commits
            done = run_git(folder, "fetch", "-q", "--", git.url, "+refs/*:refs/fetched/*")
            at = commit or git.ref
        if done.returncode == 0:
            done = run_git(folder, "checkout", "-q", "--detach", f"{at}^{{commit}}", "--")
        if done.returncode != 0:
            raise EnvFailed(
                spec, "resolve", f"git cannot fetch {git.ref or 'the default branch'}", "a commit, branch or tag",
                "read git's last lines below; then check address, ref and permissions",
                tail=(said + done.stderr).decode(errors="replace"),
            )  # fmt: skip
        commit = run_git(folder, "rev-parse", "HEAD").stdout.decode().strip()
        shutil.rmtree(folder / ".git")
        tree = cache / f"{stem}-{commit}"
        try:
            folder.rename(tree)
        except OSError:
            if not tree.is_dir():  # else another process fetched the same commit first
                raise
    return tree, commit
