"""What this machine's processor is, and what it can do: some kernels are chosen by that."""

from __future__ import annotations

from pathlib import Path

_LINES = ("model name", "flags", "Features", "CPU part")
"""On x86-64 the first two, on ARM the others."""


def processor() -> list[str]:
    """The lines of /proc/cpuinfo that name the processor and its features; empty where there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return sorted({line for line in lines if line.startswith(_LINES)})
