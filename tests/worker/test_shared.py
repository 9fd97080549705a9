"""The protocol: each name that the controller knows has its function in the worker, and the reverse."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

from harness.worker import files, process, shared
from harness.worker.compat import load_paths
from harness.worker.model import wrappers
from harness.worker.observe import further, probes, probes_declared, steps

DONE = [
    ("PROBES", [*shared.PROBES], [*probes.PROBES, *probes_declared.PROBES, *further.PROBES]),
    ("LOAD_PATHS", [*shared.LOAD_PATHS], [*load_paths.LOAD_PATHS]),
    ("WRAPPERS", [*shared.WRAPPERS], [*wrappers.WRAPPERS, shared.ADAPTER_PLACE]),
    ("STEPS", [*shared.STEPS], [*steps.STEPS]),
]


@pytest.mark.parametrize(("declared", "done"), [row[1:] for row in DONE], ids=[row[0] for row in DONE])
def test_every_name_has_its_function_in_the_same_order(declared: list[str], done: list[str]) -> None:
    assert declared == done


def test_a_request_asks_for_what_the_server_knows() -> None:
    assert get_args(shared.Kind) == shared.KINDS


@pytest.mark.parametrize("module", [shared, process, files], ids=["shared", "process", "files"])
def test_it_needs_nothing_but_the_standard_library_and_the_syntax_of_38(module: ModuleType) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"), feature_version=(3, 8))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported <= sys.stdlib_module_names
