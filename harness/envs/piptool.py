"""Runs pip, which can fetch wheels without installing them (uv can't). The one seam to it, as `uvtool` is to uv.

pip reads its own configuration, so that what is packed comes from where everything else comes from.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.envs.installers import Outcome

Told = Callable[[str], None]
RunPip = Callable[[Sequence[str], Path, Told], Outcome]
"""Runs pip with these arguments in this folder, and tells each line that it says."""

_MISLEADING = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIREMENT", "PIP_CONSTRAINT", "PIP_NO_BINARY", "PIP_DEST")
"""What would have pip fetch something else, or put it somewhere else, than it is told here."""


def run(args: Sequence[str], folder: Path, told: Told) -> Outcome:
    """Run pip to its end."""
    environ = {name: value for name, value in os.environ.items() if name not in _MISLEADING}
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
                told(line.rstrip())
        except BaseException:  # Ctrl-C: whoever asked deletes the folder, and nobody may write to it any more
            process.kill()
            raise
    return Outcome(process.returncode, "".join(said), "")
