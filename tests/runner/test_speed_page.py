"""The arithmetic of the measured ratios, and the page and the table that are made of them. Nothing is timed."""

from __future__ import annotations

import ast
import json
from typing import Any

import pytest

from benchmarks import speed, speed_page

KEPT: dict[str, Any] = {
    "day": "2026-12-01",
    "cores": 2,
    "parts": {
        "cold": {
            "seconds": 30.0,
            "cpu_s": 50.0,
            "cells": 100,
            "import_s": 4.0,
            "compute_s": 40.0,
            "cores": 2,
            "load": 1.5,
        },
        "memory": {"seconds": 3.0, "cpu_s": 4.0, "cells": 100, "load": 1.0},
        "change": {
            "a comment": {"seconds": 1.5, "cpu_s": 1.0, "cells": 0, "exit": 0, "remembered": 90, "first_s": 2.5}
        },
        "peft": {"cells": 8, "own_s": 0.6, "peft_s": 0.2, "probes": 15},
        "growth": {
            "1000": {"seconds": 1.0, "journal_s": 0.3, "breaks_s": 0.3, "reports_s": 0.4, "peak_mb": 90.0},
            "100": {"seconds": 0.2, "journal_s": 0.1, "breaks_s": 0.0, "reports_s": 0.1, "peak_mb": 80.0},
        },
    },
}


def test_ratios() -> None:
    assert {label: round(value, 3) for label, value in speed.ratios(KEPT["parts"]).items()} == {
        "cold ÷ (one import + compute ÷ cores)": 1.25,
        "remembered ÷ cold": 0.1,
        "check of a comment ÷ cold": 0.05,
        "a cell ÷ as PEFT's own tests do": 3.0,
        "controller's seconds a cell, largest ÷ smallest run": 0.5,
    }


def test_a_part_that_was_not_measured_has_no_ratio() -> None:
    assert speed.ratios({}) == {}
    assert list(speed.ratios({"peft": KEPT["parts"]["peft"]})) == ["a cell ÷ as PEFT's own tests do"]
    assert "Growth" not in speed_page.page({**KEPT, "parts": {}})


def test_the_page_has_the_figures() -> None:
    page = speed_page.page(KEPT)
    assert "| every cell computed | 30.0 | 50.0 | 100 | load 1.5 |" in page
    assert "| change: a comment | 1.5 | 1.0 | 0 | first 2.5 s; exit 0 |" in page
    assert page.index("| 100 | 0.10 s") < page.index("| 1,000 | 0.30 s | 0.30 s | 0.40 s | 1.00 s | 90 MB |")


def test_the_table_is_renewed_and_its_place_is_required() -> None:
    old = f"before\n{speed_page._BEGIN}\nold\n{speed_page._END}\nafter"
    new = speed_page.with_table(old, KEPT)
    assert new.startswith("before\n<!--speed-->")
    assert new.endswith("<!--/speed-->\nafter")
    assert "\nold\n" not in new
    with pytest.raises(ValueError, match="0 places"):
        speed_page.with_table("nothing", KEPT)


def test_readme_and_page_are_of_the_stored_figures() -> None:
    kept = json.loads(speed.RESULTS.read_text())
    readme = speed_page.README.read_text()
    assert speed_page.with_table(readme, kept) == readme
    assert speed_page.PAGE.read_text() == speed_page.page(kept)


MODULE = 'def first(x):\n    """What it does."""\n    return x\n\n\nclass A:\n    def second(self):\n        return 1\n'


@pytest.mark.parametrize("function", ["", "<module>", "first", "second"])
def test_an_edited_module_says_the_same(function: str) -> None:
    new = speed.edited(MODULE, function)
    assert new != MODULE
    there: dict[str, object] = {}
    exec(compile(ast.parse(new), "x", "exec"), there)
    assert there["first"](3) == 3  # type: ignore[operator]
    assert ("_one_name_more" in new) == bool(function)


def test_a_function_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="no function third"):
        speed.edited(MODULE, "third")
