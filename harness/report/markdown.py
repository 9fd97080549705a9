"""A run as Markdown: a job summary, a comment on a pull request, a `report.md`; one renderer, with a size budget.

The document is a row of blocks. Those that must be there (the sentence, the causes) come first; the others are taken in
the order of their worth while they fit, and what does not fit is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.core.comparison import Against
from harness.core.errors import ExitCode
from harness.core.run import Cell, Run, exit_code_of
from harness.core.text import clip, code, fenced, link, many, prose, visible
from harness.core.versions import FIRST_PACKAGES
from harness.judge import causes
from harness.judge.causes import Cause
from harness.report import cell_facts, change_summary, grid, structure_history, summary

COMMENT_BUDGET = 20_000
"""Characters that a comment on a pull request may have, well under GitHub's own limit of 65,536."""
_NOTE_ROOM = 500
"""Characters kept free for the note that counts what was cut."""
_TITLE_WIDTHS = (300, 120, 48)
"""Characters of a cause's title in the table, tried in turn: a cause gets shorter, but it is never cut."""


@dataclass(frozen=True)
class Block:
    """A piece of the document, and what is lost without it."""

    text: str
    what: str = ""
    """Its kind in the note on what was cut; a block without one is always there."""
    count: int = 1


def render(run: Run, budget: int | None = None, verbose: bool = False) -> str:
    """The report as Markdown.

    Args:
        run: what to report.
        budget: characters that the result does not exceed, unless the causes alone do so in their shortest form.
        verbose: also the table of all cells, and a page even where all is well.
    """
    opening = f"**{summary.sentence(run).word}**: {prose(clip(summary.sentence(run).text, 1500))}."
    changed = any(comparison.change != "still" for comparison in run.comparisons)
    if exit_code_of(run) is ExitCode.CLEAN and not (verbose or changed or run.notes or run.against):
        return "\n\n".join([opening, *(block.text for block in _notices(run))]) + "\n"
    room = None if budget is None else budget - len(opening) - _NOTE_ROOM
    firm = [Block(opening), *_firm(run, room)]
    if run.against is not None:
        firm.insert(1, _about(run.against))
    return _fitted([*firm, *_details(run, verbose)], budget)


def _about(against: Against) -> Block:
    """What was held against what; always there, and short."""
    rows = [f"- {label}: {code(clip(said, 600))}" for label, said in change_summary.about(against)]
    return Block("\n".join(rows))


def _fitted(blocks: Sequence[Block], budget: int | None) -> str:
    """As many of the blocks as fit; one that does not fit leaves its room to smaller ones after it."""
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


# What is always there ------------------------------------------------------------------------------------------------


def _firm(run: Run, room: int | None) -> list[Block]:
    """The changes' counts, the causes and the expectations' problems: as detailed as fits, but all of them."""
    for width in _TITLE_WIDTHS:
        blocks = [*_cause_table(run, width), *_problems(run, width)]
        if room is None or sum(len(block.text) + 2 for block in blocks) <= room:
            break
    return blocks


def cause_rows(found: Iterable[Cause], width: int) -> list[tuple[str, ...]]:
    """A row a cause: verdict, what, creators, loaders, scenarios, cells, worst; as plain text."""
    return [
        (
            str(cause.verdict),
            clip(visible(cause.title), width),
            clip(cause.creators.ranges, width),
            clip(cause.loaders.ranges, width),
            _names(cause.scenarios, width),
            f"{len(cause.cells):,}",
            summary.size(cause.representative),
        )
        for cause in found
    ]


def _names(names: Sequence[str], width: int) -> str:
    """Names while they fit, the rest counted."""
    shown = list(names)
    while len(shown) > 1 and len(", ".join(shown)) > width:
        shown.pop()
    more = f" and {len(names) - len(shown):,} more" if len(shown) < len(names) else ""
    return clip(visible(", ".join(shown)), width) + more


def _cause_table(run: Run, width: int) -> list[Block]:
    rows = [
        (prose(verdict), code(what), prose(creators), prose(loaders), code(names), cells, worst)
        for verdict, what, creators, loaders, names, cells, worst in cause_rows(causes.unexpected(run), width)
    ]
    header = ("verdict", "cause", "creators", "loaders", "scenarios", "cells", "error ÷ allowance")
    return [Block(_table(header, rows, right=(5, 6)))] if rows else []


def _problems(run: Run, width: int) -> list[Block]:
    rows = [(prose(p.problem), code(clip(p.id, width)), code(clip(p.message, width))) for p in run.expectation_problems]
    return [Block("**Expectations to look at**\n\n" + _table(("problem", "expectation", "what"), rows))] if rows else []


# What is there while it fits -----------------------------------------------------------------------------------------


def _details(run: Run, verbose: bool) -> list[Block]:
    return [
        *_notes(run),
        *_changes(run),
        *_rectangle(run),
        *_in_full(run),
        *_structure(run),
        *_untold(run),
        *_expected(run),
        *_same_cause(run),
        *_left_out(run),
        *_environments(run),
        *_notices(run),
        *(_by_scenario(run) if verbose else []),
    ]


def _notes(run: Run) -> list[Block]:
    return [Block("\n".join(f"- {code(note)}" for note in run.notes), "notes", len(run.notes))] if run.notes else []


def _notices(run: Run) -> list[Block]:
    """What is no matter of the cells; nothing of it is folded, as it is for whoever looks after the matrix."""
    if not run.notices:
        return []
    return [Block("\n".join(f"- {code(clip(notice, 500))}" for notice in run.notices), "notices", len(run.notices))]


def _changes(run: Run) -> list[Block]:
    blocks = []
    for change, every in summary.change_rows(run).items():
        rows = [(prose(verdicts), code(cell)) for verdicts, cell in every]
        title = f"{change} ({len(every):,}): {summary.CHANGES[change]}"
        body = _table(("verdict", "cell"), rows)
        opened = change == "regressed" and len(rows) <= 20
        blocks.append(Block(_folded(title, body, opened), f"cells {change}", len(every)))
    return blocks


def _rectangle(run: Run) -> list[Block]:
    """Creators × loaders; under it what older loaders did with newer checkpoints."""
    found = grid.build(run)
    if found is None:
        return []
    rows = [(code(row.label), *(_box(box) for box in row.boxes)) for row in found.rows]
    header = ("creator \\ loader", *(code(label) for _, label in found.loaders))
    table = _table(header, rows, right=range(1, len(header)))
    blocks = [Block(f"**Creators under loaders** ({grid.LEGEND})\n\n{table}", "rows of the grid", len(rows))]
    if found.outcomes:
        body = _table(
            ("what", "how", "creators", "loaders", "scenarios", "cells", "came of it"),
            [
                (each.reading, code(clip(each.title, 200)), prose(each.creators.ranges), prose(each.loaders.ranges),
                 code(_names(each.scenarios, 200)), f"{len(each.cells):,}", prose(each.verdicts))
                for each in found.outcomes
            ],
            right=(5,),
        )  # fmt: skip
        blocks.append(Block(_folded(found.forward, body), "what older loaders did", len(found.outcomes)))
    elif found.forward:
        blocks.append(Block(f"{found.forward}.", "what older loaders did"))
    return blocks


def _box(box: grid.Box) -> str:
    text = prose(box.text)
    return f"**{text}**" if box.concerning else text


def _in_full(run: Run) -> list[Block]:
    """One cell of each cause in full."""
    blocks = []
    for cause in causes.unexpected(run):
        title = f"{cause.verdict}: {clip(visible(cause.title), 120)}"
        body = "\n".join(
            ["first: " + summary.since(cause)] * bool(summary.since(cause)) + [_plain_facts(cause.representative)]
        )
        blocks.append(Block(_folded(_summary(title), fenced(body)), "causes in full"))
    return blocks


def _structure(run: Run) -> list[Block]:
    """In which releases trainer or preparation began to make something else of a model."""
    found = structure_history.history(run)
    if found is None:
        return []
    rows = [tuple(code(clip(text, 300)) if text else "" for text in row.texts) for row in found.rows]
    title = f"{found.title} ({len(rows):,}): {found.meaning}"
    return [Block(_folded(title, _table(found.header, rows)), "changes of structure", len(rows))]


def _plain_facts(cell: Cell) -> str:
    """A cell's facts as aligned lines."""
    lines = [visible(cell.id)]
    for fact in cell_facts.facts(cell):
        value = clip(fact.value, 1000)
        parts = value.split("\n") if fact.tone == "block" else [visible(value)]
        lines += [f"  {fact.label if place == 0 else '':<14}{part}" for place, part in enumerate(parts)]
    return "\n".join(lines)


def _untold(run: Run) -> list[Block]:
    found = causes.untold(run)
    rows = [
        (prose(c.verdict), code(clip(c.title, 300)), prose(clip(summary.reach(c, 3), 300)), f"{len(c.cells):,}")
        for c in found
    ]
    blocks = []
    if rows:
        body = _table(("verdict", "reason", "where", "cells"), rows, right=(3,))
        count = sum(len(cause.cells) for cause in found)
        blocks.append(
            Block(_folded(f"{many(count, 'cell')} could not be judged", body, opened=True), "cells not judged", count)
        )
    if run.not_run:
        body = "\n".join(f"- {code(name)}" for name in run.not_run)
        title = f"{many(len(run.not_run), 'planned cell')} did not run"
        blocks.append(Block(_folded(title, body), "planned cells not run", len(run.not_run)))
    return blocks


def _expected(run: Run) -> list[Block]:
    found = causes.expected(run)
    if not found:
        return []
    rows = [_expected_row(cause) for cause in found]
    count = sum(len(cause.cells) for cause in found)
    body = _table(("expectation", "why", "issue", "until", "cells"), rows, right=(4,))
    title = many(count, "expected deviation") if run.against is None else f"{many(count, 'deviation')} on both sides"
    return [Block(_folded(title, body), "expected deviations", count)]


def _expected_row(cause: Cause) -> tuple[str, ...]:
    known = cause.details
    issue, until = link(known["issue"]) if known["issue"] else "", prose(known["expires"])
    return (code(known["id"]), code(clip(known["reason"], 300)), issue, until, f"{len(cause.cells):,}")


def _same_cause(run: Run) -> list[Block]:
    """The cells that share a cause with the one that is shown in full."""
    blocks = []
    for cause in causes.unexpected(run):
        rest = summary.others(cause)
        if rest:
            rows = [(code(cell.id), size, code(cell.reproduce)) for cell, size in rest]
            title = f"the other {many(len(rest), 'cell')} of {clip(visible(cause.title), 120)}"
            body = _table(("cell", "error ÷ allowance", "reproduce"), rows, right=(1,))
            blocks.append(Block(_folded(_summary(title), body), "cells of the same causes", len(rest)))
    return blocks


def _left_out(run: Run) -> list[Block]:
    rows = [("unsupported", code(clip(c.title, 300)), f"{len(c.cells):,}") for c in causes.unsupported(run)]
    reasons: dict[str, int] = {}
    for reason in run.left_out.values():
        reasons[reason] = reasons.get(reason, 0) + 1
    rows += [("left out", code(clip(reason, 300)), f"{count:,}") for reason, count in reasons.items()]
    standing = summary.standing(run)
    if standing:
        rows.append(("standing", "defects that the creator's own library has too", f"{len(standing):,}"))
    if not rows:
        return []
    table = _table(("", "reason", "count"), rows, right=(2,))
    return [
        Block(_folded("Also: not supported, left out, standing", table), "rows of what is not supported", len(rows))
    ]


def _environments(run: Run) -> list[Block]:
    """The first packages of all environments side by side; the installer's words for one that failed."""
    if not run.environments:
        return []
    names = [name for name in FIRST_PACKAGES if any(name in e.versions for e in run.environments)]
    header = ("environment", "python", *names)
    rows = [
        (code(e.name), code(e.python or "–"), *(code(e.versions.get(name, "–")) for name in names))
        for e in run.environments
    ]
    failed = [f"{code(e.name)} failed:\n\n{fenced(clip(e.failed, 2000))}" for e in run.environments if e.failed]
    return [Block(_folded("Environments", "\n\n".join([_table(header, rows), *failed])), "environments", len(rows))]


def _by_scenario(run: Run) -> list[Block]:
    """Every cell: scenarios as rows, in a line each."""
    rows = []
    for cell in run.cells:
        verdict = f"{cell.verdict} (expected)" if cell.expected else str(cell.verdict)
        where = tuple(map(code, (cell.scenario, cell.creator, cell.loader, cell.place)))
        remark = summary.remark(cell)
        rows.append((*where, prose(verdict), summary.size(cell), code(clip(remark, 200)) if remark else ""))
    if not rows:
        return []
    header = ("scenario", "creator", "loader", "device", "verdict", "error ÷ allowance", "remark")
    title = f"All {many(len(rows), 'cell')}: {summary.by_verdict(run.cells)}"
    return [
        Block(
            _folded(title, _table(header, rows, right=(5,)), opened=len(rows) <= 100), "cells in the table", len(rows)
        )
    ]


# Markup --------------------------------------------------------------------------------------------------------------


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A table of cells that are escaped already."""
    ruler = ["--:" if place in right else "---" for place in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ruler, *rows])


def _folded(title: str, body: str, opened: bool = False) -> str:
    return f"<details{' open' if opened else ''}><summary>{title}</summary>\n\n{body}\n\n</details>"


def _summary(title: str) -> str:
    """Untrusted text for `<summary>`, where Markdown does not reach; as code, so that nothing in it becomes a link."""
    escaped = visible(title).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"<code>{escaped}</code>"
