"""Builds environments with uv, once each, in the cache. A stamp is written last: a build without one is incomplete."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from harness.core import toml_files
from harness.core.errors import UsageError
from harness.core.lock import file_lock
from harness.core.progress import Log
from harness.core.text import many, one_line
from harness.envs import byte_code, installed, layer, sdist, source_tree, unpacked_wheel, wheelhouse
from harness.envs.environment import BuiltEnvironment, EnvFailed, Environment, Overlay
from harness.envs.facts import Facts, facts
from harness.envs.installers import Outcome, RunUv
from harness.worker import in_use
from harness.worker.files import read_json
from harness.worker.process import signal_name

STAMP = in_use.STAMP
_LOOK_S = 0.5
"""How often who waits for a build looks whether it is there."""
_PROBED = ("torch", "transformers", "peft", "accelerate")


@dataclass(frozen=True)
class Base:
    """The interpreter that virtual environments are created from."""

    python: Path
    identity: str
    """Version, implementation and platform. A build fits only interpreters with the same."""


class Builder:
    """Builds in a folder of the cache: a directory for each name and content.

    Args:
        root: the folder.
        uv: runs uv.
        log: gets a line for each step.
        download: gets a package's sdist, for consumers that are not installed.
    """

    def __init__(self, root: Path, uv: RunUv, log: Log, download: sdist.Download) -> None:
        self.root = root
        self._download = download
        self._uv = uv
        self._log = log
        self._bases: dict[str, Base] = {}

    def directory(self, environment: Environment) -> Path:
        """The build's directory, whether it exists or not. Its name holds a digest of what decides the content."""
        decides = f"{environment.lock_digest}\n{self._base(environment).identity}"
        return self.root / f"{environment.name}-{hashlib.sha256(decides.encode()).hexdigest()[:12]}"

    def built(self, environment: Environment) -> BuiltEnvironment | None:
        """The environment if it is built and its interpreter still exists, else None."""
        directory = self.directory(environment)
        stamp = read_stamp(directory)
        if stamp is None or not _python(directory).exists():
            return None
        if (base := _below(environment)) and self.built(base) is None:  # the packages are links to it
            return None
        return BuiltEnvironment(
            environment.name, environment.spec, environment.kind, _python(directory), environment.lock_digest,
            {**_extracted(environment), **stamp["versions"]}, stamp["python_version"], untouched=False,
            consumer=environment.consumer,
        )  # fmt: skip

    def build(self, environment: Environment, wheels: Path | None = None) -> BuiltEnvironment:
        """Build the environment if it is not built. Nobody deletes it while this process and its workers run.

        Args:
            wheels: install from this wheelhouse, without network; default: the lock's packages from the index.

        Raises:
            EnvFailed: uv fails, the disk is full, the libraries cannot be imported, or a file changed since the build.
                Incomplete builds are deleted.
        """
        if base := _below(environment):
            self.build(base)
        directory, waits = self.directory(environment), False
        while (ready := self._held(environment, directory)) is None:
            in_use.release(str(directory))
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                with file_lock(in_use.lock_path(str(directory)), timeout=_LOOK_S if waits else 0):
                    if self.built(environment) is None:  # else another process built it meanwhile
                        self._make(environment, directory, wheels)
            except filelock.Timeout:
                # Look again now and then: who has built it uses it next, and never gives its lock away.
                if not waits:
                    self._log(f"waiting for another process that builds or uses {directory.name}")
                waits = True
            except OSError as error:
                raise EnvFailed(
                    environment.name, "build", f"{error}", "a cache with write access", _ELSEWHERE
                ) from error
        self._must_be_unchanged(environment, directory)
        return ready

    def _held(self, environment: Environment, directory: Path) -> BuiltEnvironment | None:
        """The environment if it is built and nobody is deleting it; from now on nobody may."""
        if self.built(environment) is None:
            return None
        how = in_use.hold(str(directory))
        if how == in_use.MARKER:
            self._log(f"no locks on the file system of {self.root}: a file beside {directory.name} names this process")
        return None if how == in_use.BUSY else self.built(environment)

    def _must_be_unchanged(self, environment: Environment, directory: Path) -> None:
        changed = installed.changes(directory)
        if changed is None:
            self._log(f"checking the files of {environment.name}: an earlier version built it and kept no list of them")
            changed = list(installed.verify(directory, environment.spec).differences)
        if changed:
            raise changed_since(environment.name, environment.spec, changed)

    def _make(self, environment: Environment, directory: Path, wheels: Path | None) -> None:
        started = time.monotonic()
        remove(directory)  # an incomplete build, or its interpreter is gone
        base, overlay = _below(environment), environment.overlay
        from_lock = "" if base else many(len(environment.locked()), "package")
        from_tree = f"{overlay.package} from {overlay.source}" if overlay else ""
        self._log(f"building {environment.name}: {' and '.join(filter(None, [from_lock, from_tree]))}")
        try:
            self._fill(environment, directory, wheels)
            self._extract(environment, directory)
            if base is None:
                self._share_byte_code(environment, directory)
            found = self._checked(environment, directory, wheels)
            installed.write_snapshot(directory)
            below = self.directory(base) if base else None
            _write_stamp(environment, directory, found, time.monotonic() - started, below)
        except BaseException:  # Ctrl-C too. Without a stamp, remains are deleted next time
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
            if (below := _below(environment)) is not None:
                self._lay_over(below, environment, directory, folder)
                return
            (folder / "lock.txt").write_text("\n".join(environment.requirement_lines()) + "\n", encoding="utf-8")
            if environment.locked():
                self._run(environment, [*install, "-r", "lock.txt"], folder)
            if torch := environment.locked().get("torch"):
                # A lock fits every machine. So it has no packages that only this index's build of Torch needs (CUDA
                # libraries, for example); they are added here.
                self._run(environment, [*into, "--constraint", "lock.txt", f"torch=={torch}"], folder)
            if environment.overlay is not None:
                self._run(environment, [*install, self._copied(environment.overlay, folder, environment.name)], folder)
                self._check(environment, directory, folder)

    def _extract(self, environment: Environment, directory: Path) -> None:
        """Put files of an sdist that is not installed into the environment."""
        for package, version in _extracted(environment).items():
            assert environment.consumer is not None
            globs, digest = environment.consumer.extract, environment.consumer.sdist
            target = directory / sdist.FOLDER
            sdist.extract(environment.name, package, version, digest, globs, self._download, target)

    def _lay_over(self, base: Environment, environment: Environment, directory: Path, folder: Path) -> None:
        """Install the package of a source tree, and link all others of a built environment."""
        assert environment.overlay is not None
        # its files are copies: they are no one else's, so their times can be set
        install = ["pip", "install", "--no-deps", "--link-mode", "copy", "--python", str(_python(directory))]
        self._run(environment, [*install, self._copied(environment.overlay, folder, environment.name)], folder)
        layer.lay_under(self.directory(base), directory, environment.overlay.package)
        self._check(environment, directory, folder)

    def _copied(self, overlay: Overlay, folder: Path, name: str) -> str:
        """A copy of the tree, because builds leave files behind. An unpacked wheel is packed instead of built."""
        copy = folder / "tree"
        if source_tree.copy(overlay.tree, copy, overlay.files) != overlay.digest:
            found = f"{overlay.source} changed during the build"
            raise EnvFailed(name, "build", found, "a tree that does not change", "run it again")
        if source_tree.is_wheel(copy):
            return str(unpacked_wheel.pack(copy, folder))
        self._log(f"building {overlay.source} runs its build backend, {_backend(copy)}")
        return str(copy)

    def _run(
        self, environment: Environment, args: list[str], folder: Path, fix: str = "fix the lock or pip's index"
    ) -> Outcome:
        outcome = self._uv(args, folder)
        if outcome.code != 0:
            raise EnvFailed(
                environment.name, "build", f"`uv {args[0]}` {_ending(outcome.code)}", "an installation",
                f"read uv's last lines below; then {fix}" if outcome.code > 0 else "run it again with more memory free",
                tail=outcome.said,
            )  # fmt: skip
        return outcome

    def _checked(self, environment: Environment, directory: Path, wheels: Path | None) -> Facts:
        """Check the files and the imports at the same time: the imports compile, which leaves the other cores idle.

        A copy of a file has the file's time, so byte code that is written meanwhile stays valid.
        """
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="imports") as executor:
            probed = executor.submit(self._probe, environment, directory)
            self._settle(environment, directory, wheels)  # its error counts: a damaged file may also fail to import
            return probed.result()

    def _settle(self, environment: Environment, directory: Path, wheels: Path | None) -> None:
        """Give the environment files of its own, and compare them with what its wheels say."""
        if differing := installed.settle(directory):
            package = next((one.package.partition(" ")[0] for one in differing if one.package), "")
            cache = os.environ.get("UV_CACHE_DIR") or self.root.parent / "uv"
            clean = f"python -m uv cache clean {package} --cache-dir {shlex.quote(str(cache))}"
            again = f"{clean}; then build it again. If that fails too, the wheel is damaged"
            raise EnvFailed(
                environment.name, "build", installed.shown(differing), "the files that the RECORD of each wheel lists",
                "pack the wheelhouse again" if wheels else again,
            )  # fmt: skip

    def _check(self, environment: Environment, directory: Path, folder: Path) -> None:
        """Log where a checkout requires other libraries than the lock has. It is checked all the same."""
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
        """The running interpreter if it has this version, else the one that uv finds. None is downloaded."""
        if platform.python_version().startswith(f"{environment.python}."):
            running = str(getattr(sys, "_base_executable", None) or sys.executable)
            return Base(Path(running), _identity(platform.python_version()))
        self.root.mkdir(parents=True, exist_ok=True)
        outcome = self._uv(["python", "find", "--no-project", "--system", environment.python], self.root)
        if outcome.code != 0:
            raise EnvFailed(
                environment.name, "build", f"no Python {environment.python} on this machine", "a Python that uv finds",
                f"install it, for example with: uv python install {environment.python}", tail=outcome.said,
            )  # fmt: skip
        python = Path(outcome.stdout.strip())
        return Base(python, _identity(facts(environment.name, python).python_version))


_ELSEWHERE = "free some space or fix the permissions, or set PEFT_REGRESS_CACHE to another folder"


def _extracted(environment: Environment) -> dict[str, str]:
    """The package of which files are extracted, with its version; empty if there is none."""
    consumer = environment.consumer
    return {consumer.package: environment.versions[consumer.package]} if consumer and consumer.extract else {}


def _below(environment: Environment) -> Environment | None:
    """The environment whose packages are linked; None if all are installed."""
    return environment.overlay.base if environment.overlay else None


def changed_since(name: str, spec: str, changed: Sequence[installed.Difference]) -> EnvFailed:
    """The error for a build whose files are not as they were installed."""
    return EnvFailed(
        name, "changed", f"{many(len(changed), 'file')} changed after the build: {installed.shown(changed)}",
        "an environment as it was built", f"rebuild it with: peft-regress env build --rebuild {shlex.quote(spec)}",
    )  # fmt: skip


def _backend(tree: Path) -> str:
    try:
        system = toml_files.read(tree / "pyproject.toml").get("build-system", {})
        return one_line(str(system["build-backend"]))
    except (UsageError, KeyError, AttributeError, TypeError):
        return "setuptools and its setup.py" if (tree / "setup.py").exists() else "setuptools"


def _ending(code: int) -> str:
    return f"failed with exit code {code}" if code > 0 else f"was killed by {signal_name(-code)}"


def _identity(python_version: str) -> str:
    return f"{python_version} {sys.implementation.name} {sysconfig.get_platform()}"


def _python(directory: Path) -> Path:
    return directory / "bin" / "python"


def read_stamp(directory: Path) -> dict[str, Any] | None:
    """The stamp of a build; None if there is no build or it is incomplete."""
    try:
        stamp = read_json(directory / STAMP, links=True)
    except (OSError, ValueError):
        return None
    return stamp if isinstance(stamp, dict) and {"versions", "python_version", "lock_digest"} <= stamp.keys() else None


def _write_stamp(environment: Environment, directory: Path, found: Facts, seconds: float, below: Path | None) -> None:
    overlay = environment.overlay
    stamp = {
        "name": environment.name, "spec": environment.spec, "kind": environment.kind,
        "lock_digest": environment.lock_digest, "python_version": found.python_version, "versions": found.versions,
        "tree": {"path": str(overlay.tree), "digest": overlay.digest, "source": overlay.source} if overlay else None,
        in_use.BELOW: str(below or ""), "build_seconds": round(seconds, 2),
    }  # fmt: skip
    temporary = directory / f"{STAMP}.part"
    temporary.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
    temporary.replace(directory / STAMP)


def remove(directory: Path) -> None:
    """Delete a build, the stamp first: after an interruption the rest counts as incomplete."""
    for path in (directory / STAMP, installed.snapshot(directory)):
        path.unlink(missing_ok=True)
    shutil.rmtree(directory, ignore_errors=True)
