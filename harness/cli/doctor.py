"""`doctor`: says what is known of a saved adapter, without loading it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cli import common
from harness.cli.parser import command, where
from harness.core.errors import UsageError
from harness.core.files import expanded
from harness.envs.environments import CURRENT
from harness.own import doctor as diagnosis
from harness.own import doctor_text, target
from harness.own.target import Target
from harness.runner.request import Places


@dataclass(frozen=True)
class DoctorOptions:
    """Options of `doctor`; at most one of `to`, `installed` and `python` is given."""

    adapter: str
    to: str = ""
    installed: bool = False
    python: str = ""
    base: Path | None = None
    json: bool = False
    verbose: bool = False
    places: Places = Places()


def add_to(commands: Any) -> None:
    one = command(
        commands, "doctor", doctor, "say what is known of a saved adapter: its age, known breaks, damage",
        "  peft-regress doctor my-adapter                         for the newest libraries\n"
        "  peft-regress doctor my-adapter --installed             for the libraries of this Python\n"
        "  peft-regress doctor my-adapter --python ~/venv         for those of another Python\n"
        "  peft-regress doctor my-adapter --to peft==0.12.0       for a release\n"
        "  peft-regress doctor my-adapter --base ../Llama-2-7b    with the base's config.json, which tells more\n\n"
        "It reads adapter_config.json and the header of the tensors. It builds nothing, imports no Torch, executes\n"
        "nothing of a .bin file and uses no network. Known breaks are those that this project has measured, so an\n"
        "adapter without one may still fail: `peft-regress try` loads it and compares.\n\n"
        "exit codes:\n"
        "  0    nothing is known against it\n"
        "  1    a known break applies, or it is damaged\n"
        "  2    could not tell: a known break may apply, an unknown method, or a config that cannot be read\n"
        "  64   no adapter of PEFT, or a wrong argument",
        DoctorOptions,
        prints=True,
    )  # fmt: skip
    one.add_argument("adapter", metavar="ADAPTER", help="the folder with adapter_config.json, or a file in it")
    one.add_argument("--to", metavar="SPEC", help="the environment that is to load it (default: current)")
    one.add_argument("--installed", action="store_true", help="the libraries that this Python has are to load it")
    one.add_argument("--python", metavar="PATH", help="the libraries of another Python are to load it")
    one.add_argument("--base", metavar="DIR", help="the base model's folder or config.json; its weights are not read")
    one.add_argument("--json", action="store_true", help="print JSON")
    one.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="tell all of each break that only applies if you do something special",
    )
    where(one, fixtures=False)


def doctor(options: DoctorOptions) -> int:
    """Print what is known of a saved adapter."""
    question = diagnosis.Question(_place(options.adapter), _target(options), options.base)
    found = diagnosis.diagnose(question, options.places)
    if options.json:
        common.out_json(doctor_text.data(found))
    else:
        common.out(doctor_text.text(found, verbose=options.verbose))
    return found.exit_code


def _place(adapter: str) -> Path:
    """The path as it was given: a file in the Hub's cache is a link to a folder without the other files."""
    return expanded(adapter).absolute()


def _target(options: DoctorOptions) -> Target:
    given = [name for name in ("to", "installed", "python") if getattr(options, name)]
    if len(given) > 1:
        raise UsageError(
            f"--{given[0]} and --{given[1]}", "one environment that is to load the adapter", "leave out one of them"
        )
    if options.installed:
        return target.installed()
    environments = diagnosis.known(options.places)
    if options.python:
        return target.of_python(options.python, environments)
    return target.of_spec(options.to or CURRENT, environments)
