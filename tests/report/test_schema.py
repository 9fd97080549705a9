"""Every report is valid against the committed schema, and the committed schema is the model's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.core import data, run_file
from harness.core.run import Run
from harness.report import schema
from tests.support import samples

jsonschema: Any = pytest.importorskip("jsonschema", reason="the schema's own validator is not installed")

SAMPLES = [*samples.plain(), *map(samples.hostile, samples.HOSTILE)]


def validator() -> Any:
    """A validator of the schema."""
    jsonschema.Draft202012Validator.check_schema(schema.schema())
    return jsonschema.Draft202012Validator(schema.schema())


def as_json(run: Run, folder: Path) -> dict[str, Any]:
    """What is written of a run."""
    run_file.dump(run, folder / "report.json")
    found: dict[str, Any] = json.loads((folder / "report.json").read_bytes())
    return found


def test_the_committed_schema_is_current() -> None:
    assert (data.docs() / schema.NAME).read_text(encoding="utf-8") == schema.text(), (
        "run `python -m harness.report.schema`"
    )


@pytest.mark.parametrize("run", SAMPLES)
def test_every_report_is_valid(run: Run, tmp_path: Path) -> None:
    assert [error.message for error in validator().iter_errors(as_json(run, tmp_path))] == []


@pytest.mark.parametrize(
    "change",
    [{"format": 2}, {"format": None}, {"nothing": 1}, {"cells": [{"id": "x"}]}, {"duration_s": "long"}, {"id": None}],
)
def test_another_report_is_not_valid(change: dict[str, Any], tmp_path: Path) -> None:
    assert not validator().is_valid(as_json(samples.green(), tmp_path) | change)


def test_infinities_are_strings(tmp_path: Path) -> None:
    run = samples.run(samples.wrong("lokr-alpha", float("inf")))
    data = as_json(run, tmp_path)
    assert data["cells"][0]["worst_ratio"] == "Infinity"
    assert validator().is_valid(data)
