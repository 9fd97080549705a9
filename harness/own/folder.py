"""Reads a user's folder with a saved adapter, as people have them: nothing in it is executed, written or trusted.

Links are followed, as a hub's cache consists of them. Other files, such as `training_args.bin`, are not opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.core.errors import HarnessError, UsageError
from harness.core.text import visible
from harness.own import foreign
from harness.own.base_config import hub_cache
from harness.store import tensor_file
from harness.store.adapter import Adapter
from harness.store.tensor_file import BadTensorFile, TensorFile
from harness.worker.files import parse_json, read_regular

CONFIG = "adapter_config.json"
CARD = "README.md"
_SHARD = re.compile(r"adapter_model-\d+-of-(\d+)\.(?:safetensors|bin)")
_LARGEST_TEXT = 16 << 20
_DEEP, _MANY = 3, 5000
"""How far adapters are looked for in subfolders."""


@dataclass(frozen=True)
class Folder:
    """A saved adapter of a user.

    Attributes:
        path: the folder.
        tensors: file name → content; several if Transformers split the checkpoint. Empty if none could be read.
        unreadable: why not all tensors could be read; None if they were.
    """

    path: Path
    adapter: Adapter
    tensors: Mapping[str, TensorFile] = field(default_factory=dict)
    unreadable: BadTensorFile | None = None

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(one.size for each in self.tensors.values() for one in each.tensors.values())


def read(path: Path, base: Mapping[str, Any] | None = None) -> Folder:
    """The adapter in a folder, or beside a file of it. Tensors that cannot be read are told, not raised.

    Args:
        base: the base model's configuration, if it is known.

    Raises:
        UsageError: there is no adapter of PEFT; it says what is there.
        HarnessError: its configuration cannot be read.
    """
    folder = find(path)
    files = names(folder)
    config = config_of(folder)
    if not config.get("peft_type") or not isinstance(config["peft_type"], str):
        raise foreign.config_without_method(folder, config, files)
    tensors, problem = _tensors(folder, files)
    every = {key: one for each in tensors.values() for key, one in each.tensors.items()}
    adapter = Adapter(
        config, {key: one.shape for key, one in every.items()}, {key: one.dtype for key, one in every.items()}, files,
        _text(folder / CARD) if CARD in files else "", base,
    )  # fmt: skip
    return Folder(folder, adapter, tensors, problem)


def find(path: Path) -> Path:
    """The folder with the adapter's configuration, of a folder or of a file in it.

    Raises:
        UsageError: there is none; it says what is there.
    """
    if not os.path.lexists(path):
        raise _missing(path)
    try:
        folder = path if path.is_dir() else path.parent
        files = names(folder)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "a folder that you may read", "check its permissions") from error
    if path != folder and path.name != CONFIG and not (CONFIG in files and is_weights(path.name)):
        raise foreign.file(path)
    if CONFIG in files:
        return folder
    if below := adapters_below(folder):
        listed = ", ".join(visible(str(one.relative_to(folder))) for one in below[:8])
        more = f" and {len(below) - 8} more" if len(below) > 8 else ""
        raise UsageError(
            f"{folder} holds no adapter itself; {len(below)} below it: {listed}{more}", f"a folder with {CONFIG}",
            "pass one of them" if below[1:] else "pass that one",
        )  # fmt: skip
    raise foreign.folder(folder, files)


def _missing(path: Path) -> UsageError:
    """The error for no such path; points to the Hub's cache if that has a repository of this name."""
    for name in ("--".join(path.parts[-2:]), path.name):
        kept = hub_cache(os.environ) / f"models--{name}" / "snapshots"
        if kept.is_dir():
            next_step = f"the Hub's cache has {name.replace('--', '/')}: pass a folder in {kept}"
            return UsageError(f"{path} does not exist", "a folder", next_step)
    return UsageError(f"{path} does not exist", f"a folder with {CONFIG}", "check the path; nothing is downloaded")


def names(folder: Path) -> tuple[str, ...]:
    """The names of the files in a folder, sorted; not those of its subfolders."""
    with os.scandir(folder) as entries:
        return tuple(sorted(one.name for one in entries if not _is_folder(one)))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def is_weights(name: str) -> bool:
    """True for the name of a file that PEFT keeps an adapter's tensors in."""
    return name in _WHOLE or _SHARD.fullmatch(name) is not None


_WHOLE = ("adapter_model.safetensors", "adapter_model.bin")
"""In the order in which PEFT looks for them."""


def adapters_below(folder: Path) -> list[Path]:
    """Subfolders that hold an adapter: checkpoints of a training, adapters by name, snapshots of a hub's cache."""
    found, seen, todo = [], 0, [(folder, 0)]
    while todo and seen < _MANY:
        current, depth = todo.pop(0)
        try:
            inner = sorted(Path(one.path) for one in os.scandir(current) if _is_folder(one))
        except OSError:
            continue
        for each in inner:
            seen += 1
            if (each / CONFIG).is_file():
                found.append(each)
            elif depth + 1 < _DEEP:
                todo.append((each, depth + 1))
    return sorted(found, key=_by_number)


def _by_number(path: Path) -> list[tuple[int, str]]:
    """`checkpoint-900` before `checkpoint-1000`."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", str(path))[:99]]


def config_of(folder: Path) -> dict[str, Any]:
    """The adapter's configuration.

    Raises:
        HarnessError: it cannot be read.
    """
    path = folder / CONFIG
    try:
        found = parse_json(read_regular(path, _LARGEST_TEXT))
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else error
        raise HarnessError(f"{path}: {what}", "the JSON that PEFT wrote", "restore or download the file") from error
    if not isinstance(found, dict):
        raise HarnessError(f"{path}: no JSON object", "the JSON that PEFT wrote", "restore or download the file")
    return found


def _text(path: Path) -> str:
    try:
        return read_regular(path, _LARGEST_TEXT).decode("utf-8", "replace")
    except OSError:
        return ""


def _tensors(folder: Path, files: tuple[str, ...]) -> tuple[dict[str, TensorFile], BadTensorFile | None]:
    chosen = [name for name in _WHOLE if name in files][:1]
    missing = ""
    if not chosen:
        chosen = [name for name in files if _SHARD.fullmatch(name)]
        count = int(_SHARD.fullmatch(chosen[0])[1]) if chosen else 0  # type: ignore[index]
        missing = f"{len(chosen)} of {count} parts of the checkpoint are there" if len(chosen) != count else ""
    found: dict[str, TensorFile] = {}
    try:
        for name in chosen:
            found[name] = tensor_file.read(folder / name)
    except BadTensorFile as error:
        return found, error
    except OSError as error:
        found_what = "a link to a file that is not there" if not (folder / name).exists() else f"{error.strerror}"
        return found, BadTensorFile(f"{name}: {found_what}", "a file of tensors", "copy or download it again")
    if not chosen or missing:
        there = missing or f"no tensors: {folder} holds neither {_WHOLE[0]} nor {_WHOLE[1]}"
        return found, BadTensorFile(there, "all files that PEFT saved", "copy or download the missing file")
    return found, None
