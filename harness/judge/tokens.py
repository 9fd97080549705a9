"""Are the generated tokens those of the golden, and those that the outputs predict? (pure)"""

from __future__ import annotations

from harness.core.run import Figures
from harness.core.verdict import Verdict
from harness.judge import numbers
from harness.judge.contracts import Found
from harness.judge.evidence import Evidence
from harness.judge.numbers import beyond


def compare(evidence: Evidence, all_figures: tuple[Figures, ...], outputs_moved: bool, found: Found) -> bool:
    """Compare what was generated; returns True if it differs only because the outputs do.

    Args:
        all_figures: the differences of the probe `generate`.
        outputs_moved: the replay's own outputs differ from the golden's.
    """
    before, after = (evidence.follows_outputs(side) for side in (evidence.creator, evidence.now))
    moved = {figures.array.split("/", 2)[2]: figures for figures in all_figures if beyond(figures)}
    if before is False and after is not True:
        found.standing.append("the generated tokens are not those that the outputs predict, as for the creator")
    if before is False and after is True:
        found.fixed.append(
            "for the creator, the generated tokens are not those that the outputs predict; here they are"
        )
    if moved and outputs_moved and before is True and after is False:
        message = "the generated tokens differ, and are not those that its own outputs predict"
        found.add(
            "generate", "values", Verdict.SILENT_WRONG, message, subject="tokens", figures=next(iter(moved.values()))
        )
    elif "base.tokens" in moved and outputs_moved and after is True:
        return True
    elif "base.tokens" in moved:
        found.notes.append("the base alone generates other tokens than before; the adapter's tokens are not judged")
    elif "tokens" in moved and outputs_moved:
        return True
    elif "tokens" in moved and after is not False and (fault := _creators_fault(evidence, before)):
        found.notes.append(f"the generated tokens differ; not judged, since {fault}")
    elif "tokens" in moved and not (before is after is False):
        own = ", and are not those that its own outputs predict" if after is False else ""
        message = f"the generated tokens differ, though the outputs agree{own}"
        found.add("generate", "values", Verdict.SILENT_WRONG, message, subject="tokens", figures=moved["tokens"])
    return False


def _creators_fault(evidence: Evidence, follows_outputs: bool | None) -> str:
    """Why the creator's tokens prove nothing; empty if they do (0.6.1 generates without its prompts)."""
    plain, adapted = (evidence.creator.arrays.get(f"generate/float32/{n}") for n in ("base.tokens", "tokens"))
    if plain is not None and adapted is not None and numbers.same_bits(plain, adapted):
        return "the creator's own are the base's, as if there were no adapter"
    return "the creator's own are not those that its outputs predict" if follows_outputs is False else ""
