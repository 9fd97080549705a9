"""`repro`: from a run to a folder, and all errors."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import HarnessError, UsageError
from harness.deviation.one_cell import CellRequest
from harness.deviation.repro import folder as repro
from harness.deviation.repro import run_scripts
from harness.deviation.repro.aspects import Aspect
from harness.deviation.repro.python_text import Part
from harness.runner.request import Places
from tests.support.mini.world import Said, World, main, scenario


@pytest.fixture
def broken(mini: World) -> World:
    """A world with a run in which scaling is broken."""
    assert mini.run("check", "--loader", mini.spec("2.1")).code == 1
    return mini


def asked(world: World, cell: str, *words: str) -> Said:
    where = [f"--matrices={world.matrices}", f"--fixtures={world.fixtures}", f"--reports={world.reports}"]
    return main("repro", cell, *where, *words)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_the_folder_is_complete_and_has_nothing_of_ours(broken: World, tmp_path: Path) -> None:
    target = tmp_path / "issues" / "one"
    said = asked(broken, "two-layers", "--no-verify", "--output", str(target))
    assert said.code == 0, said
    assert leftovers(target.parent) == ["one"]
    assert {"README.md", "adapter", "after.py", "base", "before.py", "model.py", "requirements-after.txt",
            "requirements-before.txt"} == set(leftovers(target))  # fmt: skip
    for path in (p for p in target.rglob("*") if p.suffix in (".py", ".md", ".txt")):
        assert "harness" not in path.read_text(), path
        assert str(broken.root) not in path.read_text(), path
    stored = (target / "adapter" / "adapter_model.safetensors").read_bytes()
    assert stored
    readme = (target / "README.md").read_text()
    assert "were not run" in readme
    assert "minipeft==2.1" in (target / "requirements-after.txt").read_text()
    assert "self.layer1 = torch.nn.Linear(6, 8)" in (target / "model.py").read_text()


def test_scripts_that_do_not_show_the_deviation_are_reported(broken: World, tmp_path: Path) -> None:
    """The fake library has no torch, so before.py itself fails."""
    target = tmp_path / "one"
    creator = f"--creator={broken.spec('1.0')}"
    said = asked(broken, "two-layers", "--output", str(target))
    assert said.code == 2
    assert "an environment is not available here" in said.err  # `python-1a2b3c4d` is a name and no specification
    said = asked(broken, "two-layers", "--output", str(target), creator, "--force")
    assert said.code == 2
    assert "do not show" in said.err
    assert "before.py itself fails" in said.err
    assert "do not show" in (target / "README.md").read_text()
    found = json.loads(asked(broken, "two-layers", "--output", str(tmp_path / "two"), "--json").out)
    assert found["shown"] is False


def test_a_whole_id_needs_no_run(mini: World, tmp_path: Path) -> None:
    cell = f"two-layers@{mini.name('1.0')}:{mini.spec('2.1')}[cpu]"
    said = main("repro", cell, *mini.where("create"), f"--reports={mini.reports}", "--no-verify", "--output",
                str(tmp_path / "one"))  # fmt: skip
    assert said.code == 0, said
    assert "checking it now" in said.err
    assert "is 0." not in (tmp_path / "one" / "README.md").read_text().splitlines()[0]


def test_a_fixture_that_is_not_stored_is_made(mini: World, tmp_path: Path) -> None:
    mini.scenarios(scenario("unseen"))
    assert mini.run("pair", "--creator", mini.spec("1.0"), "--loader", mini.spec("2.1"), "-k", "unseen").code == 1
    where = [*mini.where("create"), f"--reports={mini.reports}"]
    said = main("repro", "unseen", *where, "--no-verify", "--output", str(tmp_path / "one"))
    assert said.code == 0, said
    assert (tmp_path / "one" / "adapter" / "adapter_model.safetensors").exists()


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_an_unknown_cell(broken: World, tmp_path: Path) -> None:
    said = asked(broken, "nothing-like-it", "--output", str(tmp_path / "one"))
    assert said.code == 64
    assert "no cell of run" in said.err
    assert leftovers(tmp_path / "one") == []
    said = asked(broken, "nothing@v061:current[cpu]", "--output", str(tmp_path / "one"))
    assert said.code == 64
    assert "no scenario 'nothing'" in said.err


def test_no_run_at_all(mini: World) -> None:
    said = asked(mini, "two-layers")
    assert said.code == 64
    assert "no run in" in said.err


def test_a_cell_that_does_not_deviate(mini: World, tmp_path: Path) -> None:
    mini.run("check", "--loader", mini.spec("2.0"))
    said = asked(mini, "two-layers", "--output", str(tmp_path / "one"))
    assert said.code == 64
    assert "is exact: there is nothing to show" in said.err
    assert not (tmp_path / "one").exists()


def test_a_cell_that_could_not_be_compared(mini: World, tmp_path: Path) -> None:
    mini.run("check", "--loader", mini.spec("2.8"))
    said = asked(mini, "two-layers", "--output", str(tmp_path / "one"))
    assert said.code == 2
    assert "env-failed" in said.err


def test_a_damaged_fixture(broken: World, tmp_path: Path) -> None:
    for blob in (broken.fixtures / "blobs").rglob("*"):
        if blob.is_file():
            blob.chmod(0o644)
            blob.write_bytes(b"damaged")
    said = asked(broken, "two-layers", "--no-verify", "--output", str(tmp_path / "one"))
    assert said.code == 2
    assert "restore it" in said.err
    assert not (tmp_path / "one").exists()


def test_a_folder_that_exists(broken: World, tmp_path: Path) -> None:
    target = tmp_path / "one"
    assert asked(broken, "two-layers", "--no-verify", "--output", str(target)).code == 0
    (target / "README.md").write_text("mine")
    said = asked(broken, "two-layers", "--no-verify", "--output", str(target))
    assert said.code == 64
    assert "exists" in said.err
    assert (target / "README.md").read_text() == "mine"
    assert asked(broken, "two-layers", "--no-verify", "--output", str(target), "--force").code == 0
    assert (target / "README.md").read_text() != "mine"


def test_force_replaces_only_folders_of_repro(broken: World, tmp_path: Path) -> None:
    target = tmp_path / "thesis"
    target.mkdir()
    (target / "chapter-1").write_text("years of work")
    said = asked(broken, "two-layers", "--no-verify", "--output", str(target), "--force")
    assert said.code == 64
    assert "was not made by `repro`" in said.err
    assert leftovers(target) == ["chapter-1"]


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_if_writing_fails(
    broken: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr(repro, "_write_readme", fails)
    target = tmp_path / "issues" / "one"
    said = asked(broken, "two-layers", "--no-verify", "--output", str(target))
    assert said.code == (130 if isinstance(failure, KeyboardInterrupt) else 2)
    assert leftovers(target.parent) == []
    if said.code == 2:
        assert "No space left" in said.err
        assert "free some space" in said.err


def test_a_place_that_cannot_be_written(broken: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = asked(broken, "two-layers", "--no-verify", "--output", str(tmp_path / "file" / "one"))
    assert said.code == 2
    assert "cannot be written" in said.err


def test_a_deviation_that_scripts_cannot_show_is_an_error(
    broken: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.deviation.repro.aspects.candidates", lambda *_: iter(()))
    said = asked(broken, "two-layers", "--no-verify", "--output", str(tmp_path / "one"))
    assert said.code == 2
    assert "two short scripts cannot show" in said.err
    assert not (tmp_path / "one").exists()


# -- when scripts show it ---------------------------------------------------------------------------------------------

NUMBERS = Aspect("the outputs", Part(), Part())
RAISES = Aspect("it raises", Part(), Part(), raises="peft.PeftError")
DIES = Aspect("it dies", Part(), Part(), dies=True)


@pytest.mark.parametrize(
    ("aspect", "code", "out", "error", "shows"),
    [
        (NUMBERS, 1, "logits: 1\nIt deviates.\n", "", True),
        (NUMBERS, 0, "No deviation.\n", "", False),
        (NUMBERS, 1, "", "Traceback …\nKeyError: 'x'", False),
        (RAISES, 1, "", "Traceback …\npeft.PeftError: no", True),
        (RAISES, 1, "", "Traceback …\npeft.errors.PeftError: size mismatch for\n  one\n  another", True),
        (RAISES, 1, "", "Traceback …\nValueError: PeftError", False),
        (RAISES, 0, "No deviation.\n", "", False),
        (DIES, -11, "", "", True),
        (DIES, 137, "", "", True),
        (DIES, 1, "", "Traceback …\nValueError: x", False),
    ],
)
def test_which_results_show_the_deviation(aspect: Aspect, code: int, out: str, error: str, shows: bool) -> None:
    assert (run_scripts.why_not(aspect, code, out, error) == "") is shows


def test_the_folder_is_written_by_a_function(broken: World, tmp_path: Path) -> None:
    places = Places(broken.matrices, broken.fixtures, broken.reports)
    written = repro.write(CellRequest("two-layers", places), tmp_path / "one", verify=False)
    assert (written.folder, written.shows) == (tmp_path / "one", None)
    assert written.aspect.title
    with pytest.raises(UsageError, match="exists"):
        repro.write(CellRequest("two-layers", places), tmp_path / "one", verify=False)


def test_the_error_has_its_three_parts() -> None:
    error = repro.CannotWrite("found", "expected", "next")
    assert isinstance(error, HarnessError)
    assert "next: next" in str(error)
