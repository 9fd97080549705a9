"""The standard that a replay is compared with: what the adapter computed when it was saved (pure).

A golden holds two computations of its creator: of the adapter before it was saved (`created`), and of the adapter that
it loaded again (all other probes). If they agree, the reload is the standard: it has every probe in both precisions.
If they differ, or the reload raised, the creator's library cannot read back what it wrote. Then `created` is the
standard, and the other probes of the reload count only for a loader that repeats it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from harness.core.observation import Array, Observed
from harness.core.run import ErrorReport, Figures
from harness.core.text import enumerated, many
from harness.core.verdict import Verdict
from harness.judge import numbers
from harness.judge.evidence import Evidence
from harness.judge.numbers import beyond
from harness.judge.structure_steps import SFT
from harness.worker.shared import EQUALS, LOAD_PATH

ON_RELOAD = ("layers", "train", "gradients", "generate", *EQUALS)
"""Probes whose arrays the creator computed with the adapter that it had loaded again."""

_NO_EVIDENCE = ("unloaded",)
"""Probes that a reload passes by what it lost: a tensor that never arrived need not be taken out again."""

SINCE_SAVED = "from what the adapter computed when it was saved"


@dataclass(frozen=True)
class Standard:
    """What one replay is compared with.

    Attributes:
        golden: the observation to compare with.
        creator: what the creator's own library computed, for checks within one library. A wrong reload proves
            nothing about unloading, and one at random proves nothing at all: it is without these.
        loss: how far the creator's own reload is from what it saved; None if it agrees, or raised.
        raised: the error of the creator's own reload.
        repeated: the replay computes what the creator's own reload computes.
    """

    golden: Observed
    creator: Observed
    loss: Figures | None = None
    raised: ErrorReport | None = None
    repeated: bool = False

    @property
    def reload_differs(self) -> bool:
        """True if the creator's library cannot read back what it wrote."""
        return self.loss is not None or self.raised is not None

    @property
    def lacks_reload(self) -> bool:
        """True if the probes of the creator's reload are no standard for this replay."""
        return self.reload_differs and not self.repeated

    @property
    def creators_own(self) -> str:
        """The verdict on the creator's own reload, and why; empty if it computes what was saved."""
        if self.raised is not None:
            return f"{own_verdict(self.creator)}: {self.raised.type}: {self.raised.message}"
        if self.loss is None:
            return ""
        lost = self.creator.missing()
        count = many(len(lost), "tensor of the checkpoint is", "tensors of the checkpoint are")
        tensors = f", and {count} missing ({enumerated(lost, 3)})" if lost else ""
        return f"{Verdict.SILENT_WRONG}: the output differs by {self.loss.max_abs:.3g} {SINCE_SAVED}{tensors}"


def of(golden: Observed, now: Observed) -> Standard:
    """The standard for a replay."""
    raised, loss = reload_error(golden), reload_loss(golden)
    if not _saved(golden) or (raised is None and loss is None):
        return Standard(_made_alone(golden), golden)
    repeated = raised is None and not _at_random(golden) and _agrees(golden, now)
    creator = golden if repeated else _of_base(golden) if _at_random(golden) else _without(golden, _NO_EVIDENCE)
    return Standard(_made_alone(_as_saved(golden, keep_reload=repeated)), creator, loss, raised, repeated)


def _without(golden: Observed, left_out: Collection[str]) -> Observed:
    return dataclasses.replace(
        golden,
        arrays={name: array for name, array in golden.arrays.items() if name.partition("/")[0] not in left_out},
        facts={probe: facts for probe, facts in golden.facts.items() if probe not in left_out},
        probes={probe: said for probe, said in golden.probes.items() if probe not in left_out},
    )


def _made_alone(golden: Observed) -> Observed:
    """The golden whose new adapter (`fresh`) is the one that was made.

    They differ if the scenario has another adapter beside it, and the creator's library cannot switch back from that.
    An adapter that was trained when it was made is another one than a new one, so there the probe's own is kept.
    """
    if was_trained(golden):
        return golden
    made = {f"fresh/float32/{name}": array for name, array in _saved(golden).items()}
    other = {name: array for name, array in made.items() if name in golden.arrays}
    if all(numbers.same_bits(array, golden.arrays[name]) for name, array in other.items()):
        return golden
    return dataclasses.replace(golden, arrays={**golden.arrays, **other})


def was_trained(golden: Observed) -> bool:
    """True if a trainer made and saved the adapter; the probe `fresh` creates and saves it without one."""
    return SFT in golden.probes


def reload_loss(golden: Observed) -> Figures | None:
    """How far the creator's own reload is from what the adapter computed when it was saved; None if it agrees."""
    before, after = _saved(golden), golden.group("forward", "float32")
    noise = numbers.measure(_of_base(golden) if _at_random(golden) else golden)
    gaps = []
    for name in sorted(set(before) & set(after)):
        full = f"forward/float32/{name}"
        allowance = numbers.allowance(full, before[name], noise, noise)
        gaps.append(numbers.difference(full, before[name], after[name], allowance))
    return next((gap for gap in numbers.by_ratio(gaps) if beyond(gap)), None)


def _at_random(golden: Observed) -> bool:
    """True if two reloads of the creator give different outputs, as when a lost tensor gets random values."""
    return any(name.startswith("forward/") for name in golden.facts.get("repeat", {}))


def _of_base(golden: Observed) -> Observed:
    """The golden without all that rests on the creator's reload: its noise is that of the base."""
    left_out = {"forward", *ON_RELOAD, *(name for name in golden.probes if name.startswith(LOAD_PATH))}
    repeat = {name: spread for name, spread in golden.facts.get("repeat", {}).items() if name.startswith("base/")}
    kept = _without(golden, left_out)
    return dataclasses.replace(kept, facts={**kept.facts, "repeat": repeat})


def reload_error(golden: Observed) -> ErrorReport | None:
    """The error of the creator's own reload, or of running it; None if it worked."""
    for said in (golden.load.get("float32", {}), golden.probes.get("forward", {}).get("float32", {})):
        if said.get("outcome") == "error" and said.get("error"):
            return ErrorReport(**said["error"])
    return None


def own_verdict(golden: Observed) -> Verdict | None:
    """The verdict on the creator's own reload; None if it computes what was saved."""
    if not _saved(golden):
        return None
    if reload_error(golden) is not None:
        loaded = golden.load.get("float32", {}).get("outcome") == "ok"
        return Verdict.RUN_ERROR if loaded else Verdict.LOAD_ERROR
    return Verdict.SILENT_WRONG if reload_loss(golden) is not None else None


def filled(side: Observed) -> list[str] | None:
    """The parameters of a new adapter that were filled, by canonical name; None if that was not recorded.

    A golden has those of the adapter that was made; one of an adapter that was given, those of the probe `fresh`.
    """
    made: list[str] | None = side.fact("created", "filled")
    return side.fact("fresh", "filled") if made is None else made


def has_saved(golden: Observed) -> bool:
    """True if the golden holds what the adapter computed when it was saved, and what the base computes alone."""
    return bool(_saved(golden)) and bool(golden.group("base", "float32"))


def undeclared(golden: Observed, resolved: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """What is wrong with a scenario's `leaves_out`, in three parts; None if nothing is."""
    differs = reload_loss(golden) is not None or reload_error(golden) is not None
    if not resolved.get("leaves_out") or not has_saved(golden) or differs:
        return None
    return (
        "`leaves_out` is declared, but the reloaded adapter computes what it did when it was saved",
        "a difference, as declared",
        "remove `leaves_out` from the scenario",
    )


def declared(golden: Observed, resolved: Mapping[str, Any]) -> Observed:
    """The golden as the scenario means it: if saving is meant to leave something out, the reload is the standard."""
    return without_saved(golden) if resolved.get("leaves_out") else golden


def without_saved(golden: Observed) -> Observed:
    """The golden with its reload as the only standard: for a scenario in which saving leaves something out."""
    arrays = {name: array for name, array in golden.arrays.items() if not name.startswith("created/")}
    return dataclasses.replace(golden, arrays=arrays)


def _saved(golden: Observed) -> dict[str, Array]:
    return golden.group("created", "float32")


def _agrees(golden: Observed, now: Observed) -> bool:
    """True if a replay's outputs are those of the creator's reload."""
    figures = Evidence(golden, now).figures("forward")
    return bool(figures) and not any(map(beyond, figures))


def _as_saved(golden: Observed, keep_reload: bool) -> Observed:
    """The golden with the outputs that the adapter had when it was saved.

    Args:
        keep_reload: keep the arrays of the other probes of the creator's reload.
    """
    left_out = ("forward",) if keep_reload else ("forward", *ON_RELOAD)
    arrays = {
        name: array
        for name, array in golden.arrays.items()
        if name.partition("/")[0] not in left_out and (keep_reload or not name.startswith(LOAD_PATH))
    }
    arrays |= {f"forward/float32/{name}": array for name, array in _saved(golden).items()}
    probes = {**golden.probes, "forward": {**golden.probes.get("forward", {}), "float32": {"outcome": "ok"}}}
    return dataclasses.replace(golden, arrays=arrays, probes=probes)
