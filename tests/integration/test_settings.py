"""Real adapters of 0.6.1 in the precision and with the attention that people use, and the real PEFT broken there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.conftest import Said

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


@pytest.mark.parametrize("name", ["narrow_scaling", "narrow_dropped"])
def test_a_break_in_the_narrow_type_alone_is_seen(
    name: str, mutant: Callable[[str], str], peft_regress: Callable[..., Said]
) -> None:
    broken = mutant(name)
    said = peft_regress("check", *CELLS, "--loader", broken, "--dtype", "bfloat16")

    assert (said.verdicts, said.code) == ({"lora-linear": "silent-wrong"}, 1)
    assert "bfloat16-values" in said.kinds("lora-linear")
    assert peft_regress("check", *CELLS, "--loader", broken).code == 0, "in float32 nothing is wrong"


@pytest.mark.parametrize(("name", "kind"), [("scaling", "values"), ("dropped", "lost-tensors"), ("swapped", "values")])
def test_a_break_in_every_type_is_seen_there_too(
    name: str, kind: str, mutant: Callable[[str], str], peft_regress: Callable[..., Said]
) -> None:
    said = peft_regress("check", *CELLS, "--loader", mutant(name), "--dtype", "bfloat16", "--attention", "eager")

    assert (said.verdicts, said.code) == ({"lora-linear": "silent-wrong"}, 1)
    assert kind in said.kinds("lora-linear")


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_sound_adapters_pass_with_each_attention(attention: str, peft_regress: Callable[..., Said]) -> None:
    wanted = "lora-linear or lora-bias-all-mlp or lora-tied-embedding-opt or prefix-tuning-gpt2"
    arguments = ("--creator", "v061", "--loader", "current", "--attention", attention, "-k", wanted)
    said = peft_regress("check", *arguments)

    wrong = {cell["scenario"] for cell in said.report["cells"] if cell["verdict"] not in SOUND and not cell["expected"]}
    assert not wrong, said.out
    assert said.verdicts["lora-linear"] in ("exact", "close")


def test_a_release_without_a_choice_says_so(peft_regress: Callable[..., Said]) -> None:
    said = peft_regress("check", *CELLS, "--loader", "v062", "--attention", "sdpa")

    (cell,) = said.report["cells"]
    assert cell["verdict"] == "unsupported"
    assert "has no attn_implementation" in cell["reason"]


def test_flash_attention_needs_a_gpu(peft_regress: Callable[..., Said]) -> None:
    said = peft_regress("check", *CELLS, "--loader", "current", "--attention", "flash_attention_2")

    (cell,) = said.report["cells"]
    assert (cell["verdict"], cell["reason"]) == ("no-device", "flash attention needs a GPU")
    assert said.code == 2
