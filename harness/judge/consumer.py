"""Judges what a consumer computes, refuses and drops (pure).

A consumer gives log-probabilities of the next token, with and without the adapter. The golden's logits at the same
positions are the standard. The base and the adapter's effect (with the adapter − without it) are judged apart:

- The base may differ by the golden's own rounding noise, measured by its float64 twin, once for the creator and up to
  `BELIEVED` times for the consumer, whose noise has no twin. A base beyond that is `base-moved`.
- The effect is judged prompt by prompt, because prompts amplify rounding by different factors. The golden's own noise
  says by how much, with and without the adapter. How much coarser the consumer computes is seen at its base: its
  difference ÷ the golden's noise there, at the same prompt or the median prompt, whichever is more. The effect may
  differ by up to `BELIEVED` times the golden's noise times that factor.

An effect of zero, another effect, or tensors that are nowhere in what the consumer reads are `silent-wrong`. A refusal
is right if it names what it refuses; else it is a `load-error`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from harness.core.observation import Array, Observed
from harness.core.run import CheckpointKeys, Figures, ProbeResult
from harness.core.text import enumerated, many
from harness.core.verdict import Verdict, worst
from harness.judge import numbers
from harness.judge.contracts import Found
from harness.judge.judgement import Judgement
from harness.judge.numbers import BELIEVED, beyond
from harness.judge.outcomes import error_report
from harness.worker.shared import CONSUMER

_LISTED = "listed: "
_SHORTEST = 3
"""Shorter names occur in any message."""
_COMMON = frozenset({"base_model", "model", "weight", "layers", "default", "lora"})
"""Parts of tensors' names that say nothing about one of them."""
_FLOAT32 = float(np.finfo(np.float32).eps)


def judge(golden: Observed, now: Observed) -> Judgement:
    """Compare what a consumer did with the golden."""
    found, said = Found(), now.facts[CONSUMER]
    found.notes += [f"the consumer said: {line}" for line in _lines(said)]
    if refusal := said.get("refused"):
        verdict = _refused(refusal, said.get("named", {}), found)
        return replace(_judgement(verdict, found), reason=found.notes[-1] if verdict is Verdict.REFUSED else "")
    if (error := error_report((now.load.get("float32") or {}).get("error"))) is not None:
        found.error = error
        message = f"{error.type}: {error.message}"
        found.add("load", "error", Verdict.LOAD_ERROR, message, stage=error.stage, error_type=error.type)
        return _judgement(Verdict.LOAD_ERROR, found)
    return _compared(golden, now, found)


def _lines(said: Mapping[str, Any]) -> list[str]:
    texts = said.get("said") or {}
    return list(dict.fromkeys(str(line) for lines in texts.values() for line in lines))[:5]


# -- refusals ----------------------------------------------------------------------------------------------------------


def _refused(refusal: Mapping[str, Any], named: Mapping[str, Any], found: Found) -> Verdict:
    text, stage = str(refusal.get("text", "")), str(refusal.get("stage", ""))
    shown = " / ".join(text.splitlines())
    if name := names_what_it_refuses(text, named):
        found.notes.append(f"refused while {stage}, naming {name}: {shown}")
        return Verdict.REFUSED
    message = f"it refuses, and does not name what: {shown or '(no message)'}"
    found.add("load", "refused-unnamed", Verdict.LOAD_ERROR, message, stage=stage)
    return Verdict.LOAD_ERROR


def names_what_it_refuses(text: str, named: Mapping[str, Any]) -> str:
    """The name of a tensor, option, method or class of this adapter or base that a message has; empty if it has none.

    Args:
        named: what there is to name (`named` of the worker's `consume/cell.py`).
    """
    said = text.lower()
    for name in _names(named):
        if len(name) >= _SHORTEST and re.search(rf"(?<![a-z0-9_]){re.escape(name.lower())}(?![a-z0-9_])", said):
            return name
    return ""


def _names(named: Mapping[str, Any]) -> Iterator[str]:
    """The names, the most specific first."""
    tensors = [str(key) for key in named.get("tensors", ())]
    for key in tensors:
        yield key
        yield key.removeprefix("base_model.model.")
    for option in map(str, named.get("options", ())):
        plain = option.removeprefix("use_").removesuffix("_invocation_tokens").removesuffix("_config")
        yield from dict.fromkeys((option, plain, plain.replace("_", " "), plain.replace("_", "-")))
    method = str(named.get("method", ""))
    if method.lower() not in _COMMON:
        yield from dict.fromkeys((method, method.replace("_", " "), f"{method.replace('_', '')}Config"))
    yield from map(str, named.get("base", ()))
    parts = dict.fromkeys(part for key in tensors for part in key.split("."))
    yield from (part for part in parts if part.lower() not in _COMMON and not part.isdigit())


# -- numbers -----------------------------------------------------------------------------------------------------------


def _compared(golden: Observed, now: Observed, found: Found) -> Judgement:
    places = [tuple(place) for place in now.facts[CONSUMER].get("positions", ())]
    computed = {name: now.arrays.get(f"{CONSUMER}/{name}") for name in ("base", "adapter")}
    if problem := _nothing_to_compare(golden, places, computed):
        found.add("forward", "nothing-compared", Verdict.NOT_COMPARABLE, problem)
        return _judgement(Verdict.NOT_COMPARABLE, found)
    base, adapter = (np.asarray(computed[name], dtype=np.float64) for name in ("base", "adapter"))
    standard = {probe: _log_probabilities(golden, probe, places) for probe in ("base", "forward")}
    noise = {probe: _noise(golden, probe, places) for probe in standard}
    allowed = float(max(map(np.max, noise.values()))) * (1 + BELIEVED)
    of_base = numbers.difference("base/float32/log-probabilities", standard["base"], base, allowed)
    effect = standard["forward"] - standard["base"]
    by_prompt = _effects(effect, adapter - base, base - standard["base"], noise)
    of_effect = max(by_prompt, key=lambda one: (beyond(one), one.max_abs if beyond(one) else one.ratio))
    decides = any(one.allowance < numbers.greatest(row) for one, row in zip(by_prompt, effect, strict=True))
    if beyond(of_base):
        message = "the consumer's base computes something else than PEFT's, without any adapter"
        found.add("base", "values", Verdict.BASE_MOVED, message, figures=of_base)
    wrong = np.isfinite(of_effect.allowance) and beyond(of_effect)
    if wrong:
        nothing = numbers.greatest(adapter - base) <= of_effect.allowance
        what = "the adapter does nothing" if nothing else "the adapter has another effect than with PEFT"
        found.add("forward", "values", Verdict.SILENT_WRONG, what, figures=of_effect)
    elif not decides:
        whole = numbers.greatest(effect)
        what = f"the base's difference allows {of_effect.allowance:.2g}, and the adapter's whole effect is {whole:.2g}"
        verdict = Verdict.BASE_MOVED if beyond(of_base) else Verdict.NOT_COMPARABLE
        found.add("forward", "proves-nothing", verdict, f"the adapter's effect could not be judged: {what}")
    _account(now, found, wrong=bool(wrong))
    verdict = worst([*(one.verdict for one in found.findings), Verdict.CLOSE])
    probes = {
        "base": _probe(of_base, found, "base"),
        "forward": _probe(of_effect, found, "forward"),
    }
    return _judgement(verdict, found, probes, max(one.max_abs for one in by_prompt), of_base.max_abs)


def _effects(effect: Array, now: Array, of_base: Array, noise: Mapping[str, Array]) -> list[Figures]:
    """How far the effect is from the golden's, and how far it may be, for each prompt.

    Args:
        of_base: the difference of the base's log-probabilities.
        noise: the golden's, for each prompt.
    """
    coarser = np.abs(of_base).max(-1) / noise["base"]
    coarser = np.maximum(np.maximum(coarser, np.median(coarser)), 1)
    allowed = BELIEVED * coarser * (noise["base"] + noise["forward"])
    found = []
    for row, (one, other, may) in enumerate(zip(effect, now, allowed, strict=True)):
        figures = numbers.difference("forward/float32/effect", one, other, float(may))
        found.append(figures.model_copy(update={"index": (row, *figures.index), "scale": numbers.rms(effect)}))
    return found


def _nothing_to_compare(
    golden: Observed, places: list[tuple[Any, ...]], computed: Mapping[str, Array | None]
) -> str:  # fmt: skip
    if any(f"{probe}/float32/logits" not in golden.arrays for probe in ("base", "forward")):
        return "the golden has no logits of base and adapter"
    if not places:
        return "the golden has no position at which base and adapter expect a token that does not end the text"
    shape = (len(places), golden.arrays["forward/float32/logits"].shape[-1])
    for name, array in computed.items():
        if array is None:
            return f"the consumer computed nothing ({name})"
        if array.shape != shape:
            return f"the consumer's array {name} has shape {array.shape}, expected {shape}"
    return ""


def _at(array: Array, places: list[tuple[Any, ...]]) -> Array:
    return np.stack([np.asarray(array[row, end], dtype=np.float64) for row, end in places])


def _softmax(logits: Array) -> Array:
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def _log_probabilities(
    golden: Observed, probe: str, places: list[tuple[Any, ...]], precision: str = "float32"
) -> Array:
    return _softmax(_at(golden.arrays[f"{probe}/{precision}/logits"], places))


def _noise(golden: Observed, probe: str, places: list[tuple[Any, ...]]) -> Array:
    """The rounding noise of the golden at each prompt: float32 from float64, at least float32's resolution."""
    narrow = _log_probabilities(golden, probe, places)
    size = np.abs(_at(golden.arrays[f"{probe}/float32/logits"], places)).max(-1)
    resolution = _FLOAT32 * np.maximum(size, _FLOAT32)
    if f"{probe}/float64/logits" not in golden.arrays:
        return np.asarray(numbers.UNMEASURED * resolution)
    wide = _log_probabilities(golden, probe, places, "float64")
    return np.asarray(np.maximum(np.abs(narrow - wide).max(-1), resolution))


def _probe(figures: Figures, found: Found, probe: str) -> ProbeResult:
    verdicts = [one.verdict for one in found.findings if one.probe == probe]
    return ProbeResult(verdict=worst([*verdicts, Verdict.CLOSE]), outcome="ok", figures=(figures,))


# -- tensors -----------------------------------------------------------------------------------------------------------


def _account(now: Observed, found: Found, *, wrong: bool) -> None:
    """Say where the adapter's tensors are in what the consumer reads. The others are lost, if the effect is wrong."""
    said = now.facts[CONSUMER]
    accounted, keys = said.get("accounted"), sorted(map(str, (said.get("named") or {}).get("tensors", ())))
    if not isinstance(accounted, dict) or not keys:
        found.notes.append("it cannot be seen which tensors the consumer reads")
        return
    listed = {key: str(accounted[key]).removeprefix(_LISTED) for key in keys if _is_listed(accounted.get(key))}
    missing = tuple(key for key in keys if key not in accounted)
    arrived = len(keys) - len(missing) - len(listed)
    found.notes += [f"{key}: {words}" for key, words in list(listed.items())[:5]]
    found.keys = CheckpointKeys(
        total=len(keys), arrived=arrived, lost=missing if wrong else (), undecided=() if wrong else missing
    )
    if missing and wrong:
        message = f"{many(len(missing), 'tensor')} of {len(keys)} dropped without a word: {enumerated(missing, 3)}"
        found.add("accounting", "lost-tensors", Verdict.SILENT_WRONG, message, details=missing)
    elif missing:
        found.notes.append(f"not found by value in what it reads, though the effect agrees: {enumerated(missing, 3)}")


def _is_listed(where: Any) -> bool:
    return isinstance(where, str) and where.startswith(_LISTED)


def _judgement(
    verdict: Verdict, found: Found, probes: Mapping[str, ProbeResult] | None = None,
    adapter_delta: float | None = None, base_delta: float | None = None,
) -> Judgement:  # fmt: skip
    return Judgement(
        verdict,
        findings=tuple(sorted(found.findings, key=lambda one: one.verdict.severity)),
        probes=probes or {},
        notes=tuple(dict.fromkeys(found.notes)),
        adapter_delta=adapter_delta,
        base_delta=base_delta,
        keys=found.keys,
        error=found.error,
    )
