"""Folders that are no usable adapter: what is said of each, and that nothing in them is executed or changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.errors import HarnessError
from harness.own import folder
from tests.support.own.bad import NO_ADAPTER, marker
from tests.support.own.folders import listing
from tests.support.own.sample import Bad, good


@pytest.mark.parametrize("case", NO_ADAPTER, ids=lambda case: case.name)
def test_a_folder_that_cannot_be_used_is_named(case: Bad, tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    case.build(path)
    before = listing(path)

    try:
        said = str(folder.read(path).unreadable)
    except HarnessError as error:
        said = str(error)
    assert [word for word in case.words if word not in said] == []
    assert "\n  next: " in said
    assert listing(path) == before
    assert not marker(path).exists()


def test_a_stray_link_to_itself_hides_nothing(tmp_path: Path) -> None:
    good(tmp_path)
    (tmp_path / "loop").symlink_to("loop")

    assert folder.read(tmp_path).unreadable is None
