"""Applies changes of one line each to PEFT, Transformers and bitsandbytes, and asks `check --against` about each.

    python -m benchmarks.changes [--only EXPR] [--jobs N] [--results FILE] [--again] [--list] [--page FILE]

The changes are data in benchmarks/changes/*.toml. For each one, the installed package of the baseline's environment is
copied to a temporary folder, one place is changed, and the default scope is checked. A result is one line of the
results file; a change with a line there is not run again (`--again` does). No network is needed.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.measured import harness
from harness.core import data, run_file
from harness.core.matrix import Matrix
from harness.core.run import Run
from harness.envs.environments import Environments
from harness.runner.change import touched

HERE = Path(__file__).parent / "changes"
RESULTS = HERE / "results.jsonl"
KINDS = ("break", "harmless", "rounding")
FIRST = 6
"""So many cells that `look` names are checked first."""


@dataclass(frozen=True)
class Change:
    """One change of a package.

    Attributes:
        file: in the package, as it is installed: `peft/tuners/lora/layer.py`.
        old: text that occurs once in the file, or after the first `after` in it.
        kind: `break`, `harmless` (nothing that a user sees changes), or `rounding` (only the order of operations).
        area: a method, or the part of the code.
        what: the effect, in a sentence.
        look: pattern of the scenarios to check first, for a change that many scenarios share.
    """

    id: str
    file: str
    old: str
    new: str
    kind: str
    area: str
    what: str
    after: str = ""
    look: str = ""

    @property
    def package(self) -> str:
        """`peft`, `transformers` or `bitsandbytes`."""
        return self.file.partition("/")[0]

    @property
    def home(self) -> str:
        """The environment that the package is copied from."""
        return "current-bnb" if self.package == "bitsandbytes" else "current"

    def apply(self, tree: Path) -> None:
        """Change a copy of the package.

        Raises:
            ValueError: the old text does not occur exactly once.
        """
        place = tree / self.file
        place.write_text(self.changed(place.read_text(encoding="utf-8")), encoding="utf-8")

    def changed(self, text: str) -> str:
        """The file's text with the change.

        Raises:
            ValueError: the old text does not occur, or several times without `after`.
        """
        before, anchor, rest = text.partition(self.after) if self.after else ("", "", text)
        count = rest.count(self.old)
        if count == 0 or (count > 1 and not self.after):
            raise ValueError(f"{self.id}: the old text occurs {count} times in {self.file}")
        return before + anchor + rest.replace(self.old, self.new, 1)


@dataclass(frozen=True)
class Result:
    """What the check said of one change.

    Attributes:
        commit: of peft-regress.
        scope: the words of the report.
        cells: how many were compared, of so many in the default scope: `of`.
        seconds: wall and CPU, with the time to build the environment.
        verdict: the worst new verdict; empty where nothing is red.
        first: the scenario and the probe that saw it first.
        beside: how many changes of other methods were in the same tree; then the seconds are those of all.
    """

    id: str
    commit: str
    scope: str
    cells: int
    seconds: float
    cpu_s: float
    exit_code: int
    red: int = 0
    verdict: str = ""
    first: str = ""
    sentence: str = ""
    of: int = 0
    beside: int = 0


def changes() -> list[Change]:
    """All changes, as they are declared."""
    files = sorted(set(HERE.glob("*.toml")) - {HERE / "missed.toml"})
    return [Change(**each) for file in files for each in tomllib.loads(file.read_text(encoding="utf-8"))["change"]]


def results(file: Path) -> dict[str, Result]:
    """The last result of each change."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {result.id: result for result in (Result(**json.loads(line)) for line in lines)}


def copied(changes: Sequence[Change], folder: Path) -> Path:
    """A copy of the installed package, with the changes."""
    first = changes[0]
    python = Environments(data.matrices()).build(first.home).python
    site = next((python.parent.parent / "lib").glob("python3*/site-packages"))
    tree = folder / first.id
    for place in (site / first.package, *site.glob(f"{first.package}-*.dist-info")):
        shutil.copytree(place, tree / place.name, ignore=shutil.ignore_patterns("__pycache__"))
    for change in changes:
        change.apply(tree)
    return tree


def measured(
    changes: Sequence[Change], lock: Path | None = None, *, whole: bool = False, at_once: bool = False
) -> list[Result]:
    """Check one change, or several in one tree.

    Args:
        lock: a file that is locked while a whole scope is checked, so that processes take turns.
        whole: if the cells of `look` do not see the change, check the rest of the default scope too.
        at_once: check the whole default scope, whatever `look` says.
    """
    first = changes[0]
    with tempfile.TemporaryDirectory(prefix="change-") as folder:
        tree = copied(changes, Path(folder))
        scope = _default_scope(tree, first.file) if first.look and not at_once else []
        chosen = [cell for cell in scope if re.search(first.look, cell.partition("@")[0])][:FIRST] or scope[:FIRST]
        found = _checked(changes, tree, Path(folder, "reports"), chosen)
        if whole and chosen and found[0].exit_code == 0:
            with _locked(lock):
                found = _checked(changes, tree, Path(folder, "whole"), [])
        return [replace(result, of=max(len(scope), result.cells)) for result in found]


def _default_scope(tree: Path, file: str, known: dict[str, list[str]] = {}) -> list[str]:  # noqa: B006 - a cache
    """The cells that the check of a change to a file selects; the same for all changes of the file."""
    if file not in known:
        said = harness("check", "--against", str(tree), "--dry-run").said
        found = re.findall(r"^(\S+@\S+):\S+(\[\w+\])$", said, re.MULTILINE)
        known[file] = [f"{adapter}:*{place}" for adapter, place in found]
    return known[file]


def _checked(changes: Sequence[Change], tree: Path, reports: Path, cells: Sequence[str]) -> list[Result]:
    chosen = [argument for cell in cells for argument in ("--cell", cell)]
    ran = harness("check", "--against", str(tree), "--reports", str(reports), "-q", *chosen)
    code, seconds, cpu, said = ran.code, ran.wall_s, ran.cpu_s, ran.said
    found = sorted(reports.glob("*/report.json"))
    if not found:
        return [Result(one.id, _commit(), "no report", 0, seconds, cpu, code, sentence=said[-500:]) for one in changes]
    run = run_file.load(found[-1])
    if run.against and run.against.loader:
        harness("env", "rm", run.against.loader)
    seconds, cpu = round(seconds, 1), round(cpu, 1)
    scenarios = Matrix(data.matrices()).scenarios()
    names = frozenset(path.relative_to(tree).as_posix() for path in (tree / changes[0].package).rglob("*.py"))
    files = touched.Files(names, lambda name: (tree / name).read_text(encoding="utf-8"))
    return [
        replace(_result(one, run, set(touched.of(one.package, [one.file], files, scenarios).scenarios), seconds, cpu),
                beside=len(changes) - 1)
        for one in changes
    ]  # fmt: skip


def _result(change: Change, run: Run, scenarios: Set[str], seconds: float, cpu: float) -> Result:
    """What a run says of one change, by the cells of the scenarios that it can affect."""
    cells = {cell.id: cell for cell in run.cells if cell.scenario in scenarios}
    compared = [each for each in run.comparisons if each.cell in cells]
    red = [each for each in compared if each.change == "regressed"]
    worst = min((cells[each.cell] for each in red), key=lambda cell: cell.verdict.severity, default=None)
    first = ""
    if red:
        cell = cells[red[0].cell]
        first = f"{cell.scenario}, {red[0].why or next((f'{one.probe}: {one.kind}' for one in cell.findings), '')}"
    code = run.exit_code
    if code and not red and not _reads_worse(run):  # because of another change in the tree
        unknown = any(each.unknown for each in compared) or any(cell.verdict.cannot_tell for cell in cells.values())
        code = 2 if unknown or not cells else 0
    return Result(
        change.id, _commit(), run.against.scope if run.against else "", len(cells), seconds, cpu, code, len(red),
        worst.verdict.value if worst else "", first, run.sentence,
    )  # fmt: skip


def _reads_worse(run: Run) -> bool:
    """True if released versions load worse what the change writes, and nothing else is red."""
    return run.exit_code == 1 and not any(each.change == "regressed" for each in run.comparisons)


@contextlib.contextmanager
def _locked(lock: Path | None) -> Iterator[None]:
    if lock is None:
        yield
        return
    with lock.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _commit() -> str:
    said = subprocess.run(["git", "rev-parse", "--short=8", "HEAD"], cwd=data.root(), capture_output=True, text=True)
    return said.stdout.strip()


def _selected(every: Sequence[Change], names: Sequence[str]) -> list[Change]:
    if not names:
        return list(every)
    found = (one for name in names for one in every if name in (one.id, one.kind, one.area, one.package))
    return list(dict.fromkeys(found))


def of_different_methods(changes: Sequence[Change], most: int) -> list[list[Change]]:
    """Groups of changes of one package, at most so many and one of each method."""
    groups: list[list[Change]] = []
    for change in changes:
        for group in groups:
            areas = {each.area for each in group}
            if len(group) < most and group[0].package == change.package and change.area not in areas:
                group.append(change)
                break
        else:
            groups.append([change])
    return groups


def stacks(changes: Sequence[Change]) -> list[list[Change]]:
    """One group for each package. It says which changes are not red; one of several that are red must run alone."""
    packages = dict.fromkeys(change.package for change in changes)
    return [[change for change in changes if change.package == package] for package in packages]


def main() -> int:
    """Run what has no result yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="ids, areas, kinds or packages")
    parser.add_argument("--jobs", type=int, default=1, help="checks at once (default: 1)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the results file")
    parser.add_argument("--again", action="store_true", help="also what has a result")
    parser.add_argument("--lock", type=Path, help="a file to lock during each check")
    parser.add_argument("--whole", action="store_true", help="check the whole default scope where `look` sees nothing")
    parser.add_argument("--stack", action="store_true", help="all of a package in one tree, the whole scope")
    parser.add_argument(
        "--together", type=int, default=1, metavar="N", help="so many changes of different methods in one tree"
    )
    arguments = parser.parse_args()
    known = {} if arguments.again else results(arguments.results)
    todo = [change for change in _selected(changes(), arguments.only) if change.id not in known]
    groups = stacks(todo) if arguments.stack else of_different_methods(todo, arguments.together)
    check = partial(measured, lock=arguments.lock, whole=arguments.whole, at_once=arguments.stack)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for found in pool.map(check, groups):
            with arguments.results.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(result)) + "\n" for result in found)
            for result in found:
                said = result.first or result.sentence
                print(f"{result.id}: exit {result.exit_code}, {said}, {result.seconds:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
