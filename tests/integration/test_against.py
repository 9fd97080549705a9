"""`check --against` with the real PEFT: the worked example of docs/checking-a-pr.md, step by step."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from harness.core import run_file
from tests.support.mini.world import REPOSITORY

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """The script that makes the page."""
    spec = importlib.util.spec_from_file_location("checking_a_pr", REPOSITORY / "docs" / "checking_a_pr.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_worked_example(example: ModuleType, tmp_path: Path) -> None:
    """Untouched it is clean; with one line broken LoKr alone is checked, and is red; fixed, what was red is green."""
    tree = example.unpack(tmp_path)
    sound = example.check(tmp_path, "-k", "lokr or loha")
    assert sound.code == 0, sound
    example.edit(tree, example.SOUND, example.BROKEN)
    red = example.check(tmp_path, "--format", "markdown")
    assert red.code == 1, red
    assert red.said.startswith("**REGRESSED**")
    assert "- change: `peft 0.21.2 from my-peft`" in red.said
    run = run_file.load(example.newest(tmp_path))
    assert run.against is not None
    assert run.against.changed == (example.FILE,)
    assert {cell.method for cell in run.cells} == {"LoKr"}
    assert {cell.scenario for cell in run.deviations} >= {"lokr-alpha-differs", "lokr-conv2d"}
    assert "lora-linear" in run.left_out
    example.edit(tree, example.BROKEN, example.FIXED)
    green = example.check(tmp_path, "--last-red")
    assert green.code == 0, green
    again = run_file.load(example.newest(tmp_path))
    assert {cell.scenario for cell in again.cells} == {one.cell.partition("@")[0] for one in run.comparisons
                                                       if one.change == "regressed"}  # fmt: skip


def test_the_page_shows_what_the_example_prints(example: ModuleType) -> None:
    page = (REPOSITORY / "docs" / "checking-a-pr.md").read_text(encoding="utf-8")
    assert "@@" not in page
    assert example.BROKEN.strip() in page
    assert example.FILE in page
    comment = (REPOSITORY / "docs" / "checking-a-pr-comment.md").read_text(encoding="utf-8")
    assert "peft 0.21.2 from my-peft" in comment
    assert example.FILE in comment
