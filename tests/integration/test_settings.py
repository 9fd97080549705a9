"""Real adapters of 0.6.1 in the precision and with the attention that people use, and the real PEFT broken there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.conftest import Broken, Said, kinds, placed, run_broken

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("real")]

SOUND = {"exact", "close", "warned", "unsupported"}
CELLS = ("--creator", "v061", "--cell", "lora-linear@*")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sound_adapters_pass_in_a_narrow_type(dtype: str, peft_regress: Callable[..., Said]) -> None:
    wanted = "lora-linear or lokr-alpha or ia3-t5 or prompt-tuning-t5"
    said = peft_regress("check", "--creator", "v061", "--loader", "current", "--dtype", dtype, "-k", wanted)

    wrong = {cell["scenario"] for cell in said.report["cells"] if cell["verdict"] not in SOUND and not cell["expected"]}
    assert not wrong, said.out
    cell = next(cell for cell in said.report["cells"] if cell["scenario"] == "lora-linear")
    assert (cell["verdict"], cell["id"][-len(dtype) - 6 :]) == ("close", f"[cpu+{dtype}]")
    judged = [f for probe in cell["probes"].values() for f in probe.get("figures", ()) if f"/{dtype}/" in f["array"]]
    assert judged
    assert all(0 < f["max_abs"] <= f["allowance"] for f in judged if f["array"].startswith(("forward", "layers")))
    assert said.code == 0


#: break, verdict and a kind of finding in bfloat16; whether float32 shows it too
TABLE = [
    ("narrow_scaling", "silent-wrong", "bfloat16-values", False),
    ("narrow_dropped", "silent-wrong", "bfloat16-values", False),
    ("scaling", "silent-wrong", "values", True),
    ("dropped", "silent-wrong", "lost-tensors", True),
    ("swapped", "silent-wrong", "values", True),
    ("second_in_half", "contract", "load-adapter-dtype", False),
    ("none", "close", None, False),
]
BROKEN = placed(
    [(name, "lora-linear") for name, *_ in TABLE], {"lora-linear": "v0140 v0152 v0160 v0171 v0181 v0191 v0132"}, "v061"
)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Broken, Broken]:
    """One run in bfloat16 and one in float32, with a break in each cell."""
    folder = tmp_path_factory.mktemp("narrow")
    narrow = run_broken(folder / "bfloat16", BROKEN, "--loader", "current", "--dtype", "bfloat16")
    return narrow, run_broken(folder / "float32", BROKEN, "--loader", "current")


@pytest.mark.parametrize(
    ("cell", "verdict", "kind", "wide"),
    [(cell, *row[1:]) for (cell, _), row in zip(BROKEN, TABLE, strict=True)],
    ids=[row[0] for row in TABLE],
)
def test_a_break_in_the_narrow_type_is_seen(
    cell: str, verdict: str, kind: str | None, wide: bool, broken: tuple[Broken, Broken]
) -> None:
    narrow, float32 = broken
    assert narrow[cell]["verdict"] == verdict
    assert kind is None or kind in kinds(narrow[cell])
    assert (float32[cell]["verdict"] not in SOUND) is wide, "a break of the narrow type alone shows only there"


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_sound_adapters_pass_with_each_attention(attention: str, peft_regress: Callable[..., Said]) -> None:
    wanted = "lora-linear or lora-bias-all-mlp or lora-tied-embedding-opt or prefix-tuning-gpt2"
    arguments = ("--creator", "v061", "--loader", "current", "--attention", attention, "-k", wanted)
    said = peft_regress("check", *arguments)

    wrong = {cell["scenario"] for cell in said.report["cells"] if cell["verdict"] not in SOUND and not cell["expected"]}
    assert not wrong, said.out
    assert said.verdicts["lora-linear"] in ("exact", "close")


def test_a_release_without_a_choice_says_so(peft_regress: Callable[..., Said]) -> None:
    said = peft_regress("check", *CELLS, "--loader", "v061", "--attention", "sdpa")

    (cell,) = said.report["cells"]
    assert cell["verdict"] == "unsupported"
    assert "has no attn_implementation" in cell["reason"]


def test_flash_attention_needs_a_gpu(peft_regress: Callable[..., Said]) -> None:
    said = peft_regress("check", *CELLS, "--loader", "current", "--attention", "flash_attention_2")

    (cell,) = said.report["cells"]
    assert (cell["verdict"], cell["reason"]) == ("no-device", "flash attention needs a GPU")
    assert said.code == 2
