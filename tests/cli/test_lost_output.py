"""The exit code of every command is the same, whatever becomes of its output."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.cli import main as cli
from tests.support.mini.world import World, filled, main

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")


def _nobody_reads(number: int) -> None:
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, number)


def _full(number: int) -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), number)


WAYS: dict[str, Callable[[], None]] = {
    "| true": lambda: _nobody_reads(1),
    ">&- 2>&-": lambda: os.closerange(1, 3),
    ">/dev/full": lambda: _full(1),
    "2>/dev/full": lambda: _full(2),
}

COMMANDS = [
    # command line ({} is a place in the world), exit code
    ("check --loader {bad}", 1),
    ("check --loader {bad} --format markdown", 1),
    ("check --loader {bad} --json", 1),
    ("check --loader {good} --co", 0),
    ("check --loader {good} --dry-run", 0),
    ("check --loader nobody", 64),
    ("pair --creator {old} --loader {bad}", 1),
    ("matrix --creators all --loaders {bad} --dry-run", 0),
    ("list", 0),
    ("list --json", 0),
    *((f"report {{root}}/before --format {name}", 0) for name in ("terminal", "markdown", "json", "html", "junit")),
    ("diff {root}/after {root}/before", 1),
    ("diff {root}/before {root}/after", 0),
    ("diff {root}/before {root}/after --format markdown", 0),
    ("show two-layers {root}/before", 0),
    ("show two-layers {root}/before --json", 0),
    ("show nothing {root}/before", 64),
    ("blame nothing --run {root}/before", 64),
    ("bisect nothing --run {root}/before", 64),
    ("repro nothing --run {root}/before", 64),
    ("accept nothing --run {root}/before", 64),
    ("triage {root}/after", 0),
    ("create {old} --dry-run", 0),
    ("fixtures verify", 0),
    ("fixtures history", 0),
    ("fixtures prune --dry-run", 0),
    ("env list", 0),
    ("env list --json", 0),
    ("env gc --dry-run", 0),
    ("export {root}/missing/file --loader nobody", 64),
    ("judge {root}/nothing", 64),
    ("lint --matrices {root}/matrices", 1),
    ("docs --check --out {root}/docs", 1),
    ("check --help", 0),
    ("chekc", 64),
]
PRINTS = ("list", "report", "show", "fixtures history", "env list")
"""What these print is all that they do: they fail where it cannot be written."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, created: Path, loaders: Path) -> Iterator[World]:
    """A world with a run that deviates and one that does not."""
    found = filled(tmp_path_factory.mktemp("lost"), created, loaders)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEFT_REGRESS_CACHE", str(found.root / "cache"))
        patch.setenv("PIP_NO_INDEX", "1")
        for name, loader in (("before", "2.1"), ("after", "2.0")):
            found.run("check", "--loader", found.spec(loader))
            found.folder().rename(found.root / name)
        yield found


def _words(world: World, line: str) -> list[str]:
    given = line.format(bad=world.spec("2.1"), good=world.spec("2.0"), old=world.spec("1.0"), root=world.root).split()
    reads = {"report", "diff", "show", "repro"} & set(given[:1]) or "--help" in given or given[0] in ("chekc", "lint")
    return given if reads else world.arguments(*given)


@pytest.mark.parametrize(("line", "code"), COMMANDS, ids=[line for line, _ in COMMANDS])
def test_the_exit_code_is_the_command_s(world: World, line: str, code: int) -> None:
    words = _words(world, line)
    said = main(*words)
    assert said.code == code, said
    for way, lose in WAYS.items():
        lost = way == ">/dev/full" and line.startswith(PRINTS) and code == 0
        ended, err = _in_a_process(lose, words)
        assert ended == (2 if lost else code), (way, err)
        assert not any(word in err for word in ("Traceback", "Error:", "Exception ignored")), (way, err)


def _in_a_process(lose: Callable[[], None], words: list[str]) -> tuple[int, str]:
    """Exit code and stderr of a command in a forked process, which ends as Python ends: it flushes its streams."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os._exit(_child(out.fileno(), err.fileno(), lose, words))
        _, status = os.waitpid(child, 0)
        err.seek(0)
        return os.waitstatus_to_exitcode(status), err.read().decode()


def _child(out: int, err: int, lose: Callable[[], None], words: list[str]) -> int:
    os.dup2(out, 1)
    os.dup2(err, 2)
    lose()
    sys.stdout, sys.stderr = _stream(1), _stream(2)
    try:
        code = cli.main(words)
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        return code
    except BaseException:  # noqa: BLE001  # whatever it is, the test shows it
        os.write(err, traceback.format_exc().encode())
        return 99


def _stream(number: int) -> io.TextIOWrapper | None:
    """As Python makes a standard stream when it starts; None for a closed one."""
    try:
        return io.TextIOWrapper(io.FileIO(number, "w", closefd=False), line_buffering=number == 2)
    except OSError:
        return None
