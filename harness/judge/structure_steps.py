"""The model's structure after each step of preparing, training and reloading it, compared with the golden's (pure).

Differences are lines that can be read: `prepared: norm layers (5 parameters): bfloat16 → float32` instead of five
names. It is a contract which parameters there are, their dtypes, whether they train, and the class of the module around
them. That a release names its own adapter layers differently is a note.

Of TRL's SFTTrainer (probe `sft`) two things must always hold besides: training changes each trained tensor, and each is
there when plain PEFT reloads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from harness.core.observation import Observed
from harness.judge.contracts import Found

PROBE = "steps"
SFT = "sft"
SFT_STEPS = ("constructed", "trained", "reloaded")
"""The steps of the probe `sft`, in order."""
KIND = "structure-steps"
_MUST_BE_EMPTY = {
    "unchanged": ("untrained", "two steps of training left them as they were"),
    "lost": ("trained-lost", "they were trained and saved, and are nowhere in what plain PEFT reloads"),
}
"""Fact of the probe `sft` → kind of finding, and what it says of the tensors in that fact."""
_SHOWN = 4


def compare(golden: Observed, now: Observed, found: Found, probe: str = PROBE) -> None:
    """Compare every step of the golden with the replay's."""
    before: Mapping[str, Any] = golden.fact(probe, "steps") or {}
    after: Mapping[str, Any] = now.fact(probe, "steps") or {}
    if not before or now.outcome(probe) != "ok":
        return
    lines: list[str] = []
    for step, was in before.items():
        _outcome(step, was, after.get(step, {"outcome": "missing"}), lines, found)
    if lines:
        steps = dict.fromkeys(line.partition(":")[0] for line in lines)
        more = f", and {len(lines) - 1} more" if len(lines) > 1 else ""
        message = f"the model's structure differs after {', '.join(steps)}: {lines[0].partition(': ')[2]}{more}"
        found.contract(probe, KIND, message, lines)


def sft(golden: Observed, now: Observed, found: Found) -> None:
    """Compare how SFTTrainer prepares and trains the model, and what is reloaded."""
    if now.outcome(SFT) != "ok":
        return
    compare(golden, now, found, SFT)
    for fact, (kind, said) in _MUST_BE_EMPTY.items():
        before, after = golden.fact(SFT, fact) or [], now.fact(SFT, fact) or []
        new = [name for name in after if name not in before]
        if new:
            found.contract(SFT, kind, f"{len(new)} tensors: {said}: {', '.join(new[:3])}", new)
        elif after:
            found.standing.append(f"{len(after)} tensors: {said}")
    difference = float(now.fact(SFT, "apart") or 0.0)
    if difference > float(golden.fact(SFT, "apart") or 0.0):
        found.notes.append(f"trained by this TRL, the adapter differs from the stored one by up to {difference:.3g}")


def _outcome(step: str, was: Mapping[str, Any], is_now: Mapping[str, Any], lines: list[str], found: Found) -> None:
    match was["outcome"], is_now["outcome"]:
        case "ok", "ok":
            lines += difference(step, was, is_now)
            found.notes += layers(step, was, is_now)
        case "ok", other:
            lines.append(f"{step}: worked, and now is {other}: {_why(is_now)}")
        case before, "ok":
            found.notes.append(f"{step}: works now; for the creator it was {before}: {_why(was)}")
        case _:
            pass


def _why(said: Mapping[str, Any]) -> str:
    error: Mapping[str, str] = said.get("error") or {}
    return f"{error['type']}: {error['message']}" if error else str(said.get("reason", "no reason is known"))


def difference(step: str, was: Mapping[str, Any], is_now: Mapping[str, Any]) -> list[str]:
    """One line for each change of parameters, or of the classes of the modules around them."""
    before, after = was["parameters"], is_now["parameters"]
    shared = [name for name in before if name in after]
    changes: dict[str, list[str]] = {}
    for name in shared:
        (dtype, trains), (dtype_now, trains_now) = before[name], after[name]
        if dtype != dtype_now:
            changes.setdefault(f"{dtype} → {dtype_now}", []).append(name)
        if trains != trains_now:
            changes.setdefault(f"{_training(trains)} → {_training(trains_now)}", []).append(name)
    holders, holders_now = was["modules"], is_now["modules"]
    for name in holders:
        if name in holders_now and holders[name] != holders_now[name]:
            changes.setdefault(f"{holders[name]} → {holders_now[name]}", []).append(f"{name}.")
    for what, names in (
        ("no longer there", [name for name in before if name not in after]),
        ("newly there", [name for name in after if name not in before]),
    ):
        if names:
            changes[what] = names
    return [f"{step}: {_named(part)}: {change}" for change, names in changes.items() for part in _parted(names) if part]


def _parted(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Norms, then the rest: releases cast norms differently."""
    norms = [name for name in names if _is_norm(_owner(name))]
    return norms, [name for name in names if name not in norms]


def _is_norm(owner: str) -> bool:
    return "norm" in owner or owner.startswith("ln_")


def _training(trains: bool) -> str:
    return "trainable" if trains else "frozen"


def layers(step: str, was: Mapping[str, Any], is_now: Mapping[str, Any]) -> list[str]:
    """One line for each change of the adapter layers' classes: no finding, but it may explain other differences."""
    before, after = was["adapter_layers"], is_now["adapter_layers"]
    changes: dict[str, list[str]] = {}
    for name, kind in before.items():
        if after.get(name, kind) != kind:
            changes.setdefault(f"{kind} → {after[name]}", []).append(f"{name}.")
    return [f"{step}: adapter layers of {_named(names)}: {change}" for change, names in changes.items()]


def _named(names: list[str]) -> str:
    """A list of names in a few words: `norm layers (5 parameters)`, `lora_A, lora_B (8 parameters)`."""
    owners = list(dict.fromkeys(_owner(name) for name in names))
    norms = all(map(_is_norm, owners))
    what = "norm layers" if norms else _listed(owners)
    kind = "module" if all(name.endswith(".") for name in names) else "parameter"
    return f"{what} ({len(names)} {kind}{'' if len(names) == 1 else 's'})"


def _owner(name: str) -> str:
    """The name of the module that a parameter is in, without indices."""
    parts = [part for part in name.split(".")[:-1] if not part.isdigit()]
    return parts[-1] if parts else name


def _listed(owners: Iterable[str]) -> str:
    every = list(owners)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
