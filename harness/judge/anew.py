"""The scenario created anew by the loader: does it compute what it computed when the fixture was made? (pure)"""

from __future__ import annotations

from harness.core.run import Figures
from harness.core.verdict import Verdict
from harness.judge import numbers
from harness.judge.contracts import Found
from harness.judge.evidence import Evidence
from harness.judge.numbers import beyond


def compare(evidence: Evidence, all_figures: tuple[Figures, ...], outputs_moved: bool, found: Found) -> None:
    """Compare the outputs of the new adapter.

    Args:
        all_figures: the differences of the probe `fresh`.
        outputs_moved: the replay's own outputs differ from the golden's.
    """
    if not any(map(beyond, all_figures)):
        if all_figures and _creators_differs(evidence):
            found.fixed.append("created anew by the creator, the scenario gives another output than when it was made")
        return
    before, after = evidence.creator.fact("created", "filled"), evidence.now.fact("fresh", "filled")
    if before is not None and after is not None and set(before) != set(after):
        # each parameter is filled by its name: other names, other values
        found.notes.append("a new adapter has parameters with other names, and so other values: not compared")
    elif outputs_moved:
        found.notes.append("a new adapter with the same values gives another output too")
    else:
        message = "created anew, the scenario gives another output: new adapters do not mean what old ones mean"
        found.add("fresh", "fresh-values", Verdict.CONTRACT, message, figures=all_figures[0])


def _creators_differs(evidence: Evidence) -> bool:
    """True if the creator's own new adapter is not what it was when it was made: beside another one, say."""
    made, again = evidence.golden.group("fresh", "float32"), evidence.creator.group("fresh", "float32")
    gaps = [
        numbers.difference(name, made[name], again[name], evidence.allowance(f"fresh/float32/{name}", made[name]))
        for name in set(made) & set(again)
    ]
    return any(map(beyond, gaps))
