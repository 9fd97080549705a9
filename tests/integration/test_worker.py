"""The worker's parts that need torch, in the environments that they are made for.

A script looks at many things in one process (importing torch costs seconds) and prints what it found as JSON; the tests
judge it. It runs in the oldest and in the current environment.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.envs.environments import Environments
from harness.runner.workers.process import WORKER
from harness.worker.model import fill
from harness.worker.process import process_variables

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("real")]

SCRIPT = r'''
"""Looks at the worker's parts; prints JSON. Runs in a pinned environment."""
import contextlib, hashlib, importlib, json, os, runpy, sys, tempfile

main = runpy.run_path(os.path.join(sys.argv[1], "__main__.py"), run_name="worker_main")
main["_load_package"]()
accounting, capture, probes, recorder, structure, warmup, adapters, bases, copies, draws, fill, numerics = (
    importlib.import_module("peft_regress_worker." + name)
    for name in (
        "observe.accounting observe.capture observe.probes observe.recorder observe.structure observe.warmup "
        "model.adapters model.bases model.copies model.draws model.fill serve.numerics"
    ).split()
)
import numpy, torch
numerics.after_import(torch)

found = {}


def check(function):
    """Runs it; what it returns is found under its name, what it raises too."""
    try:
        with tempfile.TemporaryDirectory(dir=os.getcwd()) as folder:
            before = os.getcwd()
            os.chdir(folder)
            try:
                found[function.__name__] = function()
            finally:
                os.chdir(before)
    except Exception as error:
        found[function.__name__] = "%s: %s" % (type(error).__name__, error)


def drawn(name, *shape):
    return torch.from_numpy(fill.values("test", name, shape)).float()


def digest(tensor):
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()


def files(folder):
    names = sorted(os.listdir(folder))
    return {name: hashlib.sha256(open(os.path.join(folder, name), "rb").read()).hexdigest() for name in names}


def state(model):
    return {name: digest(tensor) for name, tensor in model.state_dict().items()}


class Holder(torch.nn.Module):
    """Parameters and buffers by name."""

    def __init__(self, **tensors):
        super().__init__()
        for name, tensor in tensors.items():
            if isinstance(tensor, torch.nn.Parameter):
                self.register_parameter(name, tensor)
            elif name.startswith("buffer"):
                self.register_buffer(name, tensor)
            else:
                self.register_parameter(name, torch.nn.Parameter(tensor.clone()))


ARGS = dict(vocab_size=48, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=4, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2)


def llama(tied):
    return {"name": "llama-tied" if tied else "llama", "kind": "transformers", "model": "LlamaForCausalLM",
            "config": "LlamaConfig", "args": dict(ARGS, tie_word_embeddings=tied), "load_with": {}}


MLP = {"name": "mlp", "kind": "modules", "load_with": {}, "modules": [
    {"name": "lin0", "type": "Linear", "args": [10, 20], "kwargs": {}},
    {"name": "act", "type": "ReLU", "args": [], "kwargs": {}},
    {"name": "conv", "type": "Conv1D", "args": [6, 20], "kwargs": {}},
    {"name": "norm", "type": "LayerNorm", "args": [6], "kwargs": {}},
]}
OTHER = dict(MLP, modules=MLP["modules"][:3])
SOURCE = {"name": "own", "kind": "python", "file": "own.py", "load_with": {}, "source": """
import torch
class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(9, 4)
        self.head = torch.nn.Linear(4, 9, bias=False)
        self.head.weight = self.embedding.weight
    def forward(self, ids):
        return self.head(self.embedding(ids))
def build():
    return Own()
"""}


@check
def filled():
    parameters = {"lin.weight": torch.nn.Parameter(torch.empty(3, 5)),
                  "model.norm.weight": torch.nn.Parameter(torch.empty(7)),
                  "lin.ia3_l": torch.nn.Parameter(torch.empty(1, 5)),
                  "half": torch.nn.Parameter(torch.empty(2, 3, dtype=torch.bfloat16)),
                  "double": torch.nn.Parameter(torch.empty(2, 3, dtype=torch.float64)),
                  "count": torch.nn.Parameter(torch.ones(2, dtype=torch.int64), requires_grad=False)}
    names = fill.fill_parameters(torch, parameters.items(), "test")
    return {"names": names, "values": {name: p.tolist() for name, p in parameters.items()},
            "trains": all(parameters[name].requires_grad and parameters[name].grad_fn is None for name in names)}


@check
def account():
    a, b, experts = drawn("a", 4, 6), drawn("b", 3, 6), [drawn("expert%d" % i, 4, 6) for i in range(3)]
    bias, vector, turned, left = drawn("bias", 5), drawn("vector", 6), drawn("turned", 3, 7), drawn("left", 6, 2)
    changed = drawn("changed", 4, 6)
    other = changed.clone()
    other[2, 3] += 2.0 ** -20
    kernel = drawn("kernel", 4, 2, 3, 3)
    columns = drawn("columns", 6, 9)
    model = Holder(
        whole=a, turned=turned.t().contiguous(), fused=torch.cat([drawn("before", 2, 6), b, drawn("after", 4, 6)]),
        side=torch.cat([drawn("beside", 6, 5), left], 1), stacked=torch.stack(experts),
        rows=torch.stack([vector, -vector]), buffer_bias=bias, changed=other, doubled=drawn("double", 3, 3).double(),
        kernel=torch.cat([kernel, -kernel]),
        halved=drawn("half", 3, 3).bfloat16(), lone=columns[:, :4].contiguous(),
        fused_t=torch.cat([drawn("x", 6, 5), drawn("y", 4, 6).t()], 1))
    stored = {
        "whole": a, "transposed": turned, "fused": b, "side": left, "expert": experts[1], "row": vector, "buffer": bias,
        "reshaped": a.reshape(6, 4), "double": drawn("double", 3, 3), "kernel": kernel,
        "half": drawn("half", 3, 3).bfloat16(), "turned-and-fused": drawn("y", 4, 6),
        "changed": changed, "gone": drawn("gone", 4, 6), "negated": -a, "swapped": a[[1, 0, 2, 3]], "wider": columns,
        "half-precision-lost": drawn("half", 3, 3),
        "zeros": torch.zeros(4, 6), "ones": torch.ones(3), "scalar": torch.tensor([0.25]), "empty": torch.empty(0, 3),
        "integers": torch.arange(4)}
    return accounting.account(torch, stored, model, "default")


@check
def account_copies():
    a = drawn("a", 4, 6)
    return accounting.account(torch, {"a": a}, Holder(one=a, other=a), "default")["a"]


@check
def warm_up():
    import peft
    from transformers.utils import logging as said
    def settings():
        return [str(torch.get_default_dtype()), torch.get_rng_state().sum().item(), len(os.listdir("/proc/self/task")),
                [logger.warning_once.cache_info().currsize for logger in [type(said.get_logger("transformers"))]
                 if hasattr(logger.warning_once, "cache_info")]]
    before = settings()
    done = warmup.run(torch)
    seen = []
    for cell in ("first", "second"):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            with capture.attempt("x") as tried:
                said.get_logger("transformers.models").warning_once("mind the gap")
            os.write(writer, json.dumps(tried.warnings).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        seen.append(json.loads(os.read(reader, 1000)))
    return {"done": done, "same": settings() == before, "seen": seen}


@check
def threads_of_children():
    import threading
    failed = 0
    for _ in range(40):
        pid = os.fork()
        if pid == 0:
            start, errors = threading.Barrier(8), []
            def compute():
                start.wait()
                try:
                    torch.ones(50000).sum()
                except RuntimeError as error:
                    errors.append(error)
            threads = [threading.Thread(target=compute) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            os._exit(1 if errors else 0)
        failed += os.waitpid(pid, 0)[1] != 0
    return failed


@check
def ties():
    def of(tied):
        model = bases.build(torch, llama(tied))
        bases.save(model)
        loaded = bases.load(torch, llama(tied))
        result = {"built": structure.ties(model, ()), "loaded": structure.ties(loaded, ()),
                  "copied": structure.ties(copies.Copier(loaded, torch.Tensor).copy(), ())}
        if tied:
            loaded.lm_head.weight = torch.nn.Parameter(loaded.lm_head.weight.detach().clone())
            result["broken"] = structure.ties(loaded, ())
        return result
    return {"tied": of(True), "untied": of(False)}


@check
def transposed_ties():
    model = Holder(a=drawn("a", 4, 6))
    model.b = torch.nn.Parameter(model.a.data.t())
    return structure.ties(model, ())


@check
def drawn_numbers():
    """What a step draws, as a count, and whether drawing as many leads on alike."""
    import random
    steps = {
        "nothing": lambda: None,
        "a layer": lambda: torch.nn.Linear(30, 50),
        "blocks": lambda: torch.rand(5000),
        "double": lambda: torch.rand(3, dtype=torch.float64),
        "normal": lambda: torch.randn(64),
        "one normal": lambda: torch.randn(1),  # keeps a second one for the next call
        "python": random.random,
        "numpy": lambda: numpy.random.rand(2),
    }
    result = {}
    for name, step in steps.items():
        torch.manual_seed(3)
        torch.rand(7)
        _, count = draws.counted(torch, step)
        after = torch.rand(5)
        if count is not None:
            torch.manual_seed(3)
            torch.rand(7)
            draws.draw(torch, count)
        result[name] = [count, torch.equal(torch.rand(5), after)] if count is not None else None
    return result


@check
def snapshots():
    """A snapshot of a loaded adapter: it stays as it was, ties are kept, and it refuses what copies would share."""
    import peft
    base = bases.build(torch, MLP)
    model = peft.get_peft_model(base, peft.LoraConfig(target_modules=["lin0"]))
    kept = copies.Snapshot(model, torch.Tensor)
    before = state(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
            parameter.requires_grad_(False)
    one, other = kept.copy(), kept.copy()
    with torch.no_grad():
        next(one.parameters()).add_(1.0)
    trains = [any(p.requires_grad for p in each.parameters()) for each in (model, other)]
    model.register_forward_hook(lambda *_: model)
    try:
        copies.Snapshot(model, torch.Tensor)
        refused = ""
    except Exception as error:
        refused = str(error)
    return {"same": state(other) == before, "apart": state(one) != before, "trains": trains, "refused": refused}


@check
def changed_base_weights():
    base = bases.build(torch, MLP)
    def after(change, stored={}):
        model = bases.build(torch, MLP)
        with torch.no_grad():
            change(model)
        return structure.changed_base_weights(base, model, "default", stored)
    def one_element(model):
        model.conv.weight[3, 2] += 2.0 ** -20
    def two(model):
        model.lin0.bias.mul_(2)
        model.norm.weight.zero_()
    def renamed(model):
        model.lin0.weight_of_another_name = model.lin0.weight
        del model.lin0.weight
    return {"none": after(lambda model: None), "one": after(one_element), "two": after(two), "renamed": after(renamed),
            "brought": after(two, {"base_model.model.lin0.bias": 1}),
            "brought by name": after(two, {"base_model.model.norm.modules_to_save.default.weight": 1})}


@check
def realign():
    def unaligned(name, *shape):
        values = drawn(name, *shape)
        room = torch.empty(values.numel() + 1)
        assert room.data_ptr() % 64 == 0
        room[1:] = values.flatten()
        return room[1:].view(shape)
    shared = unaligned("shared", 5, 3)
    tied = torch.nn.Parameter(unaligned("tied", 2, 3))
    aligned = drawn("aligned", 4, 4).clone()
    model = Holder(one=torch.nn.Parameter(shared), two=torch.nn.Parameter(shared), tied=tied, tied_again=tied,
                   alone=torch.nn.Parameter(unaligned("alone", 3)), buffer=unaligned("buffer", 3),
                   aligned=torch.nn.Parameter(aligned), none=torch.nn.Parameter(torch.empty(0)))
    def facts():
        tensors = list(model.named_parameters(remove_duplicate=False)) + list(model.named_buffers())
        return {"values": {name: digest(t) for name, t in tensors}, "ties": structure.ties(model, ()),
                "unaligned": sorted(name for name, t in tensors if t.numel() and t.data_ptr() % 64)}
    before = facts()
    pointer, parameter = model.aligned.data_ptr(), model.one
    bases.realign(model)
    return {"before": before, "after": facts(), "left alone": model.aligned.data_ptr() == pointer,
            "same objects": model.one is parameter and model.tied is model.tied_again}


def round_trip(base):
    model = bases.build(torch, base)
    bases.save(model)
    loaded = bases.load(torch, base)
    return {"equal": state(model) == state(loaded), "training": loaded.training,
            "count": len(state(loaded)), "ties": structure.ties(loaded, ()),
            "unaligned": sum(bool(p.numel() and p.data_ptr() % 64) for p in loaded.parameters()),
            "dtypes": sorted({str(p.dtype) for p in loaded.parameters()}), "files": sorted(os.listdir("base"))}


@check
def base_round_trips():
    def inside(base):
        with tempfile.TemporaryDirectory(dir=os.getcwd()) as folder:
            os.chdir(folder)
            try:
                return round_trip(base)
            finally:
                os.chdir(os.path.dirname(folder))
    return {name: inside(base) for name, base in
            [("llama", llama(False)), ("llama-tied", llama(True)), ("mlp", MLP), ("own", SOURCE)]}


@check
def unfit_checkpoint():
    bases.save(bases.build(torch, MLP))
    with capture.attempt("base") as unexpected:
        bases.load(torch, OTHER)
    bases.save(bases.build(torch, OTHER))
    with capture.attempt("base") as missing:
        bases.load(torch, MLP)
    return {"unexpected": unexpected.error, "missing": missing.error}


@check
def built_twice():
    result = {}
    for base in (llama(False), llama(True), MLP, SOURCE):
        for folder in ("first", "second"):
            torch.manual_seed(len(folder))
            bases.save(bases.build(torch, base), base["name"] + "-" + folder)
        one, other = (files(base["name"] + "-" + folder) for folder in ("first", "second"))
        weights = [name for name in one if name.endswith((".safetensors", ".bin"))]
        result[base["name"]] = {"equal": one == other, "weights": len(weights)}
    return result


@check
def built():
    return {name: digest(p) for base in (MLP, SOURCE, llama(False))
            for name, p in bases.build(torch, base).named_parameters()}


@check
def sketches():
    x = drawn("x", 6, 8)
    nudged = x.clone()
    nudged[0, 0] += 2.0 ** -20
    variants = {"swapped rows": x[[1, 0, 2, 3, 4, 5]], "swapped columns": x[:, [1, 0, 2, 3, 4, 5, 6, 7]],
                "transposed": x.t(), "negated": -x, "nudged": nudged}
    plain = probes.sketch(x)
    return {"same": {name: bool(numpy.array_equal(probes.sketch(v), plain)) for name, v in variants.items()},
            "moments": [abs(float(plain[0]) - float(x.double().mean())) < 1e-12,
                        abs(float(plain[1]) - float((x.double() ** 2).mean() ** 0.5)) < 1e-12],
            "again": bool(numpy.array_equal(probes.sketch(x.clone()), plain)), "plain": plain.tolist(),
            "empty": probes.sketch(torch.empty(0)).tolist(), "half": probes.sketch(x.bfloat16()).shape[0]}


@check
def observed():
    observation = recorder.Observation("s")
    x = drawn("x", 4, 6)
    tensors = {"turned": x.t(), "grad": torch.nn.Parameter(x), "bf16": x.bfloat16(), "f16": x.half(), "f64": x.double(),
               "bool": x > 0, "int": torch.arange(3)}
    for name, tensor in tensors.items():
        observation.array(name, tensor)
    observation.write("now")
    back = recorder.read_arrays("now")
    equal = {name: bool(numpy.array_equal(
        back[name], (t.detach().float() if t.dtype in (torch.bfloat16, torch.float16) else t.detach()).numpy()))
        for name, t in tensors.items()}
    return {"equal": equal, "dtypes": {name: str(array.dtype) for name, array in sorted(back.items())},
            "wider": observation.facts["stored_wider"]}


@check
def tensors_of_inputs():
    arrays = bases.make_inputs({"ids": {"kind": "tokens", "shape": [2, 3], "low": 0, "high": 9},
                                "x": {"kind": "uniform", "shape": [2, 3], "low": 0, "high": 1}}, "base")
    return {dtype: {name: str(t.dtype) for name, t in bases.to_tensors(torch, arrays, dtype, "cpu").items()}
            for dtype in ("float32", "float64")}


def lora(name):
    return {"name": "lora-test", "fill": {},
            "adapter": {"name": name, "config": "LoraConfig",
                        "args": {"r": 3, "lora_alpha": 7, "target_modules": ["lin0"], "modules_to_save": ["norm"]}}}


def adapter_facts(name):
    scenario = lora(name)
    bases.save(bases.build(torch, MLP))
    model = adapters.wrap(bases.load(torch, MLP), scenario["adapter"])
    names = adapters.fill_adapter(torch, model, scenario, name)
    adapters.save(model, "adapter", name)
    loaded = adapters.load(bases.load(torch, MLP), name)
    stored = probes.libraries.load_adapter_tensors("adapter")
    lost = probes.libraries.load_adapter_tensors("adapter")
    key = sorted(k for k in lost if "lora_A" in k)[0]
    lost[key] = lost[key].clone()
    lost[key][0, 0] += 1
    base = bases.load(torch, MLP)
    merged = adapters.load(bases.load(torch, MLP), name).merge_and_unload()
    return {"filled": sorted(names), "keys": sorted(stored), "files": os.listdir("adapter"),
            "account": {k: v["found"] for k, v in accounting.account(torch, stored, loaded, name).items()},
            "lost": [k for k, v in accounting.account(torch, lost, loaded, name).items() if v["found"] == "nowhere"],
            "lost key": key, "layers": [n for n, _ in adapters.adapter_layers(loaded, name)],
            "described": structure.describe(loaded, name),
            "base_changed": structure.changed_base_weights(base, loaded, name, stored),
            "merged_changed": structure.changed_base_weights(base, merged, name, {}),
            "training": loaded.training, "config": structure.read_config("adapter")["r"]}


@check
def adapter():
    return adapter_facts("default")


@check
def adapter_of_another_name():
    return adapter_facts("mine")


sys.stdout.write("\n" + json.dumps(found) + "\n")
'''


@pytest.fixture(scope="module")
def found_in(environments: Environments, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Environment → check → what it found."""
    folder = tmp_path_factory.mktemp("worker")
    script = folder / "look.py"
    script.write_text(SCRIPT, encoding="utf-8")
    return {name: looked(environments.build(name).python, script) for name in ("v061", "current")}


def looked(python: Path, script: Path) -> dict[str, Any]:
    """What the script found with this interpreter."""
    environ = {**os.environ, **process_variables(os.environ)}
    command = [str(python), str(script), str(WORKER)]
    done = subprocess.run(
        command, cwd=script.parent, env=environ, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    content = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(content, dict)
    raised = {name: text for name, text in content.items() if isinstance(text, str)}
    assert not raised, raised
    return content


@pytest.fixture(scope="module", params=["v061", "current"])
def found(request: pytest.FixtureRequest, found_in: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What was found in one environment."""
    return found_in[request.param]


class TestFill:
    def test_parameters_hold_the_values_of_their_names(self, found: dict[str, Any]) -> None:
        held = found["filled"]["values"]

        for name in ("lin.weight", "model.norm.weight", "lin.ia3_l", "double"):
            expected = fill.values("test", name, SHAPES[name])
            assert expected is not None
            assert held[name] == expected.tolist()

    def test_whole_numbers_are_left_alone(self, found: dict[str, Any]) -> None:
        assert found["filled"]["values"]["count"] == [1, 1]
        assert found["filled"]["names"] == ["lin.weight", "model.norm.weight", "lin.ia3_l", "half", "double"]
        assert found["filled"]["trains"] is True

    def test_bit_identical_in_both_environments(self, found_in: dict[str, dict[str, Any]]) -> None:
        assert found_in["v061"]["filled"] == found_in["current"]["filled"]

    def test_bases_are_bit_identical_in_both_environments(self, found_in: dict[str, dict[str, Any]]) -> None:
        assert len(found_in["current"]["built"]) > 20
        assert found_in["v061"]["built"] == found_in["current"]["built"]

    def test_no_two_tensors_of_the_bases_are_equal(self, found: dict[str, Any]) -> None:
        assert len(set(found["built"].values())) == len(found["built"])


SHAPES = {"lin.weight": (3, 5), "model.norm.weight": (7,), "lin.ia3_l": (1, 5), "double": (2, 3)}

PLACES = [
    ("whole", "whole", ["whole"]),
    ("buffer", "whole", ["buffer_bias"]),
    ("reshaped", "whole", ["whole"]),
    ("double", "whole", ["doubled"]),
    ("half", "whole", ["halved"]),
    ("transposed", "transposed", ["turned"]),
    ("fused", "slice", ["fused"]),
    ("side", "slice", ["side"]),
    ("expert", "slice", ["stacked"]),
    ("row", "slice", ["rows"]),
    ("kernel", "slice", ["kernel"]),
    ("turned-and-fused", "slice", ["fused_t"]),
    ("changed", "nowhere", []),
    ("gone", "nowhere", []),
    ("negated", "nowhere", []),
    ("swapped", "nowhere", []),
    ("wider", "nowhere", []),
    ("half-precision-lost", "nowhere", []),
    ("zeros", "constant", []),
    ("ones", "constant", []),
    ("scalar", "constant", []),
    ("empty", "constant", []),
    ("integers", "constant", []),
]


class TestWarmUp:
    def test_it_is_done_and_leaves_no_trace(self, found: dict[str, Any]) -> None:
        assert found["warm_up"]["done"] == ["_tables", "_base", "_adapter"]
        assert found["warm_up"]["same"] is True

    def test_what_is_said_once_a_process_is_said_to_each_cell(self, found: dict[str, Any]) -> None:
        assert found["warm_up"]["seen"] == [["transformers: mind the gap"]] * 2


def test_numbers_that_a_load_draws_are_counted(found: dict[str, Any]) -> None:
    drawn = found["drawn_numbers"]
    assert drawn["nothing"] == [0, True]
    assert drawn["a layer"] == [1550, True]
    assert drawn["blocks"] == [5000, True]
    assert drawn["double"] == [6, True]
    assert drawn["normal"] == [64, True]
    assert drawn["one normal"] is None, "the generator's state has more than its place"
    assert drawn["python"] is drawn["numpy"] is None


def test_a_snapshot_stays_as_the_model_was(found: dict[str, Any]) -> None:
    said = found["snapshots"]
    assert said["same"] is True
    assert said["apart"] is True
    assert said["trains"] == [False, True]
    assert said["refused"].startswith("copies would share <function")


def test_threads_that_a_forked_child_starts_at_once_all_compute(found: dict[str, Any]) -> None:
    assert found["threads_of_children"] == 0


class TestAccounting:
    @pytest.mark.parametrize(("key", "kind", "at"), PLACES, ids=[place[0] for place in PLACES])
    def test_where_a_tensor_went(self, found: dict[str, Any], key: str, kind: str, at: list[str]) -> None:
        assert found["account"][key] == {"found": kind, "at": at}

    def test_every_place_is_named(self, found: dict[str, Any]) -> None:
        assert found["account_copies"] == {"found": "whole", "at": ["one", "other"]}


class TestStructure:
    @pytest.mark.parametrize("when", ["built", "loaded", "copied"])
    def test_ties(self, found: dict[str, Any], when: str) -> None:
        assert found["ties"]["tied"][when] == [["lm_head.weight", "model.embed_tokens.weight"]]
        assert found["ties"]["untied"][when] == []

    def test_a_broken_tie_is_none(self, found: dict[str, Any]) -> None:
        assert found["ties"]["tied"]["broken"] == []

    def test_a_transposed_tie_is_one(self, found: dict[str, Any]) -> None:
        assert found["transposed_ties"] == [["a", "b"]]

    @pytest.mark.parametrize(
        ("change", "names"),
        [
            ("none", []),
            ("one", ["conv.weight"]),
            ("two", ["lin0.bias", "norm.weight"]),
            ("renamed", []),
            ("brought", ["norm.weight"]),
            ("brought by name", ["lin0.bias", "norm.weight"]),  # the original must stay beside the trained copy
        ],
    )
    def test_changed_base_weights(self, found: dict[str, Any], change: str, names: list[str]) -> None:
        assert found["changed_base_weights"][change] == names


class TestRealign:
    def test_unaligned_tensors_move(self, found: dict[str, Any]) -> None:
        unaligned = ["alone", "buffer", "one", "tied", "tied_again", "two"]

        assert found["realign"]["before"]["unaligned"] == unaligned
        assert found["realign"]["after"]["unaligned"] == []

    def test_values_stay(self, found: dict[str, Any]) -> None:
        assert found["realign"]["after"]["values"] == found["realign"]["before"]["values"]

    def test_ties_stay(self, found: dict[str, Any]) -> None:
        assert found["realign"]["before"]["ties"] == [["one", "two"], ["tied", "tied_again"]]
        assert found["realign"]["after"]["ties"] == found["realign"]["before"]["ties"]
        assert found["realign"]["same objects"] is True

    def test_aligned_ones_are_left_alone(self, found: dict[str, Any]) -> None:
        assert found["realign"]["left alone"] is True


class TestBases:
    @pytest.mark.parametrize("base", ["llama", "llama-tied", "mlp", "own"])
    def test_saved_and_loaded_it_is_the_same(self, found: dict[str, Any], base: str) -> None:
        trip = found["base_round_trips"][base]

        assert trip["equal"] is True
        assert trip["count"] > 0
        assert trip["training"] is False
        assert trip["unaligned"] == 0
        assert trip["dtypes"] == ["torch.float32"]

    def test_ties_come_back(self, found: dict[str, Any]) -> None:
        ties = {base: trip["ties"] for base, trip in found["base_round_trips"].items()}

        assert ties == {
            "llama": [],
            "llama-tied": [["lm_head.weight", "model.embed_tokens.weight"]],
            "mlp": [],
            "own": [["embedding.weight", "head.weight"]],
        }

    def test_plain_modules_are_saved_as_safetensors(self, found: dict[str, Any]) -> None:
        assert found["base_round_trips"]["mlp"]["files"] == ["model.safetensors"]

    @pytest.mark.parametrize("way", ["missing", "unexpected"])
    def test_a_checkpoint_that_does_not_fit_is_refused(self, found: dict[str, Any], way: str) -> None:
        error = found["unfit_checkpoint"][way]

        assert error["type"] == "ValueError"
        assert f"{way} ['norm.bias', 'norm.weight']" in error["message"].replace(
            "['norm.weight', 'norm.bias']", "['norm.bias', 'norm.weight']"
        )

    def test_built_twice_the_files_are_equal(self, found: dict[str, Any]) -> None:
        assert found["built_twice"] == {
            name: {"equal": True, "weights": 1} for name in ("llama", "llama-tied", "mlp", "own")
        }

    def test_inputs_follow_the_precision(self, found: dict[str, Any]) -> None:
        assert found["tensors_of_inputs"] == {
            precision: {"ids": "torch.int64", "x": f"torch.{precision}"} for precision in ("float32", "float64")
        }


class TestObserved:
    def test_tensors_come_back(self, found: dict[str, Any]) -> None:
        assert set(found["observed"]["equal"].values()) == {True}
        assert found["observed"]["dtypes"] == {
            "bf16": "float32",
            "bool": "bool",
            "f16": "float32",
            "f64": "float64",
            "grad": "float32",
            "int": "int64",
            "turned": "float32",
        }

    def test_what_was_stored_wider_is_said(self, found: dict[str, Any]) -> None:
        assert found["observed"]["wider"] == {"bf16": "torch.bfloat16", "f16": "torch.float16"}


class TestSketch:
    def test_activations_that_differ_have_different_sketches(self, found: dict[str, Any]) -> None:
        same = found["sketches"]["same"]

        assert len(same) == 5
        assert not any(same.values()), same

    def test_it_repeats_itself_also_in_the_other_environment(self, found_in: dict[str, dict[str, Any]]) -> None:
        assert found_in["current"]["sketches"]["again"] is True
        assert found_in["current"]["sketches"]["plain"] == found_in["v061"]["sketches"]["plain"]

    def test_it_begins_with_mean_and_root_mean_square(self, found: dict[str, Any]) -> None:
        assert found["sketches"]["moments"] == [True, True]
        assert found["sketches"]["empty"] == [0.0] * 6
        assert found["sketches"]["half"] == 6


class TestAdapter:
    @pytest.fixture(params=["adapter", "adapter_of_another_name"])
    def adapter(self, request: pytest.FixtureRequest, found: dict[str, Any]) -> dict[str, Any]:
        """A LoRA adapter of the real PEFT, called `default` or otherwise."""
        facts: dict[str, Any] = found[request.param]
        return facts

    def test_all_that_trains_is_filled(self, adapter: dict[str, Any]) -> None:
        assert adapter["filled"] == [
            "lin0.lora_A.weight",
            "lin0.lora_B.weight",
            "norm.modules_to_save.bias",
            "norm.modules_to_save.weight",
        ]

    def test_the_checkpoint_stands_in_the_folder_itself(self, adapter: dict[str, Any]) -> None:
        assert {"adapter_config.json"} < set(adapter["files"])
        assert any(name.startswith("adapter_model.") for name in adapter["files"])
        assert "mine" not in adapter["files"]
        assert adapter["config"] == 3

    def test_every_tensor_of_it_is_accounted_for(self, adapter: dict[str, Any]) -> None:
        assert len(adapter["account"]) == 4
        assert set(adapter["account"].values()) == {"whole"}

    def test_a_changed_one_is_not(self, adapter: dict[str, Any]) -> None:
        assert adapter["lost"] == [adapter["lost key"]]

    def test_loading_changes_no_base_weight_and_merging_does(self, adapter: dict[str, Any]) -> None:
        assert adapter["base_changed"] == []
        assert adapter["merged_changed"] == ["lin0.weight", "norm.weight", "norm.bias"]

    def test_layers_and_structure_have_canonical_names(self, adapter: dict[str, Any]) -> None:
        assert adapter["layers"] == ["lin0", "norm"]
        assert adapter["described"]["lin0.weight"] == [[20, 10], "torch.float32", False]
        assert adapter["described"]["lin0.lora_A.weight"][:2] == [[3, 10], "torch.float32"]
        assert adapter["training"] is False

    def test_names_are_the_same_in_both_environments(self, found_in: dict[str, dict[str, Any]]) -> None:
        old, new = (found_in[name]["adapter"] for name in ("v061", "current"))

        for what in ("filled", "layers", "account"):
            assert old[what] == new[what]
        assert old["described"].keys() == new["described"].keys()
