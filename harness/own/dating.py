"""Which releases of PEFT can have written an adapter, and why (pure).

`peft_version` in the configuration says it, from 0.18 on. Before, the keys of the configuration and of the tensors
leave a range, and the line that PEFT writes into the model card says which of these releases it was. People edit cards,
so a card that contradicts the keys is not believed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from packaging import version

from harness.core.text import listed, one_line
from harness.core.versions import version_of
from harness.own.written_by import MethodTable, Table, own_parts
from harness.store.adapter import Adapter

_CARD = re.compile(r"^[ \t]*[-*][ \t]*(PEFT|Transformers|TRL)[ \t]*:?[ \t]*v?(\d[\w.+-]*)[ \t]*$", re.MULTILINE)
Version = functools.lru_cache(maxsize=1024)(version.Version)
_FIRST = "0.0.1"
"""The first release of PEFT."""
_MANY = 4
"""So many keys are named in a reason."""


@dataclass(frozen=True)
class Dated:
    """The releases that can have written an adapter.

    Attributes:
        releases: oldest first; empty if no known release can.
        newer: a release that this tool does not know can have written it, too.
        reasons: why, in sentences, the strongest first.
        doubts: what does not fit together, in sentences: the files were edited.
        beside: package → version of other libraries of that process, as the model card says.
    """

    releases: tuple[str, ...]
    newer: bool = False
    reasons: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    beside: Mapping[str, str] = field(default_factory=dict)

    @property
    def span(self) -> str:
        """`PEFT 0.6.0 to 0.6.2`."""
        if not self.releases:
            return "a release of PEFT that this tool does not know" if self.newer else "no known release of PEFT"
        first, last = self.releases[0], self.releases[-1]
        return f"PEFT {first}" + (f" to {last}" if last != first else "") + (" or newer" if self.newer else "")

    @property
    def creators(self) -> list[dict[str, str]]:
        """What can have written it, each as package → version; packages that are not known are missing."""
        return [{"peft": release, **self.beside} for release in self.releases] or [dict(self.beside)]


def date(adapter: Adapter, table: Table) -> Dated:
    """Which releases can have written an adapter."""
    said = adapter.config.get("peft_version")
    if isinstance(said, str) and version_of(said.partition("@")[0]):
        return _by_version(adapter, said, table)
    return _by_card(adapter, _by_keys(adapter, table))


def _by_version(adapter: Adapter, said: str, table: Table) -> Dated:
    release = str(Version(said.partition("@")[0]))
    reasons = (f"`peft_version` in its configuration says {one_line(said, 60)}",)
    beside = _card(adapter.card).beside if release in _card(adapter.card).releases else {}
    if release not in table.releases:
        later = Version(release) > Version(table.newest)
        why = f"this tool knows PEFT up to {table.newest}" if later else "no release has this number: it is unreleased"
        return Dated((release,), False, (*reasons, why), (), beside)
    return Dated((release,), False, reasons, tuple(_misfits(adapter, release, table)), beside)


def _misfits(adapter: Adapter, release: str, table: Table) -> list[str]:
    """What PEFT of this release would have written otherwise."""
    method = table.methods.get(adapter.method)
    wrong = _contradictions(set(adapter.config), set(), release, method) if method else []
    missing, extra = ([one[1:] for one in wrong if one[0] == sign] for sign in "-+")
    return [
        *([f"its configuration lacks {_keys(missing)}, which {release} writes: it was edited"] if missing else []),
        *([f"its configuration has {_keys(extra)}, which {release} does not write: it was edited"] if extra else []),
    ]


def _by_card(adapter: Adapter, by_keys: Dated) -> Dated:
    card = _card(adapter.card)
    if not card.releases:
        return by_keys
    fitting = tuple(one for one in by_keys.releases if one in card.releases)
    words = f"the model card says PEFT {listed(card.releases)}"
    if fitting:
        return Dated(fitting, False, (f"{words}, and its other files agree", *by_keys.reasons), (), card.beside)
    if by_keys.newer and not by_keys.releases:
        return Dated(card.releases, True, (words, *by_keys.reasons), by_keys.doubts, card.beside)
    doubt = f"{words}, but its other files say {by_keys.span.removeprefix('PEFT ')}: one of them was edited or replaced"
    if by_keys.doubts:  # the configuration was edited, so neither is certain
        both = tuple(sorted({*by_keys.releases, *card.releases}, key=Version))
        return Dated(both, by_keys.newer, by_keys.reasons, (*by_keys.doubts, doubt))
    return Dated(by_keys.releases, by_keys.newer, by_keys.reasons, (doubt,))


@dataclass(frozen=True)
class _Card:
    releases: tuple[str, ...]
    beside: Mapping[str, str]


def _card(text: str) -> _Card:
    """What a model card says. Saving again adds a line for PEFT, so there can be several."""
    found: dict[str, list[str]] = {}
    for name, said in _CARD.findall(text[-20_000:]):
        if version_of(said):
            found.setdefault(name.lower(), []).append(str(Version(said)))
    beside = {name: versions[0] for name, versions in found.items() if name != "peft" and len(set(versions)) == 1}
    return _Card(tuple(sorted(set(found.get("peft", ())), key=Version)), beside)


def _by_keys(adapter: Adapter, table: Table) -> Dated:
    """The range by the keys of the configuration and of the tensors."""
    method = table.methods.get(adapter.method)
    if method is None:
        after = tuple(one for one in table.releases if Version(one) > Version(table.covered[-1]))
        return Dated(after, True, (f"this tool, which knows PEFT up to {table.newest}, does not know the method",))
    config, parts = set(adapter.config), own_parts(adapter.method, adapter.shapes)
    unknown = sorted(config - set(method.config))
    candidates = _since_the_method(method, table)
    newest = [one for one in candidates if Version(one) > Version(method.seen[-1])]
    possible = [one for one in candidates if not _contradictions(config, parts, one, method)]
    if unknown:
        word = f"its configuration has {_keys(unknown)}, which no release up to {table.newest} is known to write"
        if later := [one for one in newest if one in possible]:
            return Dated(tuple(later), True, (word,))
        doubt = f"{word}: a newer release wrote it, or it was added by hand"
        possible = [one for one in candidates if not _contradictions(config - set(unknown), parts, one, method)]
        known = _ranged(adapter, possible, candidates, config - set(unknown), parts, method)
        return Dated(known.releases, True, known.reasons, (doubt, *known.doubts))
    return _ranged(adapter, possible, candidates, config, parts, method)


def _ranged(
    adapter: Adapter, possible: Sequence[str], every: Sequence[str], config: set[str], parts: set[str],
    method: MethodTable,
) -> Dated:  # fmt: skip
    if possible:
        return Dated(tuple(possible), False, tuple(_edges(possible, every, config, parts, method)))
    has = [one for one in every if not any(c.startswith("+") for c in _contradictions(config, parts, one, method))]
    doubt = "no release writes exactly these keys of the configuration: it was edited, or another program wrote it"
    if not has:
        return Dated(tuple(every), False, (f"the method {adapter.method} has been there since {every[0]}",), (doubt,))
    return Dated(tuple(has), False, tuple(_edges(has, every, config, parts, method)), (doubt,))


def _since_the_method(method: MethodTable, table: Table) -> list[str]:
    """The releases that can have the method: from after the last one seen without it, to before the first one after."""
    covered = [Version(one) for one in table.covered]
    first, last = Version(method.seen[0]), Version(method.seen[-1])
    before = max((one for one in covered if one < first), default=Version("0"))
    after = min((one for one in covered if one > last), default=Version("99999"))
    return [one for one in table.releases if before < Version(one) < after]


def _contradictions(config: set[str], parts: set[str], release: str, method: MethodTable) -> list[str]:
    """What the release would have written otherwise: `+key` is there and should not, `-key` the opposite."""
    around = _neighbours(release, method.seen)
    found = [f"+{key}" for key in sorted(config) if _none(method.config.get(key, frozenset()), around)]
    found += [f"+{part}" for part in sorted(parts) if part in method.parts and _all(method.parts[part].absent, around)]
    missing = [key for key, there in method.config.items() if key not in config and _all(there, around)]
    if around[0] is None:  # older than all that is known: it may lack a few of the first known keys
        first = [key for key, there in method.config.items() if method.seen[0] in there]
        lacking = [key for key in first if key not in config]
        missing = lacking if len(lacking) * 4 > len(first) else []
    return found + [f"-{key}" for key in missing]


def _none(there: frozenset[str], around: tuple[str | None, str | None]) -> bool:
    """True if a release between these does not write it. What the first release lacks, older ones lack."""
    older, newer = around
    if newer is None:
        return bool(there) and older not in there  # what was given up does not come back; what is unknown may be new
    return newer not in there and (older is None or older not in there)


def _all(there: frozenset[str], around: tuple[str | None, str | None]) -> bool:
    """True if a release between these writes it. What the newest release writes, newer ones write."""
    older, newer = around
    return older in there and (newer is None or newer in there) if older else False


@functools.lru_cache(maxsize=4096)
def _neighbours(release: str, seen: tuple[str, ...]) -> tuple[str | None, str | None]:
    """The releases with fixtures at or around a release; None where there is none."""
    version = Version(release)
    older = [one for one in seen if Version(one) <= version]
    newer = [one for one in seen if Version(one) >= version]
    return (older[-1] if older else None), (newer[0] if newer else None)


def _edges(
    possible: Sequence[str], every: Sequence[str], config: set[str], parts: set[str], method: MethodTable
) -> Iterable[str]:
    """Why not older, and why not newer."""
    start, end = every.index(possible[0]), every.index(possible[-1])
    sides = [("older", every[start - 1])] if start else []
    sides += [("newer", every[end + 1])] if end + 1 < len(every) else []
    if not start and every[0] != _FIRST:
        yield f"not older: no release before {every[0]} is known to have the method"
    for side, release in sides:
        wrong = _contradictions(config, parts, release, method)
        has, lacks = ([one[1:] for one in wrong if one[0] == sign] for sign in "+-")
        words = [f"has {_keys(has)}, which {release} does not write"] if has else []
        words += [f"lacks {_keys(lacks)}, which {release} writes"] if lacks else []
        if words:
            yield f"not {side}: it {' and '.join(words)}"


def _keys(keys: Sequence[str]) -> str:
    shown = [f"`{one_line(key, 60)}`" for key in keys[:_MANY]]
    return listed([*shown, *([f"{len(keys) - _MANY} more"] if len(keys) > _MANY else [])])
