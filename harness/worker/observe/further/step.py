"""One step of a probe, with what it raises, warns and states as one fact."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator

from ..capture import attempt
from ..context import Context


@contextlib.contextmanager
def step(ctx: Context, probe: str, name: str) -> Iterator[dict[str, Any]]:
    """Run the body; its outcome and what it puts into the dictionary are the fact `name` of the probe.

    The fact has no traceback: two releases that raise the same error have other lines.
    """
    facts: dict[str, Any] = {}
    with attempt(probe) as tried:
        yield facts
    said = tried.as_dict()
    known = ctx.observation.load.get(ctx.precision, {}).get("warnings", ())
    if tried.warnings:
        said["warnings"] = [text for text in tried.warnings if text not in known]
    if tried.error:
        said["error"] = {key: text for key, text in tried.error.items() if key != "traceback"}
    ctx.fact(probe, name, {**said, **facts})
