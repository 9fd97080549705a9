"""Repros of real cells: written, and their scripts run by the environments' interpreters, as a reader would do it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli import main
from harness.envs.environments import Environments

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("real")]

#: cell, what after.py prints or raises
CELLS = [
    ("lokr-alpha-differs@v061:current[cpu]", "logits: greatest difference"),
    ("lora-bias-all-mlp@v061:current[cpu]", "was True, is False"),
    ("lora-vit-suffix@v061:current[cpu]", "Target modules"),
    ("lora-tied-save-lm-head@v061:current[cpu]", "was False, is True"),
    ("prompt-tuning-classifier@v061:current[cpu]", "UnboundLocalError"),
    ("xlora-linear@v0140:current[cpu]", "greatest difference"),
]


def run(python: Path, script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """As a reader does it, but that nothing is fetched."""
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "HF_HUB_OFFLINE": "1"}
    return subprocess.run([python, script], cwd=folder, capture_output=True, text=True, env=environ, check=False)


FIRST, *OTHERS = [pytest.param(*row, id=row[0].partition(":")[0]) for row in CELLS]


@pytest.mark.parametrize(
    ("cell", "says"),
    [FIRST, *(pytest.param(*one.values, id=one.id, marks=pytest.mark.nightly) for one in OTHERS)],
)
def test_the_scripts_alone_show_it(cell: str, says: str, environments: Environments, tmp_path: Path) -> None:
    folder = tmp_path / "issue"
    words = ["repro", cell, "--no-verify", "--reports", str(tmp_path / "reports"), "--output", str(folder)]
    assert main.main(words) == 0
    creator, loader = (environments.build(name).python for name in (cell.split("@")[1].split(":")[0], "current"))

    assert run(creator, "before.py", folder).returncode == 0
    after = run(loader, "after.py", folder)

    assert after.returncode == 1, after
    assert says in after.stdout + after.stderr


def test_where_nothing_deviates_the_script_says_so(environments: Environments, tmp_path: Path) -> None:
    """The negative control: the very same scripts, with the creator's libraries on both sides."""
    folder = tmp_path / "issue"
    words = ["repro", "lokr-alpha-differs@v061:current[cpu]", "--no-verify", "--reports", str(tmp_path / "reports")]
    assert main.main([*words, "--output", str(folder)]) == 0
    creator = environments.build("v061").python
    assert run(creator, "before.py", folder).returncode == 0
    after = run(creator, "after.py", folder)
    assert after.returncode == 0, after
    assert "No deviation." in after.stdout


def test_verified_by_default_and_unknown_to_this_machine(
    mutant: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loader that is an interpreter, whose break is in no run: checked, written and run in one go."""
    cell = f"lora-linear@v061:{mutant('merged_twice')}[cpu]"
    words = ["repro", cell, "--reports", str(tmp_path / "reports"), "--output", str(tmp_path / "issue")]
    assert main.main(words) == 0
    assert "the deviation shows" in capsys.readouterr().err
    readme = (tmp_path / "issue" / "README.md").read_text()
    assert "It deviates." in readme
    assert "merge" in readme
    assert not (tmp_path / "issue" / "before.pt").exists()
    shutil.rmtree(tmp_path / "issue")
