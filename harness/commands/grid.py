"""`matrix`: every asked creator under every asked loader, old under new and new under old; the road is `check`'s."""

from __future__ import annotations

import argparse

from harness import planning, rectangle
from harness.commands import check, common


def matrix(arguments: argparse.Namespace) -> int:
    """Replay a rectangle of creators and loaders. A loader older than what it reads is tried, whatever it lacks."""
    environments = common.environments_of(arguments)
    declared = [one.name for one in environments.status() if not one.on_demand]
    having = planning.creators_with_fixtures(common.store_of(arguments), (), environments)
    arguments.creator = list(rectangle.creators(arguments.creators, having))
    arguments.loader = list(rectangle.loaders(arguments.loaders, declared))
    arguments.forward = True
    return check.check(arguments)
