"""`accept` on the mini matrix: what is written, what the next check says of it, and what is refused."""

from __future__ import annotations

import datetime
import json
import os
import re
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.core import files
from harness.deviation.accept import file
from harness.deviation.accept.file import Changed, Snapshot
from harness.judge import expectations
from tests.support.mini.world import Said, World, filled

SAID = ("--issue", "https://example.org/issues/7", "--expires", "6 months", "--reason", 'Scaled by the "root" of r.')
COMMENT = "# Kept as it is:   spaces too\n"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, created: Path, loaders: Path) -> World:
    """A run of two releases: one is sound, under the other one scenario is silently wrong; not to be altered."""
    world = filled(tmp_path_factory.mktemp("ran"), created, loaders)
    (world.matrices / "expectations.toml").write_text(COMMENT, encoding="utf-8")
    assert world.run("check", "--loader", world.spec("2.1"), "--loader", world.spec("2.0")).code == 1
    return world


@pytest.fixture
def broken(mini: World, ran: World) -> World:
    """A world with that run."""
    shutil.copytree(ran.reports, mini.reports)
    (mini.matrices / "expectations.toml").write_text(COMMENT, encoding="utf-8")
    return mini


def written(world: World) -> str:
    """The file."""
    return (world.matrices / "expectations.toml").read_text(encoding="utf-8")


def again(world: World, *options: str, release: str = "2.1") -> Said:
    """The check once more."""
    return world.run("check", "--loader", world.spec(release), *options)


def test_a_deviation_is_accepted_and_the_next_check_is_clean(broken: World) -> None:
    said = broken.run("accept", "two-layers", *SAID)
    assert said.code == 0, said
    one, other = broken.name("1.0"), broken.name("2.1")
    (found,) = expectations.load(broken.matrices / "expectations.toml")
    assert (found.id, found.creators, found.loaders) == ("two-layers-silent-wrong", [one], [other])
    assert (found.verdict, found.kinds, found.devices) == (
        "silent-wrong",
        ["differs-from-forward", "values"],
        None,
    ) or found.kinds
    assert found.expires > datetime.date.today() + datetime.timedelta(days=150)
    assert written(broken).startswith(COMMENT + "\n[[expectation]]\n")
    assert f"covers 1 cell: {broken.id('two-layers', '2.1')}; 1 more that were meant need none" in said.out
    assert "is now without an unexplained deviation" in said.out
    assert "note: " + other in said.err  # a name that only this interpreter has
    checked = again(broken)
    assert checked.code == 0, checked
    assert "1 known break" in checked.line


def test_it_can_be_said_by_versions_and_until_one(broken: World) -> None:
    said = broken.run("accept", "two-layers", *SAID, "--range", "peft", "--until", "minipeft<2.2", "--id", "scaling")
    assert said.code == 0, said
    (found,) = expectations.load(broken.matrices / "expectations.toml")
    assert (found.creators, found.loaders) == ("peft==1.0", "minipeft>=2.1,<2.2, peft==2.1")
    assert again(broken).code == 0
    assert not said.err


def test_a_dry_run_shows_the_change_and_makes_none(broken: World) -> None:
    said = broken.run("accept", "two-layers", *SAID, "--dry-run")
    assert said.code == 0
    assert "+[[expectation]]\n" in said.out
    assert f"1 entry would be written to {broken.matrices / 'expectations.toml'}" in said.out
    assert written(broken) == COMMENT
    assert sorted(path.name for path in broken.matrices.iterdir()) == [
        "bases",
        "envs",
        "expectations.toml",
        "scenarios",
    ]


def test_for_a_program(broken: World) -> None:
    data = json.loads(broken.run("accept", "two-layers", *SAID, "--json").out)
    assert data["covers"] == [broken.id("two-layers", "2.1")]
    assert data["written"]
    assert (data["deviations_left"], data["problems_left"]) == ([], [])
    assert data["entries"][0]["id"] == "two-layers-silent-wrong"


def test_a_warning_that_fails_a_strict_run_can_be_accepted(mini: World) -> None:
    strict = ["-k", "one-layer", "--strict"]
    assert again(mini, *strict, release="2.5").code == 1
    said = mini.run("accept", "one-layer", *SAID)
    assert said.code == 0, said
    assert again(mini, *strict, release="2.5").code == 0
    assert again(mini, "-k", "one-layer", release="2.5").code == 0


@pytest.mark.parametrize("options", [[], ["--strict"]])
@pytest.mark.parametrize("stated", [{"expires": "2020-01-01"}, {"loaders": ["*"], "scenarios": ["one-layer"]}])
def test_stale_and_expired_fail_in_every_mode(mini: World, options: list[str], stated: dict[str, object]) -> None:
    mini.expect(**stated)
    said = again(mini, *options)
    assert said.code == 1
    assert "expired on 2020-01-01" in said.line or "no longer deviates" in said.line


def test_an_expectation_that_is_in_the_way_is_told(broken: World) -> None:
    broken.expect(kinds=["lost-tensors"])  # the cell deviates otherwise than it says
    said = broken.run("accept", "two-layers", *SAID)
    assert said.code == 0
    assert "1 expectation that does not hold: scaling (mismatch); `peft-regress triage` walks" in said.out


# -- entries that are there -------------------------------------------------------------------------------------------


def test_a_stale_one_is_removed(broken: World) -> None:
    broken.expect(loaders=["*"], scenarios=["one-layer"])
    assert again(broken, "-k", "one-layer").code == 1
    said = broken.run("accept", "--remove", "scaling")
    assert said.code == 0, said
    assert "-[[expectation]]" in said.out
    assert written(broken) == COMMENT
    assert again(broken, "-k", "one-layer").code == 0


def test_an_expired_one_is_renewed(broken: World) -> None:
    broken.expect(expires="2020-01-01")
    before = written(broken)
    said = broken.run("accept", "two-layers", *SAID)
    assert said.code == 64
    assert "deviates as 'scaling' says, which expired on 2020-01-01" in said.err
    assert broken.run("accept", "--renew", "scaling", "--expires", "2019-01-01").code == 64
    assert broken.run("accept", "--renew", "scaling", "--expires", "2998-12-31", "--dry-run").code == 0
    assert written(broken) == before
    said = broken.run("accept", "--renew", "scaling", "--expires", "2998-12-31")
    assert "scaling counts until 2998-12-31" in said.out
    assert "more than a year from now" in said.err
    assert written(broken) == before.replace("2020-01-01", "2998-12-31")
    assert again(broken).code == 0


# -- bad input --------------------------------------------------------------------------------------------------------

WRONG: list[tuple[list[str], str]] = [
    # words, what is found
    (["nothing", *SAID], "has no cell 'nothing'"),
    (["one-layer", *SAID], "nothing that 'one-layer' means is an unexplained deviation (2 cells)"),
    (["two-layers", *SAID, "--issue", "see the forum"], "--issue 'see the forum'"),
    (["two-layers", *SAID, "--expires", "2020-01-01"], "--expires 2020-01-01 is past"),
    (["two-layers", *SAID, "--expires", "soon"], "--expires 'soon' is no date"),
    (["two-layers", *SAID, "--run", "no/such/run"], "no report at no/such/run"),
    (["two-layers", *SAID, "--matrices", "no/such"], "no folder "),
    (["two-layers", *SAID, "--until", "minipeft<2"], "does not hold of the loader"),
    (["two-layers", *SAID, "--loaders", "minipeft>=2"], "would take in 1 more"),
    (["two-layers", *SAID, "--loaders", "a", "--until", "minipeft<9"], "not allowed with argument"),
    (["two-layers"], "--issue, --expires, --reason are missing"),
    ([*SAID], "no cell is named"),
    (["two-layers", "--remove", "scaling"], "--remove together with cells"),
    (["--renew", "scaling"], "--renew without --expires"),
    (["--remove", "skaling"], "there is no expectation 'skaling'"),
    (["--remove", "scaling", "--reason", "gone"], "--remove together with --reason"),
]


@pytest.mark.parametrize(("words", "found"), WRONG, ids=[row[1] for row in WRONG])
def test_bad_input_writes_nothing(broken: World, words: list[str], found: str) -> None:
    broken.expect(scenarios=["elsewhere"])
    before = written(broken)
    said = broken.run("accept", *words)
    assert said.code == 64, said
    assert found in said.err
    assert "next: " in said.err
    assert written(broken) == before


DAMAGED = [
    # what is in the file, what is found
    (b"[[expectation]\n", "not TOML"),
    (b"\xff\xfe\n", "not UTF-8"),
    (b"[[expectation]]\nid = 'x'\n", "key `expectation[0].scenarios` is missing"),
    (b"what = 1\n", "unknown key `what`"),
]


@pytest.mark.parametrize(("content", "found"), DAMAGED, ids=[row[1] for row in DAMAGED])
def test_a_damaged_file_is_left_alone(broken: World, content: bytes, found: str) -> None:
    path = broken.matrices / "expectations.toml"
    path.write_bytes(content)
    said = broken.run("accept", "two-layers", *SAID)
    assert (said.code, path.read_bytes()) == (64, content), said
    assert found in said.err
    assert "next: " in said.err


def test_no_file_yet(broken: World) -> None:
    (broken.matrices / "expectations.toml").unlink()
    assert broken.run("accept", "two-layers", *SAID).code == 0
    assert written(broken).startswith("[[expectation]]\n")


def test_a_draft_that_nobody_filled_in_is_no_expectation(broken: World) -> None:
    """The address of a draft is none, and its reason is empty: each alone is refused on reading."""
    assert broken.run("accept", "two-layers", *SAID).code == 0
    sound = written(broken)
    for key, empty in (("issue", "https://…"), ("reason", "")):
        (broken.matrices / "expectations.toml").write_text(re.sub(f"{key} = .*", f'{key} = "{empty}"', sound))
        said = again(broken)
        assert said.code == 64
        assert f"`expectation[0].{key}`" in said.err


# -- the disk ---------------------------------------------------------------------------------------------------------


def names(folder: Path) -> set[str]:
    """What is in a folder, but for the lock."""
    return {path.name for path in folder.iterdir()} - {file.LOCK}


def meanwhile(path: Path, monkeypatch: pytest.MonkeyPatch, after: str) -> None:
    """Have somebody change the file when a step is done."""
    real: Callable[..., object] = getattr(os, after)

    def changed(*arguments: object) -> object:
        path.write_text("# by somebody else\n", encoding="utf-8")
        return real(*arguments)

    monkeypatch.setattr(os, after, changed)


def test_what_somebody_else_wrote_meanwhile_stays(broken: World, monkeypatch: pytest.MonkeyPatch) -> None:
    path = broken.matrices / "expectations.toml"
    before = names(path.parent)
    meanwhile(path, monkeypatch, "fsync")
    said = broken.run("accept", "two-layers", *SAID)
    assert said.code == 2, said
    assert "was changed by somebody else meanwhile; nothing was written" in said.err
    assert written(broken) == "# by somebody else\n"
    assert names(path.parent) == before


def test_a_snapshot_is_good_for_one_change(broken: World) -> None:
    path = broken.matrices / "expectations.toml"
    first, second = Snapshot.of(path), Snapshot.of(path)
    first.write("# one\n")
    with pytest.raises(Changed):
        second.write("# two\n")
    path.unlink()
    with pytest.raises(Changed):
        second.write("# two\n")


def test_a_full_disk_leaves_the_old_file(broken: World, monkeypatch: pytest.MonkeyPatch) -> None:
    path = broken.matrices / "expectations.toml"
    path.write_text("# long\n" * 500, encoding="utf-8")
    before = names(path.parent)

    def with_little_room(*arguments: object, **more: object) -> None:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # as a disk that has room for 100 bytes
        try:
            files.write_atomically(*arguments, **more)  # type: ignore[arg-type]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setattr(file, "write_atomically", with_little_room)
    said = broken.run("accept", "two-layers", *SAID)
    assert said.code == 2, said
    assert f"{path} can't be written: " in said.err
    assert "next: make some" in said.err
    assert written(broken) == "# long\n" * 500
    assert names(path.parent) == before


def test_two_writers_wait_for_each_other(broken: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import filelock

    monkeypatch.setattr(file, "LOCK_TIMEOUT_S", 0.05)
    with filelock.FileLock(broken.matrices / file.LOCK):
        said = broken.run("accept", "two-layers", *SAID)
    assert said.code == 2, said
    assert "another process has been changing the expectations" in said.err
    assert written(broken) == COMMENT


def test_rights_and_links_are_kept(broken: World, tmp_path: Path) -> None:
    path, target = broken.matrices / "expectations.toml", tmp_path / "kept.toml"
    path.rename(target)
    target.chmod(0o640)
    path.symlink_to(target)
    assert broken.run("accept", "two-layers", *SAID).code == 0
    assert path.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert "[[expectation]]" in target.read_text()
