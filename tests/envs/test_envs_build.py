"""Environments with the real uv and tiny wheels that the tests make. No network, no index, no libraries."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import pytest

from harness.core.errors import UsageError
from harness.envs.environment import EnvFailed
from harness.envs.environments import Environments
from tests.support.mini.projects import project

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
CURRENT = f"""
why = "newest"
python = "{PYTHON}"
[pins]
peft = "newest"
torch = "2.13.0"
"""
PROJECT = project("PEFT", "0.99.dev0", {"peft.py": "peft.py"})


def make_wheel(folder: Path, name: str, version: str, code: str = "", requires: str = "") -> None:
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    records = [f"{path},sha256={_digest(text)},{len(text.encode())}\n" for path, text in files.items()]
    files[f"{info}/RECORD"] = "".join(records) + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with wheels that only pip's configuration names, and a declaration `current`."""
    for key in [key for key in os.environ if key.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(key)
    wheels = tmp_path / "wheels of mine"
    wheels.mkdir()
    make_wheel(wheels, "torch", "2.13.0+cpu", requires="Requires-Dist: helper>=1\n")
    make_wheel(wheels, "torch", "2.14.0")
    make_wheel(wheels, "helper", "1.5")
    make_wheel(wheels, "peft", "0.6.1", "marker = 'installed'")
    (tmp_path / "pip.conf").write_text(f"[global]\nno-index = true\nfind-links = {wheels.as_uri()}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PEFT_REGRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    envs = tmp_path / "matrices" / "envs"
    envs.mkdir(parents=True)
    (envs / "current.toml").write_text(CURRENT)
    Environments(tmp_path / "matrices").lock("current")
    return tmp_path


def environments(room: Path, log: list[str] | None = None) -> Environments:
    return Environments(room / "matrices", log=(log if log is not None else []).append)


def run(python: Path, code: str) -> str:
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def checkout(room: Path, code: str = "marker = 'checked out'") -> Path:
    tree = room / "peft of mine"
    tree.mkdir(exist_ok=True)
    for name, content in PROJECT.items():
        (tree / name).write_text(content)
    (tree / "peft.py").write_text(code)
    return tree


def git(tree: Path, *args: str) -> str:
    names = ["-c", "user.name=me", "-c", "user.email=me@example.org", "-c", "init.defaultBranch=main"]
    return subprocess.run(["git", *names, *args], cwd=tree, check=True, capture_output=True, text=True).stdout.strip()


def test_a_lock_from_pips_configuration_names_neither_index_nor_local_version(room: Path) -> None:
    lines = (room / "matrices" / "envs" / "locks" / "current.txt").read_text().splitlines()
    assert [line for line in lines if line[0] != "#"] == ["helper==1.5", "peft==0.6.1", "torch==2.13.0"]


def test_a_build_installs_the_lock_and_nothing_else(room: Path) -> None:
    log: list[str] = []
    built = environments(room, log).build("current")
    assert built.versions == {"helper": "1.5", "peft": "0.6.1", "torch": "2.13.0+cpu"}
    assert run(built.python, "import peft; print(peft.marker)") == "installed"
    assert [line.split()[0] for line in log] == ["building", "importing", "built"]
    assert list(built.python.parent.parent.rglob("peft.*.pyc")), "the first import writes the byte code"
    assert environments(room).build("current") == built
    assert json.loads((built.python.parent.parent / "peft-regress.json").read_text())["build_seconds"] >= 0


def test_a_package_that_disappeared_is_named_in_the_tail(room: Path) -> None:
    next((room / "wheels of mine").glob("helper*")).unlink()
    with pytest.raises(EnvFailed, match="helper") as caught:
        environments(room).build("current")
    assert (caught.value.stage, caught.value.name) == ("build", "current")
    with pytest.raises(EnvFailed, match="helper") as caught:
        environments(room).lock("current")
    assert caught.value.stage == "resolve"
    assert [path for path in (room / "cache" / "envs").iterdir() if path.is_dir()] == []


def test_a_library_that_cannot_be_imported_is_reported_with_its_last_lines(room: Path) -> None:
    make_wheel(room / "wheels of mine", "peft", "0.7.0", "raise RuntimeError('needs another torch')")
    environments(room).lock("current")
    with pytest.raises(EnvFailed, match="RuntimeError: needs another torch") as caught:
        environments(room).build("current")
    assert caught.value.stage == "import"
    assert "importlib" not in caught.value.tail


def test_locking_without_upgrade_keeps_what_fits(room: Path) -> None:
    make_wheel(room / "wheels of mine", "peft", "0.7.0")
    environments(room).lock("current", upgrade=False)
    assert environments(room).locked_versions("current")["peft"] == "0.6.1"
    environments(room).lock("current")
    assert environments(room).locked_versions("current")["peft"] == "0.7.0"


def test_a_checkout_is_installed_over_current_and_not_written_to(room: Path) -> None:
    tree = checkout(room)
    before = sorted(tree.rglob("*"))
    described = environments(room).describe(str(tree))
    assert described.versions["peft"] == "0.99.dev0"
    built = environments(room).build(str(tree))
    assert (built.name, built.kind) == (described.name, "checkout")
    assert built.name.startswith("checkout-peft-")
    assert built.versions == {"helper": "1.5", "peft": "0.99.dev0", "torch": "2.13.0+cpu"}
    assert run(built.python, "import peft; print(peft.marker)") == "checked out"
    assert sorted(tree.rglob("*")) == before
    assert environments(room).gc(dry_run=False) == []


def test_a_changed_checkout_is_another_environment(room: Path) -> None:
    tree = checkout(room)
    first = environments(room).build(str(tree))
    checkout(room, "marker = 'changed'")
    second = environments(room).build(str(tree))
    assert first.name != second.name
    assert first.lock_digest != second.lock_digest
    assert run(second.python, "import peft; print(peft.marker)") == "changed"
    assert environments(room).gc(dry_run=True) == [first.python.parent.parent]
    assert len(environments(room).remove(str(tree))) == 2


def test_what_git_ignores_does_not_change_a_checkout(room: Path) -> None:
    tree = checkout(room)
    git(tree, "init", "-q")
    (tree / ".gitignore").write_text("ignored\n")
    name = environments(room).describe(str(tree)).name
    (tree / "ignored").touch()
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "first")
    assert environments(room).describe(str(tree)).name == name
    (tree / "new.py").touch()
    assert environments(room).describe(str(tree)).name != name


def test_a_git_address_at_a_ref(room: Path) -> None:
    tree = checkout(room)
    git(tree, "init", "-q")
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "first")
    git(tree, "tag", "-a", "v1", "-m", "v1")
    commit = git(tree, "rev-parse", "HEAD")
    git(tree, "switch", "-qc", "me/branch")
    checkout(room, "marker = 'on a branch'")
    git(tree, "commit", "-qam", "second")
    url = f"git+{tree.as_uri()}"
    tagged = environments(room).describe(f"{url}@v1")
    for ref in (commit, commit[:10], "main"):
        assert environments(room).describe(f"{url}@{ref}").name == tagged.name
    assert environments(room).describe(url).name == environments(room).describe(f"{url}@me/branch").name != tagged.name
    assert tagged.overlay is not None
    assert tagged.overlay.source.endswith(f"@{commit}")
    built = environments(room).build(f"{url}@me/branch")
    assert run(built.python, "import peft; print(peft.marker)") == "on a branch"
    assert environments(room).remove(f"{url}@me/branch") == [built.python.parent.parent]


def test_an_unknown_git_ref_is_reported(room: Path) -> None:
    tree = checkout(room)
    git(tree, "init", "-q")
    git(tree, "commit", "-q", "--allow-empty", "-m", "nothing in it")
    with pytest.raises(EnvFailed, match="cannot fetch nowhere") as caught:
        environments(room).describe(f"git+{tree.as_uri()}@nowhere")
    assert caught.value.stage == "resolve"
    with pytest.raises(UsageError, match="no Python project"):
        environments(room).describe(f"git+{tree.as_uri()}")


@pytest.mark.slow
def test_two_builders_at_once_build_once(room: Path) -> None:
    make_wheel(room / "wheels of mine", "peft", "0.7.0", "import time; time.sleep(1.5)")
    environments(room).lock("current")
    code = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from harness.envs.environments import Environments
        log = lambda line: print(line, flush=True)
        log(Environments(Path({str(room / "matrices")!r}), log=log).build("current").python)
        sys.stdin.read()
    """)
    pipe, command = subprocess.PIPE, [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline().startswith("building")
        # the first one uses what it has built, as long as it runs: the second one must not wait for its end
        second = subprocess.run(command, input="", capture_output=True, text=True, check=True, timeout=60)
        one = first.communicate(timeout=60)[0].splitlines()
    assert first.returncode == 0
    assert second.stdout.splitlines()[0].startswith("waiting for another process")
    assert second.stdout.splitlines()[1:] == one[-1:]


@pytest.mark.slow
def test_a_killed_build_is_repeated_by_the_next_one(room: Path) -> None:
    make_wheel(room / "wheels of mine", "peft", "0.7.0", "import time; time.sleep(60)")
    environments(room).lock("current")
    matrices = str(room / "matrices")
    code = (
        f"import pathlib, harness.envs.environments as e; e.Environments(pathlib.Path({matrices!r})).build('current')"
    )
    builder = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    deadline = time.monotonic() + 60
    while not list((room / "cache" / "envs").glob("current-*/lib/*/site-packages/peft.py")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(builder.pid, 9)
    builder.wait()
    half = next((room / "cache" / "envs").glob("current-*"))
    assert half in environments(room).gc(dry_run=True)  # and uv's working folder, where the kill came that early
    make_wheel(room / "wheels of mine", "peft", "0.7.0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UV_CACHE_DIR", str(room / "another cache of uv"))
        built = environments(room).build("current")
    assert built.python.parent.parent == half
