"""The probes `odd_files` and `files`: what loading says to a damaged checkpoint, and what saving writes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from typing import Any, Callable, Iterator, Mapping

from ...compat import libraries
from ...model import adapters
from ..context import Context
from .step import step

ODD, FILES = "odd_files", "files"

Tensors = dict[str, Any]


def odd(ctx: Context) -> None:
    """Load a checkpoint without a key, with a key too many, and with a key of another shape, over the sound one."""
    ctx.only_in_float32()
    stored = libraries.load_adapter_tensors(adapters.ADAPTER_FOLDER)
    key = sorted(stored)[0]
    first = stored[key]
    changes: Mapping[str, Callable[[], Tensors]] = {
        "lacks_a_key": lambda: {name: value for name, value in stored.items() if name != key},
        "has_a_further_key": lambda: {**stored, f"{key}.further": first.clone()},
        "has_another_shape": lambda: {**stored, key: ctx.torch.cat([first, first[:1]])},
    }
    model = ctx.take("saved and loaded", ctx.load)
    for name, change in changes.items():
        folder = ctx.folder(ODD)
        _write(folder, change())
        with step(ctx, ODD, name) as facts:
            _loaded(model.load_adapter(folder, ctx.adapter_name), ctx.adapter_name, facts)
        if name == "lacks_a_key":
            with step(ctx, ODD, f"from_pretrained_{name}"):
                ctx.load(folder=folder)


def _write(folder: str, tensors: Tensors) -> None:
    """A checkpoint like the stored one, in the same format, with other tensors."""
    import torch
    from safetensors.torch import save_file

    for name in os.listdir(adapters.ADAPTER_FOLDER):
        source, target = os.path.join(adapters.ADAPTER_FOLDER, name), os.path.join(folder, name)
        if name.endswith(".safetensors"):
            save_file({key: value.contiguous() for key, value in tensors.items()}, target, metadata={"format": "pt"})
        elif name == "adapter_model.bin":
            torch.save(tensors, target)
        elif os.path.isdir(source):
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)


def _loaded(result: Any, adapter_name: str, facts: dict[str, Any]) -> None:
    """Missing and unexpected keys that loading returned; of the missing ones those of the adapter."""
    facts["returned"] = type(result).__name__
    facts["missing"] = sorted(k for k in getattr(result, "missing_keys", ()) if adapter_name in k.split("."))
    facts["unexpected"] = sorted(getattr(result, "unexpected_keys", ()))


def written(ctx: Context) -> None:
    """Save by default and in the other format; record every file, and the model card."""
    ctx.only_in_float32()
    with step(ctx, FILES, "default") as facts:
        folder = _saved(ctx, {}, facts)
        facts["card"] = _card(folder)
        safe = any(".safetensors" in name for name in facts["files"])
    with step(ctx, FILES, "other_format") as facts, without_card(ctx.model()):
        _saved(ctx, {"safe_serialization": not safe}, facts)


@contextlib.contextmanager
def without_card(model: Any) -> Iterator[None]:
    """Save without a model card: a third of the time, since its template is compiled anew each time."""
    name = "create_or_update_model_card"
    model.__dict__[name] = lambda *_, **__: None
    try:
        yield
    finally:
        del model.__dict__[name]


def _saved(ctx: Context, options: Mapping[str, Any], facts: dict[str, Any]) -> str:
    folder = ctx.folder(FILES)
    with libraries.without_hub():
        ctx.model().save_pretrained(folder, **options)
    facts["files"] = tree(folder)
    facts["tensors"] = sorted(_tensors(folder))
    return folder


def _tensors(folder: str) -> list[str]:
    found: list[str] = []
    for parent, _, _ in os.walk(folder):
        found += libraries.load_adapter_tensors(parent)
    return found


def tree(folder: str) -> list[str]:
    """Every file below a folder, and what a safetensors file says of itself."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            found.append(os.path.relpath(path, folder) + _metadata(path))
    return sorted(found)


def _metadata(path: str) -> str:
    if not path.endswith(".safetensors"):
        return ""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return f" {json.dumps(header.get('__metadata__', {}), sort_keys=True)}"


def _card(folder: str) -> list[str]:
    """The header of the model card, without versions."""
    lines: list[str] = []
    for parent, _, names in os.walk(folder):
        if "README.md" in names:
            with open(os.path.join(parent, "README.md"), encoding="utf-8") as file:
                lines += file.read().splitlines()
    ends = [place for place, line in enumerate(lines) if line == "---"]
    return [re.sub(r"\d+(\.\d+)+\S*", "…", line) for line in lines[: ends[1] if len(ends) > 1 else 0]]
