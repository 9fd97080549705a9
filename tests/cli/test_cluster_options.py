"""What cannot work with --cluster is refused before anything is checked, with the documented exit code."""

from __future__ import annotations

import sys

import pytest

from harness.cli.parser import arguments_of, options_of
from harness.runner import CheckRequest
from harness.runner.cluster import engine
from tests.end_to_end.test_environments import named
from tests.support.mini.world import World

__all__ = ["named"]
NOWHERE = "dask://127.0.0.1:1"


def test_without_dask_the_extra_is_named(mini: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    said = mini.run("check", "--cluster", NOWHERE, "--loader", mini.spec("2.0"))
    assert said.code == 64, said
    assert "--cluster: Dask is not installed here" in said.err
    assert "next: pip install 'peft-regress[cluster]'" in said.err


def test_an_address_of_another_form_is_refused(mini: World) -> None:
    pytest.importorskip("distributed")
    for wrong in ("ray://head:10001", "127.0.0.1:8786", "tcp://127.0.0.1:8786"):
        said = mini.run("check", "--cluster", wrong)
        assert said.code == 64, said
        assert f"--cluster '{wrong}'" in said.err
        assert "expected: dask://HOST:PORT" in said.err


def test_a_cluster_that_cannot_be_reached(mini: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(engine, "_CONNECT_S", 0.3)
    said = mini.run("check", "--cluster", NOWHERE, "--loader", mini.spec("2.0"))
    assert said.code == 2, said
    assert f"{NOWHERE} cannot be reached" in said.err
    assert "next: start it with `dask scheduler`" in said.err
    assert mini.report().interrupted, "--resume continues it"


def test_processes_of_this_machine_and_a_cluster_are_refused(mini: World) -> None:
    said = mini.run("check", "--cluster", NOWHERE, "-n", "2")
    assert said.code == 64, said
    assert "--cluster and -n" in said.err


def test_a_dry_run_needs_no_cluster(mini: World) -> None:
    assert mini.run("check", "--cluster", NOWHERE, "--dry-run").code == 0


def test_the_option_is_part_of_the_request() -> None:
    asked = CheckRequest(cluster=NOWHERE)
    assert options_of(CheckRequest, arguments_of(asked)) == asked
    assert options_of(CheckRequest, {"cluster": None}).cluster == ""
