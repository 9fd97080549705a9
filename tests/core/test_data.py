"""Where data is, in a checkout and installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import __version__
from harness.core import data
from harness.core.errors import UsageError
from tests.support.mini.world import REPOSITORY


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Our code in a folder without a repository around it; returns that folder."""
    code = tmp_path / "site-packages" / "harness"
    (code / "data" / "matrices").mkdir(parents=True)
    monkeypatch.setattr(data, "CODE", code)
    monkeypatch.setenv("PEFT_REGRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return code


def test_in_a_checkout() -> None:
    assert data.checkout() == REPOSITORY
    assert [data.matrices(), data.fixtures(), data.reports(), data.docs(), data.root()] == [
        REPOSITORY / "matrices", REPOSITORY / "fixtures", REPOSITORY / "reports", REPOSITORY / "docs", REPOSITORY,
    ]  # fmt: skip
    data.refuse_packaged(data.matrices())


def test_installed(installed: Path, tmp_path: Path) -> None:
    assert data.checkout() is None
    assert data.matrices() == installed / "data" / "matrices"
    assert data.fixtures() == tmp_path / "cache" / f"fixtures-{__version__}"
    assert data.reports() == tmp_path / "reports"
    with pytest.raises(UsageError) as caught:
        data.docs()
    assert "--out" in caught.value.next_step


def test_the_package_is_never_written_to(installed: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        data.refuse_packaged(installed / "data" / "matrices" / "envs")
    assert "--matrices" in caught.value.next_step
    data.refuse_packaged(tmp_path / "my matrices")


def test_missing_fixtures_name_both_ways_out(tmp_path: Path) -> None:
    error = data.fixtures_missing(tmp_path)
    assert "--fixtures" in error.next_step
    assert "fixtures fetch" in error.next_step


@pytest.mark.parametrize("named", ["relative", "", ".."])
def test_a_cache_home_that_is_not_absolute_is_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str
) -> None:
    monkeypatch.delenv("PEFT_REGRESS_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", named)
    assert data.cache() == tmp_path / ".cache" / "peft-regress"


def test_without_a_home_directory_the_next_step_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("PEFT_REGRESS_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(UsageError, match="no such home directory"):
        data.cache()
