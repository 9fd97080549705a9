"""Writes a user's adapter, cut to what this machine can compute, as a scenario that `pair` runs.

The folder has `scenario.toml`, `bases/` and `adapter/`. It stays beside the reports, so that `show`, `blame`, `bisect`
and `repro` find the scenario later. The user's own folder is only read.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.core.errors import UsageError
from harness.core.files import read_text, write_together
from harness.core.text import one_line, toml_value
from harness.own import base_config, cut, folder, inputs, model_class, room, tensor_writer
from harness.own.base_config import BaseConfig
from harness.own.cut import Cut
from harness.own.folder import Folder
from harness.own.inputs import Inputs
from harness.own.room import Room
from harness.worker.files import open_regular

FAMILY, QUANTISED = "own", "bnb-own"
"""Families. Environments with bitsandbytes are for `bnb-*`."""
_LAYERS = 2
QUANTISATIONS = ("nf4", "fp4", "int8")
_TELLS_NOTHING = re.compile(r"checkpoint-\d+|adapters?|final|last|best|default|lora|peft|outputs?|out|results?|model")
"""Names of folders that tell one adapter from another only with the name of the folder around them."""
_SCENARIO, _ADAPTER, _BASE = "scenario.toml", "adapter", "base"
_CLASSES = {
    "LORA": "LoraConfig", "ADALORA": "AdaLoraConfig", "LOHA": "LoHaConfig", "LOKR": "LoKrConfig", "IA3": "IA3Config",
    "OFT": "OFTConfig", "BOFT": "BOFTConfig", "PREFIX_TUNING": "PrefixTuningConfig", "VERA": "VeraConfig",
    "PROMPT_TUNING": "PromptTuningConfig", "P_TUNING": "PromptEncoderConfig", "LN_TUNING": "LNTuningConfig",
    "ADAPTION_PROMPT": "AdaptionPromptConfig", "MULTITASK_PROMPT_TUNING": "MultitaskPromptTuningConfig",
    "TRAINABLE_TOKENS": "TrainableTokensConfig", "POLY": "PolyConfig", "HRA": "HRAConfig", "VBLORA": "VBLoRAConfig",
    "FOURIERFT": "FourierFTConfig", "BONE": "BoneConfig", "MISS": "MissConfig", "CPT": "CPTConfig",
    "RANDLORA": "RandLoraConfig", "SHIRA": "ShiraConfig", "C3A": "C3AConfig", "ROAD": "RoadConfig",
    "WAVEFT": "WaveFTConfig", "DELORA": "DeloraConfig", "GRALORA": "GraloraConfig", "OSF": "OSFConfig",
}  # fmt: skip
"""The method → the class of its configuration. It only names the method in reports; PEFT reads it from the files."""


@dataclass(frozen=True)
class TrialRequest:
    """Which adapter is tried, on which base."""

    adapter: Path = Path()
    base: Path | None = None
    layers: int | None = None
    """Layers with the adapter that are kept in each stack of layers; None for 2, or 1 if the memory lacks for 2."""
    whole: bool = False
    """Keep all layers and the whole vocabulary."""
    quantize: str = ""
    """`nf4`, `fp4` or `int8`; empty for what the base's configuration says."""
    trust_remote_code: bool = False
    fetch: bool = False
    """Get the base's config.json from the Hub if it is not on this machine."""


@dataclass(frozen=True)
class Trial:
    """An adapter that is ready to be tried.

    Attributes:
        name: of its scenario.
        source: the adapter as the user has it.
        cut: what is left of it.
        model: the class of its base.
        code: the base's own Python files; only environments execute them.
        quantize: how the base is quantised; None if it is not.
        dtype: the narrow type that the user's base is saved in; it is tried in float32.
        room: memory and time that one environment takes.
    """

    name: str
    source: Folder
    base: BaseConfig
    cut: Cut
    config: Mapping[str, Any]
    model: str
    inputs: Inputs
    code: Mapping[str, str]
    quantize: Mapping[str, Any] | None
    dtype: str
    room: Room

    @property
    def family(self) -> str:
        """The family of its scenario."""
        return QUANTISED if self.quantize else FAMILY


def prepare(request: TrialRequest, environ: Mapping[str, str]) -> Trial:
    """Read the adapter and the configuration of its base, and decide what is left of them. Writes nothing.

    Raises:
        UsageError: it is no adapter, its base is not known or does not fit, or it needs other files.
        HarnessError: a file is damaged.
    """
    source = folder.read(request.adapter)
    if source.unreadable is not None:
        raise source.unreadable
    if len(source.tensors) != 1:
        raise UsageError(
            f"{source.path}: the checkpoint has {len(source.tensors)} parts, which PEFT does not read",
            "one adapter_model.safetensors or adapter_model.bin", "save it with PEFT's save_pretrained()",
        )  # fmt: skip
    adapter, shapes = source.adapter.config, source.adapter.shapes
    base = base_config.find(adapter, request.base, environ, fetch=request.fetch)
    code = _own_code(base) if request.trust_remote_code and "auto_map" in base.values else {}
    left = _cut(request, base.values, source)
    model = model_class.of(base.values, adapter, own_code=bool(code))
    made = inputs.of(left.base, model, left.vocabulary, adapter)
    config = model_class.with_labels(left.base | made.changes, model_class.labels(model, shapes))
    quantize = _quantised(base.values, request.quantize)
    return Trial(
        name=_name(source.path), source=source, base=base, cut=left, config=config, model=model, inputs=made,
        code=code, quantize=quantize, dtype="" if quantize else _dtype(base.values),
        room=room.needed(left.base, source.size, left.vocabulary.tokens),
    )  # fmt: skip


def _own_code(base: BaseConfig) -> dict[str, str]:
    """The Python files beside a base's configuration.

    Raises:
        UsageError: there is none.
    """
    beside = sorted(Path(base.origin).parent.glob("*.py")) if "://" not in base.origin else []
    if not beside:
        raise UsageError(
            f"{base.origin}: the base's own code (`auto_map`) is not beside it", "the Python files of the base",
            "pass the whole folder of the base with --base",
        )  # fmt: skip
    return {path.name: read_text(path) for path in beside}


def _cut(request: TrialRequest, base: Mapping[str, Any], source: Folder) -> Cut:
    """What is left: as many layers as asked for, else as many as fit into the memory that is free."""

    def left(most: int | None) -> Cut:
        return cut.cut(base, source.adapter.config, source.adapter.shapes, most)

    if request.whole or request.layers is not None:
        return left(None if request.whole else request.layers)
    found, free = left(_LAYERS), room.available()
    needed = room.needed(found.base, source.size, found.vocabulary.tokens)
    if free is None or room.fit(needed, free):
        return found
    fewer = left(1)
    why = f"one layer with the adapter instead of {_LAYERS}, which need {room.gigabytes(needed.memory)}"
    return replace(fewer, said=(*fewer.said, why)) if len(fewer.keys) < len(found.keys) else found


def _name(path: Path) -> str:
    """A name for the scenario, from the folder's: a snapshot of the Hub's cache is named by its repository."""
    words = [path.name]
    if path.parent.name == "snapshots":
        words = [path.parent.parent.name.removeprefix("models--")]
    elif _TELLS_NOTHING.fullmatch(path.name.lower()):
        words = [path.parent.name, path.name]
    name = re.sub(r"[^a-z0-9.]+", "-", "-".join(words).lower()).strip("-.")[:60].rstrip("-.")
    return name or "adapter"


def _dtype(base: Mapping[str, Any]) -> str:
    """The narrow type of the base's weights; empty for float32."""
    text = base.get("text_config")
    for section in (base, text if isinstance(text, Mapping) else {}):
        said = section.get("dtype") or section.get("torch_dtype")
        if said in ("bfloat16", "float16"):
            return str(said)
    return ""


def _quantised(base: Mapping[str, Any], asked: str) -> dict[str, Any] | None:
    if asked:
        return {"bits": 8} if asked == "int8" else {"bits": 4, "type": asked}
    said = base.get("quantization_config")
    if not isinstance(said, Mapping):
        return None
    if said.get("load_in_8bit"):
        return {"bits": 8, **({"threshold": float(said["llm_int8_threshold"])} if "llm_int8_threshold" in said else {})}
    if said.get("load_in_4bit"):
        kind = said.get("bnb_4bit_quant_type") or "fp4"
        return {"bits": 4, "type": str(kind), "double": bool(said.get("bnb_4bit_use_double_quant"))}
    return None  # GPTQ and the like: the base is tried as it was before


def said(trial: Trial) -> list[str]:
    """What is tried, in sentences."""
    found = [f"{trial.source.path}: {trial.source.adapter.method}, on a base as in {trial.base.origin}"]
    found += [f"cut: {one}" for one in trial.cut.said]
    other = trial.base.values.get("quantization_config")
    if isinstance(other, Mapping) and not trial.quantize:
        method = one_line(str(other.get("quant_method") or "another method"), 30)
        found.append(f"the base is quantised by {method}, and is tried without that")
    weights = " with 8-bit weights" if trial.quantize and trial.quantize["bits"] == 8 else (
        f" with 4-bit weights ({trial.quantize['type']})" if trial.quantize else ""
    )  # fmt: skip
    return [*found, f"the base's own weights are not used: it is filled with fixed numbers{weights}", str(trial.room)]


# Writing


def write(trial: Trial, reports: Path) -> Path:
    """Write the trial's folder below the folder of reports; returns its scenario file.

    The folder's name has a digest of its content, so that the same trial has the same folder.
    """
    texts = {
        _SCENARIO: _scenario(trial),
        f"bases/{_BASE}.toml": _base(trial),
        f"bases/{_BASE}.json": _json(trial.config),
        **{f"bases/{name}": text for name, text in trial.code.items()},
    }
    mark = hashlib.sha256(json.dumps([texts, _source_digest(trial)], sort_keys=True).encode()).hexdigest()[:12]
    place = reports / "own" / f"{trial.name}-{mark}"
    if not (place / _SCENARIO).is_file():
        (place / _ADAPTER).mkdir(parents=True, exist_ok=True)
        _write_adapter(trial, place / _ADAPTER)
        for below in ("bases/", ""):
            names = {name: text for name, text in texts.items() if name.rpartition("/")[0] == below.rstrip("/")}
            write_together(place / below, {name.rpartition("/")[2]: text.encode() for name, text in names.items()})
    return place / _SCENARIO


def _source_digest(trial: Trial) -> str:
    whole = hashlib.sha256(_json(trial.cut.adapter).encode())
    for name in trial.source.tensors:
        with open_regular(trial.source.path / name, links=True) as file:
            while block := file.read(1 << 20):
                whole.update(block)
    return whole.hexdigest()


def _write_adapter(trial: Trial, target: Path) -> None:
    (target / folder.CONFIG).write_text(_json(trial.cut.adapter), encoding="utf-8")
    ((name, file),) = trial.source.tensors.items()
    left = trial.cut
    if not left.columns and left.keys == {key: key for key in file.tensors}:
        with open_regular(trial.source.path / name, links=True) as source, (target / name).open("wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
    else:
        tensor_writer.write(trial.source.path / name, target / name, file, left.keys, left.columns)


def _json(values: Any) -> str:
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def _scenario(trial: Trial) -> str:
    method = trial.source.adapter.method
    lines = {
        "name": trial.name,
        "why": _why(trial),
        "family": trial.family,
        "base": _BASE,
        "adapter_files": _ADAPTER,
        "adapter": {"config": _CLASSES.get(method, _class_name(method))},
        "time_limit_s": round(max(120.0, 10 * trial.room.seconds), 1),
    }
    if trial.quantize:
        lines |= {"requires": ["bitsandbytes>=0.46"], "quantize": dict(trial.quantize)}
    if trial.inputs.adapter:
        lines |= {"adapter_inputs": trial.inputs.adapter, "skip": {"layers": "a layer alone is not told the tasks"}}
    return "[[scenario]]\n" + "".join(f"{key} = {toml_value(value)}\n" for key, value in lines.items())


def _class_name(method: str) -> str:
    name = re.sub(r"\W", "", method.title())
    return f"{name if name[:1].isalpha() else 'Peft'}Config"


def _why(trial: Trial) -> str:
    parts = "; ".join(trial.cut.said)
    return f"The user's own adapter in {one_line(str(trial.source.path))}{f', cut: {parts}' if parts else ''}."


def _base(trial: Trial) -> str:
    made = trial.inputs
    lines: dict[str, Any] = {"why": f"As in {one_line(trial.base.origin)}.", "outputs": made.outputs}
    lines |= {"generate": made.generate} if made.generate else {}
    lines |= {"resize_to": trial.cut.vocabulary.resize_to} if trial.cut.vocabulary.resize_to else {}
    text = "".join(f"{key} = {toml_value(value)}\n" for key, value in lines.items())
    text += f'\n[transformers]\nmodel = "{trial.model}"\nconfig_file = "{_BASE}.json"\n'
    text += f"code = {toml_value(list(trial.code))}\n" if trial.code else ""
    text += "\n[inputs]\n"
    text += "".join(f"{toml_value(name)} = {toml_value(spec)}\n" for name, spec in made.specs.items())
    if "num_experts" in json.dumps(trial.config) or "_experts" in json.dumps(trial.config):
        # the default of Transformers 5 computes all experts in one go, and not in float64
        text += '\n[[when]]\nif = "transformers>=5"\nload_with = { experts_implementation = "eager" }\n'
    return text
