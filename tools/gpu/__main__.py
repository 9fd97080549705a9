"""The command line: `tools/gpu_session.sh`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tools.gpu import wheels
from tools.gpu.machine import REPOSITORY
from tools.gpu.session import Asked, session
from tools.gpu.steps import STEPS


class Parser(argparse.ArgumentParser):
    """Exits with 64 at a wrong argument: 2 is the exit code of a session that could not tell."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and where it is explained."""
        self.exit(64, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = Parser(
        prog="tools/gpu_session.sh",
        description="Runs the GPU checks on a machine with one GPU and no network, within a fixed time: the machine, "
        "one adapter of each family twice, goldens of the device class, bfloat16 and float16, bitsandbytes, and the "
        "CPU's goldens on that machine's CPU. Leaves at most eight files, the most valuable first.",
        epilog="exit codes: 0 all steps are clean, 1 something regressed, 2 could not tell: no usable GPU, no room, or "
        "a step was skipped or cut off; 64 a wrong argument\n\nsteps: " + ", ".join(step.name for step in STEPS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("command", nargs="?", choices=("run", "pack"), default="run",
                       help="run (default): on the GPU machine; pack: download the wheels that it lacks")  # fmt: skip
    found.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or "gpu-results"), metavar="DIR",
                       help="folder for the results (default: $OUT, else gpu-results)")  # fmt: skip
    found.add_argument(
        "--work", type=Path, metavar="DIR", help="keep everything that the steps write (default: nothing)"
    )
    found.add_argument("--minutes", type=_minutes, default=10.0, help="the whole time (default: 10)")
    found.add_argument("--python", default=sys.executable, help="interpreter with the libraries (default: this one)")
    found.add_argument(
        "--loader",
        default="",
        metavar="SPEC",
        help="check these libraries instead of --python's: an environment, as in check --loader",
    )
    found.add_argument(
        "--every-adapter",
        dest="every",
        action="store_true",
        help="check all stored adapters, not one of each family; give it more --minutes",
    )
    found.add_argument("--baseline", default="", metavar="RUN",
                       help="compare cuda-float32 with this earlier run of it: only what is new is red")  # fmt: skip
    found.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cells at once on the CPU")
    found.add_argument("--only", action="append", metavar="STEP", choices=[step.name for step in STEPS],
                       help="only this step (repeatable)")  # fmt: skip
    found.add_argument("--wheels", type=Path, default=REPOSITORY / ".gpu-wheels", metavar="DIR",
                       help="folder of the carried wheels (default: .gpu-wheels in the checkout)")  # fmt: skip
    found.add_argument("--python-version", default="3.12", help="pack: Python of the GPU machine (default: 3.12)")
    found.add_argument("--cuda", default="130", help="pack: CUDA version of its Torch (default: 130)")
    found.add_argument("--without-bitsandbytes", action="store_true", help="pack: leave bitsandbytes out")
    return found


def _minutes(text: str) -> float:
    value = float(text)
    if not 0 < value < 24 * 60:
        raise argparse.ArgumentTypeError(f"{text} minutes; expected more than 0 and less than a day")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parser().parse_args(argv)
    if options.command == "pack":
        return wheels.pack(options)
    loader = options.loader or f"python:{shutil.which(options.python) or options.python}"
    return session(
        Asked(
            options.out.resolve(), options.minutes, loader, options.wheels, options.jobs, options.every,
            str(Path(options.baseline).resolve()) if options.baseline else "",
            tuple(options.only or ()), options.work and options.work.resolve(),
        )
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
