"""A known break does not hide another one: real known breaks, each broken further in one way."""

from __future__ import annotations

import pytest

from tests.integration.conftest import Broken, placed, run_broken

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("mutants")]

#: mutant, scenario, what the note says is not as known
TABLE = [
    ("none", "lokr-alpha-differs", ""),
    ("lokr_negative", "lokr-alpha-differs", "found ×-22.500"),
    ("lokr_not_a_number", "lokr-alpha-differs", "values that are not finite"),
    ("lokr_zero", "lokr-alpha-differs", "found the effect is 0"),
    ("lokr_base_off", "lokr-alpha-differs", "known is factor alpha/r"),
    ("lokr_half_fixed", "lokr-alpha-differs", "in 4 of 6 layers"),
    ("dropped", "lora-bias-all", "accounting lost-tensors: found"),
    ("scaling", "lora-bias-lora-only", "layers values is not known"),
    ("none", "lora-bias-all", ""),
    ("refusing_early", "lora-vit-suffix", "adapter · NoMatchingPeftModuleError"),
    ("none", "lora-vit-suffix", ""),
    ("config_changed", "tied-ensured-save-both", "roundtrip config: found lora_alpha"),
]
CREATORS = {
    "lokr-alpha-differs": "v061 v062 v071 v082 v090 v0100",
    "lora-bias-all": "v061 v062",
    "lora-vit-suffix": "v0140 v061",
    "tied-ensured-save-both": "v0181",
}
CELLS = placed([row[:2] for row in TABLE], CREATORS, "v061")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Broken:
    """One run with a break in each cell."""
    return run_broken(tmp_path_factory.mktemp("shapes"), CELLS, "--loader", "current")


@pytest.mark.parametrize(
    ("cell", "says"),
    [(cell, row[2]) for (cell, _), row in zip(CELLS, TABLE, strict=True)],
    ids=[f"{row[0]}-{row[1]}" for row in TABLE],
)
def test_what_deviates_otherwise_than_known_is_red_and_says_so(cell: str, says: str, broken: Broken) -> None:
    found = broken[cell]
    notes = [note for note in found.get("notes", []) if note.startswith("known break ")]
    assert found["expected"] == (not says), found["findings"]
    assert [says in note for note in notes] == ([True] if says else []), notes
