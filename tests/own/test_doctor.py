"""The command `doctor`: its answer, its exit codes and its JSON."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.cli.main import main
from harness.core import data
from harness.own import target
from harness.own.target import Known
from tests.support import adapters


def run(capsys: pytest.CaptureFixture[str], *arguments: Path | str) -> tuple[int, str, str]:
    code = main(["doctor", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A LoRA with the keys that PEFT 0.6 writes."""
    keys = dict.fromkeys(
        ["alpha_pattern", "auto_mapping", "fan_in_fan_out", "init_lora_weights", "layers_pattern",
         "layers_to_transform", "lora_dropout", "rank_pattern", "revision"]
    )  # fmt: skip
    made = adapters.folder(tmp_path / "my adapter", keys | {"base_model_name_or_path": "no-such-org/model"})
    (made / "README.md").write_text("### Framework versions\n\n- PEFT 0.6.1\n")
    return made


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The configuration of its base."""
    path = tmp_path / "config.json"
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "torch_dtype": "float32"}
    path.write_text(json.dumps(config | {"hidden_size": 8, "num_hidden_layers": 2, "vocab_size": 9}))
    return path


def test_the_first_line_answers(adapter: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, adapter, "--to", "v0120", "--base", base)
    first, *rest = out.splitlines()
    assert first == (
        "LoRA adapter of PEFT 0.6.1 for no-such-org/model: "
        "nothing known against it under peft 0.12.0, transformers 4.43.2"
    )
    assert code == 0
    assert "  method          LoRA, r 4, lora_alpha 8, CAUSAL_LM" in rest
    assert f"  peft-regress try '{adapter}' --to v0120" in out


def test_json_has_the_same_answer(adapter: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, adapter, "--to", "v0120", "--base", base, "--json")
    found: dict[str, Any] = json.loads(out)
    assert (found["exit_code"], code) == (0, 0)
    assert found["written_by"]["peft"] == ["0.6.1"]
    assert found["to"] == {"spec": "v0120", "peft": "0.12.0", "transformers": "4.43.2", "notes": []}
    assert set(found) == {"answer", "exit_code", "adapter", "written_by", "to", "breaks", "damage", "cannot_tell"}


def test_without_the_base_it_cannot_tell(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, adapter, "--to", "current")
    assert code == 2
    assert "cannot tell: the base's config.json is missing, and" in out.splitlines()[0]


def test_a_known_break(adapter: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same adapter with a bias of a target, as PEFT before 0.7 saved it."""
    bias = {f"{adapters.Q.format(0)}.bias": (8,)}
    (adapter / "adapter_model.safetensors").write_bytes(adapters.safetensors({**adapters.SHAPES, **bias}))
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"bias": "lora_only"}))
    code, out, _ = run(capsys, adapter, "--to", "v0120", "--base", base)
    assert code == 1
    assert "1 known break applies under peft 0.12.0, transformers 4.43.2: Trained biases of" in out.splitlines()[0]
    assert "https://github.com/huggingface/peft/pull/1106" in out


def test_a_break_that_needs_something_special_has_one_line(
    adapter: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*more: str) -> list[str]:
        out = run(capsys, adapter, "--base", base, *more)[1]
        return out[out.index("Only if you do something special") :].partition("\n\n")[0].splitlines()[1:]

    short, long = told(), told("-v")
    assert short
    assert all(line.startswith("  ") and ": only if " in line and line.endswith(")") for line in short)
    assert len([line for line in long if line.startswith("    only if ")]) == len(short)
    assert any(line.startswith("    workaround: ") for line in long)


def test_a_damaged_adapter(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    code, out, _ = run(capsys, adapter)
    assert code == 1
    assert "damaged: adapter_model.safetensors: it is cut off" in out.splitlines()[0]


def test_a_pickle_that_would_execute_something(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    adapters.torch_file(adapter / "adapter_model.bin", {}, adapters.calling("posix", "system", "true"))
    code, out, _ = run(capsys, adapter)
    assert code == 1
    assert "adapter_model.bin would call os.system on loading: do not load it" in out.splitlines()[0]


def test_a_release_that_nobody_has_measured_yet(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, adapter, "--to", "peft==99.0")
    assert code == 2
    assert "cannot tell: this tool knows PEFT up to " in out.splitlines()[0]


@pytest.mark.parametrize(("task", "code"), [("CAUSAL_LM", 1), ("SEQ_CLS", 0)])
def test_to_generate_is_nothing_special_for_a_model_that_writes_text(
    task: str, code: int, adapter: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"peft_type": "PREFIX_TUNING", "task_type": task, "num_virtual_tokens": 6, "token_dim": 8}
    adapters.folder(adapter, config, {"prompt_embeddings": (6, 32)})
    said = run(capsys, adapter, "--to", "current", "--base", base)
    assert ("prompt-learning-generate-cache-renamed" in said[1].partition("Only if")[0]) is (code == 1), said


def test_an_unknown_method(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapters.folder(adapter, {"peft_type": "NEWER\x1b[31m"})
    code, out, _ = run(capsys, adapter)
    assert code == 2
    assert "cannot tell: the method NEWER\\x1b[31m is newer than this tool" in out.splitlines()[0]


def test_a_method_in_small_letters(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapters.folder(adapter, {"peft_type": "lora"})
    code, out, _ = run(capsys, adapter)
    assert code == 2
    assert "cannot tell: PEFT knows no method `lora`; `peft_type` has to be `LORA`" in out.splitlines()[0]


def test_a_file_in_the_cache_of_the_hub(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is a link to a folder that has no adapter_config.json."""
    snapshot = tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for number, path in enumerate(adapter.iterdir()):
        blob = tmp_path / "blobs" / str(number)
        blob.parent.mkdir(exist_ok=True)
        blob.write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(blob)
    _, out, _ = run(capsys, snapshot / "adapter_model.safetensors")
    assert out.startswith("LoRA adapter of PEFT 0.6.1")


def test_no_adapter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, tmp_path)
    assert (code, out) == (64, "")
    assert "is empty" in err


@pytest.mark.parametrize(
    "options",
    [("--to", "v061", "--installed"), ("--to", "no-such"), ("--python", "/no/such"), ("--base", "/no/such"),
     ("--to", "nonsense==1"), ("--to", "peft==0.12.0,transfomers==4.43.2"), ("--to", "nonsense==1 over v0120")],
)  # fmt: skip
def test_wrong_arguments(options: tuple[str, ...], adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, adapter, *options)[0] == 64


@pytest.mark.parametrize("spec", ["peft==0.12.999", "transformers==4.999", "torch==99", "peft==0.12.999 over v0120"])
def test_versions_that_nobody_has_measured(
    spec: str, adapter: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, adapter, "--to", spec, "--base", base)
    assert code == 2
    package, version = spec.partition(" ")[0].split("==")
    assert f"cannot tell: nothing was measured with {package} {version}" in out.splitlines()[0]


def test_pins_that_were_never_resolved_take_the_rest_from_a_declared_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEFT_REGRESS_CACHE", str(tmp_path))
    found = target.of_spec("peft==0.12.0,transformers==4.40.0", Known(data.matrices()))
    assert (found.versions["peft"], found.versions["transformers"]) == ("0.12.0", "4.40.0")
    assert found.versions["accelerate"]
    assert "those of v0120" in found.notes[0]
    assert not found.unsure
    assert target.of_spec("peft==0.12.0,transformers==5", Known(data.matrices())).versions["transformers"] == "5.0.0"
    unknown = target.of_spec("peft==0.13.1", Known(data.matrices()))
    assert dict(unknown.versions) == {"peft": "0.13.1"}
    assert "left out" in unknown.notes[0]


def test_the_packages_of_this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    class Found:
        def __init__(self, name: str, version: str) -> None:
            self.metadata, self.version = {"Name": name}, version

    monkeypatch.setattr(importlib.metadata, "distributions", lambda: [Found("peft", "0.9.0"), Found("peft", "0.1")])
    assert target.installed().versions == {"peft": "0.9.0"}


def test_neither_torch_nor_peft_is_imported(adapter: Path) -> None:
    program = (
        "import sys; from harness.cli.main import main; main(['doctor', sys.argv[1]]);"
        "print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(adapter)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
