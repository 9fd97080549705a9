"""`matrix`: every asked creator under every asked loader, old under new and new under old; the road is `check`'s."""

from __future__ import annotations

import argparse

from harness.cli import check, common
from harness.runner import grid, plan


def matrix(arguments: argparse.Namespace) -> int:
    """Replay a rectangle of creators and loaders. A loader older than what it reads is tried, whatever it lacks."""
    environments = common.environments_of(arguments)
    declared = [one.name for one in environments.status() if not one.on_demand]
    having = plan.creators_with_fixtures(common.store_of(arguments), (), environments)
    arguments.creator = list(grid.creators(arguments.creators, having))
    arguments.loader = list(grid.loaders(arguments.loaders, declared))
    arguments.forward = True
    return check.check(arguments)
