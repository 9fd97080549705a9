"""What an interpreter is: its version, its packages, and whether the libraries can be imported."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pydantic
from packaging.version import Version

from harness.core.versions import version_of
from harness.envs.environment import EnvFailed
from harness.worker.files import parse_json
from harness.worker.process import signal_name

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
_PROBE_LIMIT_S = 600
_OLDEST = Version("3.8")
"""The worker's syntax. The program below also runs under older ones, so that they can be named."""
_FACTS = """
import json, platform, re, sys
for name in sys.argv[1:]:
    __import__(name)  # adds fewer lines to a traceback than import_module
versions = {}
if sys.version_info >= (3, 8):
    import importlib.metadata
    for found in importlib.metadata.distributions():
        if found.metadata["Name"] and found.version:
            versions.setdefault(re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower(), found.version)
print("\\n" + json.dumps({"python_version": platform.python_version(), "versions": versions}))
"""


@dataclass(frozen=True)
class Facts:
    """Version and packages of an interpreter."""

    python_version: str
    versions: dict[str, str]


_READER = pydantic.TypeAdapter(Facts)


def facts(name: str, python: Path, imports: Sequence[str] = (), *, isolated: bool = True) -> Facts:
    """The packages of an interpreter, after importing some of them.

    Args:
        imports: modules to import first, without `PYTHONDONTWRITEBYTECODE`: this import writes the byte code, which
            halves the time of all later ones.
        isolated: ignore the user's `PYTHON*` variables and site folder.

    Raises:
        EnvFailed: it does not run, is too old, prints something else, or one of the imports fails.
    """
    command = [str(python), *(["-I"] if isolated else []), "-c", _FACTS, *imports]
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"} | _OFFLINE
    try:
        done = subprocess.run(
            command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=_PROBE_LIMIT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvFailed(name, "import", f"{python} does not run: {error}", "a Python", "check the path") from error
    ended = f"exit code {done.returncode}" if done.returncode >= 0 else signal_name(-done.returncode)
    if imports and done.returncode != 0:
        raise EnvFailed(
            name, "import", f"import {', '.join(imports)} failed with {ended}", "libraries that can be imported",
            "read the last lines below; if these versions are not compatible, pin others", tail=done.stderr,
        )  # fmt: skip
    found = _listed(done.stdout, silent=not isolated) if done.returncode == 0 else None
    if found is None:
        raise EnvFailed(
            name, "import", f"{python} does not list its packages, and nothing else ({ended})",
            "a Python that runs `-c CODE`",
            "check that it is a Python, and that its start-up files (sitecustomize, *.pth) neither end it nor print",
            tail=done.stdout + done.stderr,
        )  # fmt: skip
    if Version(found.python_version) < _OLDEST:
        raise EnvFailed(
            name, "import", f"{python} is Python {found.python_version}", f"Python {_OLDEST} or later",
            "name the interpreter of another environment",
        )  # fmt: skip
    return found


def _listed(stdout: str, *, silent: bool) -> Facts | None:
    """What the program printed; None where that is something else.

    Args:
        silent: anything else before it counts too: it would be in the way of each reply of a worker.
    """
    before, _, last = stdout.rstrip().rpartition("\n")
    try:
        found = _READER.validate_python(parse_json(last))
    except ValueError:
        return None
    return None if (silent and before.strip()) or version_of(found.python_version) is None else found
