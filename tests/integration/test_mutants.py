"""Every check fails once on purpose: the real PEFT, broken in one way, under real fixtures of 0.6.1."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.conftest import Said

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("real")]

#: mutant, scenario, verdict, a kind of finding that must be there
TABLE = [
    ("scaling", "lora-linear", "silent-wrong", "values"),
    ("swapped", "lora-linear", "silent-wrong", "values"),
    ("layers_swapped", "lora-linear", "silent-wrong", "values"),
    ("dropped", "lora-linear", "silent-wrong", "lost-tensors"),
    ("dropped", "lora-save-norms", "load-error", "error"),
    ("dropped", "ia3-linear", "silent-wrong", "lost-tensors"),
    ("dropped", "loha-linear", "silent-wrong", "lost-tensors"),
    ("transposed", "lokr-alpha-equals-r", "silent-wrong", "values"),
    ("rounded", "lora-linear", "silent-wrong", "values"),
    ("merged_twice", "lora-linear", "silent-wrong", "differs-from-forward"),
    ("base_touched", "lora-linear", None, "base-weights"),
    ("frozen", "lora-linear", "contract", "trainability"),
    ("no_dropout", "lora-dropout", "contract", "train-mode"),
    ("not_saved", "lora-linear", None, "roundtrip-keys"),
    ("config_changed", "lora-linear", None, "config"),
    ("raising", "lora-linear", "run-error", "error"),
    ("refusing", "lora-linear", "load-error", "error"),
    ("dying", "lora-linear", "crash", "crash"),
    ("warning", "lora-linear", "warned", "new-warning"),
    ("auto_forgets", "doors-lora", "silent-wrong", "auto-differs"),
    ("inject_drops", "doors-lora", "silent-wrong", "inject-lost-tensors"),
    ("second_refuses", "doors-lora", None, "load-adapter-error"),
    ("dropped", "wrap-attribute-both", "silent-wrong", "lost-tensors"),
]


@pytest.mark.parametrize(("name", "scenario", "verdict", "kind"), TABLE, ids=[f"{t[0]}-{t[1]}" for t in TABLE])
def test_a_break_is_seen(
    name: str,
    scenario: str,
    verdict: str | None,
    kind: str,
    mutant: Callable[[str], str],
    peft_regress: Callable[..., Said],
) -> None:
    said = peft_regress("check", "--creator", "v061", "--loader", mutant(name), "--cell", f"{scenario}@*")

    assert kind in said.kinds(scenario), said.report["cells"]
    assert verdict in (None, said.verdicts[scenario])
    assert said.code == (0 if verdict == "warned" else 1)


def test_no_break_is_no_alarm(mutant: Callable[[str], str], peft_regress: Callable[..., Said]) -> None:
    sound = "lora-linear or ia3-linear or loha-linear"
    said = peft_regress("check", "--creator", "v061", "--loader", mutant("none"), "-k", sound)

    assert set(said.verdicts.values()) - {"unsupported"} <= {"exact", "close"}
    assert len(said.verdicts) - list(said.verdicts.values()).count("unsupported") >= 3
    assert len(said.verdicts) >= 6
    assert said.code == 0


@pytest.mark.parametrize(("name", "verdict"), [("none", "exact"), ("layers_swapped", "silent-wrong")])
def test_other_names_do_not_blind_the_layers_probe(
    name: str, verdict: str, mutant: Callable[[str], str], peft_regress: Callable[..., Said]
) -> None:
    """A LLaVA's layers moved: each is fed alone all the same, and two that changed places are found by that."""
    scenario = "lora-llava-language-loose"
    said = peft_regress("pair", "--creator", "v0140", "--loader", mutant(name), "-k", scenario)

    (cell,) = [cell for cell in said.report["cells"] if cell["scenario"] == scenario]
    assert cell["verdict"] == verdict, cell
    assert cell["probes"]["layers"]["figures"], "no layer was fed"
    found = {finding["kind"] for finding in cell["findings"] if finding["probe"] == "layers"}
    assert found == ({"values"} if name != "none" else set())
