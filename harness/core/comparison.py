"""The parts of `report.json` that hold a run against something earlier: how each cell changed, and what was changed."""

from __future__ import annotations

from typing import Any, Literal

import pydantic

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

    unjudged: tuple[str, ...] = ()
    """Probes that were judged under the baseline, and could not be judged here."""

    @property
    def unknown(self) -> bool:
        """True if only one side has a result that can be compared, or a probe has one on one side only."""
        if self.unjudged:
            return True
        sides = (self.before, self.now)
        unjudged = any(side is None or side.cannot_tell for side in sides)
        return unjudged or (self.change == "new" and self.now is not None and self.now.is_deviation)

    @property
    def refused(self) -> bool:
        """True if neither side loads it, so that nothing of it was compared."""
        return self.change == "still" and self.before in _REFUSED and self.now in _REFUSED


_REFUSED = {Verdict.LOAD_ERROR, Verdict.CRASH, Verdict.TIMEOUT}


class Writes(Model):
    """What one side saved when it created a scenario anew."""

    files: tuple[str, ...] = ()
    tensors: dict[str, tuple[str, tuple[int, ...], str]] = pydantic.Field(default_factory=dict)
    """Key → type, shape and digest of the values."""
    config: dict[str, Any] = pydantic.Field(default_factory=dict)


class WrittenChange(Model):
    """One difference in what a change writes, with all scenarios that have it."""

    kind: str
    """`files`, `keys`, `shapes`, `types`, `values` or `config`."""
    what: str
    scenarios: tuple[str, ...]
    details: tuple[str, ...] = ()
    """Full keys in the first of these scenarios."""


class Reader(Model):
    """What one release makes of an adapter that the change wrote, and of the baseline's."""

    scenario: str
    release: str
    """`peft 0.18.1 (v0181)`."""
    before: Verdict | None = None
    """The verdict on the adapter that the baseline wrote."""
    now: Verdict | None = None
    worse: bool = False
    why: str = ""

    @property
    def judged(self) -> bool:
        """True if both adapters were judged."""
        return all(side is not None and side.is_judged for side in (self.before, self.now))

    @property
    def verdicts(self) -> str:
        """`exact → silent-wrong`, or one verdict for both."""
        sides = [str(side) if side else "–" for side in (self.before, self.now)]
        return sides[0] if sides[0] == sides[1] else " → ".join(sides)


class WritesOtherwise(Model):
    """A change that saves adapters in another form than the baseline."""

    changes: tuple[WrittenChange, ...]
    readers: tuple[Reader, ...] = ()
    """Releases that loaded such adapters, the newest first."""
    unread: str = ""
    """Why no release loaded one."""

    @property
    def scenarios(self) -> tuple[str, ...]:
        """The scenarios with a difference."""
        return tuple(sorted({name for change in self.changes for name in change.scenarios}))

    @property
    def worse(self) -> tuple[Reader, ...]:
        """Releases that load what the change writes worse than what the baseline writes."""
        return tuple(reader for reader in self.readers if reader.worse)


class ChangedCode(Model):
    """What a change changed in code, and how many adapters have to do with it, by what they execute."""

    functions: tuple[str, ...] = ()
    """Functions and methods with another body: `LoraLayer.forward (peft/tuners/lora/layer.py)`."""
    elsewhere: tuple[str, ...] = ()
    """What changed outside of functions."""
    executing: int = 0
    """Adapters that execute a changed function under the baseline."""
    importing: int = 0
    """Further adapters that import a file which changed outside of functions."""
    untouched: int = 0
    """Adapters that do neither, so that they cannot differ."""
    unknown: int = 0
    """Adapters that were selected by the changed files, as it is not recorded what they execute."""
    text_only: int = 0
    """If nothing that runs has changed: in how many files something else did, such as comments."""
    remembered: int = 0
    """Then: the cells of the baseline that are known."""

    @property
    def proved(self) -> bool:
        """True if no adapter that the change could affect can differ."""
        return not (self.executing or self.importing or self.unknown) and bool(self.untouched or self.remembered)


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
    code: ChangedCode | None = None
    """What changed in code, where the adapters were selected by what they execute."""
    narrowed: bool = False
    """True if the user chose among them: `-k`, `--cell`, `--last-red`, `--creator`, `--family` or `--scenarios`."""
    remembered: int = 0
    """Cells of the baseline that an earlier run had computed."""
    remembered_since: str = ""
    """When the oldest of these was computed."""
    newer_creators: str = ""
    """How many cells were added for adapters of newer creators, and why."""
    blind: dict[str, str] = pydantic.Field(default_factory=dict)
    """Scenarios that deviate under the baseline with every adapter that was tried → how. A break can hide there."""
    failed: str = ""
    """Which side could not be had; empty where both could."""
    writes: WritesOtherwise | None = None
    """How the change saves adapters, if it is not as the baseline does."""

    @property
    def subject(self) -> str:
        """The change in a few words: `peft 0.21.3.dev0 from ../peft`."""
        named = " ".join(part for part in (self.package, self.version) if part)
        return f"{named} from {self.source}" if named and self.source else named or self.source or self.spec
