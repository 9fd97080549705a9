"""Judges what no golden has: what a replay alone records, and the further probes (pure).

What holds for every release is a finding: after unloading, the base's keys are left and no others; both file formats
have the same keys; a config that is written can be read again. What does not hold for some release is a note.
Differences between two libraries are found by `harness.judge.side_by_side`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from harness.core.observation import Observed
from harness.core.run import Figures
from harness.core.text import enumerated, many
from harness.core.verdict import Verdict
from harness.judge import numbers
from harness.judge.contracts import Found
from harness.judge.evidence import Evidence

_EQUALS = (
    ("several", "merged.", "several", "both.", "merging two active adapters changes the output"),
    ("several", "unmerged.", "several", "both.", "merging and unmerging two adapters does not bring the output back"),
    ("several", "both_again.", "several", "both.", "two adapters, activated again, compute something else"),
    ("several", "deleted.", "several", "switched.", "with another adapter deleted, an adapter computes something else"),
    ("several", "back_from_third.", "several", "deleted.", "after another switch, an adapter computes something else"),
    ("several", "disabled.", "base", "", "disabled twice and enabled once, two adapters act"),
    ("together", "mixed.merged.", "together", "mixed.", "merging two methods in one layer changes the output"),
    ("together", "lora.merged.", "together", "lora.", "merging LoRA with biases and tokens changes the output"),
    *(("dimensions", f"{n}d.", "dimensions", "3d.", f"an input of {n} dimensions gives a layer's output another value")
      for n in (2, 4)),
    *(("named", f"{place}.", "forward", "", f"loaded under the name of its own {place}, it computes something else")
      for place in ("ending", "attribute", "layer")),
)  # fmt: skip
"""Probe, prefix of its arrays, the probe and the prefix of what they must be equal to, and the meaning if not."""

_NEVER = ("keys gone", "keys left", "modules left", "hooks", "buffers")
"""What no release leaves behind. Up to 0.18 the attribute `peft_config` stays."""
_UNLOADED = {"unloaded": ("unload()", (*_NEVER, "config")), "merge_and_unload": ("merge_and_unload()", _NEVER)}
"""Probe → the call, and what it never leaves behind. Merging may untie weights, and the config says so since 0.19."""


def compare(evidence: Evidence, found: Found) -> None:
    """Run all these checks."""
    now = evidence.now
    _left_behind(now, found)
    _config(now, found)
    _formats(now, found)
    if any(finding.verdict is Verdict.SILENT_WRONG for finding in found.findings):
        return  # what differs further follows from that
    for probe, prefix, twin, twin_prefix, meaning in _EQUALS:
        gap = _gap(evidence, (probe, prefix), (twin, twin_prefix))
        if gap is not None and gap.max_abs > numbers.BELIEVED * gap.allowance:
            found.notes.append(f"{meaning} (by {gap.max_abs:.3g})")
    _named(now, found)
    _silent(now, found)
    if unlike := (now.fact("several", "batch") or {}).get("unlike_alone"):
        found.notes.append(
            f"in a batch with other adapters, {enumerated(unlike, 3)} computes something else than alone"
        )


def _left_behind(now: Observed, found: Found) -> None:
    """After unloading, the base's modules, keys and config, and nothing else."""
    for probe, (call, never) in _UNLOADED.items():
        left: Mapping[str, list[str]] = now.fact(probe, "left") or {}
        if any(line.startswith("num_hidden_layers:") for line in left.get("config", ())):
            continue  # the adapter replicates layers of the base, and they stay
        details = [f"{kind}: {name}" for kind in never for name in left.get(kind, ())]
        if details:
            found.contract(probe, "left-behind", f"after {call} the model is not the base's ({details[0]})", details)


def _gap(evidence: Evidence, mine: tuple[str, str], other: tuple[str, str]) -> Figures | None:
    """How far one group of arrays is from another; None if one of them is missing, or merging quantises again."""
    if evidence.noise.kernels is not None:
        return None
    found = []
    twins = evidence.now.group(other[0], "float32")
    for name, array in evidence.now.group(mine[0], "float32").items():
        plain = name.removeprefix(mine[1])
        if plain == name or (twin := twins.get(other[1] + plain)) is None:
            continue
        full = f"{mine[0]}/float32/{name}"
        allowance = max(evidence.allowance(full, array), evidence.allowance(full, twin))
        found.append(numbers.difference(full, twin, array, allowance))
    return next(iter(numbers.by_ratio(found)), None)


def _named(now: Observed, found: Found) -> None:
    """Loaded under another name, all that arrives by its own name arrives, and is saved again."""
    plain = set(now.missing())
    saved = {fact: set(now.fact("roundtrip", fact) or []) for fact in ("lost", "added")}
    for _, step in _steps(now, "named", now.facts.get("named") or {}):
        lost = set(step["lost"]) - plain
        other = (set(step["saved_without"]) - saved["lost"]) | (set(step["saved_besides"]) - saved["added"])
        name = step["name"]
        if lost:
            found.notes.append(
                f"loaded under the name {name!r}, {many(len(lost), 'tensor')} did not arrive: {min(lost)}"
            )
        if other:
            found.notes.append(f"saved under the name {name!r}, it has other keys: {min(other)}")


def _silent(now: Observed, found: Found) -> None:
    by_load = now.fact("odd_files", "lacks_a_key") or {}
    by_name = now.fact("odd_files", "from_pretrained_lacks_a_key") or {}
    silent = all(step.get("outcome") == "ok" for step in (by_load, by_name))
    if silent and not by_load.get("missing") and not by_name.get("warnings"):
        found.notes.append("a checkpoint without one of its keys loads without a word")


def _config(now: Observed, found: Found) -> None:
    for name, step in _steps(now, "config", ("defaults", "scenario")):
        if changed := step.get("changed"):
            message = f"written and read again, the config with its {name} differs"
            found.contract("config", "config-round-trip", message, changed)


def _formats(now: Observed, found: Found) -> None:
    """Both formats have the same keys."""
    keys = [set(step["tensors"]) for _, step in _steps(now, "files", ("default", "other_format"))]
    if len(keys) == 2 and keys[0] != keys[1]:
        message = "saved as safetensors and by pickle, an adapter has different keys"
        found.contract("files", "formats-differ", message, sorted(keys[0] ^ keys[1]))


def _steps(now: Observed, probe: str, names: Iterable[str]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    for name in names:
        step = now.fact(probe, name) or {}
        if step.get("outcome") == "ok":
            yield name, step
