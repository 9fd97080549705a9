"""The mini matrix in use: folders, interpreters and the command line, as pytest fixtures (`tests/conftest.py`)."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main as cli
from harness.core import run_file
from harness.core.run import Cell, Run
from harness.judge.breaks import Condition
from harness.runner import folder as runs
from tests.support.mini import releases

HERE = Path(__file__).parent
HANDLER = HERE / "cell.py"
REPOSITORY = HERE.parents[2]
WAIT_S = 30.0


@dataclass(frozen=True)
class Said:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """What it printed, however a terminal would break it."""
        return " ".join(self.out.split())

    def __str__(self) -> str:
        return f"exit {self.code}\n--- out\n{self.out}\n--- err\n{self.err}"


@dataclass
class World:
    """Matrices, fixtures, reports and interpreters in folders of one test.

    Attributes:
        loaders: where the interpreters of all releases are; they are the same for all tests.
    """

    root: Path
    loaders: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def matrices(self) -> Path:
        """Scenarios, bases, expectations."""
        return self.root / "matrices"

    @property
    def fixtures(self) -> Path:
        """What was created."""
        return self.root / "fixtures"

    @property
    def reports(self) -> Path:
        """Where runs are written."""
        return self.root / "reports"

    @property
    def trace(self) -> Path:
        """What the workers did, a line each."""
        return self.root / "trace"

    @property
    def gate(self) -> Path:
        """What cells with the fault `wait` wait for."""
        return self.root / "gate"

    # -- the matrix -------------------------------------------------------------------------------------------------

    def spec(self, release: str) -> str:
        """A release, as a loader or creator is written."""
        return f"python:{releases_at(self.loaders, release)}"

    def name(self, release: str) -> str:
        """What that environment is called in a report."""
        import hashlib

        return f"python-{hashlib.sha256(str(releases_at(self.loaders, release)).encode()).hexdigest()[:8]}"

    def id(self, scenario: str, loader: str, creator: str = "1.0") -> str:
        """A cell's id."""
        return f"{scenario}@{self.name(creator)}:{self.name(loader)}[cpu]"

    def scenarios(self, *texts: str, file: str = "more") -> Path:
        """Writes one more file of scenarios."""
        path = self.matrices / "scenarios" / f"{file}.toml"
        path.write_text("\n".join(texts), encoding="utf-8")
        return path

    def expect(self, **fields: Any) -> None:
        """Add a known break with one condition; what is not given covers release 2.1's break."""
        stated = {
            "title": "Scaled", "cause": "Scaled by the root of r.", "references": ["https://example.org/issues/1"],
            "expires": "2999-01-01", "scenarios": ["two-layers"], "creators": "minipeft<2", "loaders": "minipeft==2.1",
            "verdict": "silent-wrong",
        } | fields  # fmt: skip
        id = stated.pop("id", "scaling")
        expires = stated.pop("expires")
        condition = {key: stated.pop(key) for key in list(stated) if key in Condition.model_fields}
        lines = [f"{key} = {json.dumps(value)}" for key, value in stated.items()] + [f"expires = {expires}"]
        lines += ["[[condition]]", *(f"{key} = {json.dumps(value)}" for key, value in condition.items())]
        (self.matrices / "breaks").mkdir(exist_ok=True)
        (self.matrices / "breaks" / f"{id}.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")

    # -- the command line -------------------------------------------------------------------------------------------

    def where(self, command: str) -> list[str]:
        """The options that lead a command into this world."""
        options = [f"--matrices={self.matrices}"]
        if command not in ("env", "accept", "triage"):
            options.append(f"--fixtures={self.fixtures}")
        if command in ("check", "pair", "matrix", "judge", "accept", "triage", "blame", "bisect"):
            options.append(f"--reports={self.reports}")
        if command in ("check", "pair", "matrix", "create", "fixtures", "blame", "bisect"):
            options.append(f"--worker-handler={HANDLER}")
        return options

    def arguments(self, *words: str) -> list[str]:
        """The whole command line of a command in this world."""
        at = 2 if words[0] in ("fixtures", "env") else 1
        cut = words.index("--") if "--" in words else len(words)
        without = {"prune", "diff", "history"} & set(words)
        where = [option for option in self.where(words[0]) if not without or "handler" not in option]
        return [*words[:at], *where, *words[at:cut], *words[cut:]]

    def run(self, *words: str) -> Said:
        """Runs a command in this process."""
        return main(*self.arguments(*words))

    def command(self, *words: str) -> list[str]:
        """The command line for a process of its own."""
        return [sys.executable, "-m", "harness", *self.arguments(*words)]

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Starts a command in a process group of its own, as a shell does."""
        process = subprocess.Popen(
            self.command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            cwd=REPOSITORY, env=self.environ(),
        )  # fmt: skip
        self.started.append(process)
        return process

    def spawn(self, *words: str) -> Said:
        """Runs a command in a process of its own, to its end."""
        return ended(self.start(*words))

    def environ(self) -> dict[str, str]:
        """The variables of a command's process.

        Without tox's and pytest's own: pytest keeps its cache in ``TOX_ENV_DIR`` where that is set, so that worlds
        tested at the same time would share what failed last.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TOX_", "PYTEST_"))}
        return {**kept, "MINI_TRACE": str(self.trace), "MINI_GATE": str(self.gate), "PYTHONPATH": str(REPOSITORY)}

    # -- what came of it --------------------------------------------------------------------------------------------

    def folder(self) -> Path:
        """The newest run's folder."""
        return max(self.reports.iterdir(), key=lambda path: path.stat().st_mtime_ns)

    def report(self) -> Run:
        """The newest run's report."""
        return run_file.load(self.folder())

    def cell(self, scenario: str) -> Cell:
        """The newest run's one cell of a scenario."""
        (found,) = (cell for cell in self.report().cells if cell.scenario == scenario)
        return found

    def verdicts(self) -> dict[str, str]:
        """Scenario → verdict in the newest run."""
        return {cell.scenario: str(cell.verdict) for cell in self.report().cells}

    def kept(self) -> list[str]:
        """The scenarios whose whole cells are on disk, in the order in which they finished."""
        return [cell.scenario for folder in sorted(self.reports.glob("*/")) for cell in runs.finished_cells(folder)]

    def traced(self, kind: str) -> list[str]:
        """What the workers said of a kind: `start` → process numbers, `replay` → scenarios."""
        lines = self.trace.read_text().splitlines() if self.trace.exists() else []
        return [line.split()[1] for line in lines if line.split()[0] == kind]

    def processes(self) -> list[int]:
        """The workers and cells that still run."""
        lines = self.trace.read_text().splitlines() if self.trace.exists() else []
        return [number for line in lines if not gone(number := int(line.split()[-1]))]


def releases_at(folder: Path, release: str) -> Path:
    """The interpreter of a release; made when it is first asked for."""
    program = folder / f"python-{release}"
    return program if program.exists() else releases.interpreter(folder, release)


def main(*arguments: str) -> Said:
    """Runs a command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(arguments)
    return Said(code, out.getvalue(), err.getvalue())


def ended(process: subprocess.Popen[str]) -> Said:
    """Waits for a command."""
    out, err = process.communicate(timeout=WAIT_S * 2)
    return Said(process.returncode, out, err)


def interrupt(process: subprocess.Popen[str]) -> Said:
    """Ctrl-C in the terminal: SIGINT to all of the process group."""
    os.killpg(process.pid, signal.SIGINT)
    return ended(process)


def until(condition: Callable[[], object], what: str = "it did not happen") -> None:
    """Waits for something that is about to happen."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """True where a process has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def scenario(name: str, fault: str = "", targets: Sequence[str] = ("layer1", "layer3"), **more: Any) -> str:
    """The text of a scenario."""
    values = {"why": "Declared by a test.", "base": "mlp", **more}
    args = {"r": 4, "alpha": 3.0, "targets": list(targets), **({"fault": fault} if fault else {})}
    given = ", ".join(f"{key} = {json.dumps(value)}" for key, value in args.items())
    fields = [f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None]
    adapter = f'adapter = {{ config = "LowRankConfig", args = {{ {given} }} }}'
    return "\n".join(["[[scenario]]", f'name = "{name}"', *fields, adapter, ""])


def _laid_out(root: Path) -> None:
    for folder in ("scenarios", "bases", "envs"):
        (root / "matrices" / folder).mkdir(parents=True)
    shutil.copy(HERE / "declared" / "plain.toml", root / "matrices" / "scenarios")
    shutil.copy(HERE / "declared" / "mlp.toml", root / "matrices" / "bases")


def filled(root: Path, created: Path, loaders: Path) -> World:
    """A world in a folder, with the fixtures of release 1.0."""
    shutil.copytree(created.parent / "matrices", root / "matrices")
    shutil.copytree(created, root / "fixtures")
    return World(root, loaders)


@pytest.fixture(scope="session")
def loaders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the interpreters of the fake releases are."""
    return tmp_path_factory.mktemp("loaders")


@pytest.fixture(scope="session")
def created(tmp_path_factory: pytest.TempPathFactory, loaders: Path) -> Path:
    """The fixtures of release 1.0, made by `create`; not to be altered."""
    world = World(tmp_path_factory.mktemp("created"), loaders)
    _laid_out(world.root)
    said = world.run("create", world.spec("1.0"))
    assert said.code == 0, said
    return world.fixtures


@pytest.fixture
def empty(tmp_path: Path, loaders: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world without fixtures."""
    world = World(tmp_path, loaders)
    _laid_out(tmp_path)
    monkeypatch.setenv("MINI_TRACE", str(world.trace))
    monkeypatch.setenv("MINI_GATE", str(world.gate))
    monkeypatch.setenv("PEFT_REGRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # no registry is asked, unless a test has one of its own
    yield world
    for process in world.started:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def mini(empty: World, created: Path) -> World:
    """A world with the fixtures of release 1.0."""
    shutil.copytree(created, empty.fixtures)
    return empty
