"""The closed list of verdicts, and how findings become one.

One spelling everywhere: JSON, command line, TOML, HTML. The order is the policy: a cell is as bad as its worst finding.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Literal

Reading = Literal["", "refused", "dropped", "ignored", "read"]
"""What a loader did with a checkpoint: raise (`refused`), lose tensors (`dropped`), lose config keys that matter
(`ignored`), or load everything (`read`). See `harness.judge.load_behaviour`."""


class Verdict(enum.StrEnum):
    """The result of comparing a replayed observation with the golden, worst first."""

    SILENT_WRONG = "silent-wrong"
    LOAD_ERROR = "load-error"
    RUN_ERROR = "run-error"
    CRASH = "crash"
    TIMEOUT = "timeout"
    CONTRACT = "contract"
    BASE_MOVED = "base-moved"
    WARNED = "warned"
    CLOSE = "close"
    EXACT = "exact"
    REFUSED = "refused"
    UNSUPPORTED = "unsupported"
    UNSTABLE = "unstable"
    ENV_FAILED = "env-failed"
    NO_FIXTURE = "no-fixture"
    BAD_FIXTURE = "bad-fixture"
    NO_DEVICE = "no-device"
    NOT_COMPARABLE = "not-comparable"

    @property
    def letter(self) -> str:
        """One letter for the verdict: in reports, colour is never the only carrier."""
        return _LETTERS[self]

    @property
    def meaning(self) -> str:
        """The verdict in one sentence, without a capital or a full stop."""
        return MEANINGS[self]

    @property
    def severity(self) -> int:
        """0 for the worst. Only the order has a meaning."""
        return _SEVERITY[self]

    @property
    def is_deviation(self) -> bool:
        """True for a broken promise. `warned` counts as one only under `--strict`."""
        return self in _DEVIATIONS

    @property
    def is_clean(self) -> bool:
        """True if something was compared and agrees."""
        return self in (Verdict.EXACT, Verdict.CLOSE, Verdict.WARNED)

    @property
    def is_judged(self) -> bool:
        """True if there is a result, whatever it is; else it is unsupported or something has to be fixed."""
        return self.is_clean or self.is_deviation or self is Verdict.REFUSED

    @property
    def cannot_tell(self) -> bool:
        """True if nothing was compared: something has to be fixed first."""
        return self in _CANNOT_TELL


MEANINGS: dict[Verdict, str] = {
    Verdict.SILENT_WRONG: "loading raised nothing, but the result is wrong or part of the checkpoint never arrived",
    Verdict.LOAD_ERROR: "loading the base or the adapter raised an error",
    Verdict.RUN_ERROR: "loading worked, but a probe that works for the creator raised an error",
    Verdict.CRASH: "the worker process died",
    Verdict.TIMEOUT: "the worker process exceeded its time limit",
    Verdict.CONTRACT: "the result agrees, but keys, config, dtypes, ties, trainability or the round trip do not",
    Verdict.BASE_MOVED: "the base model's own output changed; the adapter's effect agrees",
    Verdict.WARNED: "equal, but there is a new warning",
    Verdict.CLOSE: "equal within the measured rounding noise",
    Verdict.EXACT: "equal to the bit",
    Verdict.REFUSED: "the consumer refuses the adapter and names what it refuses, which is right",
    Verdict.UNSUPPORTED: "this creator or loader lacks the feature, by declaration",
    Verdict.UNSTABLE: "two runs of the same thing disagree",
    Verdict.ENV_FAILED: "the environment did not resolve, build or import",
    Verdict.NO_FIXTURE: "there is no fixture of this scenario by this creator",
    Verdict.BAD_FIXTURE: "the fixture is damaged, or has a format that this version does not read",
    Verdict.NO_DEVICE: "the requested device is not available",
    Verdict.NOT_COMPARABLE: "the two sides have nothing that can be compared",
}
"""What each verdict means: the one place that documents them."""
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
    Verdict.REFUSED: "-",
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

    A verdict that could not tell outweighs a clean one: `unstable` with `close` is `unstable`. No verdict at all is
    `not-comparable`: an empty comparison must never look green.
    """
    return min(verdicts, key=_gravity, default=Verdict.NOT_COMPARABLE)


def _gravity(verdict: Verdict) -> tuple[bool, bool, int]:
    return (not verdict.is_deviation, not verdict.cannot_tell, verdict.severity)
