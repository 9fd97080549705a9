"""The HTML page in a real headless Chromium: what a reader does with it, and that nothing leaves it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from harness.core.run import Run
from harness.report.html import render
from tests.support import browser as browser_support
from tests.support import samples
from tests.support.browser import Watched, running

ALPHA = "lokr-alpha@v061:current[cpu]"
READ = "Promise.all([...Array(total).keys()].map(async (index) => issueText(index, await detailOf(index))))"
HITS = "[...document.querySelectorAll('.panel.on td[data-c]:not(.dim)')].map((td) => idOf(Number(td.dataset.c)))"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running() as started:
        yield started


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that must not complain, and must request nothing but itself."""
    watched = Watched(browser.new_page(viewport={"width": 1280, "height": 900}))
    yield watched.page
    assert watched.complaints == []
    assert all(address.startswith(("file:///", "data:,")) for address in watched.requests), watched.requests
    watched.page.close()


def written(run: Run, folder: Path) -> str:
    """The address of a run's page."""
    path = folder / f"report-{len(list(folder.iterdir()))}.html"
    path.write_bytes(render.render(run))
    return path.as_uri()


def square(page: Page, cell: str) -> str:
    """A selector of a cell's square."""
    number = page.evaluate("(wanted) => [...Array(total).keys()].find((index) => idOf(index) === wanted)", cell)
    return f'.panel td[data-c="{number}"]'


def test_a_chip_filters_and_says_so(page: Page, tmp_path: Path) -> None:
    page.goto(written(samples.regressed(), tmp_path))
    assert page.inner_text("#count") == "11 cells"
    page.click('.chip[data-query="verdict:load-error"]')
    assert page.inner_text("#count") == "1 of 11 cells"
    assert page.evaluate(HITS) == ["adalora-gpt2@v061:current[cpu]"]
    assert page.evaluate("[...document.querySelectorAll('.chip[aria-pressed=true]')].length") == 1
    assert page.evaluate("location.hash") == "#q=verdict%3Aload-error"
    page.click('.chip[data-query="verdict:load-error"]')
    assert page.inner_text("#count") == "11 cells"
    assert page.evaluate("location.hash") == ""


QUERIES = [
    ("", 11),
    ("lokr", 4),
    ("LOKR-alpha", 1),
    ("family:lokr", 4),
    ("family:lokr verdict:silent-wrong -is:expected", 3),
    ("verdict:silent-wrong,load-error", 6),
    ("is:bad", 5),
    ("is:expected", 1),
    ("is:known", 1),
    ("is:undetermined", 1),
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
    chosen = searched.evaluate("(query) => { const found = select(query); return found && [...found]; }", query)
    assert (sum(chosen) if query else searched.evaluate("total")) == count


@pytest.fixture(scope="module")
def searched(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    page = browser.new_page()
    page.goto(written(samples.regressed(), tmp_path_factory.mktemp("page")))
    yield page
    page.close()


VERSIONS = [("0.6.1", "0.7", -1), ("0.10.0", "0.9", 1), ("1.0", "1.0.0", 0), ("1.0.dev0", "1.0", -1),
            ("1.0rc1", "1.0", -1), ("2.13.0+cpu", "2.13", 0), ("1.0.post1", "1.0", 1), ("1.21", "1.3", 1)]  # fmt: skip


@pytest.mark.parametrize(("left", "right", "order"), VERSIONS)
def test_versions_are_ordered_as_releases(left: str, right: str, order: int, searched: Page) -> None:
    assert searched.evaluate(f"Math.sign(versions({left!r}, {right!r}))") == order
    assert searched.evaluate(f"Math.sign(versions({right!r}, {left!r}))") == -order


def test_typing_searches(page: Page, tmp_path: Path) -> None:
    page.goto(written(samples.regressed(), tmp_path))
    page.click("#query")
    page.keyboard.type("lokr-alpha")
    expect(page.locator("#count")).to_have_text("1 of 11 cells")
    assert page.evaluate(HITS) == [ALPHA]
    assert page.evaluate("[...document.querySelectorAll('.panel.on .group')].filter((g) => g.offsetParent).length") == 1


def test_hovering_gives_four_lines(page: Page, tmp_path: Path) -> None:
    page.goto(written(samples.regressed(), tmp_path))
    page.hover(square(page, ALPHA))
    assert page.locator("#tip div").all_text_contents() == [
        "S silent-wrong · lokr-alpha",
        "saved by 0.6.1 (v061), loaded by 0.21.2 (current) on cpu",
        "lokr · forward: values differ",
        "error 1.9e+06× its allowance",
    ]
    page.hover("h1")
    expect(page.locator("#tip")).to_be_hidden()


def test_the_drawer_opens_and_closes_with_the_mouse(page: Page, tmp_path: Path) -> None:
    page.goto(written(samples.regressed(), tmp_path))
    page.click(square(page, ALPHA))
    expect(page.locator("#drawer-title")).to_be_visible()
    text = page.inner_text("#drawer")
    for wanted in (
        "lokr-alpha", "silent-wrong", "the output differs", "-0.41250001", "0.37873455", "1.9e+06×",
        "allowance 4.10e-07", "model.layers.0.self_attn.q_proj", "8 of 8 tensors arrived", "Unsupported layer type",
        "transformers", "peft-regress check --creator v061 --loader current -k lokr-alpha",
        "2 other cells share this cause",
    ):  # fmt: skip
        assert wanted in text, wanted
    expect(page.locator(".layers tr.first .name")).to_have_text("model.layers.0.self_attn.q_proj")
    assert page.locator("#drawer svg rect.over").count() > 0
    page.click("#close")
    expect(page.locator("#drawer")).to_be_hidden()
    expect(page.locator("#drawer")).to_be_empty()


def test_the_map_is_walked_with_the_keyboard(page: Page, tmp_path: Path) -> None:
    page.goto(written(samples.across_releases(), tmp_path))
    assert page.evaluate("document.querySelectorAll('td[tabindex=\"0\"]').length") == 1
    page.evaluate("document.querySelector('td[tabindex=\"0\"]').focus()")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("idOf(Number(document.activeElement.dataset.c))") == "lokr-alpha@v090:current[cpu]"
    assert "saved by 0.9.0 (v090)" in page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("Enter")
    expect(page.locator("#drawer-title")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#drawer")).to_be_hidden()
    assert page.evaluate("idOf(Number(document.activeElement.dataset.c))") == "lokr-alpha@v090:current[cpu]"


def test_arrows_go_from_family_to_family(page: Page, tmp_path: Path) -> None:
    page.goto(written(samples.green(), tmp_path))
    page.evaluate("document.querySelector('td[tabindex=\"0\"]').focus()")
    seen = []
    for _ in range(4):
        seen.append(page.evaluate("idOf(Number(document.activeElement.dataset.c)).split('@')[0]"))
        page.keyboard.press("ArrowDown")
    assert seen == ["ia3-llama", "loha-llama", "lora-llama", "lora-opt"]


def test_the_address_is_a_permalink(page: Page, tmp_path: Path) -> None:
    address = written(samples.regressed(), tmp_path)
    page.goto(address)
    page.click(square(page, ALPHA))
    assert page.evaluate("location.hash") == f"#{ALPHA}"
    page.goto("about:blank")
    page.goto(f"{address}#{ALPHA}")
    assert page.inner_text("#drawer-title").endswith("lokr-alpha")
    page.evaluate("location.hash = '#q=family%3Alokr&cell=lokr-both%40v061:current[cpu]'")
    expect(page.locator("#drawer-title")).to_have_text("Slokr-both")
    assert page.inner_text("#count") == "4 of 11 cells"
    page.evaluate("location.hash = '#no-such-cell'")
    expect(page.locator("#said")).to_have_text("this report has no cell no-such-cell")


def test_a_permalink_shows_the_cell_on_the_map(page: Page, tmp_path: Path) -> None:
    run = samples.run(*(samples.exact(f"{family}-{n:02}") for family in ("ia3", "lokr", "lora") for n in range(25)))
    page.goto(f"{written(run, tmp_path)}#{run.cells[-1].id}")
    expect(page.locator("#drawer-title")).to_be_visible()
    expect(page.locator("td.at")).to_be_in_viewport()


def test_a_permalink_chooses_the_tab(page: Page, tmp_path: Path) -> None:
    page.goto(f"{written(samples.across_releases(), tmp_path)}#lokr-alpha@v061:v0200[cpu]")
    assert page.inner_text("[role=tab][aria-selected=true]") == "v0200 0.20.0 1"
    assert page.evaluate("document.querySelector('.panel.on').dataset.panel") == "0"


def test_one_tab_for_each_loader(page: Page, tmp_path: Path) -> None:
    page.goto(written(samples.across_releases(), tmp_path))
    assert page.inner_text("[role=tab][aria-selected=true]") == "current 0.21.2 3"
    page.click("#tab-0")
    assert [panel.is_visible() for panel in page.locator(".panel").all()] == [True, False]
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-1"
    page.click('.chip[data-query="verdict:silent-wrong"]')
    assert len(page.evaluate(HITS)) == 3
    page.click("#tab-0")
    assert page.evaluate(HITS) == ["lokr-alpha@v061:v0200[cpu]"]


def test_cells_in_lists_lead_to_the_drawer_and_causes_to_the_map(page: Page, tmp_path: Path) -> None:
    page.goto(written(samples.against_baseline(), tmp_path))
    page.click("#baseline a.cell")
    assert page.inner_text("#drawer-title").endswith("lokr-alpha")
    page.keyboard.press("Escape")
    page.click("#cause-1 button.link")
    assert page.evaluate("document.getElementById('query').value") == "cause:1"
    assert len(page.evaluate(HITS)) == 3
    page.click(".top li:nth-child(3) a")
    assert page.evaluate("document.getElementById('cause-3').open")


def test_every_cell_of_every_kind_opens(page: Page, tmp_path: Path) -> None:
    page.goto(written(samples.every_verdict(), tmp_path))
    for index in range(page.evaluate("total")):
        page.evaluate("(index) => openCell(index)", index)
        assert page.inner_text("#drawer-title")
    assert all(page.evaluate(READ))


def test_a_browser_that_cannot_unpack_says_so(browser: Browser, tmp_path: Path) -> None:
    page = browser.new_page()
    page.add_init_script("delete window.DecompressionStream")
    page.goto(written(samples.regressed(), tmp_path))
    assert page.inner_text("#count") == "11 cells"
    page.click(square(page, ALPHA))
    assert "no DecompressionStream" in page.inner_text("#drawer > .bad")
    assert page.inner_text("#drawer-title").endswith("lokr-alpha")
    page.close()


def test_the_text_for_an_issue_can_be_pasted(page: Page, tmp_path: Path) -> None:
    page.goto(written(samples.regressed(), tmp_path))
    texts = page.evaluate(READ)
    text = texts[2]
    assert text.startswith("An adapter saved with PEFT 0.6.1 does not behave the same under PEFT 0.21.2.")
    for wanted in ("golden -0.41250001, now 0.37873455 at [0, 3, 17]", "transformers       4.35.2", "peft-regress"):
        assert wanted in text
    assert texts[6].count("RuntimeError: size mismatch") >= 2


@pytest.mark.parametrize("text", samples.HOSTILE)
def test_hostile_text_does_nothing_in_the_page_or_the_drawer(page: Page, tmp_path: Path, text: str) -> None:
    page.goto(written(samples.hostile(text), tmp_path))
    before = page.evaluate("document.querySelectorAll('script, img, iframe').length")
    for index in range(page.evaluate("total")):
        page.evaluate("(index) => openCell(index)", index)
        page.evaluate(f"showTip(document.querySelector('td[data-c=\"{index}\"]'))")
        assert page.locator("a:not([href^='#'], [href^='https:'])").count() == 0
    assert page.evaluate("document.querySelectorAll('script, img, iframe').length") == before
    assert (
        page.evaluate("/[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u202e]/.test(document.body.innerText)") is False
    )
    for said in page.evaluate(READ):
        assert "<script>" not in said.split("```", 1)[0]


def test_nothing_can_be_fetched_from_the_page(browser: Browser, tmp_path: Path) -> None:
    watched = Watched(browser.new_page())
    page = watched.page
    page.goto(written(samples.green(), tmp_path))
    assert page.evaluate("fetch('https://example.org/').then(() => 'sent', () => 'blocked')") == "blocked"
    page.evaluate("document.body.append(Object.assign(new Image(), {src: 'https://example.org/x.png'}))")
    page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<b id=x onclick=\"window.hit = 1\">x</b>'); x.click()"
    )
    assert page.evaluate("window.hit") is None
    assert any("Content Security Policy" in said for said in watched.complaints)
    page.close()


def test_the_page_is_readable_without_script(browser: Browser, tmp_path: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(written(samples.across_releases(), tmp_path))
    boxes = [panel.bounding_box() for panel in page.locator(".panel").all()]
    assert [box is not None and box["height"] > 20 for box in boxes] == [True, True]
    context.close()


def test_a_narrow_screen_does_not_scroll_sideways(page: Page, tmp_path: Path) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    for run in (samples.every_verdict(), samples.across_releases()):
        page.goto(f"{written(run, tmp_path)}#{run.cells[0].id}")
        expect(page.locator("#drawer-title")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == 400
        assert page.evaluate("document.getElementById('drawer').offsetLeft") == 0


def test_it_prints_in_dark_and_light(page: Page, tmp_path: Path) -> None:
    page.goto(written(samples.every_verdict(), tmp_path))
    papers = []
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme)
        papers.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert papers == ["rgb(255, 255, 255)", "rgb(22, 23, 24)"]
    page.pdf(path=tmp_path / "report.pdf", print_background=True)
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def test_20_000_cells_open(page: Page, tmp_path: Path) -> None:
    creators = [f"v{n}" for n in range(20)]
    environments = [samples.environment(name, f"0.{n}.0") for n, name in enumerate(creators)]
    makers = (samples.exact, samples.close, samples.wrong)
    cells = [makers[n % 3](f"s{n // 20}", creator=creators[n % 20], family=f"f{n // 2000}") for n in range(20_000)]
    page.goto(written(samples.run(*cells, environments=(*environments, samples.CURRENT)), tmp_path))
    assert page.inner_text("#count") == "20,000 cells"
    page.evaluate("document.getElementById('query').value = 'peft<0.5 ratio>1'; applyQuery()")
    assert page.inner_text("#count") == "1,666 of 20,000 cells"
    page.evaluate("openCell(19_999)")
    assert page.inner_text("#drawer-title").endswith("s999")


def test_without_a_browser_the_tests_skip_here_and_fail_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser_support, "find", lambda: "")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        browser_support.ensure_browser()
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        browser_support.ensure_browser()
