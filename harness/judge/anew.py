"""The scenario created anew by the loader: does it compute what it computed when the fixture was made? (pure)"""

from __future__ import annotations

from harness.core.run import Figures
from harness.core.verdict import Verdict
from harness.judge import numbers, standard
from harness.judge.contracts import Found
from harness.judge.evidence import Evidence
from harness.judge.numbers import beyond


def compare(
    evidence: Evidence, all_figures: tuple[Figures, ...], outputs_moved: bool, base_alone: bool, found: Found
) -> bool:
    """Compare the outputs of the new adapter; returns True if they differ only because the base does.

    Args:
        all_figures: the differences of the probe `fresh`.
        outputs_moved: the replay's own outputs differ from the golden's.
        base_alone: they do, and the base's move explains that.
    """
    if not any(map(beyond, all_figures)):
        if all_figures and _creators_differs(evidence):
            found.fixed.append(
                "created again by the creator, the scenario gives another output than at first, and not here"
            )
        return False
    before, after = standard.filled(evidence.creator), standard.filled(evidence.now)
    if before is not None and after is not None and set(before) != set(after):
        # each parameter is filled by its name: other names, other values
        found.notes.append(
            "the parameters of a new adapter have other names, so they were filled with other values: not compared"
        )
    elif base_alone and (other := _unlike_the_loaded(evidence)):
        message = "a new adapter with the same values gives another output than the loaded one"
        found.add("fresh", "fresh-values", Verdict.CONTRACT, message, figures=other)
    elif base_alone:
        return True
    elif outputs_moved:
        found.notes.append("a new adapter with the same values gives another output too")
    else:
        message = "created again with the same config and values, the adapter gives another output than the old one"
        found.add("fresh", "fresh-values", Verdict.CONTRACT, message, figures=all_figures[0])
    return False


def _unlike_the_loaded(evidence: Evidence) -> Figures | None:
    """How far the new adapter is from the loaded one, if they were alike for the creator and are not here."""
    before, now = (evidence.twin_gap(side, "fresh", "forward") for side in (evidence.creator, evidence.now))
    return now if before is not None and not beyond(before) and now is not None and beyond(now) else None


def _creators_differs(evidence: Evidence) -> bool:
    """True if the creator's own new adapter is not what it was when it was made: beside another one, say."""
    made, again = evidence.golden.group("fresh", "float32"), evidence.creator.group("fresh", "float32")
    gaps = [
        numbers.difference(name, made[name], again[name], evidence.allowance(f"fresh/float32/{name}", made[name]))
        for name in set(made) & set(again)
    ]
    return any(map(beyond, gaps))
