"""Real environments, built once for all integration tests (seconds where they are built already)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.envs.environments import Environments
from tests.support.mini.world import REPOSITORY
from tests.support.own.made import Maker

MUTANTS = Path(__file__).parent / "mutants"


@dataclass(frozen=True)
class Said:
    """What a run of the command line left behind."""

    code: int
    out: str
    err: str
    report: Mapping[str, Any]

    @classmethod
    def of(cls, folder: Path, *arguments: str, **environ: str) -> Said:
        """Run the command line in a process of its own; its reports go to `reports` in this folder.

        Args:
            environ: environment variables, besides those of this process.
        """
        reports = folder / "reports"
        command = [sys.executable, "-m", "harness", *arguments, "--reports", str(reports)]
        done = subprocess.run(
            command, cwd=REPOSITORY, env=os.environ | environ, capture_output=True, text=True, timeout=600, check=False
        )
        found = sorted(reports.glob("*/report.json"), key=lambda path: path.stat().st_mtime)
        return cls(done.returncode, done.stdout, done.stderr, json.loads(found[-1].read_text()) if found else {})

    @property
    def verdicts(self) -> dict[str, str]:
        """Scenario → verdict."""
        return {cell["scenario"]: cell["verdict"] for cell in self.report["cells"]}

    def kinds(self, scenario: str) -> set[str]:
        """The kinds of finding of one scenario's cell."""
        cell = next(c for c in self.report["cells"] if c["scenario"] == scenario)
        return {finding["kind"] for finding in cell["findings"]}


@pytest.fixture(scope="session")
def environments() -> Environments:
    """The repository's environments, in the usual cache."""
    return Environments(REPOSITORY / "matrices", log=lambda line: print(line, file=sys.stderr))


@pytest.fixture
def peft_regress(tmp_path: Path) -> Callable[..., Said]:
    """The command line, in a process of its own; reports go to a folder of the test."""

    def run(*arguments: str, **environ: str) -> Said:
        return Said.of(tmp_path, *arguments, **environ)

    return run


@pytest.fixture(scope="session")
def own_adapters(
    environments: Environments, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Maker:
    """Adapters as users make them (`tests/support/own/train.py`), made once and kept in pytest's cache."""
    cache = getattr(request.config, "cache", None)  # none with `-p no:cacheprovider`
    return Maker(environments, cache.mkdir("own-adapters") if cache else tmp_path_factory.mktemp("own-adapters"))


@pytest.fixture(scope="session")
def mutant(environments: Environments, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """A `python:` loader: an environment with PEFT broken in one way."""

    def make(name: str, environment: str = "current") -> str:
        python = environments.build(environment).python
        script = tmp_path_factory.mktemp("mutants") / f"python-{name}"
        script.write_text(
            f'#!/bin/sh\nPEFT_REGRESS_MUTANT={name} PYTHONPATH="{MUTANTS}" exec "{python}" "$@"\n', encoding="utf-8"
        )
        os.chmod(script, 0o755)  # noqa: PTH101 - as plain as it gets
        return f"python:{script}"

    return make


Broken = Mapping[str, Mapping[str, Any]]
"""`scenario@creator` → the cell in report.json."""


def placed(breaks: Sequence[tuple[str, str]], creators: Mapping[str, str], otherwise: str) -> list[tuple[str, str]]:
    """A cell for each break, as (`scenario@creator`, break): of one scenario each creator's fixture takes one.

    Args:
        breaks: break and scenario.
        creators: scenario → creators whose fixtures of it are sound, apart from `otherwise`.
    """
    free = {scenario: iter(creators.get(scenario, otherwise).split()) for _, scenario in breaks}
    return [(f"{scenario}@{next(free[scenario])}", name) for name, scenario in breaks]


def run_broken(folder: Path, cells: Sequence[tuple[str, str]], *arguments: str) -> Broken:
    """Check these cells in one run, each with the real PEFT broken in its own way (`mutants/per_cell.py`)."""
    said = Said.of(
        folder, "check", "--each", "--worker-handler", str(MUTANTS / "per_cell.py"), *arguments,
        *(f"--creator={creator}" for creator in sorted({cell.partition("@")[2] for cell, _ in cells})),
        *(f"--cell={cell}:*" for cell, _ in cells),
        PEFT_REGRESS_MUTANTS=json.dumps(dict(cells)),
    )  # fmt: skip
    assert said.code == 1, said
    return {f"{cell['scenario']}@{cell['creator']}": cell for cell in said.report["cells"]}


def kinds(cell: Mapping[str, Any]) -> set[str]:
    """The kinds of finding of a cell."""
    return {finding["kind"] for finding in cell["findings"]}
