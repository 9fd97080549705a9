"""The worker of a consumer, in a process of its own with drivers that do all that consumers do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from harness.core import observation
from harness.core.observation import Done, Observed
from harness.runner.workers.job import Job
from harness.runner.workers.pool import Pool, WorkerFailed
from harness.runner.workers.process import worker_command
from harness.worker.consume import cell
from harness.worker.observe.recorder import Observation

DRIVER = """
import os, sys, time
import numpy as np
from peft_regress_worker.consume import LISTED, Refused, stage

def preload():
    pass

def versions():
    return {"fake": "1"}

def log_probabilities(base, adapter, prompts, work):
    what = open(os.path.join(base, "what")).read()
    with stage("converting the base" if adapter is None else "converting the adapter"):
        if what.startswith("base " if adapter is None else "adapter "):
            do(what.split()[1], work)
    return np.log(np.full((len(prompts), 8), 0.125)) + len(prompts[0])

def do(what, work):
    if what == "refuses":
        raise Refused("lora_A in /some/where/here: not supported")
    if what == "fails":
        {}["lora_alpha"]
    if what == "aborts":
        os.abort()
    if what == "hangs":
        time.sleep(1000)
    if what == "exits":
        os._exit(0)
    if what == "prints":
        for _ in range(100):
            print("x" * (1 << 20))
    if what == "threads":
        import threading
        threading.Thread(target=time.sleep, args=(1000,)).start()

def accounted(adapter, work):
    return {"base_model.model.q.lora_A.weight": "q.lora_a"}
"""


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    python = Path(sys.executable)
    command = worker_command(python, cells="consume")
    with Pool(python, jobs=2, log_dir=tmp_path / "logs", preload=[str(driver)], command=command) as made:
        yield made


def fixture(folder: Path, what: str) -> Path:
    """A scratch folder as a cell has it."""
    for name in ("base", "adapter"):
        (folder / name).mkdir(parents=True)
    (folder / "base" / "what").write_text(what)
    (folder / "base" / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "eos_token_id": 2}')
    (folder / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4, "use_dora": false}')
    tensors = {f"base_model.model.q.lora_{x}.weight": np.ones((2, 2), np.float32) for x in "AB"}
    save_file(tensors, str(folder / "adapter" / "adapter_model.safetensors"))
    golden = Observation("s")
    golden.array("inputs/input_ids", np.arange(12).reshape(2, 6))
    logits = np.zeros((2, 6, 8), np.float32)
    logits[:, :, 5], logits[1, 5, 2] = 1, 2  # the last position of the second row expects the end
    for probe in ("forward", "base"):
        golden.array(f"{probe}/float32/logits", logits)
    golden.write(str(folder / "golden"))
    return folder


def ran(pool: Pool, folder: Path, what: str, limit: float = 30.0) -> tuple[Done, Observed | None]:
    scratch = fixture(folder, what)
    request: Any = {"kind": "replay", "scenario": {"name": "s"}, "device": "cpu"}
    done = pool.submit(Job(what, request, scratch, limit, lambda: fixture(scratch, what))).result()
    return done, observation.read(scratch / "now") if done.outcome == "done" else None


def test_what_is_computed_is_recorded(pool: Pool, tmp_path: Path) -> None:
    assert pool.facts()["versions"] == {"fake": "1"}
    done, now = ran(pool, tmp_path / "a", "nothing special")
    assert now is not None, done
    assert {name: array.shape for name, array in now.arrays.items()} == {
        "consumer/adapter": (8, 8),
        "consumer/base": (8, 8),
    }
    facts = now.facts["consumer"]
    assert facts["positions"][:2] == [[0, 5], [0, 4]]
    assert facts["named"]["tensors"] == ["base_model.model.q.lora_A.weight", "base_model.model.q.lora_B.weight"]
    assert facts["accounted"] == {"base_model.model.q.lora_A.weight": "q.lora_a"}
    assert not (tmp_path / "a" / "consumer-work").exists()


@pytest.mark.parametrize("whose", ["base", "adapter"])
def test_a_refusal_is_quoted_without_paths(pool: Pool, tmp_path: Path, whose: str) -> None:
    _, now = ran(pool, tmp_path / "a", f"{whose} refuses")
    assert now is not None
    refused = now.facts["consumer"]["refused"]
    assert (refused["what"], refused["stage"]) == (whose, f"converting the {whose}")
    assert refused["text"] == "lora_A in …/here: not supported"


def test_an_error_has_its_stage(pool: Pool, tmp_path: Path) -> None:
    _, now = ran(pool, tmp_path / "a", "adapter fails")
    assert now is not None
    error = now.load["float32"]["error"]
    assert (error["stage"], error["type"], error["message"]) == ("converting the adapter", "KeyError", "'lora_alpha'")
    assert "consumer/base" in now.arrays


@pytest.mark.parametrize(
    ("what", "outcome"),
    [("aborts", "died"), ("exits", "died"), ("hangs", "timeout"), ("prints", "done"), ("threads", "done")],
)
def test_what_a_consumer_does_costs_its_own_cell(pool: Pool, tmp_path: Path, what: str, outcome: str) -> None:
    done, _ = ran(pool, tmp_path / "a", f"adapter {what}", limit=1.0 if what == "hangs" else 30.0)
    assert done.outcome == outcome, done
    assert (tmp_path / "a" / "log.txt").stat().st_size < 1 << 20
    again, _ = ran(pool, tmp_path / "b", "nothing special")
    assert again.outcome == "done"


def test_a_driver_that_cannot_be_imported_fails_its_environment(tmp_path: Path) -> None:
    driver = tmp_path / "driver.py"
    driver.write_text("import no_such_library")
    python = Path(sys.executable)
    command = worker_command(python, cells="consume")
    made = Pool(python, jobs=1, log_dir=tmp_path / "logs", preload=[str(driver)], command=command)
    with made, pytest.raises(WorkerFailed, match="no_such_library"):
        made.facts()


def positions(mask: list[list[int]] | None, ends: set[int] = frozenset()) -> list[tuple[int, int]]:  # type: ignore[assignment]
    golden: dict[str, Any] = {"inputs/input_ids": np.arange(8).reshape(2, 4)}
    if mask:
        golden["inputs/attention_mask"] = np.array(mask)
    golden |= {f"{probe}/float32/logits": np.eye(8)[None, :4].repeat(2, 0) for probe in ("forward", "base")}
    return cell.positions(golden, ends)


def test_prompts_begin_where_rows_begin_and_end_before_padding() -> None:
    assert positions(None)[:4] == [(0, 3), (1, 3), (0, 2), (1, 2)]
    assert positions([[1, 1, 0, 0], [0, 1, 1, 1]]) == [(0, 1), (0, 0)]
    assert positions(None, {3}) == [(0, 2), (1, 2), (0, 1), (1, 1), (0, 0), (1, 0)]


def test_there_are_no_prompts_without_text_or_logits() -> None:
    assert cell.positions({"inputs/x": np.ones((2, 3))}, set()) == []
    assert cell.positions({"inputs/input_ids": np.ones((2, 3), int)}, set()) == []
