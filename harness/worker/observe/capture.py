"""Captures success or exception as a value, with all warnings given meanwhile."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
import traceback
import warnings
from typing import Any, Callable, Iterator

_LOGGERS = ("", "transformers", "peft", "accelerate", "bitsandbytes", "trl", "torch")
_OURS = ("deterministic implementation", "use_deterministic_algorithms", "CUBLAS_WORKSPACE_CONFIG")
"""Warnings that only our own settings (deterministic mode) cause."""

_OUR_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

_STAGE_BY_FUNCTION = (
    # where in PEFT's and Transformers' call path an exception came from, innermost decisive function first
    ("set_peft_model_state_dict", "state dict"),
    ("load_state_dict", "state dict"),
    ("load_peft_weights", "state dict"),
    ("inject_adapter", "injection"),
    ("_create_and_replace", "injection"),
    ("_replace_module", "injection"),
    ("add_adapter", "injection"),
    ("_setup_prompt_encoder", "injection"),
    ("from_json_file", "config"),
    ("from_peft_type", "config"),
    ("__post_init__", "config"),
)


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(level=logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(f"{record.name.split('.')[0]}: {record.getMessage()}")


_hearing: list[tuple[list[warnings.WarningMessage], list[str]]] = []
"""Python warnings and log messages of each `heard` that runs, the innermost last."""


class Overheard:
    """The Python warnings of one step, to be given again where the step is left out."""

    def __init__(self) -> None:
        self._caught: list[warnings.WarningMessage] = []
        self.is_all = False
        """False if the step also logged messages, which may come once in a process, or if nobody was listening."""

    @property
    def texts(self) -> list[str]:
        """Category and text of each warning."""
        return [f"{w.category.__name__}: {w.message}" for w in self._caught]

    def of(self, step: Callable[[], Any]) -> Any:
        """Run the step, and note what it says; returns its result."""
        if not _hearing:
            return step()
        caught, logged = _hearing[-1]
        before = len(caught), len(logged)
        result = step()
        self._caught, self.is_all = caught[before[0] :], len(logged) == before[1]
        return result

    def again(self) -> None:
        """Give the same warnings."""
        if _hearing:
            _hearing[-1][0].extend(self._caught)


@contextlib.contextmanager
def warnings_into(messages: list[str]) -> Iterator[None]:
    """Collect Python warnings and log records of level WARNING and above, normalised, each once."""
    said: list[str] = []
    try:
        with heard() as said:
            yield
    finally:
        for text in (normalise(one) for one in said):
            if text not in messages and not any(mark in text for mark in _OURS):
                messages.append(text)


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    """Collect Python warnings and log records of level WARNING and above as they are; the list is filled at the end."""
    collector = _Collector()
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    # a logger that propagates to the root would be recorded twice: record it at the root only
    hearing = [logger for logger in loggers if logger.name == "root" or not logger.propagate]
    for logger in hearing:
        logger.addHandler(collector)
    said: list[str] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _hearing.append((caught, collector.messages))
            yield said
    finally:
        _hearing.pop()
        for logger in hearing:
            logger.removeHandler(collector)
        said += [f"{w.category.__name__}: {w.message}" for w in caught] + collector.messages


def normalise(text: str) -> str:
    """The text without what changes from run to run: paths and addresses."""
    text = text.replace(os.getcwd() + os.sep, "")
    text = re.sub(r"(/[\w.+@-]+){2,}/(?=[\w.-]+)", "…/", text)
    text = re.sub(r"0x[0-9a-fA-F]{6,}", "0x…", text)
    return re.sub(r"\s+", " ", text).strip()[:600]


class Attempt:
    """The outcome of one step: `ok`, or the error as a value."""

    def __init__(self) -> None:
        self.outcome = "ok"
        self.error: dict[str, str] | None = None
        self.reason = ""
        self.warnings: list[str] = []
        self.duration_s = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The part that is evidence; durations differ from run to run."""
        found: dict[str, Any] = {"outcome": self.outcome}
        if self.error:
            found["error"] = self.error
        if self.reason:
            found["reason"] = self.reason
        if self.warnings:
            found["warnings"] = self.warnings
        return found


class Skip(Exception):
    """Raised by a probe that does not apply here; its text says why."""


@contextlib.contextmanager
def attempt(stage: str) -> Iterator[Attempt]:
    """Run the body; an exception becomes the attempt's error, with the stage that raised it."""
    tried = Attempt()
    started = time.perf_counter()
    try:
        with warnings_into(tried.warnings):
            yield tried
    except Skip as skip:
        tried.outcome, tried.reason = "skipped", str(skip)
    except Exception as error:  # noqa: BLE001 - any exception is a result
        tried.outcome, tried.error = "error", describe(error, stage)
    finally:
        tried.duration_s = time.perf_counter() - started


def describe(error: BaseException, stage: str) -> dict[str, str]:
    """The exception as plain text: stage, type, message, the traceback's tail."""
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    frames = _frames_of_the_libraries(error)
    message = normalise(str(error))
    return {
        "stage": _stage(stage, [frame.name for frame in frames]),
        "type": name,
        "message": message,
        "traceback": "".join([*traceback.format_list(frames), f"{name}: {message}\n"])[-4000:],
    }


def _frames_of_the_libraries(error: BaseException) -> list[traceback.FrameSummary]:
    """The traceback without our own frames and without paths of this machine.

    A golden has tracebacks too, which must not change because our code moved.
    """
    frames = []
    for frame in traceback.extract_tb(error.__traceback__):
        if not os.path.abspath(frame.filename).startswith(_OUR_FOLDER):
            place = re.sub(r"^.*?/(?=site-packages/|python3\.\d+/)", "…/", frame.filename)
            frames.append(traceback.FrameSummary(place, frame.lineno, frame.name, lookup_line=False, line=frame.line))
    return frames


def _stage(stage: str, functions: list[str]) -> str:
    if stage != "adapter":
        return stage
    for function in reversed(functions):
        for mark, found in _STAGE_BY_FUNCTION:
            if function.startswith(mark):
                return found
    return "adapter"
