"""Releases of a consumer's package that is not installed: they need an sdist, and no wheel."""

from __future__ import annotations

import pytest

from harness.core.errors import UsageError
from harness.core.verdict import Verdict
from harness.deviation.search import rows
from harness.deviation.search.outcome import Seen
from harness.envs.index import Known, Release

KNOWN = Known({
    version: Release(version, "2025-01-01", yanked=False, wheels=(), requires_python="", sdist=sdist)
    for version, sdist in (("1.0", "a" * 64), ("1.1", ""), ("1.2", "b" * 64))
})  # fmt: skip


def test_releases_with_an_sdist_are_a_row() -> None:
    row = rows.releases_between(KNOWN, "reader", "1.0", "1.2", "3.11", extracted=True)
    assert [one.version for one in row.releases] == ["1.0", "1.2"]
    assert row.left_out == {"1.1": "no sdist"}
    with pytest.raises(UsageError, match="no wheel"):
        rows.releases_between(KNOWN, "reader", "1.0", "1.2", "3.11")


def test_a_refusal_is_judged_and_does_not_deviate() -> None:
    seen = Seen(str(Verdict.REFUSED), "refused")
    assert seen.is_judged
    assert not seen.deviates
