"""Counts the processor time of a test run, all its processes included, and prints it at the end."""

from __future__ import annotations

import os
import resource
from collections import defaultdict
from typing import Any

import pytest

_SHOWN = 8


def spent() -> float:
    """Core-seconds that this process and its ended children took so far."""
    found = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in found)


class CoreSeconds:
    """A pytest plugin: core-seconds of the run, and of the test files that took most."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._by_file: dict[str, float] = defaultdict(float)
        self._others = 0.0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        """Count one test with its fixtures."""
        before = spent()
        result = yield
        self._by_file[item.nodeid.partition("::")[0]] += spent() - before
        return result

    def pytest_sessionfinish(self) -> None:
        """With xdist, a worker process hands over what it counted."""
        output = getattr(self._config, "workeroutput", None)
        if output is not None:
            output["core_seconds"] = (spent(), dict(self._by_file))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """With xdist, take over what a worker process counted."""
        whole, by_file = getattr(node, "workeroutput", {}).get("core_seconds", (0.0, {}))
        self._others += whole
        for name, seconds in by_file.items():
            self._by_file[name] += seconds

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the sum, and where most of it went."""
        # the workers of xdist are children of this process: their own figures are used, so don't count them twice
        own = sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) + self._others if self._others else spent()
        terminalreporter.section("core-seconds")
        for name, seconds in sorted(self._by_file.items(), key=lambda one: -one[1])[:_SHOWN]:
            terminalreporter.write_line(f"{seconds:8.1f}  {name}")
        terminalreporter.write_line(f"{own:8.1f}  all tests, on {os.cpu_count()} cores")
