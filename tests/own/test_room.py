"""Memory is estimated and looked up before anything is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.errors import HarnessError
from harness.own import room
from harness.own.room import Room

GB = 1 << 30


def machine(root: Path, available_kb: int, group: dict[str, str] | None = None) -> Path:
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable:   {available_kb} kB\n")
    for name, text in (group or {}).items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_kernel_is_asked(tmp_path: Path) -> None:
    assert room.available(machine(tmp_path, 2 << 20)) == 2 * GB
    assert room.available(tmp_path / "absent") is None


@pytest.mark.parametrize(
    "group",
    [
        {"memory.max": str(GB), "memory.current": str(GB // 2), "memory.stat": "inactive_file 100\nactive_file 11\n"},
        {
            "memory/memory.limit_in_bytes": str(GB),
            "memory/memory.usage_in_bytes": str(GB // 2),
            "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 100\ntotal_active_file 11\n",
        },
    ],
)
def test_a_container_has_less(tmp_path: Path, group: dict[str, str]) -> None:
    assert room.available(machine(tmp_path, 8 << 20, group)) == GB // 2 + 111


def test_a_limit_that_is_none_does_not_count(tmp_path: Path) -> None:
    root = machine(tmp_path, 1 << 20, {"memory.max": "max", "memory.current": "5"})
    assert room.available(root) == GB


def test_as_many_workers_as_fit() -> None:
    one = Room(10**9, 4 * GB, 60.0)
    assert room.workers(one, 3, 0, 8, 100 * GB) == 3
    assert room.workers(one, 3, 2, 8, 100 * GB) == 2
    assert room.workers(one, 3, 0, 8, 9 * GB) == 2
    assert room.workers(one, 3, 0, 8, None) == 3
    with pytest.raises(HarnessError, match="not enough memory"):
        room.workers(one, 3, 0, 8, 4 * GB)


def test_a_llama_of_7b_is_estimated() -> None:
    config = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "vocab_size": 32000}
    assert room.needed(config, 0, 32000).parameters == pytest.approx(6.74e9, rel=0.02)
    mixtral = {**config, "intermediate_size": 14336, "num_local_experts": 8}
    assert room.needed(mixtral, 0, 32000).parameters == pytest.approx(46.7e9, rel=0.05)


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0"), (960, "960"), (1_000, "1.0 thousand"), (13_400, "13 thousand"), (999_900, "1.0 million"),
     (124_000_000, "124 million"), (7_240_000_000, "7.2 billion"), (671e9, "671 billion")],
)  # fmt: skip
def test_parameters_are_said_in_a_unit_that_fits(count: float, words: str) -> None:
    assert room.rounded(count) == words
