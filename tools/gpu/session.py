"""One session: checks the machine, runs the steps within the time, packs results after each step."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.gpu import machine
from tools.gpu.machine import REPOSITORY, Refused, environ
from tools.gpu.results import LOG, Archives, TooFull, figures, report
from tools.gpu.steps import STEPS, Step

OK, RED, CANNOT_TELL = 0, 1, 2
LEAST_START_S = 20.0
"""Seconds that the libraries get to import, however short the session."""
_INSTALLED = shutil.which("peft-regress")
PEFT_REGRESS: tuple[str, ...] = (_INSTALLED,) if _INSTALLED else (sys.executable, "-m", "harness")


@dataclass
class Session:
    """The steps of one session, with their clock.

    Attributes:
        out: gets at most eight files.
        work: everything else, on a disk of the machine.
        loader: the libraries that are checked, as `peft-regress check --loader` names them.
        every: check all stored adapters instead of one of each family.
        baseline: an earlier run of the first step, to compare with; empty for none.
        command: how peft-regress is run.
        end: when the whole time is over, by `time.monotonic`.
        ended: step → its exit code; None for one that was skipped or cut off.
    """

    out: Path
    work: Path
    seconds: float
    loader: str
    jobs: int = 1
    every: bool = False
    baseline: str = ""
    command: tuple[str, ...] = PEFT_REGRESS
    end: float = 0.0
    ended: dict[str, int | None] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    alone: bool = False
    """True if there is only one step, which then gets all the time."""
    full: bool = False
    """True if a result could not be written to `out`."""

    def __post_init__(self) -> None:
        self.end = time.monotonic() + self.seconds
        self.site = self.work / "site"
        self.fixtures = self.work / "own-fixtures"
        self.archives = Archives(self.work, self.fixtures, self.out)

    @property
    def left(self) -> float:
        """Seconds until the end, less what packing the last results takes."""
        return self.end - time.monotonic() - 0.02 * self.seconds

    def say(self, text: str) -> None:
        """Write a line to the log, with the seconds since the start."""
        line = f"[{self.seconds - (self.end - time.monotonic()):6.1f} s] {text}"
        with self._lock:
            print(line, flush=True)
            with contextlib.suppress(OSError), (self.out / LOG).open("a", encoding="utf-8") as log:
                log.write(line + "\n")

    def places(self, step: Step) -> dict[str, list[str]]:
        """What `{place}` in a command is replaced by."""
        return {
            "loader": [self.loader],
            "results": [str(self.work / step.name)],
            "fixtures": [str(self.fixtures)],
            "jobs": [str(self.jobs)],
            "adapters": self.adapters() if "{adapters}" in step.argv else [],
            "baseline": ["--baseline", self.baseline] if self.baseline else [],
        }

    def adapters(self) -> list[str]:
        """Options that select all stored adapters, or one of each family.

        That one is the first scenario with a fixture of PEFT 0.6.1; of a newer family, of its oldest creator.
        """
        if self.every:
            return ["--all"]
        done = subprocess.run(
            [*self.command, "list", "--json"], cwd=REPOSITORY, env=environ(self.site), capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        families: dict[str, tuple[str, str]] = {}
        for one in json.loads(done.stdout or "[]"):
            stored = [name for name in one["fixtures"] if re.fullmatch(r"v\d+", name)]
            known = families.get(one["family"])
            if stored and (known is None or (known[1] != "v061" and "v061" in stored)):
                families[one["family"]] = (one["name"], oldest(stored))
        if not families:
            raise Refused(f"no stored adapter: {done.stderr.strip()[-300:]}; expected the checkout's fixtures/")
        return [each for name, creator in families.values() for each in ("--cell", f"{name}@{creator}:*")]

    # -- steps --------------------------------------------------------------------------------------------------------

    def run(self, steps: Sequence[Step], packages: Mapping[str, str]) -> None:
        """Run the steps: those on the CPU beside those on the GPU, each kind in its order."""
        self.alone = len(steps) == 1
        beside = threading.Thread(target=self._each, args=([one for one in steps if one.on_cpu], packages), daemon=True)
        beside.start()
        self._each([one for one in steps if not one.on_cpu], packages)
        beside.join(max(self.left, 0))

    def _each(self, steps: Sequence[Step], packages: Mapping[str, str]) -> None:
        for step in steps:
            why = self._not_now(step, packages)
            if why:
                self.ended[step.name] = None
                self.say(f"{step.name}: skipped, {why}")
                continue
            try:
                self.ended[step.name] = self._step(step)
            except (OSError, ValueError, Refused, subprocess.SubprocessError) as error:  # costs this step alone
                self.ended[step.name] = CANNOT_TELL
                self.say(f"{step.name}: could not be run: {type(error).__name__}: {error}")
            self._pack(step)

    def _not_now(self, step: Step, packages: Mapping[str, str]) -> str:
        """Why a step is not run; empty where it is."""
        if step.needs and packages and step.needs not in packages:
            return f"{step.needs} is not installed"
        while step.after and step.after not in self.ended and self.left > 0:
            time.sleep(0.05)
        if step.after and self.ended.get(step.after) not in (OK, RED):
            return f"{step.after} has no result"
        if self.left < 0.02 * self.seconds:
            return "no time is left"
        return ""

    def _step(self, step: Step) -> int | None:
        """Run one step within its limit; returns its exit code, None if it was cut off."""
        limit = self.left if self.alone else min(step.share * self.seconds, self.left)
        places = self.places(step)
        argv = [each for part in step.argv for each in (places[part[1:-1]] if part[0] == "{" else [part])]
        folder = self.work / step.name
        folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        self.say(f"{step.name}: {step.what}; at most {limit:.0f} s")
        with (folder / "output.txt").open("w", encoding="utf-8") as output:
            output.write(f"peft-regress {' '.join(argv)}\n")
            output.flush()
            code = stopped([*self.command, *argv], environ(self.site), output, limit, max(0.02 * self.seconds, 0.5))
        before = report(self.work / step.again) if step.again else None
        how = f"exit code {code}" if code is not None else f"cut off at its limit of {limit:.0f} s"
        self.say(f"{step.name}: {how} after {time.monotonic() - started:.1f} s. {figures(folder, before)}")
        return code

    def _pack(self, step: Step) -> None:
        try:
            left_out = self.archives.pack(step.file)
        except TooFull as error:
            self.full = True
            self.say(f"{step.name}: {error}; its results stay in {self.work}")
        else:
            if left_out:
                self.say(f"{step.name}: {left_out}")


def stopped(argv: Sequence[str], environ: Mapping[str, str], output: Any, limit_s: float, grace_s: float) -> int | None:
    """Run a command to its end, or stop it and all that it started; returns its exit code, None if it was stopped."""
    process = subprocess.Popen(
        argv, cwd=REPOSITORY, env=environ, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # it writes a report of what it has
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def oldest(creators: Sequence[str]) -> str:
    """PEFT 0.6.1, else the oldest of these releases: `v0181` is 0.18.1."""
    return "v061" if "v061" in creators else min(creators, key=lambda name: (int(name[2:-1]), int(name[-1])))


@dataclass(frozen=True)
class Asked:
    """What the user asked for.

    Attributes:
        out: folder for the results.
        minutes: the whole time.
        loader: the libraries that are checked.
        wheels: folder of the carried wheels.
        only: names of the steps to run; empty for all.
        work: folder that keeps everything; None for a temporary one.
    """

    out: Path
    minutes: float
    loader: str
    wheels: Path
    jobs: int = 1
    every: bool = False
    baseline: str = ""
    only: tuple[str, ...] = ()
    work: Path | None = None


def session(asked: Asked, command: Sequence[str] = PEFT_REGRESS) -> int:
    """Check the machine, run the steps, and leave the results; returns the exit code.

    Args:
        command: how peft-regress is run.
    """
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / LOG).unlink(missing_ok=True)
    work = asked.work or Path(tempfile.mkdtemp(prefix="gpu-session-"))
    run = Session(
        asked.out, work, asked.minutes * 60, asked.loader, asked.jobs, asked.every, asked.baseline, tuple(command)
    )
    try:
        packages = _machine(run, asked)
        run.run([step for step in STEPS if not asked.only or step.name in asked.only], packages)
        return concluded(run)
    except Refused as why:
        run.say(f"could not tell: {why}")
        return CANNOT_TELL
    finally:
        if asked.work is None and not run.full:
            shutil.rmtree(work, ignore_errors=True)


def _machine(run: Session, asked: Asked) -> Mapping[str, str]:
    """Write to the log what the machine has; returns the versions of its packages.

    Raises:
        Refused: it can't do this work.
    """
    run.say(f"{asked.minutes:g} minutes; results go to {asked.out}; driver: {machine.driver() or 'no nvidia-smi'}")
    machine.must_have_room(asked.out)
    run.say(machine.install(asked.wheels, run.site))
    if not asked.loader.startswith("python:"):
        return {}  # the first step builds the environment, and says what its worker finds
    python = asked.loader.removeprefix("python:")
    packages = machine.versions(python, run.site)
    run.say("versions: " + ", ".join(f"{name} {version}" for name, version in packages.items()))
    found = machine.gpu(python, run.site, max(run.seconds / 8, LEAST_START_S), run.work)
    run.say(
        f"GPU: {found.get('name')}, architecture {found.get('capability')}, "
        f"{found.get('free_mb', 0):,} MB free of {found.get('total_mb', 0):,} MB"
    )
    return packages


def concluded(run: Session) -> int:
    """Write the last line; returns the exit code of the whole session."""
    by_code: dict[str, list[str]] = {}
    for step in STEPS:
        if step.name in run.ended:
            by_code.setdefault(_WORDS.get(run.ended[step.name], "could not tell"), []).append(step.name)
    run.say("end: " + "; ".join(f"{word}: {', '.join(names)}" for word, names in by_code.items()))
    codes = set(run.ended.values())
    return RED if RED in codes else OK if codes == {OK} else CANNOT_TELL


_WORDS = {OK: "clean", RED: "regressed", None: "skipped or cut off"}
