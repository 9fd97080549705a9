"""Makes untrusted text safe for each format, and formats numbers and counts.

Warnings, tracebacks and the names in a checkpoint come from files that anybody may have made. All functions build on
`visible`, which removes characters that move a cursor, reverse a line or end a quotation unseen. They are replaced by
readable escapes (`\\x1b`, `\\u202e`), so that a report shows that they were there.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that are escaped: controls, formats (bidi, zero width), surrogates, unassigned, line breaks."""
_ZERO_WIDTH = "\u200b"


def _escape(character: str) -> str:
    code = ord(character)
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    if named:
        return named
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def visible(text: str) -> str:
    """One line of text, with every invisible character escaped."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(c) if unicodedata.category(c) in _UNSEEN else c for c in text)


def one_line(text: str, limit: int = 300) -> str:
    """Like `visible`, but cut at a length that fits a list. The rest is counted."""
    return clip(visible(text.strip()), limit)


_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves a cursor, starts a sequence, reverses a line or ends it unseen, and what no encoding has."""


def harmless(text: str) -> str:
    """Any text for a terminal: line ends and tabs are kept, other controls become escapes."""
    return _CONTROLS.sub(lambda found: _escape(found[0]), text)


def encodable(text: str) -> str:
    """The text with lone surrogates, which UTF-8 does not have, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def visible_lines(text: str) -> str:
    """Like `visible`, but line breaks are kept and tabs become four spaces."""
    lines = text.replace("\r\n", "\n").expandtabs(4).split("\n")
    return "\n".join(visible(line) for line in lines)


def clip(text: str, limit: int) -> str:
    """The text, or its first `limit` characters. The rest is counted, unless it is no longer than the count."""
    note = f" … (+{len(text) - limit:,} characters)"
    return text if len(text) <= limit + len(note) else text[:limit] + note


def tail(text: str, lines: int) -> str:
    """The last lines of a text. The lines before are counted."""
    every = text.rstrip("\n").split("\n")
    if len(every) <= lines:
        return "\n".join(every)
    return "\n".join([f"… ({len(every) - lines:,} lines before)", *every[-lines:]])


# Markdown ------------------------------------------------------------------------------------------------------------


def code(text: str) -> str:
    """A Markdown code span that its content cannot end, also in a table cell.

    GitHub turns mentions, issue numbers and addresses into links everywhere except in code, and a mention notifies a
    stranger. Therefore all untrusted text is code. Text with a pipe becomes an HTML element, because a table looks for
    pipes before it looks for code, and Markdown parsers disagree on a backslash before a pipe.
    """
    text = visible(text).strip() or " "
    if "|" in text:
        return f"<code>{re.sub(r'[!-/:-@[-`{-~]', lambda found: f'&#{ord(found.group())};', text)}</code>"
    fence = "`" * (_longest_run(text) + 1)
    pad = " " if text[0] == "`" or text[-1] == "`" else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def fenced(text: str) -> str:
    """A Markdown code block that its content cannot end."""
    text = visible_lines(text)
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}text\n{text}\n{fence}"


def prose(text: str) -> str:
    """Text for a Markdown paragraph or table cell, without markup, mentions, references or links."""
    text = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_{}\[\]|~])", r"\\\1", text)
    text = re.sub(r"^(\s*)([#+=-]+|\d+[.)](?=\s))", rf"\1{_ZERO_WIDTH}\2", text)
    text = re.sub(r"([@#])(?=\w)", rf"\1{_ZERO_WIDTH}", text)
    return re.sub(r"(://|www)(?=[\w.])", rf"{_ZERO_WIDTH}\1{_ZERO_WIDTH}", text)


def link(address: str) -> str:
    """A Markdown link to an `https` address. Anything else is shown as code."""
    return f"<{address}>" if is_https(address) else code(address)


def is_https(address: str) -> bool:
    """True for an `https` address that needs no escapes."""
    return re.fullmatch(r"https://[A-Za-z0-9._~:/?#@!$&'*+,;=%-]+", address) is not None


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A Markdown table of texts that are Markdown already.

    Args:
        right: places of the columns that are aligned at the right.
    """
    ruler = ["--:" if place in right else "---" for place in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ruler, *rows])


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


# JUnit ---------------------------------------------------------------------------------------------------------------


def xml(text: str) -> str:
    """Text that XML 1.0 allows. The writer quotes `<` and `]]>`; it never uses CDATA."""
    return visible_lines(text)


# CSV -----------------------------------------------------------------------------------------------------------------


def field(text: str) -> str:
    """Text for a field of a table: one line that no spreadsheet reads as a formula."""
    text = visible(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


# Numbers and counts --------------------------------------------------------------------------------------------------


def number(value: float | None) -> str:
    """A number with three significant digits: `0`, `1.30e-08`, `0.125`; `–` for None."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if value == 0:
        return "0"
    return f"{value:.2e}" if abs(value) < 0.01 or abs(value) >= 10_000 else f"{value:.3g}"


def exactly(value: float | None) -> str:
    """A value of an array with all digits of float32."""
    return "–" if value is None else f"{value:.9g}"


def times(ratio: float | None) -> str:
    """An error as a multiple of its allowance: `0.31×`, `1.9e+06×`; `–` for None."""
    if ratio is None:
        return "–"
    if not math.isfinite(ratio):
        return "inf×"
    if ratio == 0:
        return "0×"
    return f"{ratio:.1e}×" if ratio >= 10_000 or ratio < 0.01 else f"{ratio:.2g}×" if ratio < 100 else f"{ratio:,.0f}×"


def place(index: Iterable[int]) -> str:
    """An index: `[0, 3, 17]`; empty for a scalar."""
    index = tuple(index)
    return f"[{', '.join(map(str, index))}]" if index else ""


def seconds(value: float) -> str:
    """A duration: `0.06 s`, `38 s`, `12 min 5 s`."""
    if value < 60:
        return f"{value:.2f} s" if value < 1 else f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s"


def many(count: int, word: str, plural: str = "") -> str:
    """A count with its noun: `1 cell`, `1,204 cells`."""
    return f"{count:,} {word if count == 1 else plural or word + 's'}"


def listed(parts: Iterable[str]) -> str:
    """A list of words: `a`, `a and b`, `a, b and c`."""
    words = [part for part in parts if part]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def similar(asked: str, known: Iterable[str], most: int = 4) -> list[str]:
    """The known names that are spelled most like the one that was asked for, the most similar first."""
    return difflib.get_close_matches(asked, list(known), n=most, cutoff=0.5)


def did_you_mean(asked: str, known: Iterable[str], quote: str = "'") -> str:
    """` (did you mean 'lora-linear'?)` if a known name is spelled like the one that was asked for; else empty."""
    close = similar(asked, known, most=1)
    return f" (did you mean {quote}{close[0]}{quote}?)" if close else ""


def enumerated(parts: Iterable[str], limit: int) -> str:
    """The first few of a list. The rest is counted."""
    words = list(parts)
    shown = ", ".join(words[:limit])
    return f"{shown} and {len(words) - limit:,} more" if len(words) > limit else shown


def first_sentence(text: str) -> str:
    """The first sentence of a text that may be broken into lines."""
    words = " ".join(text.split())
    for place, sign in enumerate(words):
        if sign in ".!?" and words[place + 1 : place + 2] in ("", " ") and not _abbreviation(words[: place + 1]):
            return words[: place + 1]
    return words


def _abbreviation(text: str) -> bool:
    """True if the text ends in a dot that ends no sentence: `e.g.`, `1.`, `vs.`"""
    last = text.split(" ")[-1].strip("(")
    return last.rstrip(".").isdigit() or last in ("e.g.", "i.e.", "vs.", "cf.")


def toml_key(key: str) -> str:
    """A key in TOML, quoted if it has to be."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_value(key)


def toml_value(value: Any) -> str:
    """A value in TOML, on one line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{toml_key(str(key))} = {toml_value(one)}" for key, one in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value).replace("\x7f", "\\u007f")
