"""`check --against` in the world of fake libraries: checkouts of every form, with and without git, sound and broken."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.core.verdict import Verdict
from harness.envs.environment import BuiltEnvironment
from harness.envs.environments import Environments
from harness.runner import ChangeRequest, CheckRequest, Places, check_change
from tests.end_to_end.test_environments import declare, named
from tests.support import manifests
from tests.support.mini import releases
from tests.support.mini.projects import project
from tests.support.mini.world import HANDLER, Said, World, main, scenario

__all__ = ["named"]

FIX = ("self.config.alpha / self.config.r", "self.config.alpha / self.config.r * 1.01")
PROJECT = project(
    "minipeft", "9.0.dev0", {"src/minipeft.py": "minipeft.py", "src/mini_libraries.pth": "mini_libraries.pth"}
)


@pytest.fixture
def world(named: World) -> World:
    """Environments `v1`, `current` (sound: 2.0) and `broken` (2.1), and fixtures of v1."""
    declare(named, "current", "2.0")
    declare(named, "broken", "2.1")
    for name in ("current", "broken"):
        assert named.run("env", "lock", name).code == 0
    assert named.run("create", "v1").code == 0
    return named


def unpacked(world: World, release: str = "2.0", name: str = "unpacked") -> Path:
    """A release's wheel, unpacked."""
    folder = world.root / name
    with zipfile.ZipFile(releases.wheel(world.root / "made", release)) as archive:
        archive.extractall(folder)
    return folder


def checkout(world: World, release: str = "2.0") -> Path:
    """A source tree of a release with a build backend of its own; no git."""
    wheel = unpacked(world, release, "for-checkout")
    tree = world.root / "checkout"
    (tree / "src").mkdir(parents=True)
    shutil.copy(wheel / "minipeft.py", tree / "src")
    shutil.copy(wheel / "mini_libraries.pth", tree / "src")
    for name, content in PROJECT.items():
        (tree / name).write_text(content)
    return tree


def edit(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def git(tree: Path, *args: str) -> str:
    command = ["git", "-C", str(tree), "-c", "user.name=x", "-c", "user.email=x@x", *args]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def against(world: World, what: Path | str, *more: str) -> Said:
    return world.run("check", "--against", str(what), *more)


def changes(world: World) -> dict[str, str]:
    return {c.cell.partition("@")[0]: c.change for c in world.report().comparisons}


def test_an_unpacked_wheel_unchanged_edited_and_fixed(world: World) -> None:
    tree = unpacked(world)
    said = against(world, tree)
    assert said.code == 0, said
    assert said.line.count("CLEAN: 1 loads and computes the same") == 1
    run = world.report()
    assert run.against is not None
    assert run.against.remembered == 0
    assert "nothing that is installed differs" in run.against.scope
    assert {cell.loader for cell in run.cells} == {run.against.loader}
    assert set(run.plan) == {cell.id for cell in run.cells}

    edit(tree / "minipeft.py", *FIX)
    said = against(world, tree, "--format", "markdown")
    assert said.code == 1, said
    assert said.out.startswith("**REGRESSED**")
    assert "- change: `minipeft 2.0 from" in said.out
    run = world.report()
    assert run.against is not None
    assert run.against.changed == ("minipeft.py",)
    assert run.against.remembered == 1, "what the sample computed of the baseline"
    assert "remembered, computed since" in said.out
    assert set(changes(world).values()) == {"regressed"}
    html = (world.folder() / "report.html").read_text()
    assert "remembered, computed since" in html

    declare(world, "current", "2.1")
    assert world.run("env", "lock", "current").code == 0
    said = against(world, unpacked(world, name="sound"))
    assert said.code == 0, said
    assert set(changes(world).values()) == {"fixed"}
    assert "fixed" in said.line


def test_the_library_says_what_the_command_says(world: World) -> None:
    """`check_change` of docs/api.md: the same cells, comparisons and exit code, and no folder where none is named."""
    tree = unpacked(world)
    edit(tree / "minipeft.py", *FIX)
    request = CheckRequest(places=Places(world.matrices, world.fixtures), worker_handler=HANDLER, each=True)
    run = check_change(ChangeRequest(str(tree)), request)
    assert not world.reports.exists()
    assert against(world, tree, "--each").code == run.exit_code == 1
    same = world.report()
    assert run.comparisons == same.comparisons != ()
    assert run.against == same.against
    assert [(cell.id, cell.findings) for cell in run.cells] == [(cell.id, cell.findings) for cell in same.cells]
    assert (run.title, run.plan, run.left_out) == (same.title, same.plan, same.left_out)


def test_what_the_baseline_has_too_is_still_and_a_worse_one_is_not(world: World) -> None:
    tree = unpacked(world, "2.1")
    edit(tree / "minipeft.py", "def activation(x: Any) -> Any:", "def activation(x: Any) -> Any:  # a remark")
    said = against(world, tree, "--baseline", "broken", "--every-scenario")
    assert said.code == 0, said
    assert set(changes(world).values()) == {"still"}
    assert world.report().deviations == ()
    edit(tree / "minipeft.py", "self.config.alpha / self.config.r**0.5", "self.config.alpha / self.config.r**0.5 * 1.5")
    said = against(world, tree, "--baseline", "broken")
    assert said.code == 1, said
    assert "further off" in said.line
    edit(tree / "minipeft.py", "def load_adapter(weights: Weights, folder: str) -> Model:",
         "def load_adapter(weights: Weights, folder: str) -> Model:\n    raise KeyError('no')\n")  # fmt: skip
    assert against(world, tree, "--baseline", "broken").code == 1
    assert "for another reason" in next(c.why for c in world.report().comparisons)


def test_a_checkout_without_git_with_it_and_its_own_branch_as_baseline(world: World) -> None:
    tree = checkout(world)
    edit(tree / "src" / "minipeft.py", *FIX)
    said = against(world, tree)
    assert said.code == 1, said
    assert "9.0.dev0" in said.line
    edit(tree / "src" / "minipeft.py", *reversed(FIX))
    git(tree, "init", "-qb", "main")
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "first")
    git(tree, "switch", "-qc", "fix")
    edit(tree / "src" / "minipeft.py", *FIX)  # not committed
    head = git(tree, "status", "--short", "--branch")
    said = against(world, tree, "--baseline", f"{tree}@main")
    assert said.code == 1, said
    run = world.report()
    assert run.against is not None
    assert "where it left" in run.against.known_by
    assert "@" in run.against.baseline
    assert git(tree, "status", "--short", "--branch") == head
    said = against(world, f"{tree}@fix", "--baseline", f"{tree}@main")
    assert said.code == 2, said
    assert "the same to the byte" in said.err, "of the commit, which is main's"
    assert against(world, f"git+{tree.as_uri()}@fix").code == 0


def test_only_tests_changed(world: World) -> None:
    tree = checkout(world)
    git(tree, "init", "-qb", "main")
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "first")
    git(tree, "switch", "-qc", "docs")
    (tree / "tests").mkdir()
    (tree / "tests" / "test_x.py").touch()
    said = against(world, tree)
    assert said.code == 0, said
    assert "a sample, one scenario of each family" in said.line
    assert world.report().counts["compared"] >= 1, "0 is never said of nothing"
    assert any("a sample was checked" in why for why in world.report().left_out.values())


def test_changed_files_as_words_and_on_stdin(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = unpacked(world)
    edit(tree / "minipeft.py", *FIX)
    assert against(world, tree, "--changed-files", "docs/index.md", "README.md").code == 1
    assert "a sample" in world.report().against.scope  # type: ignore[union-attr]
    monkeypatch.setattr(sys, "stdin", io.StringIO("minipeft.py\n\ntests/test_x.py\n"))
    assert against(world, tree, "--changed-files", "-").code == 1
    assert world.report().against.changed == ("minipeft.py",)  # type: ignore[union-attr]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    assert against(world, tree, "--changed-files", "-").code == 64
    assert world.run("check", "--changed-files", "x").code == 64


def test_a_release_and_an_earlier_run(world: World) -> None:
    assert world.run("check", "--loader", "current").code == 0
    earlier = world.folder()
    said = against(world, "minipeft==2.1", "--baseline", str(earlier))
    assert said.code == 1, said
    assert f"run {earlier.name}" in said.line
    assert "also differs" not in said.out, "one package, over the same lock"
    assert against(world, "broken").code == 1
    assert against(world, "current").code == 64


@pytest.mark.parametrize("release", ["2.4", "2.8"])
def test_a_load_error_is_red_and_an_import_error_could_not_be_judged(world: World, release: str) -> None:
    said = against(world, unpacked(world, release), "--format", "markdown", "--every-scenario")
    assert said.code == (2 if release == "2.8" and "COULD NOT TELL" in said.out else 1), said


def test_a_change_that_does_not_build(world: World) -> None:
    tree = checkout(world)
    (tree / "backend.py").write_text("raise RuntimeError('frobnicator missing')")
    said = against(world, tree, "--format", "markdown")
    assert said.code == 2, said
    assert "COULD NOT TELL" in said.out
    assert "frobnicator missing" in said.out
    assert "the change can't be had" in said.err
    assert not list((world.root / "cache" / "envs").glob("checkout-*")), "nothing half-built stays"


def test_a_baseline_that_cannot_be_had(world: World) -> None:
    declare(world, "gone", "2.0")
    assert world.run("env", "lock", "gone").code == 0
    text = (world.matrices / "envs" / "locks" / "gone.txt").read_text()
    (world.matrices / "envs" / "locks" / "gone.txt").write_text(text.replace("minipeft==2.0", "minipeft==7.7"))
    said = against(world, unpacked(world), "--baseline", "gone")
    assert said.code == 2, said
    assert "7.7" in said.out + said.err


@pytest.mark.parametrize("baseline", ["nonsense", "./nowhere", "reports/none", "git+nonsense", "peft=1"])
def test_a_baseline_that_is_nothing(world: World, baseline: str) -> None:
    said = against(world, unpacked(world), "--baseline", baseline)
    assert said.code == 64, said
    assert "next:" in said.err
    assert "no run and no environment" in said.err


def test_what_does_not_go_together(world: World, tmp_path: Path) -> None:
    tree = unpacked(world)
    for more in (["--loader", "v1"], ["-n", "2"]):
        assert against(world, tree, *more).code == 64
    assert world.run("check", "--all", "--creator", "v1").code == 64
    assert world.run("check", "--every-scenario").code == 64
    assert world.run("check", "--baseline", "current").code == 64
    (tmp_path / "empty").mkdir()
    assert against(world, tmp_path / "empty").code == 64
    said = against(world, tree, "-k", "nothing-is-called-that")
    assert said.code == 64, said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--creator", "v11"], "no creator 'v11'"),
        (["--cell", "two-layer@v1:x[cpu]"], "did you mean two-layers@v1:"),
        (["-k", "two-layrs"], "did you mean two-layers"),
        (["-k", "two or"], "not an expression"),
        (["--family", "plian"], "no scenario of family 'plian'"),
    ],
)
def test_what_names_nothing_is_refused_before_anything_is_built(world: World, more: list[str], said: str) -> None:
    ended = against(world, unpacked(world), *more)
    assert ended.code == 64, ended
    assert said in ended.err
    assert "building" not in ended.err
    assert world.run("check", "--loader", "current", *more).code == 64
    assert not world.reports.exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--all", "--creator", "v1"], "--all and --creator"),
        (["--changed-files", "src/minipet.py"], "did you mean minipeft.py"),
        (["--changed-files", "docs/nowhere.md", "gone.py"], "neither side has gone.py"),
    ],
)
def test_what_makes_no_sense_for_a_change_is_refused(world: World, more: list[str], said: str) -> None:
    ended = against(world, unpacked(world), *more)
    assert ended.code == 64, ended
    assert said in ended.err
    assert "building checkout" not in ended.err


def test_a_cell_is_checked_again_after_the_tree_has_changed(world: World) -> None:
    """The red cell's own line works, whatever the loader is called now, and when nothing differs any more."""
    tree = unpacked(world)
    edit(tree / "minipeft.py", *FIX)
    assert against(world, tree).code == 1
    red = world.report().deviations[0].id
    edit(tree / "minipeft.py", *reversed(FIX))
    said = against(world, tree, "--cell", red)
    assert said.code == 0, said
    assert [cell.scenario for cell in world.report().cells] == [red.partition("@")[0]]
    assert world.report().against.scope == "the cells that --cell names"  # type: ignore[union-attr]
    said = against(world, tree, "-k", "one-layer")
    assert said.code == 0, said
    assert [cell.scenario for cell in world.report().cells] == ["one-layer"]
    assert world.report().left_out == {}, "nothing is said of what -k does not select"
    assert "2 cells: 1 under the change, 1 under the baseline; 1 is remembered" in said.err


def test_the_last_red_cells_are_checked_again(world: World) -> None:
    tree = unpacked(world)
    said = against(world, tree, "--last-red")
    assert (said.code, "no check of" in said.err) == (64, True), said
    edit(tree / "minipeft.py", *FIX)
    assert against(world, tree).code == 1
    red = {cell.scenario for cell in world.report().deviations}
    edit(tree / "minipeft.py", *reversed(FIX))
    said = against(world, tree, "--last-red")
    assert said.code == 0, said
    assert {cell.scenario for cell in world.report().cells} == red
    said = against(world, tree, "--last-red")
    assert (said.code, "has no red cell" in said.err) == (64, True), said
    assert world.run("check", "--last-red").code == 64


def test_red_cells_stay_until_a_check_judges_them_again(world: World) -> None:
    """An edit that does not compile, a check that was narrowed, and another order of options forget no red cell."""
    tree = unpacked(world)
    edit(tree / "minipeft.py", *FIX)
    assert against(world, tree).code == 1
    red = {cell.scenario for cell in world.report().deviations}
    assert red == {"one-layer", "two-layers"}
    edit(tree / "minipeft.py", "import numpy as np", "import numpy as np (")
    assert against(world, tree, "--last-red").code == 2
    edit(tree / "minipeft.py", "import numpy as np (", "import numpy as np")
    edit(tree / "minipeft.py", *reversed(FIX))
    said = against(world, tree, "-k", "one-layer", "--last-red")
    assert said.code == 0, said
    assert {cell.scenario for cell in world.report().cells} == {"one-layer"}
    said = against(world, tree, "--creator", "v1", "--last-red")
    assert said.code == 0, said
    assert {cell.scenario for cell in world.report().cells} == red - {"one-layer"}
    said = against(world, tree, "--last-red")
    assert (said.code, "has no red cell" in said.err) == (64, True), said


def test_a_cell_judged_on_one_side_only_could_not_be_judged(world: World) -> None:
    tree = unpacked(world)
    edit(tree / "minipeft.py", "activation(y)", "activation(y)  # remark")
    manifests.write(world.fixtures, "v1", "one-layer", {})
    assert against(world, tree, "--every-scenario").code == 2
    edit(tree / "minipeft.py", *FIX)
    assert against(world, tree).code == 1, "what regressed outweighs it"


def test_a_dry_run_says_what_would_be_checked(world: World) -> None:
    tree = unpacked(world)
    edit(tree / "minipeft.py", *FIX)
    said = against(world, tree, "--dry-run")
    assert said.code == 0, said
    assert "changed: minipeft.py" in said.out
    assert "4 cells would be checked: 2 under the change, 2 under the baseline\n" in said.out
    assert "covers" not in said.out
    assert "checkout" not in said.err, "what is selected is known without building the change"
    assert not list((world.root / "cache" / "envs").glob("checkout-*"))
    said = against(world, tree, "--dry-run", "-v")
    assert "  covers LowRankConfig, LowRankConfig on Linear," in said.out
    assert not world.reports.exists()


@pytest.mark.parametrize("form", [unpacked, checkout])
def test_a_source_tree_tells_what_a_build_would(world: World, form: Callable[[World], Path]) -> None:
    """The same files, scope and cells before the change is built and after."""
    tree = form(world)
    source = next(tree.rglob("minipeft.py"))
    edit(source, *FIX)
    before = against(world, tree, "--dry-run")
    assert "building checkout" not in before.err
    assert world.run("env", "build", str(tree)).code == 0
    assert against(world, tree, "--dry-run").out == before.out
    assert "changed: minipeft.py\n" in before.out
    source.write_text("# a remark\n" + source.read_text().replace(FIX[1], FIX[0]))
    assert "nothing that is installed differs" in against(world, tree, "--dry-run").out


def test_a_remark_is_no_change_only_where_the_project_still_installs_what_it_says(world: World) -> None:
    """A folder without git: what its `pyproject.toml` was before is not known, so it is built."""
    tree = checkout(world)
    assert against(world, tree).code == 0
    source = next(tree.rglob("minipeft.py"))
    source.write_text("# a remark\n" + source.read_text())
    said = against(world, tree)
    assert said.code == 0, said
    assert "nothing that runs has changed" in (world.folder() / "report.html").read_text()
    said_to_install = next(file for name in PROJECT if "src/minipeft.py" in (file := tree / name).read_text())
    edit(said_to_install, "src/minipeft.py", "src/gone.py")
    said = against(world, tree)
    assert said.code == 2, said


def test_where_a_side_does_not_import_nothing_more_is_computed(world: World) -> None:
    tree = unpacked(world)
    edit(tree / "minipeft.py", "import numpy as np", "import numpy as np\nimport frobnicate")
    said = against(world, tree, "--every-scenario", "--jobs", "1")
    assert said.code == 2, said
    assert "frobnicate" in said.out
    assert {cell.verdict for cell in world.report().cells} <= {"env-failed", "exact", "close"}


def test_what_is_remembered_hangs_on_fixture_and_scenario(world: World) -> None:
    tree = unpacked(world)
    edit(tree / "minipeft.py", *FIX)

    def remembered(*more: str) -> int:
        assert against(world, tree, "--every-scenario", *more).code == 1
        return world.report().against.remembered  # type: ignore[union-attr]

    assert remembered() == 0
    every = remembered()
    assert every == len(world.report().cells) > 0
    assert remembered("--each") == 0, "asked for anew"
    world.scenarios(scenario("more", targets=("layer1",)))
    assert world.run("create", "v1", "-k", "more").code == 0
    assert remembered() == every
    assert len(world.report().cells) == every + 1
    said = world.run("env", "gc", "--dry-run")
    assert "remembered" not in said.out, "of this very code"


def test_the_exit_code_and_the_report_agree(world: World) -> None:
    tree = unpacked(world)
    edit(tree / "minipeft.py", *FIX)
    said = against(world, tree, "--json")
    assert said.code == 1
    data = json.loads(said.out)
    assert (data["exit_code"], data["against"]["package"]) == (1, "minipeft")
    again = main("report", str(world.folder()), "--format", "markdown")
    assert again.out.startswith("**REGRESSED**")


def test_a_creator_whose_file_is_not_readable_is_chosen_only_for_what_nobody_else_has(world: World) -> None:
    (world.fixtures / "v0.jsonl").mkdir()
    tree = unpacked(world)
    edit(tree / "minipeft.py", *FIX)
    said = against(world, tree, "-k", "one-layer")
    assert said.code == 1, said
    assert {cell.creator for cell in world.report().cells} == {"v1"}
    (world.fixtures / "v1.jsonl").rename(world.root / "v1.jsonl")
    said = against(world, tree, "-k", "one-layer")
    assert said.code == 2, said
    assert {(cell.creator, cell.verdict) for cell in world.report().cells} == {("v0", Verdict.BAD_FIXTURE)}


@pytest.fixture
def blind(world: World) -> World:
    """A world whose baseline `broken` computes what v1 saved wrongly, and what v2 saved (release 2.1) as v2 did."""
    declare(world, "v2", "2.1")
    assert world.run("env", "lock", "v2").code == 0
    assert world.run("create", "v2").code == 0
    return world


def test_a_break_does_not_hide_behind_one_that_the_baseline_has(blind: World) -> None:
    """The change repairs what v1 saved, and computes what v2 saved wrongly."""
    tree = unpacked(blind, "2.1")
    edit(tree / "minipeft.py", "self.config.alpha / self.config.r**0.5", "self.config.alpha / self.config.r")
    said = against(blind, tree, "--baseline", "broken", "--every-scenario")
    assert said.code == 1, said
    more = "+2 cells: 1 of 3 deviates on the baseline too, so a newer creator's adapter is checked as well"
    assert more in said.err
    assert more in said.line
    found = {comparison.cell.partition(":")[0]: comparison for comparison in blind.report().comparisons}
    assert {name: each.change for name, each in found.items()} == {
        "two-layers@v1": "fixed", "two-layers@v2": "regressed", "later@v2": "regressed",
    }  # fmt: skip
    assert found["two-layers@v1"].why == "but it regressed with the adapter of v2"
    again = against(blind, tree, "--baseline", "broken", "--every-scenario")
    assert again.code == 1, again
    assert "6 cells: 3 under the change, 3 under the baseline; 6 are remembered" in again.err
    assert more in again.line
    assert blind.report().against.remembered == 4  # type: ignore[union-attr]
    assert against(blind, tree, "--baseline", "broken", "--creator", "v1").code == 0, "who names creators gets those"


def test_an_earlier_run_is_blind_too(blind: World) -> None:
    assert blind.run("check", "--loader", "broken").code == 1
    tree = unpacked(blind, "2.1")
    edit(tree / "minipeft.py", "self.config.alpha / self.config.r**0.5", "self.config.alpha / self.config.r")
    assert against(blind, tree, "--baseline", str(blind.folder())).code == 1


def test_a_scenario_without_a_sound_adapter_is_named(world: World) -> None:
    tree = unpacked(world, "2.1")
    edit(tree / "minipeft.py", "def activation(x: Any) -> Any:", "def activation(x: Any) -> Any:  # a remark")
    said = against(world, tree, "--baseline", "broken", "--cell", "two-layers@*:*[cpu]")
    assert said.code == 0, said
    assert "1 scenario deviates on the baseline with every adapter that was tried" in said.line
    assert world.report().against.blind == {"two-layers": "silent-wrong with the adapter of v1"}  # type: ignore[union-attr]


def test_nothing_is_cached_of_an_environment_whose_files_changed_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = unpacked(world)
    edit(tree / "minipeft.py", *FIX)
    is_unchanged = Environments.is_unchanged
    one_at_a_time = threading.Lock()

    def damaged(self: Environments, built: BuiltEnvironment) -> bool:
        file = next(built.python.parent.parent.glob("lib/python*/site-packages/minipeft.py"))
        with one_at_a_time:  # how often, and by which threads, this is asked depends on the machine
            assert is_unchanged(self, built)
            away = file.rename(file.with_suffix(".away"))
            found = is_unchanged(self, built)
            away.rename(file)
        return found

    def cached() -> int:
        assert against(world, tree).code == 1
        return world.report().against.remembered  # type: ignore[union-attr]

    with monkeypatch.context() as patch:
        patch.setattr(Environments, "is_unchanged", damaged)
        assert cached() == 0
    assert cached() == 0, "the environment was not as it was built"
    assert cached() > 0


BACKENDS = {
    "exits with 0": ("import os; os._exit(0)\n", 2),
    "kills the installer": ("import os; os.kill(os.getppid(), 9)\n", 2),
    "says that all is well": (
        "import os\nfor n in (1, 2):\n    os.write(n, b'\\x1b[2JCLEAN: 9 compute the same\\n')\n",
        1,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("attack", BACKENDS)
def test_a_hostile_build_backend_is_named_before_it_runs_and_decides_nothing(world: World, attack: str) -> None:
    tree = checkout(world)
    edit(tree / "src" / "minipeft.py", *FIX)
    (tree / "backend.py").write_text(BACKENDS[attack][0] + PROJECT["backend.py"])
    said = world.spawn("check", "--against", str(tree))
    assert said.code == BACKENDS[attack][1], said
    assert f"building {tree} runs its build backend, backend" in said.err
    assert "\x1b" not in said.out + said.err
    assert "CLEAN" not in said.out


def test_no_program_that_a_checkout_names_for_git_is_run(world: World) -> None:
    tree, mark = checkout(world), world.root / "executed"
    git(tree, "init", "-q")
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "x")
    edit(tree / "src" / "minipeft.py", *FIX)
    hook = tree / ".git" / "hooks" / "post-index-change"
    hook.parent.mkdir(exist_ok=True)
    releases.script(hook, f"touch {mark}")
    git(tree, "config", "core.fsmonitor", f"touch {mark}; false")
    said = against(world, tree, "--dry-run")
    assert said.code == 0, said
    assert not mark.exists()
