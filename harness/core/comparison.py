"""The parts of `report.json` that hold a run against something earlier: how each cell changed, and what was changed."""

from __future__ import annotations

from typing import Literal

from harness.core.model import Model
from harness.core.verdict import Verdict

Change = Literal["regressed", "fixed", "still", "new", "gone"]


class Comparison(Model):
    """Against a baseline run: how one cell changed."""

    cell: str
    change: Change
    before: Verdict | None = None
    now: Verdict | None = None
    why: str = ""
    """What is worse, where the verdicts alone do not say it; of a deviation that an expectation knows, which."""

    @property
    def unknown(self) -> bool:
        """True if only one side has a result that can be compared."""
        sides = (self.before, self.now)
        unjudged = any(side is None or side.cannot_tell for side in sides)
        return unjudged or (self.change == "new" and self.now is not None and self.now.is_deviation)


class Against(Model):
    """A change compared with a baseline (`check --against`): what was changed, and the baseline."""

    package: str = ""
    """The package that the change is of; empty where more than one may differ."""
    spec: str
    source: str = ""
    """Where the change is: a checkout's path, an address with its commit, a release."""
    version: str = ""
    loader: str = ""
    """The change's environment."""
    baseline: str
    """What it is compared with, in words: `peft 0.21.2 (current)`."""
    baseline_loader: str = ""
    differs: tuple[str, ...] = ()
    """What else is not the same on both sides: `transformers 5.2.0 / 5.23.0` (change / baseline)."""
    changed: tuple[str, ...] = ()
    """The changed files that were looked at, as far as they are known."""
    known_by: str = ""
    """How it is known what changed."""
    scope: str = ""
    """Which scenarios were checked, and why these."""
    remembered: int = 0
    """Cells of the baseline that an earlier run had computed."""
    remembered_since: str = ""
    """When the oldest of these was computed."""
    failed: str = ""
    """Which side could not be had; empty where both could."""

    @property
    def subject(self) -> str:
        """The change in a few words: `peft 0.21.3.dev0 from ../peft`."""
        named = " ".join(part for part in (self.package, self.version) if part)
        return f"{named} from {self.source}" if named and self.source else named or self.source or self.spec
