"""The errors that users see (found, expected, next step), and the exit codes."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """The exit codes of `peft-regress`. Never 0 if nothing was compared."""

    CLEAN = 0
    """Everything that was compared is unchanged, or deviates as a known break says."""
    REGRESSED = 1
    """A cell deviates and no known break covers it, or a known break no longer holds."""
    CANNOT_TELL = 2
    """Nothing was compared, an environment failed, or a fixture is bad or missing."""
    USAGE = 64
    """A wrong argument or a wrong input file (EX_USAGE of BSD's sysexits.h)."""
    INTERNAL = 70
    """A mistake in peft-regress itself (EX_SOFTWARE). Nothing is known of the adapters."""
    INTERRUPTED = 130
    """Ctrl-C (128 + SIGINT). Finished results are kept."""


class HarnessError(Exception):
    """An error that says what was found, what was expected and what to do next.

    Args:
        found: what was found, with file and place.
        expected: what was expected there.
        next_step: what to do next.
    """

    exit_code: ExitCode = ExitCode.CANNOT_TELL

    def __init__(self, found: str, expected: str = "", next_step: str = "") -> None:
        super().__init__(found, expected, next_step)
        self.found = found
        self.expected = expected
        self.next_step = next_step

    def __str__(self) -> str:
        lines = [self.found]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.next_step:
            lines.append(f"  next: {self.next_step}")
        return "\n".join(lines)


class UsageError(HarnessError):
    """The command line or an input file is wrong. Nothing was run."""

    exit_code = ExitCode.USAGE
