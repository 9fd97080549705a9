"""Cells that attack, with the real worker and libraries: each has its own verdict, and no other cell suffers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.core.verdict import Verdict
from tests.integration.conftest import MUTANTS, Said
from tests.support.mini.world import until

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.nightly]

ATTACKS = {
    # creator of lora-linear: attack, verdict
    "v071": ("before_breaking_and_forging", "silent-wrong"),
    "v082": ("after_fifo", "not-comparable"),
    "v090": ("after_endless_file", "not-comparable"),
    "v0100": ("after_detaching", "clean"),
    "v0111": ("before_lying_about_its_process", "clean"),
    "v0120": ("after_flooding", "clean"),
    "v0132": ("before_killing_the_worker", "crash"),
    "v0140": ("after_stopping_the_worker", "clean"),
    "v0152": ("before_multiplying", "crash"),
    "v0160": ("before_waiting_forever", "timeout"),
    "v0171": ("after_linking", "clean"),
    "v0181": ("", "clean"),
    "v0191": ("", "clean"),
}


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Mapping[str, Any]]:
    """Creator → its cell, of one run with two cells at once."""
    folder = tmp_path_factory.mktemp("attacks")
    attacks = {f"lora-linear@{creator}": attack for creator, (attack, _) in ATTACKS.items()}
    said = Said.of(
        folder, "check", "--each", "--jobs", "2", "--time-limit", "30", "--loader", "current", "-k", "lora-linear",
        "--worker-handler", str(MUTANTS / "attacking.py"),
        *(f"--creator={creator}" for creator in ATTACKS), *(f"--cell={cell}:*" for cell in attacks),
        PEFT_REGRESS_ATTACKS=json.dumps(attacks), PEFT_REGRESS_MARK=str(folder), TMPDIR=str(folder),
    )  # fmt: skip
    assert said.code == 1, said
    assert [path.name for path in folder.iterdir()] == ["reports"], "nothing is left among temporary files"
    found = {cell["creator"]: cell for cell in said.report["cells"]}
    return {"": {"mark": str(folder)}, **found}


@pytest.mark.parametrize("creator", ATTACKS)
def test_each_cell_has_its_own_verdict(cells: Mapping[str, Mapping[str, Any]], creator: str) -> None:
    found = Verdict(cells[creator]["verdict"])
    assert ("clean" if found.is_clean else found) == ATTACKS[creator][1], cells[creator]


def test_no_process_is_left(cells: Mapping[str, Mapping[str, Any]]) -> None:
    mark = cells[""]["mark"].encode()

    def left() -> list[str]:
        return [str(path) for path in Path("/proc").glob("[0-9]*/cmdline") if mark in path.read_bytes()]

    until(lambda: not left())
