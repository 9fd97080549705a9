"""Consumers against PEFT itself: log-probabilities of plain scripts, without golden and judge."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.envs.environments import Environments
from harness.runner.request import Places
from tests.support.mini.world import REPOSITORY

pytestmark = [pytest.mark.integration, pytest.mark.nightly]

PROMPTS = [[7, 19, 8, 18], [3, 30, 12], [25]]
PEFT = """
import json, sys, numpy, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained("base", dtype=torch.float32)
if sys.argv[2] == "adapter":
    model = PeftModel.from_pretrained(model, "adapter")
with torch.no_grad():
    last = [model.eval()(torch.tensor([ids])).logits[0, -1] for ids in json.loads(sys.argv[1])]
numpy.save(sys.argv[3], torch.stack(last).log_softmax(-1).numpy())
"""
DRIVER = """
import importlib, json, os, sys, numpy
driver = importlib.import_module("harness.worker.consume." + sys.argv[4])
driver.preload()
work = os.path.abspath("work-" + sys.argv[4] + sys.argv[2])
os.makedirs(work)
adapter = os.path.abspath("adapter") if sys.argv[2] == "adapter" else None
numpy.save(sys.argv[3], driver.log_probabilities(os.path.abspath("base"), adapter, json.loads(sys.argv[1]), work))
sys.stdout.flush()
os._exit(0)
"""
TOKENIZERS = """
import json, sys, numpy
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("base")
ids = json.loads(sys.argv[1])
assert all(tokenizer(tokenizer.decode(one), add_special_tokens=False)["input_ids"] == one for one in ids)
"""
SENTENCEPIECE = """
import json, sys, sentencepiece
read = sentencepiece.SentencePieceProcessor("base/tokenizer.model")
assert all(read.encode(read.decode(one)) == one for one in json.loads(sys.argv[1]))
assert (read.unk_id(), read.bos_id(), read.eos_id()) == (0, 1, 2)
"""
CONSUMERS = {"llama.cpp": "llamacpp", "mistralrs": "mistralrs", "vllm": "vllm"}

Run = Callable[..., Any]


@pytest.fixture
def run(environments: Environments, tmp_path: Path) -> Run:
    """Run a script in an environment, in a folder with a stored fixture; returns the array that it saves."""

    def one(spec: str, script: str, scenario: str, what: str = "adapter", driver: str = "") -> Any:
        store = Places().store()
        manifest = store.manifest("v0212", scenario)
        for name in manifest.laid_out("cpu"):
            if name.startswith(("adapter/", "base/")):
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).write_bytes(store.content(manifest, name))
        python = str(environments.build(spec).python)
        made = tmp_path / f"{driver or 'peft'}-{what}.npy"
        command = [python, "-c", script, json.dumps(PROMPTS), what, str(made), driver]
        done = subprocess.run(
            command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return np.load(made) if made.exists() else None

    return one


@pytest.mark.parametrize("name", CONSUMERS)
def test_a_consumer_computes_what_peft_computes(run: Run, name: str) -> None:
    for what in ("base", "adapter"):
        wanted = run("current", PEFT, "consumer-lora", what)
        found = run(f"consumer:{name}", DRIVER, "consumer-lora", what, CONSUMERS[name])
        np.testing.assert_allclose(found, wanted, atol=1e-5, err_msg=what)


def test_llama_cpp_gives_rslora_half_of_its_effect_and_the_others_all(run: Run) -> None:
    wanted = run("current", PEFT, "consumer-lora-rslora")
    llama = run("consumer:llama.cpp", DRIVER, "consumer-lora-rslora", driver="llamacpp")

    assert np.abs(llama - wanted).max() > 0.1
    for name in ("mistralrs", "vllm"):
        found = run(f"consumer:{name}", DRIVER, "consumer-lora-rslora", driver=name)
        np.testing.assert_allclose(found, wanted, atol=1e-5, err_msg=name)


def test_both_forms_of_the_tokenizer_are_read(run: Run) -> None:
    run("current", TOKENIZERS, "consumer-lora")
    run("consumer:llama.cpp", SENTENCEPIECE, "consumer-lora")
