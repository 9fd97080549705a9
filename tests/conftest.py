"""Fixtures of all tests: the mini matrix of fake libraries, see `tests/support/mini`."""

from tests.support.mini.world import created, empty, loaders, mini

__all__ = ["created", "empty", "loaders", "mini"]
