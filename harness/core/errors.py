"""The errors that reach a user: what was found, what was expected, what to do next; and the exit codes."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """What `peft-regress` exits with. Never 0 when nothing was compared."""

    CLEAN = 0
    """Everything that was compared is as it was, or deviates as a known break says."""
    REGRESSED = 1
    """At least one cell deviates and no known break covers it, or a known break no longer holds."""
    CANNOT_TELL = 2
    """Nothing was compared, an environment failed, a fixture is bad or missing."""
    USAGE = 64
    """A wrong argument or a wrong input file (EX_USAGE of BSD's sysexits.h)."""
    INTERRUPTED = 130
    """Ctrl-C (128 + SIGINT). What had finished is kept."""


class HarnessError(Exception):
    """An error with three parts, so that its reader needs no second look.

    Args:
        found: what was found, with the file and the place in it.
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
    """The command line or an input file is wrong; nothing was done."""

    exit_code = ExitCode.USAGE
