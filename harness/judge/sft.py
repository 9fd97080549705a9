"""What TRL's SFTTrainer makes of a model, and what becomes of what it trained, held against the golden's (pure).

That a newer trainer prepares a model otherwise is a contract: parameters in other types, other layers upcast, other
things trained. What training does must always hold: each trained tensor moves, and arrives where it is reloaded.
"""

from __future__ import annotations

from harness.core.observation import Observed
from harness.judge import structure_steps
from harness.judge.contracts import Found

PROBE = "sft"
STEPS = ("constructed", "trained", "reloaded")
"""What is looked at, in the order in which it is done."""
_MUST_BE_EMPTY = {
    "unchanged": ("untrained", "two steps of training left them as they were"),
    "lost": ("trained-lost", "they were trained and saved, and are nowhere in what plain PEFT reloads"),
}
"""Fact of the probe → kind of finding, and what it says of the tensors that are listed."""


def compare(golden: Observed, now: Observed, found: Found) -> None:
    """Hold preparation, training and reloading against the golden's."""
    if now.outcome(PROBE) != "ok":
        return
    structure_steps.compare(golden, now, found, PROBE)
    for fact, (kind, said) in _MUST_BE_EMPTY.items():
        before, after = golden.fact(PROBE, fact) or [], now.fact(PROBE, fact) or []
        new = [name for name in after if name not in before]
        if new:
            found.contract(PROBE, kind, f"{len(new)} tensors: {said}: {', '.join(new[:3])}", new)
        elif after:
            found.standing.append(f"{len(after)} tensors: {said}")
    apart = float(now.fact(PROBE, "apart") or 0.0)
    if apart > float(golden.fact(PROBE, "apart") or 0.0):
        found.notes.append(f"trained anew by this TRL, the adapter is up to {apart:.3g} from the stored one")
