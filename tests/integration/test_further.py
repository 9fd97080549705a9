"""Each further probe sees an edit of the real PEFT that no other probe sees: `mutants/edits.toml`, all in one tree."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.envs.environments import Environments
from tests.integration.conftest import MUTANTS, Said

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("further")]

EDITS: list[Mapping[str, str]] = tomllib.loads((MUTANTS / "edits.toml").read_text(encoding="utf-8"))["edit"]
SCENARIOS = tuple(sorted({edit["scenario"] for edit in EDITS}))

Findings = Mapping[str, list[Mapping[str, Any]]]


def _copy_of_peft(environments: Environments, folder: Path) -> tuple[str, Path]:
    """A `python:` loader whose PEFT is a copy, and that copy."""
    python = environments.build("current").python
    (package,) = python.parent.parent.glob("lib/python3*/site-packages/peft")
    copy = folder / "edited" / "peft"
    shutil.copytree(package, copy)
    script = folder / "python-edited"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{copy.parent}" exec "{python}" "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return f"python:{script}", copy


def _check(folder: Path, loader: str) -> Said:
    cells = [f"--cell={scenario}@v061:*" for scenario in SCENARIOS]
    return Said.of(folder, "check", "--against", loader, "--baseline", "current", "--creator", "v061", *cells)


@pytest.fixture(scope="module")
def found(environments: Environments, tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """Scenario → its findings, with all edits in one copy of PEFT."""
    folder = tmp_path_factory.mktemp("edits")
    loader, copy = _copy_of_peft(environments, folder)
    for edit in EDITS:
        file = copy / edit["file"]
        text = file.read_text(encoding="utf-8")
        assert text.count(edit["old"]) == 1, f"{edit['file']} has it {text.count(edit['old'])} times: {edit['old']}"
        file.write_text(text.replace(edit["old"], edit["new"]), encoding="utf-8")
    said = _check(folder, loader)
    assert said.code == 1, said
    return {cell["scenario"]: cell["findings"] for cell in said.report["cells"]}


@pytest.mark.parametrize("edit", EDITS, ids=[edit["what"].replace(" ", "-") for edit in EDITS])
def test_an_edit_is_seen(edit: Mapping[str, str], found: Findings) -> None:
    own = [each for each in found[edit["scenario"]] if (each["probe"], each["kind"]) == (edit["probe"], edit["kind"])]
    said = [" ".join([each["message"], *each.get("details", ())]) for each in own]
    assert any(edit["words"] in text for text in said), [
        (each["probe"], each["kind"], each["message"]) for each in found[edit["scenario"]]
    ]


def test_an_untouched_copy_is_no_alarm(environments: Environments, tmp_path: Path) -> None:
    loader, _ = _copy_of_peft(environments, tmp_path)
    said = _check(tmp_path, loader)
    assert said.code == 0, said
    assert [cell["findings"] for cell in said.report["cells"]] == [[]] * len(SCENARIOS)
