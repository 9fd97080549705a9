"""Folders that are no usable adapter: what is said of each, and that nothing in them is executed or changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli.main import main
from harness.own import folder
from tests.support.own.bad import NO_ADAPTER, marker
from tests.support.own.damaged import DAMAGED
from tests.support.own.folders import listing
from tests.support.own.sample import Bad, good


def written(case: Bad, parent: Path) -> tuple[Path, Path]:
    """The folder, and its base's."""
    path, base = parent / "folder", parent / "base"
    for each in (path, base):
        each.mkdir()
    case.build(path)
    (base / "config.json").write_text(json.dumps(case.base), encoding="utf-8")
    return path, base


@pytest.mark.parametrize("case", [*NO_ADAPTER, *DAMAGED], ids=lambda case: case.name)
def test_doctor_says_what_is_wrong(case: Bad, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, base = written(case, tmp_path)
    before = listing(path)

    code = main(["doctor", str(path), "--base", str(base)])
    said = "".join(capsys.readouterr())
    assert [word for word in case.words if word not in said] == []
    assert code == case.doctor, said
    assert listing(path) == before
    assert not marker(path).exists()


@pytest.mark.parametrize("case", NO_ADAPTER, ids=lambda case: case.name)
@pytest.mark.parametrize("command", ["try", "adopt"])
def test_what_cannot_be_read_is_refused_before_anything_is_built(
    command: str, case: Bad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("harness.envs.build.Builder.build", lambda *_, **__: pytest.fail("an environment is built"))
    path, base = written(case, tmp_path)
    more = ["--name", "my-case", "--to-matrices", str(tmp_path / "matrices")] if command == "adopt" else []

    code = main([command, str(path), "--base", str(base), "--reports", str(tmp_path / "reports"), *more])
    said = "".join(capsys.readouterr())
    assert [word for word in case.words if word not in said] == []
    assert code in (2, 64), said
    assert sorted(each.name for each in tmp_path.iterdir()) == ["base", "folder"]


def test_a_stray_link_to_itself_hides_nothing(tmp_path: Path) -> None:
    good(tmp_path)
    (tmp_path / "loop").symlink_to("loop")

    assert folder.read(tmp_path).unreadable is None
