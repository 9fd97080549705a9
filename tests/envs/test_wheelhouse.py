"""Wheelhouses with the real pip and uv, and wheels that the tests make: packed, damaged, built from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import HarnessError, UsageError
from harness.core.progress import Log
from harness.envs import wheelhouse
from harness.envs.environment import EnvFailed
from harness.envs.environments import Environments
from harness.envs.installers import Outcome
from tests.envs.test_envs_build import environments, make_wheel, room, run
from tests.support.mini import index, releases
from tests.support.mini.index import Index
from tests.support.mini.world import World

__all__ = ["room"]


def packed(room: Path, name: str = "current", **more: Any) -> Path:
    target = room / f"packed-{name}"
    wheelhouse.pack(environments(room).describe(name), target, quiet, **more)
    return target


def copied(args: Sequence[str], folder: Path, _log: Log) -> Outcome:
    """A fake pip that is fast: copies the wheels of the lock."""
    for line in (folder / "lock.txt").read_text().split() if "-r" in args else ():
        (wheel,) = (folder.parent / "wheels of mine").glob(f"{line.replace('==', '-')}[-+]*")
        shutil.copy(wheel, folder)
    return Outcome(0, "", "")


def quiet(_line: str) -> None:
    """Log nothing."""


def without_index(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine: an empty cache, and no index."""
    (room / "nowhere.conf").write_text("[global]\nindex-url = http://127.0.0.1:9/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(room / "nowhere.conf"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("PEFT_REGRESS_CACHE", str(room / "another cache"))
    monkeypatch.setenv("UV_CACHE_DIR", str(room / "another cache of uv"))


def built(room: Path, folder: Path) -> Path:
    there = environments(room)
    environment = there.describe("current")
    wheelhouse.must_fit(wheelhouse.read(folder), environment)
    return there.build_packed(environment, folder).python


def test_all_wheels_are_packed_with_what_this_torch_needs(room: Path) -> None:
    make_wheel(room / "wheels of mine", "torch", "2.13.0+cu1", requires="Requires-Dist: kernels\n")
    make_wheel(room / "wheels of mine", "kernels", "12.1")
    said: list[str] = []
    environment = environments(room).describe("current")
    house = wheelhouse.pack(environment, room / "box", said.append)
    assert house.versions == {"helper": "1.5", "peft": "0.6.1", "torch": "2.13.0+cu1", "kernels": "12.1"}
    assert wheelhouse.read(room / "box") == house
    assert house.lock_digest == environment.lock_digest, "a lock fits every machine, so it has no kernels"
    assert sorted(path.suffix for path in (room / "box").iterdir()) == [".txt", *[".whl"] * 4]
    assert said[0] == "packing current: 3 packages"
    assert any("helper" in line for line in said[1:-1])
    assert said[-1].startswith("packed current: 4 wheels")
    assert not list(room.glob(".box.*"))
    assert str(room) not in (room / "box" / "requirements.txt").read_text(), "no path of the machine that packed it"


def test_another_build_of_torch(room: Path) -> None:
    make_wheel(room / "wheels of mine", "torch", "2.13.0+cu1")
    assert wheelhouse.read(packed(room, torch_build="cpu")).versions["torch"] == "2.13.0+cpu"
    with pytest.raises(EnvFailed, match=r"2\.13\.0\+cu9") as caught:
        wheelhouse.pack(environments(room).describe("current"), room / "b", quiet, torch_build="cu9")
    assert "--torch-build" in caught.value.next_step
    assert not (room / "b").exists()


def test_it_builds_without_an_index(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = packed(room, pip=copied)
    without_index(room, monkeypatch)
    with pytest.raises(EnvFailed):
        environments(room).build("current")
    python = built(room, folder)
    assert run(python, "import peft; print(peft.marker)") == "installed"
    assert environments(room).build("current").python == python, "its name works as a loader"


def test_it_builds_if_pip_is_configured_without_an_index(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = packed(room, pip=copied)
    monkeypatch.setenv("PEFT_REGRESS_CACHE", str(room / "another cache"))
    assert run(built(room, folder), "import peft; print(peft.marker)") == "installed"


@pytest.mark.slow
def test_python_alone_installs_it_and_refuses_an_altered_wheel(room: Path) -> None:
    folder = packed(room)
    (room / "pip.conf").write_text("[global]\nindex-url = http://127.0.0.1:9/simple\n")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(room / "venv")], check=True)
    python, wheel = room / "venv" / "bin" / "python", folder / "helper-1.5-py3-none-any.whl"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", *wheelhouse.install_arguments(folder)]
    whole = wheel.read_bytes()
    wheel.write_bytes(whole[:-1] + b"?")
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "helper" in refused.stderr
    wheel.write_bytes(whole)
    subprocess.run(command, check=True, capture_output=True)
    assert run(python, "import peft; print(peft.marker)") == "installed"


def foreign(wheel: Path) -> None:
    wheel.rename(wheel.with_name("helper-1.5-cp27-cp27m-win32.whl"))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda wheel: wheel.unlink(),
    "cut short": lambda wheel: wheel.write_bytes(wheel.read_bytes()[:-9]),
    "altered": lambda wheel: wheel.write_bytes(wheel.read_bytes()[:-1] + b"?"),
    "for another platform": foreign,
}


def test_a_wheel_that_does_not_fit_is_named(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = packed(room, pip=copied)
    without_index(room, monkeypatch)
    for name, damage in DAMAGES.items():
        folder = shutil.copytree(whole, room / name)
        damage(folder / "helper-1.5-py3-none-any.whl")
        with pytest.raises(EnvFailed, match="helper") as caught:
            built(room, folder)
        assert "copy the wheelhouse again" in caught.value.next_step, name
        assert not [path for path in (room / "another cache" / "envs").iterdir() if path.is_dir()], name


@pytest.mark.parametrize("text", [None, "", "helper==1.5 --hash=sha256:00\n", "# environment: x\n# python: 3.11\n"])
def test_a_folder_that_is_no_wheelhouse_is_refused(tmp_path: Path, text: str | None) -> None:
    (tmp_path / "wheelhouse.json").write_text("{}")  # as older versions wrote
    if text is not None:
        (tmp_path / "requirements.txt").write_text(text)
    with pytest.raises(UsageError, match="not a wheelhouse") as caught:
        wheelhouse.read(tmp_path)
    assert "env pack" in caught.value.next_step


def test_a_wheelhouse_with_less_than_the_lock_is_refused(room: Path) -> None:
    folder = packed(room, pip=copied)
    lines = (folder / "requirements.txt").read_text().splitlines()
    (folder / "requirements.txt").write_text("\n".join(line for line in lines if not line.startswith("peft")))
    with pytest.raises(EnvFailed, match=r"peft \(none\) packed, 0\.6\.1 locked"):
        built(room, folder)


def test_a_wheelhouse_of_another_lock_is_refused(room: Path) -> None:
    folder = packed(room, pip=copied)
    make_wheel(room / "wheels of mine", "peft", "0.7.0")
    environments(room).lock("current")
    with pytest.raises(EnvFailed, match=r"peft 0\.6\.1 packed, 0\.7\.0 locked") as caught:
        built(room, folder)
    assert "env pack current" in caught.value.next_step


def test_a_failed_download_leaves_nothing(room: Path) -> None:
    (room / "wheels of mine" / "helper-1.5-py3-none-any.whl").unlink()
    with pytest.raises(EnvFailed, match=r"helper==1\.5") as caught:
        packed(room)
    assert "pip" in caught.value.found
    assert not list(room.glob("packed*"))
    assert not list(room.glob(".packed*"))


def test_an_interruption_leaves_nothing(room: Path) -> None:
    def interrupted(_args: Sequence[str], folder: Path, _log: Log) -> Outcome:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packed(room, pip=interrupted)
    assert not list(room.glob(".packed*"))


def test_a_full_disk_is_reported(room: Path) -> None:
    def full(_args: Sequence[str], _folder: Path, _log: Log) -> Outcome:
        raise OSError(28, "No space left on device")

    with pytest.raises(HarnessError, match="No space left"):
        packed(room, pip=full)
    assert not list(room.glob(".packed*"))


def test_a_package_that_pip_left_out_is_named(room: Path) -> None:
    def lazy(_args: Sequence[str], folder: Path, _log: Log) -> Outcome:
        make_wheel(folder, "torch", "2.13.0")
        make_wheel(folder, "peft", "0.6.0")
        return Outcome(0, "", "")

    with pytest.raises(EnvFailed, match=r"helper \(none\) packed, 1\.5 locked; peft 0\.6\.0 packed, 0\.6\.1 locked"):
        packed(room, pip=lazy)
    assert not list(room.glob("packed*"))


def test_an_existing_folder_is_not_overwritten(room: Path) -> None:
    folder = packed(room, pip=copied)
    with pytest.raises(UsageError, match="already exists"):
        packed(room)
    assert wheelhouse.read(folder)
    (room / "file").touch()
    with pytest.raises(UsageError, match="already exists"):
        wheelhouse.pack(environments(room).describe("current"), room / "file", quiet)


def test_an_environment_without_a_lock_is_refused(room: Path) -> None:
    with pytest.raises(UsageError, match="no lock of its own"):
        wheelhouse.pack(environments(room).describe(f"python:{sys.executable}"), room / "p", quiet)


def test_pip_gets_the_tags_of_another_machine(room: Path) -> None:
    asked: list[Sequence[str]] = []

    def noting(args: Sequence[str], _folder: Path, _log: Log) -> Outcome:
        asked.append(args)
        return Outcome(1, "no such wheel", "")

    with pytest.raises(EnvFailed, match="pip download"):
        packed(room, pip=noting, platforms=["manylinux_2_28_aarch64"])
    assert asked[0][0] == "download"
    assert "manylinux_2_28_aarch64" in asked[0]


# -- the command line, with a registry of this machine -----------------------------------------------------------------


@pytest.fixture
def declared(empty: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world that declares `v1` and `current`."""
    for key in [key for key in os.environ if key.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(key)
    (tmp_path / "pip.conf").write_text("")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PEFT_REGRESS_CACHE", str(tmp_path / "cache"))
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for name, release in (("v1", "1.0"), ("current", "2.1")):
        text = f'why = "x"\npython = "{python}"\n[pins]\nminipeft = "{release}"\n'
        (empty.matrices / "envs" / f"{name}.toml").write_text(text)
    return empty


def serve(world: World, registry: Index) -> None:
    for release in ("1.0", "2.1"):
        registry.add(releases.wheel(registry.folder, release), "2020-01-01")
    (world.root / "pip.conf").write_text(f"[global]\nindex-url = {registry.address}\n")
    for name in ("v1", "current"):
        assert world.run("env", "lock", name).code == 0


def test_an_environment_is_packed_copied_built_and_used(declared: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is gone when the environment is built. Nothing asks for it, and a cell runs."""
    box = declared.root / "box"
    with index.serving(declared.root / "registry") as registry:
        serve(declared, registry)
        for name in ("v1", "current"):
            said = declared.run("env", "pack", name, "--to", str(box / name))
            assert said.code == 0, said
            assert "--require-hashes" in said.err
        registry.down = True
        registry.asked.clear()
        monkeypatch.setenv("PEFT_REGRESS_CACHE", str(declared.root / "elsewhere"))
        for name in ("v1", "current"):
            said = declared.run("env", "build", name, "--wheelhouse", str(box / name))
            assert said.code == 0, said
        assert declared.run("create", "v1", "-k", "two-layers").code == 0
        declared.run("check", "--loader", "current", "-k", "two-layers")
        asked = [path for path in registry.asked if "minipeft" in path]
    assert declared.verdicts() == {"two-layers": "silent-wrong"}, "2.1's own break, seen under what was packed"
    assert not asked


def test_wrong_wheelhouses_on_the_command_line(declared: World) -> None:
    box = declared.root / "box"
    with index.serving(declared.root / "registry") as registry:
        serve(declared, registry)
        assert declared.run("env", "pack", "v1", "--to", str(box)).code == 0
    said = declared.run("env", "build", "--wheelhouse", str(box), "--dry-run")
    assert (said.code, said.out) == (0, "v1: 1 wheels\n")
    assert declared.run("env", "build", "current", "--wheelhouse", str(box)).code == 2
    assert declared.run("env", "build", "v1", "current", "--wheelhouse", str(box)).code == 64
    assert declared.run("env", "build", "v1", "--wheelhouse", str(declared.root)).code == 64
    (box / "minipeft-1.0-py3-none-any.whl").unlink()
    said = declared.run("env", "build", "v1", "--wheelhouse", str(box))
    assert said.code == 2
    assert "minipeft==1.0" in said.err


def test_a_wheelhouse_of_an_undeclared_environment(declared: World) -> None:
    box = declared.root / "box"
    with index.serving(declared.root / "registry") as registry:
        serve(declared, registry)
        assert declared.run("env", "pack", "v1", "--to", str(box)).code == 0
    (declared.matrices / "envs" / "v1.toml").unlink()
    said = declared.run("env", "build", "--wheelhouse", str(box))
    assert said.code == 0, said
    assert "name it python:" in said.err
    assert Environments(declared.matrices).names() == ["current"]
