"""Did every tensor of the checkpoint arrive in the loaded model, by value? (pure)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.core.observation import Observed
from harness.core.run import CheckpointKeys
from harness.core.verdict import Verdict
from harness.judge import twins
from harness.judge.contracts import Found


def compare(
    creator: Observed,
    now: Observed,
    agreeing_layers: set[str],
    outputs_agree: bool,
    found: Found,
    *,
    creators_losses: bool = False,
) -> None:
    """Find the tensors that are nowhere in the loaded model.

    Args:
        agreeing_layers: canonical names of layers whose own effect was compared and agrees. If a tensor of such a layer
            cannot be found by value, it was fused or recomputed, not lost.
        outputs_agree: the model's outputs were compared and agree.
        creators_losses: the output is not what the adapter computed when it was saved: tensors that the creator's own
            reload lost count too.
    """
    tensors: Mapping[str, Any] = now.fact("accounting", "tensors") or {}
    if not tensors:
        return
    computed = set(now.fact("accounting", "computed") or [])
    lost_before = set(creator.missing())
    in_twin = twins.lost(creator, now)
    newly = [key for key in now.missing() if creators_losses or key not in lost_before] + in_twin
    undecided = [key for key in newly if key in computed or _vouched_for(key, agreeing_layers, outputs_agree)]
    undecided += [key for key in in_twin if outputs_agree and key not in undecided]
    lost = [key for key in newly if key not in undecided]
    arrived = sum(where["found"] in ("whole", "transposed", "slice") for where in tensors.values()) - len(in_twin)
    found.keys = CheckpointKeys(
        total=len(tensors),
        arrived=arrived,
        lost=tuple(lost),
        undecided=tuple(undecided),
        constant=sum(where["found"] == "constant" for where in tensors.values()),
        lost_by=found.lost_by,
    )
    if lost:
        message = f"{len(lost)} of {len(tensors)} tensors of the checkpoint are nowhere in the loaded model"
        if alone := [key for key in in_twin if key in lost]:
            message += f", or only in the place of one with equal values: {', '.join(alone[:3])}"
        if both := sorted(lost_before & set(lost)):
            message += f"; the creator's own reload loses {len(both)} of them too: {', '.join(both[:3])}"
        found.add("accounting", "lost-tensors", Verdict.SILENT_WRONG, message, details=tuple(lost))
        _creators_own_loading(creator, lost, found)
    if undecided:
        found.notes.append(f"{len(undecided)} tensors can't be found by value (fused or computed); the outputs decide")


def _creators_own_loading(creator: Observed, lost: list[str], found: Found) -> None:
    """If an adapter is loaded into another wrapper than it was made in: note whether the creator's library loses it
    too.

    That is no excuse: the scenario asks what happens to the checkpoint there.
    """
    said: Mapping[str, Any] = creator.facts.get("wrap", {})
    own = [key for key in lost if said.get("tensors", {}).get(key, {}).get("found") == "nowhere"]
    if own:
        found.notes.append(f"the creator's own library loses {len(own)} of them too if it loads into this wrapper")
    elif said.get("outcome") == "error":
        found.notes.append(f"the creator's own library raises {said['error']['type']} if it loads into this wrapper")


def _vouched_for(key: str, layers: set[str], outputs_agree: bool) -> bool:
    """True if other comparisons show that a tensor is in effect, though its values were not found.

    A layer's own effect shows it for the adapter's tensors in the layer. It does not for a bias that replaces the
    base's: that acts with the adapter disabled too, so only the outputs can show it.
    """
    bare = key.removeprefix("base_model.model.")
    for layer in layers:
        _, within, rest = f".{bare}".partition(f".{layer}.")
        if within and (outputs_agree or rest.removeprefix("base_layer.") not in ("weight", "bias")):
            return True
    return False
