"""The answer in a sentence, and what it rests on (pure)."""

from __future__ import annotations

from collections.abc import Sequence

from harness.deviation.search.coupling import ACTORS, Ends
from harness.deviation.search.delta import Blame, Culprits

_SHOWN = 3


def sentence(found: Blame, ends: Ends) -> str:
    """Which library did it: `transformers 4.51.3 → 4.52.0 alone does it; peft is innocent`."""
    if not found.culprits:
        return "which library did it can't be told"
    said = _does(found.culprits[0], ends)
    for other in found.culprits[1:]:
        said += f"; so {'does' if len(other.packages) == 1 else 'do'} {_does(other, ends)}"
    return "; ".join(part for part in (said, _innocent(found, ends)) if part)


def notes(found: Blame, ends: Ends) -> tuple[str, ...]:
    """What a reader should know of how sure the answer is."""
    said = []
    for one in found.culprits:
        for package, along in one.companions.items():
            where = f"{', '.join(along)} {'has' if len(along) == 1 else 'have'} to go along with {package}"
            said.append(f"{where}: their own requirements leave nothing else")
        for package, why in one.tied.items():
            if package in ACTORS and why:
                old = ends.version(package, "old") or "its absence"
                said.append(f"whether {package} {old} would spare it can't be tried: {_line(why)}")
    if not found.complete and found.why_not:
        what = "whether something else does it too" if found.culprits else "nothing could be told"
        said.append(f"{what}: {_line(found.why_not)}")
    return tuple(dict.fromkeys(said))


def change(ends: Ends, package: str) -> str:
    """A package's version change: `peft 0.6.1 → 0.21.2`."""
    old, new = ends.version(package, "old"), ends.version(package, "new")
    return f"{package} {old or '(absent)'} → {new or '(absent)'}"


def _does(one: Culprits, ends: Ends) -> str:
    changes = [change(ends, package) for package in one.packages]
    if len(changes) == 1:
        return f"{changes[0]} alone does it"
    together = f"{', '.join(changes[:-1])} and {changes[-1]} only together"
    return f"{together} do it"


def _innocent(found: Blame, ends: Ends) -> str:
    """The libraries that differ and have no part in it.

    They are at their new version in an environment that is sound, or could be put back in one that stayed bad.
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
        return f"{_named(shown)} {'is' if len(shown) == 1 else 'are'} innocent"
    return f"{', '.join(shown)} and {more} more {'package' if more == 1 else 'packages'} are innocent"


def _named(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _line(text: str) -> str:
    return " ".join(text.split())
