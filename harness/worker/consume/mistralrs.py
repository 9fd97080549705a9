"""mistral.rs reads the folder that PEFT saves, and computes with it in this process.

It takes prompts as text, so each prompt is written as text and must be tokenized to the same numbers again. Since 0.9 a
model takes adapters while it runs. Before, an adapter is loaded with the model.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import warnings
from typing import Any, Iterator

from . import Refused, stage

_CONFIG = "config.json"
_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
_NAME = "adapter"
_SETTINGS = {
    "MISTRALRS_CPU_KV_F32": "1",  # since 0.9; by default keys and values are float16, which costs four digits
    "RAYON_NUM_THREADS": "1",
}


def preload() -> None:
    """Import the library, which reads its settings from the environment."""
    os.environ.update(_SETTINGS)
    import mistralrs  # noqa: F401


def versions() -> dict[str, str]:
    """The release."""
    from importlib.metadata import version

    return {"mistralrs": version("mistralrs")}


def log_probabilities(base: str, adapter: str | None, prompts: list[list[int]], work: str) -> Any:
    """The log-probabilities of each token after each prompt."""
    import numpy

    copy, size = _copy(base, work), _vocabulary(base)
    with stage("loading the adapter" if adapter else "loading the base"), _panics():
        runner = _runner(copy, adapter, work)
        name = _loaded(runner, adapter)
    with stage("computing"), _panics():
        return numpy.stack([_after(runner, prompt, size, name) for prompt in prompts])


def accounted(adapter: str, work: str) -> dict[str, str] | None:  # noqa: ARG001 - every driver has it
    """Nothing: mistral.rs shows neither the tensors that it read nor their names."""
    return None


def _vocabulary(base: str) -> int:
    with open(os.path.join(base, _CONFIG), encoding="utf-8") as file:
        return int(json.load(file)["vocab_size"])


def _copy(base: str, work: str) -> str:
    """A folder with links to the base's files, and a configuration with the fields that mistral.rs wants."""
    copy = os.path.join(work, "base")
    os.makedirs(copy)
    for name in os.listdir(base):
        if name != _CONFIG:
            os.symlink(os.path.join(base, name), os.path.join(copy, name))
    with open(os.path.join(base, _CONFIG), encoding="utf-8") as file:
        config = json.load(file)
    if added := _missing(config):
        warnings.warn(f"added to the copy of {_CONFIG} that mistral.rs gets: {json.dumps(added)}", stacklevel=2)
    with open(os.path.join(copy, _CONFIG), "w", encoding="utf-8") as file:
        json.dump({**config, **added}, file)
    return copy


def _missing(config: Any) -> dict[str, Any]:
    """The fields as Transformers 4 wrote them: Transformers 5 has `rope_parameters` instead."""
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict) or "rope_theta" not in rope:
        return {}
    wanted = {"rope_theta": rope["rope_theta"]}
    if rope.get("rope_type", "default") != "default":
        wanted["rope_scaling"] = {name: value for name, value in rope.items() if name != "rope_theta"}
    return {name: value for name, value in wanted.items() if name not in config}


def _runner(base: str, adapter: str | None, work: str) -> Any:
    import mistralrs

    which, dtype = mistralrs.Which, mistralrs.ModelDType.F32
    if hasattr(mistralrs.Runner, "load_lora_adapter"):
        model = which.Lora(model_id=base, adapters=[], dtype=dtype)
    elif adapter is None:
        model = which.Plain(model_id=base, dtype=dtype)
    else:
        model = which.Lora(adapter_model_ids=[adapter], model_id=base, dtype=dtype)
    template = os.path.join(work, "template.jinja")
    with open(template, "w", encoding="utf-8") as file:
        file.write(_TEMPLATE)
    return mistralrs.Runner(model, prefix_cache_n=0, token_source="none", jinja_explicit=template)


def _loaded(runner: Any, adapter: str | None) -> dict[str, str]:
    """Load the adapter into a running model; returns how a request names it.

    Raises:
        Refused: mistral.rs says what it does not do.
    """
    import mistralrs

    if adapter is None or not hasattr(runner, "load_lora_adapter"):
        return {}
    try:
        runner.load_lora_adapter(_NAME, adapter)
    except mistralrs.LoraAdapterError as error:
        raise Refused(_words(str(error))) from error
    return {"adapter": _NAME}


def _words(text: str) -> str:
    """A message without the backtrace behind it."""
    lines = text.splitlines()
    end = next((index for index, line in enumerate(lines) if line.strip().startswith("0: ")), len(lines))
    return "\n".join(lines[:end]).strip()


@contextlib.contextmanager
def _panics() -> Iterator[None]:
    """A panic of Rust as an error: it is a BaseException, which would be taken for the end of the process."""
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(f"mistral.rs panicked: {_words(str(error))}") from error


def _after(runner: Any, prompt: list[int], size: int, name: dict[str, str]) -> Any:
    """The log-probabilities after one prompt.

    Raises:
        RuntimeError: the prompt that was computed is another one, or not every token has a log-probability.
    """
    import mistralrs
    import numpy

    # at temperature 0, releases before 0.9 give logarithms of the logits
    request = mistralrs.ChatCompletionRequest(
        messages=[{"role": "user", "content": _text(runner, prompt)}], model="default", logprobs=True,
        top_logprobs=size, max_tokens=1, temperature=1.0, **name,
    )  # fmt: skip
    answer = runner.send_chat_completion_request(request)
    if answer.usage.prompt_tokens != len(prompt):
        raise RuntimeError(f"mistral.rs computed {answer.usage.prompt_tokens} tokens for a prompt of {len(prompt)}")
    row = numpy.full(size, numpy.nan)
    for token in answer.choices[0].logprobs.content[0].top_logprobs:
        row[token.token] = token.logprob
    if numpy.isnan(row).any():
        raise RuntimeError(f"mistral.rs gives no log-probability of {int(numpy.isnan(row).sum())} tokens")
    return row * _base(row)


def _base(row: Any) -> float:
    """1, or what makes natural logarithms of decimal ones, which releases before 0.9 give."""
    import numpy

    return math.log(10) if abs(numpy.power(10.0, row).sum() - 1) < abs(numpy.exp(row).sum() - 1) else 1.0


def _text(runner: Any, prompt: list[int]) -> str:
    text = str(runner.detokenize_text(prompt, False))
    again = runner.tokenize_text(text, False, None)
    if again != prompt:
        raise RuntimeError(f"the prompt {prompt} is {text!r} as text, which is tokenized to {again}")
    return text
