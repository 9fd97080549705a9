"""Plans cells, has workers replay them, and keeps the run. The library's API is here; docs/api.md describes it."""

from harness.runner.check import check, planned
from harness.runner.request import CheckRequest, Places, Selection

__all__ = ["CheckRequest", "Places", "Selection", "check", "planned"]
