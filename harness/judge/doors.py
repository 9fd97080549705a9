"""Every way in: does the same adapter come out of each door as comes out of `PeftModel.from_pretrained`? (pure)

A door is held against the golden's `forward`. One behind which the output is what the loader's own `forward` gives,
right or wrong, has nothing of its own to answer for. What the creator's library could not do at its door is a standing
defect; one that the creator did not have yet is judged all the same, since the fixture is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.core.observation import Observed
from harness.core.run import Figures
from harness.core.verdict import Verdict, worst
from harness.judge.contracts import Found
from harness.judge.evidence import Evidence
from harness.judge.numbers import beyond
from harness.worker.shared import LOAD_PATH, LOAD_PATHS


def names(side: Observed) -> list[str]:
    """The doors that were tried, as probes, in the order of their names."""
    return sorted(probe for probe in side.probes if probe.startswith(LOAD_PATH))


def titled(probe: str) -> str:
    """`the door auto (AutoPeftModel….from_pretrained)` for the probe `door.auto`."""
    name = probe.removeprefix(LOAD_PATH)
    return f"the door {name} ({LOAD_PATHS[name]})" if name in LOAD_PATHS else f"the door {name}"


def kind(probe: str, what: str) -> str:
    """`auto-differs` for the probe `door.auto`: an expectation that knows one door broken must not hide the next."""
    return f"{probe.removeprefix(LOAD_PATH)}-{what}"


def figures(evidence: Evidence) -> dict[str, tuple[Figures, ...]]:
    """Door → how far what came out of it is from the golden's `forward`."""
    return {probe: evidence.against(probe, evidence.golden, "forward") for probe in names(evidence.now)}


def compare(evidence: Evidence, found: Found, outputs_moved: bool) -> None:
    """Every door that opened.

    Args:
        outputs_moved: the replay's own outputs are not the golden's, so that sizes of defects can't be compared any
            more.
    """
    for probe in names(evidence.now):
        if evidence.now.outcome(probe) == "ok":
            _output(evidence, probe, found, outputs_moved)
            _tensors(evidence, probe, found)


def _output(evidence: Evidence, probe: str, found: Found, outputs_moved: bool) -> None:
    of_golden = evidence.against(probe, evidence.golden, "forward")
    of_now = evidence.against(probe, evidence.now, "forward")
    if not _broken(of_golden):
        if of_golden and _broken(of_now):
            found.notes.append(f"through {titled(probe)} the output is the golden's, though it is not otherwise")
        return
    if not _broken(of_now):
        found.follow[probe] = worst(f.verdict for f in found.findings if f.probe in ("forward", "base", "layers"))
        return
    # where the loader's own output moved, the door can only be held against that
    shown = (of_now if outputs_moved else of_golden)[0]
    before = next(iter(evidence.creators_gap(probe)), None)
    meaning = f"through {titled(probe)} another output comes than through PeftModel.from_pretrained"
    if before is not None and beyond(before):
        if outputs_moved or shown.max_abs <= before.max_abs + shown.allowance:
            found.standing.append(f"{meaning} (by {shown.max_abs:.3g}), as for the creator ({before.max_abs:.3g})")
            return
        meaning += f", by more than for the creator ({before.max_abs:.3g})"
    if not _broken(evidence.against(probe, evidence.now, "base")):
        meaning += ": the base's own, as if there were no adapter"
    found.add(probe, kind(probe, "differs"), Verdict.SILENT_WRONG, meaning, subject=probe, figures=shown)


def _broken(all_figures: tuple[Figures, ...]) -> bool:
    return any(beyond(f) for f in all_figures)


def _tensors(evidence: Evidence, probe: str, found: Found) -> None:
    """What is nowhere behind this door, and somewhere behind `PeftModel.from_pretrained`."""
    tensors: Mapping[str, Any] = evidence.now.fact(probe, "tensors") or {}
    nowhere = set(_nowhere(tensors)) - set(_nowhere(evidence.now.fact("accounting", "tensors") or {}))
    before = set(_nowhere(evidence.golden.fact(probe, "tensors") or {}))
    if lost := sorted(nowhere - before):
        message = f"{len(lost)} of {len(tensors)} tensors of the checkpoint do not come in through {titled(probe)}"
        found.add(probe, kind(probe, "lost-tensors"), Verdict.SILENT_WRONG, message, subject=probe, details=tuple(lost))
    elif nowhere:
        found.standing.append(
            f"{len(nowhere)} tensors of the checkpoint do not come in through {titled(probe)}, as for the creator"
        )


def _nowhere(tensors: Mapping[str, Any]) -> list[str]:
    return [key for key, where in tensors.items() if where["found"] == "nowhere"]
