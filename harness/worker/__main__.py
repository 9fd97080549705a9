"""Starts the worker: sets the environment's variables, then serves or runs a plan."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

_PACKAGE = "peft_regress_worker"
_RESTARTED = "PEFT_REGRESS_RESTARTED"
_FOLDER = Path(__file__).resolve().parent

_EPILOG = """\
examples:
  python worker --serve --log worker.log
      as the controller starts it: JSON lines on stdin and stdout (see __init__.py)
  python worker --plan plan.json --out results
      without a controller: runs every cell of the plan, results in results/cells/<n>/;
      run the same command again to continue after an interruption
  python worker --plan plan.json --out results --device cuda -k '*lora*'
      only the cells whose id matches, on a GPU
  python worker --plan plan.json --out results --hash-seed 3
      with another hash seed, which changes the order of sets
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(argv)
    _load_package()
    numerics = importlib.import_module(_PACKAGE + ".serve.numerics")
    missing = numerics.missing(os.environ, options.hash_seed)
    if missing:
        # The hash seed and glibc's tunables are read when a process starts, so setting them here is too late.
        _restart(missing)
    # nobody may delete the environment under this process, also when its controller is gone
    importlib.import_module(_PACKAGE + ".in_use").hold_own(sys.prefix)
    if options.describe:
        return int(importlib.import_module(_PACKAGE + ".model.described").main())
    if options.serve:
        serve = importlib.import_module(_PACKAGE + ".serve.server")
        return int(serve.main(_handler_file(options), Path(options.log), _forks(options), options.cells))
    standalone = importlib.import_module(_PACKAGE + ".serve.standalone")
    return int(standalone.main(options, _handler_file(options), _forks(options)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="worker",
        description="Creates or replays adapters with the libraries of the interpreter that runs it, each in its own "
        "process. Needs only Python and these libraries. Results are judged elsewhere, by peft-regress.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--serve", action="store_true", help="serve requests from stdin, one a line")
    what.add_argument("--plan", metavar="FILE", type=Path, help="run the cells of this plan")
    what.add_argument("--describe", action="store_true", help="say what a model and a method are: JSON on stdin")
    parser.add_argument("--out", metavar="DIR", type=Path, help="with --plan: the folder for results")
    parser.add_argument(
        "-k", metavar="GLOB", default="", help="with --plan: only cells whose id matches or contains this"
    )
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="with --plan: cells at once (default 1)")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, …")
    parser.add_argument(
        "--log", metavar="FILE", default=os.devnull, help="with --serve: file for what libraries print at import"
    )
    parser.add_argument("--hash-seed", metavar="N", help="PYTHONHASHSEED of the process (default 0)")
    parser.add_argument(
        "--fork", action="store_true", default=None, help="a process per cell, even if the device is not the CPU"
    )
    parser.add_argument(
        "--no-fork", action="store_false", dest="fork", help="run the cells in this process, one by one"
    )
    parser.add_argument("--cells", default="observe", help="whose cell.py serves: observe (default), or consume")
    parser.add_argument("--handler", metavar="FILE.py", help="replaces cell.py in tests of the worker itself")
    return parser


def _load_package() -> None:
    """Make this folder importable as one package only: its modules' names must not shadow a library's."""
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != _FOLDER]
    if _PACKAGE in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(
        _PACKAGE, _FOLDER / "__init__.py", submodule_search_locations=[str(_FOLDER)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[_PACKAGE] = package
    spec.loader.exec_module(package)


def _restart(variables: dict[str, str]) -> NoReturn:
    """Run the same command line again with these variables set, once."""
    if os.environ.get(_RESTARTED):
        raise SystemExit(f"worker: cannot set these variables in this environment: {sorted(variables)}")
    environ = {**os.environ, **variables, _RESTARTED: "1"}
    command = _command_line()
    if os.name == "nt":  # there, exec ends this process and lets the new one go on behind its parent's back
        raise SystemExit(subprocess.call(command, env=environ))
    os.execve(sys.executable, command, environ)


def _command_line() -> list[str]:
    original: Any = getattr(sys, "orig_argv", None)  # Python 3.10
    if original is not None:
        return [sys.executable, *original[1:]]
    return [sys.executable, *subprocess._args_from_interpreter_flags(), *sys.argv]  # type: ignore[attr-defined]


def _handler_file(options: argparse.Namespace) -> Path | None:
    return Path(options.handler) if options.handler else None


def _forks(options: argparse.Namespace) -> bool:
    # A process that has initialised CUDA cannot fork, and a fresh context for each cell costs seconds.
    wish = options.device == "cpu" if options.fork is None else options.fork
    return bool(wish) and hasattr(os, "fork")


if __name__ == "__main__":
    if sys.version_info < (3, 8):
        raise SystemExit("worker: needs Python 3.8 or newer")
    sys.exit(main())
