"""Environments without network, uv or libraries: uv is a function, the index a dictionary, nothing is installed."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from harness.core import data
from harness.core.errors import HarnessError, UsageError
from harness.core.lock import file_lock
from harness.envs import build
from harness.envs import lock as locks
from harness.envs.environment import EnvFailed
from harness.envs.environments import Environments
from harness.envs.installers import Outcome
from harness.worker import in_use

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
CURRENT = f"""
why = "newest"
python = "{PYTHON}"
[pins]
tiny = "newest"
held = "2.0"
[exceptions]
helper = {{ reason = "held needs it" }}
"""
PEFT_DAY, TINY_DAY = "2024-02-29T00:00:00Z", "2024-05-06T00:00:00Z"
FILES: dict[str, list[tuple[str, str, bool | str, str]]] = {
    "peft": [
        ("peft-0.9.0-py3-none-any.whl", "2024-02-28T10:00:00Z", False, ">=3.8.0"),
        ("peft-0.9.1-py3-none-any.whl", "2024-03-01T10:00:00Z", "broken", ">=3.8.0"),
        ("peft-0.9.2.tar.gz", "2024-03-02T10:00:00Z", False, ""),
        ("peft-0.9.3-py3-none-any.whl", "2024-03-02T10:00:00Z", False, ">=3.99"),
        ("peft-0.9.4-cp27-cp27m-win32.whl", "2024-03-02T10:00:00Z", False, ""),
    ],
    "tiny": [("tiny-1.0-py3-none-any.whl", "2024-05-05T10:00:00Z", False, "")],
    "held": [("held-2.0-py3-none-any.whl", "2030-01-01T10:00:00Z", False, "")],
}


def fetch(address: str) -> bytes:
    package = address.rstrip("/").rpartition("/")[2]
    if package not in FILES:
        raise OSError("404")
    keys = ("filename", "upload-time", "yanked", "requires-python")
    return json.dumps({"files": [dict(zip(keys, file, strict=True)) for file in FILES[package]]}).encode()


class FakeUv:
    """A fake uv. `fail` maps a command to the message that it fails with."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.asked: list[str] = []
        self.fail: dict[str, str] = {}
        self.fail_as_of = ""
        """Packages of this day do not go together."""
        self.solutions: dict[str, str] = {}
        self.during: Callable[[], None] = lambda: None

    def __call__(self, args: Sequence[str], folder: Path) -> Outcome:
        command = " ".join(args[:2]) if args[0] == "pip" else args[0]
        self.calls.append(list(args))
        if command == "pip compile":
            self.asked = (folder / args[-1]).read_text().split()
            limited = {item.partition("<")[0] for item in self.asked if item in self.solutions}
            wanted = [self.solutions.get(item, item) for item in self.asked if item not in limited]
            answer = [re.sub(r"^(\w+)$", r"\1==9.9", item) for item in wanted]
            (folder / args[args.index("--output-file") + 1]).write_text("\n".join(answer))
        if command == "venv":
            python = Path(args[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.symlink_to(sys.executable)
        self.during()
        said = self.fail.get(command) or ("no solution" if self.fail_as_of and self.fail_as_of in args else "")
        return Outcome(1 if said else 0, "", said or "")

    def days(self) -> list[str]:
        """The day of each resolution that has one."""
        dated = [call for call in self.calls if "--exclude-newer" in call]
        return [call[call.index("--exclude-newer") + 1] for call in dated]

    def count(self, command: str) -> int:
        return sum(" ".join(call).startswith(command) for call in self.calls)


class Room:
    """A matrices folder and a cache of its own."""

    def __init__(self, folder: Path) -> None:
        self.matrices, self.cache = folder / "matrices", folder / "cache"
        self.uv, self.log = FakeUv(), list[str]()
        self.declare("current", CURRENT)

    def declare(self, name: str, text: str) -> Path:
        path = self.matrices / "envs" / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def rule(self, condition: str, add: str, reason: str = "x") -> None:
        """Add a rule for environments that a spec pins."""
        with (self.matrices / "environment-rules.toml").open("a") as file:
            file.write(f'[[rule]]\nif = "{condition}"\nadd = "{add}"\nreason = "{reason}"\n')

    def open(self) -> Environments:
        return Environments(self.matrices, self.cache, self.log.append, uv=self.uv, fetch=fetch)

    def built(self) -> list[str]:
        return sorted(path.name for path in (self.cache / "envs").glob("*"))


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Room:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    made = Room(tmp_path)
    made.open().lock("current")
    return made


def test_a_named_environment_is_described_from_its_lock_alone(room: Room) -> None:
    found = room.open().describe("current")
    assert (found.name, found.kind, found.python) == ("current", "named", PYTHON)
    assert found.versions == {"tiny": "9.9", "held": "2.0"}
    assert room.open().locked_versions("current") == found.versions
    assert len(found.lock_digest) == 64


def test_no_lock_and_a_stale_lock_say_how_to_lock(room: Room) -> None:
    room.declare("old", CURRENT)
    with pytest.raises(EnvFailed, match=r"not locked(.|\n)*next: peft-regress env lock old"):
        room.open().describe("old")
    room.declare("current", CURRENT.replace("2.0", "2.1"))
    with pytest.raises(EnvFailed, match=r"stale(.|\n)*next: peft-regress env lock current"):
        room.open().build("current")
    status = {item.name: item for item in room.open().status()}
    assert (status["old"].locked, status["current"].locked, status["current"].stale) == (False, True, True)


def test_a_lock_that_fails_leaves_the_old_one(room: Room) -> None:
    lock = room.matrices / "envs" / "locks" / "current.txt"
    before = lock.read_text()
    room.uv.fail = {"pip compile": "because held 2.0 is gone"}
    with pytest.raises(EnvFailed, match=r"held 2\.0 is gone") as caught:
        room.open().lock("current")
    assert caught.value.stage == "resolve"
    assert lock.read_text() == before


def test_an_unknown_key_affects_only_its_own_environment(room: Room) -> None:
    room.declare("bad", CURRENT.replace("why", "wy", 1))
    status = {item.name: item for item in room.open().status()}
    assert "unknown key `wy`" in status["bad"].problem
    assert status["current"].locked
    with pytest.raises(UsageError, match=r"did you mean `why`\?"):
        room.open().describe("bad")


@pytest.mark.parametrize("method", ["describe", "build", "lock", "remove"])
def test_an_unknown_name_suggests_similar_ones(room: Room, method: str) -> None:
    with pytest.raises(UsageError, match="did you mean current"):
        getattr(room.open(), method)("curent")


def test_the_first_matrices_folder_wins_and_the_other_is_the_fallback(room: Room, tmp_path: Path) -> None:
    own = Room(tmp_path / "own")
    own.declare("mine", CURRENT)
    both = Environments(own.matrices, room.cache, fallback=room.matrices, uv=room.uv, fetch=fetch)
    (own.matrices / "envs" / "current.toml").unlink()
    assert both.names() == ["current", "mine"]
    assert both.describe("current").name == "current"
    own.declare("current", CURRENT.replace("newest", "1.5"))
    with pytest.raises(EnvFailed, match="not locked"):
        both.describe("current")


# --- pins


def test_pins_are_resolved_as_of_the_day_of_peft_with_the_templates_pins(room: Room) -> None:
    found = room.open().describe("tiny==1, peft==0.9")
    assert found.name == "peft-0.9.0+tiny-1.0"
    assert found.kind == "pins"
    assert room.uv.asked == ["held==2.0", "peft==0.9.0", "tiny==1.0"]
    assert room.uv.days() == [PEFT_DAY], "a younger pin does not move the day"
    assert room.open().describe("tiny==1").versions["tiny"] == "1.0"
    assert room.uv.days() == [PEFT_DAY, TINY_DAY]


def test_a_pin_that_nothing_of_the_day_goes_with_moves_it(room: Room) -> None:
    room.uv.fail_as_of = PEFT_DAY
    first = room.open().describe("tiny==1, peft==0.9")
    assert room.uv.days() == [PEFT_DAY, TINY_DAY]
    assert room.log[-1] == (
        "tiny 1.0 of 2024-05-05 does not work with the packages of 2024-02-28, the day of peft 0.9.0; all others are "
        "as of the later day"
    )
    count, room.log = len(room.uv.calls), []
    again = room.open()
    assert again.describe("tiny==1, peft==0.9") == first
    assert again.describe("tiny==1, peft==0.9") == first
    assert len(room.uv.calls) == count, "its lock is kept"
    assert [line.partition(" does not")[0] for line in room.log] == ["tiny 1.0 of 2024-05-05"], "once for each command"
    with pytest.raises(EnvFailed, match="no solution"):
        room.open().describe("peft==0.9")


def test_a_release_that_does_not_resolve_on_any_day_fails(room: Room) -> None:
    room.uv.fail = {"pip compile": "no solution"}
    with pytest.raises(EnvFailed, match="no solution"):
        room.open().describe("tiny==1, peft==0.9")


def test_what_the_rules_add_is_resolved_too_and_kept(room: Room) -> None:
    first = room.open().describe("peft==0.9.0")
    room.rule("peft<0.10, tiny>=9", "tiny<9")
    room.rule("peft<0.9", "never<1")
    room.rule("tiny>=9", "held<2")  # pinned by the template: it stays
    room.uv.solutions = {"tiny<9": "tiny==8.0"}
    found = room.open().describe("peft==0.9.0")
    assert first.versions["tiny"] == "9.9"
    assert (found.versions["tiny"], found.versions["held"]) == ("8.0", "2.0")
    assert "never" not in found.versions
    assert first.lock_digest != found.lock_digest, "a new rule is not passed over for a lock that is kept"
    count = len(room.uv.calls)
    assert room.open().describe("peft==0.9.0") == found
    assert len(room.uv.calls) == count
    assert room.open().describe("peft==0.9.0,tiny==1.0").versions["tiny"] == "1.0", "a pin comes before a rule"


def test_rules_go_with_the_template(room: Room, tmp_path: Path) -> None:
    room.rule("peft<0.10, tiny>=9", "tiny<9")
    room.uv.solutions = {"tiny<9": "tiny==8.0"}
    own = Environments(tmp_path / "own", room.cache, uv=room.uv, fetch=fetch, fallback=room.matrices)
    assert own.describe("peft==0.9.0").versions["tiny"] == "8.0"
    (tmp_path / "own" / "envs").mkdir(parents=True)
    (tmp_path / "own" / "envs" / "current.toml").write_text(CURRENT)
    assert own.describe("peft==0.9.0").versions["tiny"] == "9.9", "another template, other rules"


def test_an_added_release_has_what_the_rules_add_in_its_declaration(room: Room) -> None:
    room.rule("peft<0.10", "never<1", "it is needed")
    room.uv.solutions = {"never<1": "never==0.5"}
    draft = room.open().draft("peft==0.9")
    draft.write()
    assert '"never<1" = "it is needed"' in draft.path.read_text()
    assert room.open().describe("v090").versions["never"] == "0.5"


@pytest.mark.parametrize("rule", ['if = "peft"', 'if = "peft<1"\nadd = "a b"\nreason = "x"', 'if = ">>"\nadd = "a"'])
def test_a_wrong_rule_is_named(room: Room, rule: str) -> None:
    (room.matrices / "environment-rules.toml").write_text(f"[[rule]]\n{rule}\n")
    with pytest.raises(UsageError, match=r"environment-rules\.toml"):
        room.open().describe("peft==0.9.0")


@pytest.mark.parametrize("spec", ["peft==0.2.0", "tiny==1.0,peft==0.1.0", "peft==0.2 over current"])
def test_a_peft_that_is_too_old_is_refused_in_these_words(room: Room, spec: str) -> None:
    with pytest.raises(UsageError, match=r"PEFT 0\.\d(\.0)? is too old(.|\n)*expected: PEFT 0\.3 or later"):
        room.open().describe(spec)
    assert room.uv.count("pip compile") == 1, "for `current`: nothing is resolved in vain"


def test_pins_are_resolved_once(room: Room) -> None:
    first = room.open().describe("peft==0.9.0")
    count = len(room.uv.calls)
    again = Environments(room.matrices, room.cache, uv=room.uv, fetch=lambda _: pytest.fail("asked the index"))
    assert again.describe("peft==0.9.0") == first
    assert len(room.uv.calls) == count


def test_a_template_pin_that_is_pinned_alone_decides_the_day(room: Room) -> None:
    assert room.open().describe("held==2.0").name == "held-2.0"


def test_an_unknown_version_suggests_similar_ones(room: Room) -> None:
    with pytest.raises(UsageError, match=r"no release 0\.9\.9(.|\n)*did you mean 0\.9\.\d"):
        room.open().describe("peft==0.9.9")


def test_an_index_without_an_answer_is_named(room: Room) -> None:
    with pytest.raises(EnvFailed, match=r"no index says(.|\n)*404") as caught:
        room.open().describe("elsewhere==1.0")
    assert caught.value.stage == "resolve"


# --- add


def test_a_release_is_added_with_its_day_and_lock(room: Room) -> None:
    draft = room.open().draft("peft==0.9")
    assert (draft.name, draft.requirement) == ("v090", "peft==0.9.0")
    assert not draft.path.exists()
    draft.write()
    assert draft.path == room.matrices / "envs" / "v090.toml"
    assert "released = 2024-02-28" in draft.path.read_text()
    assert room.open().describe("v090").versions["peft"] == "0.9.0"
    with pytest.raises(UsageError, match=r"declared already(.|\n)*next: use it: peft-regress create v090"):
        room.open().draft("peft==0.9.0")
    draft.lock.unlink()
    with pytest.raises(UsageError, match="peft-regress env lock v090; then peft-regress create v090"):
        room.open().draft("peft==0.9.0")


@pytest.mark.parametrize(
    ("requirement", "said"),
    [
        ("peft==0.9.1", "is yanked"),
        ("peft==0.9.2", "has no wheel"),
        ("peft==0.9.3", "has no wheel"),
        ("peft==0.9.4", "has no wheel"),
        ("peft==7", "has no release 7"),
        ("tiny==1.0", "does not pin PEFT"),
        ("peft", "does not pin a version"),
    ],
)
def test_what_cannot_be_added_leaves_nothing(room: Room, requirement: str, said: str) -> None:
    before = sorted(room.matrices.rglob("*"))
    with pytest.raises(UsageError, match=said):
        room.open().draft(requirement)
    assert sorted(room.matrices.rglob("*")) == before


def test_a_release_that_does_not_resolve_leaves_nothing(room: Room) -> None:
    before = sorted(room.matrices.rglob("*"))
    room.uv.fail = {"pip compile": "no solution"}
    with pytest.raises(EnvFailed, match="no solution"):
        room.open().draft("peft==0.9.0")
    assert sorted(room.matrices.rglob("*")) == before


def test_a_declaration_that_cannot_be_written_leaves_no_lock(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = room.open().draft("peft==0.9.0")
    write = locks.write

    def full(path: Path, text: str) -> None:
        if path.suffix == ".toml":
            raise HarnessError("no room")
        write(path, text)

    monkeypatch.setattr(locks, "write", full)
    before = sorted(room.matrices.rglob("*"))
    with pytest.raises(HarnessError, match="no room"):
        draft.write()
    assert sorted(room.matrices.rglob("*")) == before


def test_pins_beside_peft_are_in_the_name(room: Room) -> None:
    assert room.open().draft("tiny==1.0,peft==0.9.0").name == "v090-tiny10"


# --- build


def test_a_build_is_done_once_and_has_a_stamp(room: Room) -> None:
    first = room.open().build("current")
    assert first.python.exists()
    assert first.python_version.startswith(PYTHON)
    assert room.open().build("current") == first
    assert room.uv.count("venv") == 1
    assert [item.built for item in room.open().status()] == [first.python.parent.parent]


def test_an_incomplete_environment_is_built_again(room: Room) -> None:
    directory = room.open().build("current").python.parent.parent
    (directory / build.STAMP).unlink()
    (directory / "rest").touch()
    assert [item.built for item in room.open().status()] == [None]
    room.open().build("current")
    assert room.uv.count("venv") == 2
    assert not (directory / "rest").exists()


@pytest.mark.parametrize("stamp", ["", "[]", "{}", '{"versions": {}'])
def test_a_broken_stamp_counts_as_no_stamp(room: Room, stamp: str) -> None:
    directory = room.open().build("current").python.parent.parent
    (directory / build.STAMP).write_text(stamp)
    room.open().build("current")
    assert room.uv.count("venv") == 2


def test_an_environment_whose_python_is_gone_is_built_again(room: Room) -> None:
    python = room.open().build("current").python
    python.unlink()
    python.symlink_to("/no/such/python")
    assert room.open().build("current").python.exists()


@pytest.mark.parametrize("command", ["venv", "pip install"])
def test_a_failing_installer_leaves_nothing(room: Room, command: str) -> None:
    room.uv.fail = {command: "error: it broke"}
    with pytest.raises(EnvFailed, match="it broke") as caught:
        room.open().build("current")
    assert caught.value.stage == "build"
    assert room.built() == [name for name in room.built() if name.startswith(".")]
    room.uv.fail = {}
    room.open().build("current")


def test_a_full_disk_is_reported_with_a_next_step(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.uv.fail = {"pip install": "error: failed to copy: No space left on device (os error 28)"}
    with pytest.raises(EnvFailed, match="PEFT_REGRESS_CACHE"):
        room.open().build("current")
    room.uv.fail = {}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build, "_write_stamp", full)
    with pytest.raises(EnvFailed, match="PEFT_REGRESS_CACHE"):
        room.open().build("current")
    assert [name for name in room.built() if not name.startswith(".")] == []


def test_ctrl_c_leaves_nothing(room: Room) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    room.uv.during = interrupt
    with pytest.raises(KeyboardInterrupt):
        room.open().build("current")
    assert [name for name in room.built() if not name.startswith(".")] == []


def test_libraries_that_cannot_be_imported_fail_at_the_import_stage(room: Room) -> None:
    room.open().draft("peft==0.9.0").write()  # nothing is really installed, so that importing it fails
    with pytest.raises(EnvFailed, match="No module named 'peft'") as caught:
        room.open().build("v090")
    assert (caught.value.stage, caught.value.name) == ("import", "v090")
    assert [name for name in room.built() if not name.startswith(".")] == []


def test_a_missing_python_is_not_downloaded(room: Room) -> None:
    room.declare("future", CURRENT.replace(PYTHON, "3.99"))
    room.open().lock("future")
    room.uv.fail = {"python": "error: No interpreter found for Python 3.99"}
    with pytest.raises(EnvFailed, match=r"no Python 3\.99 on this machine"):
        room.open().build("future")


# --- interpreters


def test_an_interpreter_is_used_untouched(room: Room) -> None:
    built = room.open().build(f"python:{sys.executable}")
    assert built.untouched
    assert (built.kind, built.lock_digest, built.python) == ("interpreter", "", Path(sys.executable))
    assert re.fullmatch(r"python-[0-9a-f]{8}", built.name)
    assert "pytest" in room.open().locked_versions(f"python:{sys.executable}")
    with pytest.raises(UsageError, match="an interpreter, not a build"):
        room.open().remove(f"python:{sys.executable}")


NO_INTERPRETERS = [
    # a program, what the message says
    ("exit 0", "does not list its packages, and nothing else (exit code 0)"),
    ("exit 3", "(exit code 3)"),
    ("kill -9 $$", "(SIGKILL)"),
    ("cat", "does not list its packages"),
    ("echo '{}'", "does not list its packages"),
    ("echo '[[[[[['", "does not list its packages"),
    ("""echo '{"python_version": 5, "versions": []}'""", "does not list its packages"),
    ("""echo '{"python_version": "new", "versions": {}}'""", "does not list its packages"),
    ("""echo '{"python_version": "3.9.1", "versions": {"a": null}}'""", "does not list its packages"),
    ("""echo '{"python_version": "3.6.15", "versions": {}}'""", "is Python 3.6.15"),
    ("printf '\\377\\000'", "does not list its packages"),
    (f'echo hello\nexec {sys.executable} "$@"', "  | hello"),
    (f'{sys.executable} "$@"\necho bye', "  | bye"),
    (f'PYTHONHOME=/nothing exec {sys.executable} "$@"', "(exit code 1)"),
]


@pytest.mark.parametrize(("program", "said"), NO_INTERPRETERS, ids=[row[0][:40] for row in NO_INTERPRETERS])
def test_a_program_that_is_no_interpreter_is_reported(room: Room, tmp_path: Path, program: str, said: str) -> None:
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{program}\n")
    path.chmod(0o755)
    with pytest.raises(EnvFailed) as caught:
        room.open().describe(f"python:{path}")
    assert caught.value.stage == "import"
    assert said in str(caught.value)


@pytest.mark.parametrize("start", ["import os; os._exit(0)", "raise SystemExit(1)", "print('hello')",
                                   "import atexit; atexit.register(print, 'bye')"])  # fmt: skip
def test_a_start_up_file_that_ends_python_or_prints_is_reported(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(start)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EnvFailed, match="start-up files"):
        room.open().describe(f"python:{sys.executable}")


# --- cleaning up


def test_gc_deletes_what_nothing_needs(room: Room) -> None:
    kept = {room.open().build("current").python.parent.parent.name}
    kept.add(room.open().build("tiny==1.0").python.parent.parent.name)
    (half := room.cache / "envs" / "v000-000000000000").mkdir()
    room.declare("gone", CURRENT.replace("2.0", "2.1"))
    room.open().lock("gone")
    unused = [room.open().build("gone").python.parent.parent, half]
    (room.matrices / "envs" / "gone.toml").unlink()
    assert room.open().gc(dry_run=True) == unused
    assert half.exists()
    assert room.open().gc(dry_run=False) == unused
    assert {name for name in room.built() if not name.startswith(".")} == kept
    assert room.open().gc(dry_run=False) == []


def test_gc_keeps_what_another_process_builds(room: Room) -> None:
    (half := room.cache / "envs" / "v000-000000000000").mkdir(parents=True)
    with file_lock(in_use.lock_path(str(half))):
        assert room.open().gc(dry_run=False) == []
    assert half.exists()


@pytest.mark.parametrize("spec", ["current", "tiny==1.0"])
def test_the_builds_of_a_spec_can_be_removed(room: Room, spec: str) -> None:
    directory = room.open().build(spec).python.parent.parent
    assert room.open().remove(spec) == [directory]
    assert not directory.exists()
    assert room.open().remove(spec) == []


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("PEFT_REGRESS_CACHE", raising=False)
    assert data.cache() == tmp_path / "peft-regress"
    monkeypatch.setenv("PEFT_REGRESS_CACHE", str(tmp_path / "own"))
    assert data.cache() == tmp_path / "own"
