"""A report as Markdown: a job summary, a comment on a pull request, a `report.md`; with a size budget.

Each section becomes a few blocks. Some are always there (the sentence, the causes). The others are taken in order while
they fit, and what does not fit is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from harness.core.errors import ExitCode
from harness.core.run import Run
from harness.core.text import clip, code, fenced, link, many, prose, table, visible
from harness.core.versions import FIRST_PACKAGES
from harness.report import view
from harness.report.cell_facts import Fact
from harness.report.grid import Box, Grid
from harness.report.provenance import Environments
from harness.report.structure_history import History
from harness.report.view import Group, Section, View
from harness.report.written import Written

COMMENT_BUDGET = 20_000
"""Characters that a comment on a pull request may have, well under GitHub's own limit of 65,536."""
_NOTE_ROOM = 500
"""Characters kept free for the note that counts what was cut."""
_TITLE_WIDTHS = (300, 120, 48)
"""Characters of a cause's title in the table, tried in turn: a title gets shorter, but no cause is cut."""


@dataclass(frozen=True)
class Block:
    """A piece of the document, and what is lost without it."""

    text: str
    what: str = ""
    """Its kind in the note on what was cut. A block without a kind is never cut."""
    count: int = 1


def render(run: Run, budget: int | None = None, verbose: bool = False) -> str:
    """The report as Markdown.

    Args:
        run: what to report.
        budget: characters that the result may have. The causes are never cut, so many causes can exceed it.
        verbose: also the table of all cells, and a full report of a clean run.
    """
    report = view.build(run)
    opening = Block(f"**{report.word}**: {prose(clip(report.sentence, 1500))}")
    if not verbose and _is_short(run, report):
        notices = [block for part in report.sections if isinstance(part, view.Notices) for block in _notices(part)]
        return "\n\n".join(block.text for block in (opening, *notices)) + "\n"
    room = None if budget is None else budget - len(opening.text) - _NOTE_ROOM
    return _fitted([opening, *_head(report), *_sections(report, room, verbose)], budget)


def _is_short(run: Run, report: View) -> bool:
    """True for a clean run with nothing to add: its report is the sentence alone."""
    changed = any(comparison.change != "still" for comparison in run.comparisons)
    return report.code is ExitCode.CLEAN and not (changed or report.notes or report.about)


def _head(report: View) -> Iterator[Block]:
    if report.about:
        yield Block("\n".join(f"- {label}: {code(clip(said, 600))}" for label, said in report.about))
    if report.notes:
        yield Block("\n".join(f"- {code(note)}" for note in report.notes), "notes", len(report.notes))


def _sections(report: View, room: int | None, verbose: bool) -> list[Block]:
    """All blocks, with titles as long as the blocks that are never cut leave room for."""
    blocks: list[Block] = []
    for width in _TITLE_WIDTHS:
        blocks = [block for section in report.sections for block in _blocks(section, width, verbose)]
        if room is None or sum(len(block.text) + 2 for block in blocks if not block.what) <= room:
            break
    return blocks


def _blocks(section: Section, width: int, verbose: bool) -> Iterable[Block]:
    match section:
        case view.Failures():
            return _failures(section)
        case view.Changes():
            return _changes(section)
        case Written():
            return _writes(section)
        case Grid():
            return _grid(section)
        case view.Causes():
            return _causes(section, width)
        case view.Problems():
            return _problems(section, width)
        case view.Undetermined():
            return _undetermined(section)
        case History():
            return _history(section)
        case view.KnownBreaks():
            return _known(section)
        case view.Aside():
            return _aside(section)
        case Environments():
            return _environments(section)
        case view.Cells():
            return _cells(section) if verbose else []
        case view.Notices():
            return _notices(section)


def _fitted(blocks: Sequence[Block], budget: int | None) -> str:
    """The blocks that fit, in order. A block that does not fit leaves its room to smaller ones after it."""
    taken, cut = [], list[Block]()
    left = (
        None if budget is None else budget - _NOTE_ROOM - sum(len(block.text) + 2 for block in blocks if not block.what)
    )
    for block in blocks:
        size = len(block.text) + 2
        if not block.what or left is None or size <= left:
            taken.append(block.text)
            left = left - size if left is not None and block.what else left
        else:
            cut.append(block)
    if cut:
        taken.append(_cut_note(cut))
    return "\n\n".join(taken) + "\n"


def _cut_note(cut: Sequence[Block]) -> str:
    counts: dict[str, int] = {}
    for block in cut:
        counts[block.what] = counts.get(block.what, 0) + block.count
    said = "; ".join(f"{what} ({count:,})" for what, count in counts.items())
    return f"Cut to fit, all of it in `report.json`: {said}."


# Sections ------------------------------------------------------------------------------------------------------------


def _failures(section: view.Failures) -> Iterator[Block]:
    for name, lines in section.environments:
        yield Block(f"{code(name)} failed:\n\n{fenced(clip(lines, 2000))}", "failed environments")


def _changes(section: view.Changes) -> Iterator[Block]:
    for change in section.kinds:
        rows = [(prose(verdicts), code(cell)) for verdicts, cell, _ in change.rows]
        title = f"{change.name} ({len(rows):,}): {change.meaning}"
        opened = change.name == "regressed" and len(rows) <= 20
        yield Block(_folded(title, table(("verdict", "cell"), rows), opened), f"cells {change.name}", len(rows))


def _writes(section: Written) -> Iterator[Block]:
    rows = [(prose(kind), code(what), prose(scenarios)) for kind, what, scenarios in section.rows]
    yield Block(f"**{section.title}**\n\n{table(section.header, rows)}", "differences in what is written", len(rows))
    readers = [
        (prose(name), code(scenario), prose(said), prose(clip(why, 200)))
        for name, scenario, said, why in section.readers
    ]
    body = f"\n\n{table(section.readers_header, readers)}" if readers else ""
    yield Block(f"{prose(section.readers_title)}{body}", "" if section.worse else "loads by releases", len(readers))


def _grid(grid: Grid) -> Iterator[Block]:
    rows = [(code(row.label), *map(_box, row.boxes)) for row in grid.rows]
    header = ("creator \\ loader", *(code(label) for _, label in grid.loaders))
    body = table(header, rows, right=range(1, len(header)))
    yield Block(f"**{grid.title}** ({grid.note})\n\n{body}", "rows of the grid", len(rows))
    if grid.outcomes:
        outcomes = [
            (each.reading, code(clip(each.title, 200)), prose(each.creators.ranges), prose(each.loaders.ranges),
             code(_names(each.scenarios, 200)), f"{len(each.cells):,}", prose(each.verdicts))
            for each in grid.outcomes
        ]  # fmt: skip
        body = table(("what", "how", "creators", "loaders", "scenarios", "cells", "verdicts"), outcomes, right=(5,))
        yield Block(_folded(grid.forward, body), "what older loaders did", len(outcomes))
    elif grid.forward:
        yield Block(f"{grid.forward}.", "what older loaders did")


def _box(box: Box) -> str:
    text = prose(box.text)
    return f"**{text}**" if box.concerning else text


def _causes(section: view.Causes, width: int) -> Iterator[Block]:
    header = ("verdict", "cause", "creators", "loaders", "scenarios", "cells", "error ÷ allowance")
    yield Block(table(header, [_cause_row(group, width) for group in section.groups], right=(5, 6)))
    for group in section.groups:
        title = f"{group.verdict}: {clip(visible(group.title), 120)}"
        lines = [f"first: {group.since}"] if group.since else []
        body = "\n".join([*lines, visible(group.cells[0].id), *map(_fact, group.facts)])
        yield Block(_folded(_summary(title), fenced(body)), "causes in full")
    for group in section.groups:
        if rest := group.cells[1:]:
            rows = [(code(line.id), line.size, code(line.reproduce)) for line in rest]
            title = f"the other {many(len(rest), 'cell')} of {clip(visible(group.title), 120)}"
            body = table(("cell", "error ÷ allowance", "reproduce"), rows, right=(1,))
            yield Block(_folded(_summary(title), body), "cells of the same causes", len(rest))


def _cause_row(group: Group, width: int) -> tuple[str, ...]:
    return (
        prose(str(group.verdict)),
        code(clip(visible(group.title), width)),
        prose(clip(group.creators, width)),
        prose(clip(group.loaders, width)),
        code(_names(group.scenarios, width)),
        f"{len(group.cells):,}",
        group.size,
    )


def _names(names: Sequence[str], width: int) -> str:
    """As many names as fit. The rest is counted."""
    shown = list(names)
    while len(shown) > 1 and len(", ".join(shown)) > width:
        shown.pop()
    more = f" and {len(names) - len(shown):,} more" if len(shown) < len(names) else ""
    return clip(visible(", ".join(shown)), width) + more


def _fact(fact: Fact) -> str:
    """A fact as aligned lines."""
    value = clip(fact.value, 1000)
    parts = value.split("\n") if fact.tone == "block" else [visible(value)]
    return "\n".join(f"  {fact.label if place == 0 else '':<14}{part}" for place, part in enumerate(parts))


def _problems(section: view.Problems, width: int) -> Iterator[Block]:
    rows = [(prose(p.problem), code(clip(p.id, width)), code(clip(p.message, width))) for p in section.problems]
    yield Block(f"**{section.title}**\n\n" + table(("problem", "known break", "what"), rows))


def _undetermined(section: view.Undetermined) -> Iterator[Block]:
    if section.groups:
        rows = [
            (prose(group.verdict), code(clip(group.title, 300)), prose(clip(group.reach, 300)), f"{len(group.cells):,}",
             code(group.more))
            for group in section.groups
        ]  # fmt: skip
        body = table(("verdict", "reason", "where", "cells", "see more"), rows, right=(3,))
        count = sum(len(group.cells) for group in section.groups)
        yield Block(_folded(f"{many(count, 'cell')} could not be judged", body, opened=True), "cells not judged", count)
    if section.not_run:
        body = "\n".join(f"- {code(name)}" for name in section.not_run)
        title = f"{many(len(section.not_run), 'planned cell')} did not run"
        yield Block(_folded(title, body), "planned cells not run", len(section.not_run))


def _history(section: History) -> Iterator[Block]:
    rows = [tuple(code(clip(text, 300)) if text else "" for text in row.texts) for row in section.rows]
    title = f"{section.title} ({len(rows):,}): {section.note}"
    yield Block(_folded(title, table(section.header, rows)), "changes of structure", len(rows))


def _known(section: view.KnownBreaks) -> Iterator[Block]:
    rows = [
        (code(group.name), code(clip(group.title, 300)), link(group.issue) if group.issue else "",
         prose(group.lasts), f"{len(group.cells):,}", prose(group.verdict), *_recorded(group), code(group.more))
        for group in section.groups
    ]  # fmt: skip
    body = table(
        ("known break", "why", "issue", "lasts", "cells", "verdict", "since", "verified", "workaround", "see more"),
        rows,
        right=(4,),
    )
    title = f"{section.title}{f': {section.note}' if section.note else ''}"
    yield Block(_folded(title, body), "known breaks", sum(len(group.cells) for group in section.groups))


def _recorded(group: Group) -> Iterator[str]:
    about = {fact.label: fact.value for fact in group.about}
    yield from (prose(clip(about.get(label, ""), 300)) for label in ("since", "verified", "workaround"))


def _aside(section: view.Aside) -> Iterator[Block]:
    rows = [(str(each.verdict), code(clip(each.title, 300)), f"{len(each.cells):,}") for each in section.unsupported]
    rows += [("left out", code(clip(reason, 300)), f"{len(names):,}") for reason, names in section.left_out]
    if section.standing:
        rows.append(("standing defects", section.standing_note, f"{len(section.standing):,}"))
    if section.fixed:
        rows.append(("fixed defects", section.fixed_note, f"{len(section.fixed):,}"))
    body = table(("", "reason", "count"), rows, right=(2,))
    yield Block(_folded(section.title, body), "rows on what was not compared", len(rows))


def _environments(section: Environments) -> Iterator[Block]:
    """One row per environment, with the packages that matter most."""
    columns = [(name, row) for name, row in section.packages if name in ("python", *FIRST_PACKAGES)]
    rows = [(code(name), *(code(row[place]) for _, row in columns)) for place, name in enumerate(section.names)]
    body = table(("environment", *(name for name, _ in columns)), rows)
    yield Block(_folded(f"{section.title}: {section.note}", body), "environments", len(rows))


def _cells(section: view.Cells) -> Iterator[Block]:
    rows = []
    for line in section.lines:
        verdict = f"{line.verdict} (known break)" if line.known else str(line.verdict)
        where = map(code, (line.scenario, line.creator, line.loader, line.place))
        rows.append((*where, prose(verdict), line.size, code(clip(line.remark, 200)) if line.remark else ""))
    header = ("scenario", "creator", "loader", "device", "verdict", "error ÷ allowance", "remark")
    body = table(header, rows, right=(5,))
    title = f"{section.title}: {section.note}"
    yield Block(_folded(title, body, opened=len(rows) <= 100), "cells in the table", len(rows))


def _notices(section: view.Notices) -> Iterator[Block]:
    texts = "\n".join(f"- {code(clip(notice, 500))}" for notice in section.texts)
    yield Block(texts, "notices", len(section.texts))


# Markup --------------------------------------------------------------------------------------------------------------


def _folded(title: str, body: str, opened: bool = False) -> str:
    return f"<details{' open' if opened else ''}><summary>{title}</summary>\n\n{body}\n\n</details>"


def _summary(title: str) -> str:
    """Untrusted text for `<summary>`, where Markdown does not apply: as code, so that nothing in it becomes a link."""
    escaped = visible(title).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"<code>{escaped}</code>"
