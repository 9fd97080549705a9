"""Load paths: does each load the same adapter as `PeftModel.from_pretrained`? (pure)

A load path's output is compared with the golden's `forward`. If it equals the loader's own `forward`, right or wrong,
the load path itself is sound. What failed with the creator's library too is a standing defect. A load path that the
creator did not have yet is judged all the same: the fixture is the same.
"""

from __future__ import annotations

from harness.core.observation import Observed
from harness.core.run import Figures
from harness.core.verdict import Verdict, worst
from harness.judge.contracts import Found
from harness.judge.evidence import Evidence
from harness.judge.numbers import beyond
from harness.worker.shared import LOAD_PATH, LOAD_PATHS

_DIFFERS_STORED = "through {} another output comes than through PeftModel.from_pretrained"
_LOST_STORED = "tensors of the checkpoint do not come in through {}"
"""Words of standing defects. Manifests quote them, so they change only with the fixtures."""


def names(side: Observed) -> list[str]:
    """The load paths that were tried, as probes, sorted."""
    return sorted(probe for probe in side.probes if probe.startswith(LOAD_PATH))


def titled(probe: str) -> str:
    """`the load path auto (AutoPeftModel….from_pretrained)` for the probe `door.auto`."""
    return f"the load path {_described(probe)}"


def stored_title(probe: str) -> str:
    """The title in standing defects, which manifests quote."""
    return f"the door {_described(probe)}"


def _described(probe: str) -> str:
    name = probe.removeprefix(LOAD_PATH)
    return f"{name} ({LOAD_PATHS[name]})" if name in LOAD_PATHS else name


def kind(probe: str, what: str) -> str:
    """`auto-differs` for the probe `door.auto`: a known break of one load path must not hide another's."""
    return f"{probe.removeprefix(LOAD_PATH)}-{what}"


def figures(evidence: Evidence) -> dict[str, tuple[Figures, ...]]:
    """Load path → how far its output is from the golden's `forward`."""
    return {probe: evidence.against(probe, evidence.golden, "forward") for probe in names(evidence.now)}


def compare(evidence: Evidence, found: Found, outputs_moved: bool) -> None:
    """Judge every load path that loaded.

    Args:
        outputs_moved: the replay's own outputs differ from the golden's, so sizes of defects cannot be compared.
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
            found.notes.append(
                f"by {titled(probe)} the output is the golden's, though PeftModel.from_pretrained gives another"
            )
        return
    if not _broken(of_now):
        found.follow[probe] = worst(f.verdict for f in found.findings if f.probe in ("forward", "base", "layers"))
        return
    # if the loader's own output moved, that is all that the load path can be compared with
    shown = (of_now if outputs_moved or evidence.golden is not evidence.creator else of_golden)[0]
    before = next(iter(evidence.creators_gap(probe)), None)
    meaning = f"by {titled(probe)} the output differs from that of PeftModel.from_pretrained"
    if before is not None and beyond(before):
        if evidence.is_rounding(before) and evidence.is_rounding(shown):
            return
        if outputs_moved or shown.max_abs <= before.max_abs + shown.allowance:
            stored = _DIFFERS_STORED.format(stored_title(probe))
            found.standing.append(f"{stored} (by {shown.max_abs:.3g}), as for the creator ({before.max_abs:.3g})")
            return
        meaning += f", by more than for the creator ({before.max_abs:.3g})"
    found.add(probe, kind(probe, "differs"), Verdict.SILENT_WRONG, meaning, subject=probe, figures=shown)


def _broken(all_figures: tuple[Figures, ...]) -> bool:
    return any(beyond(f) for f in all_figures)


def _tensors(evidence: Evidence, probe: str, found: Found) -> None:
    """Tensors that are missing by this load path, and present by `PeftModel.from_pretrained`."""
    now = evidence.now
    missing = set(now.missing(probe)) - set(now.missing())
    if missing:
        found.lost_by[probe.removeprefix(LOAD_PATH)] = tuple(sorted(missing))
    if lost := sorted(missing - set(evidence.golden.missing(probe))):
        total = len(now.fact(probe, "tensors"))
        message = f"{len(lost)} of {total} tensors of the checkpoint do not arrive by {titled(probe)}"
        found.add(probe, kind(probe, "lost-tensors"), Verdict.SILENT_WRONG, message, subject=probe, details=tuple(lost))
    elif missing:
        stored = _LOST_STORED.format(stored_title(probe))
        found.standing.append(f"{len(missing)} {stored}, as for the creator")
