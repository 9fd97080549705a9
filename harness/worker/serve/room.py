"""The disk and the memory that cells share: the cell that uses them up is stopped, and the others run once more."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path
from typing import Iterable

from ..files import LARGEST_JSON, read_regular

LARGEST_CELL = 16 << 30
"""Bytes on disk that one cell may have. Merging a model of the Hub and saving it takes some gigabytes."""
_SPARE = 64 << 20
_SPARE_SHARE = 20
"""The disk counts as full if less than `_SPARE`, or than this part of a small disk, is free."""
_GUILTY = 10
"""Of a full disk, a cell that has this many times the spare bytes is the cause."""
FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_WORDS = (b"No space left on device", b"Disk quota exceeded", b"os error 28)", b"[Errno 28]")


def short(folder: Path) -> str:
    """How much is free where a folder is, if it is too little; else empty."""
    try:
        disk = os.statvfs(folder)
    except (AttributeError, OSError):  # Windows has no statvfs
        return ""
    free = disk.f_bavail * disk.f_frsize
    return f"the disk of {folder} is full: {free >> 20:,} MB are free" if free < _spare(disk) else ""


def guilty(folder: Path, size: int) -> bool:
    """True if a cell with that many bytes filled the disk of the folder."""
    try:
        return size >= _GUILTY * _spare(os.statvfs(folder))
    except (AttributeError, OSError):
        return False


def _spare(disk: os.statvfs_result) -> int:
    return min(_SPARE, disk.f_blocks * disk.f_frsize // _SPARE_SHARE)


def size(folders: Iterable[Path]) -> int:
    """Bytes on disk of all files in these folders."""
    total = 0
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for name in names:
                with contextlib.suppress(OSError, ValueError):
                    total += os.lstat(os.path.join(parent, name)).st_blocks * 512
    return total


def says_full(file: Path) -> bool:
    """True if an observation has an error of a full disk."""
    try:
        text = read_regular(file, LARGEST_JSON, links=False)
    except OSError:
        return False
    return any(words in text for words in _FULL_WORDS)


def kills_for_memory() -> int:
    """How often the kernel has killed a process because memory ran out; 0 where it does not say."""
    with contextlib.suppress(OSError, ValueError), open("/proc/vmstat") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
    return 0


def takes_most_memory(rss_mb: float) -> bool:
    """True if a process of that size had more than half of the machine's memory."""
    try:
        return rss_mb * 2**20 > 0.5 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return False


def first_to_be_killed() -> None:
    """Have the kernel end this process before the worker, and before the controller, when memory runs out."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
