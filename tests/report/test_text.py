"""Untrusted text can't leave the place where it is shown, in any format."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core import text
from tests.support.samples import HOSTILE

ANY = st.text() | st.text(alphabet="`|\\<>&*_[]()#@!\n\r\x1b\u202e ab1")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain ≠ Δ 漢字 😀", "plain ≠ Δ 漢字 😀"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("two\nlines\r\n", r"two\nlines\r\n"),
        ("tab\there", r"tab\there"),
        ("bidi \u202egnp.exe", r"bidi \u202egnp.exe"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("c1 \x9b31m nul \x00", r"c1 \x9b31m nul \x00"),
        ("lone \ud800", r"lone \ud800"),
        ("line\u2028separator", r"line\u2028separator"),
        ("tag \U000e0041", r"tag \U000e0041"),
    ],
)
def test_visible_shows_what_can_not_be_seen(given: str, shown: str) -> None:
    assert text.visible(given) == shown


@given(ANY)
def test_visible_leaves_one_line_that_any_terminal_and_any_file_can_take(value: str) -> None:
    shown = text.visible(value)
    assert all(unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in shown)
    assert shown == text.visible(shown)
    shown.encode()


def test_visible_lines_keep_their_breaks_and_nothing_else() -> None:
    assert text.visible_lines("a\r\nb\n\tc\x1b[0m") == "a\nb\n    c\\x1b[0m"


@given(ANY)
def test_a_code_span_ends_where_it_should(value: str) -> None:
    span = text.code(value)
    assert "\n" not in span
    assert "|" not in span
    if span.startswith("<code>"):
        assert re.fullmatch(r"<code>(&#\d+;|[^!-/:-@\[-`{-~])*</code>", span)
        return
    fence = re.match("`+", span)
    assert fence is not None
    inner = span[len(fence.group()) : -len(fence.group())]
    assert fence.group() not in re.findall("`+", inner)


@given(ANY)
def test_a_code_block_ends_where_it_should(value: str) -> None:
    lines = text.fenced(value).split("\n")
    fence = lines[-1]
    assert lines[0] == f"{fence}text"
    assert all(fence not in line for line in lines[1:-1])


@pytest.mark.parametrize("value", HOSTILE)
def test_prose_has_no_markup(value: str) -> None:
    shown = text.prose(value)
    assert "<" not in shown
    assert not re.search(r"(?<!\\)[|`*\[\]]", shown)
    assert not re.search(r"@\w|#\d|://\w|\bwww\.", shown)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("https://github.com/huggingface/peft/issues/1", "<https://github.com/huggingface/peft/issues/1>"),
        ("javascript:alert(1)", "`javascript:alert(1)`"),
        ("https://x.example/> <script>", "`https://x.example/> <script>`"),
        ("http://plain.example", "`http://plain.example`"),
    ],
)
def test_only_a_sound_address_is_a_link(value: str, shown: str) -> None:
    assert text.link(value) == shown


@pytest.mark.parametrize("value", ["=1+1", "+1", "-1", "@x", "=HYPERLINK(1)"])
def test_no_field_is_a_formula(value: str) -> None:
    assert text.field(value) == f"'{value}"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0.0, "0"),
        (1.3e-8, "1.30e-08"),
        (0.125, "0.125"),
        (12345.6, "1.23e+04"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
    ],
)
def test_number(value: float | None, shown: str) -> None:
    assert text.number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0.0, "0×"),
        (0.3125, "0.31×"),
        (31.0, "31×"),
        (950.0, "950×"),
        (1.9e6, "1.9e+06×"),
        (float("inf"), "inf×"),
        (1e-5, "1.0e-05×"),
    ],
)
def test_times(value: float | None, shown: str) -> None:
    assert text.times(value) == shown


def test_what_is_left_out_is_counted() -> None:
    assert text.clip("a" * 20, 10) == "a" * 20
    assert text.clip("a" * 1010, 10) == "a" * 10 + " … (+1,000 characters)"
    assert text.tail("a\nb\nc\n", 2) == "… (1 lines before)\nb\nc"
    assert text.enumerated(["a", "b", "c"], 2) == "a, b and 1 more"
    assert text.enumerated(["a", "b"], 2) == "a, b"


def test_words() -> None:
    assert text.listed(["a", "", "b", "c"]) == "a, b and c"
    assert text.listed([]) == ""
    assert [text.many(n, "cell") for n in (0, 1, 1204)] == ["0 cells", "1 cell", "1,204 cells"]
    assert [text.seconds(s) for s in (0.06, 3.25, 38.2, 725)] == ["0.06 s", "3.2 s", "38 s", "12 min 5 s"]
