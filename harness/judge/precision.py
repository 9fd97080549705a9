"""A replay in a narrower type, or with another attention, compared with the same model in a wider type (pure).

No golden is in bfloat16. The adapter's meaning is judged in float32 and float64 against the golden, as in every cell.
Here the loader's narrow model is compared with the loader's own wide one. Their allowance is measured on the same
model: the cost of rounding each operator's result to the narrow type, to the nearest and toward zero (the worker's
`rounding`). Both add up, since a processor may round either way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.core.observation import Array, Observed
from harness.core.run import Figures
from harness.core.verdict import Verdict
from harness.judge import numbers
from harness.judge.contracts import Found
from harness.judge.evidence import Evidence
from harness.judge.numbers import beyond
from harness.judge.outcomes import error_report

_MEANING = {
    "layers": "the adapter's own effect differs from {wide}",
    "forward": "the output differs from {wide}",
    "merged": "merged in place, the output differs from {wide}",
    "merge_and_unload": "merged and unloaded, the output differs from {wide}",
}
"""Probe → the meaning of a difference that rounding every operator does not explain."""


def hindered(now: Observed) -> tuple[Verdict, str] | None:
    """The verdict and reason if a cell's settings are not available where it ran; None if they are."""
    said = now.load.get("settings")
    return (Verdict(said["outcome"]), str(said["reason"])) if said else None


def undetermined(now: Observed) -> tuple[Verdict, str] | None:
    """The verdict and reason if the narrow type could not be judged, though all else was compared; None if it was."""
    said: Mapping[str, Any] = now.facts.get("settings", {})
    dtype = str(said.get("dtype", ""))
    if reason := _refused(said):
        return Verdict.NOT_COMPARABLE, reason
    if not_run := _not_run(said) if dtype else None:
        return not_run
    if dtype and now.outcome("forward", dtype) == "ok" and (reason := _blind(now, said)):
        return Verdict.NOT_COMPARABLE, reason
    return None


def _not_run(said: Mapping[str, Any]) -> tuple[Verdict, str] | None:
    """Why the base alone, without an adapter, does not run in the narrow type."""
    dtype = str(said["dtype"])
    if (error := error_report(said["base"].get("error"))) is not None:
        lacks = "not implemented for" in error.message
        reason = f"the base alone does not run in {dtype}: {error.type}: {error.message}"
        return Verdict.NO_DEVICE if lacks else Verdict.NOT_COMPARABLE, reason
    if said["overflows"]:
        return Verdict.NOT_COMPARABLE, f"the base alone is not finite in {dtype} ({', '.join(said['overflows'])})"
    return None


def _blind(now: Observed, said: Mapping[str, Any]) -> str:
    """Why the numbers could not reveal an adapter that does nothing; empty if they could."""
    dtype, wide, cost = str(said["dtype"]), str(said["reference"]), said["cost"]
    outputs = _figures(now, "forward", dtype, wide, cost)
    if not outputs:
        why = "; ".join(dict.fromkeys(said["unmeasured"]))[:300] or "no finite output"
        return f"the rounding cost of {dtype} could not be measured on the output: {why}"
    if any(_shows(f) for f in _figures(now, "layers", dtype, wide, cost)):
        return ""
    adapted, plain = now.group("forward", wide), now.group("base", wide)
    for f in outputs:
        name = f.array.split("/", 2)[2]
        if name not in plain or plain[name].shape != adapted[name].shape:
            if _shows(f):
                return ""
        elif numbers.difference(f.array, plain[name], adapted[name], 0.0).max_abs > f.allowance:
            return ""
    return f"rounding to {dtype} alone is as large as the adapter's effect, so its output there says nothing"


def _shows(figures: Figures) -> bool:
    """True if zeros in place of the array would be detected."""
    return figures.allowance < figures.scale


def _refused(said: Mapping[str, Any]) -> str:
    """Why the model does not have the attention that was requested, by its own report; empty if it has."""
    wanted, has = said.get("asked", {}), said.get("attention", "")
    if has and wanted.get("attention") and has != wanted["attention"]:
        return f"attention {wanted['attention']} was requested, but the model reports {has}"
    return ""


def was_asked(now: Observed) -> bool:
    """True if the replay also ran in a narrow type: then no cell is exact."""
    return bool(now.facts.get("settings", {}).get("dtype"))


def attention_moved_base(evidence: Evidence) -> float | None:
    """How far the requested attention moved the base; None if something else moved it.

    It was the attention if the loader's base with its release's own attention agrees with the golden's in every array.
    """
    alone = evidence.against("plain", evidence.golden, "base")
    if not alone or any(beyond(f) for f in alone):
        return None
    return max(f.max_abs for f in evidence.figures("base"))


def compare(now: Observed, found: Found) -> tuple[Figures, ...]:
    """Judge the outputs in the narrow type; returns the figures of all that was compared."""
    said: Mapping[str, Any] = now.facts.get("settings", {})
    dtype = str(said.get("dtype", ""))
    if not dtype or _not_run(said) or _not_loaded(now, dtype, found):
        return ()
    wide = str(said["reference"])
    every: list[Figures] = []
    moved: dict[str, Figures] = {}
    for probe in sorted(now.probes):
        if _raised(now, probe, dtype, found):
            continue
        figures = numbers.by_ratio(_figures(now, probe, dtype, wide, said["cost"]))
        every += figures
        if figures and beyond(figures[0]):
            moved[probe] = figures[0]
    ran = [probe for probe in now.probes if now.outcome(probe, dtype) == "ok" and now.group(probe, dtype)]
    if unmeasured := sorted(p for p in ran if not any(_is_of(f, p) for f in every)):
        said_why = "; ".join(dict.fromkeys(said.get("unmeasured", ())))[:300] or "it is not finite"
        found.notes.append(
            f"the rounding cost of {dtype} could not be measured for {', '.join(unmeasured)}; not judged: {said_why}"
        )
    _report(moved, dtype, wide, found)
    return tuple(every)


def _is_of(figures: Figures, probe: str) -> bool:
    return figures.array.startswith(f"{probe}/")


def _not_loaded(now: Observed, dtype: str, found: Found) -> bool:
    error = error_report(now.load.get(dtype, {}).get("error"))
    if error is None:
        return False
    found.error = found.error or error
    message = f"on a base in {dtype} loading fails ({error.stage}): {error.type}: {error.message}"
    found.add("load", f"{dtype}-error", Verdict.LOAD_ERROR, message, stage=error.stage, error_type=error.type)
    return True


def _raised(now: Observed, probe: str, dtype: str, found: Found) -> bool:
    """True if a probe raised in the narrow type; a finding only if it did not raise in float32."""
    error = error_report(now.probes[probe].get(dtype, {}).get("error"))
    if error is None:
        return False
    text = f"on a base in {dtype} {probe} raised {error.type}: {error.message}"
    if now.outcome(probe) == "ok":
        found.error = found.error or error
        found.add(probe, f"{dtype}-error", Verdict.RUN_ERROR, text, stage=error.stage, error_type=error.type)
    else:
        found.notes.append(text)
    return True


def _figures(
    now: Observed, probe: str, dtype: str, wide: str, cost: Mapping[str, Mapping[str, float]]
) -> list[Figures]:
    narrow, reference = now.group(probe, dtype), now.group(probe, wide)
    names = [name for name in sorted(set(narrow) & set(reference)) if name != "sketch"]
    names = [name for name in names if all(f"{probe}/{name}" in own for own in cost.values())]
    relative = {kind: _relative(probe, names, reference, own) for kind, own in cost.items()}
    made = []
    for name in names:
        full, array = f"{probe}/{dtype}/{name}", reference[name]
        allowance = sum(
            max(own.get(f"{probe}/{name}", 0.0), relative[kind] * numbers.rms(array)) for kind, own in cost.items()
        )
        made.append(numbers.difference(full, array, narrow[name], allowance))
    return made


def _relative(probe: str, names: list[str], reference: Mapping[str, Array], own: Mapping[str, float]) -> float:
    """The greatest cost ÷ root mean square in a probe: a small array can round well by chance."""
    sizes = {name: numbers.rms(reference[name]) for name in names}
    return max((own.get(f"{probe}/{name}", 0.0) / size for name, size in sizes.items() if size > 0), default=0.0)


def _report(moved: Mapping[str, Figures], dtype: str, wide: str, found: Found) -> None:
    if "base" in moved:
        figures = moved["base"]
        message = f"in {dtype} the base's own output differs from {wide} by more than rounding every operator explains"
        found.add("base", f"{dtype}-base", Verdict.BASE_MOVED, message, figures=figures)
    for probe, meaning in _MEANING.items():
        if probe in moved and not (probe != "layers" and "base" in moved and "layers" not in moved):
            figures = moved[probe]
            message = f"in {dtype} {meaning.format(wide=wide)}, and rounding does not explain it"
            subject = figures.array.split("/", 2)[2]
            found.add(probe, f"{dtype}-values", Verdict.SILENT_WRONG, message, subject=subject, figures=figures)
    if "gradients" in moved and not set(moved) & {"layers", "forward", "base"}:
        figures = moved["gradients"]
        size = f"by {figures.max_abs:.3g}; rounding explains {figures.allowance:.3g}"
        found.notes.append(f"in {dtype} gradients differ from {wide} by more than rounding explains ({size})")
