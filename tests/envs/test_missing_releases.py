"""The matrix compared with the package index: what is missing, the notice, and that asking delays nothing."""

from __future__ import annotations

import datetime
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.envs.declaration import Declaration
from harness.envs.environments import Environments
from harness.envs.index import Known, Release
from harness.envs.missing_releases import Lookout, missing, notice

TODAY = datetime.datetime.now(datetime.UTC).date().isoformat()


def known(*versions: str, day: str = TODAY) -> Known:
    """Releases of made-up days; a `!` after a version marks it yanked."""
    found = {v.rstrip("!"): Release(v.rstrip("!"), "2024-01-02", v.endswith("!"), ("x.whl",), "") for v in versions}
    return Known(found, day)


def declared(*versions: str) -> dict[str, Declaration]:
    return {f"e{v}": Declaration(why="x", python="3.11", pins={"peft": v}) for v in versions}


@pytest.mark.parametrize(
    ("there", "pinned", "expected"),
    [
        (["0.3.0", "0.4.0"], [], ["0.3.0", "0.4.0"]),
        (["0.2.0", "0.1.0"], [], []),  # before the matrix begins
        (["0.4.0", "0.4.2", "0.4.10"], [], ["0.4.10"]),  # the newest patch, by number and not by letter
        (["0.4.0", "0.4.1!"], [], ["0.4.0"]),
        (["0.4.0!"], [], []),
        (["0.4.0", "0.4.1rc1", "0.5.0.dev0", "0.5.0b2"], [], ["0.4.0"]),
        (["0.4.0", "0.4.0.post1"], [], ["0.4.0.post1"]),
        (["0.4.0", "0.4.1"], ["0.4.0"], ["0.4.1"]),  # an older patch does not do
        (["0.4.0", "0.4.1"], ["0.4.1"], []),
        (["0.4.0"], ["0.4"], []),
        (["0.4.0"], ["newest"], ["0.4.0"]),  # not pinned to that version
        (["0.21.0", "1.0.0", "0.3.0", "1.1.0"], ["1.0"], ["0.3.0", "0.21.0", "1.1.0"]),  # oldest first
        ([], ["0.4"], []),
    ],
)
def test_what_is_missing(there: list[str], pinned: list[str], expected: list[str]) -> None:
    assert [release.version for release in missing(known(*there), declared(*pinned))] == expected


COULD_NOT = "could not check whether PEFT has newer releases than the matrix"
NEXT = "next: peft-regress env add --missing"


@pytest.mark.parametrize(
    ("answer", "newest", "why", "said"),
    [
        (known("0.4.0"), "0.4.0", "", ""),
        (
            known("0.4.0", "0.5.0"), "", "",
            f"the matrix is behind the package index: no environment for PEFT 0.5.0 of 2024-01-02; {NEXT}",
        ),
        (
            known(*(f"0.{minor}.0" for minor in range(4, 12))), "", "",
            "the matrix is behind the package index: no environment for PEFT 0.11.0 of 2024-01-02, "
            f"PEFT 0.10.0 of 2024-01-02, PEFT 0.9.0 of 2024-01-02, PEFT 0.8.0 of 2024-01-02 and 3 more; {NEXT}",
        ),
        (
            known("0.4.0"), "0.3.0", "",
            "the matrix is behind the package index: current is locked at PEFT 0.3.0, the newest is 0.4.0; "
            "next: peft-regress env lock current",
        ),
        (known("0.4.0", "0.4.1rc1", "0.4.2!"), "0.4.0", "", ""),
        (known(day=""), "", "no route", f"{COULD_NOT}: no route"),
        (known("0.4.0", day="2024-05-06"), "", "no route", f"{COULD_NOT} (on 2024-05-06 it had not): no route"),
        (
            known("0.5.0", day="2024-05-06"), "", "no route",
            f"the matrix is behind the package index: no environment for PEFT 0.5.0 of 2024-01-02; {NEXT} "
            "(according to the index on 2024-05-06; now: no route)",
        ),
    ],
)  # fmt: skip
def test_the_notice(answer: Known, newest: str, why: str, said: str) -> None:
    assert notice(answer, declared("0.4.0"), newest, TODAY, why) == said


# -- looking ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def open_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Environments]:
    """Makes environments, one of which pins 0.4.0, with a fake index."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    (tmp_path / "matrices" / "envs").mkdir(parents=True)
    (tmp_path / "matrices" / "envs" / "v040.toml").write_text('why = "x"\npython = "3.11"\n[pins]\npeft = "0.4.0"\n')

    def made(fetch: Callable[[str], bytes]) -> Environments:
        return Environments(tmp_path / "matrices", tmp_path / "cache", fetch=fetch)

    return made


def page(*versions: str) -> bytes:
    files = [{"filename": f"peft-{v}-py3-none-any.whl", "upload-time": "2024-01-02T03:04:05Z"} for v in versions]
    return json.dumps({"files": files}).encode()


def refuse(_: str) -> bytes:
    raise OSError("no route to host")


def test_missing_releases_are_noticed_and_the_index_is_asked_once_a_day(open_: Callable[..., Environments]) -> None:
    (said,) = Lookout(open_(lambda _: page("0.4.0", "0.5.0"))).notices()
    assert "no environment for PEFT 0.5.0" in said
    assert Lookout(open_(refuse)).notices() == (said,), "the answer of the day is good enough"


def test_there_is_no_notice_if_nothing_is_missing(open_: Callable[..., Environments]) -> None:
    assert Lookout(open_(lambda _: page("0.4.0", "0.3.0rc1"))).notices() == ()


def test_a_failed_request_gives_its_reason_in_one_line(open_: Callable[..., Environments]) -> None:
    (said,) = Lookout(open_(refuse)).notices()
    assert said.startswith(f"{COULD_NOT}: https://pypi.org/simple: no route to host")
    assert "\n" not in said


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"files": 7}', b'{"files": [{"filename": 3}]}'])
def test_a_malformed_answer_becomes_a_notice(open_: Callable[..., Environments], answer: bytes) -> None:
    (said,) = Lookout(open_(lambda _: answer)).notices()
    assert said.startswith(COULD_NOT)


def test_an_older_answer_is_noticed_with_its_day(open_: Callable[..., Environments], tmp_path: Path) -> None:
    open_(lambda _: page("0.5.0")).releases.ask("peft")
    kept = tmp_path / "cache" / "releases" / "peft.json"
    kept.write_text(kept.read_text().replace(TODAY, "2024-05-06"))
    (said,) = Lookout(open_(refuse)).notices()
    assert "no environment for PEFT 0.5.0" in said
    assert said.endswith("(according to the index on 2024-05-06; now: https://pypi.org/simple: no route to host)")
    assert "2024-05-06" not in Lookout(open_(lambda _: page("0.5.0"))).notices()[0], (
        "asked anew, since it is not today's"
    )


def test_an_index_that_does_not_answer_delays_nothing(open_: Callable[..., Environments]) -> None:
    answered = threading.Event()

    def slow(_: str) -> bytes:
        answered.wait(30)
        return page("0.5.0")

    lookout = Lookout(open_(slow), patience_s=0.1)
    begun = time.monotonic()
    (said,) = lookout.notices()
    assert time.monotonic() - begun < 2
    assert said.startswith(f"{COULD_NOT}: the index did not answer within 0.")
    assert lookout._thread.daemon
    answered.set()
    lookout._thread.join()


def test_current_is_compared_with_the_newest(open_: Callable[..., Environments], tmp_path: Path) -> None:
    folder = tmp_path / "matrices" / "envs"
    (folder / "current.toml").write_text('why = "x"\npython = "3.11"\n[pins]\npeft = "newest"\n')
    environments = open_(lambda _: page("0.4.0", "0.3.0"))
    lock = folder / "locks" / "current.txt"
    lock.parent.mkdir()
    digest = environments.declarations()["current"].digest()
    lock.write_text(f"# declaration: sha256:{digest}\npeft==0.3.0\n")
    (said,) = Lookout(environments).notices()
    assert "PEFT 0.3.0 of 2024-01-02; next: peft-regress env add --missing; current is locked at PEFT 0.3.0" in said
    lock.unlink()
    assert "locked" not in Lookout(environments).notices()[0]
