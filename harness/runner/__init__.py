"""Plans cells, has workers replay them, and keeps the run. The library's API is here; docs/api.md describes it."""

from harness.runner.change.check import check_change
from harness.runner.change.plan import ChangeRequest
from harness.runner.check import check, planned
from harness.runner.request import CheckRequest, Places, Selection

__all__ = ["ChangeRequest", "CheckRequest", "Places", "Selection", "check", "check_change", "planned"]
