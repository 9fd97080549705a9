"""Every report is valid against the committed schema, and the committed schema is the model's."""

from __future__ import annotations

from typing import Any

import pytest

from harness.core import data
from harness.core.run import Run
from harness.core.run_file import as_json
from harness.report import schema
from tests.support import samples

jsonschema: Any = pytest.importorskip("jsonschema", reason="the schema's own validator is not installed")

SAMPLES = [
    samples.green(),
    samples.regressed(),
    samples.every_verdict(),
    samples.across_releases(),
    samples.interrupted(),
    samples.nothing(),
    samples.empty(),
    samples.against_baseline(),
    *map(samples.hostile, samples.HOSTILE),
]


def validator() -> Any:
    """A validator of the schema."""
    jsonschema.Draft202012Validator.check_schema(schema.schema())
    return jsonschema.Draft202012Validator(schema.schema())


def test_the_committed_schema_is_current() -> None:
    assert (data.docs() / schema.NAME).read_text(encoding="utf-8") == schema.text(), (
        "run `python -m harness.report.schema`"
    )


@pytest.mark.parametrize("run", SAMPLES)
def test_every_report_is_valid(run: Run) -> None:
    assert [error.message for error in validator().iter_errors(as_json(run))] == []


@pytest.mark.parametrize(
    "change",
    [{"format": 2}, {"format": None}, {"nothing": 1}, {"cells": [{"id": "x"}]}, {"duration_s": "long"}, {"id": None}],
)
def test_another_report_is_not_valid(change: dict[str, Any]) -> None:
    assert not validator().is_valid(as_json(samples.green()) | change)


def test_infinities_are_strings() -> None:
    run = samples.run(samples.wrong("lokr-alpha", float("inf")))
    data = as_json(run)
    assert data["cells"][0]["worst_ratio"] == "Infinity"
    assert validator().is_valid(data)
