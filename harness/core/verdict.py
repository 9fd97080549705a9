"""The closed list of verdicts, and how findings become one.

One spelling everywhere: JSON, command line, TOML, HTML. The order is the policy: a cell is as bad as its worst finding.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Literal

Reading = Literal["", "refused", "dropped", "ignored", "read"]
"""What a loader did with a checkpoint: it raised (`refused`), tensors are nowhere in the model (`dropped`), config keys
that say something were not kept (`ignored`), or all arrived (`read`). See `harness.judge.load_behaviour`."""


class Verdict(enum.StrEnum):
    """What comparing a replayed observation with the golden says, worst first."""

    SILENT_WRONG = "silent-wrong"
    """It loaded, nothing was raised, and the result is not what it was (or part of the checkpoint never arrived)."""
    LOAD_ERROR = "load-error"
    """Loading the base or the adapter was refused or raised."""
    RUN_ERROR = "run-error"
    """It loaded; a probe that works for the creator raised."""
    CRASH = "crash"
    """The process that worked on the cell died."""
    TIMEOUT = "timeout"
    """The process that worked on the cell went silent past its time limit."""
    CONTRACT = "contract"
    """The result agrees, but keys, config, dtypes, ties, trainability or the round trip do not."""
    BASE_MOVED = "base-moved"
    """The base model's own output moved; the adapter's effect agrees."""
    WARNED = "warned"
    """Equal, but something new is warned."""
    CLOSE = "close"
    """Equal within the measured rounding noise."""
    EXACT = "exact"
    """Equal to the bit."""
    UNSUPPORTED = "unsupported"
    """Declared (`requires`): this creator or loader has no such feature. Never guessed from an exception."""
    UNSTABLE = "unstable"
    """Two runs of the same thing disagree."""
    ENV_FAILED = "env-failed"
    """The environment did not resolve, build or import."""
    NO_FIXTURE = "no-fixture"
    """There is no fixture of this scenario by this creator."""
    BAD_FIXTURE = "bad-fixture"
    """The fixture is damaged, or in a format that this version does not read."""
    NO_DEVICE = "no-device"
    """The device that was asked for is not there."""
    NOT_COMPARABLE = "not-comparable"
    """Both sides yielded something, and nothing of it can be held against the other."""

    @property
    def letter(self) -> str:
        """The one letter that stands for the verdict where there is room for one; colour is never the only carrier."""
        return _LETTERS[self]

    @property
    def severity(self) -> int:
        """0 for the worst; a greater number is less bad. Only its order means something."""
        return _SEVERITY[self]

    @property
    def is_deviation(self) -> bool:
        """True where what was kept no longer holds. `warned` is one only under `--strict`."""
        return self in _DEVIATIONS

    @property
    def is_clean(self) -> bool:
        """True where something was compared and agrees."""
        return self in (Verdict.EXACT, Verdict.CLOSE, Verdict.WARNED)

    @property
    def cannot_tell(self) -> bool:
        """True where nothing was compared, and somebody has to mend something before it can be."""
        return self in _CANNOT_TELL


_LETTERS: dict[Verdict, str] = {
    Verdict.SILENT_WRONG: "S",
    Verdict.LOAD_ERROR: "L",
    Verdict.RUN_ERROR: "R",
    Verdict.CRASH: "X",
    Verdict.TIMEOUT: "T",
    Verdict.CONTRACT: "C",
    Verdict.BASE_MOVED: "B",
    Verdict.WARNED: "w",
    Verdict.CLOSE: "~",
    Verdict.EXACT: "=",
    Verdict.UNSUPPORTED: "·",
    Verdict.UNSTABLE: "u",
    Verdict.ENV_FAILED: "E",
    Verdict.NO_FIXTURE: "?",
    Verdict.BAD_FIXTURE: "!",
    Verdict.NO_DEVICE: "D",
    Verdict.NOT_COMPARABLE: "N",
}
_SEVERITY: dict[Verdict, int] = {verdict: place for place, verdict in enumerate(Verdict)}
_DEVIATIONS = frozenset(
    {
        Verdict.SILENT_WRONG,
        Verdict.LOAD_ERROR,
        Verdict.RUN_ERROR,
        Verdict.CRASH,
        Verdict.TIMEOUT,
        Verdict.CONTRACT,
        Verdict.BASE_MOVED,
    }
)
_CANNOT_TELL = frozenset(
    {
        Verdict.UNSTABLE,
        Verdict.ENV_FAILED,
        Verdict.NO_FIXTURE,
        Verdict.BAD_FIXTURE,
        Verdict.NO_DEVICE,
        Verdict.NOT_COMPARABLE,
    }
)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of several verdicts.

    What agrees never outshines what could not be told: `unstable` beside `close` is `unstable`. Nothing at all is
    `not-comparable`: an empty comparison must never look green.
    """
    return min(verdicts, key=_gravity, default=Verdict.NOT_COMPARABLE)


def _gravity(verdict: Verdict) -> tuple[bool, bool, int]:
    return (not verdict.is_deviation, not verdict.cannot_tell, verdict.severity)
