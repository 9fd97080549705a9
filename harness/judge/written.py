"""What a new adapter is saved as, compared with what the creator saved (pure).

A loader may save in another form: other names, other files, more keys. What it may not do is save less. Tensors are
found by value, since names change for good reasons. The standard of a saved adapter is what it computed when it was
saved: the loader's own reload must compute that again, if the creator's does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from typing import Any

from harness.core.observation import Observed
from harness.core.verdict import Verdict
from harness.judge.config_entries import SAID_NOTHING, changed_entries, plain
from harness.judge.contracts import TARGETS, Found, are_of
from harness.judge.evidence import Evidence
from harness.judge.numbers import beyond
from harness.judge.standard import filled, was_trained

PROBE = "fresh"
_NO_DATA = frozenset({"README.md"})
"""Files that are for people: an adapter is the same without them."""
_FORGOTTEN = "saved and read again, a new adapter computes something else than before it was saved"


def compare(evidence: Evidence, found: Found, converted: Set[str], lacks_reload: bool = False) -> None:
    """Judge what the loader saved when it created the scenario anew.

    Args:
        converted: layers that the loader's base renamed or fused, and that compute the same.
        lacks_reload: the creator cannot read what it saves, so its keys are no standard for a loader that can.
    """
    golden, now = evidence.creator, evidence.now
    if now.outcome(PROBE) != "ok" or golden.outcome(PROBE) != "ok":
        return
    _read_again(evidence, found)
    again = evidence.reloaded_gap()
    _keys(golden, now, found, converted, lacks_reload and again is not None and not beyond(again))
    _files(golden, now, found)
    _tensors(golden, now, found)
    _config(golden, now, found)


def _read_again(evidence: Evidence, found: Found) -> None:
    """The loader's own reload of what it saved."""
    said: Mapping[str, Any] = evidence.now.fact(PROBE, "reloaded") or {}
    if said.get("outcome") == "error":
        error = said["error"]
        message = f"the loader cannot read a new adapter that it saved: {error['type']}: {error['message']}"
        if evidence.creator.load.get("float32", {}).get("outcome") == "ok":
            found.add(PROBE, "unreadable", Verdict.LOAD_ERROR, message, stage=error["stage"], error_type=error["type"])
        return
    now, before = evidence.reloaded_gap(), evidence.created_gap()
    if now is None or not beyond(now):
        return
    if before is not None and beyond(before):
        found.standing.append(f"{_FORGOTTEN} (by {now.max_abs:.3g}), as for the creator ({before.max_abs:.3g})")
    elif now.max_abs > now.allowance + (before.max_abs if before else 0.0):
        found.add(PROBE, "reloaded-differs", Verdict.SILENT_WRONG, _FORGOTTEN, figures=now)


def _keys(golden: Observed, now: Observed, found: Found, converted: Set[str], only_loader_reads: bool) -> None:
    before, after = (dict(side.fact(PROBE, "keys") or {}) for side in (golden, now))
    if set(before) == set(after):
        return
    gone, new = [key for key in before if key not in after], [key for key in after if key not in before]
    moved: Mapping[str, str] = now.fact(PROBE, "moved") or {}
    not_its_own = set(golden.fact("roundtrip", "lost") or [])  # the creator's own reload drops them: another adapter's
    lost = [key for key in gone if key not in moved and not are_of([key.removeprefix("base_model.model.")], converted)]
    lost = [key for key in lost if key not in not_its_own]
    instead = [key for key in new if key not in moved.values()]
    if _other_names(golden, now):  # each parameter is filled by its name, so values do not show what was renamed
        lost = _without_twin(lost, before, [after[key] for key in instead])
    if lost and not only_loader_reads and (not instead or not _other_names(golden, now)):
        message = f"a new adapter is saved without {len(lost)} of {len(before)} tensors that the creator saves"
        found.contract(PROBE, "written-keys", message, sorted(lost))
    else:
        found.notes.append(f"a new adapter has other keys: {len(gone)} gone, {len(new)} new")


def _other_names(golden: Observed, now: Observed) -> bool:
    return set(filled(golden) or []) != set(filled(now) or [])


def _without_twin(keys: Iterable[str], shapes: Mapping[str, list[int]], others: Iterable[list[int]]) -> list[str]:
    """The keys for which no other has the shape; each other is used once."""
    free = Counter(tuple(sorted(shape)) for shape in others)
    rest = []
    for key in keys:
        shape = tuple(sorted(shapes[key]))
        free[shape] -= 1
        if free[shape] < 0:
            rest.append(key)
    return rest


def _files(golden: Observed, now: Observed, found: Found) -> None:
    before, after = (set(side.fact(PROBE, "files") or []) for side in (golden, now))
    gone, new = sorted(before - after), sorted(after - before)
    if lost := [name for name in gone if name not in _NO_DATA and not new]:
        found.contract(PROBE, "written-files", f"a new adapter is saved without {', '.join(lost)}", lost)
    elif gone or new:
        instead = ", ".join(new) or "nothing"
        found.notes.append(f"a new adapter is saved as {instead} instead of {', '.join(gone) or 'nothing'}")


def _tensors(golden: Observed, now: Observed, found: Found) -> None:
    """Shapes and types of the tensors that both save."""
    before, after = (side.fact(PROBE, "keys") or {} for side in (golden, now))
    shapes = [f"{key}: {before[key]} → {after[key]}" for key in sorted(set(before) & set(after))
              if before[key] != after[key]]  # fmt: skip
    if shapes:
        found.contract(
            PROBE, "written-shape", f"{len(shapes)} tensors of a new adapter are saved with another shape", shapes
        )
    if golden.fact("created", "filled") is None or was_trained(golden):
        return  # a user's own adapter, or a trainer's: its types are not those that its release would save
    stored, saved = now.fact("accounting", "dtypes") or {}, now.fact(PROBE, "dtypes") or {}
    dtypes = [f"{key}: {stored[key]} → {saved[key]}" for key in sorted(set(stored) & set(saved))
              if stored[key] != saved[key]]  # fmt: skip
    if dtypes:
        found.contract(PROBE, "written-dtype", f"{len(dtypes)} tensors of a new adapter are saved with another dtype",
                       dtypes)  # fmt: skip


def _config(golden: Observed, now: Observed, found: Found) -> None:
    """Entries of the config that the scenario asks for and that are gone, or any that say something else.

    A release may have other options, and the scenario may ask each release for other values.
    """
    asked: Mapping[str, Any] = now.fact(PROBE, "asked") or {}
    config: Mapping[str, Any] = now.fact(PROBE, "config") or {}
    changes = changed_entries(golden.fact(PROBE, "config") or {}, config)
    worse = [line for key, line in changes.items() if _is_worse(key, line, config, asked)]
    if worse:
        message = f"a new adapter is saved with another config: {len(worse)} entries are gone or differ"
        found.contract(PROBE, "written-config", message, worse)


def _is_worse(key: str, line: str, config: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    if line.startswith("+ ") or line.endswith(SAID_NOTHING) or key in TARGETS:
        return False  # the keys show which layers an adapter has; a release may name each of them
    if key not in config:
        return key in asked
    return key not in asked or plain(config[key]) != plain(asked[key])
