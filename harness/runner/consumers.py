"""What a consumer cannot read by declaration: such cells are `unsupported`, with the reason."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping

from harness.core.matrix import Declared
from harness.envs.environment import Consumer
from harness.runner.fixture_source import Fixture
from harness.runner.plan import Planned
from harness.worker.files import parse_json

_TOKENIZERS = ("base/tokenizer.json", "base/tokenizer.model")
_CONFIG = "base/config.json"


def lacks(cell: Planned, consumer: Consumer, fixture: Fixture) -> str:
    """Why a consumer cannot read a fixture, by declaration; empty if it should."""
    if cell.id.settings.request:
        return f"{consumer.name} computes in float32, with an attention of its own"
    if fixture.manifest.files.keys().isdisjoint(_TOKENIZERS):
        return "its base has no tokenizer, without which no consumer reads a model"
    config = parse_json(fixture.store.content(fixture.manifest, _CONFIG)) if _CONFIG in fixture.manifest.files else {}
    classes = [str(name) for name in config.get("architectures") or ()]
    if not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in classes):
        return f"its base is no causal language model ({', '.join(classes) or 'no architecture'})"
    names = [*_names(cell.declared, config), *classes]
    return next((why for glob, why in consumer.lacks.items() if any(fnmatch.fnmatchcase(n, glob) for n in names)), "")


def _names(declared: Declared, config: Mapping[str, object]) -> Iterator[str]:
    """The names that a declaration's globs are about, besides the classes of the base."""
    scenario = declared.scenario
    yield from (scenario.base or "", scenario.adapter.config, str(config.get("model_type", "")))
