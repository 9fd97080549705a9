"""Has a consumer read a fixture: a library other than PEFT that reads the folder that PEFT saves.

A driver is a module of this folder, or a file beside the consumer's declaration (`matrices/consumers/`). It has these
four functions, and uses the standard library, NumPy, and what the consumer's lock holds, but never PEFT:

    def preload() -> None:
        '''Import what all cells share, once, before the cells fork. Start no thread.'''

    def versions() -> dict[str, str]:
        '''The versions of what matters.'''

    def log_probabilities(base: str, adapter: str | None, prompts: list[list[int]], work: str) -> np.ndarray:
        '''The log-probabilities of each token after each prompt: float32 or float64, (prompts, vocabulary).

        Args:
            base, adapter: folders as Transformers and PEFT saved them; they must not be changed. Without an adapter:
                the base alone.
            work: an empty folder for what the driver writes.

        Raises:
            Refused: the consumer says that it does not do this. Its own words, complete.
            Exception: any other error, of the stage that `stage` named last.
        '''

    def accounted(adapter: str, work: str) -> dict[str, str] | None:
        '''Where each tensor of the adapter is in what the consumer reads; None where that cannot be seen.

        A tensor is found by its value, also where the consumer is known to transform it (permute, transpose). The
        answer is the name there, or `listed: ` and the consumer's own words about it. A tensor that is in neither has
        no entry. `work` is the folder in which `log_probabilities` read this adapter.
        '''

Each cell is a process of its own, which ends with `os._exit`: a native library need not be able to end.
"""

from __future__ import annotations

import contextlib
from typing import Iterator

LISTED = "listed: "
"""How an answer of `accounted` begins that quotes the consumer."""


class Refused(Exception):
    """The consumer says that it does not do this. The text is all that it says."""


class _Stage:
    name = ""


def stage_of_error() -> str:
    """The stage in which the last error was raised; empty if none was named."""
    return _Stage.name


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Name what the driver does: "converting the base". The name stays if it raises."""
    before, _Stage.name = _Stage.name, name
    yield
    _Stage.name = before
