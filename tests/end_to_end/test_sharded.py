"""`--shard K/N`: the parts of one plan on several machines, and the run that they make when they are merged."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.core import run_file
from harness.core.run import Run
from tests.end_to_end.test_against import checkout, edit, world
from tests.end_to_end.test_environments import named
from tests.end_to_end.test_matrix import matrix, two
from tests.support.mini.world import World, main

__all__ = ["named", "two", "world"]

MORE = ("--fresh",)


def parts(world: World, *words: str, count: int = 2) -> list[str]:
    """The folders of each shard's run."""
    found = []
    for number in range(1, count + 1):
        said = world.run(*words, f"--shard={number}/{count}")
        assert said.code in (0, 1), said
        found.append(str(world.folder()))
    return found


def merged(world: World, folders: Sequence[str]) -> Run:
    out = world.root / "merged"
    said = main("report", *folders, "--out", str(out))
    assert said.code in (0, 1, 2), said
    return run_file.load(out)


def told(run: Run) -> dict[str, tuple[str, str]]:
    return {cell.id: (str(cell.verdict), cell.reading) for cell in run.cells}


def test_the_shards_of_a_matrix_make_the_whole(two: World) -> None:
    words = matrix(two, loaders=("1.0", "3.0"))
    two.run(*words)
    whole = two.report()
    together = merged(two, parts(two, *words))
    assert told(together) == told(whole)
    assert (together.counts, together.exit_code) == (whole.counts, whole.exit_code)


def test_shards_of_processes_and_of_fresh_cells(two: World) -> None:
    words = matrix(two, "-n", "2", *MORE, loaders=("1.0", "3.0"))
    folders = parts(two, *words)
    first, second = (run_file.load(two.reports / folder) for folder in folders)
    assert first.cells
    assert second.cells
    assert not {cell.scenario for cell in first.cells} & {cell.scenario for cell in second.cells}


def test_the_shards_of_a_change_make_the_whole(world: World) -> None:
    tree = checkout(world)
    edit(tree / "src" / "minipeft.py", "self.config.alpha / self.config.r", "self.config.alpha / self.config.r * 1.01")
    words = ("check", "--against", str(tree), "--every-scenario")
    assert world.run(*words).code == 1
    whole = world.report()
    together = merged(world, parts(world, *words))
    assert told(together) == told(whole)
    assert (together.counts, together.exit_code) == (whole.counts, whole.exit_code)
    assert {c.cell: c.change for c in together.comparisons} == {c.cell: c.change for c in whole.comparisons}


def test_a_merge_that_lacks_a_shard_cannot_tell(two: World) -> None:
    first, _ = parts(two, *matrix(two, "-k", "two-layers or tilted", loaders=("3.0",)))
    together = merged(two, [first, first])
    assert together.shard is not None
    assert together.shard.missing == (2,)
    assert together.exit_code != 0


@pytest.mark.parametrize("asked", ["0/3", "4/3", "a/b"])
def test_what_is_no_shard_is_refused_before_anything_runs(two: World, asked: str) -> None:
    before = len(two.traced("replay"))
    said = two.run(*matrix(two, "--shard", asked, loaders=("3.0",)))
    assert said.code == 64
    assert f"--shard {asked}" in said.err
    assert len(two.traced("replay")) == before


def test_more_shards_than_scenarios_are_no_failure(two: World) -> None:
    said = two.run(*matrix(two, "--shard", "99/99", loaders=("3.0",)))
    assert said.code == 0
    assert "has no cell" in said.err
