"""Which releases have no environment."""

from __future__ import annotations

import pytest

from harness.envs.declaration import Declaration
from harness.envs.index import Known, Release
from harness.envs.missing_releases import lacking, missing

TODAY = "2024-05-06"


def known(*versions: str, day: str = TODAY) -> Known:
    """Releases of made-up days; a `!` after a version marks it yanked."""
    found = {v.rstrip("!"): Release(v.rstrip("!"), "2024-01-02", v.endswith("!"), ("x.whl",), "") for v in versions}
    return Known(found, day)


def declared(*versions: str, package: str = "peft") -> dict[str, Declaration]:
    return {f"e{v}": Declaration(why="x", python="3.11", pins={package: v}) for v in versions}


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


NEXT = "next: peft-regress env add --missing"


@pytest.mark.parametrize(
    ("package", "there", "said"),
    [
        ("peft", ["0.4.0"], []),
        ("peft", ["0.4.0", "0.5.0"], [f"no environment for PEFT 0.5.0 of 2024-01-02; {NEXT}"]),
        (
            "peft", [f"0.{minor}.0" for minor in range(4, 12)],
            ["no environment for PEFT 0.11.0 of 2024-01-02, PEFT 0.10.0 of 2024-01-02, PEFT 0.9.0 of 2024-01-02, "
             f"PEFT 0.8.0 of 2024-01-02 and 3 more; {NEXT}"],
        ),
        ("trl", ["0.4.0"], []),  # before the matrix begins
        ("trl", ["0.4.0", "1.17.0"], [
            "no environment for TRL 1.17.0 of 2024-01-02; next: copy the newest matrices/envs/trl-….toml and lock it"
        ]),
        ("transformers", ["9.0.0"], []),  # not every release of it has an environment
    ],
)  # fmt: skip
def test_the_sentence(package: str, there: list[str], said: list[str]) -> None:
    assert lacking({package: known(*there)}, declared("0.4.0", package=package)) == said
