#!/usr/bin/env python3
"""Runs a tox environment on a machine that has nothing but Python 3.11: `python3.11 run.py regress-v061`.

Puts tox into `.venv` beside this file first, where it is missing: a Python that its system manages is left alone.
Further arguments go to the environment's command: `python3.11 run.py regress-v061 -k lokr -v`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENT = HERE / ".venv"
PYTHON = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def main() -> int:
    """Install tox if need be, and hand over to it."""
    if sys.version_info < (3, 11):
        found = sys.version.split()[0]
        print(f"peft-regress: this is Python {found}\n  expected: 3.11 or newer\n  next: run it with python3.11")
        return 64
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(f"{__doc__}\nwhat there is: `python3.11 run.py list`")
        return 0 if len(sys.argv) > 1 else 64
    if not _has_tox():
        _install_tox()
    tox = [str(PYTHON), "-m", "tox"]
    if sys.argv[1] == "list":
        return subprocess.call([*tox, "list"], cwd=HERE)
    return subprocess.call([*tox, "-q", "-e", sys.argv[1], "--", *sys.argv[2:]], cwd=HERE)


def _has_tox() -> bool:
    return PYTHON.exists() and subprocess.call([str(PYTHON), "-c", "import tox"], stderr=subprocess.DEVNULL) == 0


def _install_tox() -> None:
    print("peft-regress: putting tox into .venv", file=sys.stderr)
    quiet = ["install", "-q", "--disable-pip-version-check", "tox>=4.11"]
    try:
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        subprocess.check_call([str(PYTHON), "-m", "pip", *quiet])
    except (subprocess.CalledProcessError, OSError):
        # Debian's Python comes without ensurepip; its own pip can install into the environment all the same
        venv.create(ENVIRONMENT, with_pip=False, clear=True)
        subprocess.check_call([sys.executable, "-m", "pip", "--python", str(PYTHON), *quiet])


if __name__ == "__main__":
    sys.exit(main())
