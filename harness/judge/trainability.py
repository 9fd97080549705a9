"""Which parameters train, after loading and after switching adapters (pure).

The standard is what trained when the adapter was made. The creator's own reload may train more or less than that.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

from harness.core.observation import Observed
from harness.core.verdict import Verdict
from harness.judge.contracts import Found, are_of
from harness.judge.standard import filled


def compare(creator: Observed, now: Observed, found: Found, converted: Set[str] = frozenset()) -> None:
    """Run all these checks.

    Args:
        converted: names of layers that the loader's base renamed or fused, and that compute the same.
    """
    _trainable(creator, now, found, converted)
    _gradient_names(creator, now, found, converted)
    _switching(creator, now, found)


def _trainable(creator: Observed, now: Observed, found: Found, converted: Set[str]) -> None:
    before, after = creator.fact("structure", "trainable"), now.fact("structure", "trainable")
    if before is None or after is None or before == after:
        return
    lost, gained = sorted(set(before) - set(after)), sorted(set(after) - set(before))
    if after and set(after) == set(filled(creator) or []):
        found.fixed.append(
            f"after the creator's own reload {len(before)} parameters train; here the {len(after)} of the "
            "adapter do, as when it was made"
        )
        return
    if _shapes(creator, lost) == _shapes(now, gained):
        found.notes.append(f"{len(lost)} trainable parameters have other names")
        return
    if gained and lost and are_of(lost, converted):
        found.notes.append(f"{len(lost)} trainable parameters were fused into {len(gained)} others")
        return
    details = [f"no longer trainable: {name}" for name in lost] + [f"newly trainable: {name}" for name in gained]
    found.contract(
        "structure", "trainability", f"{len(before)} parameters were trainable, {len(after)} are now", details
    )


def _shapes(side: Observed, names: Iterable[str]) -> list[list[int]]:
    """Shapes of parameters, sorted: a parameter that is only renamed keeps its shape. A transpose counts as equal."""
    known = side.fact("structure", "inference") or {}
    return sorted(sorted(known[name][0]) if name in known else [] for name in names)


def _gradient_names(creator: Observed, now: Observed, found: Found, converted: Set[str]) -> None:
    if now.outcome("gradients") != "ok" or creator.outcome("gradients") != "ok":
        return
    before, after = set(creator.group("gradients", "float32")), set(now.group("gradients", "float32"))
    gone = before - after
    if not gone:
        return
    own = filled(creator)
    if own is not None and not gone & set(own) and after >= before & set(own):
        found.notes.append(f"{len(gone)} parameters get no gradient; they did not train when the adapter was made")
    elif len(after) < len(before) and not (after - before and are_of(gone, converted)):
        absent = gone - set(now.fact("structure", "inference") or gone)
        why = f" ({len(absent)} of them are not in the model)" if absent else ""
        found.contract("gradients", "gradients-missing", f"{len(gone)} parameters get no gradient{why}", sorted(gone))
    else:
        found.notes.append(f"{len(gone)} gradients have other names; not compared")


def _switching(creator: Observed, now: Observed, found: Found) -> None:
    """Switching must have an effect, and what trains must be the active adapter or nothing: not the one left behind."""
    if now.outcome("second") != "ok" or creator.outcome("second") != "ok":
        return
    if creator.fact("second", "other_differs") and not now.fact("second", "other_differs"):
        message = "switching to another adapter no longer has an effect"
        found.add("second", "no-switch", Verdict.SILENT_WRONG, message)
    for fact, when, inactive in (
        ("trainable_other", "after switching to another adapter", "first"),
        ("trainable_back", "after switching back", "beside"),
    ):
        before, after = (side.fact("second", fact) or [] for side in (creator, now))
        was, said = (", ".join(names) or "neither" for names in (before, after))
        if before == after:
            continue
        if inactive in before and inactive not in after:
            found.fixed.append(
                f"{when}, the parameters of {was} train for the creator, although {inactive} is inactive; not here"
            )
        elif inactive in after and inactive not in before:
            message = f"{when}, the parameters of {said} train, although {inactive} is inactive; before, those of {was}"
            found.contract("second", "switch-trainability", message)
        else:
            found.notes.append(f"{when}, the parameters of {said} are trainable; before, those of {was}")
