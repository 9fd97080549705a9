"""A world of environments with different fake libraries, and a local index that has them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.mini.index import Index, serving
from tests.support.mini.world import World

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


@dataclass
class Libraries:
    """The world, its index, and the environments that a test declares."""

    world: World
    index: Index

    def declare(self, name: str, pins: Mapping[str, str], **more: Any) -> None:
        """An environment, locked."""
        lines = ["why = 'x'", f"python = '{PYTHON}'", *(f"{key} = {value!r}" for key, value in more.items()), "[pins]"]
        lines += [f"{package} = '{version}'" for package, version in pins.items()]
        (self.world.matrices / "envs" / f"{name}.toml").write_text("\n".join(lines) + "\n")
        said = self.world.run("env", "lock", name)
        assert said.code == 0, said

    def ends(self, old: Mapping[str, str], new: Mapping[str, str]) -> None:
        """Declares two environments: `old`, which makes the fixtures, and `current`."""
        self.declare("old", old)
        self.declare("current", new)
        said = self.world.run("create", "old", "-k", "two-layers")
        assert said.code == 0, said

    def data(self, command: str, *more: str) -> dict[str, Any]:
        """The answer of a command about the cell."""
        said = self.world.run(command, self.cell, "--json", *more)
        assert said.code == 0, said
        found: dict[str, Any] = json.loads(said.out)
        return found

    @property
    def cell(self) -> str:
        """The cell in question."""
        return "two-layers@old:current[cpu]"


@pytest.fixture
def libraries(empty: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Libraries]:
    """PEFT 70.0 is clean, 71.0 scales differently, 72.0 does so only with TRL 2.0; 73.1 raises with TRL 1.0."""
    for key in [key for key in os.environ if key.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(key)
    with serving(tmp_path / "wheels") as index:
        for release in ("1.0", "2.0", "2.1", "2.8", "5.0", "5.1", "5.2"):
            index.library(release)
        index.peft("70.0", "minipeft==1.0")
        index.peft("71.0", "minipeft==2.1")
        index.peft("72.0", "minipeft==5.0")
        index.peft("72.1", "minipeft==5.0")
        index.peft("73.1", "minipeft==5.1")
        index.peft("73.2", "minipeft==5.2")
        for version in ("1.0", "2.0"):
            index.package("trl", version, f"SECOND = {version == '2.0'}\n")
            index.package("idna", version)
            index.package("tqdm", version)
        (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {index.address}\n")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield Libraries(empty, index)
