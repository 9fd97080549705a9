"""Downloads the wheels that a GPU machine lacks."""

from __future__ import annotations

import argparse
import importlib.metadata
import subprocess
import sys
import tempfile
from pathlib import Path

CARRIED = ("pydantic", "pydantic-core", "annotated-types", "typing-inspection")
"""What peft-regress needs at run time and a machine for deep learning often lacks."""
QUANTISED = "bitsandbytes==0.50.2"
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_24", "manylinux_2_17", "manylinux2014", "manylinux1")


def pack(options: argparse.Namespace) -> int:
    """Download the wheels that the GPU machine lacks, bitsandbytes without the CUDA versions that it does not use."""
    options.wheels.mkdir(parents=True, exist_ok=True)
    for old in options.wheels.glob("*.whl"):
        old.unlink()
    for name in (*CARRIED, *([] if options.without_bitsandbytes else [QUANTISED])):
        pin = name if "==" in name else f"{name}=={importlib.metadata.version(name)}"
        command = [
            *(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"),
            *("-d", str(options.wheels), "--python-version", options.python_version, "--implementation", "cp"),
        ]
        platforms = [part for each in PLATFORMS for part in ("--platform", f"{each}_x86_64")]
        done = subprocess.run([*command, *platforms, pin], capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"gpu_session: {pin} cannot be downloaded: {done.stderr.strip()[-500:]}", file=sys.stderr)
            return 2
    for wheel in options.wheels.glob("bitsandbytes-*.whl"):
        slim(wheel, options.cuda)
    sizes = {one.name: one.stat().st_size / 2**20 for one in sorted(options.wheels.glob("*.whl"))}
    for name, size in sizes.items():
        print(f"{size:6.1f} MiB  {name}")
    print(f"{sum(sizes.values()):6.1f} MiB in {options.wheels}; take this folder along with the checkout")
    return 0


def slim(wheel: Path, cuda: str) -> None:
    """Remove the libraries of other CUDA versions from bitsandbytes' wheel: it has one for each, 60 MB in all."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "wheel", "unpack", "-d", folder, str(wheel)], check=True,
                       capture_output=True)  # fmt: skip
        (unpacked,) = Path(folder).iterdir()
        libraries = sorted((unpacked / "bitsandbytes").glob("libbitsandbytes_*"))
        kept = [one for one in libraries if f"_cuda{cuda}." in one.name or "_cpu" in one.name]
        if not any(f"_cuda{cuda}." in one.name for one in kept):
            names = ", ".join(one.name for one in libraries)
            raise SystemExit(f"gpu_session: {wheel.name} has no library for CUDA {cuda}; it has {names}; set --cuda")
        for one in set(libraries) - set(kept):
            one.unlink()
        wheel.unlink()
        subprocess.run([sys.executable, "-m", "wheel", "pack", "-d", str(wheel.parent), str(unpacked)], check=True,
                       capture_output=True)  # fmt: skip
