"""Builds environments with uv: in the cache, once each, a stamp last, so that a half-built one is never used."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from harness.envs import byte_code, source_tree, unpacked_wheel, wheelhouse
from harness.envs.environment import BuiltEnvironment, EnvFailed, Environment, Log, Overlay
from harness.envs.installers import Outcome, RunUv

STAMP = "peft-regress.json"
_PROBED = ("torch", "transformers", "peft", "accelerate")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
_PROBE_LIMIT_S = 600
_FACTS = """
import importlib.metadata, json, platform, re, sys
for name in sys.argv[1:]:
    __import__(name)  # leaves fewer lines of its own in a traceback than import_module
versions = {}
for found in importlib.metadata.distributions():
    if found.metadata["Name"]:
        versions.setdefault(re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower(), found.version)
print("\\n" + json.dumps({"python_version": platform.python_version(), "versions": versions}))
"""


@dataclass(frozen=True)
class Facts:
    """What an interpreter says of itself."""

    python_version: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Base:
    """The interpreter that virtual environments are made from."""

    python: Path
    identity: str
    """Version, implementation and platform: all that decides whether a built environment fits."""


def facts(name: str, python: Path, imports: Sequence[str] = (), *, isolated: bool = True) -> Facts:
    """The packages of an interpreter, after it has imported some.

    Args:
        imports: modules to import first. Done without `PYTHONDONTWRITEBYTECODE`, so that this first import writes the
            byte code that halves all later ones.
        isolated: without the user's `PYTHON*` variables and site folder.

    Raises:
        EnvFailed: it does not run, or one of the imports fails.
    """
    command = [str(python), *(["-I"] if isolated else []), "-c", _FACTS, *imports]
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"} | _OFFLINE
    try:
        done = subprocess.run(
            command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=_PROBE_LIMIT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvFailed(name, "import", f"{python} does not run: {error}", "a Python", "check it") from error
    if done.returncode != 0:
        what = f"import {', '.join(imports)}" if imports else "listing its packages"
        raise EnvFailed(
            name, "import", f"{what} fails with exit code {done.returncode}", "libraries that import",
            "read the last lines below; where these versions don't go together, pin others", tail=done.stderr,
        )  # fmt: skip
    return Facts(**json.loads(done.stdout.rstrip().rpartition("\n")[2]))


class Builder:
    """Environments in a folder of the cache, one directory for each name and content.

    Args:
        root: the folder.
        uv: runs uv.
        log: is told each step.
    """

    def __init__(self, root: Path, uv: RunUv, log: Log) -> None:
        self.root = root
        self._uv = uv
        self._log = log
        self._bases: dict[str, Base] = {}

    def directory(self, environment: Environment) -> Path:
        """Where it is, built or not: a digest of all that decides its content is in the name."""
        decides = f"{environment.lock_digest}\n{self._base(environment).identity}"
        return self.root / f"{environment.name}-{hashlib.sha256(decides.encode()).hexdigest()[:12]}"

    def built(self, environment: Environment) -> BuiltEnvironment | None:
        """The environment where it is built and its interpreter is still there, else None."""
        directory = self.directory(environment)
        stamp = read_stamp(directory)
        if stamp is None or not _python(directory).exists():
            return None
        return BuiltEnvironment(
            environment.name, environment.spec, environment.kind, _python(directory), environment.lock_digest,
            stamp["versions"], stamp["python_version"], untouched=False,
        )  # fmt: skip

    def build(self, environment: Environment, wheels: Path | None = None) -> BuiltEnvironment:
        """The environment, built if it is not.

        Args:
            wheels: install from this wheelhouse, without network; default: the lock's packages from the index.

        Raises:
            EnvFailed: uv fails, the disk is full, or its libraries can't be imported. Nothing half-made stays behind.
        """
        ready = self.built(environment)
        if ready is not None:
            return ready
        directory = self.directory(environment)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with locked(directory, self._log):
                ready = self.built(environment)  # by whoever held the lock
                if ready is None:
                    self._make(environment, directory, wheels)
                    ready = self.built(environment)
        except OSError as error:
            raise EnvFailed(environment.name, "build", f"{error}", "a cache that can be written", _ELSEWHERE) from error
        assert ready is not None, f"{directory} was built and has no stamp"
        return ready

    def _make(self, environment: Environment, directory: Path, wheels: Path | None) -> None:
        started = time.monotonic()
        remove(directory)  # half-built, or its interpreter is gone
        self._log(f"building {environment.name}: {len(environment.locked())} packages")
        try:
            self._fill(environment, directory, wheels)
            self._share_byte_code(environment, directory)
            found = self._probe(environment, directory)
            _write_stamp(environment, directory, found, time.monotonic() - started)
        except BaseException:  # Ctrl-C too; what could not be removed has no stamp, and goes next time
            remove(directory)
            raise
        self._log(f"built {environment.name} in {time.monotonic() - started:.1f} s")

    def _fill(self, environment: Environment, directory: Path, wheels: Path | None) -> None:
        base = self._base(environment)
        with tempfile.TemporaryDirectory(dir=self.root, prefix=".build-") as name:
            folder = Path(name)
            self._run(environment, ["venv", "--no-project", "--python", str(base.python), str(directory)], folder)
            into = ["pip", "install", "--python", str(_python(directory))]
            if wheels is not None:
                arguments = [*into, "--offline", *wheelhouse.install_arguments(wheels)]
                self._run(environment, arguments, folder, "copy the wheelhouse again, or pack it for this machine")
                return
            install = [*into, "--no-deps"]
            (folder / "lock.txt").write_text("\n".join(environment.requirement_lines()) + "\n", encoding="utf-8")
            if environment.locked():
                self._run(environment, [*install, "-r", "lock.txt"], folder)
            if torch := environment.locked().get("torch"):
                # A lock must fit every machine. What the build of Torch that this machine's index offers needs besides
                # (CUDA libraries, where it is no CPU build) is therefore in no lock, and is added here.
                self._run(environment, [*into, "--constraint", "lock.txt", f"torch=={torch}"], folder)
            if environment.overlay is not None:
                self._log(f"installing {environment.overlay.package} from {environment.overlay.source}")
                self._run(environment, [*install, _copied(environment.overlay, folder, environment.name)], folder)
                self._check(environment, directory, folder)

    def _run(
        self, environment: Environment, args: list[str], folder: Path, fix: str = "fix the lock or pip's index"
    ) -> Outcome:
        outcome = self._uv(args, folder)
        if outcome.code != 0:
            raise EnvFailed(
                environment.name, "build", f"`uv {args[0]}` failed with exit code {outcome.code}", "an installation",
                f"read uv's last lines below; then {fix}", tail=outcome.said,
            )  # fmt: skip
        return outcome

    def _check(self, environment: Environment, directory: Path, folder: Path) -> None:
        """Say where a checkout wants other libraries than the lock has; what it computes is seen all the same."""
        outcome = self._uv(["pip", "check", "--python", str(_python(directory))], folder)
        for line in outcome.stderr.splitlines() if outcome.code else []:
            if line.startswith("The package"):
                self._log(f"{environment.name}: {line}")

    def _share_byte_code(self, environment: Environment, directory: Path) -> None:
        """Spare the first import most of its compiling, where another environment has the same packages."""
        identity = self._base(environment).identity
        stamps = ((path.parent, read_stamp(path.parent)) for path in sorted(self.root.glob(f"*/{STAMP}")))
        alike = [
            (path, stamp["versions"])
            for path, stamp in stamps
            if stamp and _identity(stamp["python_version"]) == identity
        ]
        if donor := byte_code.most_alike(environment.versions, alike):
            byte_code.share(donor, directory)

    def _probe(self, environment: Environment, directory: Path) -> Facts:
        imports = [package for package in _PROBED if package in environment.versions and environment.tried_first]
        if imports:
            self._log(f"importing {', '.join(imports)} in {environment.name}")
        return facts(environment.name, _python(directory), imports)

    def _base(self, environment: Environment) -> Base:
        if environment.python not in self._bases:
            self._bases[environment.python] = self._find(environment)
        return self._bases[environment.python]

    def _find(self, environment: Environment) -> Base:
        """The interpreter that runs us where its version is the one wanted, else what uv finds; none is downloaded."""
        if platform.python_version().startswith(f"{environment.python}."):
            running = str(getattr(sys, "_base_executable", None) or sys.executable)
            return Base(Path(running), _identity(platform.python_version()))
        self.root.mkdir(parents=True, exist_ok=True)
        outcome = self._uv(["python", "find", "--no-project", "--system", environment.python], self.root)
        if outcome.code != 0:
            raise EnvFailed(
                environment.name, "build", f"no Python {environment.python} on this machine", "one that uv finds",
                f"install it, for example with: uv python install {environment.python}", tail=outcome.said,
            )  # fmt: skip
        python = Path(outcome.stdout.strip())
        return Base(python, _identity(facts(environment.name, python).python_version))


_ELSEWHERE = "make room or rights there, or put the cache elsewhere with PEFT_REGRESS_CACHE"


def _identity(python_version: str) -> str:
    return f"{python_version} {sys.implementation.name} {sysconfig.get_platform()}"


def _python(directory: Path) -> Path:
    return directory / "bin" / "python"


def _copied(overlay: Overlay, folder: Path, name: str) -> str:
    """A copy of the tree to build from, since builds leave files behind; the checkout stays as it is.

    Of an unpacked wheel a wheel: there is nothing to build.
    """
    copy = folder / "tree"
    if source_tree.copy(overlay.tree, copy) != overlay.digest:
        raise EnvFailed(name, "build", f"{overlay.source} changed meanwhile", "a tree at rest", "run it again")
    return str(unpacked_wheel.pack(copy, folder) if source_tree.is_wheel(copy) else copy)


@contextlib.contextmanager
def locked(directory: Path, log: Log) -> Iterator[None]:
    """Hold a directory's lock; say so where it has to be waited for."""
    lock = filelock.FileLock(lock_path(directory))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        log(f"waiting for another process that builds {directory.name}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def lock_path(directory: Path) -> Path:
    """The file whose lock a builder of this directory holds. Never deleted: another process may be waiting on it."""
    return directory.with_name(f".{directory.name}.lock")


def read_stamp(directory: Path) -> dict[str, Any] | None:
    """What was noted of a built environment; None for a half-built one or none."""
    try:
        stamp = json.loads((directory / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stamp if isinstance(stamp, dict) and {"versions", "python_version", "lock_digest"} <= stamp.keys() else None


def _write_stamp(environment: Environment, directory: Path, found: Facts, seconds: float) -> None:
    overlay = environment.overlay
    stamp = {
        "name": environment.name, "spec": environment.spec, "kind": environment.kind,
        "lock_digest": environment.lock_digest, "python_version": found.python_version, "versions": found.versions,
        "tree": {"path": str(overlay.tree), "digest": overlay.digest, "source": overlay.source} if overlay else None,
        "build_seconds": round(seconds, 2),
    }  # fmt: skip
    temporary = directory / f"{STAMP}.part"
    temporary.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
    temporary.replace(directory / STAMP)


def remove(directory: Path) -> None:
    """Delete an environment: the stamp first, so that what stays of it after an interruption is not used."""
    (directory / STAMP).unlink(missing_ok=True)
    shutil.rmtree(directory, ignore_errors=True)
