"""What an interpreter is: its version, its packages, and whether the libraries can be imported."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.envs.environment import EnvFailed
from harness.worker.files import parse_json

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
_PROBE_LIMIT_S = 600
_FACTS = """
import importlib.metadata, json, platform, re, sys
for name in sys.argv[1:]:
    __import__(name)  # adds fewer lines to a traceback than import_module
versions = {}
for found in importlib.metadata.distributions():
    if found.metadata["Name"]:
        versions.setdefault(re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower(), found.version)
print("\\n" + json.dumps({"python_version": platform.python_version(), "versions": versions}))
"""


@dataclass(frozen=True)
class Facts:
    """Version and packages of an interpreter."""

    python_version: str
    versions: dict[str, str]


def facts(name: str, python: Path, imports: Sequence[str] = (), *, isolated: bool = True) -> Facts:
    """The packages of an interpreter, after importing some of them.

    Args:
        imports: modules to import first, without `PYTHONDONTWRITEBYTECODE`: this import writes the byte code, which
            halves the time of all later ones.
        isolated: ignore the user's `PYTHON*` variables and site folder.

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
        raise EnvFailed(name, "import", f"{python} does not run: {error}", "a Python", "check the path") from error
    if done.returncode != 0:
        what = f"import {', '.join(imports)}" if imports else "listing its packages"
        raise EnvFailed(
            name, "import", f"{what} failed with exit code {done.returncode}", "libraries that can be imported",
            "read the last lines below; if these versions are not compatible, pin others", tail=done.stderr,
        )  # fmt: skip
    try:
        return Facts(**parse_json(done.stdout.rstrip().rpartition("\n")[2]))
    except (ValueError, TypeError) as error:
        raise EnvFailed(
            name, "import", f"{python} does not list its packages", "a Python that runs `-c CODE`",
            "check that it is a Python, and that its start-up files neither end it nor print when it ends",
            tail=done.stdout + done.stderr,
        ) from error  # fmt: skip
