"""Runs uv. The one seam to it: tests replace `Uv` by a function of the same signature."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import uv

from harness.envs import pip_config
from harness.envs.environment import EnvFailed
from harness.envs.pip_config import UvSettings


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        return f"{self.stdout}\n{self.stderr}"


RunUv = Callable[[Sequence[str], Path], Outcome]
"""Runs uv with these arguments in this folder."""

_MISLEADING = frozenset(
    # What would make uv resolve something else, or install somewhere else, than a declaration says.
    {
        "UV_EXCLUDE_NEWER", "UV_CONSTRAINT", "UV_OVERRIDE", "UV_EXCLUDE", "UV_BUILD_CONSTRAINT", "UV_PRERELEASE",
        "UV_RESOLUTION", "UV_FORK_STRATEGY", "UV_TORCH_BACKEND", "UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_PROJECT",
        "UV_WORKING_DIR", "UV_PROJECT_ENVIRONMENT", "UV_VENV_SEED", "UV_VENV_RELOCATABLE", "UV_REQUIRE_HASHES",
        "UV_COMPILE_BYTECODE", "UV_NO_BINARY", "UV_NO_BUILD", "UV_ENV_FILE", "UV_PYTHON_DOWNLOADS",
        "UV_MANAGED_PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP",
    }
)  # fmt: skip


class Uv:
    """uv with pip's configuration. pip is asked for it when uv is first needed.

    Args:
        cache: uv's cache, unless the user set `UV_CACHE_DIR`. On the environments' file system hard links work.
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
        defaults = {"UV_CACHE_DIR": str(self._cache), "UV_LINK_MODE": "hardlink"}
        given = {**self._given, **self.settings.env}
        kept = {key: value for key, value in given.items() if key not in _MISLEADING}
        return defaults | kept | {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}

    def __call__(self, args: Sequence[str], folder: Path) -> Outcome:
        """Run uv in a folder."""
        command = [_binary(), *args, *(self.settings.args if args[0] == "pip" else ())]
        done = subprocess.run(
            command, cwd=folder, env=self.environ, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        return Outcome(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def _binary() -> str:
    """The path of uv: of the Python package that we depend on, else of the search path.

    Raises:
        EnvFailed: there is none.
    """
    try:
        return str(uv.find_uv_bin())
    except FileNotFoundError:
        found = shutil.which("uv")
    if found is None:
        raise EnvFailed("(all)", "build", "uv is missing", "uv beside this package or on the PATH", "pip install uv")
    return found
