"""The record of executed code, with real libraries: it is all that an observation depends on.

Every function of the libraries that is not in a cell's record is made to raise: the observation stays equal to the bit.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from harness.core import observation
from harness.core.observation import Observed
from harness.envs.environments import Environments
from harness.runner import CheckRequest, Places, Selection, executed, pipeline, planned
from harness.runner.alike import differing, equal
from harness.runner.executed import Executed
from harness.runner.plan import Planned
from harness.runner.workers.job import Job
from harness.runner.workers.pool import Pool
from harness.runner.workers.process import worker_command
from harness.store.device_class import CPU
from harness.worker.shared import EXECUTED
from tests.support.mini.world import REPOSITORY

HANDLER = REPOSITORY / "tests" / "support" / "fakes" / "broken_functions.py"

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("real")]


@dataclass
class Cells:
    """Replays the cells of one loader, each in a folder of its own."""

    environments: Environments
    folder: Path
    loader: str = "current"
    traced: bool = True
    number: Iterator[int] = field(default_factory=itertools.count)

    def __enter__(self) -> Cells:
        built = self.environments.build(self.loader)
        self.versions = built.versions
        self.store = Places().store()
        self.pool = Pool(
            built.python, jobs=2, log_dir=self.folder / "logs", temporary=self.folder / "tmp", traced=self.traced,
            command=worker_command(built.python, HANDLER),
        )  # fmt: skip
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.close()

    def planned(self, scenarios: str, creator: str = "v061") -> list[Planned]:
        """Cells by the names of their scenarios."""
        request = CheckRequest((creator,), (self.loader,), selection=Selection(keyword=scenarios))
        return planned(request, self.environments)

    def run(self, cell: Planned, **more: Any) -> tuple[Observed | None, Path]:
        """What a cell observes, and its folder."""
        folder = self.folder / f"cell-{next(self.number)}"
        manifest = self.store.manifest(cell.id.creator, cell.id.scenario)
        self.store.materialise(manifest, folder, CPU)
        content = pipeline.request(cell, self.versions) | more
        done = self.pool.submit(Job(folder.name, content, folder, 300.0)).result()
        return (observation.read(folder / "now") if done.outcome == "done" else None), folder

    def trace(self, cell: Planned) -> tuple[Observed, Executed, Path]:
        """What a cell observes and executes, and the file that says the latter."""
        now, folder = self.run(cell, executed=True)
        found = executed.read(folder)
        assert now is not None
        assert found is not None
        assert found.executed is not None, found.why
        return now, found.executed, folder / EXECUTED

    def misses(self, recorded: Recorded) -> str:
        """What a cell depends on besides the functions of its record; empty if that is nothing."""
        now, folder = self.run(recorded.cell, only=str(recorded.file))
        called = json.loads((folder / "called.json").read_text())
        if called or now is None or not equal(now, recorded.now):
            return f"{called} {'it died' if now is None else differing(now, recorded.now)}"
        return ""


@pytest.fixture(scope="module")
def current(environments: Environments, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cells]:
    """Cells under the newest libraries."""
    with Cells(environments, tmp_path_factory.mktemp("executed")) as cells:
        yield cells


@dataclass(frozen=True)
class Recorded:
    """A cell that was recorded."""

    cell: Planned
    now: Observed
    executed: Executed
    file: Path


@pytest.fixture(scope="module")
def lora(current: Cells) -> Recorded:
    """A cell with LoRA."""
    cell = current.planned("lora-bias-lora-only-mlp")[0]
    return Recorded(cell, *current.trace(cell))


def test_an_observation_depends_on_nothing_but_the_functions_of_its_record(current: Cells, lora: Recorded) -> None:
    assert current.misses(lora) == ""


def test_a_function_that_a_record_lacks_is_noticed(current: Cells, lora: Recorded, tmp_path: Path) -> None:
    said = json.loads(lora.file.read_text())
    layer = said["functions"]["peft/tuners/lora/layer.py"]
    said["functions"]["peft/tuners/lora/layer.py"] = [code for code in layer if code[1] != "forward"]
    lacking = tmp_path / "lacking.json"
    lacking.write_text(json.dumps(said))
    assert "peft/tuners/lora/layer.py" in current.misses(replace(lora, file=lacking))


def test_a_record_has_the_method_of_the_adapter_and_no_other(lora: Recorded) -> None:
    functions, imported = lora.executed.functions, lora.executed.imported
    assert "forward" in {name for _, name in functions["peft/tuners/lora/layer.py"]}
    assert "peft/tuners/ia3/layer.py" in imported
    ran = {name for _, name in functions.get("peft/tuners/ia3/layer.py", ())}
    assert not ran & {"forward", "merge", "update_layer"}
    assert not any(file.startswith("torch/") for file in (*functions, *imported))


def test_recording_changes_nothing_and_repeats(current: Cells, lora: Recorded, environments: Environments) -> None:
    again = current.trace(lora.cell)
    assert equal(again[0], lora.now)
    assert again[1] == lora.executed
    with Cells(environments, current.folder / "plain", traced=False) as plain:
        alone, folder = plain.run(lora.cell)
    assert alone is not None
    assert differing(alone, lora.now) == ""
    assert executed.read(folder) is None


def test_a_cell_changes_if_a_function_of_its_record_raises(current: Cells, lora: Recorded) -> None:
    """Twenty functions of PEFT that not every cell executes: each is called, and the observation is another one."""
    others = [current.planned(name)[0] for name in ("ia3-linear", "lokr-alpha-differs")]
    recorded = [lora, *(Recorded(cell, *current.trace(cell)) for cell in others)]
    ran = [{(file, *code) for file, some in one.executed.functions.items() for code in some} for one in recorded]
    of_some = set[tuple[str, int, str]]().union(*ran) - set[tuple[str, int, str]].intersection(*ran)
    sample = random.Random(1).sample(sorted(code for code in of_some if code[0].startswith("peft/")), 20)
    for code in sample:
        one = next(one for one, mine in zip(recorded, ran, strict=True) if code in mine)
        now, folder = current.run(one.cell, raises=[code])
        assert json.loads((folder / "called.json").read_text()), code
        assert now is None or not equal(now, one.now), code


@pytest.mark.nightly
@pytest.mark.parametrize(("loader", "scenario"), [("v030", "lora-bias-lora-only-mlp"), ("v0132", "lokr-alpha-differs")])
def test_records_of_older_libraries_are_whole_too(
    environments: Environments, tmp_path: Path, loader: str, scenario: str
) -> None:
    with Cells(environments, tmp_path, loader) as cells:
        cell = cells.planned(scenario)[0]
        assert cells.misses(Recorded(cell, *cells.trace(cell))) == ""
