"""What a change breaks where the golden cannot tell, with the real PEFT; and what is no break."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.integration.conftest import MUTANTS, Said, kinds

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("side_by_side")]

#: adapter, what the change does, the verdict, the probe and the kind of a finding that says it
TABLE = [
    ("lora-dropout@v061", "late_dropout", "silent-wrong", "train", "baseline-values"),
    ("lora-dropout@v0140", "coarse_training", "silent-wrong", "train", "baseline-values"),
    ("lora-linear@v061", "stays_frozen", "contract", "second", "trainable-back"),
    ("lora-linear@v0140", "extra_key", "contract", "roundtrip", "added"),
    ("lora-linear@v0160", "other_class", "contract", "structure", "classes"),
    ("lora-linear@v0171", "other_default", "contract", "roundtrip", "config"),
    ("beft-linear@v0200", "other_error", "contract", "merged", "error"),
]
HARMLESS = [("lora-linear@v0181", "none"), ("lora-linear@v0191", "reordered"), ("lora-dropout@v0181", "reordered")]
LISTED = [
    ("lora-linear@v0200", "logging", "new warning: peft: loading"),
    ("tied-lokr-lm-head@v0140", "no_warning", "no longer warns: UserWarning: Model with `tie_word_embeddings=True`"),
]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory, mutant: Callable[..., str]) -> Said:
    """One check of a change that breaks each adapter in its own way; the baseline is sound."""
    breaks = {f"{cell}:python": name for cell, name, *_ in (*TABLE, *HARMLESS, *LISTED)}
    cells = [cell.partition(":")[0] for cell in breaks]
    return Said.of(
        tmp_path_factory.mktemp("sides"), "check", "--against", mutant("none"), "--each",
        "--worker-handler", str(MUTANTS / "per_cell.py"), *(f"--cell={cell}:*" for cell in cells),
        "--changed-files", "peft/peft_model.py",
        PEFT_REGRESS_MUTANTS=json.dumps(breaks),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("adapter", "verdict", "probe", "kind"), [(row[0], *row[2:]) for row in TABLE], ids=[row[1] for row in TABLE]
)
def test_a_break_that_the_golden_cannot_see_is_red(
    adapter: str, verdict: str, probe: str, kind: str, said: Said
) -> None:
    (cell,) = [cell for cell in said.report["cells"] if cell["id"].startswith(f"{adapter}:")]
    assert cell["verdict"] == verdict, cell
    assert any(each["probe"] == probe and each["kind"].startswith(kind) for each in cell["findings"]), kinds(cell)
    assert _changes(said)[adapter] == "regressed"


@pytest.mark.parametrize("adapter", [row[0] for row in HARMLESS])
def test_no_break_is_no_alarm(adapter: str, said: Said) -> None:
    assert adapter not in _changes(said)


@pytest.mark.parametrize(("adapter", "text"), [(row[0], row[2]) for row in LISTED], ids=[row[1] for row in LISTED])
def test_warnings_are_listed(adapter: str, text: str, said: Said) -> None:
    assert _changes(said).get(adapter) in (None, "still")
    (note,) = [note for note in said.report["notes"] if text in note]
    assert adapter in note


def _changes(said: Said) -> dict[str, str]:
    return {each["cell"].partition(":")[0]: each["change"] for each in said.report["comparisons"]}
