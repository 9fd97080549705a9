"""The notice about releases that the matrix lacks, and that asking for them delays nothing."""

from __future__ import annotations

import datetime
import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from harness.envs.declaration import Declaration
from harness.envs.environments import Environments
from harness.envs.index import Known, Release
from harness.envs.lookout import Lookout, notice
from harness.envs.newer_releases import Following, requirements

TODAY = datetime.datetime.now(datetime.UTC).date().isoformat()
BEHIND = "the matrix is behind the package index: "
COULD_NOT = "could not check whether the package index has newer releases than the matrix"
NEXT = "next: peft-regress env add --missing"


def known(*versions: str, day: str = TODAY, python: str = "") -> Known:
    """Releases of made-up days; a `!` after a version marks it yanked."""
    found = {v.rstrip("!"): Release(v.rstrip("!"), "2024-01-02", v.endswith("!"), ("x.whl",), python) for v in versions}
    return Known(found, day)


def follows(name: str = "current", admitted: str = "", **versions: str) -> Following:
    return Following(name, "3.11", versions, dict.fromkeys(versions, SpecifierSet(admitted)))


DECLARED = {"e": Declaration(why="x", python="3.11", pins={"peft": "0.4.0"})}
LOCK = "current is locked at Transformers 5.1.0, the newest is 5.2.0 of 2024-01-02; "


@pytest.mark.parametrize(
    ("answers", "locked", "why", "said"),
    [
        ({"peft": known("0.4.0")}, [follows(peft="0.4.0")], "", ""),
        (
            {"peft": known("0.4.0", "0.5.0")}, [], "",
            f"{BEHIND}no environment for PEFT 0.5.0 of 2024-01-02; {NEXT}",
        ),
        (
            {"transformers": known("5.1.0", "5.2.0")}, [follows(transformers="5.1.0")], "",
            f"{BEHIND}{LOCK}next: peft-regress env lock current",
        ),
        ({"transformers": known("5.1.0", "5.2.0rc1", "5.2.0!")}, [follows(transformers="5.1.0")], "", ""),
        ({"transformers": known("5.1.0", "5.2.0")}, [follows(peft="0.4.0")], "", ""),  # not in the lock
        ({"transformers": known("5.2.0", python=">=3.12")}, [follows(transformers="5.1.0")], "", ""),
        ({"tokenizers": known("0.9", "0.10")}, [follows(admitted="<0.10", tokenizers="0.9")], "", ""),
        (
            {"accelerate": known("1.2"), "peft": known("0.4.0", "0.4.1rc1"), "transformers": known("5.2.0")},
            [follows(accelerate="1.1", transformers="5.1.0", peft="0.4.0"),
             follows("other", accelerate="1.1", transformers="5.1.0")], "",
            f"{BEHIND}current and other are locked at Transformers 5.1.0, the newest is 5.2.0 of 2024-01-02; "
            "Accelerate 1.1, the newest is 1.2 of 2024-01-02; next: peft-regress env lock current other",
        ),
        ({}, [], "no route", f"{COULD_NOT}: no route"),
        (
            {"peft": known("0.4.0", day="2024-05-06")}, [], "no route",
            f"{COULD_NOT} (on 2024-05-06 it had none): no route",
        ),
        (
            {"peft": known("0.5.0", day="2024-05-06")}, [], "no route",
            f"{BEHIND}no environment for PEFT 0.5.0 of 2024-01-02; {NEXT} "
            "(according to the index on 2024-05-06; now: no route)",
        ),
    ],
)  # fmt: skip
def test_the_notice(answers: Mapping[str, Known], locked: list[Following], why: str, said: str) -> None:
    assert notice(answers, DECLARED, locked, TODAY, why) == said


def test_what_installed_packages_require_of_others(tmp_path: Path) -> None:
    required = {
        "one": ["tokenizers<=0.23.3,>=0.22; python_version >= '3'", "torch; extra == 'torch'", "huggingface_hub>=2"],
        "two": ["huggingface-hub<3", "tokenizers<0.1; extra == 'old'", "no requirement !"],
    }
    for name, texts in required.items():
        (tmp_path / f"{name}-1.dist-info").mkdir()
        lines = [f"Name: {name}", "Version: 1", *(f"Requires-Dist: {text}" for text in texts)]
        (tmp_path / f"{name}-1.dist-info" / "METADATA").write_text("\n".join(lines) + "\n")
    found = requirements(tmp_path, ["tokenizers", "huggingface-hub", "torch"])
    assert {name: str(one) for name, one in found.items()} == {
        "tokenizers": "<=0.23.3,>=0.22", "huggingface-hub": "<3,>=2", "torch": ""
    }  # fmt: skip


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


def follow(folder: Path, **versions: str) -> Path:
    """Declare `current` with the newest of some packages, and lock it; returns the lock."""
    envs = folder / "matrices" / "envs"
    pins = "".join(f'{package} = "newest"\n' for package in versions)
    (envs / "current.toml").write_text(f'why = "x"\npython = "3.11"\n[pins]\n{pins}')
    (envs / "locks").mkdir()
    digest = Declaration(why="x", python="3.11", pins=dict.fromkeys(versions, "newest")).digest()
    lines = [f"# declaration: sha256:{digest}", *(f"{package}=={version}" for package, version in versions.items())]
    (envs / "locks" / "current.txt").write_text("\n".join([*lines, "tokenizers==0.1", ""]))
    return envs / "locks" / "current.txt"


def said_of(environments: Environments) -> tuple[str, ...]:
    """The notices, with time for a busy machine to answer."""
    return Lookout(environments, limit_s=60, patience_s=60).notices()


def test_missing_releases_are_noticed_and_the_index_is_asked_once_a_day(open_: Callable[..., Environments]) -> None:
    (said,) = said_of(open_(lambda _: page("0.4.0", "0.5.0")))
    assert "no environment for PEFT 0.5.0" in said
    assert said_of(open_(refuse)) == (said,), "the answer of the day is good enough"


def test_there_is_no_notice_if_nothing_is_missing(open_: Callable[..., Environments]) -> None:
    assert said_of(open_(lambda _: page("0.4.0", "0.3.0rc1"))) == ()


def test_a_failed_request_gives_its_reason_in_one_line(open_: Callable[..., Environments]) -> None:
    (said,) = said_of(open_(refuse))
    assert said.startswith(f"{COULD_NOT}: https://pypi.org/simple: no route to host")
    assert "\n" not in said


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"files": 7}', b'{"files": [{"filename": 3}]}'])
def test_a_malformed_answer_becomes_a_notice(open_: Callable[..., Environments], answer: bytes) -> None:
    (said,) = said_of(open_(lambda _: answer))
    assert said.startswith(COULD_NOT)


def test_an_older_answer_is_noticed_with_its_day(open_: Callable[..., Environments], tmp_path: Path) -> None:
    open_(lambda _: page("0.5.0")).releases.ask("peft")
    kept = tmp_path / "cache" / "releases" / "peft.json"
    kept.write_text(kept.read_text().replace(TODAY, "2024-05-06"))
    (said,) = said_of(open_(refuse))
    assert "no environment for PEFT 0.5.0" in said
    assert said.endswith("(according to the index on 2024-05-06; now: https://pypi.org/simple: no route to host)")
    assert "2024-05-06" not in said_of(open_(lambda _: page("0.5.0")))[0], "asked anew, since it is not today's"


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


def test_every_package_that_a_lock_follows_is_compared(open_: Callable[..., Environments], tmp_path: Path) -> None:
    lock = follow(tmp_path, peft="0.3.0", transformers="0.4.0", accelerate="0.3.9")
    asked: list[str] = []

    def fetch(address: str) -> bytes:
        asked.append(address.rstrip("/").rpartition("/")[2])
        return page("0.4.0")

    (said,) = said_of(open_(fetch))
    assert said == (
        f"{BEHIND}current is locked at PEFT 0.3.0, the newest is 0.4.0 of 2024-01-02; "
        "Accelerate 0.3.9, the newest is 0.4.0 of 2024-01-02; next: peft-regress env lock current"
    )
    assert sorted(asked) == ["accelerate", "peft", "transformers"], "what others bring is unknown: it is not built"
    lock.unlink()
    assert said_of(open_(fetch)) == ()


def test_an_index_that_lacks_one_package_is_asked_for_the_others(
    open_: Callable[..., Environments], tmp_path: Path
) -> None:
    follow(tmp_path, transformers="0.3.0")

    def fetch(address: str) -> bytes:
        return refuse(address) if "/peft/" in address else page("0.4.0")

    (said,) = said_of(open_(fetch))
    assert "current is locked at Transformers 0.3.0, the newest is 0.4.0" in said
