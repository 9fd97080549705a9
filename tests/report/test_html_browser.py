"""The HTML page in a real headless Chromium: what a reader does with it, and that nothing leaves it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.core.run import Run
from harness.report.html import render
from tests.support import samples
from tests.support.browser import Browser, Page, running

ALPHA = "lokr-alpha@v061:current[cpu]"
HITS = "[...document.querySelectorAll('.panel.on td[data-c]:not(.dim)')].map((td) => idOf(Number(td.dataset.c)))"
SHOWN = "!document.getElementById('drawer').hidden"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running() as started:
        yield started


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of which nobody complains, and which asks for nothing but itself."""
    page = browser.page(width=1280, height=900)
    yield page
    assert page.complaints() == []
    assert all(address.startswith(("file:///", "data:,")) for address in page.requests()), page.requests()
    page.close()


def written(run: Run, folder: Path) -> str:
    """The address of a run's page."""
    path = folder / f"report-{len(list(folder.iterdir()))}.html"
    path.write_bytes(render.render(run))
    return path.as_uri()


def square(page: Page, cell: str) -> str:
    """A selector of a cell's square."""
    number = page.run(f"[...Array(total).keys()].find((index) => idOf(index) === {cell!r})")
    return f'.panel td[data-c="{number}"]'


def test_a_chip_filters_and_says_so(page: Page, tmp_path: Path) -> None:
    page.open(written(samples.regressed(), tmp_path))
    assert page.text("#count") == "11 cells"
    page.click('.chip[data-query="verdict:load-error"]')
    assert page.text("#count") == "1 of 11 cells"
    assert page.run(HITS) == ["adalora-gpt2@v061:current[cpu]"]
    assert page.run("[...document.querySelectorAll('.chip[aria-pressed=true]')].length") == 1
    assert page.run("location.hash") == "#q=verdict%3Aload-error"
    page.click('.chip[data-query="verdict:load-error"]')
    assert page.text("#count") == "11 cells"
    assert page.run("location.hash") == ""


QUERIES = [
    ("", 11),
    ("lokr", 4),
    ("LOKR-alpha", 1),
    ("family:lokr", 4),
    ("family:lokr verdict:silent-wrong -is:expected", 3),
    ("verdict:silent-wrong,load-error", 6),
    ("is:bad", 5),
    ("is:expected", 1),
    ("is:untold", 1),
    ("is:clean", 3),
    ("creator:v061", 11),
    ("creator:0.6", 11),
    ("creator:v07", 0),
    ("peft<0.7", 11),
    ("peft<0.6.1", 0),
    ("peft>=0.6.1 loader.peft>0.9", 11),
    ("loader.peft>=0.21.3", 0),
    ("nothing<1", 0),
    ("ratio>1000", 4),
    ("ratio<=31 ratio>1", 1),
    ("cause:2", 1),
    ('"size mismatch"', 1),
    ("size nonsense", 0),
    ("device:cpu loader:current", 11),
    ("scenario:lora-b", 1),
    ("( [ \\ *", 0),
]


@pytest.mark.parametrize(("query", "count"), QUERIES)
def test_queries(query: str, count: int, searched: Page) -> None:
    assert searched.run(f"(select({query!r}) ?? new Uint8Array(total).fill(1)).reduce((a, b) => a + b, 0)") == count


@pytest.fixture(scope="module")
def searched(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    page = browser.page()
    page.open(written(samples.regressed(), tmp_path_factory.mktemp("page")))
    yield page
    page.close()


VERSIONS = [("0.6.1", "0.7", -1), ("0.10.0", "0.9", 1), ("1.0", "1.0.0", 0), ("1.0.dev0", "1.0", -1),
            ("1.0rc1", "1.0", -1), ("2.13.0+cpu", "2.13", 0), ("1.0.post1", "1.0", 1), ("1.21", "1.3", 1)]  # fmt: skip


@pytest.mark.parametrize(("left", "right", "order"), VERSIONS)
def test_versions_are_ordered_as_releases(left: str, right: str, order: int, searched: Page) -> None:
    assert searched.run(f"Math.sign(versions({left!r}, {right!r}))") == order
    assert searched.run(f"Math.sign(versions({right!r}, {left!r}))") == -order


def test_typing_searches(page: Page, tmp_path: Path) -> None:
    page.open(written(samples.regressed(), tmp_path))
    page.click("#query")
    page.type("lokr-alpha")
    page.until("document.getElementById('count').textContent === '1 of 11 cells'")
    assert page.run(HITS) == [ALPHA]
    assert page.run("[...document.querySelectorAll('.panel.on .group')].filter((g) => g.offsetParent).length") == 1


def test_hovering_gives_four_lines(page: Page, tmp_path: Path) -> None:
    page.open(written(samples.regressed(), tmp_path))
    page.hover(square(page, ALPHA))
    assert page.until("[...document.querySelectorAll('#tip div')].map((line) => line.textContent)") == [
        "S silent-wrong · lokr-alpha",
        "made by 0.6.1 (v061), loaded by 0.21.2 (current) on cpu",
        "lokr · forward: values differ",
        "error 1.9e+06× its allowance",
    ]
    page.hover("h1")
    page.until("document.getElementById('tip').hidden")


def test_the_drawer_opens_and_closes_with_the_mouse(page: Page, tmp_path: Path) -> None:
    page.open(written(samples.regressed(), tmp_path))
    page.click(square(page, ALPHA))
    text = page.text("#drawer")
    for wanted in (
        "lokr-alpha", "silent-wrong", "the output differs", "-0.41250001", "0.37873455", "1.9e+06×",
        "allowance 4.10e-07", "model.layers.0.self_attn.q_proj", "8 of 8 tensors arrived", "Unsupported layer type",
        "transformers", "peft-regress check --creator v061 --loader current -k lokr-alpha",
        "2 other cells share this cause",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert page.run("document.querySelector('.layers tr.first .name').textContent") == "model.layers.0.self_attn.q_proj"
    assert page.run("document.querySelectorAll('#drawer svg rect.over').length") > 0
    page.click("#close")
    assert not page.run(SHOWN)
    assert page.run("document.getElementById('drawer').textContent") == ""


def test_the_map_is_walked_with_the_keyboard(page: Page, tmp_path: Path) -> None:
    page.open(written(samples.across_releases(), tmp_path))
    assert page.run("document.querySelectorAll('td[tabindex=\"0\"]').length") == 1
    page.run("document.querySelector('td[tabindex=\"0\"]').focus()")
    page.press("ArrowRight")
    assert page.run("idOf(Number(document.activeElement.dataset.c))") == "lokr-alpha@v090:current[cpu]"
    assert "made by 0.9.0 (v090)" in page.run("document.activeElement.getAttribute('aria-label')")
    page.press("Enter")
    assert page.run(SHOWN)
    assert page.run("document.activeElement.id") == "drawer-title"
    page.press("Escape")
    assert not page.run(SHOWN)
    assert page.run("idOf(Number(document.activeElement.dataset.c))") == "lokr-alpha@v090:current[cpu]"


def test_arrows_go_from_family_to_family(page: Page, tmp_path: Path) -> None:
    page.open(written(samples.green(), tmp_path))
    page.run("document.querySelector('td[tabindex=\"0\"]').focus()")
    seen = []
    for _ in range(4):
        seen.append(page.run("idOf(Number(document.activeElement.dataset.c)).split('@')[0]"))
        page.press("ArrowDown")
    assert seen == ["ia3-llama", "loha-llama", "lora-llama", "lora-opt"]


def test_the_address_is_a_permalink(page: Page, tmp_path: Path) -> None:
    address = written(samples.regressed(), tmp_path)
    page.open(address)
    page.click(square(page, ALPHA))
    assert page.run("location.hash") == f"#{ALPHA}"
    page.open("about:blank")
    page.open(f"{address}#{ALPHA}")
    assert page.text("#drawer-title").endswith("lokr-alpha")
    page.run("location.hash = '#q=family%3Alokr&cell=lokr-both%40v061:current[cpu]'")
    page.until("document.getElementById('drawer-title').textContent === 'Slokr-both'")
    assert page.text("#count") == "4 of 11 cells"
    page.run("location.hash = '#no-such-cell'")
    page.until("document.getElementById('said').textContent === 'this report has no cell no-such-cell'")


def test_a_permalink_chooses_the_tab(page: Page, tmp_path: Path) -> None:
    page.open(f"{written(samples.across_releases(), tmp_path)}#lokr-alpha@v061:v0200[cpu]")
    assert page.text("[role=tab][aria-selected=true]") == "v0200 0.20.0 1"
    assert page.run("document.querySelector('.panel.on').dataset.panel") == "0"


def test_one_tab_for_each_loader(page: Page, tmp_path: Path) -> None:
    page.open(written(samples.across_releases(), tmp_path))
    assert page.text("[role=tab][aria-selected=true]") == "current 0.21.2 3"
    page.click("#tab-0")
    assert page.run("[...document.querySelectorAll('.panel')].map((panel) => !panel.offsetParent)") == [False, True]
    page.press("ArrowRight")
    assert page.run("document.activeElement.id") == "tab-1"
    page.click('.chip[data-query="verdict:silent-wrong"]')
    assert len(page.run(HITS)) == 3
    page.click("#tab-0")
    assert page.run(HITS) == ["lokr-alpha@v061:v0200[cpu]"]


def test_cells_in_lists_lead_to_the_drawer_and_causes_to_the_map(page: Page, tmp_path: Path) -> None:
    page.open(written(samples.against_baseline(), tmp_path))
    page.click("#baseline a.cell")
    assert page.text("#drawer-title").endswith("lokr-alpha")
    page.press("Escape")
    page.click("#cause-1 button.link")
    assert page.run("document.getElementById('query').value") == "cause:1"
    assert len(page.run(HITS)) == 3
    page.click(".top li:nth-child(3) a")
    assert page.run("document.getElementById('cause-3').open")


def test_every_cell_of_every_kind_opens(page: Page, tmp_path: Path) -> None:
    page.open(written(samples.every_verdict(), tmp_path))
    total = page.run("total")
    for index in range(total):
        assert page.run(f"openCell({index}); document.getElementById('drawer-title').textContent")
        assert page.run(f"issueText({index}, detailOf({index}))")


def test_the_text_for_an_issue_can_be_pasted(page: Page, tmp_path: Path) -> None:
    page.open(written(samples.regressed(), tmp_path))
    text = page.run("issueText(2, detailOf(2))")
    assert text.startswith("An adapter saved with PEFT 0.6.1 does not behave the same under PEFT 0.21.2.")
    for wanted in ("golden -0.41250001, now 0.37873455 at [0, 3, 17]", "transformers       4.35.2", "peft-regress"):
        assert wanted in text
    assert page.run("issueText(6, detailOf(6))").count("RuntimeError: size mismatch") >= 2


@pytest.mark.parametrize("text", samples.HOSTILE)
def test_hostile_text_does_nothing_in_the_page_or_the_drawer(page: Page, tmp_path: Path, text: str) -> None:
    page.open(written(samples.hostile(text), tmp_path))
    before = page.run("document.querySelectorAll('script, img, iframe').length")
    for index in range(page.run("total")):
        page.run(f"openCell({index})")
        page.run(f"showTip(document.querySelector('td[data-c=\"{index}\"]'))")
        assert page.run("[...document.querySelectorAll('a')].every((a) => /^(#|https:)/.test(a.getAttribute('href')))")
    assert page.run("document.querySelectorAll('script, img, iframe').length") == before
    assert page.run("/[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u202e]/.test(document.body.innerText)") is False
    fences = page.run("[...Array(total).keys()].map((index) => issueText(index, detailOf(index)))")
    for said in fences:
        assert "<script>" not in said.split("```", 1)[0]


def test_nothing_can_be_fetched_from_the_page(browser: Browser, tmp_path: Path) -> None:
    page = browser.page()
    page.open(written(samples.green(), tmp_path))
    blocked = "fetch('https://example.org/').then(() => 'sent', () => 'blocked')"
    assert page.run(blocked) == "blocked"
    page.run("document.body.append(Object.assign(new Image(), {src: 'https://example.org/x.png'}))")
    page.run("document.body.insertAdjacentHTML('beforeend', '<b id=x onclick=\"window.hit = 1\">x</b>'); x.click()")
    assert page.run("window.hit") is None
    assert any("Content Security Policy" in said for said in page.complaints())
    page.close()


def test_without_script_the_page_is_read(browser: Browser, tmp_path: Path) -> None:
    page = browser.page(width=1280, height=900)
    page.without_script()
    page.open(written(samples.across_releases(), tmp_path))
    page.browser.pump(0.1)
    tree = page.send("DOM.getDocument", depth=1)["root"]["nodeId"]
    shown = [
        page.send("DOM.getBoxModel", nodeId=node)["model"]["height"]
        for node in page.send("DOM.querySelectorAll", nodeId=tree, selector=".panel")["nodeIds"]
    ]
    assert len(shown) == 2
    assert min(shown) > 20
    page.close()


def test_a_narrow_screen_does_not_scroll_sideways(page: Page, tmp_path: Path) -> None:
    page.resize(400, 800)
    for run in (samples.every_verdict(), samples.across_releases()):
        page.open(f"{written(run, tmp_path)}#{run.cells[0].id}")
        assert page.run("document.documentElement.scrollWidth") == 400
        assert page.run("document.getElementById('drawer').offsetLeft") == 0


def test_it_prints_in_dark_and_light(page: Page, tmp_path: Path) -> None:
    page.open(written(samples.every_verdict(), tmp_path))
    papers = []
    for scheme in ("light", "dark"):
        page.scheme(scheme)
        papers.append(page.run("getComputedStyle(document.body).backgroundColor"))
    assert papers == ["rgb(255, 255, 255)", "rgb(22, 23, 24)"]
    page.pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def test_20_000_cells_open(page: Page, tmp_path: Path) -> None:
    creators = [f"v{n}" for n in range(20)]
    environments = [samples.environment(name, f"0.{n}.0") for n, name in enumerate(creators)]
    makers = (samples.exact, samples.close, samples.wrong)
    cells = [makers[n % 3](f"s{n // 20}", creator=creators[n % 20], family=f"f{n // 2000}") for n in range(20_000)]
    page.open(written(samples.run(*cells, environments=(*environments, samples.CURRENT)), tmp_path))
    assert page.text("#count") == "20,000 cells"
    page.run("document.getElementById('query').value = 'peft<0.5 ratio>1'; applyQuery()")
    assert page.text("#count") == "1,666 of 20,000 cells"
    page.run("openCell(19999)")
    assert page.text("#drawer-title").endswith("s999")


def test_where_there_is_no_browser_the_tests_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support import browser

    monkeypatch.setattr(browser, "find", lambda: "")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        browser.ensure_browser()
    monkeypatch.setenv("CI", "1")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(pytest.fail.Exception, match="no Chromium in CI"):
        browser.ensure_browser()
