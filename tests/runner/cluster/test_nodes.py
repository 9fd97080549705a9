"""Nodes that would give other results are left out, with the reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.core.errors import ExitCode, UsageError
from harness.runner.cluster import nodes
from harness.runner.cluster.engine import address_of
from harness.runner.cluster.nodes import Fitting

OWN = nodes.facts()


def test_a_node_like_the_controller_fits() -> None:
    assert Fitting(OWN).choose({"a": OWN, "b": OWN}) == {}


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (replace(OWN, python="3.9"), f"Python 3.9, and Python {OWN.python} here"),
        (replace(OWN, code="0"), f"peft-regress {OWN.version}, and the same version with other files here"),
        (replace(OWN, code="0", version="0.0.1"), f"peft-regress 0.0.1, and {OWN.version} here"),
        (replace(OWN, kind="0", processor="Abacus"), f"another kind of machine ({OWN.system}, Abacus)"),
        ("peft-regress is not installed there", "peft-regress is not installed there"),
    ],
)
def test_another_node_is_left_out(said: nodes.Facts | str, why: str) -> None:
    assert Fitting(OWN).choose({"a": OWN, "b": said}) == {"b": why}


def test_a_cluster_of_another_kind_of_machine_is_used_if_all_nodes_are_alike() -> None:
    fitting, other = Fitting(OWN), replace(OWN, kind="other")
    assert fitting.choose({"a": other, "b": other, "c": replace(OWN, kind="third")}) != {}
    assert fitting.kind == "other"
    assert set(fitting.choose({"d": other, "e": replace(OWN, kind="third"), "f": OWN})) == {"e", "f"}, "also later"


def test_the_error_names_each_node_and_what_to_do() -> None:
    error = nodes.none_fits("dask://x:1", {"tcp://y:2": "Python 3.9, and Python 3.11 here"})
    assert str(error).splitlines() == [
        "dask://x:1: no node can be used",
        "  tcp://y:2: Python 3.9, and Python 3.11 here",
        "  expected: a node with the same peft-regress and Python as here, and one kind of machine",
        "  next: install the same version on the nodes and start them again",
    ]
    assert error.exit_code is ExitCode.CANNOT_TELL


def test_addresses() -> None:
    assert address_of("dask://host:8786") == "tcp://host:8786"
    assert address_of("dask+tls://host:8786/") == "tls://host:8786"
    assert address_of("dask://[::1]:8786") == "tcp://[::1]:8786"


@pytest.mark.parametrize(
    "wrong", ["host:8786", "ray://host:1", "dask://host", "dask://:8786", "dask://h:x", "dask://h:0"]
)
def test_other_addresses_are_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match="dask://HOST:PORT of a Dask scheduler"):
        address_of(wrong)
