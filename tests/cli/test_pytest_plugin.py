"""pytest as the runner: each cell an item with a readable id, and its own options just work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.mini.world import HANDLER, REPOSITORY, World, gone, scenario


def run_pytest(
    world: World, *words: str, loaders: tuple[str, ...] = ("2.0", "2.1")
) -> subprocess.CompletedProcess[str]:
    """pytest itself, on the scenarios of a world, from a folder that is not ours."""
    command = [
        sys.executable, "-m", "pytest", "-p", "harness.cli.pytest_plugin", str(world.matrices / "scenarios"),
        *(f"--loader={world.spec(release)}" for release in loaders), f"--matrices={world.matrices}",
        f"--fixtures-dir={world.fixtures}", f"--reports={world.reports}", f"--worker-handler={HANDLER}", *words,
    ]  # fmt: skip
    environ = {**world.environ(), "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"}
    (world.root / "pytest.ini").write_text("[pytest]\n")
    return subprocess.run(command, cwd=world.root, env=environ, capture_output=True, text=True, check=False)


def test_a_cell_is_an_item_with_a_readable_id(mini: World) -> None:
    done = run_pytest(mini, "--co", "-q")
    assert done.returncode == 0, done
    listed = [line.rpartition("::")[2] for line in done.stdout.splitlines() if "::" in line]
    assert listed == [mini.id(s, loader) for loader in ("2.0", "2.1") for s in ("two-layers", "one-layer", "later")]
    assert not mini.reports.exists()
    assert not mini.trace.exists()


def test_failures_skips_and_the_report(mini: World) -> None:
    done = run_pytest(mini)
    assert done.returncode == 1, done
    assert "1 failed, 3 passed, 2 skipped" in done.stdout
    failure = done.stdout.partition("FAILURES")[2]
    assert f"{mini.id('two-layers', '2.1')}: silent-wrong" in failure
    said = "the output differs; the first layer that differs is layer1"
    assert f"forward: ×2.000 = √r = 2 in 2 of 2 layers: {said}" in failure
    assert f"reproduce: peft-regress check --cell '{mini.id('two-layers', '2.1')}' --loader" in failure
    assert "Traceback" not in failure
    assert "REGRESSED: " in done.stdout
    assert mini.report().exit_code == 1


def test_an_expected_deviation_is_an_xfail(mini: World) -> None:
    mini.expect()
    done = run_pytest(mini)
    assert done.returncode == 0, done
    assert "3 passed, 2 skipped, 1 xfailed" in done.stdout


def test_k_last_failed_exitfirst_and_junit(mini: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOX_ENV_DIR", str(tmp_path / "shared by other tests"))
    done = run_pytest(mini, "-k", "layer and not one-layer", "--junitxml", str(mini.root / "own.xml"))
    assert "1 failed, 1 passed, 4 deselected" in done.stdout
    assert "silent-wrong" in (mini.root / "own.xml").read_text()
    again = run_pytest(mini, "--lf")
    assert "1 failed" in again.stdout, again.stdout
    assert "passed" not in again.stdout, again.stdout
    assert len(mini.report().plan) == 1
    first = run_pytest(mini, "-x", loaders=("2.4", "2.0"))
    assert first.returncode == 1
    assert "1 failed in" in first.stdout or "1 failed" in first.stdout.splitlines()[-1]
    assert "stopping after 1 failures" in first.stdout


def test_k_finds_scenarios_and_not_the_folders_that_they_are_in(mini: World) -> None:
    done = run_pytest(mini, "--co", "-q", "-k", mini.root.name)
    assert "no tests collected" in done.stdout


def test_a_wrong_file_and_nothing_to_resume_are_usage_errors(mini: World) -> None:
    done = run_pytest(mini, "--resume")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "no unfinished run of these 6 cells" in done.stderr
    mini.scenarios(scenario("x").replace("adapter", "adaptor"))
    done = run_pytest(mini)
    assert done.returncode == pytest.ExitCode.INTERRUPTED
    assert "unknown key `scenario[0].adaptor`" in done.stdout


def test_with_xdist_a_loader_is_started_once(mini: World) -> None:
    more = [scenario(f"more-{n}") for n in range(4)]
    mini.scenarios(*more)
    assert mini.run("create", mini.spec("1.0"), "-k", "more").code == 0
    mini.trace.unlink()
    options = [f"--loader={mini.spec(release)}" for release in ("2.0", "2.0.1", "2.1")]
    said = mini.run("check", *options, "-n", "2")
    assert said.code == 1, said
    report = mini.report()
    assert len(report.cells) == len(report.plan) == 21
    assert report.counts["silent-wrong"] == 5
    assert not report.interrupted
    assert len(mini.traced("start")) == 3
    assert {one.name for one in report.environments} == {mini.name(r) for r in ("1.0", "2.0", "2.0.1", "2.1")}
    assert all(one.versions["minipeft"] for one in report.environments)
    assert all(gone(int(pid)) for pid in mini.traced("start"))


def test_without_xdist_a_loader_is_started_once(mini: World) -> None:
    mini.run("check", "--loader", mini.spec("2.0"), "--loader", mini.spec("2.1"))
    assert len(mini.traced("start")) == 2


def test_no_folder_of_our_tests_is_taken_for_scenarios() -> None:
    """Its cells would be collected beside the tests."""
    assert [*(REPOSITORY / "tests").rglob("scenarios/*.toml")] == []


@pytest.mark.slow
def test_our_own_tests_are_not_its_business(tmp_path: Path) -> None:
    """The plugin is loaded by `conftest.py` in every run of this repository's tests."""
    (tmp_path / "test_it.py").write_text("def test_it(): pass\n")
    (tmp_path / "some.toml").write_text("a = 1\n")
    command = [sys.executable, "-m", "pytest", "-p", "harness.cli.pytest_plugin", "-q", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(REPOSITORY)})  # fmt: skip
    assert "1 passed" in done.stdout, done
    assert not (tmp_path / "reports").exists()
