"""Turns a user's adapter into a scenario that may be published: small base, small adapter, nothing of the user's.

The environment that wrote the adapter says what its base is, with all defaults, and whether it builds the small one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core import data
from harness.core.errors import HarnessError, UsageError
from harness.core.files import write_together
from harness.core.matrix import Matrix
from harness.core.text import one_line, toml_key, toml_value
from harness.own import inputs, model_class, shrink, small_adapter, vocabulary
from harness.own.inputs import Inputs
from harness.own.kinds import Kind, kind_of
from harness.own.shrink import Shrunk
from harness.own.small_adapter import SmallAdapter
from harness.own.trial import Trial
from harness.own.vocabulary import Vocabulary
from harness.own.written_by import Table

Ask = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""A request to an environment → its answer (`harness.worker.model.described`)."""

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_QUANTISED_GRAINS = (64,)
"""Blocks of bitsandbytes are 64 weights long."""
_LARGE = 2_000_000
_LABELS = 5
_TODO_WHY = "TODO: which break only this scenario finds, in one or two sentences"
_TODO_BASE = "TODO: what this architecture has that the other bases lack"
_TODO_GUARD = "TODO: the address of the issue or pull request; remove this line if there is none"
_PLAIN = re.compile(r"[\w.+-]{1,40}")
"""A value that is a word of the field, not a path or a sentence."""


@dataclass(frozen=True)
class Adopted:
    """A scenario, ready to be written.

    Attributes:
        name: of the scenario, its file and its base.
        scenario: text of the scenario file.
        base: text of the base's file.
        config: text of the base's configuration.
        said: what was made, in sentences.
        refused: why the library does not build the small base; empty if it does.
    """

    name: str
    scenario: str
    base: str
    config: str
    said: tuple[str, ...]
    refused: str = ""


def adopt(ready: Trial, name: str, ask: Ask, table: Table) -> Adopted:
    """Describe a user's adapter as a scenario of a small base.

    Args:
        ready: the adapter, its base and its model's class.
        ask: the environment that wrote the adapter.
        table: which releases write what; it tells the releases that have the feature.

    Raises:
        HarnessError: the environment does not know the base or the method, or the adapter cannot be described.
    """
    adapter = ready.source.adapter
    answer = _answered(ask({"config": _plain(ready.base.values), "method": adapter.method}), ready)
    full = _merged(answer["config"], _plain(ready.base.values))
    tokens = vocabulary.of(full, adapter.config, adapter.shapes, whole=True)
    added = (tokens.resize_to or tokens.before) - tokens.before
    refused, built = "", {}
    for grain in _QUANTISED_GRAINS if ready.quantize else shrink.GRAINS:
        base = shrink.shrink(full, small_adapter.marks(adapter.shapes), grain)
        made = small_adapter.small(adapter.config, adapter.shapes, answer["defaults"], base, tokens.before, added)
        config = _stated(base.config, full, ready.base.values, set(answer["known"]))
        config = _with_labels(config, ready)
        on = _inputs(config, ready, base, made)
        config |= on.changes
        built = dict(ask({"config": config, "model": ready.model}))
        if "error" not in built:
            break
        refused = refused or _refusal(built, answer)
    else:
        return _texts(ready, name, str(answer["method"]), made, config, on, ready.model, table, refused)
    model = str(built.get("model") or ready.model)
    adopted = _texts(ready, name, str(answer["method"]), made, config, on, model, table, "")
    return _with_size(adopted, built, base)


def _answered(answer: Mapping[str, Any], ready: Trial) -> Mapping[str, Any]:
    if "error" in answer:
        error, kind = answer["error"], one_line(str(ready.base.values.get("model_type")), 60)
        raise HarnessError(
            f"the environment of the adapter does not know its base or its method: {error['type']}: "
            f"{one_line(error['message'], 300)}",
            f"a release that has models of type {kind} and the method {ready.source.adapter.method}",
            "name another environment with --from",
        )  # fmt: skip
    return answer


def _refusal(built: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    error = built["error"]
    return f"Transformers {answer.get('transformers')}: {error['type']}: {one_line(error['message'], 300)}"


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that say what a model is, without those that say where it is from."""
    kept = {key: value for key, value in config.items() if kind_of(key) is not Kind.DROP}
    return {key: _plain(value) if isinstance(value, Mapping) else value for key, value in kept.items()}


def _merged(complete: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """All entries of a configuration: the library's, and those that it has under other names."""
    merged = {key: value for key, value in said.items() if key not in complete} | dict(complete)
    for key, value in said.items():
        if isinstance(value, Mapping) and isinstance(complete.get(key), Mapping):
            merged[key] = _merged(complete[key], value)
    return merged


def _stated(
    small: Mapping[str, Any], full: Mapping[str, Any], said: Mapping[str, Any], known: set[str]
) -> dict[str, Any]:
    """What has to be stated: entries that the user's file has, and those that became smaller."""
    stated: dict[str, Any] = {}
    for key, value in small.items():
        inner = said.get(key)
        if isinstance(value, Mapping) and isinstance(full.get(key), Mapping):
            # the keys of an inner configuration are known, too; those of a table (rotary scaling) are its content
            within = known if key.endswith("_config") else {*known, *value}
            nested = _stated(value, full[key], inner if isinstance(inner, Mapping) else {}, within)
            if nested or key in said:
                stated[key] = nested
        elif (key in said or value != full.get(key)) and _publishable(key, value, known):
            stated[key] = value
    return stated


def _publishable(key: str, value: Any, known: set[str]) -> bool:
    """False for what the library does not know, and for texts that may be the user's own."""
    texts = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
    if not all(_PLAIN.fullmatch(text) for text in texts):
        return False
    return key in known or key == "model_type" or key.startswith("rope") or kind_of(key) is not Kind.KEEP


def _with_labels(config: Mapping[str, Any], ready: Trial) -> dict[str, Any]:
    count = model_class.labels(ready.model, ready.source.adapter.shapes)
    said = ready.base.values.get("id2label")
    if count is None and ready.model.endswith("Classification") and isinstance(said, Mapping):
        count = len(said)
    return dict(model_class.with_labels(config, None if count is None else min(count, _LABELS)))


def _inputs(config: Mapping[str, Any], ready: Trial, base: Shrunk, made: SmallAdapter) -> Inputs:
    size = base.vocabulary
    tokens = Vocabulary(size, size, size + made.added if made.added else None, trained=made.tokens)
    return inputs.of(_merged(base.config, config), ready.model, tokens, ready.source.adapter.config)


def _with_size(adopted: Adopted, built: Mapping[str, Any], base: Shrunk) -> Adopted:
    size = int(built.get("bytes") or 0)
    layers = f"layers {', '.join(map(str, base.layers))} of the adapter's base are left" if base.layers else ""
    said = [f"the base has {size / 1000:,.0f} kB of weights{'; ' + layers if layers else ''}"]
    if size > _LARGE:
        said.append(
            f"that is more than {_LARGE / 1e6:.0f} MB: look in bases/{adopted.name}.json for what is still large"
        )
    return Adopted(adopted.name, adopted.scenario, adopted.base, adopted.config, tuple(said))


# Texts


def _texts(
    ready: Trial, name: str, kind: str, made: SmallAdapter, config: Mapping[str, Any], on: Inputs, model: str,
    table: Table, refused: str,
) -> Adopted:  # fmt: skip
    scenario = _scenario(ready, name, kind, made, on, table)
    text = json.dumps(config, indent=1, sort_keys=True) + "\n"
    return Adopted(name, scenario, _base(ready, name, made, on, model, text), text, (), refused)


def _scenario(ready: Trial, name: str, kind: str, made: SmallAdapter, on: Inputs, table: Table) -> str:
    head: dict[str, Any] = {"name": name, "why": _TODO_WHY, "guards": [_TODO_GUARD], "base": name}
    if needs := requires(ready, made, table):
        head["requires"] = needs
    if ready.quantize:  # environments with bitsandbytes are for families of this name
        head |= {"family": f"bnb-{ready.quantize['bits']}bit", "quantize": dict(ready.quantize)}
    if on.adapter:
        head |= {"adapter_inputs": on.adapter, "skip": {"layers": "a layer alone is not told the tasks"}}
    parts = ["[[scenario]]\n" + _entries(head), f"[scenario.adapter]\n{_entries({'config': kind})}"]
    parts.append("[scenario.adapter.args]\n" + _entries(made.args))
    parts.append("[scenario.expects.keys]\n" + _entries(made.keys))
    return "\n".join(parts)


def _entries(values: Mapping[str, Any]) -> str:
    return "".join(f"{toml_key(key)} = {toml_value(value)}\n" for key, value in values.items())


def requires(ready: Trial, made: SmallAdapter, table: Table) -> list[str]:
    """The conditions on versions: the first release that writes the method, and each of the entries that are stated."""
    method = table.methods.get(ready.source.adapter.method)
    found = ["bitsandbytes>=0.46"] if ready.quantize else []
    if method is None:
        return found
    order = {release: place for place, release in enumerate(table.releases)}
    first = [method.seen[0]]
    first += [min(method.config[key], key=lambda one: order.get(one, 0)) for key in made.args if method.config.get(key)]
    since = max(first, key=lambda one: order.get(one, 0))
    oldest = table.seen[0] if table.seen else ""
    return [*found, *([f"peft>={'.'.join(since.split('.')[:2])}"] if since != oldest else [])]


def _base(ready: Trial, name: str, made: SmallAdapter, on: Inputs, model: str, config: str) -> str:
    head: dict[str, Any] = {"why": _TODO_BASE, "outputs": on.outputs}
    head |= {"resize_to": _resized(config, made)} if made.added else {}
    head |= {"generate": on.generate} if on.generate else {}
    head |= {"dtype": ready.dtype} if ready.dtype else {}
    text = _entries(head) + f"\n[transformers]\n{_entries({'model': model, 'config_file': f'{name}.json'})}"
    text += f"\n[inputs]\n{_entries(on.specs)}"
    if "_experts" in config:
        # the default of Transformers 5 computes all experts in one go, and not in float64
        text += '\n[[when]]\nif = "transformers>=5"\nload_with = { experts_implementation = "eager" }\n'
    return text


def _resized(config: str, made: SmallAdapter) -> int:
    return max(vocabulary.of(json.loads(config), {}, {}, whole=True).size, 0) + made.added


# Files


def files(adopted: Adopted, folder: Path) -> dict[Path, str]:
    """Where each text belongs in a folder laid out as `matrices/`."""
    return {
        folder / "bases" / f"{adopted.name}.json": adopted.config,
        folder / "bases" / f"{adopted.name}.toml": adopted.base,
        folder / "scenarios" / f"{adopted.name}.toml": adopted.scenario,
    }


def refuse_existing(name: str, folder: Path) -> None:
    """Refuse to overwrite.

    Raises:
        UsageError: the name is none, or a file of that name is there.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"--name {name!r}", "lower-case letters, digits, and . _ -", "choose another name")
    empty = Adopted(name, "", "", "", ())
    there = [str(path) for path in files(empty, folder) if path.exists()]
    if there:
        raise UsageError(f"{', '.join(there)}: already there", "a new name", "choose another name, or add --replace")
    taken = _declaring(name, folder)
    if taken is not None:
        raise UsageError(f"{taken} has a scenario {name!r}", "a new name", "choose another name")


def _declaring(name: str, folder: Path) -> Path | None:
    """The file that has a scenario of this name."""
    if not (folder / "scenarios").is_dir():
        return None
    matrix = Matrix(folder, data.matrices())
    return next((file for file in matrix.scenario_files() for one in matrix.read(file) if one.name == name), None)


def write(adopted: Adopted, folder: Path) -> Path:
    """Write the files; returns the scenario's."""
    for path, text in files(adopted, folder).items():
        write_together(path.parent, {path.name: text.encode()})
    return folder / "scenarios" / f"{adopted.name}.toml"
