"""The scenario that is written is valid, says nothing of the user, and is not published before it is explained."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import ExitCode, HarnessError, UsageError
from harness.core.matrix import Matrix, resolve
from harness.core.run import Finding
from harness.core.verdict import Verdict
from harness.own import adopt, still_shows, trial
from harness.own.adopt import Adopted
from harness.own.trial import TrialRequest
from harness.own.written_by import Table
from harness.runner import lint
from tests.support.own import sample
from tests.support.samples import cell

BASE = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 32000, "hidden_size": 128,
    "intermediate_size": 344, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 4096, "rope_scaling": {"factor": 8.0, "rope_type": "llama3"}, "rope_theta": None,
    "bos_token_id": 1, "eos_token_id": 2,
    "tie_word_embeddings": False, "attention_dropout": 0.1, "_name_or_path": "/home/ann/acme-secret",
    "ann_project": "cancer", "id2label": {"0": "malign"}, "acme_budget": 90210,
}  # fmt: skip


class Environment:
    """Stands for the environment that wrote the adapter. It knows Llama, and refuses what it is told to."""

    def __init__(self, refuses: int = 0, knows: bool = True) -> None:
        self.refuses, self.knows, self.asked = refuses, knows, list[Mapping[str, Any]]()

    def __call__(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked.append(request)
        if not self.knows:
            return {"error": {"type": "ValueError", "message": "no model of type 'llama'"}}
        if "method" in request:
            known = [key for key in BASE if not key.startswith(("ann", "acme"))]
            config = {**BASE, **request["config"], "hidden_act": "silu"}
            return {"config": config, "known": [*known, "hidden_act"], "transformers": "4.35.0", "method": "LoraConfig",
                    "defaults": {"r": 8, "bias": "none", "lora_dropout": 0.0}}  # fmt: skip
        self.refuses -= 1
        if self.refuses >= 0:
            return {"error": {"type": "ValueError", "message": "hidden_size must be divisible by 7"}}
        return {"model": "LlamaForCausalLM", "bytes": 31_000}


def adopted(tmp_path: Path, environment: Environment | None = None, quantize: str = "") -> Adopted:
    folder, base = tmp_path / "ann's adapter", tmp_path / "base"
    folder.mkdir()
    base.mkdir()
    config = {**sample.CONFIG, "base_model_name_or_path": "ann/secret-7b", "lora_alpha": 17}
    sample.good(folder, config)
    (base / "config.json").write_text(json.dumps(BASE), encoding="utf-8")
    ready = trial.prepare(TrialRequest(adapter=folder, base=base, quantize=quantize), {})
    return adopt.adopt(ready, "lora-new", environment or Environment(), Table({}, {}))


def test_the_files_are_a_scenario_with_its_base(tmp_path: Path) -> None:
    made = adopted(tmp_path)
    file = adopt.write(made, tmp_path / "matrices")
    (declared,) = Matrix(tmp_path / "matrices").read(file)
    resolved = resolve(declared, {"peft": "0.18.0", "transformers": "4.35.0"})
    assert resolved["base"]["model"] == "LlamaForCausalLM"
    assert resolved["base"]["args"]["hidden_size"] < 64
    assert resolved["base"]["args"]["rope_theta"] is None
    assert resolved["base"]["args"]["rope_scaling"] == {"factor": 8.0, "rope_type": "llama3"}
    assert resolved["adapter"]["args"]["r"] <= 4
    assert resolved["expects"]


def test_lint_refuses_it_until_it_is_explained(tmp_path: Path) -> None:
    file = adopt.write(adopted(tmp_path), tmp_path / "matrices")
    assert {one.rule for one in lint.matrix(tmp_path / "matrices")} >= {"todo", "guards"}
    texts = {path: path.read_text(encoding="utf-8") for path in (file, tmp_path / "matrices/bases/lora-new.toml")}
    why = "What nobody would notice without this scenario, in twelve words at least, of course."
    for path, text in texts.items():
        left = "\n".join(line for line in text.splitlines() if not line.startswith("guards"))
        path.write_text(re.sub('why = "TODO.*"', f'why = "{why}"', left) + "\n", encoding="utf-8")
    assert lint.matrix(tmp_path / "matrices") == []


def test_it_says_nothing_of_the_user(tmp_path: Path) -> None:
    made = adopted(tmp_path)
    text = made.scenario + made.base + made.config
    assert not re.search(r"ann|acme|secret|malign|cancer|90210|/home|\b17\b", text)


@pytest.mark.parametrize(("quantize", "family"), [("nf4", "bnb-4bit"), ("int8", "bnb-8bit")])
def test_a_quantised_base_has_whole_blocks(tmp_path: Path, quantize: str, family: str) -> None:
    made = adopted(tmp_path, quantize=quantize)
    config = json.loads(made.config)
    assert all(config[key] % 64 == 0 for key in ("hidden_size", "intermediate_size"))
    (declared,) = Matrix(tmp_path).read(adopt.write(made, tmp_path / "matrices"))
    assert declared.family == family
    assert "bitsandbytes>=0.46" in declared.scenario.requires


def test_a_base_that_is_refused_is_made_rounder(tmp_path: Path) -> None:
    environment = Environment(refuses=1)
    made = adopted(tmp_path, environment)
    first, second = (request["config"]["hidden_size"] for request in environment.asked[1:])
    assert not made.refused
    assert second > first


def test_a_base_that_no_size_suits_is_written_with_what_the_library_says(tmp_path: Path) -> None:
    made = adopted(tmp_path, Environment(refuses=99))
    assert made.refused == "Transformers 4.35.0: ValueError: hidden_size must be divisible by 7"
    assert adopt.write(made, tmp_path / "matrices").is_file()


def test_an_environment_that_does_not_know_the_base(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="no model of type 'llama'"):
        adopted(tmp_path, Environment(knows=False))


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    adopt.write(Adopted("a", "", "", "", ()), tmp_path)
    with pytest.raises(UsageError, match="already there"):
        adopt.refuse_existing("a", tmp_path)
    (tmp_path / "scenarios" / "a.toml").unlink()
    (tmp_path / "bases" / "a.toml").unlink()
    (tmp_path / "bases" / "a.json").unlink()
    adopt.refuse_existing("a", tmp_path)


def test_a_name_that_another_file_has_is_refused(tmp_path: Path) -> None:
    file = adopt.write(adopted(tmp_path), tmp_path / "matrices")
    file.rename(file.with_name("others.toml"))
    with pytest.raises(UsageError, match="already there"):
        adopt.refuse_existing("lora-new", tmp_path / "matrices")
    for suffix in ("toml", "json"):
        base = tmp_path / f"matrices/bases/lora-new.{suffix}"
        base.rename(base.with_name(f"other.{suffix}"))
    others = file.with_name("others.toml")
    others.write_text(others.read_text().replace('base = "lora-new"', 'base = "llama"'))
    with pytest.raises(UsageError, match=r"others\.toml has a scenario 'lora-new'"):
        adopt.refuse_existing("lora-new", tmp_path / "matrices")


@pytest.mark.parametrize("name", ["", "../x", "A", "a b", ".a", "a/b"])
def test_a_name_is_a_file_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="--name"):
        adopt.refuse_existing(name, tmp_path)


# What is left in the small scenario


def deviating(verdict: str, *kinds: str) -> Any:
    findings = [Finding(probe="forward", kind=kind, verdict=Verdict(verdict), message="m") for kind in kinds]
    return cell("one", verdict, findings=tuple(findings))


@pytest.mark.parametrize(
    ("whole", "small", "code", "said"),
    [
        (("silent-wrong", "values", "lost-tensors"), ("silent-wrong", "values", "lost-tensors"), ExitCode.CLEAN,
         "still shows silent-wrong (lost-tensors, values)"),
        (("silent-wrong", "values", "lost-tensors"), ("silent-wrong", "values"), ExitCode.REGRESSED,
         "gone: lost-tensors (tensors of the checkpoint never arrive)"),
        (("silent-wrong", "values"), ("exact",), ExitCode.REGRESSED,
         "the whole adapter shows silent-wrong, the scenario exact"),
        (("silent-wrong", "values"), ("contract", "values"), ExitCode.REGRESSED, "the scenario contract"),
        (("contract", "config"), ("silent-wrong", "config", "values"), ExitCode.CLEAN,
         "the scenario shows more: silent-wrong"),
        (("exact",), ("close",), ExitCode.CLEAN, "neither the whole adapter (exact) nor the scenario (close)"),
        (("close",), ("contract", "config"), ExitCode.CLEAN, "the whole adapter shows no deviation (close)"),
        (("env-failed",), ("exact",), ExitCode.CANNOT_TELL, "the whole adapter was not compared (env-failed)"),
        (("exact",), ("bad-fixture",), ExitCode.CANNOT_TELL, "the scenario was not compared (bad-fixture)"),
    ],
)  # fmt: skip
def test_what_was_lost_is_said(whole: tuple[str, ...], small: tuple[str, ...], code: ExitCode, said: str) -> None:
    found = still_shows.compare(deviating(*whole), deviating(*small))
    assert found.exit_code is code
    assert said in "\n".join(found.said)
