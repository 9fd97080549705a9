"""`try` refuses what cannot be tried before it builds anything, and says what to do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.cli import try_
from harness.cli.main import main
from harness.core.errors import ExitCode
from harness.core.run import Cell, Finding
from harness.core.verdict import Verdict
from harness.own import room, trial
from harness.own.trial import TrialRequest
from harness.runner.request import CheckRequest
from tests.support.own import folders, sample


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An adapter and its base; no environment may be built."""
    for name in ("adapter", "base"):
        (tmp_path / name).mkdir()
    sample.good(tmp_path / "adapter", {**sample.CONFIG, "peft_version": "0.19.1"})
    (tmp_path / "base/config.json").write_text(json.dumps(sample.BASE))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no-hub"))
    monkeypatch.setattr("harness.envs.build.Builder.build", lambda *_, **__: pytest.fail("an environment is built"))
    return tmp_path


def attempt(folder: Path, *more: str, base: bool = True) -> int:
    given = ["--base", str(folder / "base")] if base else []
    return main(["try", str(folder / "adapter"), "--reports", str(folder / "reports"), *given, *more])


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_base_that_is_not_known_is_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert attempt(folder, base=False) == ExitCode.USAGE
    assert "acme/small-llama" in (said := capsys.readouterr().err)
    assert "--base" in said


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"hidden_size": 64}, "takes 128 inputs, and the base is 64 wide"),
        ({"num_hidden_layers": 2}, "layer 2"),
        ({"model_type": 3}, "model_type"),
    ],
)
def test_another_models_base_is_refused(
    folder: Path, changes: dict[str, Any], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(folder / "base/config.json", **changes)
    assert attempt(folder) == ExitCode.USAGE
    assert why in capsys.readouterr().err


def test_a_base_that_is_no_model_of_transformers_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mapping = {"base_model_class": "Net", "parent_library": "__main__"}
    rewrite(folder / "adapter/adapter_config.json", task_type=None, auto_mapping=mapping)
    assert attempt(folder) == ExitCode.USAGE
    assert "__main__.Net" in capsys.readouterr().err


def test_too_little_memory_is_said_before_anything_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "available", lambda: 100 << 20)
    assert attempt(folder) == ExitCode.CANNOT_TELL
    assert "not enough memory" in (said := capsys.readouterr().err)
    assert "--layers 1" in said
    assert not (folder / "reports").exists()


def test_where_two_layers_do_not_fit_one_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tried(layers: int | None) -> trial.Trial:
        return trial.prepare(TrialRequest(folder / "adapter", folder / "base", layers), {})

    monkeypatch.setattr(room, "LIBRARIES", 0)
    two = tried(2).room.memory
    monkeypatch.setattr(room, "available", lambda: two)
    left = tried(None).cut.said
    assert any("layer 0 is left of 4" in one for one in left), left
    assert any("one layer with the adapter instead of 2, which need" in one for one in left)
    assert any("layers 0, 1 are left of 4" in one for one in tried(2).cut.said), (
        "who asks for two gets two, or an error"
    )
    monkeypatch.setattr(room, "available", lambda: 2 * two)
    assert tried(None).cut.said == tried(2).cut.said


def test_it_says_what_is_cut_and_leaves_the_folder_alone(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = folders.listing(folder / "adapter")
    asked: list[CheckRequest] = []

    def replay(_: object, request: CheckRequest, *__: object, **___: object) -> int:
        asked.append(request)
        return 0

    monkeypatch.setattr("harness.cli.pytest_run.replay", replay)
    assert attempt(folder, "--to", "v0200", "--to", "v0191") == 0
    said = capsys.readouterr().err
    assert "layers 0, 1 are left of 4" in said
    assert "the base has about 393 thousand parameters" in said
    assert "0.19.1" in said
    (request,) = asked
    assert request.pair
    assert request.creators == ("v0191",)
    assert request.loaders == ("v0200", "v0191")
    assert folders.listing(folder / "adapter") == before


@pytest.mark.parametrize(
    ("options", "found", "next_step"),
    [
        (
            ("--from", "bnb-v0120"),
            "--from bnb-v0120: this environment only makes adapters for quantised bases",
            "--quantize with one of nf4, fp4",
        ),
        (("--from", "trl-0191"), "--from trl-0191: this environment only makes adapters of sft-*", "name one with"),
        (("--quantize", "nf4", "--from", "trl-0191"), "makes adapters of sft-*, and this base is quantised", "--from"),
        (("--quantize", "nf4", "--from", "v0191"), "--from v0191: this environment lacks bitsandbytes", "bnb-v0120"),
        (("--quantize", "nf4", "--to", "v0191"), "--to v0191: this environment lacks bitsandbytes", "bnb-v0120"),
        (("--to", f"python:{sys.executable}"), "this environment lacks peft", "install what is missing there"),
        (("--from", f"python:{sys.executable}"), "this environment lacks peft", "install what is missing there"),
    ],
)
def test_an_environment_that_cannot_run_the_adapter_is_refused(
    options: tuple[str, ...], found: str, next_step: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attempt(folder, *options) == ExitCode.USAGE
    assert found in (said := capsys.readouterr().err)
    assert next_step in said
    assert not (folder / "reports/own").exists()


def test_the_help_says_that_a_known_break_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["try", "--help"]) == 0
    assert "0    clean: no deviation\n  1    it deviates, as a known break says or not\n" in capsys.readouterr().out


def test_no_layers_are_no_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert attempt(folder, "--layers", "0") == ExitCode.USAGE
    assert "1 or more" in capsys.readouterr().err


def test_what_could_not_be_told_comes_with_the_next_step() -> None:
    reason = "x: the output is not finite; expected: finite numbers; next: look for NaN"
    verdict = Verdict.NO_FIXTURE
    cell = Cell(
        id="x@v061:current[cpu]", scenario="x", creator="v061", loader="current", verdict=verdict, reason=reason
    )
    assert try_.sentence(cell, {}).endswith("x: the output is not finite\n  next: look for NaN")


def test_an_error_in_one_use_is_said_with_the_use() -> None:
    verdict = Verdict.RUN_ERROR
    raised = Finding(probe="merge_and_unload", kind="error", verdict=verdict, message="AttributeError: weight")
    cell = Cell(
        id="x@v061:current[cpu]", scenario="x", creator="v061", loader="current", verdict=verdict, findings=(raised,)
    )
    assert "loads under current, but an error is raised in merge_and_unload (run-error)" in try_.sentence(cell, {})


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (Verdict.CLOSE, "loads under peft 0.21.2 and computes the same (close)"),
        (Verdict.SILENT_WRONG, "without an error, and does not compute the same"),
        (Verdict.LOAD_ERROR, "does not work under peft 0.21.2"),
        (Verdict.ENV_FAILED, "Nothing can be said"),
    ],
)
def test_the_result_is_said_to_the_adapters_owner(verdict: Verdict, words: str) -> None:
    cell = Cell(id="x@v061:current[cpu]", scenario="x", creator="v061", loader="current", verdict=verdict, reason="why")
    assert words in try_.sentence(cell, {"current": {"peft": "0.21.2"}})
