"""Fixtures of all tests: the mini matrix of fake libraries (`tests/support/mini`), and the count of core-seconds."""

import signal

import pytest

from tests.support.core_seconds import CoreSeconds
from tests.support.mini.world import created, empty, loaders, mini

__all__ = ["created", "empty", "loaders", "mini"]


def pytest_configure(config: pytest.Config) -> None:
    """Count the processor time of the run, and let tests interrupt processes that they start.

    A shell starts background jobs with the interrupt ignored, `nohup` ignores a hangup, and processes inherit that. A
    handler, unlike a signal that is ignored, ends with the start of another program.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    config.pluginmanager.register(CoreSeconds(config), "core-seconds")
