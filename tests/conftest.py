"""Fixtures of all tests: the mini matrix of fake libraries (`tests/support/mini`), and the count of core-seconds."""

import pytest

from tests.support.core_seconds import CoreSeconds
from tests.support.mini.world import created, empty, loaders, mini

__all__ = ["created", "empty", "loaders", "mini"]


def pytest_configure(config: pytest.Config) -> None:
    """Count the processor time of the run."""
    config.pluginmanager.register(CoreSeconds(config), "core-seconds")
