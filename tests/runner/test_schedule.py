"""Pools begin when their cells come near, two at a time, and end with their last cell."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from harness.envs.environment import EnvFailed
from harness.runner.workers.schedule import AHEAD, Closed, Key, Pools
from tests.support.mini.world import until

A, B, C = (Key(name, "cpu") for name in "ABC")


class Fake:
    """A pool that only knows whether it is open."""

    def __init__(self, key: Key, said: list[str]) -> None:
        self.key, self.said = key, said

    def start(self) -> None:
        self.said.append(f"+{self.key.spec}")

    def close(self) -> None:
        self.said.append(f"-{self.key.spec}")


@pytest.fixture
def said() -> list[str]:
    """What was begun (+) and ended (-), in order."""
    return []


@pytest.fixture
def pools(said: list[str]) -> Iterator[Pools]:
    """Pools of fakes; closed after the test."""
    made: Callable[[Key], Any] = lambda key: Fake(key, said)  # noqa: E731
    found = Pools(made)
    yield found
    found.close()


def expect(pools: Pools, **counts: int) -> None:
    for name, count in counts.items():
        for _ in range(count):
            pools.expect(Key(name, "cpu"))


def alive(said: list[str]) -> int:
    """How many were open at once."""
    text = "".join(said)
    return max(text[:end].count("+") - text[:end].count("-") for end in range(len(text) + 1))


def test_a_pool_ends_with_its_last_cell(pools: Pools, said: list[str]) -> None:
    expect(pools, A=2)
    for left in (1, 0):
        with pools.use(A):
            assert said == ["+A"]
        pools.done(A)
        assert said == (["+A"] if left else ["+A", "-A"])
    assert pools.each() == []


def test_the_next_begins_shortly_before(pools: Pools, said: list[str]) -> None:
    expect(pools, A=AHEAD + 2, B=1, C=1)
    for _ in range(AHEAD + 1):
        with pools.use(A):
            pass
        assert "+B" not in said or pools._expected[A] <= AHEAD
        pools.done(A)
    assert said == ["+A", "+B"]
    pools.done(A)
    assert said == ["+A", "+B", "-A"]
    pools.done(B)
    assert said == ["+A", "+B", "-A", "-B", "+C"]


def test_never_more_than_two_alive(pools: Pools, said: list[str]) -> None:
    expect(pools, A=1, B=1, C=1)
    go = {key: threading.Event() for key in (A, B, C)}

    def cell(key: Key) -> None:
        with pools.use(key):
            assert go[key].wait(5)
        pools.done(key)

    with ThreadPoolExecutor(3) as threads:
        done = [threads.submit(cell, key) for key in (A, B, C)]
        until(lambda: len(said) == 2)
        go[C].set()
        assert not done[2].done()
        go[A].set()
        done[2].result(5)
        go[B].set()
    assert sorted(said) == ["+A", "+B", "+C", "-A", "-B", "-C"]
    assert alive(said) == 2


def test_where_nothing_is_at_work_nobody_waits(pools: Pools, said: list[str]) -> None:
    expect(pools, A=2, B=2, C=1)  # the rest of A and B comes after C: no room would ever be made
    for key in (A, B, C):
        with pools.use(key):
            pass
        pools.done(key)
    assert said == ["+A", "+B", "+C", "-C"]


def test_one_that_cannot_be_had_is_told_by_its_own_cells(said: list[str]) -> None:
    def make(key: Key) -> Any:
        if key == B:
            raise EnvFailed("B", "resolve", "no such release")
        return Fake(key, said)

    pools = Pools(make)
    expect(pools, A=1, B=2)
    with pools.use(A):
        pass
    pools.done(A)
    for _ in range(2):
        with pytest.raises(EnvFailed), pools.use(B):
            pass
        pools.done(B)
    assert said == ["+A", "-A"]


def test_who_waits_when_the_session_ends_is_told(pools: Pools) -> None:
    expect(pools, A=1, B=1, C=1)
    with pools.use(A), pools.use(B), ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(pools.use(C).__enter__)
        pools.close()
        with pytest.raises(Closed):
            waiting.result(5)
    with pytest.raises(Closed), pools.use(A):
        pass


def test_roles_do_not_take_each_others_room(pools: Pools, said: list[str]) -> None:
    makers = [Key(name, "cpu", "creator") for name in "XY"]
    expect(pools, A=1, B=1)
    for key in makers:
        pools.expect(key)
    with pools.use(A), pools.use(B), pools.use(makers[0]), pools.use(makers[1]):
        assert said == ["+A", "+B", "+X", "+Y"]
