"""What a change saves otherwise: each difference is named, what every release does is none, and old releases decide."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from harness.core.comparison import Against, Writes, WritesOtherwise
from harness.core.errors import ExitCode
from harness.core.run import Cell, Run, exit_code_of
from harness.judge import change, writes
from harness.report import markdown, sentence, terminal, written
from harness.report.html.render import render
from tests.support import samples
from tests.support.samples import cell, exact, wrong

FILES = ("adapter_config.json", "adapter_model.safetensors")
TENSORS: dict[str, tuple[str, tuple[int, ...], str]] = {
    "layers.0.lora_A.weight": ("float32", (4, 8), "aa"),
    "layers.0.lora_B.weight": ("float32", (8, 4), "bb"),
}
CONFIG: dict[str, Any] = {"r": 4, "peft_version": "0.21.2"}
RELEASES = {"current": "peft 0.21.2 (current)", "v0140": "peft 0.14.0 (v0140)"}


def _saves(loader: str, scenario: str = "lora-a", **more: Any) -> Cell:
    saved = Writes(**{"files": FILES, "tensors": TENSORS, "config": CONFIG} | more)
    return exact(scenario).model_copy(update={"loader": loader, "writes": saved})


def _said(**more: Any) -> list[tuple[str, str]]:
    found = writes.differences([_saves("current")], [_saves("checkout", **more)])
    return [(each.kind, each.what) for each in found]


def _with(key: str, *value: Any) -> dict[str, Any]:
    return {"tensors": {**TENSORS, key: value}}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"tensors": {key: TENSORS[key] for key in list(TENSORS)[:1]}}, [("keys", "- …lora_B.weight")]),
        (_with("layers.0.alpha", "float32", (1,), "cc"), [("keys", "+ …0.alpha".replace("0", "*"))]),
        (
            {"tensors": {key.replace("lora_A", "lora_down"): value for key, value in TENSORS.items()}},
            [("keys", "…lora_A.weight → …lora_down.weight")],
        ),
        (
            _with("layers.0.lora_A.weight", "float16", (4, 8), "a0"),
            [("types", "…lora_A.weight: float32 → float16")],
        ),
        (_with("layers.0.lora_A.weight", "float32", (8, 4), "aa"), [("shapes", "…lora_A.weight: [4, 8] → [8, 4]")]),
        (_with("layers.0.lora_A.weight", "float32", (4, 8), "ff"), [("values", "other values: …lora_A.weight")]),
        ({"files": (*FILES, "extra.json")}, [("files", "+ extra.json")]),
        ({"config": {"r": 8}}, [("config", "r: 4 → 8")]),
        ({"config": {}}, [("config", "- r (was 4)")]),
        ({"config": {**CONFIG, "use_new": False}}, []),  # a new option at its default, as every release has some
        ({"config": {**CONFIG, "peft_version": "0.22.0"}}, []),
        ({}, []),
    ],
)
def test_each_difference_is_named(more: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert _said(**more) == expected


def test_the_same_difference_of_several_scenarios_is_one() -> None:
    before = [_saves("current", name) for name in ("lora-a", "lora-b")]
    now = [_saves("checkout", name, config={"r": 8}) for name in ("lora-a", "lora-b")]
    (only,) = writes.differences(before, now)
    assert only.scenarios == ("lora-a", "lora-b")
    assert writes.examples([only], 3) == ["lora-a", "lora-b"]


def test_the_examples_show_every_difference_first() -> None:
    names = ("lora-a", "lora-b", "lora-c")
    before = [_saves("current", name) for name in names]
    now = [_saves("checkout", name, config={"r": 8}) for name in names[:2]]
    now.append(_saves("checkout", "lora-c", files=(*FILES, "extra.json")))
    assert writes.examples(writes.differences(before, now), 2) == ["lora-a", "lora-c"]


def _loaded(scenario: str, loader: str, *, sound: bool) -> Cell:
    made = exact(scenario) if sound else wrong(scenario)
    return made.model_copy(update={"loader": loader})


def _checked(*sound: bool) -> Run:
    """A change that renames keys; under `current` and v0140 what it saves is sound, or not."""
    changes = writes.differences([_saves("current")], [_saves("checkout", config={"r": 8})])
    before = [_loaded("lora-a", loader, sound=True) for loader in RELEASES]
    now = [_loaded("lora-a", loader, sound=one) for loader, one in zip(RELEASES, sound, strict=True)]
    found = WritesOtherwise(changes=changes, readers=writes.readers(before, now, RELEASES))
    about = Against(package="peft", spec="../peft", baseline="peft 0.21.2 (current)", writes=found)
    return change.held(samples.run(_saves("checkout")), [_saves("current")], about)


def test_old_releases_that_load_it_as_before_do_not_make_it_red() -> None:
    run = _checked(True, True)
    assert exit_code_of(run) is ExitCode.CLEAN
    assert "It writes otherwise in 1 scenario (r: 4 → 8); peft 0.21.2 (current), peft 0.14.0 (v0140) load it" in str(
        sentence.of(run)
    )


def test_an_old_release_that_loads_it_worse_makes_it_red() -> None:
    run = _checked(True, False)
    assert exit_code_of(run) is ExitCode.REGRESSED
    assert run.against is not None
    assert run.against.writes is not None
    assert [reader.release for reader in run.against.writes.worse] == ["peft 0.14.0 (v0140)"]
    assert "peft 0.14.0 (v0140) load it worse than what the baseline writes" in str(sentence.of(run))


def test_what_is_red_on_both_sides_is_not_the_changes() -> None:
    both = [cell("lora-a", "load-error", loader="v0140")]
    (reader,) = writes.readers(both, both, RELEASES)
    assert not reader.worse


def test_a_load_that_was_not_judged_is_not_called_sound() -> None:
    unknown = [cell("lora-a", "no-fixture", loader="v0140")]
    (reader,) = writes.readers([_loaded("lora-a", "v0140", sound=True)], unknown, RELEASES)
    changes = writes.differences([_saves("current")], [_saves("checkout", config={"r": 8})])
    said = written.sentence(WritesOtherwise(changes=changes, readers=(reader,)))
    assert not reader.worse
    assert said.endswith("; 1 load by releases could not be judged")


@pytest.mark.parametrize("sound", [True, False])
def test_every_format_has_it(sound: bool) -> None:
    run = _checked(True, sound)
    file = io.StringIO()
    terminal.render(run, Console(file=file, width=100), 0)
    for text in (file.getvalue(), markdown.render(run), render(run).decode()):
        flat = " ".join(text.split())
        assert "Writes otherwise: 1 difference" in flat
        assert "r: 4 → 8" in flat
        assert "peft 0.14.0 (v0140)" in flat


def test_a_finished_run_does_not_keep_what_each_cell_saves() -> None:
    assert all(one.writes is None for one in _checked(True, True).cells)
