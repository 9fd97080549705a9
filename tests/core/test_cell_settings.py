"""What a replay is computed with besides its device: said in one place, and never mixed up."""

from __future__ import annotations

import pytest

from harness.core.cell_settings import OWN, Settings, parse, place, placed
from harness.core.errors import UsageError
from harness.core.matrix import CellId
from harness.core.run import Cell
from harness.core.verdict import Verdict
from harness.runner import plan


@pytest.mark.parametrize(
    ("settings", "written"),
    [
        (OWN, ""),
        (Settings("bfloat16"), "bfloat16"),
        (Settings(attention="flash_attention_2"), "flash_attention_2"),
        (Settings("float16", "sdpa"), "float16+sdpa"),
    ],
)
def test_written_and_read_again(settings: Settings, written: str) -> None:
    assert str(settings) == written
    assert parse(written) == settings
    assert placed(place("cuda", written)) == ("cuda", settings)


@pytest.mark.parametrize("text", ["float64", "bfloat16+float16", "sdpa+eager", "bf16", "sdpa+what"])
def test_an_invalid_id_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="settings"):
        parse(text)


def test_options_and_request_have_what_was_given_alone() -> None:
    assert OWN.options == []
    assert OWN.request == {}
    assert Settings("float16", "eager").options == ["--dtype", "float16", "--attention", "eager"]
    assert Settings(attention="eager").request == {"attention": "eager"}


def test_an_id_without_settings_is_unchanged() -> None:
    assert str(CellId("a", "v061", "current")) == "a@v061:current[cpu]"


@pytest.mark.parametrize("loader", ["current", "git-peft-12[x]", "peft-0.9.0+transformers-4.38.2"])
def test_an_id_is_parsed_as_it_is_written(loader: str) -> None:
    cell = CellId("a-b", "v061", loader, "cpu", Settings("bfloat16", "sdpa"))

    assert str(cell) == f"a-b@v061:{loader}[cpu+bfloat16+sdpa]"
    assert plan.parsed(str(cell)) == cell


def test_a_glob_takes_settings_or_leaves_them() -> None:
    cell = "a@v061:current[cpu+bfloat16]"

    assert plan.matches(cell, ["a@*"])
    assert plan.matches(cell, [cell])
    assert not plan.matches(cell, ["a@v061:current[cpu]"])


def test_a_cell_of_an_older_report_has_none() -> None:
    said = {"id": "a@b:c[cpu]", "scenario": "a", "creator": "b", "loader": "c", "verdict": "exact"}
    cell = Cell.model_validate(said)

    assert (cell.settings, cell.place, cell.verdict) == ("", "cpu", Verdict.EXACT)
