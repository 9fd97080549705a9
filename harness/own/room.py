"""How much memory and time a trial takes, and whether this machine has the memory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import HarnessError
from harness.own import layers
from harness.own.kinds import Kind, kind_of
from harness.own.layers import Config

COPIES = 6.5
"""Bases in float64 that a worker has at most at once: measured as 5.9, with one layer of a Llama of 7B."""
LIBRARIES = 700 << 20
"""Bytes of a worker that has imported its libraries."""
SECONDS = 700.0
"""Seconds of a processor for a thousand million parameters, in each environment; measured in the same way."""


@dataclass(frozen=True)
class Room:
    """What a trial takes.

    Attributes:
        parameters: of the base, estimated from its configuration.
        memory: bytes at the peak.
        seconds: for one environment, without building it.
    """

    parameters: int
    memory: int
    seconds: float

    def __str__(self) -> str:
        time = f"{max(10, round(self.seconds, -1)):.0f} s of computing"
        return (
            f"the base has about {rounded(self.parameters)} parameters; a worker needs up to "
            f"{gigabytes(self.memory)}, and each environment about {time}"
        )


def needed(config: Config, tensors: int, vocabulary: int) -> Room:
    """What the trial of an adapter takes.

    Args:
        config: the base's configuration, as it is built.
        tensors: bytes of the adapter.
        vocabulary: tokens of the base.
    """
    known = layers.sections(config)
    stacks = sum(_parameters(section) for section in known.values())
    width = max((_width(section) for section in known.values()), default=0)
    parameters = stacks + 2 * vocabulary * width
    memory = LIBRARIES + int(COPIES * 8 * parameters) + 6 * tensors
    return Room(parameters, memory, 8 + SECONDS * parameters / 1e9)


def _width(section: Config) -> int:
    return max((value for key, value in _numbers(section) if key in _HIDDEN), default=0)


_HIDDEN = ("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "width")
_INNER = re.compile(r"\w*(intermediate|inner|ffn?_dim|d_ff|ffn|feedforward)\w*")


def _numbers(section: Config) -> list[tuple[str, int]]:
    return [(key, value) for key, value in section.items() if isinstance(value, int) and not isinstance(value, bool)]


def _parameters(section: Config) -> int:
    """The parameters of a section's layers: attention, and feed-forward with its experts."""
    width, depth = _width(section), sum(layers.counts(section).values()) or 1
    inner = max((value for key, value in _numbers(section) if _INNER.fullmatch(key)), default=4 * width)
    experts = max((value for key, value in _numbers(section) if kind_of(key) is Kind.EXPERTS), default=1)
    return int(depth * (4 * width * width + 3 * width * inner * max(experts, 1)))


def available(root: Path = Path("/")) -> int | None:
    """Bytes of memory that are free, by the kernel and by the control group; None if the system does not say."""
    found = [value for value in (_mem_available(root), _group(root)) if value is not None]
    return min(found, default=None)


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")  # the kernel's files have the size 0
    except OSError:
        return ""


def _mem_available(root: Path) -> int | None:
    found = re.search(r"^MemAvailable:\s*(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    return int(found[1]) << 10 if found else None


def _group(root: Path) -> int | None:
    """What is left of the control group's limit; version 2, then version 1."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        most, now = (_text(root / "sys/fs/cgroup" / name).strip() for name in (limit, used))
        if most.isdecimal() and now.isdecimal() and int(most) < 1 << 60:
            return max(0, int(most) - int(now) + _cached((root / "sys/fs/cgroup" / limit).with_name("memory.stat")))
    return None


def _cached(stat: Path) -> int:
    """Bytes of files that the kernel keeps in memory and can drop."""
    found: dict[str, str] = dict(re.findall(r"^(\w+) (\d+)$", _text(stat), re.MULTILINE))
    kinds = ("inactive_file", "active_file")
    return sum(int(found.get(f"total_{kind}") or found.get(kind) or 0) for kind in kinds)


def workers(room: Room, cells: int, asked: int, cores: int, free: int | None) -> int:
    """How many cells run at once: as many as the memory takes.

    Raises:
        HarnessError: not even one.
    """
    wanted = min(asked or cores, cells)
    if free is None:
        return max(wanted, 1)
    most = fit(room, free)
    if most < 1:
        raise HarnessError(
            f"not enough memory: {room}, and {gigabytes(free)} are free",
            f"{gigabytes(int(room.memory / 0.9))} of free memory",
            "keep fewer layers with --layers 1, or use a machine with more memory",
        )  # fmt: skip
    return max(1, min(wanted, most))


def fit(room: Room, free: int) -> int:
    """How many workers fit into so many bytes."""
    return int(0.9 * free / room.memory)


def rounded(count: float) -> str:
    """`7.2 billion`, `13 thousand`: two digits or more."""
    units = ((" billion", 1e9), (" million", 1e6), (" thousand", 1e3))
    word, size = next((unit for unit in units if count >= 0.9995 * unit[1]), ("", 1))
    return f"{count / size:,.{0 if count >= 9.95 * size or size == 1 else 1}f}{word}"


def gigabytes(count: float) -> str:
    """`12.3 GB`."""
    return f"{count / 1e9:,.1f} GB"
