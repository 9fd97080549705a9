"""A warm-up may leave nothing that a cell could notice; what would is not done."""

from __future__ import annotations

import functools
import logging
import os
import random
import signal
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest

from harness.worker.observe import warmup

torch: Any = SimpleNamespace(
    dtype="float32",
    state=0,
    get_default_dtype=lambda: torch.dtype,
    is_grad_enabled=lambda: True,
    are_deterministic_algorithms_enabled=lambda: True,
    get_num_threads=lambda: 1,
    get_rng_state=lambda: torch.state,
    set_rng_state=lambda state: setattr(torch, "state", state),
)
"""Stands in for torch, which is not here."""

log = logging.getLogger("transformers.of.this.test")
_said: set[str] = set()


@functools.cache
def once(text: str) -> None:
    log.warning(text)


def says_once_in_a_log(_torch: Any, _folder: str) -> None:
    once("mind the gap")


def warns_once(_torch: Any, _folder: str) -> None:
    if "w" not in _said:
        _said.add("w")
        warnings.warn("only now", UserWarning, stacklevel=1)


def warns_always(_torch: Any, folder: str) -> None:
    warnings.warn(f"deprecated, see {folder}/x", FutureWarning, stacklevel=1)


def sets_the_dtype(torch: Any, _folder: str) -> None:
    torch.dtype = "float64"


def sets_a_level(_torch: Any, _folder: str) -> None:
    log.setLevel(logging.ERROR)


def sets_a_variable(_torch: Any, _folder: str) -> None:
    os.environ["SET_BY_A_LIBRARY"] = "1"


def ignores_warnings(_torch: Any, _folder: str) -> None:
    warnings.filterwarnings("ignore", "everything")


def goes_elsewhere(_torch: Any, folder: str) -> None:
    os.chdir(folder)


def starts_a_thread(_torch: Any, _folder: str) -> None:
    threading.Thread(target=threading.Event().wait, daemon=True).start()


def fails(_torch: Any, _folder: str) -> None:
    raise RuntimeError("not in this release")


def dies(_torch: Any, _folder: str) -> None:
    os._exit(0)


def kills_itself(_torch: Any, _folder: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def is_silent(_torch: Any, folder: str) -> None:
    (Path(folder) / "a").write_text("a")


REFUSED = [
    says_once_in_a_log,
    warns_once,
    sets_the_dtype,
    sets_a_level,
    sets_a_variable,
    ignores_warnings,
    goes_elsewhere,
    starts_a_thread,
    fails,
    kills_itself,
]


@pytest.mark.parametrize("step", REFUSED)
def test_what_leaves_a_trace_is_not_done(step: warmup.Step, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warmup, "_THREADS_END_S", 0.05)
    assert warmup.run_steps(torch, (step,)) == []
    assert (once.cache_info().currsize, _said, torch.dtype, log.level) == (0, set(), "float32", 0)
    assert "SET_BY_A_LIBRARY" not in os.environ


def test_what_is_said_each_time_is_no_trace() -> None:
    assert warmup.run_steps(torch, (warns_always, is_silent)) == ["warns_always", "is_silent"]


def draws(torch: Any, _folder: str) -> None:
    torch.state += 1
    random.random()
    numpy.random.random()


def test_random_generators_are_put_back() -> None:
    def drawn() -> tuple[Any, ...]:
        return torch.state, random.getstate(), str(numpy.random.get_state())

    before = drawn()
    assert warmup.run_steps(torch, (draws,)) == ["draws"]
    assert drawn() == before


def test_a_step_that_ends_the_process_ends_only_the_scout() -> None:
    assert warmup.run_steps(torch, (dies, is_silent)) == ["is_silent"]
