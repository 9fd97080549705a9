"""What a node is, and whether it can stand in for the controller: the same code, Python and kind of machine."""

from __future__ import annotations

import functools
import hashlib
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from harness import __version__
from harness.core import data, machine
from harness.core.errors import HarnessError


@dataclass(frozen=True)
class Facts:
    """What a node says of itself."""

    version: str
    code: str
    """SHA-256 of the files of this package."""
    python: str
    """Major and minor version."""
    system: str
    """Operating system and architecture."""
    processor: str
    kind: str
    """SHA-256 of system, processor and its features: other kinds may observe other bits."""


@functools.cache
def facts() -> Facts:
    """Of this machine. Runs on nodes too."""
    whole = hashlib.sha256()
    for path in sorted(data.CODE.rglob("*.py")):
        whole.update(path.relative_to(data.CODE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    system = f"{platform.system()} {platform.machine()}"
    lines = machine.processor()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    kind = hashlib.sha256("\n".join((system, platform.processor(), *lines)).encode()).hexdigest()
    python = ".".join(platform.python_version_tuple()[:2])
    return Facts(__version__, whole.hexdigest(), python, system, name or platform.processor(), kind)


@dataclass
class Fitting:
    """Decides which nodes are used. All of them have one kind of machine: the controller's, if any has it."""

    own: Facts
    kind: str = ""
    """The kind of machine of the nodes; empty until the first are known."""

    def choose(self, found: Mapping[str, Facts | str]) -> dict[str, str]:
        """Why each of these nodes is left out; those that fit are not in it.

        Args:
            found: address → what the node says, or why it says nothing.
        """
        unlike = {address: self.unlike(said) for address, said in found.items()}
        kinds = Counter(said.kind for address, said in found.items() if isinstance(said, Facts) and not unlike[address])
        if not self.kind and kinds:
            self.kind = self.own.kind if self.own.kind in kinds else kinds.most_common(1)[0][0]
        for address, said in found.items():
            if isinstance(said, Facts) and not unlike[address] and said.kind != self.kind:
                unlike[address] = f"another kind of machine ({said.system}, {said.processor})"
        return {address: why for address, why in unlike.items() if why}

    def unlike(self, said: Facts | str) -> str:
        """Why a process cannot read what the controller sends; empty if it can."""
        if isinstance(said, str):
            return said
        if said.python != self.own.python:
            return f"Python {said.python}, and Python {self.own.python} here"
        if said.code != self.own.code:
            here = "the same version with other files" if said.version == self.own.version else self.own.version
            return f"peft-regress {said.version}, and {here} here"
        return ""


def scheduler_does_not_fit(address: str, why: str) -> HarnessError:
    """The error for a scheduler that cannot read what is sent to the nodes."""
    return HarnessError(
        f"{address}: the scheduler: {why}", "the same peft-regress and Python as here",
        "start `dask scheduler` in an environment with this version of peft-regress",
    )  # fmt: skip


def none_fits(address: str, left_out: Mapping[str, str]) -> HarnessError:
    """The error for a cluster of which no node can be used."""
    said = "".join(f"\n  {node}: {why}" for node, why in left_out.items())
    return HarnessError(
        f"{address}: no node can be used{said}" if left_out else f"{address}: the cluster has no node",
        "a node with the same peft-regress and Python as here, and one kind of machine",
        "install the same version on the nodes and start them again" if left_out else
        "start one: dask worker HOST:PORT --nworkers 1 (docs/clusters.md)",
    )  # fmt: skip


def none_left(address: str) -> HarnessError:
    """The error for a cluster whose nodes have all ended."""
    return HarnessError(
        f"{address}: all nodes have ended, and none has started again", "a node that runs on",
        "read the nodes' output, start them again, and continue with the same command and --resume",
    )  # fmt: skip
