"""`matrix`: a rectangle of creators and loaders, old under new and new under old."""

from __future__ import annotations

import json
import shlex

import pytest

from tests.support.mini.world import World, main, scenario

TILTED = scenario("tilted", requires=["minipeft>=3.0"]).replace("alpha = 3.0", "alpha = 3.0, tilt = 2.0")


@pytest.fixture
def two(mini: World) -> World:
    """A world with the fixtures of 1.0 and of 3.0, which has a feature of its own."""
    mini.scenarios(TILTED)
    said = mini.run("create", mini.spec("3.0"))
    assert said.code == 0, said
    return mini


def matrix(world: World, *options: str, loaders: tuple[str, ...]) -> tuple[str, ...]:
    """The command line for every creator that has fixtures under these releases."""
    return ("matrix", "--creators", "python-*", *(f"--loaders={world.spec(one)}" for one in loaders), *options)


def found(world: World) -> dict[tuple[str, str, str], tuple[str, str]]:
    """Scenario, creator, loader → verdict and reading, of the newest run."""
    names = {world.name(one): one for one in ("1.0", "1.1", "2.0", "3.0")}
    return {(c.scenario, names[c.creator], names[c.loader]): (str(c.verdict), c.reading) for c in world.report().cells}


def test_both_directions_in_one_run(two: World) -> None:
    said = two.run(*matrix(two, loaders=("1.0", "1.1", "3.0")))
    assert said.code == 1, said
    cells = found(two)
    assert len(cells) == 2 * 3 * 4
    for loader in ("1.0", "1.1", "3.0"):
        assert cells["two-layers", "1.0", loader] == ("exact", "read")
        assert cells["tilted", "1.0", loader] == ("unsupported", "")  # the creator has none
    # new under old: 1.0 refuses what it does not know, also where nothing hangs on it; 1.1 passes over it
    assert cells["two-layers", "3.0", "1.0"] == ("load-error", "refused")
    assert cells["tilted", "3.0", "1.0"] == ("unsupported", "refused")
    assert cells["tilted", "3.0", "1.1"] == ("silent-wrong", "ignored")
    assert cells["two-layers", "3.0", "1.1"] == ("contract", "ignored")
    assert cells["tilted", "3.0", "3.0"] == ("exact", "read")


def test_a_refusal_says_what_is_lacking_and_how_it_refuses(two: World) -> None:
    two.run(*matrix(two, "-k", "tilted", loaders=("1.0", "1.1")))
    cells = {c.loader: c for c in two.report().cells if c.creator == two.name("3.0")}
    assert cells[two.name("1.0")].reason == (
        "loader: needs minipeft>=3.0, has minipeft 1.0; it refuses at stage adapter: TypeError: "
        "LowRankConfig.__init__() got an unexpected keyword argument 'tilt'"
    )
    silent = cells[two.name("1.1")]
    assert silent.notes[-1] == (
        "the loader lacks the feature (needs minipeft>=3.0, has minipeft 1.1), but does not refuse: "
        "it ignores entries of the config"
    )
    words = shlex.split(silent.reproduce)
    assert "--forward" in words
    reports = two.root / "again"
    again = main(*words[1:], f"--reports={reports}", *[w for w in two.where("check") if "handler" in w])
    assert again.code == 1, again


def test_plain_check_tries_nothing_that_is_declared_out_of_reach(two: World) -> None:
    options = ("--creator", two.name("3.0"), "--loader", two.spec("1.1"), "-k", "tilted or two-layers")
    two.run("check", *options)
    assert (two.cell("tilted").verdict, two.cell("tilted").reading) == ("unsupported", "")
    assert two.cell("tilted").reason == "loader: needs minipeft>=3.0, has minipeft 1.1"
    two.run("check", "--forward", *options)
    assert two.cell("tilted").verdict == "silent-wrong"


def test_dropped_tensors_are_reported(two: World) -> None:
    two.run(*matrix(two, "-k", "two-layers", loaders=("2.2", "3.0")))
    dropped = [c for c in two.report().cells if c.reading == "dropped"]
    assert {(c.creator, c.loader) for c in dropped} >= {(two.name("1.0"), two.name("2.2"))}
    assert {c.verdict for c in dropped} == {"silent-wrong"}


def test_the_report_has_the_grid_and_the_causes_under_it(two: World) -> None:
    said = two.run(*matrix(two, loaders=("1.0", "1.1", "3.0")))
    assert "Creators under loaders" in said.out
    assert "loaded by an older PEFT" in said.line
    assert "refused adapter · TypeError: LowRankConfig.__init__() got an unexpected keyword" in said.line
    assert "ignored config keys tilt" in said.line
    for name in ("report.md", "report.html"):
        assert "loaded by an older PEFT" in (two.folder() / name).read_text()


def test_each_loader_is_imported_once_and_one_after_another(two: World) -> None:
    said = two.run(*matrix(two, "--jobs", "1", loaders=("1.0", "3.0")))
    assert said.code == 1, said
    order = [cell.loader for cell in two.report().cells]
    assert order == sorted(order, key=[two.name("1.0"), two.name("3.0")].index)


def test_all_is_every_creator_there_is(two: World) -> None:
    said = two.run("check", "--all", "--loader", two.spec("3.0"), "--dry-run", "--json")
    creators = {cell.partition("@")[2].partition(":")[0] for cell in json.loads(said.out)["cells"]}
    assert creators == {two.name("1.0"), two.name("3.0"), "current"}  # whose fixtures are made on demand
    assert two.run("check", "--all", "--creator", "x", "--loader", two.spec("3.0")).code == 64


WRONG = [
    (["--creators", "z*", "--loaders", "current"], "'z*' matches no creator with fixtures"),
    (["--creators", "all", "--loaders", "z*"], "'z*' matches no declared environment"),
    (["--creators", "all", "--loaders", "nobody"], "no environment 'nobody'"),
]


@pytest.mark.parametrize(("options", "said"), WRONG)
def test_what_nobody_knows(mini: World, options: list[str], said: str) -> None:
    ended = mini.run("matrix", *options)
    assert ended.code == 64, ended
    assert said in ended.err
