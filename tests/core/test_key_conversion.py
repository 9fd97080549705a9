"""What is said of the conversion of names: read from a replay, and shown side by side."""

from __future__ import annotations

import base64
import gzip
import re
from typing import Any

import pytest

from harness.core import key_conversion
from harness.core.run import Cell, Run
from harness.core.verdict import Verdict
from harness.report import cell_facts
from harness.report.html import data
from tests.support.mini.world import World, main, scenario
from tests.support.observations import Side

BASE = {
    "of": "base", "given": "Llava", "keys": 8, "changed": 8, "examples": [["tower.vision.q", "tower.q"]],
    "conversions": [["PrefixChange", ["^vision"], [""], "tower"]], "kept": [],
}  # fmt: skip
PEFT = {
    "of": "PEFT model", "given": "PeftModel", "keys": 8, "changed": 0, "examples": [], "kept": ["tower.vision.q"],
    "conversions": [["PrefixChange", ["^vision"], [""], "base_model.model.tower"]],
}  # fmt: skip
RAISES = {"of": "wrapper", "keys": 8, "given": "Wrapper", "error": "AttributeError: no base_model_prefix"}
OWN = {"of": "PEFT's own", "given": "PeftModel", "keys": 8, "changed": 0, "kept": ["base_model.model.tower.vision.q"]}


def seen(*views: dict[str, Any]) -> key_conversion.Conversion | None:
    side = Side(1)
    side.facts["conversion"] = {"views": list(views)}
    return key_conversion.seen(side.observed())


def test_no_conversion_has_no_note() -> None:
    assert key_conversion.seen(Side(1).observed()) is None


@pytest.mark.parametrize(
    ("views", "differs"), [((BASE, PEFT), True), ((BASE, RAISES), True), ((BASE, BASE), False), ((BASE, OWN), False)]
)
def test_whether_the_models_differ(views: tuple[dict[str, Any], ...], differs: bool) -> None:
    found = seen(*views)
    assert found is not None
    assert found.differs is differs


def test_side_by_side() -> None:
    found = seen(BASE, PEFT, RAISES, OWN)
    assert found is not None
    assert key_conversion.rows(found) == [
        ("base (Llava)", "scope tower; changes 8 of 8 keys; tower.vision.q → tower.q"),
        ("PEFT model (PeftModel)", "scope base_model.model.tower; changes 0 of 8 keys; tower.vision.q stays"),
        ("wrapper (Wrapper)", "raises AttributeError: no base_model_prefix"),
        ("PEFT's own (PeftModel)", "changes 0 of 8 keys; base_model.model.tower.vision.q stays"),
    ]


def _cell(verdict: Verdict, found: key_conversion.Conversion | None) -> Cell:
    return Cell(id="s@a:b[cpu]", scenario="s", creator="a", loader="b", verdict=verdict, conversion=found)


@pytest.mark.parametrize(
    ("verdict", "views", "whole", "shown"),
    [
        (Verdict.SILENT_WRONG, (BASE, BASE), False, True),
        (Verdict.EXACT, (BASE, PEFT), False, True),
        (Verdict.EXACT, (BASE, BASE), False, False),
        (Verdict.EXACT, (BASE, BASE), True, True),
    ],
)
def test_shown_where_it_may_matter(verdict: Verdict, views: Any, whole: bool, shown: bool) -> None:
    rows = cell_facts.facts(_cell(verdict, seen(*views)), whole)
    assert any(row.label == "conversion" for row in rows) is shown


def test_the_page_has_all_of_it() -> None:
    row = data.detail(_cell(Verdict.EXACT, seen(BASE, RAISES)), Run(id="x", created="", tool_version=""))
    assert [view[0] for view in row["conversion"]] == ["base", "wrapper"]
    assert row["conversion"][0][5] == (("PrefixChange: ^vision → ", "tower"),)
    assert row["conversion"][1][4] == RAISES["error"]


def test_from_the_worker_to_every_report(mini: World) -> None:
    mini.scenarios(scenario("converted", fault="converts"))
    assert mini.run("create", mini.spec("1.0"), "-k", "converted").code == 0
    said = mini.run("check", "--creator", mini.name("1.0"), "--loader", mini.spec("1.0"), "-k", "converted")
    assert said.code == 0, said
    shown = main("show", "converted", "--reports", str(mini.reports))
    assert "scope base_model.model" in shown.line, shown
    page = next(mini.reports.glob("*/report.html")).read_text(encoding="utf-8")
    assert "Conversion of names" in page
    chunks = re.findall(r'id="chunk-\d+">([^<]*)<', page)
    assert any(b"base_model.model" in gzip.decompress(base64.b64decode(chunk)) for chunk in chunks)
