"""Creators × loaders, and what older loaders did with newer checkpoints."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from harness.core.run import Cell, CheckpointKeys, ProbeResult, Run
from harness.core.verdict import Verdict
from harness.report import grid, markdown, terminal
from harness.report.html import render
from tests.support import samples

ROUNDTRIP = {"roundtrip": ProbeResult(verdict=Verdict.CONTRACT, outcome="ok")}
LOST = CheckpointKeys(total=8, arrived=6, lost=("a.layers.0.q.lora_magnitude_vector.weight", "a.layers.1.q.bias"))


def refused(scenario: str, key: str, **more: str) -> Cell:
    cell = samples.refused(scenario, f"LoraConfig.__init__() got an unexpected keyword argument '{key}'", **more)
    return cell.model_copy(update={"reading": "refused"})


def run() -> Run:
    """Two releases each way; the newer one's checkpoints under the older are refused, dropped, ignored, read."""
    old, new = "v061", "v0140"
    cells = [
        samples.exact("lora-a", creator=old, loader=old, reading="read"),
        samples.wrong("lokr-a", creator=old, loader=new, reading="read"),
        samples.known(samples.wrong("lokr-b", creator=old, loader=new, reading="read")),
        samples.exact("lora-a", creator=old, loader=new, reading="read"),
        samples.exact("lora-a", creator=new, loader=new, reading="read"),
        samples.exact("lora-a", creator=new, loader=old, reading="read"),
        refused("lora-b", "use_dora", creator=new, loader=old),
        refused("lora-c", "use_dora", creator=new, loader=old).model_copy(update={"verdict": Verdict.UNSUPPORTED}),
        refused("lora-d", "eva_config", creator=new, loader=old),
        samples.wrong("lora-e", creator=new, loader=old, reading="dropped", keys=LOST),
        samples.cell(
            "lora-f",
            "contract",
            creator=new,
            loader=old,
            reading="ignored",
            config_differences=("- tilt (was 2)",),
            probes=ROUNDTRIP,
        ),
        samples.crashed("lora-g", creator=new, loader=old),
    ]
    versions = ((old, "0.6.1"), (new, "0.14.0"))
    return samples.run(*cells, environments=tuple(samples.environment(name, peft) for name, peft in versions))


def built(run: Run) -> grid.Grid:
    found = grid.build(run)
    assert found is not None
    return found


def test_a_box_has_the_worst_verdict_and_counts() -> None:
    found = built(run())
    assert found.loaders == (("v061", "0.6.1"), ("v0140", "0.14.0"))
    assert [row.label for row in found.rows] == ["0.6.1", "0.14.0"]
    assert [[box.text for box in row.boxes] for row in found.rows] == [["=1", "S1/3 (1)"], ["S5/6", "=1"]]
    assert [[box.forward for box in row.boxes] for row in found.rows] == [[False, False], [True, False]]
    assert found.rows[0].boxes[1].counts == "1 to look at, 1 agreeing, 1 known"


def test_a_pair_without_cells_is_an_empty_box() -> None:
    whole = run()
    part = samples.run(*[c for c in whole.cells if c.loader != c.creator], environments=whole.environments)
    assert [[box.text for box in row.boxes] for row in built(part).rows] == [["", "S1/3 (1)"], ["S5/6", ""]]


def test_boxes_with_only_known_or_unsupported_cells() -> None:
    cells = [
        samples.known(samples.wrong("lokr", creator="v061", loader="current")),
        samples.cell("lora", "unsupported", creator="v061", loader="v0140"),
        samples.exact("lora", creator="v0140", loader="current"),
        samples.cell("lora", "env-failed", creator="v0140", loader="v0140"),
    ]
    texts = [[box.text for box in row.boxes] for row in built(samples.run(*cells)).rows]
    assert sorted(map(sorted, texts)) == [["=1", "E1/1"], ["S (1)", "·1"]]


def test_what_older_loaders_did_is_grouped_by_cause() -> None:
    found = built(run())
    assert found.forward == (
        "7 checkpoints loaded by an older PEFT than the one that saved them: 1 read, 1 ignored, 1 dropped, 3 refused, "
        "1 not tried or not judged"
    )
    assert [(each.reading, len(each.cells), each.scenarios) for each in found.outcomes] == [
        ("refused", 2, ("lora-b", "lora-c")),
        ("refused", 1, ("lora-d",)),
        ("dropped", 1, ("lora-e",)),
        ("ignored", 1, ("lora-f",)),
    ]
    assert found.outcomes[0].title.endswith("unexpected keyword argument 'use_dora'")
    assert found.outcomes[2].title == "lora · lora_magnitude_vector.weight, q.bias"
    assert found.outcomes[3].title == "config keys tilt"
    assert found.outcomes[0].reach == "creator 0.14.0, loader 0.6.1"


@pytest.mark.parametrize("other", [samples.regressed(), samples.empty(), samples.nothing()])
def test_one_creator_or_one_loader_needs_no_grid(other: Run) -> None:
    assert grid.build(other) is None


def test_with_unknown_releases_nothing_is_newer() -> None:
    found = built(run().model_copy(update={"environments": ()}))
    assert found.forward == ""
    assert found.outcomes == ()


def test_every_format_shows_it() -> None:
    file = io.StringIO()
    terminal.render(run(), Console(file=file, width=120))
    text = file.getvalue()
    comment = markdown.render(run(), markdown.COMMENT_BUDGET)
    page = render.render(run()).decode()
    for shown in (text, comment, page):
        assert all(box in shown for box in ("S5/6", "S1/3", "use_dora", "7 checkpoints loaded by an older PEFT"))
    assert "| `0.14.0` | **S5/6** | =1 |" in comment.replace("\u200b", "")
    assert 'data-query="creator:v0140" data-loader="v061"' in page


def test_nothing_from_outside_leaves_its_place() -> None:
    for hostile in samples.HOSTILE:
        every = run()
        cells = [cell.model_copy(update={"loader": f"{cell.loader}{hostile}"}) for cell in every.cells]
        page = render.render(samples.run(*cells, environments=every.environments)).decode()
        assert "<script>alert" not in page
        assert "\x1b" not in markdown.render(samples.run(*cells, environments=every.environments))
