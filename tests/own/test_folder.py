"""Folders as people have them, and what is no adapter of PEFT."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.core.errors import ExitCode, HarnessError, UsageError
from harness.own import folder
from tests.support import adapters


def test_a_folder_with_everything_that_people_have_in_it(tmp_path: Path) -> None:
    made = adapters.folder(tmp_path / "my adapter")
    for name in ("training_args.bin", "optimizer.pt", "rng_state.pth"):
        (made / name).write_bytes(b"\x80\x02cos\nsystem\n.")
    (made / "README.md").write_text("- PEFT 0.6.1")
    adapters.folder(made / "checkpoint-10")
    found = folder.read(made)
    assert (found.adapter.method, dict(found.adapter.shapes), found.unreadable) == ("LORA", adapters.SHAPES, None)
    assert "training_args.bin" in found.adapter.files
    assert found.adapter.card == "- PEFT 0.6.1"


def test_links_as_in_the_cache_of_the_hub(tmp_path: Path) -> None:
    made = adapters.folder(tmp_path / "blobs")
    snapshot = tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for path in made.iterdir():
        (snapshot / path.name).symlink_to(os.path.relpath(path, snapshot))
    assert folder.read(snapshot).adapter.shapes == adapters.SHAPES
    (made / "adapter_model.safetensors").unlink()
    assert "a link to a file that is not there" in str(folder.read(snapshot).unreadable)


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    made = adapters.folder(tmp_path / "a")
    made.chmod(0o555)
    try:
        assert folder.read(made).adapter.method == "LORA"
    finally:
        made.chmod(0o755)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_file_of_the_adapter_stands_for_its_folder(name: str, tmp_path: Path) -> None:
    made = adapters.folder(tmp_path / "a")
    assert folder.find(made / name) == made


def test_adapters_below_are_named_in_their_order(tmp_path: Path) -> None:
    for step in (100, 20, 3):
        adapters.folder(tmp_path / f"checkpoint-{step}")
    with pytest.raises(UsageError, match="3 below it: checkpoint-3, checkpoint-20, checkpoint-100"):
        folder.find(tmp_path)


def test_parts_of_a_checkpoint_are_read_together(tmp_path: Path) -> None:
    made = adapters.folder(tmp_path / "a")
    (made / "adapter_model.safetensors").unlink()
    for number, key in enumerate(adapters.SHAPES, 1):
        name = f"adapter_model-{number:05}-of-{len(adapters.SHAPES):05}.safetensors"
        (made / name).write_bytes(adapters.safetensors({key: adapters.SHAPES[key]}))
    assert folder.read(made).adapter.shapes == adapters.SHAPES
    (made / name).unlink()
    assert "3 of 4 parts" in str(folder.read(made).unreadable)


def test_a_name_of_the_hub_that_the_cache_has_is_pointed_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = adapters.folder(tmp_path / "models--org--name" / "snapshots" / "abc")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match=f"pass a folder in {snapshot.parent}"):
        folder.find(Path.cwd() / "org" / "name")


def _keys(*keys: str) -> Callable[[Path], object]:
    data = adapters.safetensors(dict.fromkeys(keys, (1,)))
    return lambda path: (path / "x.safetensors").write_bytes(data)


def _config(**config: object) -> Callable[[Path], object]:
    return lambda path: (path / "adapter_config.json").write_text(json.dumps(config))


def _files(*names: str) -> Callable[[Path], object]:
    return lambda path: [(path / name).write_text("{}") for name in names]


FOREIGN = [
    (_files(), "is empty"),
    (_files("config.json", "model.safetensors"), "a whole model"),
    (_files("config.json", "pytorch_model-00001-of-00002.bin"), "a whole model"),
    (_files("pytorch_lora_weights.safetensors"), "a LoRA that Diffusers saved"),
    (_files("model_index.json"), "a pipeline of Diffusers"),
    (_files("x.Q4_K_M.gguf"), "GGUF"),
    (_files("adapters.safetensors"), "MLX"),
    (_files("notes.txt"), "holds no adapter: notes.txt"),
    (_keys("lora_unet_down_blocks_0.lora_down.weight"), "Kohya"),
    (_keys("lora_te1_text_model.lora_up.weight"), "Kohya"),
    (_keys("lora_unet_mid.hada_w1_a"), "LyCORIS"),
    (_keys("unet.up_blocks.0.to_q.lora_A.weight"), "a LoRA that Diffusers saved"),
    (_keys("down.attn1.processor.to_q_lora.down.weight"), "early Diffusers"),
    (_keys("bundle_emb.x"), "OneTrainer"),
    (_keys("encoder.layer.0.output.adapters.x.adapter_down.0.weight"), "AdapterHub"),
    (_keys("base_model.model.q.lora_A.weight"), "without their adapter_config.json"),
    (_keys("model.layers.0.weight"), "no known format"),
    (_config(config={}, hidden_size=768, model_type="bert"), "AdapterHub"),
    (_config(fine_tune_type="lora"), "MLX"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "said"), FOREIGN)
def test_what_is_no_adapter_of_peft_is_named(make: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(UsageError, match=said) as error:
        folder.read(tmp_path)
    assert error.value.exit_code == ExitCode.USAGE
    assert error.value.next_step


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Expecting"),
        ("[]", "no JSON object"),
        ('{"r": 4, "r": 8}', "2 times"),
        ('{"r": 4}', "`peft_type` is not set"),
        ('{"peft_type": ["LORA"]}', r"`peft_type` is \['LORA'\]"),
        ('{"peft_type": 5}', "`peft_type` is 5"),
    ],
)
def test_a_config_that_cannot_be_understood(text: str, said: str, tmp_path: Path) -> None:
    (adapters.folder(tmp_path / "a") / "adapter_config.json").write_text(text)
    with pytest.raises(HarnessError, match=said) as error:
        folder.read(tmp_path / "a")
    assert error.value.exit_code == ExitCode.CANNOT_TELL
