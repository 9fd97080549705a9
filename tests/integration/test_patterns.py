"""The pattern of real breaks is said; an effect that moves with the base's weights is no break."""

from __future__ import annotations

import pytest

from tests.integration.conftest import Broken, kinds, placed, run_broken

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("mutants")]

#: mutant, scenario, the probe of the finding, how its message begins
TABLE = [
    ("none", "lokr-alpha-differs", "layers", "×3.000 = alpha/r in 6 of 6 layers"),
    ("none", "lora-bias-lora-only", "accounting", "all 4 tensors ….bias never arrive"),
    ("alpha_alone", "lora-linear", "layers", "×4.000 = r in 4 of 4 layers"),
    ("square_root", "lora-linear", "layers", "×2.000 = √r = 2 in 4 of 4 layers"),
    ("alpha_alone", "lora-rank-alpha-pattern", "layers", "×2.000 to ×5.000 = r in 8 of 8 layers"),
    ("opposite", "lora-linear", "layers", "the effect has the opposite sign in 4 of 4 layers"),
    ("switched_off", "lora-linear", "layers", "the effect is 0, as if there were no adapter, in 4 of 4 layers"),
    ("acts_transposed", "lora-linear", "layers", "the update acts transposed in 4 of 4 layers"),
    ("layers_swapped", "lora-linear", "layers", "model.layers.0.self_attn.q_proj and model.layers.1.self_attn.q_proj,"),
    ("rounded", "lora-linear", "layers", "the effect differs by as much as rounding to bfloat16 in 4 of 4 layers"),
    ("merged_twice", "lora-linear", "merged", "×2.000 = √r = 2 in 4 of 4 layers"),
    ("auto_forgets", "doors-lora", "door.auto", "the effect is 0, as if there were no adapter, in 2 of 2 layers"),
]
#: mutant, scenario, verdict, verdict of the probe `layers`
BASE_MOVED = [
    ("base_scaled", "lora-dora-opt", "base-moved", "base-moved"),
    ("base_scaled", "lora-dora-gpt2", "base-moved", "base-moved"),
    ("base_scaled", "oft-linear", "base-moved", "base-moved"),
    ("base_scaled", "ia3-linear", "base-moved", "base-moved"),
    ("base_scaled", "lora-linear", "base-moved", "close"),
    ("base_scaled_and_dora_dim", "lora-dora-opt", "silent-wrong", "silent-wrong"),
    ("base_scaled_and_scaling", "lora-dora-opt", "silent-wrong", "silent-wrong"),
    ("base_scaled_and_dora_attached", "lora-dora-opt", "silent-wrong", "base-moved"),
    ("base_scaled_and_no_gradient", "lora-linear", "silent-wrong", "close"),
]
CREATORS = {
    "lora-linear": "v061 v062 v071 v082 v090 v0100 v0111 v0120 v0132 v0140 v0152 v0160",
    "lora-dora-opt": "v0171 v0181 v0191 v0200",
    "lora-dora-gpt2": "v0181",
    "oft-linear": "v0200",
    "doors-lora": "v0140",
}
CELLS = placed([row[:2] for row in (*TABLE, *BASE_MOVED)], CREATORS, "v061")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Broken:
    """One run with a break in each cell."""
    return run_broken(tmp_path_factory.mktemp("patterns"), CELLS, "--loader", "current")


@pytest.mark.parametrize(
    ("cell", "probe", "says"),
    [(cell, *row[2:]) for (cell, _), row in zip(CELLS, TABLE, strict=False)],
    ids=[f"{row[0]}-{row[1]}" for row in TABLE],
)
def test_the_pattern_of_a_break_is_said_first(cell: str, probe: str, says: str, broken: Broken) -> None:
    messages = [finding["message"] for finding in broken[cell]["findings"] if finding["probe"] == probe]
    assert any(message.startswith(says) for message in messages), messages


@pytest.mark.parametrize(
    ("cell", "verdict", "layers"),
    [(cell, *row[2:]) for (cell, _), row in zip(CELLS[len(TABLE) :], BASE_MOVED, strict=True)],
    ids=[f"{row[0]}-{row[1]}" for row in BASE_MOVED],
)
def test_an_effect_moves_with_the_weights_of_the_base(cell: str, verdict: str, layers: str, broken: Broken) -> None:
    found = broken[cell]
    assert found["verdict"] == verdict, found["findings"]
    assert found["probes"]["layers"]["verdict"] == layers
    assert "base-moved" in kinds(found) or layers == "silent-wrong"
    if layers != "silent-wrong":
        ran = [probe for probe in found["probes"].values() if probe.get("golden_outcome", "ok") == "ok"]
        assert "not-comparable" not in [probe["verdict"] for probe in ran]
