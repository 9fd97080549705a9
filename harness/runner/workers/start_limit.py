"""How long a worker may take until it has imported its libraries: longer on a machine that is busy."""

from __future__ import annotations

from dataclasses import dataclass

from harness.worker.process import busy

IDLE_S = 300.0
"""On an idle machine. Importing torch and transformers takes some seconds, on a slow disk a minute."""


@dataclass(frozen=True)
class StartLimit:
    """A limit for the start of a worker.

    Attributes:
        asked_s: as the user sets it; None for one that grows with the load of the machine.
    """

    asked_s: float | None = None

    def seconds(self) -> float:
        """The limit as the machine is now: three processes for each core start in a third of the speed."""
        return self.asked_s if self.asked_s is not None else IDLE_S * max(1.0, busy())

    def missed(self, waited_s: float) -> tuple[str, str, str]:
        """What was found, what was expected, and what to do, when a worker has not started in time."""
        found = f"the worker said nothing for {waited_s:.3g} s after its start"
        if (load := busy()) > 1:
            found += f"; the machine is busy, with {load:.1f} processes for each core"
        next_step = f"wait until the machine is less busy, or --startup-timeout {max(1, round(2 * waited_s))}"
        return found, "a worker that imports its libraries in that time", next_step


BY_LOAD = StartLimit()
"""The limit where the user sets none."""
