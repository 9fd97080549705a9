"""What a step raises and warns becomes a value; nothing of this process or machine stays in it."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.worker.model import bases
from harness.worker.observe import capture
from harness.worker.observe.capture import Attempt, Skip, attempt, normalise


@pytest.fixture
def library() -> Iterator[logging.Logger]:
    """The logger `peft`, as it was before."""
    logger = logging.getLogger("peft")
    before = logger.propagate, logger.level, logger.disabled
    yield logger
    logger.propagate, level, logger.disabled = before
    logger.setLevel(level)


def tried(step: Callable[[], object], stage: str = "forward") -> Attempt:
    """The step, attempted."""
    with attempt(stage) as found:
        step()
    return found


def error_of(step: Callable[[], object], stage: str = "forward") -> dict[str, str]:
    """What is left of the step's exception."""
    found = tried(step, stage)
    assert found.outcome == "error"
    assert found.error is not None
    return found.error


def refuse(error: BaseException) -> Callable[[], None]:
    """A step that raises."""

    def step() -> None:
        raise error

    return step


class TestAttempt:
    def test_ok(self) -> None:
        found = tried(lambda: None)

        assert found.as_dict() == {"outcome": "ok"}
        assert found.duration_s >= 0.0

    def test_an_exception_is_a_result(self) -> None:
        error = error_of(refuse(ValueError("shapes 3 and 4 differ")), "merged")

        assert error["stage"] == "merged"
        assert error["type"] == "ValueError"
        assert error["message"] == "shapes 3 and 4 differ"
        assert error["traceback"].endswith("ValueError: shapes 3 and 4 differ\n")

    def test_an_exception_of_a_library_is_named_with_its_module(self) -> None:
        assert error_of(lambda: json.loads("{"))["type"] == "json.decoder.JSONDecodeError"

    def test_a_skip_is_no_error(self) -> None:
        assert tried(refuse(Skip("nothing to merge"))).as_dict() == {"outcome": "skipped", "reason": "nothing to merge"}

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=["interrupt", "exit"])
    def test_what_ends_the_process_is_not_swallowed(self, error: BaseException) -> None:
        with pytest.raises(type(error)), attempt("forward"):
            raise error

    def test_what_was_warned_before_the_error_is_kept(self) -> None:
        def step() -> None:
            warnings.warn("about to break", UserWarning, stacklevel=1)
            raise RuntimeError("broken")

        found = tried(step).as_dict()

        assert found["outcome"] == "error"
        assert found["warnings"] == ["UserWarning: about to break"]

    def test_durations_are_no_evidence(self) -> None:
        assert "duration_s" not in tried(lambda: None).as_dict()


class TestWarnings:
    def test_of_python(self) -> None:
        def step() -> None:
            for _ in range(3):
                warnings.warn("old name", FutureWarning, stacklevel=1)
            warnings.warn("rounded", RuntimeWarning, stacklevel=1)

        assert tried(step).warnings == ["FutureWarning: old name", "RuntimeWarning: rounded"]

    def test_another_attempt_hears_it_again(self) -> None:
        def step() -> None:
            warnings.warn("each time", UserWarning, stacklevel=1)

        assert [tried(step).warnings for _ in range(2)] == [["UserWarning: each time"]] * 2

    @pytest.mark.parametrize("propagates", [True, False])
    @pytest.mark.parametrize("name", ["peft", "peft.tuners.lora"])
    def test_of_a_logger_once(self, library: logging.Logger, name: str, propagates: bool) -> None:
        library.propagate = propagates

        assert tried(lambda: logging.getLogger(name).warning("cast to %s", "float32")).warnings == [
            "peft: cast to float32"
        ]

    def test_of_a_logger_that_nobody_named(self) -> None:
        assert tried(lambda: logging.getLogger("somebody.else").error("odd")).warnings == ["somebody: odd"]

    def test_of_the_root_logger(self) -> None:
        assert tried(lambda: logging.getLogger().warning("plain")).warnings == ["root: plain"]

    def test_information_is_no_warning(self, library: logging.Logger) -> None:
        library.setLevel(logging.DEBUG)

        assert tried(lambda: library.info("loading")).warnings == []

    def test_the_same_said_twice_counts_once(self, library: logging.Logger) -> None:
        def step() -> None:
            for _ in range(2):
                library.warning("again")

        assert tried(step).warnings == ["peft: again"]

    @pytest.mark.parametrize(
        "text",
        [
            "scatter_add does not have a deterministic implementation, but you set it",
            "because of torch.use_deterministic_algorithms(True, warn_only=True)",
            "set CUBLAS_WORKSPACE_CONFIG=:4096:8",
        ],
    )
    def test_what_our_own_settings_bring_about_is_left_out(self, text: str) -> None:
        def step() -> None:
            warnings.warn(text, UserWarning, stacklevel=1)
            logging.getLogger("torch").warning(text)

        assert tried(step).warnings == []

    def test_handlers_are_taken_off_again(self, library: logging.Logger) -> None:
        before = list(logging.getLogger().handlers), list(library.handlers)
        library.propagate = False

        tried(refuse(ValueError("x")))

        assert (logging.getLogger().handlers, library.handlers) == before

    def test_an_attempt_within_an_attempt_is_heard_by_both_loggers(self, library: logging.Logger) -> None:
        inner: list[str] = []

        def step() -> None:
            with capture.warnings_into(inner):
                library.warning("deep")

        assert tried(step).warnings == inner == ["peft: deep"]


class TestNormalise:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("no file /root/.cache/peft-regress/envs/v061/lib/x.py here", "no file …/x.py here"),
            ("/tmp/abc/def/adapter_config.json", "…/adapter_config.json"),
            ("in '/srv/a b'", "in '/srv/a b'"),
            ("<Linear object at 0x7f3a5c0012f0>", "<Linear object at 0x…>"),
            ("code 0xff", "code 0xff"),
            ("two\n  lines\tof text ", "two lines of text"),
            ("a/b of model.layers.0", "a/b of model.layers.0"),
            ("", ""),
        ],
    )
    def test_table(self, text: str, expected: str) -> None:
        assert normalise(text) == expected

    def test_the_scratch_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

        assert normalise(f"no {Path.cwd() / 'adapter' / 'adapter_config.json'}") == "no adapter/adapter_config.json"

    def test_two_scratch_folders_say_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        said = set()
        for _ in range(2):
            with tempfile.TemporaryDirectory() as folder:
                monkeypatch.chdir(folder)
                said.add(normalise(f"can't read {Path.cwd() / 'base' / 'config.json'}"))
                monkeypatch.undo()

        assert said == {"can't read base/config.json"}

    def test_a_long_text_is_cut(self) -> None:
        assert len(normalise("word " * 1000)) == 600

    def test_it_is_its_own_fixed_point(self) -> None:
        once = normalise(f"{object()} in /usr/lib/python3/site-packages/peft/x.py\n at {os.getcwd()}/a")  # noqa: PTH109

        assert normalise(once) == once


class TestTracebacks:
    def test_our_own_frames_are_not_in_it(self) -> None:
        # raised by a line of the worker's own, below a frame of this file
        error = error_of(lambda: bases.outputs(3, []))

        assert "cannot tell what to compare of a int" in error["message"]
        assert Path(__file__).name in error["traceback"]
        assert "worker/bases.py" not in error["traceback"]
        assert "worker/capture.py" not in error["traceback"].replace("tests/worker/test_capture.py", "")

    def test_a_librarys_frames_are_in_it_without_this_machines_paths(self) -> None:
        error = error_of(lambda: json.loads("{"))

        assert "…/python3." in error["traceback"]
        assert json.__file__ not in error["traceback"]
        assert "decode" in error["traceback"]

    def test_it_repeats_itself(self) -> None:
        def raises() -> None:
            raise KeyError("lora_A")

        first = error_of(raises)
        second = error_of(raises)

        assert first == second

    def test_its_end_is_kept(self) -> None:
        def even(depth: int) -> None:
            if depth == 0:
                raise ValueError("at the bottom")
            odd(depth - 1)

        def odd(depth: int) -> None:
            even(depth - 1)

        text = error_of(lambda: even(200))["traceback"]

        assert len(text) <= 4000
        assert text.endswith("ValueError: at the bottom\n")


class TestStage:
    @pytest.mark.parametrize(
        ("functions", "expected"),
        [
            ([], "adapter"),
            (["from_pretrained", "somewhere"], "adapter"),
            (["from_pretrained", "load_adapter", "set_peft_model_state_dict"], "state dict"),
            (["from_pretrained", "load_state_dict", "helper"], "state dict"),
            (["load_peft_weights", "safe_load_file"], "state dict"),
            (["__init__", "inject_adapter", "_check_target_modules_exist"], "injection"),
            (["__init__", "_create_and_replace_one"], "injection"),
            (["add_adapter", "_setup_prompt_encoder"], "injection"),
            (["from_pretrained", "from_json_file"], "config"),
            (["from_pretrained", "from_peft_type", "__init__", "__post_init__"], "config"),
            # the innermost decides
            (["load_adapter", "set_peft_model_state_dict", "__post_init__"], "config"),
            (["from_json_file", "inject_adapter", "set_peft_model_state_dict"], "state dict"),
        ],
    )
    def test_of_an_adapter(self, functions: list[str], expected: str) -> None:
        assert self.stage_of(functions, "adapter") == expected

    def test_other_stages_are_what_they_are(self) -> None:
        assert self.stage_of(["load_state_dict"], "merged") == "merged"

    @staticmethod
    def stage_of(functions: list[str], stage: str) -> str:
        """The stage of an error that went through functions of these names, outermost first."""
        lines = ["def run(): raise ValueError('x')"]
        following = "run"
        for name in reversed(functions):
            lines.append(f"def {name}(call={following}): call()")
            following = name
        namespace: dict[str, Any] = {}
        exec("\n".join([*lines, f"start = {following}"]), namespace)
        return error_of(namespace["start"], stage)["stage"]


class TestOverheard:
    def test_what_a_step_said_is_said_again(self) -> None:
        said = capture.Overheard()

        def once() -> None:
            said.of(lambda: warnings.warn("odd", FutureWarning, stacklevel=1))

        first, again = tried(once), tried(said.again)

        assert said.is_all
        assert said.texts == first.warnings == again.warnings == ["FutureWarning: odd"]

    def test_only_what_the_step_said(self) -> None:
        said = capture.Overheard()

        def steps() -> None:
            warnings.warn("before", stacklevel=1)
            said.of(lambda: warnings.warn("odd", stacklevel=1))
            warnings.warn("after", stacklevel=1)

        tried(steps)

        assert said.texts == ["UserWarning: odd"]

    def test_a_message_in_a_log_may_come_once_in_a_process(self, library: logging.Logger) -> None:
        said = capture.Overheard()

        tried(lambda: said.of(lambda: library.warning("odd")))

        assert not said.is_all

    def test_where_nobody_listens_it_is_not_known(self) -> None:
        said = capture.Overheard()

        assert said.of(lambda: 3) == 3
        assert not said.is_all
