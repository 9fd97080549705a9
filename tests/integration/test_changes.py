"""The measured changes are of real lines: each applies once to the installed package, and still compiles."""

from __future__ import annotations

import pytest

from benchmarks.changes import Change, changes
from harness.envs.environments import Environments

pytestmark = [pytest.mark.integration]


@pytest.mark.parametrize("change", changes(), ids=lambda change: change.id)
def test_a_change_applies(change: Change, environments: Environments) -> None:
    python = environments.build(change.home).python
    site = next((python.parent.parent / "lib").glob("python3*/site-packages"))
    compile(change.changed((site / change.file).read_text(encoding="utf-8")), change.file, "exec")
