"""Packs an environment: fetches all its wheels into a folder that a machine without network can build it from.

All of it or nothing: everything is made in a folder beside the target, which takes its name when it is whole.
"""

from __future__ import annotations

import platform
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from harness.core.errors import HarnessError, UsageError
from harness.envs import piptool, wheelhouse
from harness.envs.environment import EnvFailed, Environment, Log
from harness.envs.piptool import RunPip
from harness.envs.wheelhouse import Wheel, Wheelhouse

INSTALL = Path(__file__).parent / "wheelhouse_install.py"
"""What is put into each wheelhouse as `install.py`."""
_COLLECTING = re.compile(r"^(Collecting (?P<what>[^ ]+)|Processing .*?(?P<file>[^/]+\.whl))")


def pack(
    environment: Environment,
    target: Path,
    log: Log,
    *,
    platforms: Sequence[str] = (),
    torch_build: str = "",
    pip: RunPip = piptool.run,
) -> Wheelhouse:
    """Fill `target` with all wheels of an environment.

    Args:
        platforms: tags of the other machine (`manylinux_2_28_x86_64`), in place of this one's.
        torch_build: the local version of Torch's build (`cpu`, `cu126`), in place of what the index offers first.

    Raises:
        UsageError: the target is in use, or the environment is none that has a lock.
        EnvFailed: a wheel can't be had; pip's last lines say why.
    """
    if environment.interpreter is not None or environment.overlay is not None:
        raise UsageError(
            f"{environment.spec!r} has no lock of its own", "a declared environment, or pins (peft==0.9.0)",
            "pack what it is over (`current`), and carry interpreter or checkout along",
        )  # fmt: skip
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} is there already", "an empty or new folder", "name another with --to")
    with _beside(target) as folder:
        log(f"packing {environment.name}: {len(environment.versions)} packages")
        requirements = _requirements(environment, torch_build)
        (folder / "lock.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
        told = _progress(log, len(requirements))
        fetch = _fetching(environment, platforms)
        _run(environment, [*fetch, "--no-deps", "-r", "lock.txt"], folder, pip, told)
        if torch := next((line for line in requirements if line.startswith("torch==")), None):
            # what this build of Torch needs besides (CUDA libraries) is in no lock, which must fit every machine
            log("looking for what this build of Torch needs besides")
            _run(environment, [*fetch, "--constraint", "lock.txt", torch], folder, pip, _unheard)
        (folder / "lock.txt").unlink()
        made = _described(environment, folder, platforms)
        _write(made, folder)
        wheelhouse.checked(folder, environment)
    size = sum(wheel.size for wheel in made.wheels)
    log(f"packed {environment.name}: {len(made.wheels)} wheels, {size / 1e6:.1f} MB")
    return made


def _requirements(environment: Environment, torch_build: str) -> list[str]:
    lines = environment.requirement_lines()
    if not torch_build:
        return lines
    if "torch" not in environment.versions:
        raise UsageError(f"{environment.name} has no Torch", "an environment with Torch", "leave --torch-build out")
    return [f"{line}+{torch_build}" if line.startswith("torch==") else line for line in lines]


def _fetching(environment: Environment, platforms: Sequence[str]) -> list[str]:
    """pip's arguments. For this machine `wheel`, which makes one of what is published as source alone."""
    if not platforms and platform.python_version().startswith(f"{environment.python}."):
        return ["wheel", "--wheel-dir", wheelhouse.WHEELS]
    version = environment.python.replace(".", "")
    tags = ["--python-version", environment.python, "--implementation", "cp", "--abi", f"cp{version}", "--abi", "abi3"]
    tags += ["--abi", "none"]
    for tag in platforms:
        tags += ["--platform", tag]
    return ["download", "--dest", wheelhouse.WHEELS, "--only-binary", ":all:", *tags]


def _run(environment: Environment, args: list[str], folder: Path, pip: RunPip, told: Log) -> None:
    outcome = pip(args, folder, told)
    if outcome.code != 0:
        raise EnvFailed(
            environment.name, "build", f"`pip {args[0]}` fails with exit code {outcome.code}",
            "a wheel of every package of the lock",
            "read pip's last lines below; then mend the index that pip is told, --platform or --torch-build",
            tail=outcome.said,
        )  # fmt: skip


def _progress(log: Log, total: int) -> Log:
    """Turns what pip says into a line a package."""
    seen: list[str] = []

    def told(line: str) -> None:
        found = _COLLECTING.match(line)
        what = (found["what"] or found["file"]) if found else None
        if what and what not in seen:
            seen.append(what)
            log(f"[{min(len(seen), total)}/{total}] {what}")

    return told


def _unheard(_line: str) -> None:
    """Most of it has been told already."""


def _described(environment: Environment, folder: Path, platforms: Sequence[str]) -> Wheelhouse:
    wheels = sorted((_wheel(path) for path in (folder / wheelhouse.WHEELS).glob("*.whl")), key=lambda w: w.file)
    there: Mapping[str, str] = {wheel.package: wheel.version for wheel in wheels}
    wrong = [
        f"{name} {version} (found {there.get(name, 'none')})"
        for name, version in sorted(environment.versions.items())
        if there.get(name, "").partition("+")[0] != version
    ]
    if wrong or len(there) != len(wheels):
        twice = ", ".join(sorted({w.package for w in wheels if sum(o.package == w.package for o in wheels) > 1}))
        found = f"no wheel of {', '.join(wrong)}" if wrong else f"more than one wheel of {twice}"
        raise EnvFailed(environment.name, "build", found, "one wheel of every package of the lock", "pack it anew")
    return Wheelhouse(
        name=environment.name, spec=environment.spec, why=environment.why.strip(), python=environment.python,
        platforms=tuple(platforms), packed_on=f"{platform.system()} {platform.machine()}",
        lock=dict(environment.versions), lock_digest=environment.lock_digest, wheels=tuple(wheels),
    )  # fmt: skip


def _wheel(path: Path) -> Wheel:
    try:
        package, version, _, _ = parse_wheel_filename(path.name)
    except InvalidWheelFilename as error:
        raise HarnessError(f"{path.name}: {error}", "a wheel's name", "look at what pip was told to fetch") from error
    return Wheel(
        file=path.name, package=canonicalize_name(package), version=str(version), size=path.stat().st_size,
        sha256=wheelhouse.sha256_of(path),
    )  # fmt: skip


def _write(house: Wheelhouse, folder: Path) -> None:
    pinned = (f"{w.package}=={w.version} --hash=sha256:{w.sha256}\n" for w in house.wheels)
    (folder / "requirements.txt").write_text("".join(pinned), encoding="utf-8")
    (folder / "install.py").write_text(INSTALL.read_text(encoding="utf-8"), encoding="utf-8")
    text = house.model_dump_json(indent=1) + "\n"
    (folder / wheelhouse.MANIFEST).write_text(text, encoding="utf-8")


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A folder that becomes the target when all went well, and goes when something did not."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise UsageError(f"{target}: {error}", "a folder that can be written", "name another with --to") from error
    try:
        (folder / wheelhouse.WHEELS).mkdir()
        yield folder
        folder.chmod(0o755)  # mkdtemp's 0700 would lock out whoever carries it on
        if target.is_dir():
            target.rmdir()
        folder.rename(target)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise HarnessError(
                f"{target} can't be written: {error}", "a disk with room", "make some, or name another with --to"
            ) from error
        raise


def commands(house: Wheelhouse, target: Path) -> list[str]:
    """How the other machine uses it: with peft-regress, and without."""
    python = f"python{house.python}"
    own = f"{python} {target.name}/install.py VENV"
    return [f"there, with peft-regress: peft-regress env build {house.spec} --wheelhouse {target.name}",
            f"there, with Python alone: {own}   (then python:VENV/bin/python is a loader)"]  # fmt: skip
