"""Measures what a check costs beside what it must cost, in one run; nothing is asserted.

    python -m benchmarks.speed [PART…] [--creator v061] [--loader current] [-k EXPRESSION] [--sizes 100,1000,8000]

Parts, each of at most some minutes; default: all.

    cold     every cell computed ÷ (one import of the libraries + the cells' own compute ÷ cores)
    memory   the same, remembered ÷ cold
    change   checks of a change, by its kind: a comment, a function of a method, of shared files, a module
    peft     seconds a cell ÷ loading and comparing the same adapter as PEFT's own regression tests do
    growth   the controller's seconds for each 1,000 cells, from 100 to 8,000: journal, known breaks and reports

Figures go to benchmarks/speed.json. `python -m benchmarks.speed_page` writes docs/speed.md and the table in README.md.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import measured
from harness.core import data
from harness.core.files import write_atomically
from harness.envs.environments import Environments
from harness.runner.request import cores
from harness.store.fixtures import Store

RESULTS = Path(__file__).parent / "speed.json"
Figures = dict[str, Any]
CHANGES = {
    "a comment": ("peft/peft_model.py", ""),
    "a function of one method": ("peft/tuners/lokr/layer.py", "get_delta_weight"),
    "a function of `peft_model.py`": ("peft/peft_model.py", "load_adapter"),
    "a function of `save_and_load.py`": ("peft/utils/save_and_load.py", "set_peft_model_state_dict"),
    "the module level of a method": ("peft/tuners/lora/layer.py", "<module>"),
}
"""Kind of change → the file, and the function that gets a statement without effect."""


def cold(options: argparse.Namespace) -> Figures:
    """The job with every cell computed."""
    ran, report = measured.check("--fresh", *_which(options))
    computed = [cell["compute_s"] for cell in report["cells"] if cell.get("compute_s", 0.0) > 0]
    imports = sum(seconds for name, seconds in report["timings"].items() if name.startswith("import:"))
    return {
        "seconds": ran.wall_s, "cpu_s": ran.cpu_s, "cells": len(computed), "import_s": imports,
        "compute_s": sum(computed), "cores": cores(),
    }  # fmt: skip


def memory(options: argparse.Namespace) -> Figures:
    """The same job, remembered; the first run fills the memory."""
    measured.check("--audit=0", *_which(options))
    ran, report = measured.check("--audit=0", *_which(options))
    return {"seconds": ran.wall_s, "cpu_s": ran.cpu_s, "cells": sum(bool(c.get("remembered")) for c in report["cells"])}


def change(options: argparse.Namespace) -> Figures:
    """Checks of changes that alter nothing, one of each kind; each a second time, when the baseline is remembered."""
    found: Figures = {}
    for kind, (file, function) in CHANGES.items():
        if options.kind in kind:
            first, again = (_checked(options.loader, file, function, value) for value in (0, 1))
            found[kind] = {**again, "first_s": first["seconds"]}
            _say(f"{kind}: {found[kind]}")
    return found


def _checked(loader: str, file: str, function: str, value: int) -> Figures:
    """What a check of one change took."""
    with tempfile.TemporaryDirectory(prefix="speed-") as folder:
        place = _package(loader, Path(folder)) / file
        place.write_text(edited(place.read_text(encoding="utf-8"), function, value), encoding="utf-8")
        ran, report = measured.check("--against", folder)
    against = report.get("against") or {}
    if overlay := against.get("loader"):
        measured.harness("env", "rm", overlay)
    return {
        "seconds": ran.wall_s, "cpu_s": ran.cpu_s, "cells": len(report["cells"]), "exit": ran.code,
        "remembered": against.get("remembered", 0),
    }  # fmt: skip


def edited(text: str, function: str, value: int = 0) -> str:
    """A module with a comment more, or with a statement without effect in one of its functions or at its end.

    Raises:
        ValueError: it has no such function.
    """
    if not function:
        return f"{text}\n# one comment more: {value}\n"
    if function == "<module>":
        return f"{text}\n_one_name_more = {value}\n"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            first = node.body[1 if ast.get_docstring(node) is not None and len(node.body) > 1 else 0]
            lines = text.splitlines(keepends=True)
            lines.insert(first.lineno - 1, f"{' ' * first.col_offset}_one_name_more = {value}\n")
            return "".join(lines)
    raise ValueError(f"no function {function}")


def peft(options: argparse.Namespace) -> Figures:
    """Seconds a cell, and of a loop that does what PEFT's own regression tests do with the same adapters."""
    store, places, names = Store(data.fixtures()), [], []
    with tempfile.TemporaryDirectory(prefix="speed-") as folder:
        for scenario in store.scenarios(options.creator):
            manifest = store.manifest(options.creator, scenario)
            base = manifest.resolved["base"]
            if base["kind"] == "transformers" and not base.get("code") and "causal" in base["model"].lower():
                store.materialise(manifest, Path(folder, scenario))
                names.append(scenario)
                places.append(f"{Path(folder, scenario)}:{base['model']}")
        places, names = places[: options.sample], names[: options.sample]
        python = Environments(data.matrices()).build(options.loader).python
        command = [str(python), str(Path(__file__).parent / "as_peft_does.py"), *places]
        said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout
    seconds = dict(zip(names, json.loads(said.splitlines()[-1]), strict=True))
    seconds = {name: found for name, found in seconds.items() if found is not None}
    cells = [f"--cell={name}@{options.creator}:{options.loader}[cpu]" for name in seconds]
    of = (f"--creator={options.creator}", f"--loader={options.loader}")
    _, report = measured.check("--fresh", "--jobs=1", *of, *cells)
    own = {cell["scenario"]: cell["compute_s"] for cell in report["cells"] if cell.get("compute_s")}
    both = own.keys() & seconds.keys()
    return {
        "cells": len(both), "own_s": statistics.median(own[name] for name in both),
        "peft_s": statistics.median(seconds[name] for name in both),
        "probes": statistics.median(len(c["probes"]) for c in report["cells"] if c["scenario"] in both),
    }  # fmt: skip


def growth(options: argparse.Namespace) -> Figures:
    """The controller's part of runs of several sizes, made of real cells: a process for each size."""
    _, report = measured.check("--audit=0", *_which(options))
    found: Figures = {}
    with tempfile.TemporaryDirectory(prefix="speed-") as folder:
        source = Path(folder, "report.json")
        source.write_text(json.dumps(report), encoding="utf-8")
        for size in options.sizes:
            ran = measured.command([sys.executable, "-m", "benchmarks.keeping", str(source), str(size)])
            if ran.code:
                raise SystemExit(ran.said[-2000:])
            found[str(size)] = {**json.loads(ran.said.splitlines()[-1]), "peak_mb": ran.peak_mb}
            _say(f"{size} cells: {found[str(size)]}")
    return found


PARTS: Mapping[str, Callable[[argparse.Namespace], Figures]] = {
    one.__name__: one for one in (cold, memory, change, peft, growth)
}


def ratios(found: Mapping[str, Figures]) -> dict[str, float]:
    """The ratios of the parts that were measured, by their words."""
    said: dict[str, float] = {}
    if one := found.get("cold"):
        least = one["import_s"] + one["compute_s"] / one["cores"]
        said["cold ÷ (one import + compute ÷ cores)"] = one["seconds"] / least
        if two := found.get("memory"):
            said["remembered ÷ cold"] = two["seconds"] / one["seconds"]
        for kind, three in found.get("change", {}).items():
            said[f"check of {kind} ÷ cold"] = three["seconds"] / one["seconds"]
    if one := found.get("peft"):
        said["a cell ÷ as PEFT's own tests do"] = one["own_s"] / one["peft_s"]
    if (one := found.get("growth")) and len(one) > 1:
        small, large = (one[size]["seconds"] / int(size) for size in (min(one, key=int), max(one, key=int)))
        said["controller's seconds a cell, largest ÷ smallest run"] = large / small
    return said


def _which(options: argparse.Namespace) -> list[str]:
    keyword = ["-k", options.keyword] if options.keyword else []
    return [f"--creator={options.creator}", f"--loader={options.loader}", *keyword]


def _package(loader: str, folder: Path) -> Path:
    """A copy of the loader's installed PEFT."""
    python = Environments(data.matrices()).build(loader).python
    site = next((python.parent.parent / "lib").glob("python3*/site-packages"))
    for place in (site / "peft", *site.glob("peft-*.dist-info")):
        shutil.copytree(place, folder / place.name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _sizes(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


def main() -> int:
    """Measure the parts, print the ratios, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--creator", default="v061")
    parser.add_argument("--loader", default="current")
    parser.add_argument("-k", dest="keyword", default="", help="only scenarios of which pytest's -k says so")
    parser.add_argument("--sample", type=int, default=12, metavar="N", help="adapters of the part `peft` (default: 12)")
    parser.add_argument("--kind", default="", metavar="TEXT", help="only the changes whose kind contains this")
    parser.add_argument("--sizes", type=_sizes, default=[100, 1000, 8000], metavar="N,…", help="cells of `growth`")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file of figures; parts not measured stay in it")
    options = parser.parse_args()
    if unknown := sorted(set(options.parts) - PARTS.keys()):
        parser.error(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    kept = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {"parts": {}}
    now: dict[str, Figures] = {}
    for name in options.parts or PARTS:
        _say(f"measuring {name}")
        now[name] = PARTS[name](options) | ({} if name in ("change", "growth") else {"load": os.getloadavg()[0]})
        kept["parts"][name] = {**kept["parts"].get(name, {}), **now[name]} if name == "change" else now[name]
        kept["day"], kept["cores"] = datetime.date.today().isoformat(), cores()
        write_atomically(options.out, (json.dumps(kept, indent=1) + "\n").encode())
    for label, ratio in ratios(kept["parts"]).items():
        print(f"{ratio:8.2f}  {label}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
