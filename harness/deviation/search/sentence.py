"""The answer of `blame` as a sentence, and notes on how certain it is: only what the trials show (pure)."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.text import listed, many
from harness.deviation.search.conclusion import Blame, Cause, Unknown
from harness.deviation.search.coupling import ACTORS, LIKELY, Ends
from harness.deviation.search.hunt import MOST_SUSPECTS

_SHOWN = 3


def sentence(found: Blame, ends: Ends) -> str:
    """Which library causes the deviation: `transformers 4.51.3 → 4.52.0 alone causes it`."""
    if found.misfits:
        return f"which library causes it is not known: the trials do not fit together ({_misfit(found)})"
    if not found.causes:
        return "which library causes it is not known"
    said: list[str] = []
    it = "it"
    back: list[str] = []
    for place, one in enumerate(found.causes):
        it = "that" if one.instead else it
        said.append((_lead(one, back, ends) if place else "") + _caused(one, it, ends))
        said += _unknown(one, it, ends)
        back += one.put_right
    also = [f"it deviates in this way too: {one.words}" for one in found.unexplained[:_SHOWN]]
    return "; ".join([*said, *also, *_not_needed(found)])


def notes(found: Blame, ends: Ends) -> tuple[str, ...]:
    """What limits the answer."""
    said = []
    for one in found.causes:
        for package, along in one.companions.items():
            shown = [one for one in along if one in ACTORS] if len(along) > MOST_SUSPECTS else along
            names = listed(
                [*shown, *([many(len(along) - len(shown), "more package")] if len(along) > len(shown) else [])]
            )
            said.append(f"{names} had to change together with {package}, because of their requirements")
        for package in _shown(one):
            if one.unknown[package].kind == "untestable":
                said.append(f"{_old([package], ends)} could not be tested: {_line(one.unknown[package].why)}")
        if len(one.needed) > 1 and not one.shown and not one.unknown:
            said.append(f"{listed(one.needed)} were not tried with everything else put back")
    if not found.complete and found.why_not:
        what = "there may be further causes" if found.causes and not found.misfits else "no cause was found"
        said.append(f"{what}: {_line(found.why_not)}")
    return tuple(dict.fromkeys(said))


def change(ends: Ends, package: str) -> str:
    """A package's version change: `peft 0.6.1 → 0.21.2`."""
    old, new = ends.version(package, "old"), ends.version(package, "new")
    return f"{package} {old or '(absent)'} → {new or '(absent)'}"


def is_answer(found: Blame) -> bool:
    """True if the answer names at least one library that the deviation needs."""
    return bool(found.causes) and not found.misfits and bool(found.causes[0].needed)


# -- one cause --------------------------------------------------------------------------------------------------------


def _lead(one: Cause, back: Sequence[str], ends: Ends) -> str:
    """How a further cause shows.

    Args:
        back: the packages that were put back before.
    """
    if one.instead:
        return f"with {_old(back, ends)} it deviates otherwise ({_line(one.deviation)}), and "
    return "independently, "


def _caused(one: Cause, it: str, ends: Ends) -> str:
    if not one.needed:
        suspects = [change(ends, package) for package in one.unknown]
        if len(suspects) > MOST_SUSPECTS:
            return f"which of {many(len(suspects), 'package')} causes {it} is not known"
        return f"{' or '.join(suspects)} cause {it}, alone or together: which is not known"
    changes = listed([change(ends, package) for package in one.needed])
    if len(one.needed) == 1:
        return f"{changes} {'alone causes' if one.shown else 'causes'} {it}"
    return f"{changes} cause {it} only together"


def _unknown(one: Cause, it: str, ends: Ends) -> list[str]:
    """What is not known of the packages that may be needed too."""
    said = []
    if one.needed and one.unknown:
        named = [change(ends, package) for package in one.unknown if package in LIKELY or len(one.unknown) <= _SHOWN]
        more = len(one.unknown) - len(named)
        whom = listed([*named, many(more, "more package")]) if more else listed(named)
        said.append(f"whether {whom} {'is' if len(one.unknown) == 1 else 'are'} needed too is not known")
    for package in _shown(one):
        said += _reason(package, one.unknown[package], it, ends)
    return said


def _shown(one: Cause) -> list[str]:
    """The unknown packages whose reasons are shown."""
    return [p for p in one.unknown if p in ACTORS] if len(one.unknown) > _SHOWN else list(one.unknown)


def _reason(package: str, unknown: Unknown, it: str, ends: Ends) -> list[str]:
    said = []
    if unknown.kind == "other":
        said.append(f"with {_old([package], ends)} another deviation comes ({_line(unknown.why)})")
    if unknown.clean:
        said.append(f"{package} alone does not cause {it}: {many(unknown.clean, 'trial')}")
    return said


def _old(packages: Sequence[str], ends: Ends) -> str:
    return listed([f"{p} {v}" if (v := ends.version(p, "old")) else f"no {p}" for p in packages])


# -- the others -------------------------------------------------------------------------------------------------------


def _not_needed(found: Blame) -> list[str]:
    """The packages that were put back while the cell deviated in the same way, and do not belong to another cause."""
    first = found.causes[0]
    guilty = frozenset().union(*(one.changes for one in found.causes))
    free = [package for package in first.free if package not in guilty]
    likely = [package for package in free if package in ACTORS]
    shown = free if len(free) <= _SHOWN else likely[:_SHOWN] or free[:_SHOWN]
    if not shown:
        return []
    more = len(free) - len(shown)
    names = f"{', '.join(shown)} and {many(more, 'more package')}" if more else listed(shown)
    whose = f"the change of {names}" if len(free) == 1 else f"the changes of {names}"
    return [f"it deviates in the same way without {whose} ({many(first.put_back, 'trial')})"]


def _misfit(found: Blame) -> str:
    return "; ".join(f"clean: {one.words}" for one in found.misfits[:_SHOWN])


def _line(text: str) -> str:
    return " ".join(text.split())
