"""A run as one HTML page. It needs no other file, is readable without its script, and runs nothing of a checkpoint.

Three measures keep a run's text from the reader's browser: every value in the markup is escaped, the embedded data is
ASCII JSON without `<` or base64, and the page's policy allows only its own two scripts (by digest) and no request.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from harness.core.run import Run
from harness.core.text import clip, many, visible, visible_lines
from harness.report.html import data as html_data
from harness.report.html import page

_TEMPLATES = Path(__file__).parent / "templates"


def render(run: Run) -> bytes:
    """The page."""
    style, early, script = _asset("page.css"), _asset("early.js"), _asset("page.js") + _asset("drawer.js")
    data = html_data.build(run)
    text = _template().render(
        page=page.build(run),
        policy=policy(style, early, script),
        style=Markup(style),
        early=Markup(early),
        script=Markup(script),
        index=Markup(data.index),
        chunks=[Markup(chunk) for chunk in data.chunks],
    )
    return text.encode()


def policy(style: str, *scripts: str) -> str:
    """The Content-Security-Policy: this style, these scripts, and no request."""
    allowed = " ".join(map(_digest, scripts))
    sources = f"default-src 'none'; style-src {_digest(style)}; script-src {allowed}; img-src data:"
    return f"{sources}; base-uri 'none'; form-action 'none'"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@functools.cache
def _asset(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {
        "lines": _lines,
        "https": page.https,
        "count": "{:,}".format,
        "cells": _cells,
        "first_line": _first_line,
        "tabled": page.tabled,
    }
    return environment.get_template("page.html.j2")


def _shown(value: Any) -> Any:
    """A value for the markup: text with its invisible characters escaped, our own markup unchanged."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _lines(text: str) -> Markup:
    """Escaped text of several lines."""
    return escape(visible_lines(text))


def _cells(count: int) -> str:
    return many(count, "cell")


def _first_line(text: str, limit: int) -> str:
    return clip(text.split("\n", 1)[0], limit)
