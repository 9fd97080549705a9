"""Runs the two scripts in their environments, and decides whether they show the deviation."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from harness.core.scratch import scratch_folder
from harness.deviation.repro import scripts
from harness.deviation.repro.aspects import Aspect
from harness.deviation.repro.readme import Ran
from harness.judge import causes

LIMIT_S = 600.0
_SHOWN = 8
"""Lines of an error that a README quotes."""


def run(pythons: tuple[Path | None, Path | None], folder: Path, aspect: Aspect, device: str) -> Ran:
    """Run `before.py` and `after.py` in a copy of the folder.

    Args:
        pythons: the interpreters; None for an environment that is not available.
    """
    before, after = pythons
    if before is None or after is None:
        return Ran(False, why_not="the scripts were not run, because an environment is not available here")
    with scratch_folder() as scratch:
        place = scratch / "repro"
        shutil.copytree(folder, place)
        environ = _environ(device)
        code_before, out_before, error_before = _script(before, "before.py", place, environ)
        if code_before != 0:
            why = f"before.py itself fails ({causes.last_line(error_before)})"
            return Ran(False, out_before + error_before, "", code_before, 0, why)
        code, out, error = _script(after, "after.py", place, environ)
    why = why_not(aspect, code, out, error)
    shown = error if code not in (0, 1) or scripts.DEVIATES not in out else ""
    return Ran(not why, out_before, out + _last(shown), code_before, code, why)


def why_not(aspect: Aspect, code: int, out: str, error: str) -> str:
    """Why the result of `after.py` does not show the deviation; empty if it does."""
    if aspect.dies:
        return "" if code < 0 or code >= 128 else f"after.py ends with exit code {code}"
    if aspect.raises:
        name = aspect.raises.rpartition(".")[2]
        if code != 0 and re.search(rf"^(?:\w+\.)*{re.escape(name)}(?::|$)", error, re.MULTILINE):
            return ""  # the message may have further lines
        return f"after.py does not raise {name} but ends with exit code {code} ({causes.last_line(error) or 'silent'})"
    if code == 1 and scripts.DEVIATES in out:
        return ""
    return f"after.py ends with exit code {code} ({causes.last_line(error if code else out)})"


def _environ(device: str) -> Mapping[str, str]:
    """The user's own variables, without network access. Numerics are not pinned, as they are not for users."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}
    return {**kept, **offline, **({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})}


def _script(python: Path, name: str, place: Path, environ: Mapping[str, str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a script."""
    try:
        done = subprocess.run(
            [str(python), name], cwd=place, env=dict(environ), stdin=subprocess.DEVNULL, capture_output=True,
            timeout=LIMIT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return 137, "", f"{name} did not end within {LIMIT_S:.0f} s"
    return done.returncode, _plain(done.stdout, place), _plain(done.stderr, place)


def _plain(output: bytes, place: Path) -> str:
    """Output without this machine's paths and without progress bars."""
    text = output.decode("utf-8", "replace").replace(str(place.resolve()) + os.sep, "").replace(str(place) + os.sep, "")
    text = re.sub(r"\r[^\n]*\r", "", text)
    return re.sub(r"(?:/[\w.@+~-]+)+/(?=site-packages/|python3\.\d+/)", "…/", text)


def _last(error: str) -> str:
    return "\n".join(error.rstrip().splitlines()[-_SHOWN:]) + "\n" if error.strip() else ""
