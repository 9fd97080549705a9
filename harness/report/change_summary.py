"""What a report says about one change that was compared with a baseline (`check --against`). Pure."""

from __future__ import annotations

from harness.core.comparison import Against, Comparison
from harness.core.run import Run
from harness.core.text import enumerated, listed, many

_FILES = 8
"""How many changed files are named."""
_NAMED = 3
"""How many changed functions are named."""
_BLIND = 12
"""How many blind scenarios are named."""


def failed_side(run: Run, against: Against) -> str:
    """Which side does not build."""
    name = next((one.name for one in run.environments if one.failed), "")
    side = against.subject if against.failed == "the change" else name
    return f"{against.failed} ({side}) does not build or import"


def undetermined(run: Run) -> tuple[Comparison, ...]:
    """The cells without a result on one side or both."""
    named = {comparison.cell: comparison for comparison in run.comparisons if comparison.unknown}
    bare = [cell for cell in run.cells if cell.verdict.cannot_tell and cell.id not in named]
    more = [Comparison(cell=cell.id, change="gone", now=cell.verdict, why=cell.reason) for cell in bare]
    return (*named.values(), *more)


def sources(run: Run) -> str:
    """Who made the adapters: up to two creators by name, else `12 PEFT releases` (environments, if two share one)."""
    creators = list(dict.fromkeys(cell.creator for cell in run.cells))
    if len(creators) <= 2:
        return listed(creators)
    releases = {one.name: one.versions.get("peft", "") for one in run.environments}
    distinct = {releases[name] for name in creators if releases.get(name)}
    return many(len(creators), "PEFT release" if len(distinct) == len(creators) else "environment")


def about(against: Against) -> list[tuple[str, str]]:
    """What was compared, as rows of a label and a text."""
    files = enumerated(against.changed, _FILES)
    changed = f"{many(len(against.changed), 'file')}: {files}" if files else "no installed file"
    if against.code and against.code.text_only:
        changed = f"{many(against.code.text_only, 'file')}, in nothing that runs"
    since = f", computed since {against.remembered_since[:16].replace('T', ' ')} UTC"
    when = f"{many(against.remembered, 'cell')} remembered{since}" if against.remembered else ""
    rows = [
        ("change", against.subject),
        ("baseline", "; ".join(part for part in (against.baseline, when) if part)),
        ("changed", f"{changed} ({against.known_by})" if against.known_by else ""),
        ("checked", "; ".join(part for part in (against.scope, against.newer_creators) if part)),
        ("code", "; ".join(code(against))),
        ("blind", _blind(against)),
        ("also differs", enumerated(against.differs, _FILES)),
    ]
    return [(label, text) for label, text in rows if text]


def code(against: Against) -> list[str]:
    """Which functions changed, and how many adapters execute none of them; nothing if the files decided."""
    found = against.code
    if found is None or found.text_only:
        return []
    said = [f"changed outside of functions: {enumerated(found.elsewhere, _NAMED)}"] if found.elsewhere else []
    if found.functions:
        said.insert(0, f"{many(len(found.functions), 'function')} changed: {enumerated(found.functions, _NAMED)}")
    several = f"none of the {len(found.functions):,} changed functions"
    none = several if len(found.functions) > 1 else "none of the changed code"
    verb = "executes" if found.untouched == 1 else "execute"
    return [*said, f"{many(found.untouched, 'adapter')} {verb} {none}, and cannot differ"]


def untouched(against: Against | None) -> str:
    """Why nothing was compared, if that is so because no adapter can differ; else empty."""
    found = against.code if against else None
    if found is None or not found.proved:
        return ""
    if found.text_only:
        known = (
            f"{many(found.remembered, 'cell')} of the baseline {'is' if found.remembered == 1 else 'are'} remembered"
        )
        what = f"comments, docstrings or formatting in {many(found.text_only, 'file')}"
        return f"nothing that runs has changed: only {what}; {known} and none can differ"
    what = enumerated(found.functions, _NAMED) or "what changed"
    rest = f"{many(found.untouched, 'adapter')} cannot differ"
    return f"no stored adapter executes {what}, so nothing of it was tested; {rest}"


def _blind(against: Against) -> str:
    """`2 scenarios deviate on the baseline with every adapter …: NAME (silent-wrong with …)`."""
    if not against.blind:
        return ""
    named = enumerated([f"{name} ({how})" for name, how in against.blind.items()], _BLIND)
    deviate = many(len(against.blind), "scenario deviates", "scenarios deviate")
    return f"{deviate} on the baseline with every adapter that was tried, so a new break can hide there: {named}"
