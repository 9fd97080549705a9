"""Known breaks for tests, from flat fields."""

from __future__ import annotations

from datetime import date
from typing import Any

from harness.judge.breaks import Break, Condition

DEFAULTS: dict[str, Any] = {
    "id": "e1", "title": "Known", "cause": "known", "references": ["https://example.org/1"],
    "expires": date(2026, 6, 1), "scenarios": ["lora-*"], "creators": "peft<0.7", "loaders": "peft>=0.7",
    "verdict": "silent-wrong",
}  # fmt: skip


def known(**fields: Any) -> Break:
    """A break with one condition; `condition=[…]` gives several. A field that is None is left out."""
    every = {key: value for key, value in (DEFAULTS | fields).items() if value is not None}
    condition = {key: every.pop(key) for key in list(every) if key in Condition.model_fields}
    return Break.model_validate({"condition": [condition]} | every)
