"""Wheelhouses with the real pip and uv, and wheels that are made here: packed, spoilt in every way, built from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.core.errors import HarnessError, UsageError
from harness.envs import wheelhouse, wheelhouse_pack
from harness.envs.environment import EnvFailed
from harness.envs.environments import Environments
from harness.envs.installers import Outcome
from harness.envs.piptool import Told
from tests.envs.test_envs_build import environments, make_wheel, room, run
from tests.support.mini import index, releases
from tests.support.mini.index import Index
from tests.support.mini.world import World

__all__ = ["room"]


def packed(room: Path, name: str = "current", **more: object) -> Path:
    target = room / f"packed-{name}"
    wheelhouse_pack.pack(environments(room).describe(name), target, lambda _: None, **more)  # type: ignore[arg-type]
    return target


def without_index(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine: an empty cache, and no place to get packages from."""
    (room / "nowhere.conf").write_text("[global]\nindex-url = http://127.0.0.1:9/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(room / "nowhere.conf"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("PEFT_REGRESS_CACHE", str(room / "another cache"))
    monkeypatch.setenv("UV_CACHE_DIR", str(room / "another cache of uv"))


def built(room: Path, folder: Path) -> Path:
    there = environments(room)
    _, wheels = wheelhouse.checked(folder, there.describe("current"))
    return there.build_packed(there.describe("current"), wheels).python


def test_all_wheels_and_what_this_torch_needs_besides(room: Path) -> None:
    make_wheel(room / "wheels of mine", "torch", "2.13.0+cu1", requires="Requires-Dist: kernels\n")
    make_wheel(room / "wheels of mine", "kernels", "12.1")
    said: list[str] = []
    environment = environments(room).describe("current")
    house = wheelhouse_pack.pack(environment, room / "box", said.append)
    there = {wheel.package: wheel.version for wheel in house.wheels}
    assert there == {"helper": "1.5", "peft": "0.6.1", "torch": "2.13.0+cu1", "kernels": "12.1"}
    assert wheelhouse.read(room / "box") == house
    assert "kernels" not in house.lock, "a lock fits every machine"
    names = sorted(path.name for path in (room / "box").iterdir())
    assert names == ["install.py", "requirements.txt", "wheelhouse.json", "wheels"]
    assert said[0] == "packing current: 3 packages"
    assert any(line.startswith("[1/3] ") for line in said)
    assert said[-1].startswith("packed current: 4 wheels")
    assert not list(room.glob(".box.*"))
    assert str(room) not in (room / "box" / "wheelhouse.json").read_text(), "no path of the machine that packed it"


def test_another_build_of_torch(room: Path) -> None:
    make_wheel(room / "wheels of mine", "torch", "2.13.0+cu1")
    there = {w.package: w.version for w in wheelhouse.read(packed(room, torch_build="cpu")).wheels}
    assert there["torch"] == "2.13.0+cpu"
    with pytest.raises(EnvFailed, match=r"2\.13\.0\+cu9") as caught:
        wheelhouse_pack.pack(environments(room).describe("current"), room / "b", lambda _: None, torch_build="cu9")
    assert "--torch-build" in caught.value.next_step
    assert not (room / "b").exists()


def test_built_from_it_where_there_is_no_index(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = packed(room)
    without_index(room, monkeypatch)
    with pytest.raises(EnvFailed):
        environments(room).build("current")
    python = built(room, folder)
    assert run(python, "import peft; print(peft.marker)") == "installed"
    assert environments(room).build("current").python == python, "as a loader it goes by its name"


@pytest.mark.slow
def test_installed_with_python_alone(room: Path) -> None:
    folder = packed(room)
    (room / "pip.conf").write_text("[global]\nindex-url = http://127.0.0.1:9/simple\n")
    command = [sys.executable, str(folder / "install.py"), str(room / "venv")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert run(room / "venv" / "bin" / "python", "import peft; print(peft.marker)") == "installed"


SPOILT = [
    ("missing", lambda wheel: wheel.unlink(), "is missing"),
    ("cut short", lambda wheel: wheel.write_bytes(wheel.read_bytes()[:-9]), "cut short"),
    ("altered", lambda wheel: wheel.write_bytes(wheel.read_bytes()[:-1] + b"?"), "altered"),
]


@pytest.mark.parametrize(("how", "spoil", "words"), SPOILT, ids=[case[0] for case in SPOILT])
def test_a_wheel_that_is_not_as_it_was_is_named(
    room: Path, monkeypatch: pytest.MonkeyPatch, how: str, spoil: object, words: str
) -> None:
    folder = packed(room)
    without_index(room, monkeypatch)
    assert callable(spoil)
    spoil(folder / "wheels" / "helper-1.5-py3-none-any.whl")
    with pytest.raises(EnvFailed, match=rf"helper-1\.5-py3-none-any\.whl .*{words}"):
        built(room, folder)
    assert not (room / "another cache" / "envs").exists()
    command = [sys.executable, str(folder / "install.py"), str(room / "venv")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "helper-1.5-py3-none-any.whl" in done.stderr
    assert not (room / "venv").exists(), how


BAD_MANIFESTS = [
    ("{", "wheelhouse.json"),
    ('{"format": 2}', "format 2"),
    ('{"format": 1, "name": "x"}', "spec"),
]


@pytest.mark.parametrize(("text", "words"), BAD_MANIFESTS)
def test_a_manifest_that_says_nothing_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "wheelhouse.json").write_text(text)
    with pytest.raises(UsageError, match=words):
        wheelhouse.read(tmp_path)


def test_a_manifest_that_lists_less_than_its_lock_is_refused(room: Path) -> None:
    folder = packed(room)
    said = json.loads((folder / "wheelhouse.json").read_text())
    said["wheels"] = [wheel for wheel in said["wheels"] if wheel["package"] != "peft"]
    (folder / "wheelhouse.json").write_text(json.dumps(said))
    with pytest.raises(UsageError, match="no wheel of peft"):
        wheelhouse.read(folder)
    said["wheels"].append({"file": "../peft.whl", "package": "peft", "version": "1", "size": 1, "sha256": "0" * 64})
    (folder / "wheelhouse.json").write_text(json.dumps(said))
    with pytest.raises(UsageError, match="file"):
        wheelhouse.read(folder)


def test_of_another_lock_than_is_declared_here(room: Path) -> None:
    folder = packed(room)
    make_wheel(room / "wheels of mine", "peft", "0.7.0")
    environments(room).lock("current")
    with pytest.raises(EnvFailed, match=r"another lock: peft 0\.6\.1 packed, 0\.7\.0 locked") as caught:
        wheelhouse.checked(folder, environments(room).describe("current"))
    assert "env pack current" in caught.value.next_step


def test_nothing_half_made_stays(room: Path) -> None:
    (room / "wheels of mine" / "helper-1.5-py3-none-any.whl").unlink()
    with pytest.raises(EnvFailed, match=r"helper==1\.5") as caught:
        packed(room)
    assert "pip" in caught.value.found
    assert not list(room.glob("packed*"))
    assert not list(room.glob(".packed*"))


def test_an_interruption_leaves_nothing(room: Path) -> None:
    def interrupted(_args: Sequence[str], folder: Path, _told: Told) -> Outcome:
        (folder / "wheels" / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packed(room, pip=interrupted)
    assert not list(room.glob(".packed*"))


def test_a_full_disk_is_told(room: Path) -> None:
    def full(_args: Sequence[str], _folder: Path, _told: Told) -> Outcome:
        raise OSError(28, "No space left on device")

    with pytest.raises(HarnessError, match="No space left"):
        packed(room, pip=full)
    assert not list(room.glob(".packed*"))


def test_a_package_that_pip_left_out_is_named(room: Path) -> None:
    def lazy(_args: Sequence[str], folder: Path, _told: Told) -> Outcome:
        make_wheel(folder / "wheels", "torch", "2.13.0")
        make_wheel(folder / "wheels", "peft", "0.6.0")
        return Outcome(0, "", "")

    with pytest.raises(EnvFailed, match=r"no wheel of helper 1\.5 \(found none\), peft 0\.6\.1 \(found 0\.6\.0\)"):
        packed(room, pip=lazy)


def test_what_is_there_is_not_overwritten(room: Path) -> None:
    folder = packed(room)
    with pytest.raises(UsageError, match="is there already"):
        packed(room)
    assert wheelhouse.checked(folder)
    (room / "file").touch()
    with pytest.raises(UsageError, match="is there already"):
        wheelhouse_pack.pack(environments(room).describe("current"), room / "file", lambda _: None)


def test_what_has_no_lock_is_refused(room: Path) -> None:
    with pytest.raises(UsageError, match="no lock of its own"):
        wheelhouse_pack.pack(environments(room).describe(f"python:{sys.executable}"), room / "p", lambda _: None)


def test_another_machine_is_told_to_pip_by_its_tags(room: Path) -> None:
    asked: list[Sequence[str]] = []

    def noting(args: Sequence[str], _folder: Path, _told: Told) -> Outcome:
        asked.append(args)
        return Outcome(1, "no such wheel", "")

    with pytest.raises(EnvFailed, match="pip download"):
        packed(room, pip=noting, platforms=["manylinux_2_28_aarch64"])
    assert asked[0][0] == "download"
    assert "manylinux_2_28_aarch64" in asked[0]


# -- the command line, with a registry of this machine -----------------------------------------------------------------


@pytest.fixture
def declared(empty: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose `v1` is locked from a registry at an address."""
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


def test_packed_carried_built_and_used(declared: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry is gone when it is built: nothing is asked, and a cell runs under it."""
    box = declared.root / "box"
    with index.serving(declared.root / "registry") as registry:
        serve(declared, registry)
        for name in ("v1", "current"):
            said = declared.run("env", "pack", name, "--to", str(box / name))
            assert said.code == 0, said
            assert "install.py VENV" in said.err
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


def test_what_is_asked_of_the_command_line(declared: World) -> None:
    box = declared.root / "box"
    with index.serving(declared.root / "registry") as registry:
        serve(declared, registry)
        assert declared.run("env", "pack", "v1", "--to", str(box)).code == 0
    said = declared.run("env", "build", "--wheelhouse", str(box), "--dry-run")
    assert (said.code, said.out) == (0, "v1: 1 wheels, all as they were packed\n")
    assert declared.run("env", "build", "current", "--wheelhouse", str(box)).code == 2
    assert declared.run("env", "build", "v1", "current", "--wheelhouse", str(box)).code == 64
    assert declared.run("env", "build", "v1", "--wheelhouse", str(declared.root)).code == 64
    (box / "wheels" / "minipeft-1.0-py3-none-any.whl").unlink()
    said = declared.run("env", "build", "v1", "--wheelhouse", str(box))
    assert said.code == 2
    assert "minipeft-1.0-py3-none-any.whl is missing" in said.err


def test_a_wheelhouse_of_what_is_declared_nowhere_here(declared: World) -> None:
    box = declared.root / "box"
    with index.serving(declared.root / "registry") as registry:
        serve(declared, registry)
        assert declared.run("env", "pack", "v1", "--to", str(box)).code == 0
    (declared.matrices / "envs" / "v1.toml").unlink()
    said = declared.run("env", "build", "--wheelhouse", str(box))
    assert said.code == 0, said
    assert "as a loader it is python:" in said.err
    assert Environments(declared.matrices).names() == ["current"]
