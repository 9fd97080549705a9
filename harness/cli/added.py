"""What became of adding a release: as data, and as Markdown for the description of a pull request (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.core.text import clip, code, fenced, many, prose, seconds
from harness.report.cell_facts import FIRST_PACKAGES


@dataclass(frozen=True)
class Outcome:
    """What became of one scenario."""

    scenario: str
    outcome: Literal["made", "unsupported", "refused", "deviates"]
    """`deviates`: it was made, and its own creator does not load it as it was."""
    verdict: str
    """Of the self-check."""
    detail: str = ""
    """Why it is not kept; of one that is, what was warned when it was loaded again."""
    defects: tuple[str, ...] = ()
    """What the creator's own library fails; stored with the golden."""
    log: str = ""

    @property
    def kept(self) -> bool:
        """True where its fixture is stored."""
        return self.outcome == "made"

    @property
    def word(self) -> str:
        """The outcome, and the self-check's verdict where there was one."""
        return f"{self.outcome}, {self.verdict}" if self.outcome in ("made", "deviates") else self.outcome


@dataclass(frozen=True)
class Added:
    """A release that was added."""

    name: str
    requirement: str
    released: str
    files: tuple[Path, ...]
    """Declaration and lock."""
    python: str
    versions: Mapping[str, str]
    outcomes: tuple[Outcome, ...]
    fixtures: bool
    """False where none were asked for."""
    size: int
    """Bytes that the fixtures added."""
    seconds: float

    def of(self, outcome: str) -> list[Outcome]:
        """The scenarios with an outcome."""
        return [one for one in self.outcomes if one.outcome == outcome]

    @property
    def whole(self) -> bool:
        """True where nothing that was tried is missing."""
        return not (self.of("refused") or self.of("deviates"))

    @property
    def verdicts(self) -> dict[str, int]:
        """The self-check's verdicts of what was kept, with counts."""
        return dict(Counter(one.verdict for one in self.of("made")).most_common())

    @property
    def defects(self) -> dict[str, int]:
        """Standing defects by their text, with how many scenarios have them."""
        return dict(Counter(text for one in self.of("made") for text in dict.fromkeys(one.defects)).most_common())

    def next_steps(self, where: str = "") -> list[str]:
        """The commands to go on with.

        Args:
            where: the options that say where matrices and fixtures are, with a blank before them.
        """
        if self.fixtures:
            return [f"peft-regress check --creator {self.name}{where}"]
        return [f"peft-regress create {self.name}{where}"]

    def data(self) -> dict[str, Any]:
        """For a program."""
        counts = Counter(one.outcome for one in self.outcomes)
        return {
            "name": self.name, "requirement": self.requirement, "released": self.released, "python": self.python,
            "files": [str(path) for path in self.files], "versions": dict(self.versions), "counts": dict(counts),
            "self_check": self.verdicts, "standing_defects": self.defects, "bytes_added": self.size,
            "seconds": self.seconds,
            "scenarios": [{k: v for k, v in vars(one).items() if k != "log"} for one in self.outcomes],
        }  # fmt: skip


def markdown(added: Added, command: str, where: str = "") -> str:
    """A summary for a pull request.

    Args:
        command: the one that was run.
        where: the options that say where matrices and fixtures are, with a blank before them.
    """
    peft = added.versions.get("peft", added.requirement)
    shown = [name for name in FIRST_PACKAGES if name in added.versions]
    blocks = [
        f"### PEFT {prose(peft)}: {code(added.name)}",
        f"Released {added.released}; Python {prose(added.python)}; {len(added.versions):,} packages; "
        f"done in {seconds(added.seconds)}.",
        _table(shown, [[code(added.versions[name]) for name in shown]]),
        *(_fixtures(added) if added.fixtures else ["No fixtures were asked for."]),
        "Made by, and next:\n\n" + fenced("\n".join([command, *added.next_steps(where)])),
    ]
    return "\n\n".join(blocks) + "\n"


def _fixtures(added: Added) -> list[str]:
    made, verdicts = added.of("made"), ", ".join(f"{count:,} {verdict}" for verdict, count in added.verdicts.items())
    counts = [many(len(made), "fixture") + " made", f"{len(added.of('unsupported')):,} unsupported"]
    counts += [f"{len(added.of('refused')):,} refused", *_some(len(added.of("deviates")), "not loaded as it was")]
    lines = [
        f"- {', '.join(counts)}; {added.size / 1e6:.2f} MB added",
        f"- self-check, each loaded again by {code(added.name)} itself: {verdicts or 'nothing to check'}",
    ]
    blocks = ["\n".join(lines)]
    blocks += _listed("Not kept", [(one.scenario, one.detail) for one in added.outcomes if _failed(one)], "scenario")
    again = Counter(one.detail for one in added.of("made") if one.detail)
    blocks += _listed("Said on loading it again", [(f"{n:,}", text) for text, n in again.most_common()], "scenarios")
    standing = [(f"{count:,}", text) for text, count in added.defects.items()]
    blocks += _listed("Standing defects: what its own library fails too", standing, "scenarios")
    reasons = Counter(one.detail for one in added.of("unsupported"))
    return blocks + _listed("Unsupported", [(f"{count:,}", text) for text, count in reasons.most_common()], "scenarios")


def _some(count: int, words: str) -> list[str]:
    return [f"{count:,} {words}"] if count else []


def _failed(one: Outcome) -> bool:
    return one.outcome in ("refused", "deviates")


def _listed(title: str, rows: Sequence[tuple[str, str]], first: str) -> list[str]:
    if not rows:
        return []
    table = _table([first, "what"], [[code(head), code(clip(text, 300))] for head, text in rows])
    return [f"**{title}**\n\n{table}"]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])
