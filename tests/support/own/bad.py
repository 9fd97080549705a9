"""Folders that are no usable adapter: how each is built, and what a command must say of it."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.support.own.sample import BASE, CONFIG, Bad, good

# --- another thing than an adapter of PEFT


def empty_folder(folder: Path) -> None:
    del folder


def readme_only(folder: Path) -> None:
    (folder / "README.md").write_text("# My adapter\n", encoding="utf-8")


def full_model(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(BASE), encoding="utf-8")
    save_file({"model.embed_tokens.weight": np.zeros((640, 128), np.float32)}, folder / "model.safetensors")


def parent_of_checkpoints(folder: Path) -> None:
    for step in (10, 20):
        (folder / f"checkpoint-{step}").mkdir()
        good(folder / f"checkpoint-{step}")
    (folder / "trainer_state.json").write_text("{}", encoding="utf-8")


def kohya(folder: Path) -> None:
    stem = "lora_unet_down_blocks_0_attentions_0_proj_in"
    values = {
        f"{stem}.lora_down.weight": np.ones((4, 32), np.float32),
        f"{stem}.lora_up.weight": np.ones((32, 4), np.float32),
        f"{stem}.alpha": np.full((1,), 4, np.float32),
    }
    save_file(values, folder / "my-style.safetensors", metadata={"ss_network_module": "networks.lora"})


def diffusers(folder: Path) -> None:
    stem = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    values = {
        f"{stem}.lora_A.weight": np.ones((4, 32), np.float32),
        f"{stem}.lora_B.weight": np.ones((32, 4), np.float32),
    }
    save_file(values, folder / "pytorch_lora_weights.safetensors")


def adapterhub(folder: Path) -> None:
    config = {
        "config": {"adapter_residual_before_ln": False, "non_linearity": "relu", "reduction_factor": 16},
        "hidden_size": 128, "model_class": "BertModelWithHeads", "model_type": "bert",
        "model_name": "bert-base-uncased", "name": "sst-2", "version": "3.1.0",
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "pytorch_adapter.bin").write_bytes(b"PK\x05\x06" + bytes(18))


# --- a config that is none


def no_peft_type(folder: Path) -> None:
    good(folder, {name: value for name, value in CONFIG.items() if name != "peft_type"})


def config_is_a_list(folder: Path) -> None:
    good(folder, [CONFIG])


def config_is_huge(folder: Path) -> None:
    good(folder)
    with (folder / "adapter_config.json").open("w", encoding="ascii") as file:
        file.write('{"peft_type": "LORA", "r": 8, "target_modules": [')
        for _ in range(100):
            file.write('"q_proj", ' * 100_000)
        file.write('"q_proj"]}')


def config_has_a_key_twice(folder: Path) -> None:
    good(folder)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8, "r": 16}', encoding="utf-8")


def config_is_cut_off(folder: Path) -> None:
    good(folder)
    path = folder / "adapter_config.json"
    path.write_bytes(path.read_bytes()[:-40])


def config_is_not_utf8(folder: Path) -> None:
    good(folder)
    (folder / "adapter_config.json").write_bytes(b'\xff\xfe{"peft_type": "LORA"}')


def config_is_nested_too_deeply(folder: Path) -> None:
    good(folder)
    (folder / "adapter_config.json").write_text('{"peft_type": ' + "[" * 100_000, encoding="ascii")


def config_is_a_pipe(folder: Path) -> None:
    good(folder)
    (folder / "adapter_config.json").unlink()
    os.mkfifo(folder / "adapter_config.json")


def config_is_a_folder(folder: Path) -> None:
    good(folder)
    (folder / "adapter_config.json").unlink()
    (folder / "adapter_config.json").mkdir()


# --- a tensor file that is none


def no_tensors(folder: Path) -> None:
    good(folder)
    (folder / "adapter_model.safetensors").unlink()


def tensors_cut_off(folder: Path) -> None:
    good(folder)
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def header_cut_off(folder: Path) -> None:
    good(folder)
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def header_too_long(folder: Path) -> None:
    good(folder)
    path = folder / "adapter_model.safetensors"
    path.write_bytes((1 << 62).to_bytes(8, "little") + path.read_bytes()[8:])


def offsets_beyond_the_file(folder: Path) -> None:
    good(folder)
    header = json.dumps({"a.lora_A.weight": {"dtype": "F32", "shape": [8, 1 << 40], "data_offsets": [0, 1 << 45]}})
    data = len(header).to_bytes(8, "little") + header.encode() + bytes(64)
    (folder / "adapter_model.safetensors").write_bytes(data)


def negative_shape(folder: Path) -> None:
    good(folder)
    header = json.dumps({"a.lora_A.weight": {"dtype": "F32", "shape": [-8, -2], "data_offsets": [0, 64]}})
    data = len(header).to_bytes(8, "little") + header.encode() + bytes(64)
    (folder / "adapter_model.safetensors").write_bytes(data)


def empty_file(folder: Path) -> None:
    good(folder)
    (folder / "adapter_model.safetensors").write_bytes(b"")


def git_lfs_pointer(folder: Path) -> None:
    good(folder)
    (folder / "adapter_model.safetensors").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 59392\n", encoding="ascii"
    )


def html_page(folder: Path) -> None:
    good(folder)
    (folder / "adapter_model.safetensors").write_text("<!DOCTYPE html><html>Sign in</html>\n" * 20, encoding="ascii")


def tensors_are_a_pipe(folder: Path) -> None:
    good(folder)
    (folder / "adapter_model.safetensors").unlink()
    os.mkfifo(folder / "adapter_model.safetensors")


def dangling_link(folder: Path) -> None:
    good(folder)
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.safetensors").symlink_to("../../blobs/gone")


def link_to_itself(folder: Path) -> None:
    good(folder)
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.safetensors").symlink_to("adapter_model.safetensors")


class _Marks:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def marker(folder: Path) -> Path:
    """What the pickle of `pickle_executes` would make."""
    return folder.parent / f"{folder.name}.executed"


def pickle_executes(folder: Path) -> None:
    good(folder)
    (folder / "adapter_model.safetensors").unlink()
    with zipfile.ZipFile(folder / "adapter_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a.lora_A.weight": _Marks(marker(folder))}, 2))
        archive.writestr("archive/version", "3\n")


def old_pickle_executes(folder: Path) -> None:
    """As Torch before 1.6 saved: one pickle after another, no archive."""
    good(folder)
    (folder / "adapter_model.safetensors").unlink()
    parts: tuple[Any, ...] = (
        0x1950A86A20F9469CFC6C,
        1001,
        {"little_endian": True},
        {"a.lora_A.weight": _Marks(marker(folder))},
        [],
    )
    (folder / "adapter_model.bin").write_bytes(b"".join(pickle.dumps(part, 2) for part in parts))


def zip_bomb(folder: Path) -> None:
    good(folder)
    (folder / "adapter_model.safetensors").unlink()
    with (
        zipfile.ZipFile(folder / "adapter_model.bin", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("archive/data.pkl", "w", force_zip64=True) as file,
    ):
        for _ in range(600):
            file.write(bytes(1 << 20))


NO_ADAPTER = (
    Bad(empty_folder, ("adapter_config.json",)),
    Bad(readme_only, ("adapter_config.json",)),
    Bad(full_model, ("model",)),
    Bad(parent_of_checkpoints, ("checkpoint-20",)),
    Bad(kohya, ("Kohya",)),
    Bad(diffusers, ("Diffusers",)),
    Bad(adapterhub, ("AdapterHub",)),
    Bad(no_peft_type, ("adapter_config.json", "peft_type"), 2),
    Bad(config_is_a_list, ("adapter_config.json",), 2),
    Bad(config_is_huge, ("adapter_config.json",), 2),
    Bad(config_has_a_key_twice, ("adapter_config.json", "r"), 2),
    Bad(config_is_cut_off, ("adapter_config.json",), 2),
    Bad(config_is_not_utf8, ("adapter_config.json",), 2),
    Bad(config_is_nested_too_deeply, ("adapter_config.json",), 2),
    Bad(config_is_a_pipe, ("adapter_config.json",), 2),
    Bad(config_is_a_folder, ("adapter_config.json",)),
    Bad(no_tensors, ("adapter_model.safetensors",), 1),
    Bad(tensors_cut_off, ("adapter_model.safetensors",), 1),
    Bad(header_cut_off, ("adapter_model.safetensors",), 1),
    Bad(header_too_long, ("adapter_model.safetensors",), 1),
    Bad(offsets_beyond_the_file, ("adapter_model.safetensors",), 1),
    Bad(negative_shape, ("adapter_model.safetensors",), 1),
    Bad(empty_file, ("adapter_model.safetensors",), 1),
    Bad(git_lfs_pointer, ("adapter_model.safetensors", "LFS"), 1),
    Bad(html_page, ("adapter_model.safetensors",), 1),
    Bad(tensors_are_a_pipe, ("adapter_model.safetensors",), 1),
    Bad(dangling_link, ("adapter_model.safetensors",), 1),
    Bad(link_to_itself, ("adapter_model.safetensors",), 1),
    Bad(pickle_executes, ("adapter_model.bin",), 1),
    Bad(old_pickle_executes, ("adapter_model.bin",), 1),
    Bad(zip_bomb, ("adapter_model.bin",), 1),
)
"""Nothing can be said of these: each names the file."""
