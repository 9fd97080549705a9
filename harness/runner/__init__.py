"""Plans cells, has workers replay them, and keeps the run. The library's API is here; docs/api.md describes it.

What a name needs is imported when the name is first used: a command that computes nothing starts faster.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.runner.change.check import check_change
    from harness.runner.change.plan import ChangeRequest
    from harness.runner.checking import check, planned
    from harness.runner.request import CheckRequest, Places, Selection

__all__ = ["ChangeRequest", "CheckRequest", "Places", "Selection", "check", "check_change", "planned"]

_WHERE = {
    "ChangeRequest": "change.plan", "CheckRequest": "request", "Places": "request", "Selection": "request",
    "check": "checking", "check_change": "change.check", "planned": "checking",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
