"""Versions that files of users state."""

from __future__ import annotations

import pytest

from harness.core.versions import version_of


@pytest.mark.parametrize("text", ["", "newest", "0." + "9" * 5000, "\x1b[31m0.6.1"])
def test_a_text_that_states_no_version(text: str) -> None:
    assert version_of(text) is None


def test_a_development_version() -> None:
    assert str(version_of("0.18.2.dev0")) == "0.18.2.dev0"
