"""Does once, before the first fork, what libraries do at first use: build tables, import modules.

A child that inherits them is a fifth faster. But a warning that a library gives once a process must reach each cell: a
warm-up that triggers it would hide it. So each step first runs twice in a forked scout. It runs here only if the scout
got the same warnings both times, and found all settings unchanged and no thread left (a fork would lose it).
"""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from typing import Any, Callable

from ..compat import libraries
from ..model import bases
from ..serve.children import detach
from ..serve.work import flush_all
from .capture import heard, normalise

Step = Callable[[Any, str], None]

_SCOUT_LIMIT_S = 60
_THREADS_END_S = 5.0
_TRACELESS, _LEFT_A_TRACE = 93, 1
"""Exit codes of a scout; no library exits with the first."""

_SIZES = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2}
_TINY = {**_SIZES, "num_hidden_layers": 1, "vocab_size": 8, "max_position_embeddings": 8}


def run(torch: Any) -> list[str]:
    """Run every step that leaves no trace; returns their names."""
    return run_steps(torch, STEPS)


def run_steps(torch: Any, steps: tuple[Step, ...]) -> list[str]:
    """Run those steps that leave no trace; returns their names."""
    done = []
    for step in steps:
        if _scouted(torch, step):
            traces, _ = attempt(torch, step)
            done += [] if traces else [step.__name__]
    return done


def _scouted(torch: Any, step: Step) -> bool:
    """True if a forked child ran the step twice without an effect that a later cell could notice."""
    flush_all()
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        code = _LEFT_A_TRACE
        try:
            detach(server)
            signal.alarm(_SCOUT_LIMIT_S)
            traces = traces_of(torch, step)
            print(*(f"warm-up: {step.__name__} leaves a trace: {trace}\n" for trace in traces), sep="", end="")
            code = _LEFT_A_TRACE if traces else _TRACELESS
            flush_all()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return bool(os.WIFEXITED(status)) and os.WEXITSTATUS(status) == _TRACELESS


def traces_of(torch: Any, step: Step) -> list[str]:
    """Run the step twice and return the result; a warning given once a process is missing the second time."""
    traces, first = attempt(torch, step)
    more, second = attempt(torch, step)
    once = (Counter(first) - Counter(second)) + (Counter(second) - Counter(first))
    return traces + more + [f"said once: {text}" for text in sorted(once)]


def attempt(torch: Any, step: Step) -> tuple[list[str], list[str]]:
    """Run the step and restore the random generators; returns (changed settings, warnings)."""
    before, drawn = _state(torch), _generators(torch)
    traces = []
    with heard() as messages, tempfile.TemporaryDirectory() as folder:
        filters = list(warnings.filters)
        try:
            step(torch, folder)
        except BaseException as error:  # noqa: BLE001 - if it fails, each cell does this itself
            traces.append(f"{type(error).__name__}: {error}")
        if list(warnings.filters) != filters:
            traces.append("warning filters")
    _restore(torch, drawn)
    if not _alone(before["threads"]):
        traces.append("a thread goes on")
    after = _state(torch)
    traces += [name for name, value in before.items() if name != "threads" and after[name] != value]
    return traces, [normalise(text.replace(folder, "")) for text in messages]


def _state(torch: Any) -> dict[str, Any]:
    """The settings of the process that a cell could notice."""
    loggers = {f"logger {name}": _of_logger(name) for name in sorted(logging.root.manager.loggerDict)}
    return {
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch threads": torch.get_num_threads(),
        **loggers,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "path": list(sys.path),
        "hooks": (sys.excepthook, sys.stdout, sys.stderr, warnings.showwarning),
        "threads": _threads(),
    }


def _of_logger(name: str) -> tuple[Any, ...]:
    logger = logging.getLogger(name)
    return logger.level, logger.propagate, logger.disabled, tuple(logger.handlers), tuple(logger.filters)


def _generators(torch: Any) -> tuple[Any, Any, Any]:
    import numpy

    return torch.get_rng_state(), random.getstate(), numpy.random.get_state()


def _restore(torch: Any, drawn: tuple[Any, Any, Any]) -> None:
    import numpy

    torch.set_rng_state(drawn[0])
    random.setstate(drawn[1])
    numpy.random.set_state(drawn[2])


def _threads() -> int:
    """Threads of this process, including those that Python does not know."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return threading.active_count()


def _alone(before: int) -> bool:
    """Wait for the threads that the step started; False if some continue."""
    end = time.monotonic() + _THREADS_END_S
    while _threads() > before:
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def _tables(_torch: Any, _folder: str) -> None:
    libraries.build_tables()
    libraries.compile_templates_once()
    import safetensors.numpy
    import safetensors.torch  # noqa: F401 - imported for all the cells that are to come


def _base(torch: Any, folder: str) -> None:
    """Make a tiny base, save it, load it and run it."""
    _tiny_base(torch, folder)


def _adapter(torch: Any, folder: str) -> None:
    """Put LoRA on it, save it, load it and run it. No merge: its progress bar starts a thread that continues."""
    import peft

    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    made = peft.get_peft_model(_tiny_base(torch, folder), config)
    saved = os.path.join(folder, "adapter")
    made.save_pretrained(saved)
    model = peft.PeftModel.from_pretrained(_tiny_base(torch, folder), saved)
    model.eval()
    _run(torch, model)


def _tiny_base(torch: Any, folder: str) -> Any:
    import transformers

    where = os.path.join(folder, "base")
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**_TINY)).save_pretrained(where)
    model = transformers.LlamaForCausalLM.from_pretrained(where).eval()
    bases.realign(model)
    _run(torch, model)
    return model


def _run(torch: Any, model: Any) -> None:
    tokens = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        model(input_ids=tokens, attention_mask=torch.ones_like(tokens))


STEPS: tuple[Step, ...] = (_tables, _base, _adapter)
