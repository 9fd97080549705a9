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
from harness.deviation.accept import break_file
from harness.judge import breaks
from tests.support.mini.world import Said, World, filled

SAID = ("--issue", "https://example.org/issues/7", "--expires", "6 months", "--reason", 'Scaled by the "root" of r.')
MADE = "two-layers-silent-wrong"
"""The id that `accept` makes for the cell."""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, created: Path, loaders: Path) -> World:
    """A run of two releases: one is sound, under the other one scenario is silently wrong; not to be altered."""
    world = filled(tmp_path_factory.mktemp("ran"), created, loaders)
    assert world.run("check", "--loader", world.spec("2.1"), "--loader", world.spec("2.0")).code == 1
    return world


@pytest.fixture
def broken(mini: World, ran: World) -> World:
    """A world with that run."""
    shutil.copytree(ran.reports, mini.reports)
    return mini


def written(world: World) -> dict[str, bytes]:
    """File name → content of what is in the folder of breaks."""
    folder = world.matrices / breaks.FOLDER
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def again(world: World, *options: str, release: str = "2.1") -> Said:
    """The check once more."""
    return world.run("check", "--loader", world.spec(release), *options)


def test_a_deviation_is_accepted_and_the_next_check_is_clean(broken: World) -> None:
    said = broken.run("accept", "two-layers", *SAID)
    assert said.code == 0, said
    one, other = broken.name("1.0"), broken.name("2.1")
    (found,) = breaks.load(broken.matrices)
    (condition,) = found.condition
    assert (found.id, condition.creators, condition.loaders) == (MADE, [one], [other])
    assert (condition.verdict, condition.devices) == ("silent-wrong", None)
    assert condition.shape
    assert condition.size
    assert found.expires
    assert found.expires > datetime.date.today() + datetime.timedelta(days=150)
    assert f"covers 1 cell: {broken.id('two-layers', '2.1')}; 1 more match and need no known break" in said.out
    assert "has no unexplained deviation" in said.out
    assert "note: " + other in said.err  # a name that only this interpreter has
    checked = again(broken)
    assert checked.code == 0, checked
    assert "1 known break" in checked.line


def test_it_can_be_said_by_versions_and_until_one(broken: World) -> None:
    said = broken.run("accept", "two-layers", *SAID, "--range", "peft", "--until", "minipeft<2.2", "--id", "scaling")
    assert said.code == 0, said
    (found,) = breaks.load(broken.matrices)
    assert found.id == "scaling"
    assert (found.condition[0].creators, found.condition[0].loaders) == ("peft==1.0", "minipeft>=2.1,<2.2, peft==2.1")
    assert again(broken).code == 0
    assert not said.err


def test_a_dry_run_shows_the_change_and_makes_none(broken: World) -> None:
    said = broken.run("accept", "two-layers", *SAID, "--dry-run")
    assert said.code == 0
    assert "[[condition]]\n" in said.out
    assert f"would be written to {broken.matrices / breaks.FOLDER / MADE}.toml" in said.out
    assert sorted(path.name for path in broken.matrices.iterdir()) == ["bases", "envs", "scenarios"]


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


def test_a_break_that_does_not_hold_is_reported(broken: World) -> None:
    broken.expect(kinds=["lost-tensors"])  # the cell deviates in another way
    said = broken.run("accept", "two-layers", *SAID)
    assert said.code == 0
    assert "1 known break that does not hold: scaling (mismatch); `peft-regress triage` walks" in said.out


def test_a_break_that_deviates_otherwise_is_red_until_its_shape_is_updated(broken: World) -> None:
    broken.expect(kinds=["values"])
    assert again(broken, "-k", "two-layers").code == 0
    assert broken.run("accept", "--update", "scaling").code == 0
    assert b"[condition.shape]" in written(broken)["scaling.toml"]
    assert again(broken, "-k", "two-layers").code == 0
    path = next(broken.matrices.glob("breaks/scaling.toml"))
    path.write_text(path.read_text("utf-8").replace("factor 2", "factor 3"), "utf-8")
    said = again(broken, "-k", "two-layers")
    assert said.code == 1
    assert "known break, but not as known" in said.line
    assert "known is factor 3" in said.line
    said = broken.run("accept", "--update", "scaling")
    assert said.code == 0, said
    assert '+"forward values" = { pattern = ["factor 3", "factor 2"] }' in said.out
    assert again(broken, "-k", "two-layers").code == 0
    assert broken.run("accept", "--update", "nothing").code == 64


# -- entries that are there -------------------------------------------------------------------------------------------


def test_a_stale_one_is_removed(broken: World) -> None:
    broken.expect(loaders=["*"], scenarios=["one-layer"])
    assert again(broken, "-k", "one-layer").code == 1
    said = broken.run("accept", "--remove", "scaling")
    assert said.code == 0, said
    assert "-[[condition]]" in said.out
    assert written(broken) == {}
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
    assert written(broken) == {"scaling.toml": before["scaling.toml"].replace(b"2020-01-01", b"2998-12-31")}
    assert again(broken).code == 0


# -- bad input --------------------------------------------------------------------------------------------------------

WRONG: list[tuple[list[str], str]] = [
    # words, what is found
    (["nothing", *SAID], "has no cell 'nothing'"),
    (["one-layer", *SAID], "nothing that 'one-layer' means is an unexplained deviation (2 cells)"),
    (["two-layers", *SAID, "--issue", "see the forum"], "--issue ['see the forum']"),
    (["two-layers", *SAID, "--expires", "2020-01-01"], "--expires 2020-01-01 is past"),
    (["two-layers", *SAID, "--expires", "soon"], "--expires 'soon' is no date"),
    (["two-layers", *SAID, "--run", "no/such/run"], "no/such/run"),
    (["two-layers", *SAID, "--matrices", "no/such"], "no folder "),
    (["two-layers", *SAID, "--until", "minipeft<2"], "does not hold of the loader"),
    (["two-layers", *SAID, "--loaders", "minipeft>=2"], "would take in 1 more"),
    (["two-layers", *SAID, "--loaders", "a", "--until", "minipeft<9"], "not allowed with argument"),
    (["two-layers"], "--issue, --expires, --reason are missing"),
    ([*SAID], "no cell is named"),
    (["two-layers", "--remove", "scaling"], "--remove together with cells"),
    (["--renew", "scaling"], "--renew without --expires"),
    (["--remove", "skaling"], "there is no known break 'skaling'"),
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
    (b"[[condition]\n", "not TOML"),
    (b"\xff\xfe\n", "not UTF-8"),
    (b"[[condition]]\nnote = 'x'\n", "key `condition[0].scenarios` is missing"),
    (b"what = 1\n", "unknown key `what`"),
]


@pytest.mark.parametrize(("content", "found"), DAMAGED, ids=[row[1] for row in DAMAGED])
def test_a_damaged_file_is_left_alone(broken: World, content: bytes, found: str) -> None:
    path = broken.matrices / breaks.FOLDER / "x.toml"
    path.parent.mkdir()
    path.write_bytes(content)
    said = broken.run("accept", "two-layers", *SAID)
    assert (said.code, path.read_bytes()) == (64, content), said
    assert found in said.err
    assert "next: " in said.err


def test_a_draft_that_nobody_filled_in_is_refused(broken: World) -> None:
    """A draft's reference is no address and its cause is empty: each alone is refused on reading."""
    assert broken.run("accept", "two-layers", *SAID).code == 0
    path = broken.matrices / breaks.FOLDER / f"{MADE}.toml"
    sound = path.read_text()
    for key, empty in (("references", '["https://…"]'), ("cause", '""')):
        path.write_text(re.sub(f"{key} = .*", f"{key} = {empty}", sound))
        said = again(broken)
        assert said.code == 64
        assert f"{path}: `{key}`" in said.err


def test_the_old_file_is_still_read_and_one_line_says_so(broken: World) -> None:
    assert broken.run("accept", "two-layers", *SAID, "--range", "minipeft").code == 0
    (found,) = breaks.load(broken.matrices)
    (broken.matrices / breaks.FOLDER / f"{MADE}.toml").unlink()
    one = found.condition[0]
    old = {
        "id": MADE, "scenarios": one.scenarios, "creators": one.creators, "loaders": one.loaders,
        "verdict": str(one.verdict), "issue": found.issue, "reason": found.cause,
    }  # fmt: skip
    lines = [f"{key} = {json.dumps(value)}" for key, value in old.items()]
    (broken.matrices / breaks.OLD_FILE).write_text("\n".join(["[[expectation]]", *lines, "expires = 2999-01-01"]))
    said = again(broken)
    assert said.code == 0, said
    assert "1 known break" in said.line
    assert said.err.count("is the old form of known breaks") == 1


# -- the disk ---------------------------------------------------------------------------------------------------------


def meanwhile(path: Path, monkeypatch: pytest.MonkeyPatch, after: str) -> None:
    """Have somebody write the file when a step is done."""
    real: Callable[..., object] = getattr(os, after)

    def changed(*arguments: object) -> object:
        path.write_text("# by somebody else\n", encoding="utf-8")
        return real(*arguments)

    monkeypatch.setattr(os, after, changed)


def test_what_somebody_else_wrote_meanwhile_stays(broken: World, monkeypatch: pytest.MonkeyPatch) -> None:
    meanwhile(broken.matrices / breaks.FOLDER / f"{MADE}.toml", monkeypatch, "fsync")
    said = broken.run("accept", "two-layers", *SAID)
    assert said.code == 2, said
    assert "was changed by somebody else meanwhile; nothing was written" in said.err
    assert written(broken) == {f"{MADE}.toml": b"# by somebody else\n"}


def test_a_full_disk_leaves_the_old_file(broken: World, monkeypatch: pytest.MonkeyPatch) -> None:
    broken.expect(expires="2020-01-01", cause="long " * 500)
    before = written(broken)

    def with_little_room(*arguments: object, **more: object) -> None:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # as a disk that has room for 100 bytes
        try:
            files.write_atomically(*arguments, **more)  # type: ignore[arg-type]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setattr(break_file, "write_atomically", with_little_room)
    said = broken.run("accept", "--renew", "scaling", "--expires", "90d")
    assert said.code == 2, said
    assert "scaling.toml can't be written: " in said.err
    assert "next: " in said.err
    assert written(broken) == before


def test_two_writers_wait_for_each_other(broken: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import filelock

    monkeypatch.setattr(break_file, "LOCK_TIMEOUT_S", 0.05)
    with filelock.FileLock(broken.matrices / break_file.LOCK):
        said = broken.run("accept", "two-layers", *SAID)
    assert said.code == 2, said
    assert "another process has been changing the known breaks" in said.err
    assert written(broken) == {}


def test_rights_and_links_are_kept(broken: World, tmp_path: Path) -> None:
    broken.expect(expires="2020-01-01")
    path, target = broken.matrices / breaks.FOLDER / "scaling.toml", tmp_path / "kept.toml"
    path.rename(target)
    target.chmod(0o640)
    path.symlink_to(target)
    assert broken.run("accept", "--renew", "scaling", "--expires", "90d").code == 0
    assert path.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert "2020-01-01" not in target.read_text()
