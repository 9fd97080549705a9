"""Declared environments of the fake library, locked and built by the real uv from wheels that the tests make."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.mini import releases
from tests.support.mini.world import World, ended, scenario, until

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
DECLARED = 'why = "x"\npython = "{python}"\n[pins]\nminipeft = "{release}"\n'


@pytest.fixture
def named(empty: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world with environments `v1` and `current`, whose wheels only pip's configuration names."""
    for key in [key for key in os.environ if key.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(key)
    for release in ("1.0", "2.0", "2.1"):
        releases.wheel(tmp_path / "wheels", release)
    (tmp_path / "pip.conf").write_text(f"[global]\nno-index = true\nfind-links = {(tmp_path / 'wheels').as_uri()}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PEFT_REGRESS_CACHE", str(tmp_path / "cache"))
    for name, release in (("v1", "1.0"), ("current", "2.1")):
        declare(empty, name, release)
        assert empty.run("env", "lock", name).code == 0
    return empty


def figures(cell: Any) -> Any:
    """A cell of a report without its times and without the command that shows it."""
    if isinstance(cell, dict):
        return {key: figures(value) for key, value in cell.items() if not key.endswith("_s") and key != "reproduce"}
    return [figures(one) for one in cell] if isinstance(cell, list) else cell


def declare(world: World, name: str, release: str) -> None:
    (world.matrices / "envs" / f"{name}.toml").write_text(DECLARED.format(python=PYTHON, release=release))


def test_create_check_and_verify_by_names(named: World) -> None:
    said = named.run("create", "v1")
    assert said.code == 0, said
    assert "building v1: 1 package\n" in said.err
    assert [path.name for path in named.fixtures.glob("*.jsonl")] == ["v1.jsonl"]
    named.expect(loaders=["current"], creators=["v1"])
    said = named.spawn("check")
    assert said.code == 0, said
    assert "building current" in said.err, "printed during the build, not captured by pytest"
    assert named.cell("two-layers").id == "two-layers@v1:current[cpu]"
    assert named.cell("two-layers").reproduce.startswith(
        "peft-regress check --cell 'two-layers@v1:current[cpu]' --matrices "
    )
    assert "1 loads and computes the same" in said.line
    found = {one.name: one for one in named.report().environments}
    assert found["v1"].lock_digest
    assert found["v1"].versions["minipeft"] == "1.0"
    assert found["current"].kind == "named"
    assert named.run("fixtures", "verify", "--recreate", "v1").out.endswith("2 same\n")
    assert named.run("check", "--loader", "v1").code == 0


def test_environments_that_fail_are_env_failed(named: World) -> None:
    """A stale lock, no lock, and a lock of a package that disappeared: `env-failed` with the installer's message."""
    assert named.run("create", "v1").code == 0
    for name in ("stale", "unlocked", "vanished"):
        declare(named, name, "2.0")
    for name in ("stale", "vanished"):
        assert named.run("env", "lock", name).code == 0
    declare(named, "stale", "2.1")
    (named.root / "wheels" / "minipeft-2.0-py3-none-any.whl").unlink()
    loaders = [f"--loader={name}" for name in ("stale", "unlocked", "vanished", "current")]
    said = named.run("check", *loaders, "-k", "one-layer")
    assert said.code == 2, said
    cells = {cell.loader: cell for cell in named.report().cells}
    verdicts = {name: str(cell.verdict) for name, cell in cells.items()}
    assert verdicts == {**dict.fromkeys(["stale", "unlocked", "vanished"], "env-failed"), "current": "exact"}
    assert "stale" in cells["stale"].reason
    assert "lock" in cells["unlocked"].reason
    assert "peft-regress env lock unlocked" in cells["unlocked"].reason
    assert "minipeft==2.0" in cells["vanished"].log_tail
    failed = {one.name: one.failed for one in named.report().environments if one.failed}
    assert "minipeft==2.0" in failed["vanished"]


def test_an_edited_environment_is_env_failed_until_it_is_rebuilt(named: World) -> None:
    assert named.run("create", "v1").code == 0
    named.expect(loaders=["current"], creators=["v1"])
    assert named.run("check").code == 0
    assert named.run("env", "verify").code == 0
    edited = next((named.root / "cache" / "envs").glob("current-*/lib/*/site-packages/minipeft.py"))
    edited.write_text(edited.read_text() + "\n# looked at\n")

    said = named.run("check")
    assert said.code == 2, said
    assert set(named.verdicts().values()) == {"env-failed", "unsupported"}
    assert "minipeft.py (minipeft 2.1) differs" in named.cell("two-layers").reason
    assert "peft-regress env build --rebuild current" in named.cell("two-layers").reason

    said = named.run("env", "verify")
    assert said.code == 2, said
    assert "minipeft.py (minipeft 2.1) differs" in said.out
    assert "1 changed" in said.err
    assert "rebuild it with: peft-regress env build --rebuild current" in said.err

    assert named.run("env", "build", "--rebuild", "current").code == 0
    assert named.run("check").code == 0
    said = named.run("env", "verify", "current", "--json")
    assert said.code == 0, said
    assert [one["differences"] for one in json.loads(said.out)] == [[]]


def test_nothing_verified_is_no_success(named: World) -> None:
    assert named.run("env", "verify").code == 2
    said = named.run("env", "verify", "v1")
    assert said.code == 2, said
    assert "peft-regress env build v1" in said.err
    assert named.run("env", "verify", "nowhere").code == 64
    assert named.run("env", "build", "--rebuild").code == 64


def test_gc_during_a_check_keeps_its_environment(named: World) -> None:
    named.scenarios(scenario("slow", fault="wait"), file="a-slow")
    named.gate.touch()
    assert named.run("create", "v1").code == 0
    named.gate.unlink()
    named.trace.unlink(missing_ok=True)
    named.expect(loaders=["current"], creators=["v1"], scenarios=["two-layers", "slow"])
    check = named.start("check")
    until(lambda: "slow" in named.traced("replay"), "the check did not come so far")
    (used,) = (named.root / "cache" / "envs").glob("current-*")
    declare(named, "current", "2.0")
    assert named.run("env", "lock", "current").code == 0

    said = named.run("env", "gc")
    assert said.code == 0, said
    assert f"kept, because another process builds or uses it: {used}" in said.err
    assert used.exists()
    assert "another process uses it" not in named.run("env", "rm", "v1").err

    named.gate.touch()
    said = ended(check)
    assert said.code == 0, said
    assert str(used) in named.run("env", "gc").out
    assert not used.exists()


def test_equal_runs_have_equal_figures(mini: World, tmp_path: Path) -> None:
    """Neither cells at once, order, hash seed, folder nor reuse of results changes a report but for times and names."""
    assert mini.run("create", mini.spec("1.0")).code == 0
    first = mini.command("check", "--loader", mini.spec("2.1"), "--jobs", "1", "--each")
    other = mini.command("check", "--loader", mini.spec("2.1"), "--jobs", "3", "-k", "layer")
    found = []
    for command, more in ((first, {}), (other, {"PYTHONHASHSEED": "7", "HOME": str(tmp_path)})):
        subprocess.run(command, env=mini.environ() | more, cwd=tmp_path if more else None, capture_output=True)
        cells = json.loads((mini.folder() / "report.json").read_text())["cells"]
        found.append({cell["id"]: figures(cell) for cell in cells})
    common = found[0].keys() & found[1].keys()
    assert len(common) > 1
    assert {id: found[0][id] for id in common} == {id: found[1][id] for id in common}
