"""Makes a virtual environment of the wheels beside this file: no network, nothing but Python with its `venv` and pip.

    python3.11 install.py VENV

Each wheel's size and SHA-256 is checked first; one that is missing or damaged is named, and nothing is made.
Part of peft-regress; written by `peft-regress env pack`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main(arguments: list[str]) -> int:
    """Check, make, install; returns the exit code: 0, 2 where a wheel or pip fails, 64 for wrong use."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        return failed("install.py takes one argument", "the folder of the new environment", "install.py VENV", 64)
    house = json.loads((HERE / "wheelhouse.json").read_bytes())
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if here != house["python"]:
        return failed(f"this is Python {here}", f"Python {house['python']}", f"run it with python{house['python']}", 64)
    wrong = [f"{wheel['file']} {problem}" for wheel in house["wheels"] for problem in [problem_of(wheel)] if problem]
    if wrong:
        return failed("; ".join(wrong), "all wheels as they were packed", "copy what is named again", 2)
    target = Path(arguments[0]).absolute()
    if target.exists():
        return failed(f"{target} is there already", "a new folder", "name another", 64)
    try:
        installed(target)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)  # nothing half-made stays
        raise
    print(f"{house['name']}: {python_in(target)}")
    return 0


def problem_of(wheel: dict[str, object]) -> str:
    """What is wrong with a wheel's file; empty where it is as it was packed."""
    path = HERE / "wheels" / str(wheel["file"])
    if not path.is_file():
        return "is missing"
    whole = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            whole.update(chunk)
    same = path.stat().st_size == wheel["size"] and whole.hexdigest() == wheel["sha256"]
    return "" if same else "is cut short or altered"


def installed(target: Path) -> None:
    """The environment, with every wheel in it."""
    print(f"making {target}", file=sys.stderr)
    venv.EnvBuilder(with_pip=True, symlinks=os.name != "nt").create(target)
    command = [str(python_in(target)), "-m", "pip", "install", "--no-index", "--no-deps", "--require-hashes"]
    command += ["--find-links", str(HERE / "wheels"), "--disable-pip-version-check", "-r", "requirements.txt"]
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    subprocess.run(command, cwd=HERE, env={**quiet, "PIP_CONFIG_FILE": os.devnull}, stdout=sys.stderr, check=True)


def python_in(target: Path) -> Path:
    """The environment's interpreter."""
    return target / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def failed(found: str, expected: str, next_step: str, code: int) -> int:
    """Say what is wrong in three parts."""
    print(f"install.py: {found}\n  expected: {expected}\n  next: {next_step}", file=sys.stderr)
    return code


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except subprocess.CalledProcessError as error:
        sys.exit(failed(f"pip ended with {error.returncode}", "an installation", "read what it said above", 2))
