"""Declared environments of the fake library, locked and built by the real uv from wheels that the tests make."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.mini import releases
from tests.support.mini.world import World

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


def declare(world: World, name: str, release: str) -> None:
    (world.matrices / "envs" / f"{name}.toml").write_text(DECLARED.format(python=PYTHON, release=release))


def test_create_check_and_verify_by_names(named: World) -> None:
    said = named.run("create", "v1")
    assert said.code == 0, said
    assert "building v1: 1 packages" in said.err
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
