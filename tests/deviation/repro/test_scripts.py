"""The two scripts as text: each kind of finding gives valid Python that uses the libraries alone."""

from __future__ import annotations

import ast
import re
from typing import Any

import numpy as np
import pytest

from harness.core.run import Cell, ErrorReport, Figures, Finding, ProbeResult
from harness.core.verdict import Verdict
from harness.deviation.repro import bases, python_text, scripts
from harness.deviation.repro.aspects import Aspect, candidates
from harness.deviation.repro.load_paths import CALLS
from harness.deviation.repro.operations import OPERATIONS
from harness.deviation.repro.releases import Release
from harness.deviation.repro.subject import Side, Subject, output_names
from harness.worker.shared import LOAD_PATHS, WRAPPERS

LLAMA = {"kind": "transformers", "name": "llama", "model": "LlamaForCausalLM", "config": "LlamaConfig", "args": {},
         "load_with": {}}  # fmt: skip
MODULES = {"kind": "modules", "name": "mlp", "load_with": {}, "modules": [
    {"name": "lin0", "type": "Linear", "args": [8, 8], "kwargs": {}},
    {"name": "conv1d", "type": "Conv1D", "args": [8, 4], "kwargs": {}},
]}  # fmt: skip
PYTHON = {"kind": "python", "name": "own", "load_with": {}, "file": "own.py", "source": "def build():\n    ...\n"}
HUB = {"kind": "hub", "name": "opt", "repo": "facebook/opt-125m", "revision": "0" * 40, "model": "OPTForCausalLM",
       "load_with": {"attn_implementation": "eager"}}  # fmt: skip
NF4 = {"bits": 4, "type": "nf4", "double": True, "threshold": 6.0, "skip": ["lm_head"], "from": "weights"}
OLD = {"peft": "0.6.1", "transformers": "4.35.2", "bitsandbytes": "0.46.0"}
NEW = {"peft": "0.21.2", "transformers": "5.23.0", "bitsandbytes": "0.50.2", "trl": "1.16.0"}
TOKENS = {"input_ids": np.array([[1, 2, 3]]), "attention_mask": np.array([[1, 1, 0]])}


def subject(base: dict[str, Any] = LLAMA, inputs: dict[str, Any] | None = None, **more: Any) -> Subject:
    adapter = {"config": "LoraConfig", "args": {"r": 4, "task_type": "CAUSAL_LM"}, "name": more.pop("name", "default")}
    scenario = {"base": base, "adapter": adapter, "generate": {"max_new_tokens": 4}} | more.pop("scenario", {})
    files = {"adapter/adapter_config.json", "adapter/adapter_model.bin", "base/model.safetensors"}
    files |= {"base/config.json"} if base["kind"] in ("transformers", "hub") else set()
    outputs = more.pop("outputs", ("logits",) if base["kind"] in ("transformers", "hub") else ("output",))
    sides = Side(scenario, Release(OLD), "saved"), Side(scenario, Release(NEW), "loaded")
    only = frozenset(more.pop("adapter_only", ()))
    given = inputs or (TOKENS if base["kind"] in ("transformers", "hub") else {"x": np.ones((2, 8), np.float32)})
    return Subject(*sides, given, outputs, only, frozenset(files), {}, **more)


def figures(probe: str, precision: str = "float32", seen: float = 0.5, allowance: float = 1e-6) -> Figures:
    return Figures(array=f"{probe}/{precision}/logits", max_abs=seen, allowance=allowance, scale=1.0)


def cell(probe: str, kind: str, *, details: tuple[str, ...] = (), sizes: tuple[Figures, ...] = (), **more: Any) -> Cell:
    error = more.pop("error", "")
    verdict = more.pop("verdict", Verdict.SILENT_WRONG)
    finding = Finding(
        probe=probe, kind=kind, verdict=verdict, message=more.pop("message", "it differs"), details=details,
        figures=sizes[0] if sizes else None, error_type=error, stage="x" if error else "",
        subject=more.pop("subject", ""),
    )  # fmt: skip
    probes = {probe: ProbeResult(verdict=Verdict.SILENT_WRONG, outcome="ok", figures=sizes)}
    return Cell(id="s@a:b[cpu]", scenario="s", creator="a", loader="b", verdict=verdict, findings=(finding,),
                probes=probes, **more)  # fmt: skip


def first(cell: Cell, of: Subject) -> Aspect:
    return next(candidates(cell, of))


def both(cell: Cell, of: Subject) -> tuple[str, str]:
    aspect = first(cell, of)
    return scripts.before(of, aspect), scripts.after(of, aspect)


#: probe, kind, details, what after.py must contain
KINDS = [
    ("forward", "values", (), "results = outputs(model)"),
    ("layers", "values", (), "results = outputs(model)"),
    ("base", "base-moved", (), "results = outputs(load_base())"),
    ("base", "disabled-differs", (), "with model.disable_adapter():"),
    ("merged", "differs-from-forward", (), "model.merge_adapter()"),
    ("unmerged", "differs-from-forward", (), "model.unmerge_adapter()"),
    ("safe_merged", "differs-from-forward", (), "model.merge_and_unload(safe_merge=True)"),
    ("merge_and_unload", "differs-from-forward", (), "model.merge_and_unload()"),
    ("merged_saved", "differs-from-merge_and_unload", (), 'model.save_pretrained("merged")'),
    ("merged_after_run", "differs-from-merged", (), "outputs(model)  # running it first"),
    ("unloaded", "differs-from-base", (), "model.unload()"),
    ("unloaded", "base-weights", ("lm_head.weight",), "torch.equal(weight, p)"),
    ("roundtrip", "differs-from-forward", (), 'model.save_pretrained("again")'),
    ("roundtrip", "roundtrip-keys", ("a.lora_A.weight",), "key in again"),
    ("roundtrip", "roundtrip-tensors", ("a.lora_A.weight",), "torch.equal(stored[key], again[key])"),
    ("roundtrip", "config", ("~ r: 4 → 8", "- use_dora (was True)"), '["r", "use_dora"]'),
    ("renamed", "differs-from-forward", (), 'adapter_name="another_name"'),
    ("second", "differs-from-forward", (), 'model.set_adapter("other")'),
    ("second", "no-switch", (), "switching has an effect"),
    ("generate", "values", (), "model.generate(**first, max_new_tokens=4)"),
    ("fresh", "fresh-values", (), "get_peft_model(load_base(), config"),
    ("train", "train-mode", (), "model.train()"),
    ("gradients", "values", (), "loss.backward()"),
    ("gradients", "gradients-missing", ("a.lora_A.weight",), "is_trainable=True"),
    ("structure", "trainability", ("no longer trainable: a.bias",), '"a.bias"'),
    ("structure", "dtype", ("a.lora_A.weight: torch.float32 → torch.bfloat16",), "str(p.dtype)"),
    ("forward", "dtype", ("logits: torch.float32 → torch.bfloat16",), "str(value.dtype)"),
    ("structure", "shape", ("a.weight: [1] → [2]",), "list(p.shape)"),
    ("merged", "tie-broken", ("lm_head.weight = embed.weight",), "data_ptr()"),
    ("accounting", "lost-tensors", ("base_model.model.a.bias",), "base_model.model.a.bias"),
    ("accounting", "lost-tensors", tuple(f"k{n}" for n in range(20)), "for key in stored"),
    ("accounting", "base-weights", tuple(f"k{n}" for n in range(20)), "for name in weights"),
    ("warnings", "new-warning", (), "logging.captureWarnings(True)"),
]  # fmt: skip


@pytest.mark.parametrize(("probe", "kind", "details", "says"), KINDS, ids=[f"{k[0]}-{k[1]}" for k in KINDS])
@pytest.mark.parametrize("name", ["default", "mine"])
def test_each_kind_of_finding_has_a_script(
    probe: str, kind: str, details: tuple[str, ...], says: str, name: str
) -> None:
    of = subject(name=name)
    before, after = both(cell(probe, kind, details=details, message="UserWarning: it is an old one"), of)
    for script in (before, after):
        ast.parse(script)
        assert "harness" not in script
        assert not re.search(r"\b(golden|probe|creator|loader|cell|fixture|verdict)\b", script), script
        assert max(map(len, script.splitlines())) <= 120, script
        assert len(script.splitlines()) <= 80
    assert says in after
    assert 'torch.save(results, "before.pt")' in before
    assert 'torch.load("before.pt", weights_only=True)' in after
    assert name == "default" or probe in ("base", "fresh") or 'adapter_name="mine"' in after


@pytest.mark.parametrize(
    "probe", ["load", "forward", "base", "structure", "train", "gradients", "generate", *OPERATIONS]
)
def test_calls_that_raise_are_made_and_nothing_is_compared(probe: str) -> None:
    of = subject()
    before, after = both(cell(probe, "error", error="builtins.KeyError", verdict=Verdict.LOAD_ERROR), of)
    ast.parse(before)
    ast.parse(after)
    assert first(cell(probe, "error", error="KeyError"), of).raises == "KeyError"
    assert "before.pt" not in after


@pytest.mark.parametrize("path", CALLS)
def test_every_load_path_uses_the_librarys_own_functions(path: str) -> None:
    assert path in LOAD_PATHS
    before, after = both(cell(f"door.{path}", f"{path}-differs", sizes=(figures("x"),)), subject())
    ast.parse(after)
    assert "PeftModel.from_pretrained(load_base()" in before  # the reference
    assert "results = outputs(model)" in after


@pytest.mark.parametrize("error", ["", "KeyError"])
def test_a_load_path_without_lines_has_no_aspect(error: str) -> None:
    """A new load path works without `repro`: it needs two files, and this one when somebody wants its scripts."""
    assert list(candidates(cell("door.unknown", "error" if error else "unknown-differs", error=error), subject())) == []


def test_all_load_paths_of_today_have_lines() -> None:
    assert len(CALLS) >= 12


@pytest.mark.parametrize("kind", WRAPPERS)
def test_every_wrapper_has_a_script(kind: str) -> None:
    declared = f"{kind}:inner" if WRAPPERS[kind] else kind
    wrap = {"saved": [declared], "loaded": ["peft", declared] if kind in ("data-parallel",) else [declared],
            "adapters": {"inner": {"config": "LoraConfig", "args": {"r": 2}}}}  # fmt: skip
    for script in both(cell("forward", "values"), subject(scenario={"wrap": wrap})):
        ast.parse(script)


@pytest.mark.parametrize("base", [LLAMA, MODULES, PYTHON, HUB], ids=lambda base: str(base["kind"]))
@pytest.mark.parametrize("quantize", [None, NF4, NF4 | {"bits": 8}, NF4 | {"from": "quantised"}])
def test_every_base_can_be_loaded(base: dict[str, Any], quantize: dict[str, Any] | None) -> None:
    of = subject(base | ({"quantize": quantize} if quantize else {}) | {"resize_to": 48})
    for script in both(cell("merged_saved", "differs-from-merge_and_unload"), of):
        ast.parse(script)
    ast.parse(bases.model_file(base))


def test_one_input_of_a_plain_model_is_positional_and_those_of_a_library_are_keywords() -> None:
    assert 'model(inputs["x"])' in both(cell("forward", "values"), subject(MODULES))[1]
    assert "model(**inputs)" in both(cell("forward", "values"), subject())[1]


def test_large_inputs_are_read_from_a_file() -> None:
    large = {"x": np.zeros((4, 40), np.float32)}
    assert 'inputs = load_file("inputs.safetensors")' in both(cell("forward", "values"), subject(MODULES, large))[1]


def test_inputs_of_the_adapter_alone_are_not_passed_to_the_base() -> None:
    of = subject(inputs={**TOKENS, "task_ids": np.array([0])}, adapter_only={"task_ids"})
    after = both(cell("base", "disabled-differs"), of)[1]
    assert "outputs(load_base(), base_inputs)" in after
    assert "outputs(model, base_inputs)" in after


def test_a_difference_that_rounding_hides_in_float32_is_shown_in_float64() -> None:
    sizes = (figures("forward", seen=2e-6), figures("forward", "float64", seen=2e-6, allowance=1e-12))
    aspects = list(candidates(cell("forward", "values", sizes=sizes), subject()))
    assert [aspect.double for aspect in aspects] == [True, False]
    assert "torch.float64" in scripts.after(subject(), aspects[0])
    clear = (figures("forward"), figures("forward", "float64", allowance=1e-12))
    assert not first(cell("forward", "values", sizes=clear), subject()).double


@pytest.mark.parametrize("bits", [4, 8])
def test_the_values_of_quantised_weights_are_compared_in_float64(bits: int) -> None:
    """The rounding of the kernels would hide that the values of the weights changed."""
    of = subject(LLAMA | {"quantize": NF4 | {"bits": bits}})
    sizes = (figures("base", "float64", allowance=1e-12),)
    for script in both(cell("base", "base-moved", sizes=sizes), of):
        ast.parse(script)
        assert "base = dequantise(base)" in script


def test_the_bound_is_between_rounding_and_the_observed_difference() -> None:
    aspect = first(cell("forward", "values", sizes=(figures("forward", seen=0.9, allowance=1e-6),)), subject())
    assert 1e-6 < aspect.bound < 0.9
    infinite = first(cell("forward", "values", sizes=(figures("forward", seen=float("inf")),)), subject())
    assert 1e-6 < infinite.bound < 1.0


def test_a_load_error_without_a_finding_and_a_crash_have_an_aspect() -> None:
    error = ErrorReport(stage="config", type="TypeError", message="no")
    bare = Cell(id="s@a:b[cpu]", scenario="s", creator="a", loader="b", verdict=Verdict.LOAD_ERROR, error=error)
    assert first(bare, subject()).raises == "TypeError"
    assert first(bare.model_copy(update={"verdict": Verdict.CRASH}), subject()).dies


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("step", ["constructed", "trained", "reloaded"])
def test_each_step_of_a_trainer(step: str, wrapped: bool) -> None:
    sft = {"bf16": True, "gradient_checkpointing": False, "wrapped": wrapped, "dtype": "bfloat16"}
    of = subject(scenario={"sft": sft})
    before, after = both(cell("sft", "structure-steps", details=(f"{step}: norm layers: a → b",)), of)
    assert ast.parse(before) != ast.parse(after)
    assert "TrainingArguments(" in before
    assert "SFTConfig(" in after
    assert ("trainer.train()" in after) is (step != "constructed")


@pytest.mark.parametrize("step", ["base", "prepared", "wrapped", "wrapped-as-is", "loaded", "loaded-for-training"])
def test_each_step_before_training(step: str) -> None:
    of = subject(LLAMA | {"quantize": NF4}, scenario={"steps": {"names": [step], "dtype": "bfloat16"}})
    for script in both(cell("steps", "structure-steps", details=(f"{step}: norm layers: a → b",)), of):
        ast.parse(script)
        assert ("prepare_model_for_kbit_training" in script) is ("loaded" != step != "base")


def test_a_finding_that_scripts_cannot_show_gives_no_aspect() -> None:
    assert list(candidates(cell("sft", "untrained", details=("a.lora_A.weight",)), subject())) == []


def test_numbers_have_all_their_digits() -> None:
    values = np.array([[0.1, -1.5], [1e-8, 3.0]], np.float32)
    written = python_text.tensor(values).removeprefix("torch.tensor(").removesuffix(")")
    assert np.array_equal(np.array(ast.literal_eval(written), np.float32), values)
    assert python_text.tensor(np.array([[1, 0]])) == "torch.tensor([[1, 0]])"


def test_outputs_are_named_as_in_the_golden() -> None:
    arrays = {name: np.zeros(1) for name in ("forward/float32/logits", "forward/float32/sketch", "base/float32/x")}
    assert output_names(arrays) == ("logits",)
    assert output_names({}) == ("output",)


NAMES = ['x"""\nimport os #', "ends in \\", 'ends in "', '"', '\\"""', '""""', "a b " * 60 + '"""']


@pytest.mark.parametrize("name", NAMES)
def test_no_name_ends_the_docstring_of_a_script(name: str) -> None:
    (statement,) = ast.parse(scripts._quoted(name)).body
    assert isinstance(statement, ast.Expr)
    assert ast.literal_eval(statement.value).split() == name.split()
