"""llama.cpp: its converter makes GGUF files of base and adapter, and its runtime computes with them.

The converter's scripts run in this process, where their imports are shared. The runtime is `xllamacpp`. Its cache of
keys and values is in float32 and flash attention is off: both default to less than PEFT computes with.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import runpy
import stat
import sys
import time
from typing import Any, Iterator

from . import LISTED, Refused, stage

SOURCE = os.path.join(sys.prefix, "source", "vendor", "llama.cpp")
_BASE, _ADAPTER = "base.gguf", "adapter.gguf"
_REFUSALS = (NotImplementedError, ValueError)
"""What the converter raises where it says that it does not do something. It logs an error and exits, too."""
_CONTEXT = 512
_LOG = "/proc/self/fd/2"
_LONGEST = 1 << 20
_ERROR = re.compile(r"^.*?\d\.\d+\.\d+ E (.*)$", re.MULTILINE)
"""A line of the runtime's log: `0.00.057.854 E where: what`."""
_converted: dict[str, str] = {}
_said: list[str] = []


def preload() -> None:
    """Import what both scripts of the converter import, and the runtime."""
    for folder in (os.path.join(SOURCE, "gguf-py"), SOURCE):
        sys.path.insert(0, folder)
    import gguf  # noqa: F401
    import torch
    import transformers  # noqa: F401
    import xllamacpp  # noqa: F401

    os.environ["GGML_NO_BACKTRACE"] = "1"  # an abort would start a debugger, for ten seconds
    torch.set_num_threads(1)
    _take_any_tokenizer(_module_of_models())


def _module_of_models() -> Any:
    """The module that has the converter's models: one file up to 0.3.16, a package since."""
    try:
        import conversion.base as found
    except ImportError:
        import convert_hf_to_gguf as found
    return found


def _take_any_tokenizer(models: Any) -> None:
    """Have the converter take a tokenizer whose digest it does not know. Prompts are numbers of tokens here."""
    for owner in vars(models).values():
        known = vars(owner).get("get_vocab_base_pre") if isinstance(owner, type) else None
        if known is not None:
            owner.get_vocab_base_pre = _tolerant(known)


def _tolerant(known: Any) -> Any:
    def get_vocab_base_pre(self: Any, tokenizer: Any) -> str:
        try:
            return str(known(self, tokenizer))
        except NotImplementedError:
            return "gpt-2"

    return get_vocab_base_pre


def versions() -> dict[str, str]:
    """The runtime's build, and the converter's GGUF package."""
    import xllamacpp

    return {"xllamacpp": str(xllamacpp.__version__), "llama.cpp": " ".join(str(xllamacpp.BUILD_INFO).split())[:200]}


def log_probabilities(base: str, adapter: str | None, prompts: list[list[int]], work: str) -> Any:
    """The log-probabilities of each token after each prompt."""
    import numpy

    if base not in _converted:
        made = os.path.join(work, _BASE)
        with stage("converting the base"):
            _convert("convert_hf_to_gguf.py", [base], made)
        _converted[base] = made
    lora = None
    if adapter is not None:
        lora = os.path.join(work, _ADAPTER)
        with stage("converting the adapter"):
            _convert("convert_lora_to_gguf.py", ["--base", base, adapter], lora)
    with stage("loading the adapter" if lora else "loading the base"):
        server = _started(_converted[base], lora, max(map(len, prompts)), adapter, work)
    with stage("computing"):
        return numpy.stack([_after(server, prompt, _vocabulary(base)) for prompt in prompts])


def accounted(adapter: str, work: str) -> dict[str, str] | None:
    """The tensors of the GGUF file that hold the values of the adapter's, in any order: the converter permutes some."""
    import gguf
    import numpy
    from safetensors.numpy import load_file

    file, path = os.path.join(work, _ADAPTER), os.path.join(adapter, "adapter_model.safetensors")
    if not os.path.exists(file) or not os.path.exists(path):
        return None
    if not hasattr(numpy.memmap, "newbyteorder"):  # NumPy 2 has none, and the reader of older releases calls it
        setattr(numpy.memmap, "newbyteorder", lambda array, order: array.view(array.dtype.newbyteorder(order)))  # noqa: B010
    there = {one.name: numpy.sort(numpy.asarray(one.data), axis=None) for one in gguf.GGUFReader(file).tensors}
    found: dict[str, str] = {}
    for key, tensor in load_file(path).items():
        values = numpy.sort(tensor, axis=None)
        names = [name for name, other in there.items() if numpy.array_equal(values, other)]
        said = [line for line in _said if key in line or key.replace("base_model.model.", "") in line]
        if names:
            found[key] = names[0]
        elif said:
            found[key] = LISTED + said[0]
    return found


def _convert(script: str, arguments: list[str], made: str) -> None:
    """Run a script of the converter.

    Raises:
        Refused: it says what it does not do.
        RuntimeError: it writes nothing.
    """
    command = [os.path.join(SOURCE, script), "--outtype", "f32", "--outfile", made, *arguments]
    with _arguments(command), _heard() as lines:
        try:
            runpy.run_path(command[0], run_name="__main__")
        except SystemExit as end:
            if end.code not in (0, None):
                raise Refused("\n".join(lines) or f"the converter ended with {end.code!r}") from end
        except _REFUSALS as error:
            if error.args and type(error) in _REFUSALS:
                raise Refused("\n".join([*lines, str(error)])) from error
            raise
    _said.extend(lines)
    if not os.path.exists(made):
        raise RuntimeError(f"{script} wrote no {os.path.basename(made)}")


@contextlib.contextmanager
def _arguments(command: list[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, command
    try:
        yield
    finally:
        sys.argv = before


@contextlib.contextmanager
def _heard() -> Iterator[list[str]]:
    """What is logged as a warning or an error."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    collector = Collector(logging.WARNING)
    logging.getLogger().addHandler(collector)
    try:
        yield lines
    finally:
        logging.getLogger().removeHandler(collector)


def _started(model: str, lora: str | None, longest: int, adapter: str | None, work: str) -> Any:
    """The runtime with a model.

    Raises:
        Refused: it does not load the model or the adapter, and says why.
    """
    before = _size_of_log()
    try:
        return _server(model, lora, longest)
    except RuntimeError as error:
        if not (words := _errors_in_log(before)):
            raise
        where = accounted(adapter, work) if adapter is not None else None
        same = [
            f"({name} is {key})" for key, name in (where or {}).items() if name.rpartition(".lora_")[0] + "'" in words
        ]
        raise Refused("\n".join([words, *same])) from error


def _size_of_log() -> int:
    status = os.fstat(2)
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def _errors_in_log(start: int) -> str:
    """The errors that the runtime logged, which it does in a thread of its own."""
    if start < 0 or not os.path.exists(_LOG):
        return ""
    time.sleep(0.1)
    with open(_LOG, "rb") as file:
        file.seek(start)
        text = file.read(_LONGEST).decode("utf-8", "replace")
    return "\n".join(found.strip() for found in _ERROR.findall(text))


def _server(model: str, lora: str | None, longest: int) -> Any:
    import xllamacpp as runtime

    asked = runtime.CommonParams()
    asked.model.path = model
    asked.n_ctx, asked.n_parallel, asked.n_gpu_layers, asked.warmup = max(_CONTEXT, longest + 8), 1, 0, False
    asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = 1
    asked.cache_type_k = asked.cache_type_v = runtime.ggml_type.GGML_TYPE_F32
    asked.flash_attn_type = runtime.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if lora:
        asked.lora_adapters = [runtime.CommonAdapterLoraInfo(lora, 1.0)]
    return runtime.Server(asked)


def _vocabulary(base: str) -> int:
    from transformers import AutoConfig

    return int(AutoConfig.from_pretrained(base).vocab_size)


def _after(server: Any, prompt: list[int], vocabulary: int) -> Any:
    """The log-probabilities after one prompt. They are those before sampling, so that no token ends it too early."""
    import numpy

    asked = {
        "prompt": prompt, "n_predict": 1, "n_probs": vocabulary, "post_sampling_probs": False, "temperature": 0.0,
        "cache_prompt": False, "ignore_eos": True,
    }  # fmt: skip
    answer = server.handle_completions(asked)
    choices = answer.get("choices") or [{}] if isinstance(answer, dict) else [{}]
    content = (choices[0].get("logprobs") or {}).get("content") or []
    row = numpy.full(vocabulary, numpy.nan)
    for token in content[0]["top_logprobs"] if content else ():
        row[token["id"]] = token["logprob"]
    if numpy.isnan(row).any():
        raise RuntimeError(
            f"the runtime gives no log-probability of {int(numpy.isnan(row).sum())} tokens: {answer!r:.300}"
        )
    return row
