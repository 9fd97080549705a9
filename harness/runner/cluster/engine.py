"""Dask, and nothing else of this package imports it. Started by its own commands (docs/clusters.md)."""

from __future__ import annotations

import contextlib
import logging
import threading
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from harness.core.errors import HarnessError, UsageError
from harness.runner.cluster import node, nodes
from harness.runner.cluster.batch import Batch, Done
from harness.runner.cluster.nodes import Facts

T = TypeVar("T")
SCHEMES = {"dask": "tcp", "dask+tls": "tls"}
_CONNECT_S = 10.0
_ANSWER_S = 60.0
"""How long the scheduler, or a node that takes files, may be silent."""
_LOGGERS = ("distributed", "distributed.client", "distributed.core", "distributed.comm", "distributed.batched")


class ClusterLost(HarnessError):
    """The scheduler cannot be reached any more."""


class NodeLost(Exception):
    """A node ended, or does not answer."""


def address_of(cluster: str) -> str:
    """Dask's address of a cluster.

    Raises:
        UsageError: it has another form.
    """
    scheme, _, place = cluster.partition("://")
    host, _, port = place.rstrip("/").rpartition(":")
    if scheme not in SCHEMES or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(
            f"--cluster {cluster!r}", "dask://HOST:PORT of a Dask scheduler, or dask+tls://HOST:PORT",
            "start one with `dask scheduler`; it prints its address as tcp://HOST:PORT",
        )  # fmt: skip
    return f"{SCHEMES[scheme]}://{host}:{port}"


class Engine:
    """The connection to a cluster.

    Args:
        heard: gets what a node says while it checks a batch: the number of the batch, and a line or nothing.

    Raises:
        UsageError: Dask is not installed, or the address has another form.
        ClusterLost: nothing answers there.
    """

    def __init__(self, cluster: str, heard: Callable[[str, str], None]) -> None:
        self.cluster = cluster
        distributed = _distributed()
        self._topic = f"peft-regress-{uuid.uuid4().hex}"
        try:
            self._client = distributed.Client(
                address_of(cluster), timeout=_CONNECT_S, set_as_default=False, name="peft-regress"
            )
            self._client.subscribe_topic(self._topic, lambda event: heard(*event[1]))
        except HarnessError:
            raise
        except Exception as error:  # Dask raises many
            raise ClusterLost(
                f"{cluster} cannot be reached: {_said(error)}", "a Dask scheduler of the same version at this address",
                "start it with `dask scheduler`, or correct the address; dask+tls:// needs Dask's TLS settings",
            ) from error  # fmt: skip

    def nodes(self) -> dict[str, int]:
        """The address of each node, and its threads.

        Raises:
            ClusterLost: the scheduler does not answer.
        """
        try:
            return dict(_within(_ANSWER_S, self._client.nthreads))
        except Exception as error:
            raise ClusterLost(
                f"{self.cluster}: the connection to the scheduler is lost: {_said(error)}", "a scheduler that runs on",
                "start the cluster again, and continue with the same command and --resume",
            ) from error  # fmt: skip

    def scheduler(self) -> Facts | str:
        """What the scheduler says of itself, or why it says nothing."""
        return _asked(lambda: _within(_ANSWER_S, lambda: self._client.run_on_scheduler(nodes.facts)))

    def facts(self, addresses: Iterable[str]) -> dict[str, Facts | str]:
        """What each node says of itself, or why it says nothing."""
        asked = list(addresses)
        with ThreadPoolExecutor(max(1, len(asked))) as threads:
            said = threads.map(lambda address: _asked(lambda: self.call(address, nodes.facts)), asked)
            return dict(zip(asked, said, strict=True))

    def call(self, address: str, function: Callable[..., T], *args: Any) -> T:
        """Call a function of ours on a node.

        Raises:
            NodeLost: it does not answer.
            Exception: what the function raises.
        """
        try:
            run = self._client.run
            found = _within(_ANSWER_S, lambda: run(function, *args, workers=[address], on_error="return"))[address]
        except Exception as error:
            raise NodeLost(f"{address} does not answer: {_said(error)}") from error
        if isinstance(found, OSError):  # Dask's own: the connection closed
            raise NodeLost(f"{address}: {_said(found)}")
        if isinstance(found, Exception):
            raise found
        result: T = found
        return result

    def run(self, address: str, batch: Batch, number: str) -> Running:
        """Begin to check a batch on a node."""
        future = self._client.submit(
            on_node, batch, self._topic, number, workers=[address], allow_other_workers=False, pure=False, retries=0,
            key=f"peft-regress-{number}-{uuid.uuid4().hex}",
        )  # fmt: skip
        return Running(future)

    def close(self) -> None:
        """End the connection; the nodes stop what they do for it."""
        with contextlib.suppress(Exception):
            _within(_CONNECT_S, lambda: self._client.close(timeout=_CONNECT_S))


class Running:
    """A batch on a node."""

    def __init__(self, future: Any) -> None:
        self._future = future

    def ended(self) -> bool:
        """True if it has a result, or an error."""
        return bool(self._future.done())

    def result(self) -> Done:
        """The result of a batch that has ended.

        Raises:
            HarnessError: the batch cannot be checked there.
            NodeLost: its node ended.
        """
        try:
            done: Done = self._future.result(timeout=_ANSWER_S)
        except HarnessError:
            raise
        except BaseException as error:
            raise NodeLost(_said(error)) from error
        return done

    def cancel(self) -> None:
        """Tell the node that the result is not needed any more."""
        with contextlib.suppress(Exception):
            self._future.cancel()


def on_node(batch: Batch, topic: str, number: str) -> Done:
    """Check a batch; what Dask runs on a node."""
    import distributed

    worker = distributed.get_worker()
    key = worker.get_current_task()

    def say(line: str) -> None:
        with contextlib.suppress(Exception):  # who listens may be gone
            worker.log_event(topic, (number, line))

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        # it closes when the scheduler has ended, and waits for us
        return worker.status.name in ("running", "paused") and task is not None and task.state == "executing"

    return node.run(batch, worker.state.nthreads, log=say, on_cell=lambda _: say(""), wanted=wanted)


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise UsageError(
            f"--cluster: Dask is not installed here ({error})", "the extra `cluster`, here and on each node",
            "pip install 'peft-regress[cluster]'",
        ) from error  # fmt: skip
    for name in _LOGGERS:  # we report what it would
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return distributed


def _asked(ask: Callable[[], Facts]) -> Facts | str:
    try:
        return ask()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is not used
        if any(name in _said(error) for name in ("ImportError", "ModuleNotFoundError", "AttributeError")):
            return "peft-regress is not installed there, or is another version"  # Dask hands on its text only
        return f"it does not answer: {_said(error)}"


def _within(seconds: float, function: Callable[[], T]) -> T:
    """What a function returns.

    Raises:
        TimeoutError: it takes longer. Its thread goes on, and does not keep the process from ending.
    """
    result: Future[T] = Future()

    def call() -> None:
        try:
            result.set_result(function())
        except BaseException as error:  # noqa: BLE001 - the caller gets it
            result.set_exception(error)

    threading.Thread(target=call, name="dask", daemon=True).start()
    return result.result(seconds)


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
