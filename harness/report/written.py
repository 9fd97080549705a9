"""The section of a PR check about what the change saves otherwise than the baseline. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from harness.core.comparison import Reader, WritesOtherwise, WrittenChange
from harness.core.run import Run
from harness.core.text import enumerated, many

_SCENARIOS = 3


@dataclass(frozen=True)
class Written:
    """The differences, and what releases make of adapters that the change saved."""

    id: ClassVar[str] = "writes"
    title: str
    header: ClassVar[tuple[str, ...]] = ("what", "difference", "scenarios")
    rows: tuple[tuple[str, ...], ...]
    """Kind, difference, scenarios."""
    readers_title: str
    readers_header: ClassVar[tuple[str, ...]] = ("release", "scenario", "baseline's → the change's", "")
    readers: tuple[tuple[str, ...], ...]
    """Release, scenario, verdicts, why it is worse."""
    worse: bool
    """Some release loads what the change writes worse than what the baseline writes."""


def build(run: Run) -> Written | None:
    """The section; None if the change saves adapters as the baseline does."""
    found = run.against.writes if run.against else None
    if found is None:
        return None
    count = many(len(found.scenarios), "scenario")
    return Written(
        title=f"Writes otherwise: {many(len(found.changes), 'difference')} in what it saves, in {count}",
        rows=tuple(map(_change, found.changes)),
        readers_title=_readers_title(found),
        readers=tuple(map(_reader, found.readers)),
        worse=bool(found.worse),
    )


def sentence(found: WritesOtherwise | None) -> str:
    """`Writes otherwise in 3 scenarios; 1 of 8 loads by released versions fails because of it`, or empty."""
    if found is None:
        return ""
    said = f"it writes otherwise in {many(len(found.scenarios), 'scenario')} ({found.changes[0].what})"
    if not found.readers:
        return f"{said}; no release has loaded that: {found.unread}"
    if not found.worse:
        judged = tuple(reader for reader in found.readers if reader.judged)
        unknown = many(len(found.readers) - len(judged), "load") if len(judged) < len(found.readers) else ""
        words = [f"{_releases(judged)} load it as they load what the baseline writes"] * bool(judged)
        words += [f"{unknown} by releases could not be judged"] * bool(unknown)
        return "; ".join([said, *words])
    return f"{said}; {_releases(found.worse)} load it worse than what the baseline writes"


def _releases(readers: tuple[Reader, ...]) -> str:
    return enumerated(tuple(dict.fromkeys(reader.release for reader in readers)), 4)


def _readers_title(found: WritesOtherwise) -> str:
    if not found.readers:
        return f"no release has loaded it: {found.unread}"
    return "Released versions, with an adapter that the baseline saved and with one that the change saved"


def _change(change: WrittenChange) -> tuple[str, ...]:
    return change.kind, change.what, enumerated(change.scenarios, _SCENARIOS)


def _reader(reader: Reader) -> tuple[str, ...]:
    return reader.release, reader.scenario, reader.verdicts, f"worse: {reader.why}" if reader.worse else reader.why
