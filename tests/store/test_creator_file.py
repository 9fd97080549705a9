"""One file for each creator: whatever happens to it costs only the fixtures whose lines are damaged."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.runner import plan
from harness.store import creator_file, integrity
from harness.store.fixtures import Store
from harness.store.manifest import BadFixture, NoFixture
from tests.store.test_fixtures import OTHER, blank, save
from tests.support import manifests

NAMES = ("a", "b", "c", "d")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A creator with four fixtures."""
    made = Store(tmp_path / "fixtures")
    for name in NAMES:
        save(made, blank(name))
    return made


def usable(store: Store) -> str:
    """The scenarios whose manifest can be read."""
    return "".join(name for name in NAMES if _is_usable(store, name))


def _is_usable(store: Store, name: str) -> bool:
    try:
        store.manifest("v061", name)
    except (BadFixture, NoFixture):
        return False
    return True


def conflict(lines: list[bytes]) -> list[bytes]:
    """As git leaves a file in which both sides changed `b`."""
    a, b, *rest = lines
    return [a, b"<<<<<<< HEAD", b, b"=======", b.replace(b"0.6.1", b"0.6.2"), b">>>>>>> topic", *rest]


def one_sided(lines: list[bytes]) -> list[bytes]:
    """As git leaves a file in which one side removed `b` and the other changed it."""
    a, b, *rest = lines
    return [a, b"<<<<<<< HEAD", b"=======", b, b">>>>>>> topic", *rest]


def line(number: int, change: Callable[[bytes], bytes]) -> Callable[[list[bytes]], list[bytes]]:
    return lambda lines: [change(raw) if at == number else raw for at, raw in enumerate(lines, start=1)]


@pytest.mark.parametrize(
    ("damage", "left", "numbers", "found"),
    [
        (line(4, lambda raw: raw[:-1]), "abc", [4], "not a complete line of a fixture"),
        (line(4, lambda raw: raw[:200]), "abc", [4], "not a complete line of a fixture"),
        (line(4, lambda raw: raw[:14]), "abc", [4], "not a line of a fixture"),
        (line(2, lambda raw: b""), "acd", [2], "an empty line"),  # noqa: ARG005
        (line(2, lambda raw: raw + b" "), "acd", [2], "not a complete line of a fixture"),
        (line(2, lambda raw: raw.replace(b'"unstable":false', b'"unstable":true')), "acd", [2], "altered"),
        (line(2, lambda raw: raw.replace(b"2025-11-03", b"2025-11-04")), "acd", [2], "altered"),
        (line(2, lambda raw: b"\xff\xfe\0"), "acd", [2], "not a line of a fixture"),  # noqa: ARG005
        (line(2, lambda raw: b"[" * 100_000), "acd", [2], "not a line of a fixture"),  # noqa: ARG005
        (lambda lines: [lines[1], *lines], "acd", [1, 3], "lines 1, 3 are of the same fixture"),
        (conflict, "acd", [2, 3, 4, 5, 6], "in the unresolved merge conflict of lines 2 to 6"),
        (one_sided, "acd", [2, 3, 4, 5], "in the unresolved merge conflict of lines 2 to 5"),
        (lambda lines: [b"<<<<<<< HEAD", *lines], "abcd", [1], "a mark of an unresolved merge conflict"),
        (lambda lines: [], "", [1], "the file is empty"),  # noqa: ARG005
        (line(1, lambda raw: b"\xef\xbb\xbf" + raw), "bcd", [1], "a byte order mark"),
        (lambda lines: lines[::-1], "abcd", [], ""),
    ],
)
def test_damage_costs_the_fixtures_whose_lines_are_damaged(
    store: Store, damage: Callable[[list[bytes]], list[bytes]], left: str, numbers: list[int], found: str
) -> None:
    path = manifests.file_of(store.folder, "v061")
    path.write_bytes(b"\n".join(damage(path.read_bytes().splitlines())))
    assert usable(store) == left
    problems = integrity.verify(store)
    places = [re.match(rf"{re.escape(str(path))}:(\d+): ", problem.message) for problem in problems]
    assert [int(place[1]) for place in places if place] == numbers
    assert all((problem.path, problem.kind) == (path, "manifest") for problem in problems)
    assert all(found in problem.message for problem in problems)
    for name in set(NAMES) - set(left):
        with pytest.raises(BadFixture, match=r"v061\.jsonl:\d+: "):
            store.manifest("v061", name)
    if problems:
        with pytest.raises(BadFixture, match="nobody knows"):  # their blobs are no orphans
            integrity.prune(store, dry_run=False)


def test_changed_line_ends_are_reported_once(store: Store) -> None:
    path = manifests.file_of(store.folder, "v061")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert usable(store) == ""
    (problem,) = integrity.verify(store)
    assert (problem.path, problem.kind) == (path, "manifest")
    assert problem.message.startswith(f"{path}: its lines end with CR LF\n")
    assert problem.fixtures == tuple(f"v061/{name}" for name in NAMES)
    with pytest.raises(BadFixture, match="CR LF"):
        store.manifest("v061", "b")
    with pytest.raises(BadFixture, match="nobody knows"):
        integrity.prune(store, dry_run=False)


def test_a_line_with_another_name_is_neither_fixture(store: Store) -> None:
    manifests.damage(store.folder, "v061", "b", lambda raw: raw.replace(b'"scenario":"b"', b'"scenario":"x"', 1))
    with pytest.raises(NoFixture):
        store.manifest("v061", "b")
    with pytest.raises(BadFixture, match=r"v061\.jsonl:2: the manifest is of v061/b"):
        store.manifest("v061", "x")
    assert [problem.fixtures for problem in integrity.verify(store)] == [("v061/x",)]


@pytest.mark.parametrize("name", ["../../x", "\ud800", "a/b", ".", "", "x" * 241, "blobs", "\x1b[2J"])
def test_a_line_whose_scenario_cannot_name_a_fixture_is_found_by_its_number(store: Store, name: str) -> None:
    path = manifests.file_of(store.folder, "v061")
    raw = b'{"scenario":' + json.dumps(name).encode() + b',"sha256":"' + b"0" * 64 + b'","manifest":{}}\n'
    path.write_bytes(path.read_bytes() + raw)
    assert store.scenarios("v061") == list(NAMES)
    (problem,) = integrity.verify(store)
    assert problem.message.startswith(f"{path}:5: ")
    assert "cannot name a fixture" in problem.message
    assert "v061/ " not in problem.message  # no advice about a fixture without a name
    assert problem.message.replace("\n", "").isprintable()
    assert problem.fixtures == ()


def test_a_file_cut_between_two_lines_leaves_blobs_that_nothing_refers_to(store: Store) -> None:
    save(store, blank("e"), adapter=OTHER)
    path = manifests.file_of(store.folder, "v061")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(NoFixture):
        store.manifest("v061", "e")
    assert "orphan" in {problem.kind for problem in integrity.verify(store)}


def test_a_missing_last_newline_is_no_damage(store: Store) -> None:
    path = manifests.file_of(store.folder, "v061")
    path.write_bytes(path.read_bytes()[:-1])
    assert integrity.verify(store) == []
    save(store, blank("e"))
    assert integrity.verify(store) == []
    assert len(path.read_bytes().splitlines()) == 5


@pytest.mark.parametrize("damaged", ["a", "c"])
def test_saving_one_fixture_keeps_the_damaged_lines_of_others(store: Store, damaged: str) -> None:
    manifests.damage(store.folder, "v061", damaged, lambda raw: raw[:100])
    path = manifests.file_of(store.folder, "v061")
    before = path.read_bytes().splitlines()
    save(store, blank("b"), adapter=OTHER, replace="another fill")
    save(store, blank("bb"))
    after = path.read_bytes().splitlines()
    assert [raw for raw in after if raw in before] == [raw for at, raw in enumerate(before) if at != 1]
    assert [json.loads(raw)["scenario"] for raw in after if len(raw) > 100] == sorted({*"abcd", "bb"} - {damaged})


def test_a_damaged_line_is_replaced_only_with_a_reason(store: Store) -> None:
    manifests.damage(store.folder, "v061", "b", lambda raw: raw[:10])  # nobody knows whose it is
    with pytest.raises(BadFixture, match="it may be this one"):
        save(store, blank("b"))
    with pytest.raises(BadFixture):
        save(store, blank("new"))
    assert [one.reason for one in save(store, blank("b"), replace="it was damaged").history] == ["it was damaged"]
    assert usable(store) == "abcd"


def test_other_stores_see_what_was_written_meanwhile(store: Store) -> None:
    reader = Store(store.folder)
    before = reader.manifest("v061", "b")
    after = save(store, blank("b"), adapter=OTHER, replace="another fill")
    assert before != after == reader.manifest("v061", "b")
    assert not reader.has("v061", "e")
    save(store, blank("e"))
    assert reader.has("v061", "e")


@pytest.fixture
def _not_for_ever() -> Iterator[None]:
    """Fail after some seconds, if the test waits for a pipe."""

    def fail(*_: object) -> None:
        raise AssertionError("still waiting")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _no_permission(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    path.touch(mode=0)


UNREADABLE: dict[str, Callable[[Path], None]] = {
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "device without an end": lambda path: path.symlink_to("/dev/zero"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "link to a file of the user": lambda path: path.symlink_to("/etc/passwd"),
    "no permission": _no_permission,
}


@pytest.mark.usefixtures("_not_for_ever")
@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_file_that_is_not_readable_costs_its_own_creator_only(store: Store, kind: str) -> None:
    save(store, blank(creator="v082"))
    path = manifests.file_of(store.folder, "v061")
    path.unlink()
    UNREADABLE[kind](path)
    with pytest.raises(BadFixture, match=r"v061\.jsonl: cannot be read"):
        store.manifest("v061", "a")
    with pytest.raises(BadFixture, match=r"v061\.jsonl: cannot be read"):
        save(store, blank("a"), replace="nothing overwrites what cannot be read")
    checked = integrity.check(store)
    assert [(problem.path, problem.kind) for problem in checked.problems] == [(path, "manifest")]
    assert (checked.fixtures, checked.creators) == (1, 2)
    assert store.manifest("v082", "lora-linear").creator == "v082"
    assert plan.creators_with_fixtures(store, ()) == ("v061", "v082")


@pytest.mark.usefixtures("_not_for_ever")
def test_a_pipe_in_the_place_of_a_blob_blocks_nobody(store: Store) -> None:
    manifest = store.manifest("v061", "a")
    path = store.find_blob(manifest.files["adapter/adapter_config.json"].sha256)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BadFixture, match="not readable"):
        store.content(manifest, "adapter/adapter_config.json")
    assert [(problem.path, problem.kind) for problem in integrity.verify(store)] == [(path, "blob")]


_NAME = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="/\\:"), min_size=1, max_size=8).filter(
    lambda name: not name.startswith(".") and name.lower() != "blobs"
)


@given(names=st.sets(_NAME, max_size=8), new=_NAME)
def test_lines_stay_sorted_and_each_is_found(names: set[str], new: str) -> None:
    file = creator_file.CreatorFile()
    for name in [*names, new]:
        file = file.put(name, json.dumps({"name": name}).encode())
    assert [line.scenario for line in file.lines] == sorted({*names, new})
    assert {problem for _, problem in (line.opened() for line in file.lines)} == {""}
    assert json.loads(file.fixtures[new].opened()[0]) == {"name": new}
    assert creator_file.read(file.text) == file
