"""Wheelhouses: an environment's wheels in a folder, from which a machine without network builds it.

    FOLDER/*.whl
    FOLDER/requirements.txt     each wheel's version and SHA-256, for pip and uv; comments name the environment

pip fetches the wheels. uv, or pip alone, checks and installs them; `usage` says how.
"""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import parse_wheel_filename

from harness.core.errors import HarnessError, UsageError
from harness.core.files import must_be_new, new_folder, read_text
from harness.core.progress import Log
from harness.envs import installers
from harness.envs.environment import EnvFailed, Environment
from harness.envs.installers import RunPip

REQUIREMENTS = "requirements.txt"
_HEADER = re.compile(r"^# (environment|python|lock): (\S+)$", re.MULTILINE)
_PIN = re.compile(r"^(?P<package>[A-Za-z0-9-]+)==(?P<version>[^ ]+) --hash=sha256:[0-9a-f]{64}$", re.MULTILINE)


@dataclass(frozen=True)
class Wheelhouse:
    """What `requirements.txt` says."""

    folder: Path
    name: str
    """The environment's spec: a declared name, or pins."""
    python: str
    lock_digest: str
    versions: Mapping[str, str]
    """Package → version, with its local part: `2.13.0+cpu`."""

    def environment(self) -> Environment:
        """The environment as it was packed, for machines that do not declare it."""
        versions = {package: version.partition("+")[0] for package, version in self.versions.items()}
        return Environment(self.name, self.name, "named", self.lock_digest, "", self.python, versions)


def read(folder: Path) -> Wheelhouse:
    """A wheelhouse.

    Raises:
        UsageError: the folder is none.
    """
    path = folder / REQUIREMENTS
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise _not_one(folder, str(error)) from error
    header = dict(_HEADER.findall(text))
    if missing := {"environment", "python", "lock"} - header.keys():
        raise _not_one(folder, f"{REQUIREMENTS} has no line `# {min(missing)}: …`")
    versions = {match["package"]: match["version"] for match in _PIN.finditer(text)}
    return Wheelhouse(folder, header["environment"], header["python"], header["lock"], versions)


def _not_one(folder: Path, why: str) -> UsageError:
    return UsageError(
        f"{folder} is not a wheelhouse: {why}", f"a folder that `env pack` of this version wrote, with {REQUIREMENTS}",
        "pack it again: `peft-regress env pack NAME`",
    )  # fmt: skip


def must_fit(house: Wheelhouse, environment: Environment) -> None:
    """Refuse a wheelhouse that was packed for another lock, or that lacks some of its packages.

    Raises:
        EnvFailed: it does not fit; names packages that differ.
    """
    packed = house.environment().versions
    differing = [
        f"{name} {packed.get(name, '(none)')} packed, {version} locked"
        for name, version in sorted(environment.versions.items())
        if packed.get(name) != version
    ]
    if house.lock_digest == environment.lock_digest and not differing:
        return
    shown = "; ".join(differing[:3]) or "it holds other packages"
    more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
    raise EnvFailed(
        environment.name, "build", f"{house.folder} does not match the lock: {shown}{more}",
        f"a wheelhouse of {environment.name} as it is locked here",
        f"pack it again on a machine with a network: `peft-regress env pack {environment.spec}`",
    )  # fmt: skip


def pack(
    environment: Environment,
    target: Path,
    log: Log,
    *,
    platforms: Sequence[str] = (),
    torch_build: str = "",
    pip: RunPip = installers.run_pip,
) -> Wheelhouse:
    """Download all wheels of an environment into `target`.

    Args:
        platforms: tags of the other machine (`manylinux_2_28_x86_64`); default: this machine's.
        torch_build: local version of Torch's build (`cpu`, `cu126`); default: the index's first.

    Raises:
        UsageError: the target is in use, or the environment has no lock.
        EnvFailed: a wheel is not available; pip's last lines say why.
        HarnessError: the target can't be written.
    """
    if environment.interpreter is not None or environment.overlay is not None:
        raise UsageError(
            f"{environment.spec!r} has no lock of its own", "a declared environment, or pins (peft==0.9.0)",
            "pack the environment below it (`current`), and copy interpreter or checkout separately",
        )  # fmt: skip
    if environment.consumer is not None and environment.consumer.extract:
        raise UsageError(
            f"{environment.spec!r} needs files out of the sdist of {environment.consumer.package}",
            "an environment that is installed from wheels alone, which are all that a wheelhouse has",
            f"build it where there is a network: `peft-regress env build {environment.spec}`",
        )  # fmt: skip
    must_be_new(target)
    try:
        with new_folder(target) as folder:
            _fetch(environment, folder, _requirements(environment, torch_build), platforms, pip, log)
            (folder / REQUIREMENTS).write_text(_pinned(environment, folder), encoding="utf-8")
            must_fit(read(folder), environment)
    except OSError as error:
        raise HarnessError(
            f"cannot write {target}: {error}", "a folder with write access on a disk with free space",
            "free some space, or name another folder with --to",
        ) from error  # fmt: skip
    house = read(target)
    size = sum(path.stat().st_size for path in target.glob("*.whl"))
    log(f"packed {environment.name}: {len(house.versions)} wheels, {size / 1e6:.1f} MB")
    return house


def _requirements(environment: Environment, torch_build: str) -> list[str]:
    lines = environment.requirement_lines()
    if not torch_build:
        return lines
    if "torch" not in environment.versions:
        raise UsageError(f"{environment.name} has no Torch", "an environment with Torch", "omit --torch-build")
    return [f"{line}+{torch_build}" if line.startswith("torch==") else line for line in lines]


def _fetch(
    environment: Environment, folder: Path, lines: Sequence[str], platforms: Sequence[str], pip: RunPip, log: Log
) -> None:
    lock = folder / "lock.txt"
    lock.write_text("\n".join(lines) + "\n", encoding="utf-8")
    log(f"packing {environment.name}: {len(lines)} packages")
    fetch = _arguments(environment, platforms)
    runs = [[*fetch, "--no-deps", "-r", lock.name]]
    # The lock fits every machine, so it holds nothing that only one build of Torch needs (CUDA libraries).
    runs += [[*fetch, "--constraint", lock.name, line] for line in lines if line.startswith("torch==")]
    for arguments in runs:
        outcome = pip(arguments, folder, log)
        if outcome.code != 0:
            raise EnvFailed(
                environment.name, "build", f"`pip {arguments[0]}` failed with exit code {outcome.code}",
                "a wheel of every package of the lock",
                "read pip's last lines below; then fix pip's index configuration, --platform or --torch-build",
                tail=outcome.said,
            )  # fmt: skip
    lock.unlink()


def _arguments(environment: Environment, platforms: Sequence[str]) -> list[str]:
    """pip's arguments. For this machine `pip wheel`, which also builds what is published as source only."""
    if not platforms and platform.python_version().startswith(f"{environment.python}."):
        return ["wheel", "--wheel-dir", "."]
    tags = ["--python-version", environment.python, "--implementation", "cp"]
    for abi in (f"cp{environment.python.replace('.', '')}", "abi3", "none"):
        tags += ["--abi", abi]
    for tag in platforms:
        tags += ["--platform", tag]
    return ["download", "--dest", ".", "--only-binary", ":all:", *tags]


def _pinned(environment: Environment, folder: Path) -> str:
    lines = [
        "# Written by `peft-regress env pack`. Install with pip install --no-index --no-deps --require-hashes",
        f"# environment: {environment.spec}", f"# python: {environment.python}", f"# lock: {environment.lock_digest}",
    ]  # fmt: skip
    for path in sorted(folder.glob("*.whl")):
        package, version, _, _ = parse_wheel_filename(path.name)
        with path.open("rb") as file:
            lines.append(f"{package}=={version} --hash=sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}")
    return "\n".join(lines) + "\n"


def install_arguments(folder: Path) -> list[str]:
    """Arguments of `uv pip install` and `pip install`: these wheels and nothing else, each checked."""
    found = ["--no-index", "--no-deps", "--find-links", str(folder)]
    return [*found, "--require-hashes", "-r", str(folder / REQUIREMENTS)]


def usage(house: Wheelhouse) -> list[str]:
    """How the other machine uses it: with peft-regress, and with Python alone."""
    folder = house.folder.name
    pip = " ".join(["VENV/bin/python -m pip install", *install_arguments(Path(folder))])
    return [f"there, with peft-regress: peft-regress env build {house.name} --wheelhouse {folder}",
            f"there, with Python alone: python{house.python} -m venv VENV && {pip}",
            "   (then python:VENV/bin/python is a loader)"]  # fmt: skip
