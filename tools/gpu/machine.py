"""What the GPU machine has, before anything is computed on it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent.parent
WORKER = REPOSITORY / "harness" / "worker"
LEAST_SPACE = 2**30
"""Bytes that must be free for results and scratch files."""
LEAST_MEMORY_MB = 800
"""Free GPU memory that the tiny models and the libraries need."""
SHOWN = ("peft", "transformers", "torch", "accelerate", "bitsandbytes", "flash_attn", "numpy", "safetensors")


class Refused(Exception):
    """The machine cannot do this work; the message says what was found, what was expected, and what to do."""


def driver() -> str:
    """What nvidia-smi says of the driver and the GPUs; empty where there is none."""
    query = "--query-gpu=name,driver_version,memory.total,memory.used,utilization.gpu,compute_mode"
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True, timeout=10, check=False
        )
        return (done.stdout or done.stderr).strip()
    return ""


def versions(python: str, site: Path) -> dict[str, str]:
    """The versions of the packages that matter, as the interpreter sees them."""
    code = (
        "import importlib.metadata as m, json, sys\n"
        "found = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(found))\n"
    )
    done = subprocess.run(
        [python, "-c", code, *SHOWN], env=environ(site), capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise Refused(f"{python} does not run: {done.stderr.strip()[-500:]}; expected a Python; set --python")
    found: dict[str, str] = json.loads(done.stdout)
    return found


def gpu(python: str, site: Path, limit_s: float, folder: Path) -> Mapping[str, Any]:
    """What the worker says of the device: name, architecture, memory. It imports the libraries for that.

    Raises:
        Refused: the libraries do not import, or the GPU is missing, busy or too small.
    """
    command = [python, str(WORKER), "--serve", "--device", "cuda", "--log", str(folder / "hello.log")]
    asked = json.dumps({"id": "hello", "kind": "hello", "device": "cuda", "preload": []}) + "\n"
    with subprocess.Popen(
        command, env=environ(site), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            worker.stdin.write(asked)
            worker.stdin.flush()  # it stays open: a worker whose requests end does not go on
        answered = bool(select.select([worker.stdout], [], [], limit_s)[0])
        line = worker.stdout.readline() if answered else ""
        worker.kill()
    if not answered:
        raise Refused(
            f"the libraries did not import, or the GPU did not answer, within {limit_s:.0f} s; "
            "expected about 20 s; look at what else uses the machine, or give more --minutes"
        )
    if not line.strip():
        raise Refused(f"the worker ended without an answer; run it alone: {shlex.join(command)}")
    reply = json.loads(line)
    if reply["outcome"] != "done":
        last = str(reply.get("detail", "")).strip().splitlines()[-1:]
        raise Refused(f"the libraries do not import: {''.join(last)}; expected Torch, Transformers and PEFT")
    found: Mapping[str, Any] = reply["facts"].get("gpu") or {}
    if not found.get("usable"):
        raise Refused(f"no usable GPU: {found.get('why', 'the worker names none')}; expected one that Torch can use")
    if found.get("free_mb", LEAST_MEMORY_MB) < LEAST_MEMORY_MB:
        raise Refused(
            f"the GPU has {found['free_mb']:,} MB free of {found.get('total_mb', 0):,} MB; "
            f"expected {LEAST_MEMORY_MB:,} MB; end what else uses it"
        )
    return found


def environ(site: Path) -> dict[str, str]:
    """The environment of every process: the checkout and the carried wheels are importable."""
    path = [str(REPOSITORY), str(site), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONDONTWRITEBYTECODE": "1"}


def install(wheels: Path, site: Path) -> str:
    """Install the carried wheels into a folder of this session; returns a line for the log."""
    site.mkdir(parents=True, exist_ok=True)
    found = sorted(wheels.glob("*.whl")) if wheels.is_dir() else []
    if not found:
        return f"no wheels in {wheels}: taking what the interpreter has"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-index",
        "--no-deps",
        "--no-compile",
        "--target",
        str(site),
    ]
    done = subprocess.run([*command, *map(str, found)], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise Refused(
            f"the carried wheels cannot be installed: {done.stderr.strip()[-500:]}; "
            f"expected wheels for this Python; run `tools/gpu_session.sh pack` again with its --python-version"
        )
    return f"installed {len(found)} carried wheels: {', '.join(one.name.split('-')[0] for one in found)}"


def must_have_room(folder: Path) -> None:
    """Refuse a disk without room for results."""
    for place in (folder, Path(tempfile.gettempdir())):
        free = shutil.disk_usage(place).free
        if free < LEAST_SPACE:
            raise Refused(
                f"{place} has {free / 2**20:,.0f} MB free; expected {LEAST_SPACE / 2**20:,.0f} MB; "
                "free some, or name another --out and TMPDIR"
            )
