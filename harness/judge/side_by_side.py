"""Compares what the two sides of a PR check observed of one fixture, whatever the golden says of it. Pure.

Both sides compute with one Torch, with the same seeds and threads. So everything is comparable between them: dropout,
what the creator's library could not do, facts that no check reads. Arrays may differ by the measured rounding noise of
both sides, facts not at all. Numbers in facts are left out: the arrays hold them, with an allowance.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.core.observation import Observed
from harness.core.run import Figures, Finding
from harness.core.text import enumerated, many
from harness.core.verdict import Verdict
from harness.judge import numbers
from harness.judge.config_entries import config_changes
from harness.judge.contracts import finding
from harness.worker.shared import PRECISIONS

VALUES = "baseline-values"
"""The kind of finding for arrays; other findings are named by their fact: `trainable-back-differs`."""
DIFFERS = "-differs-from-baseline"
OUTPUTS = ("forward", "base", "layers")
"""If these differ, the other probes' arrays differ as a consequence."""

_SHOWN, _LONG = 3, 160
_NOT_OBSERVED = {"closer", "repeat", "kernel_spread", "created", "wrap"}
"""Facts that depend on the golden, or are the golden's own."""
_LISTED = {"conversion"}
"""Facts about how a library works: what they cause is judged."""
_WRITTEN = {"keys", "dtypes", "digests", "files", "config", "moved"}
"""Facts of a new adapter that are compared as what a change writes (`harness.judge.writes`)."""
_CHAOTIC = {"sft"}
"""Probes that train: a few steps make a large difference of a small one."""
_DAMAGED = {"odd_files"}
"""Probes of damaged files, for which a warning is all that a user may hear."""
_GIVEN = {("roundtrip", "config_before")}


@dataclass(frozen=True)
class Differences:
    """What differs between the two sides.

    Attributes:
        values: arrays beyond their allowance, one finding for each probe.
        facts: everything else that the author of a change must answer for.
        listed: what a reader should know: warnings, messages, what works now and did not.
    """

    values: tuple[Finding, ...] = ()
    facts: tuple[Finding, ...] = ()
    listed: tuple[str, ...] = ()


def compare(before: Observed, now: Observed) -> Differences:
    """Compare the baseline's observation with the change's."""
    figures = list(_arrays(before, now))
    values, unsure = list[Finding](), list[Finding]()
    for probe in dict.fromkeys(_probe(each) for each in figures):
        own = [each for each in figures if _probe(each) == probe]
        known = probe not in _CHAOTIC and (own[0].is_size or _same_outputs(before, now))
        (values if known else unsure).append(_values(probe, own))
    outcomes, listed = _outcomes(before, now)
    facts, more = _facts(before, now)
    listed += [*more, *_warnings(before, now), *(f"{each.probe}: {each.message}" for each in unsure)]
    return Differences(tuple(values), (*outcomes, *facts), tuple(dict.fromkeys(listed)))


def is_of(each: Finding) -> bool:
    """True for a finding of this comparison: it says nothing about the golden."""
    return each.kind == VALUES or each.kind.endswith(DIFFERS)


# -- arrays ------------------------------------------------------------------------------------------------------------


def _arrays(before: Observed, now: Observed) -> Iterator[Figures]:
    """Every array of a probe that both sides computed and that differs beyond its allowance."""
    noise: tuple[numbers.Noise, numbers.Noise] | None = None
    for name in sorted(set(before.arrays) & set(now.arrays)):
        was, array = before.arrays[name], now.arrays[name]
        if name.partition("/")[0] not in now.probes or name.endswith(f"/{numbers.SKETCH}"):
            continue  # of a closer look at what deviates from the golden; of blocks within the model
        if numbers.same_bits(was, array):
            continue
        noise = noise or (numbers.measure(before), numbers.measure(now))
        allowance = numbers.allowance(name, was, *noise)
        if not _has_twin(name, before):  # its noise is estimated from that of other arrays
            allowance *= numbers.BELIEVED
        found = numbers.difference(name, was, array, allowance)
        if numbers.beyond(found):
            yield found


def _has_twin(name: str, side: Observed) -> bool:
    """True if the array exists in both precisions."""
    probe, _, rest = name.split("/", 2)
    return all(f"{probe}/{precision}/{rest}" in side.arrays for precision in PRECISIONS)


def _probe(figures: Figures) -> str:
    return figures.array.partition("/")[0]


def _same_outputs(before: Observed, now: Observed) -> bool:
    """True if the outputs are equal to the bit: then rounding did not choose another token."""
    groups = [(before.group("forward", precision), now.group("forward", precision)) for precision in PRECISIONS]
    return all(numbers.same_bits(was[name], after[name]) for was, after in groups for name in set(was) & set(after))


def _values(probe: str, figures: Iterable[Figures]) -> Finding:
    own = numbers.by_ratio(figures)
    worst = own[0]
    verb = "differs" if len(own) == 1 else "differ"
    message = f"{many(len(own), 'array')} computed under the change {verb} from the baseline's, most {worst.array}"
    if not worst.is_size:
        message += f" (in {many(worst.differing, 'element')})"
    elif worst.max_abs:
        message += f" (by {worst.max_abs:.3g}, allowance {worst.allowance:.3g})"
    return finding(probe, VALUES, Verdict.SILENT_WRONG, message, figures=worst)


# -- outcomes and warnings ---------------------------------------------------------------------------------------------


def _outcomes(before: Observed, now: Observed) -> tuple[list[Finding], list[str]]:
    """Loading and probes that ended otherwise."""
    found: list[Finding] = []
    listed: list[str] = []
    old, new = ({"load": side.load, **side.probes} for side in (before, now))
    for probe in sorted(set(old) & set(new)):
        for precision in sorted(set(old[probe]) & set(new[probe])):
            kind = Verdict.LOAD_ERROR if probe == "load" else Verdict.RUN_ERROR
            _outcome(probe, old[probe][precision], new[probe][precision], kind, found, listed)
    return _first_of_each(found), listed


def _outcome(
    probe: str, was: Mapping[str, Any], now: Mapping[str, Any], kind: Verdict, found: list[Finding], listed: list[str]
) -> None:
    """One attempt on both sides: what works no longer is a finding, what works now is listed."""
    words, ended = _ended(was), _ended(now)
    if words == ended:
        return
    error = now.get("error") or {}
    stage, raised = str(error.get("stage", "")), str(error.get("type", ""))
    if error and was.get("outcome") == "ok":
        message = f"{ended}; under the baseline it raises nothing"
        found.append(finding(probe, f"outcome{DIFFERS}", kind, message, stage=stage, error_type=raised))
    elif now.get("outcome") == "skipped" and was.get("outcome") == "ok":
        message = f"no longer applies ({now.get('reason')}); under the baseline it does"
        found.append(finding(probe, f"outcome{DIFFERS}", Verdict.CONTRACT, message))
    elif error and was.get("error") and was["error"]["type"] != error["type"]:
        message = f"{ended}; under the baseline {words}"
        found.append(finding(probe, f"error{DIFFERS}", Verdict.CONTRACT, message, stage=stage, error_type=raised))
    else:
        listed.append(f"{probe}: {ended}; under the baseline {words}")


def _ended(attempt: Mapping[str, Any]) -> str:
    error = attempt.get("error")
    if error:
        return f"{_plain(error['type'])}: {_plain(error['message'])}"
    return " ".join(part for part in (str(attempt.get("outcome")), _plain(attempt.get("reason", ""))) if part)


def _first_of_each(found: Iterable[Finding]) -> list[Finding]:
    """One finding for what happens in both precisions."""
    return list({(each.probe, each.message): each for each in reversed(list(found))}.values())


def _warnings(before: Observed, now: Observed) -> Iterator[str]:
    old, new = ({_plain(text): text for text in _warned(side)} for side in (before, now))
    yield from (f"new warning: {text}" for plain, text in new.items() if plain not in old)
    yield from (f"no longer warns: {text}" for plain, text in old.items() if plain not in new)


def _warned(side: Observed) -> Iterator[str]:
    attempts = [*side.load.values(), *(each for probe in side.probes.values() for each in probe.values())]
    attempts += [fact for facts in side.facts.values() for fact in _attempts(facts)]
    for attempt in attempts:
        yield from attempt.get("warnings", ())


def _attempts(facts: Any) -> Iterator[Mapping[str, Any]]:
    """The attempts among facts: whatever has an outcome."""
    if isinstance(facts, Mapping):
        if "outcome" in facts:
            yield facts
        for value in facts.values():
            yield from _attempts(value)


# -- facts -------------------------------------------------------------------------------------------------------------


def _facts(before: Observed, now: Observed) -> tuple[list[Finding], list[str]]:
    found: list[Finding] = []
    listed: list[str] = []
    for probe, name, was, value in _pairs(before, now):
        if _is_attempt(was) and _is_attempt(value):
            _outcome(probe, was, value, Verdict.CONTRACT, found, listed)
            if probe in _DAMAGED and was.get("warnings") and value["outcome"] == "ok" and not value.get("warnings"):
                message = f"{name.replace('_', ' ')}: no longer warns: {was['warnings'][0]}"
                found.append(finding(probe, f"warning{DIFFERS}", Verdict.CONTRACT, message))
        details = _config(was, value) if name == "config" else list(_differing(was, value))
        shown = enumerated([line if len(line) <= _LONG else f"{line[:_LONG]}…" for line in details], _SHOWN)
        message = f"{(name or probe).replace('_', ' ')}, unlike under the baseline: {shown}"
        if details and probe in _LISTED:
            listed.append(f"{probe}: {message}")
        elif details:
            kind = f"{(name or probe).replace('_', '-')}{DIFFERS}"
            found.append(finding(probe, kind, Verdict.CONTRACT, message, details=tuple(details)))
    return found, listed


def _pairs(before: Observed, now: Observed) -> Iterator[tuple[str, str, Any, Any]]:
    """Each fact of both sides: probe, name (empty for one that has no parts), its value on both."""
    for probe in sorted((set(before.facts) & set(now.facts)) - _NOT_OBSERVED):
        old, new = before.facts[probe], now.facts[probe]
        if not (isinstance(old, Mapping) and isinstance(new, Mapping)) or _is_attempt(old):
            yield probe, "", old, new
            continue
        for name in sorted({*old, *new}):
            if not (probe == "fresh" and name in _WRITTEN) and (probe, name) not in _GIVEN:
                yield probe, name, old.get(name), new.get(name)
    for probe in sorted(set(before.probes) & set(now.probes)):
        if before.outcome(probe) == now.outcome(probe) == "ok":
            yield probe, "outputs", sorted(before.group(probe, "float32")), sorted(now.group(probe, "float32"))


def _config(before: Any, now: Any) -> list[str]:
    """Entries that differ, without new ones: a release may add an option with its default."""
    return [line for line in config_changes(before or {}, now or {}) if not line.startswith("+ ")]


def _is_attempt(value: Any) -> bool:
    return isinstance(value, Mapping) and "outcome" in value


_OF_ATTEMPT = {"outcome", "error", "reason", "warnings"}


def _differing(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """Where two facts differ: `q_proj.weight: [[8, 4], torch.float32, True] → …`, or `+ name`, `- name` of a list."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        skipped = _OF_ATTEMPT if _is_attempt(before) and _is_attempt(now) else set()
        for key in sorted({*before, *now} - skipped):
            yield from _differing(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
    elif _plain(before) == _plain(now):
        return
    elif _is_names(before) and _is_names(now) and set(before) != set(now):
        yield from (f"{path} + {name}".strip() for name in sorted(set(now) - set(before)))
        yield from (f"{path} - {name}".strip() for name in sorted(set(before) - set(now)))
    else:
        yield f"{path}: {before!r} → {now!r}".removeprefix(": ")


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_VERSION = re.compile(r"\b\d+\.\d+(\.\w+)+\b|\b0x[0-9a-f]+\b")


def _plain(value: Any) -> Any:
    """A fact without versions and addresses, and with finite numbers alike."""
    if isinstance(value, str):
        return _VERSION.sub("…", value)
    if isinstance(value, float) and math.isfinite(value):
        return 0.0
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
