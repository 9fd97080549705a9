"""Stored adapters on two nodes that build real environments, one of which is killed: the report of a check here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.core import run_file
from harness.core.run import Run
from tests.support.cluster import Cluster, told
from tests.support.mini.world import REPOSITORY, until

pytestmark = [pytest.mark.integration, pytest.mark.nightly]


def newest(reports: Path) -> Run:
    return run_file.load(max(reports.iterdir(), key=lambda path: path.stat().st_mtime_ns))


def test_a_node_is_killed_while_it_replays_stored_adapters(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "harness", "check", "-k", "loha-linear or loha-mlp", "--fresh"]
    assert subprocess.run([*command, "--reports", str(tmp_path / "here")], env=environ, check=False).returncode == 0
    cluster = Cluster(environ, tmp_path / "cluster")
    try:
        for name in ("one", "two"):
            cluster.node(name)
        cluster.ready()
        on_cluster = [*command, "--cluster", cluster.address, "--reports", str(tmp_path / "there")]
        with subprocess.Popen(on_cluster, env=environ, stderr=subprocess.PIPE, text=True) as run:
            until(cluster.computes)
            os.kill(cluster.computes(), signal.SIGKILL)
            _, said = run.communicate()
        assert run.returncode == 0, said
        assert "ended; its" in said
    finally:
        cluster.end()
    here, there = newest(tmp_path / "here"), newest(tmp_path / "there")
    assert json.dumps(told(there), sort_keys=True) == json.dumps(told(here), sort_keys=True)
    assert len(there.cells) >= 30
    assert any(cell.same_as for cell in there.cells), "cells that share a replay are in one batch"
