"""Every check fails once on purpose: the real PEFT, broken in one way a cell, under real fixtures."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.conftest import Broken, Said, kinds, placed, run_broken

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("mutants")]

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
    ("gradient_scaled", "lora-mlp", "silent-wrong", "values"),
    ("no_dropout", "lora-dropout", "contract", "train-mode"),
    ("not_saved", "lora-linear", None, "roundtrip-keys"),
    ("not_saved", "lora-linear", "silent-wrong", "reloaded-differs"),
    ("not_saved", "ia3-linear", "silent-wrong", "written-keys"),
    ("saved_in_half", "lora-linear", None, "written-dtype"),
    ("config_changed", "lora-linear", None, "config"),
    ("raising", "lora-linear", "run-error", "error"),
    ("refusing", "lora-linear", "load-error", "error"),
    ("dying", "lora-linear", "crash", "crash"),
    ("warning", "lora-linear", "warned", "new-warning"),
    ("auto_forgets", "doors-lora", "silent-wrong", "auto-differs"),
    ("inject_drops", "doors-lora", "silent-wrong", "inject-lost-tensors"),
    ("second_refuses", "doors-lora", None, "load-adapter-error"),
    ("dropped", "wrap-attribute-both", "silent-wrong", "lost-tensors"),
    ("none", "lora-linear", "exact", None),
    ("none", "doors-lora", "close", None),
]
CREATORS = {
    "lora-linear": "v061 v062 v071 v082 v090 v0100 v0111 v0120 v0132 v0140 v0152 v0160 v0171 v0181 v0191 v0200 v0212",
    "ia3-linear": "v061 v0140",
    "doors-lora": "v0140 v0181 v0212 v0120",
}
"""Scenario → creators whose fixtures of it are sound under `current`; one break each. Others have v061's."""


CELLS = placed([(name, scenario) for name, scenario, _, _ in TABLE], CREATORS, "v061")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Broken:
    """One run with a break in each cell."""
    return run_broken(tmp_path_factory.mktemp("mutants"), CELLS, "--loader", "current")


@pytest.mark.parametrize(
    ("cell", "verdict", "kind"),
    [(cell, verdict, kind) for (cell, _), (_, _, verdict, kind) in zip(CELLS, TABLE, strict=True)],
    ids=[f"{name}-{scenario}" for name, scenario, _, _ in TABLE],
)
def test_a_break_is_seen(cell: str, verdict: str | None, kind: str | None, broken: Broken) -> None:
    found = broken[cell]
    assert kind is None or kind in kinds(found), found
    assert verdict in (None, found["verdict"]), found


def test_no_break_is_no_alarm(mutant: Callable[[str], str], peft_regress: Callable[..., Said]) -> None:
    """The same way into the libraries, in a process of its own, and nothing broken."""
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
