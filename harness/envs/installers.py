"""Runs uv and pip. The only module that does: tests replace `Uv` and `run_pip` by functions of the same signature.

uv resolves and installs. pip downloads wheels without installing them, which uv cannot do.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from harness.core.progress import Log
from harness.core.versions import version_of
from harness.envs import pip_config
from harness.envs.environment import EnvFailed
from harness.envs.pip_config import UvSettings


@dataclass(frozen=True)
class Outcome:
    """Exit code and output of a command."""

    code: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        return f"{self.stdout}\n{self.stderr}"


OLDEST_UV = Version("0.8.4")
"""As in pyproject.toml. A uv on the search path may be older."""
_INSTALL = "python -m pip install --upgrade uv"
_VERSION_TIMEOUT_S = 60.0
RunUv = Callable[[Sequence[str], Path], Outcome]
"""Runs uv with these arguments in this folder."""
RunPip = Callable[[Sequence[str], Path, Log], Outcome]
"""Runs pip with these arguments in this folder, and logs what it downloads."""

_MISLEADING = frozenset(
    # These would make uv resolve something else than the declaration, or install elsewhere.
    {
        "UV_EXCLUDE_NEWER", "UV_CONSTRAINT", "UV_OVERRIDE", "UV_EXCLUDE", "UV_BUILD_CONSTRAINT", "UV_PRERELEASE",
        "UV_RESOLUTION", "UV_FORK_STRATEGY", "UV_TORCH_BACKEND", "UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_PROJECT",
        "UV_WORKING_DIR", "UV_PROJECT_ENVIRONMENT", "UV_VENV_SEED", "UV_VENV_RELOCATABLE", "UV_REQUIRE_HASHES",
        "UV_COMPILE_BYTECODE", "UV_NO_BINARY", "UV_NO_BUILD", "UV_ENV_FILE", "UV_PYTHON_DOWNLOADS",
        "UV_MANAGED_PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP",
    }
)  # fmt: skip


_MISLEADING_PIP = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIREMENT", "PIP_CONSTRAINT", "PIP_NO_BINARY")
"""These would make pip download something else than it is asked for, or put it elsewhere."""


class Uv:
    """uv with pip's configuration. pip is asked for it when uv is first needed.

    Args:
        cache: uv's cache, unless the user set `UV_CACHE_DIR`. On the environments' file system files can be cloned or
            linked.
        environ: the user's variables.
    """

    def __init__(self, cache: Path, environ: Mapping[str, str]) -> None:
        self._cache = cache
        self._given = dict(environ)

    @functools.cached_property
    def settings(self) -> UvSettings:
        """pip's configuration as uv's settings."""
        return pip_config.read(self._given)

    @functools.cached_property
    def environ(self) -> Mapping[str, str]:
        """The variables that uv runs with."""
        # clone falls back to hard links, of which a build copies what may be edited (`installed.settle`)
        defaults = {"UV_CACHE_DIR": str(self._cache), "UV_LINK_MODE": "clone"}
        given = {**self._given, **self.settings.env}
        kept = {key: value for key, value in given.items() if key not in _MISLEADING}
        if kept.get("UV_LINK_MODE") == "symlink":  # the environment would end with the cache
            del kept["UV_LINK_MODE"]
        return defaults | kept | {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}

    def __call__(self, args: Sequence[str], folder: Path) -> Outcome:
        """Run uv in a folder."""
        command = [
            _recent(_binary()),
            *args,
            *(each for each in self.settings.args if args[0] == "pip" and each not in args),
        ]
        done = subprocess.run(
            command, cwd=folder, env=self.environ, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        return Outcome(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def _binary() -> str:
    """The path of uv: from the Python package that we depend on, else from the search path.

    Raises:
        EnvFailed: uv is not installed.
    """
    try:
        import uv  # imported here: a machine whose environments are all built does not need it

        return str(uv.find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise EnvFailed("(all)", "build", "uv is not installed", "uv beside this package or on the PATH", _INSTALL)
    return found


@functools.cache
def _recent(binary: str) -> str:
    """The same path.

    Raises:
        EnvFailed: this uv does not run, or is older than what we use of it.
    """
    try:
        command = [binary, "--version"]
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_VERSION_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvFailed("(all)", "build", f"{binary} does not run: {error}", "uv", _INSTALL) from error
    words = ended.stdout.decode(errors="replace").split()
    found = version_of(words[1]) if len(words) > 1 else None
    if found is None or found < OLDEST_UV:
        what = f"uv {found} at {binary} is too old" if found else f"{binary} does not say its version"
        raise EnvFailed("(all)", "build", what, f"uv {OLDEST_UV} or later", _INSTALL)
    return binary


def run_pip(args: Sequence[str], folder: Path, log: Log) -> Outcome:
    """Run pip in a folder. It reads its own configuration."""
    environ = {name: value for name, value in os.environ.items() if name not in _MISLEADING_PIP}
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *args]
    said: list[str] = []
    with subprocess.Popen(
        command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            for line in process.stdout:
                said.append(line)
                if line.startswith(("Collecting ", "Processing ")):
                    log(line.rstrip())
        except BaseException:  # Ctrl-C: pip must stop writing before the folder is deleted
            process.kill()
            raise
    return Outcome(process.returncode, "".join(said), "")
