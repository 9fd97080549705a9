"""The HTML page: its map, its data, its markup, and that no text can leave its place."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from harness.core.run import Run
from harness.report.html import data as html_data
from harness.report.html import heat_map, render
from harness.report.html import page as html_page
from harness.report.view import Cells
from tests.support import samples


class Markup(HTMLParser):
    """The elements of a page, its texts and its scripts."""

    def __init__(self, page: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: dict[str, str] = {}
        self.texts: list[str] = []
        self._raw = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attrs}
        self.elements.append((tag, known))
        self._raw = known.get("id", "code") if tag == "script" else "style" if tag == "style" else ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._raw = ""

    def handle_data(self, data: str) -> None:
        if self._raw:
            self.scripts[self._raw] = self.scripts.get(self._raw, "") + data
        elif data.strip():
            self.texts.append(" ".join(data.split()))

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def unpacked(chunk: str) -> Any:
    """A chunk of details as the page's script reads it."""
    return json.loads(gzip.decompress(base64.b64decode(chunk)))


def details_of(run: Run) -> list[dict[str, Any]]:
    """Every cell's details."""
    return [detail for chunk in html_data.build(run).chunks for detail in unpacked(chunk)]


# The map -------------------------------------------------------------------------------------------------------------


def test_creators_are_in_release_order_and_each_loader_has_a_panel() -> None:
    found = heat_map.build(samples.across_releases())
    assert [column.label for column in found.columns] == ["0.6.1", "0.9.0", "0.10.0", "0.13.2", "0.17.1"]
    assert [panel.label for panel in found.panels] == ["v0200 0.20.0", "current 0.21.2"]
    assert [panel.bad for panel in found.panels] == [1, 3]
    letters = [[square and square.verdict.letter for square in p.groups[0].rows[0].squares] for p in found.panels]
    assert letters == [["S", "=", "=", "=", "="], ["S", "S", "=", "S", "="]]


def test_scenarios_are_grouped_by_family() -> None:
    groups = heat_map.build(samples.regressed()).panels[0].groups
    assert [group.family for group in groups] == ["adalora", "ia3", "lokr", "lora"]
    assert [row.scenario for row in groups[2].rows] == ["lokr-alpha", "lokr-both", "lokr-conv", "lokr-old"]
    assert groups[2].bad == 3


def test_two_devices_are_two_panels() -> None:
    found = heat_map.build(samples.run(samples.exact("lora-a"), samples.exact("lora-a", device="cuda")))
    assert [panel.label for panel in found.panels] == ["current 0.21.2 · cpu", "current 0.21.2 · cuda"]


def test_a_creator_that_was_not_checked_leaves_a_gap() -> None:
    run = samples.run(samples.exact("lora-a"), samples.exact("lora-a", creator="v090"), samples.exact("lora-b"))
    assert heat_map.build(run).panels[0].groups[0].rows[1].squares[1] is None


def test_known_breaks_and_unstable_cells_are_hatched() -> None:
    run = samples.run(samples.known(samples.wrong("a")), samples.cell("b", "unstable"), samples.wrong("c"))
    squares = [group.rows[0].squares[0] for group in heat_map.build(run).panels[0].groups]
    assert [square and square.hatched for square in squares] == [True, True, False]


LEVELS = [(0.0, 0), (1e-9, 1), (1e-3, 1), (5e-3, 2), (0.05, 3), (0.3, 4), (0.5, 5), (1.0, 5), (9.0, 6), (500.0, 7),
          (1e4, 8), (1e6, 9), (float("inf"), 9), (float("nan"), 9)]  # fmt: skip


@pytest.mark.parametrize(("ratio", "level"), LEVELS)
def test_the_shade_is_the_decade_of_error_over_allowance(ratio: float, level: int) -> None:
    assert heat_map.ratio_level(ratio) == level


def test_a_deviation_is_never_paler_than_a_clean_cell() -> None:
    assert heat_map.level(samples.cell("a", "silent-wrong", worst_ratio=0.2)) > 5
    assert heat_map.level(samples.cell("a", "load-error")) == heat_map.LEVELS - 1
    assert heat_map.level(samples.cell("a", "no-fixture")) == 0


def test_a_change_of_the_checkpoint_is_marked_at_the_release_that_made_it() -> None:
    creators = ["v1", "v2", "v3", "v4", "v5"]
    digests = {("a", c): d for c, d in zip(creators, ["x", "x", "", "y", "y"], strict=True) if d}
    digests |= {("b", "v3"): "p", ("b", "v4"): "q"}
    assert heat_map.format_changes(digests, creators) == {("a", "v4"), ("b", "v4")}


def test_columns_count_the_checkpoints_that_changed() -> None:
    cells = [
        samples.exact("lora-a", creator=creator, fixture=digest)
        for creator, digest in (("v061", "x"), ("v090", "y"), ("v0100", "y"))
    ]
    known = [("v061", "0.6.1"), ("v090", "0.9.0"), ("v0100", "0.10.0")]
    environments = (*(samples.environment(*each) for each in known), samples.CURRENT)
    found = heat_map.build(samples.run(*cells, environments=environments))
    assert [column.changed for column in found.columns] == [0, 1, 0]


def test_a_large_family_is_split_into_tables() -> None:
    run = samples.run(*(samples.exact(f"lora-{n:03}") for n in range(heat_map.BLOCK + 1)))
    assert [len(rows) for rows in heat_map.build(run).panels[0].groups[0].blocks] == [heat_map.BLOCK, 1]


# What the script reads -----------------------------------------------------------------------------------------------


def test_the_details_of_a_cell() -> None:
    run = samples.regressed()
    found = details_of(run)[2]
    assert found["size"] == [0.791, 4.1e-07, 1930000.0, "-0.41250001", "0.37873455", 0.37, 640, 640]
    assert found["at"] == [0, 3, 17]
    assert found["first"] == "model.layers.0.self_attn.q_proj"
    assert found["layers"] == [
        ["model.layers.0.input_layernorm", "block", 0.0, 1e-07],
        [found["first"], "adapter", 0.26, 1.1e-07],
    ]
    assert found["keys"] == ["8 of 8 tensors arrived", [], [], []]
    assert found["found"][0][:2] == ["forward", f"the output differs; the first layer that differs is {found['first']}"]
    assert found["reproduce"] == run.cells[2].reproduce
    assert found["probes"][3] == ["generate", "skipped", "the base has no generate"]


def test_a_probe_with_figures_has_its_error_and_allowance() -> None:
    probes = details_of(samples.regressed())[2]["probes"]
    assert probes[0] == ["forward", "silent-wrong", "", "forward/float32/logits", 0.791, 4.1e-07]
    assert [len(probe) for probe in probes] == [6, 3, 6, 3]


def test_an_error_keeps_its_stage_and_its_tail() -> None:
    run = samples.run(samples.refused("a", "no such key"))
    assert details_of(run)[0]["error"] == [
        "state dict", "RuntimeError", "no such key", "File x.py, line 3\nRuntimeError: no such key"
    ]  # fmt: skip


def test_cells_that_are_alike_take_little_room() -> None:
    run = samples.run(*(samples.wrong(f"lokr-{n}") for n in range(500)))
    data = html_data.build(run)
    assert len(data.chunks) == 3
    assert sum(map(len, data.chunks)) < 500 * 60
    assert html_data.build(run) == data, "the same run makes the same bytes"


def test_ids_that_are_not_as_ours_are_kept() -> None:
    odd = samples.exact("a").model_copy(update={"id": "quite another"})
    assert html_data.index(samples.run(odd, samples.exact("b")))["ids"] == {0: "quite another"}


def test_a_warning_of_several_probes_appears_once() -> None:
    given = ("base: UserWarning: x", "forward: UserWarning: x", "UserWarning: y", "base: UserWarning: x")
    assert html_data.warnings(given) == [["UserWarning: x", "base, forward"], ["UserWarning: y", ""]]


def test_infinity_and_nan_become_strings() -> None:
    assert json.loads(html_data.embedded([float("inf"), float("nan"), 1.5])) == ["Infinity", "NaN", 1.5]


# What the page says --------------------------------------------------------------------------------------------------


def test_counts_by_verdict_are_filters() -> None:
    chips = html_page.chips(samples.against_baseline())
    assert [(chip.label, chip.query, chip.count) for chip in chips] == [
        ("silent-wrong", "verdict:silent-wrong", 5),
        ("load-error", "verdict:load-error", 1),
        ("warned", "verdict:warned", 1),
        ("close", "verdict:close", 1),
        ("exact", "verdict:exact", 1),
        ("unsupported", "verdict:unsupported", 1),
        ("no-fixture", "verdict:no-fixture", 1),
        ("known", "is:known", 1),
        ("regressed", "change:regressed", 1),
        ("fixed", "change:fixed", 1),
        ("new", "change:new", 1),
        ("still", "change:still", 1),
    ]


def test_a_large_run_is_folded_and_counted() -> None:
    cells = [samples.wrong(f"lokr-{n:04}") for n in range(html_page.LISTED + 5)]
    run = samples.run(*cells, *(samples.exact(f"lora-{n:04}") for n in range(html_page.TABLED)))
    (found,) = (section for section in html_page.build(run).sections if isinstance(section, Cells))
    assert len(html_page.tabled(found)) == len(cells)
    markup = Markup(render.render(run))
    assert sum("data-c" in link for link in markup.named("a")) == 1 + html_page.LISTED + len(cells)
    assert "and 5 more, on the map and in report.json" in markup.texts


@pytest.mark.parametrize(
    ("address", "linked"),
    [
        ("https://github.com/huggingface/peft/issues/1", True),
        ("http://github.com/x", False),
        ("javascript:alert(1)", False),
        (" https://x", False),
        ('https://x/"onclick="y', False),
        ("https://x\nhttps://y", False),
    ],
)
def test_only_https_is_linked(address: str, linked: bool) -> None:
    assert bool(html_page.https(address)) is linked


# The markup ----------------------------------------------------------------------------------------------------------

RUNS = {
    "green": samples.green,
    "regressed": samples.regressed,
    "every": samples.every_verdict,
    "releases": samples.across_releases,
    "baseline": samples.against_baseline,
    "nothing": samples.nothing,
    "empty": samples.empty,
}


@pytest.mark.parametrize("name", RUNS)
def test_a_page_needs_nothing_from_outside(name: str) -> None:
    markup = Markup(render.render(RUNS[name]()))
    assert {tag for tag, _ in markup.elements} & {"img", "iframe", "object", "embed", "base", "form"} == set()
    assert [link["href"] for link in markup.named("link")] == ["data:,"]
    assert all("src" not in script for script in markup.named("script"))
    assert all(re.match("#|https://", link["href"]) for link in markup.named("a"))
    assert not re.search(r"url\(|@import", markup.scripts["style"])


def test_the_policy_lets_only_the_pages_own_scripts_run() -> None:
    page = render.render(samples.regressed()).decode()
    content = Markup(page.encode()).named("meta")[1]["content"]
    sources = dict(part.split(" ", 1) for part in content.split("; "))
    assert sources["default-src"] == "'none'"
    assert "unsafe" not in content
    codes = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = [f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'" for code in codes]
    assert sources["script-src"].split() == digests
    assert len(digests) == 2


def test_the_page_is_complete_without_its_script() -> None:
    markup = Markup(render.render(samples.against_baseline()))
    text = "\n".join(markup.texts)
    for wanted in (
        "REGRESSED", "5 new breaks (4 silent-wrong, 1 load-error, 3 causes)", "0.6.1", "0.21.2", "lokr-alpha",
        "lokr · forward: values differ", "golden -0.41250001, now 0.37873455 (golden's RMS 0.37)",
        "1 cell could not be judged",
        "no manifest fixtures/v061/lora-t5.json", "1 known break", "2027-06-30", "9 of 11 planned cells",
        "v061 has no such feature: requires peft>=0.9", "Compared with 2026-11-19T03-12-00",
        "exact → silent-wrong", "peft-regress check --creator v061 --loader current -k lokr-both", "equal to the bit",
    ):  # fmt: skip
        assert wanted in text, wanted
    squares = [attributes for attributes in markup.named("td") if "data-c" in attributes]
    assert len(squares) == 11
    assert {"S", "L", "w", "~", "=", "·", "?"} <= set(markup.texts)


@pytest.mark.parametrize("text", samples.HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    page = render.render(samples.hostile(text))
    markup, plain = Markup(page), Markup(render.render(samples.hostile("harmless")))
    assert [tag for tag, _ in markup.elements if tag in ("script", "style", "x", "b", "img")] == [
        tag for tag, _ in plain.elements if tag in ("script", "style", "x", "b", "img")
    ]
    allowed = {name for _, attributes in plain.elements for name in attributes}
    assert {name for _, attributes in markup.elements for name in attributes} <= allowed
    shown = page.decode()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufffe]", shown)
    for name, script in markup.scripts.items():
        if name not in ("code", "style"):
            assert not re.search("[<>&]", script)
            assert unpacked(script) if name.startswith("chunk") else json.loads(script)


def test_hostile_addresses_are_not_linked() -> None:
    for text in ("javascript:alert(1)", "http://evil.example", 'https://evil.example" onclick="x'):
        run = samples.run(samples.known(samples.wrong("k"), text))
        assert all(link["href"].startswith("#") for link in Markup(render.render(run)).named("a"))


@pytest.mark.parametrize("text", ["</script><script>", "<!--<script>", "a\u2028b", "&amp;", "\x1b[31m", "\ud800"])
def test_embedded_data_can_not_end_its_element(text: str) -> None:
    found = html_data.embedded({text: [text]})
    assert found.isascii()
    assert not re.search("[<>&\x00-\x1f]", found)
    json.loads(found)
