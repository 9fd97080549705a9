"""What looks damaged in a saved adapter: files, values, keys, shapes and configuration that do not fit together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.own.folder import Folder
from harness.own.values import Scan


@dataclass(frozen=True)
class Damage:
    """Something that does not fit together.

    Attributes:
        kind: one word or two, for programs.
        text: what was found, in a sentence.
        next_step: what to do about it; empty if nothing but saving it again helps.
        serious: False if it is a warning: the adapter may be as it should be.
    """

    kind: str
    text: str
    next_step: str = ""
    serious: bool = True


def find(folder: Folder, scan: Scan) -> list[Damage]:
    """Everything that looks damaged, the serious first."""
    found = [*_unreadable(folder), *_values(scan)]
    return sorted(found, key=lambda one: not one.serious)


def _unreadable(folder: Folder) -> Iterable[Damage]:
    if folder.unreadable:
        yield Damage("unreadable", folder.unreadable.found, folder.unreadable.next_step)


def _values(scan: Scan) -> Iterable[Damage]:
    if scan.not_finite:
        yield Damage("not-finite", f"{_some(scan.not_finite)} NaN or infinite values", "use an earlier checkpoint")


def _some(keys: list[str]) -> str:
    return f"{keys[0]} has" if len(keys) == 1 else f"{len(keys)} tensors, such as {keys[0]}, have"
