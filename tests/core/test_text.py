"""Texts in other formats are read back as they were."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from harness.core import text


@pytest.mark.parametrize(
    "value",
    ['a\n"b"\\ \x7f \u202e', True, -3, 2.5, [1, [2, "x"]], {"plain_key": {"a b": 1, "c.d": [], "": "x"}}, [{"x": 0.0}]],
)
def test_a_value_in_toml_is_read_back(value: Any) -> None:
    assert tomllib.loads(f"key = {text.toml_value(value)}") == {"key": value}
