"""The answer of `blame` as a sentence, and notes on how certain it is (pure)."""

from __future__ import annotations

from harness.core.text import listed, many
from harness.deviation.search.coupling import ACTORS, Ends
from harness.deviation.search.delta import Blame, Culprits

_SHOWN = 3


def sentence(found: Blame, ends: Ends) -> str:
    """Which library causes the deviation: `transformers 4.51.3 → 4.52.0 alone causes it; peft is innocent`."""
    if not found.culprits:
        return "the library that causes it could not be determined"
    said = _causes(found.culprits[0], ends)
    for other in found.culprits[1:]:
        said += f"; independently, {_causes(other, ends)}"
    return "; ".join(part for part in (said, _innocent(found, ends)) if part)


def notes(found: Blame, ends: Ends) -> tuple[str, ...]:
    """What limits the answer."""
    said = []
    for one in found.culprits:
        for package, along in one.companions.items():
            said.append(f"{', '.join(along)} had to change together with {package}, because of their requirements")
        for package, why in one.tied.items():
            if package in ACTORS and why:
                old = ends.version(package, "old") or "(absent)"
                said.append(f"{package} {old} could not be tested: {_line(why)}")
    if not found.complete and found.why_not:
        what = "there may be further causes" if found.culprits else "no culprit was found"
        said.append(f"{what}: {_line(found.why_not)}")
    return tuple(dict.fromkeys(said))


def change(ends: Ends, package: str) -> str:
    """A package's version change: `peft 0.6.1 → 0.21.2`."""
    old, new = ends.version(package, "old"), ends.version(package, "new")
    return f"{package} {old or '(absent)'} → {new or '(absent)'}"


def _causes(one: Culprits, ends: Ends) -> str:
    changes = [change(ends, package) for package in one.packages]
    if len(changes) == 1:
        return f"{changes[0]} alone causes it"
    return f"{listed(changes)} cause it only together"


def _innocent(found: Blame, ends: Ends) -> str:
    """The packages that differ and do not contribute to the deviation.

    They have their new version in a sound environment, or their old version in one that deviates.
    """
    guilty = {package for one in found.culprits for package in one.packages}
    along = {package for one in found.culprits for those in one.companions.values() for package in those}
    first = found.culprits[0]
    at_new = {p for p in ends.differing if first.sound.versions.get(p) == ends.version(p, "new")}
    if first.sound.pins is not None:
        at_new = set()
    cleared = [p for p in ends.differing if p not in guilty | along and (p in first.still_bad_without or p in at_new)]
    likely = [package for package in cleared if package in ACTORS]
    shown = cleared if len(cleared) <= _SHOWN else likely[:_SHOWN] or cleared[:_SHOWN]
    if not shown:
        return ""
    more = len(cleared) - len(shown)
    if not more:
        return f"{listed(shown)} {'is' if len(shown) == 1 else 'are'} innocent"
    return f"{', '.join(shown)} and {many(more, 'more package')} are innocent"


def _line(text: str) -> str:
    return " ".join(text.split())
