"""Until when a known break counts, as a person writes it: `2027-05-31`, `+90d`, `6 months`. Pure."""

from __future__ import annotations

import calendar
import re
from datetime import date, timedelta

from harness.core.errors import UsageError

LONG_DAYS = 366
"""A date beyond that is accepted with a note: nobody would look at the break again."""
DEFAULT_MONTHS = 6
"""What a draft suggests."""
FORMS = "the last day on which it is valid (2027-05-31), or a period: 90d, 12 weeks, 6 months, 1 year"
_SPAN = re.compile(r"^\+?\s*(?P<number>\d{1,4})\s*(?P<unit>d|days?|w|weeks?|m|months?|y|years?)$")


def parse(text: str, today: date) -> date:
    """The day that a text means.

    Raises:
        UsageError: it is neither a date nor a span, or the day is over.
    """
    day = _day(text.strip(), today)
    if day is None:
        raise UsageError(f"--expires {text!r} is no date", FORMS, f"for example: --expires {after(today)}")
    if day < today:
        raise UsageError(
            f"--expires {day} is past (today is {today})", "a day to come: an expired break fails the run",
            f"for example: --expires {after(today)}",
        )  # fmt: skip
    return day


def _day(text: str, today: date) -> date | None:
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            return date.fromisoformat(text)
        if found := _SPAN.match(text.lower()):
            number, unit = int(found["number"]), found["unit"][0]
            return _months_on(today, number * (12 if unit == "y" else 1)) if unit in "my" else (
                today + timedelta(days=number * (7 if unit == "w" else 1))
            )  # fmt: skip
    except (ValueError, OverflowError):  # the 31st of a short month, the year 12000
        return None
    return None


def after(today: date, months: int = DEFAULT_MONTHS) -> date:
    """The day some months on; the last of its month where that one is shorter."""
    return _months_on(today, months)


def _months_on(today: date, months: int) -> date:
    year, month = divmod(today.month - 1 + months, 12)
    year, month = today.year + year, month + 1
    return date(year, month, min(today.day, calendar.monthrange(year, month)[1]))


def remark(day: date, today: date) -> str:
    """A note about a date that is far away; empty for others."""
    if (day - today).days <= LONG_DAYS:
        return ""
    return f"it expires on {day}, more than a year from now; with an earlier date somebody checks it again"


def until(expires: str) -> str:
    """`until 2027-05-31`, or `permanently` without a date."""
    return f"until {expires}" if expires else "permanently"
