"""Expressions that select by name, as pytest's -k."""

from __future__ import annotations

import pytest

from harness.core import keyword
from harness.core.errors import UsageError

NAMES = ("lora-dora@v061:current[cpu]", "lora-variants", "LoraConfig")


@pytest.mark.parametrize(
    ("text", "selects"),
    [
        ("", True),
        ("  ", True),
        ("dora", True),
        ("DORA", True),
        ("loraconfig", True),
        ("vera", False),
        ("vera or dora", True),
        ("vera and dora", False),
        ("not vera", True),
        ("not not dora", True),
        ("lora and not dora", False),
        ("vera or lora and dora", True),
        ("(vera or lora) and not (dora or loha)", False),
        ("v061:current[cpu]", True),
        ("lora-dora@v061", True),
    ],
)
def test_selects(text: str, selects: bool) -> None:
    assert keyword.parse(text)(NAMES) is selects


@pytest.mark.parametrize("text", ["or", "a or", "a b", "(a", "a)", "not", "()", "and a"])
def test_no_expression_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not an expression") as error:
        keyword.parse(text)
    assert text in error.value.found


@pytest.mark.parametrize("text", ["(" * 3000 + "a" + ")" * 3000, "not " * 20_000 + "a"], ids=["parentheses", "not"])
def test_what_is_nested_too_deeply_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="nested too deeply"):
        keyword.parse(text)


@pytest.mark.parametrize(("operator", "selects"), [("or", True), ("and", False)])
def test_an_expression_of_many_words(operator: str, selects: bool) -> None:
    """A script may name each scenario."""
    words = [f"scenario-{number}" for number in range(20_000)]
    assert keyword.parse(f" {operator} ".join([*words, "dora"]))(NAMES) is selects


def test_words() -> None:
    assert keyword.words("lokr or (lora and not dora)") == ["lokr", "lora", "dora"]
