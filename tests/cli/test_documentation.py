"""The documentation's commands exist, its tested output is what the commands print, and every command has a page."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from harness.cli.main import parser
from tests.support.console_blocks import Block, blocks, pages, shown
from tests.support.mini.world import REPOSITORY

BLOCKS = [block for page in pages() for block in blocks(page)]
TESTED = [block for block in BLOCKS if block.tested]


def test_every_command_in_the_pages_exists() -> None:
    wrong = [(str(block.page), words) for block in BLOCKS for words in block.commands if not _parses(words)]
    assert wrong == []


def _parses(words: list[str]) -> bool:
    try:
        parser().parse_args(words)
    except SystemExit as end:
        return end.code == 0  # --help
    return True


def test_a_command_that_does_not_exist_is_found() -> None:
    block = Block(Path("x.md"), "$ peft-regress chek --all   # typo\npeft-regress check --loader …\n", tested=False)
    assert [_parses(words) for words in block.commands] == [False]


@pytest.mark.parametrize("block", TESTED, ids=[f"{one.page.stem}-{one.body.split(chr(10))[0]}" for one in TESTED])
def test_tested_output_is_what_the_command_prints(block: Block) -> None:
    assert shown(block) == block.body, "`python -m tests.support.console_blocks` writes it anew"


def test_every_command_has_a_page() -> None:
    folder = REPOSITORY / "docs" / "commands"
    (subcommands,) = (one for one in parser()._actions if isinstance(one, argparse._SubParsersAction))
    assert {path.stem for path in folder.glob("*.md")} - {"index"} == set(subcommands.choices)
    index = (folder / "index.md").read_text(encoding="utf-8")
    assert [name for name in subcommands.choices if f"({name}.md)" not in index] == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_no_link_is_dead(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if not _leads_somewhere(page, link)] == []


def _leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = page if not path else page.parent / path
    if not anchor or not target.is_file():
        return target.exists()
    titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
    return anchor in {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").split()) <= 900


HAND_WRITTEN = [page for page in pages() if not page.read_text(encoding="utf-8").startswith("<!-- Generated")]


@pytest.mark.parametrize("page", HAND_WRITTEN, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_named_file_of_the_code_exists(page: Path) -> None:
    named = set(re.findall(r"\b(?:harness|tests|benchmarks)/[\w./*-]*\w", page.read_text(encoding="utf-8")))
    assert sorted(path for path in named if not any(REPOSITORY.glob(path))) == []


def test_every_page_is_in_the_navigation_or_in_an_index() -> None:
    """Pages of known breaks and issue texts are listed in their folder's index; templates are no pages."""
    docs = REPOSITORY / "docs"
    navigation = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    missing = []
    for path in docs.rglob("*.md"):
        index = path.parent / "index.md"
        listed = index.read_text(encoding="utf-8") if path.parent != docs and index.is_file() else ""
        if str(path.relative_to(docs)) not in navigation and f"({path.name})" not in listed:
            missing.append(path.name)
    assert missing == ["checking-a-pr.template.md"]


def test_the_page_on_pull_requests_is_its_template_with_measured_output() -> None:
    """Text that is added to the page alone would be lost when the example is run again."""
    page = (REPOSITORY / "docs" / "checking-a-pr.md").read_text(encoding="utf-8")
    template = (REPOSITORY / "docs" / "checking-a-pr.template.md").read_text(encoding="utf-8")
    pattern = ".+?".join(re.escape(part) for part in re.split(r"@@[A-Z_]+@@", template))
    assert re.fullmatch(pattern, page, re.DOTALL)
