"""Whatever a user or another program hands over: an error with three parts and its exit code, never a traceback."""

from __future__ import annotations

import errno
import io
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.cli import check_against, streams
from harness.core import files
from harness.core.errors import UsageError
from harness.core.text import harmless
from harness.worker.files import parse_json, read_json
from tests.support.mini.world import Said, World, filled, main

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
HOSTILE = "\x1b]52;c;aGk=\x07\x1b]8;;http://x\x1b\\\x1b[2J\x9b31m\r\b\u202e"


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


KINDS: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a pipe": _fifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to itself": lambda path: path.symlink_to(path),
    "huge": _huge,
}
CONTENTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "nested deeply": lambda _: b"[" * 100_000,
    "nested deeply and named": lambda _: b"x = " + b"[" * 100_000,
    "tables in tables": lambda _: b"[" + b"a." * 20_000 + b"a]\n",
    "a long number": lambda _: b'{"format": ' + b"9" * 5000 + b"}",
    "a long number and named": lambda _: b"x = " + b"9" * 5000,
    "a list": lambda _: b"[]",
    "a table": lambda _: b"{}",
    "a key twice": lambda old: old.replace(b"{", b'{"format": 1, "format": 1, ', 1),
    "nothing": lambda _: b"null",
    "a list in the place of a table": lambda _: b"scenario = [1, 2]\n",
    "a byte order mark": lambda old: b"\xef\xbb\xbf" + old,
    "UTF-16": lambda old: old.decode().encode("utf-16"),
    "no UTF-8": lambda old: old.replace(b'"', b'"\xff', 1),
    "a NUL": lambda old: old + b"\0",
    "cut": lambda old: old[: len(old) // 2],
    "twice": lambda old: old + old,
    "Windows": lambda old: old.replace(b"\n", b"\r\n"),
    "a control in a key": lambda old: old + b'\n"\\u001b]52;c;x\\u0007" = 1\n',
    "a newer format": lambda _: b'{"format": 99999}',
    "a format that is no number": lambda _: b'{"format": NaN}',
}
FILES = [
    # file, commands that read it
    ("before/report.json", ["report {root}/before", "diff {root}/before {root}/after", "show two-layers {root}/before",
                            "triage {root}/before", "check --dry-run --loader {good} --baseline {root}/before"]),
    ("matrices/scenarios/plain.toml", ["lint --matrices {root}/matrices", "list", "check --dry-run --loader {good}"]),
    ("matrices/bases/mlp.toml", ["lint --matrices {root}/matrices", "check --dry-run --loader {good}"]),
    ("matrices/breaks/x.toml", ["lint --matrices {root}/matrices", "check --dry-run --loader {good}"]),
    ("matrices/envs/current.toml", ["env list", "env gc --dry-run", "check --dry-run --loader current"]),
    ("matrices/envs/locks/current.txt", ["env list", "env gc --dry-run", "check --dry-run --loader current"]),
    ("fixtures/{old}.jsonl", ["fixtures verify", "list", "fixtures history", "check --dry-run --loader {good}"]),
    ("reports/run/plan.json", ["check --dry-run --loader {good} --resume"]),
    ("box/plan.json", ["judge {root}/box"]),
    ("box/judge.json", ["judge {root}/box"]),
]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, created: Path, loaders: Path) -> Iterator[World]:
    """A world with two runs and an exported folder. Tests restore what they replace."""
    found = filled(tmp_path_factory.mktemp("bad"), created, loaders)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEFT_REGRESS_CACHE", str(found.root / "cache"))
        patch.setenv("PIP_NO_INDEX", "1")
        for name, loader in (("before", "2.1"), ("after", "2.0")):
            found.run("check", "--loader", found.spec(loader))
            found.folder().rename(found.root / name)
        found.run("export", str(found.root / "box"), "--loader", found.spec("2.0"), "--name", "box")
        yield found


def _said(world: World, line: str) -> Said:
    words = line.format(good=world.spec("2.0"), root=world.root).split()
    ours = words[0] in ("report", "diff", "show", "lint", "repro")
    return main(*words) if ours else world.run(*words)


def _must_be_an_answer(said: Said, what: object) -> None:
    """Exit 0 or 1 with a result, 2 or 64 with found, expected and next; or the report of a run that could not tell."""
    assert said.code in (0, 1, 2, 64), (what, said)
    assert "Traceback" not in said.err
    assert not CONTROL.search(said.out + said.err), (what, said)
    if said.code in (2, 64) and "COULD NOT TELL" not in said.out:
        both = said.err + said.out
        assert "expected: " in both, (what, said)
        assert "next: " in both, (what, said)


@pytest.mark.parametrize(("file", "lines"), FILES, ids=[file for file, _ in FILES])
def test_whatever_is_in_the_place_of_a_file(world: World, file: str, lines: list[str]) -> None:
    path = world.root / file.format(old=world.name("1.0"))
    path.parent.mkdir(parents=True, exist_ok=True)
    old = path.read_bytes() if path.exists() else None
    path.unlink(missing_ok=True)
    made = KINDS | {name: lambda p, c=change: p.write_bytes(c(old or b"x = 1\n")) for name, change in CONTENTS.items()}
    try:
        for kind, make in made.items():
            make(path)
            for line in lines:
                _must_be_an_answer(_said(world, line), (kind, line))
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    finally:
        if old is not None:
            path.write_bytes(old)


LONG = "a" * 300
NAMES = [
    "~nobody-of-this-name/x",
    "..",
    "../nothing",
    "a/b",
    "a\nb",
    "-dash",
    "ü",
    "CON",
    "\udcff",
    HOSTILE,
    LONG,
    "a\u2028b",
]
OPTIONS = [
    "list -k={}", "list --family={}", "list --matrices={}", "check --loader={}", "check --creator={} --loader {good}",
    "check --cell={} --loader {good}", "check --baseline={}", "check --scenarios={}", "pair --creator={} --loader={}",
    "matrix --creators={} --loaders={}", "show {}", "show x {}", "report {}", "report {root}/before --out={}/x",
    "diff {} {root}/before", "repro {} --run {root}/before", "accept {} --run {root}/before", "triage {}", "create {}",
    "fixtures history {}", "fixtures diff {} x", "env build {}", "env lock {}",
    "export {root}/new --loader={}", "judge {}", "blame {} --run {root}/before", "lint --matrices={}",
]  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS)
def test_no_name_is_too_odd(world: World, option: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        pieces = option.replace("{root}", str(world.root)).replace("{good}", world.spec("2.0")).split()
        words = [piece.replace("{}", name) for piece in pieces]
        at = next((i for i, piece in enumerate(pieces) if piece == "{}"), len(words))
        words = [*words[:at], *words[at + 1 :], "--", name] if name.startswith("-") and at < len(words) else words
        ours = words[0] in ("report", "diff", "show", "lint", "repro") or "--matrices" in option
        said = main(*words) if ours else world.run(*words)
        _must_be_an_answer(said, words)
        assert said.code in (2, 64) or option.startswith(("list", "lint", "report", "triage", "fixtures history")), (
            words,
            said,
        )


STDIN = [
    # what is on stdin, what the message says
    (lambda: None, "names no file"),
    (lambda: _text(b""), "names no file"),
    (lambda: _text(b"a\0b\0"), "stdin has a NUL"),
    (lambda: _text(b"x" * (17 << 20)), "stdin has more than"),
]


def _text(data: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8")


@pytest.mark.parametrize(("stdin", "said"), STDIN, ids=[said for _, said in STDIN])
def test_what_is_on_stdin(monkeypatch: pytest.MonkeyPatch, stdin: Callable[[], object], said: str) -> None:
    monkeypatch.setattr("sys.stdin", stdin())
    with streams.guarded(), pytest.raises(UsageError, match=said):
        check_against._changed_files(["-"])


def test_names_on_stdin_may_be_of_any_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", _text(b"\xff.py\n"))
    with streams.guarded():
        assert check_against._changed_files(["-"]) == ("\udcff.py",)


SYSTEM = [
    # what the system refuses, exit code, what the message expects
    (OSError(errno.ENOSPC, "No space left on device", "x"), 2, "free space"),
    (OSError(errno.EROFS, "Read-only file system", "x"), 2, "can be written"),
    (PermissionError(errno.EACCES, "Permission denied", "x"), 2, "permission"),
    (OSError(errno.ENAMETOOLONG, "File name too long", "x"), 64, "255 bytes"),
    (OSError(errno.EMFILE, "Too many open files"), 2, "more open files"),
    (MemoryError(), 2, "more memory"),
]


@pytest.mark.parametrize(("error", "code", "expected"), SYSTEM, ids=[str(row[0]) or "memory" for row in SYSTEM])
def test_what_the_system_refuses_is_no_regression(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, expected: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("harness.report.write_together", refuse)
    said = world.run("check", "--loader", world.spec("2.1"), "-k", "two-layers")
    assert said.code == code, said
    assert expected in said.err
    _must_be_an_answer(said, error)


def test_a_mistake_of_ours_has_its_own_exit_code(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("harness.runner.request.Places.matrix", lambda _: {"a": 1}["no such key"])
    said = world.run("list")
    assert said.code == 70
    assert "internal error: KeyError: 'no such key'" in said.err
    assert "Traceback" not in said.err
    (saved,) = tmp_path.glob("peft-regress-error-*.txt")
    assert str(saved) in said.err
    assert "Traceback (most recent call last)" in saved.read_text()


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_together(tmp_path, {"a": b"1", "b": b"2"})
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name == "b":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        files.write_together(tmp_path, {"a": b"3", "b": b"4"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"1", "b": b"2"}


def test_a_diff_of_nothing_compared_could_not_tell(world: World) -> None:
    before = world.root / "before" / "report.json"
    other = world.root / "other.json"
    run = json.loads(before.read_text())
    run["cells"] = [cell | {"verdict": "not-comparable", "probes": {}, "findings": []} for cell in run["cells"]]
    other.write_text(json.dumps(run))
    for pair in ((before, other), (other, before), (other, other)):
        said = main("diff", *map(str, pair))
        assert said.code == 2, said
        assert "nothing was compared" in said.err
        _must_be_an_answer(said, pair)


@pytest.mark.parametrize("text", [b"[" * 100_000, b"9" * 5000, b"\xff", b"", b"\0"])
def test_json_that_cannot_be_read_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_json(text)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    _huge(tmp_path / "huge")
    with pytest.raises(OSError, match="Larger than"):
        read_json(tmp_path / "huge")


def test_no_text_controls_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert not CONTROL.search(harmless(HOSTILE))
    assert harmless("a\tb\nc ü \u200b") == "a\tb\nc ü \u200b"
    with streams.guarded() as out:
        print(HOSTILE)
        streams.console().print(HOSTILE)
        console = streams.console()
        console._force_terminal = True
        console.print(HOSTILE, style="bold")
        out.flush()
    shown = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert not CONTROL.search(shown)
    assert "]52;c;" in shown
