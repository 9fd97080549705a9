"""The files of environments: an edit stays in one, is found, and is repaired. With the real uv and tiny wheels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.envs import installed, wheelhouse
from harness.envs.environment import BuiltEnvironment, EnvFailed
from tests.envs.test_envs_build import CURRENT, checkout, environments, make_wheel, room, run
from tests.envs.test_wheelhouse import copied, packed

__all__ = ["room"]


def site(built: BuiltEnvironment) -> Path:
    return next(built.python.parent.parent.glob("lib/python*/site-packages"))


def second(room: Path) -> BuiltEnvironment:
    """Another environment with the same wheel of PEFT."""
    (room / "matrices" / "envs" / "other.toml").write_text(CURRENT.replace("2.13.0", "2.14.0"))
    environments(room).lock("other")
    return environments(room).build("other")


def in_uvs_cache(room: Path, name: str) -> Path:
    return next(path for path in (room / "cache" / "uv").rglob(name) if "archive" in str(path))


def test_an_edit_stays_in_its_environment(room: Path) -> None:
    first, other = environments(room).build("current"), second(room)
    with (site(first) / "peft.py").open("a") as file:
        file.write("\nmarker = 'edited'\n")
    assert run(first.python, "import peft; print(peft.marker)") == "edited"
    assert run(other.python, "import peft; print(peft.marker)") == "installed"
    assert "edited" not in in_uvs_cache(room, "peft.py").read_text()
    assert environments(room).build("other") == other
    with pytest.raises(
        EnvFailed, match=r"1 file changed(.|\n)*site-packages/peft\.py \(peft 0\.6\.1\) differs"
    ) as caught:
        environments(room).build("current")
    assert caught.value.stage == "changed"
    assert caught.value.next_step == "rebuild it with: peft-regress env build --rebuild current"
    assert run(environments(room).rebuild("current").python, "import peft; print(peft.marker)") == "installed"


def edited(folder: Path) -> str:
    (folder / "peft.py").write_text("")
    return "peft.py (peft 0.6.1) differs"


def removed(folder: Path) -> str:
    (folder / "helper.py").unlink()
    return "helper.py (helper 1.5) is missing"


def added(folder: Path) -> str:
    (folder / "sitecustomize.py").write_text("")
    return "sitecustomize.py was added"


def linked(folder: Path) -> str:
    (folder / "peft.py").unlink()
    (folder / "peft.py").symlink_to("helper.py")
    return "peft.py (peft 0.6.1) differs"


def recorded_anew(folder: Path) -> str:
    """An edit of a RECORD that keeps size and time."""
    record = next(folder.glob("peft-*.dist-info")) / "RECORD"
    before = record.stat()
    record.write_text(record.read_text().replace("sha256=", "sha256-", 1))
    os.utime(record, ns=(before.st_atime_ns, before.st_mtime_ns))
    return "RECORD (peft 0.6.1) differs"


def scripted(folder: Path) -> str:
    python = folder.parents[2] / "bin" / "python"
    python.unlink()
    python.symlink_to("/bin/true")
    return "bin/python differs"


@pytest.mark.parametrize("damage", [edited, removed, added, linked, recorded_anew, scripted])
def test_a_change_is_found_at_the_next_use(room: Path, damage: Callable[[Path], str]) -> None:
    said = damage(site(environments(room).build("current")))
    with pytest.raises(EnvFailed) as caught:
        environments(room).build("current")
    assert said in caught.value.found
    assert [said in str(one) for one in next(environments(room).verify(["current"])).differences] == [True]


def test_byte_code_and_what_python_writes_are_no_change(room: Path) -> None:
    built = environments(room).build("current")
    (site(built) / "__pycache__" / "left.cpython-311.pyc").write_bytes(b"")
    run(built.python, "import helper")
    environments(room).build("current")
    assert next(environments(room).verify(["current"])).differences == ()


def test_another_time_is_no_change(room: Path) -> None:
    """As after `tar`, which may cut nanoseconds."""
    built = environments(room).build("current")
    directory = built.python.parent.parent
    for path in directory.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    python = built.python.readlink()
    built.python.unlink()
    built.python.symlink_to(python)
    assert environments(room).build("current") == built
    edited(site(built))
    with pytest.raises(EnvFailed, match="1 file changed"):
        environments(room).build("current")


def test_an_edit_that_keeps_size_and_time_is_found_by_reading(room: Path) -> None:
    path = site(environments(room).build("current")) / "peft.py"
    before = path.stat()
    path.write_text(path.read_text().replace("installed", "different"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    environments(room).build("current")
    assert [one.how for one in next(environments(room).verify()).differences] == ["differs"]


def test_an_edited_file_in_uvs_cache_is_not_installed(room: Path) -> None:
    environments(room).build("current")
    in_uvs_cache(room, "peft.py").write_text("marker = 'edited'")
    with pytest.raises(EnvFailed, match=r"peft\.py \(peft 0\.6\.1\) differs") as caught:
        environments(room).rebuild("current")
    assert "uv cache clean peft --cache-dir" in caught.value.next_step
    assert [path for path in (room / "cache" / "envs").iterdir() if path.is_dir()] == []
    command = caught.value.next_step.partition(";")[0].removeprefix("python ")
    subprocess.run([sys.executable, *command.split()], check=True, capture_output=True)
    assert run(environments(room).build("current").python, "import peft; print(peft.marker)") == "installed"


def test_a_damaged_file_is_named_also_where_it_does_not_import(room: Path) -> None:
    """Both are looked at at the same time; the file is the cause."""
    environments(room).build("current")
    in_uvs_cache(room, "peft.py").write_text("raise RuntimeError('edited')")
    with pytest.raises(EnvFailed, match=r"peft\.py \(peft 0\.6\.1\) differs"):
        environments(room).rebuild("current")
    assert [path for path in (room / "cache" / "envs").iterdir() if path.is_dir()] == []


def test_byte_code_that_is_written_while_files_are_copied_stays_valid(room: Path) -> None:
    built = environments(room).build("current")
    (compiled,) = (site(built) / "__pycache__").glob("peft.*.pyc")
    before = compiled.stat()
    said = run(built.python, "import peft; print(peft.marker)")
    assert said == "installed"
    assert (site(built) / "peft.py").stat().st_nlink == 1
    assert compiled.stat().st_mtime_ns == before.st_mtime_ns


def as_an_earlier_version_built(built: BuiltEnvironment) -> None:
    installed.snapshot(built.python.parent.parent).unlink()


def test_a_build_of_an_earlier_version_is_accepted_if_it_is_as_installed(room: Path) -> None:
    built = environments(room).build("current")
    as_an_earlier_version_built(built)
    log: list[str] = []
    assert environments(room, log).build("current") == built
    assert [line.partition(":")[0] for line in log] == ["checking the files of current"]
    log.clear()
    assert environments(room, log).build("current") == built
    assert log == []


@pytest.mark.parametrize("damage", [edited, removed, added])
def test_a_changed_build_of_an_earlier_version_is_refused(room: Path, damage: Callable[[Path], str]) -> None:
    built = environments(room).build("current")
    as_an_earlier_version_built(built)
    said = damage(site(built))
    with pytest.raises(EnvFailed) as caught:
        environments(room).build("current")
    assert said in caught.value.found


def test_what_is_large_or_native_stays_a_link(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "lib" / "python3.11" / "site-packages"
    folder.mkdir(parents=True)
    native, text = b"\x7fELF" + bytes(99), b"x = 1\n"
    content = {"small.so": native, "large.py": bytes(2 << 20), "large.dat": bytes(2 << 20), "a.py": text, "c.h": text}
    for name, written in content.items():
        (tmp_path / name).write_bytes(written)
        os.link(tmp_path / name, folder / name)
    assert installed.settle(tmp_path / "a") == []
    assert {name for name in content if (folder / name).stat().st_nlink == 1} == {"large.py", "a.py"}
    assert {name: (folder / name).read_bytes() for name in content} == content
    assert {(folder / name).stat().st_mtime_ns == (tmp_path / name).stat().st_mtime_ns for name in content} == {True}


# -- wheels that are not what they seem --------------------------------------------------------------------------------


def test_a_wheel_whose_record_lies_is_refused(room: Path) -> None:
    wheel = next((room / "wheels of mine").glob("peft-*"))
    rewrite(wheel, {"peft.py": "marker = 'another'"})
    with pytest.raises(EnvFailed, match=r"peft\.py \(peft 0\.6\.1\) differs"):
        environments(room).build("current")
    assert [path for path in (room / "cache" / "envs").iterdir() if path.is_dir()] == []


def test_a_truncated_wheel_is_named(room: Path) -> None:
    wheel = next((room / "wheels of mine").glob("peft-*"))
    wheel.write_bytes(wheel.read_bytes()[:-40])
    with pytest.raises(EnvFailed, match="peft") as caught:
        environments(room).build("current")
    assert caught.value.stage == "build"


@pytest.mark.parametrize("name", ["../../../../escaped.py", "/{room}/escaped.py"])
def test_a_wheel_writes_nothing_outside_of_its_environment(room: Path, name: str) -> None:
    wheel = next((room / "wheels of mine").glob("peft-*"))
    rewrite(wheel, {name.replace("/{room}", str(room)): "escaped"})
    environments(room).build("current")  # uv leaves the file out
    assert list(room.rglob("escaped.py")) == []


def test_an_altered_wheel_in_a_wheelhouse_is_refused(room: Path) -> None:
    folder = packed(room, pip=copied)
    shutil.rmtree(room / "wheels of mine")
    rewrite(next(folder.glob("peft-*")), {"peft.py": "marker = 'another'"})
    with pytest.raises(EnvFailed, match="peft") as caught:
        environments(room).build_packed(wheelhouse.read(folder).environment(), folder)
    assert "hash" in caught.value.tail.lower()
    assert "copy the wheelhouse again" in caught.value.next_step


def rewrite(wheel: Path, files: dict[str, str]) -> None:
    with zipfile.ZipFile(wheel) as before:
        content = {name: before.read(name).decode() for name in before.namelist()}
    with zipfile.ZipFile(wheel, "w") as after:
        for name, text in (content | files).items():
            after.writestr(name, text)


def test_what_a_checkout_executes_is_said_before(room: Path) -> None:
    log: list[str] = []
    tree = checkout(room)
    (tree / "backend.py").write_text("raise SystemExit('executed')")
    with pytest.raises(EnvFailed, match="executed"):
        environments(room, log).build(str(tree))
    assert log[-1] == f"building {tree} runs its build backend, backend"


def test_a_checkout_notices_a_change_in_the_environment_that_it_links_to(room: Path) -> None:
    tree = str(checkout(room))
    first = environments(room).build(tree)
    assert environments(room).build(tree) == first
    assert next(environments(room).verify([tree])).differences == ()
    (site(environments(room).build("current")) / "helper.py").write_text("x = 1")
    with pytest.raises(EnvFailed, match=r"environment current: 1 file changed"):
        environments(room).build(tree)
    (site(first) / "helper.py").unlink()
    assert [str(one) for one in next(environments(room).verify([tree])).differences if "helper" in one.path] != []


def test_a_disk_that_is_full_during_a_build_leaves_no_half(room: Path, tmp_path: Path) -> None:
    small = tmp_path / "small disk"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        make_wheel(room / "wheels of mine", "peft", "0.7.0", "#" * (1 << 20))
        environments(room).lock("current")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PEFT_REGRESS_CACHE", str(small))
            with pytest.raises(EnvFailed) as caught:
                environments(room).build("current")
        assert "PEFT_REGRESS_CACHE" in caught.value.next_step
        assert [path for path in (small / "envs").glob("*") if path.is_dir()] == []
    finally:
        subprocess.run(["umount", small], check=True)
