"""The store returns what was saved, names what is damaged, and overwrites nothing without a reason."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import random
import shutil
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.core.errors import HarnessError
from harness.core.files import write_durably
from harness.store import creator_file, integrity
from harness.store import fixtures as store_module
from harness.store import manifests as manifests_module
from harness.store.blobs import Blobs
from harness.store.blobs import content as content_of_blob
from harness.store.fixtures import Store
from harness.store.manifest import BadFixture, Manifest, NewerFormat, NoFixture, StoredFile, stored_file
from harness.store.manifest_text import Place, packed, parse
from tests.support import manifests

Files = Mapping[str, bytes]

ADAPTER = {"adapter_config.json": b'{"r": 4}\n', "adapter_model.safetensors": bytes(range(256))}
BASE = {"config.json": b"{}\n", "sub/weights.safetensors": b"weights"}
GOLDEN = {"observation.json": b'{"probes": {}}\n', "arrays.safetensors": b"\0\1\2\3" * 50}


@pytest.fixture(autouse=True, scope="module")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Skip what takes time and matters only after a power failure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


def blank(scenario: str = "lora-linear", creator: str = "v061", **changes: Any) -> Manifest:
    """A manifest without files, as the caller of `save` makes it."""
    fields: dict[str, Any] = {
        "scenario": scenario,
        "creator": creator,
        "scenario_digest": "d" * 64,
        "resolved": {"name": scenario, "adapter": {"args": {"r": 4, "alpha": float("inf")}}},
        "lock_digest": "l" * 64,
        "versions": {"peft": "0.6.1", "torch": "2.4.0"},
        "facts": {"device": "cpu", "threads": 1},
        "created": "2025-11-03",
    }
    return Manifest(**(fields | changes))


def folder(path: Path, files: Files) -> Path:
    path.mkdir(parents=True)
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def content(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@contextmanager
def parts(adapter: Files = ADAPTER, base: Files = BASE, golden: Files = GOLDEN) -> Iterator[tuple[Path, Path, Path]]:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        yield folder(root / "a", adapter), folder(root / "b", base), folder(root / "g", golden)


def save(
    store: Store,
    manifest: Manifest | None = None,
    *,
    adapter: Files = ADAPTER,
    base: Files = BASE,
    golden: Files = GOLDEN,
    device_class: str = "cpu",
    replace: str | None = None,
) -> Manifest:
    with parts(adapter, base, golden) as folders:
        return store.save(manifest or blank(), *folders, device_class=device_class, replace=replace)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "fixtures")


def no_blob(stored: StoredFile) -> bytes:
    raise AssertionError(stored)


def blob(store: Store, stored: StoredFile) -> Path:
    return Blobs(store.folder / "blobs").path(stored.sha256)


FILE = Path("v061.jsonl")
PLACE = Place("v061", "lora-linear", FILE, 1)


def line(store: Store) -> dict[str, Any]:
    """The first line of the creator's file."""
    found: dict[str, Any] = json.loads((store.folder / FILE).read_text().splitlines()[0])
    return found


def test_what_was_saved_comes_back(store: Store, tmp_path: Path) -> None:
    saved = save(store)
    read = store.manifest("v061", "lora-linear")
    assert read == saved
    store.materialise(read, tmp_path / "out")
    assert content(tmp_path / "out" / "adapter") == ADAPTER
    assert content(tmp_path / "out" / "base") == BASE
    assert content(tmp_path / "out" / "golden") == GOLDEN
    assert (store.creators(), store.scenarios("v061"), store.scenarios("v999")) == (["v061"], ["lora-linear"], [])
    assert (integrity.verify(store), integrity.orphans(store)) == ([], [])
    assert integrity.size(store) == sum(len(data) for name, data in content(store.folder).items() if name != ".lock")


def test_the_layout_is_the_one_that_format_md_describes(store: Store) -> None:
    save(store, blank("lora-other"))
    save(store)
    text = (store.folder / FILE).read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [list(line) for line in lines] == [["scenario", "sha256", "manifest"]] * 2
    assert [line["scenario"] for line in lines] == ["lora-linear", "lora-other"], "sorted"
    assert text.endswith("}\n")
    data = lines[0]["manifest"]
    assert list(data) == sorted(data)
    manifest = text.splitlines()[0].partition(',"manifest":')[2][:-1]
    assert lines[0]["sha256"] == stored_file(manifest.encode()).sha256
    config = data["files"]["adapter/adapter_config.json"]
    assert (store.folder / "blobs" / config["sha256"][:2] / config["sha256"]).read_bytes() == ADAPTER[
        "adapter_config.json"
    ]
    assert set(data["goldens"]["cpu"]) == set(GOLDEN)
    documented = (Path(__file__).parents[2] / "fixtures" / "FORMAT.md").read_text()
    assert [key for key in data if f"| `{key}` |" not in documented] == []


def test_equal_content_is_stored_once(store: Store) -> None:
    save(store)
    before = len(list((store.folder / "blobs").rglob("*/*")))
    save(store, blank(creator="v070"))
    assert len(list((store.folder / "blobs").rglob("*/*"))) == before


def test_files_are_copied_not_linked(store: Store, tmp_path: Path) -> None:
    manifest = save(store)
    store.materialise(manifest, tmp_path / "out")
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            path.write_bytes(b"a library wrote here")
    assert integrity.verify(store) == []
    store.materialise(manifest, tmp_path / "out")
    assert content(tmp_path / "out" / "adapter") == ADAPTER


def test_another_file_in_the_target_is_refused(store: Store, tmp_path: Path) -> None:
    manifest = save(store)
    folder(tmp_path / "out" / "adapter", {"adapter_model.bin": b"of another run"})
    with pytest.raises(HarnessError, match=r"adapter_model\.bin is not a file of the fixture"):
        store.materialise(manifest, tmp_path / "out")
    assert content(tmp_path / "out") == {"adapter/adapter_model.bin": b"of another run"}


@pytest.mark.parametrize(
    ("creator", "scenario", "found"),
    [
        ("v061", "lora-liner", "did you mean 'lora-linear'?"),
        ("v062", "lora-linear", "no fixtures by creator 'v062' (did you mean 'v061'?)"),
        ("current", "lora-linear", "no fixtures by creator 'current'"),
    ],
)
def test_an_unknown_fixture_is_no_fixture(store: Store, creator: str, scenario: str, found: str) -> None:
    save(store)
    with pytest.raises(NoFixture) as error:
        store.manifest(creator, scenario)
    assert found in error.value.found
    assert error.value.expected
    assert error.value.next_step


def test_to_verify_a_creator_without_fixtures_is_a_problem(store: Store) -> None:
    save(store)
    assert integrity.verify(store, ["v061"]) == []
    (problem,) = integrity.verify(store, ["v061", "v062"])
    assert "no fixtures by creator 'v062' (did you mean 'v061'?)" in problem.message


def test_an_empty_store_holds_nothing(store: Store) -> None:
    assert (
        store.creators(),
        integrity.verify(store),
        integrity.orphans(store),
        integrity.prune(store),
        integrity.size(store),
    ) == ([], [], [], [], 0)
    with pytest.raises(NoFixture, match="the store is empty"):
        store.manifest("v061", "lora-linear")


@pytest.mark.parametrize(
    "name", ["../x", "/etc", "a/b", "..", ".", "", ".hidden", "C:x", "a\\b", "a\nb", "blobs", "x" * 300]
)
def test_unsafe_names_are_refused(store: Store, name: str) -> None:
    with pytest.raises(BadFixture):
        store.manifest(name, "lora-linear")
    with pytest.raises(BadFixture):
        store.manifest("v061", name)


# ---- damage -------------------------------------------------------------------------------------------------------


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def altered(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def test_of_a_blob_that_unpacks_to_more_than_it_should_one_byte_too_many_is_read(tmp_path: Path) -> None:
    """A gzip bomb: 100 MB in 100 kB."""
    path = tmp_path / "blob.gz"
    path.write_bytes(gzip.compress(bytes(100 << 20)))
    tracemalloc.start()
    assert len(content_of_blob(path, 1000)) == 1001
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (truncated, "of another size: 255 bytes"),
        (altered, "altered: 256 bytes"),
        (emptied, "of another size: 0 bytes"),
        (Path.unlink, "No such file"),
    ],
)
def test_a_damaged_blob_is_named(store: Store, tmp_path: Path, damage: Callable[[Path], None], found: str) -> None:
    manifest = save(store)
    save(store, blank("lora-other"))
    stored = manifest.files["adapter/adapter_model.safetensors"]
    damage(blob(store, stored))
    with pytest.raises(BadFixture) as error:
        store.materialise(manifest, tmp_path / "out")
    assert "adapter/adapter_model.safetensors of v061/lora-linear" in error.value.found
    assert found in error.value.found
    assert error.value.expected == f"256 bytes with SHA-256 {stored.sha256}"
    assert "git restore" in error.value.next_step
    assert not (tmp_path / "out/adapter/adapter_model.safetensors").exists()
    (problem,) = integrity.verify(store)
    assert (problem.path, problem.kind) == (blob(store, stored), "blob")
    assert problem.fixtures == ("v061/lora-linear", "v061/lora-other")
    save(store)  # the right bytes repair it
    assert integrity.verify(store) == []


def edited(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def edit(data: dict[str, Any]) -> None:
        data[key] = value

    return edit


def file_named(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["files"].__setitem__(name, {"sha256": "0" * 64, "size": 1})


def golden_named(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["goldens"]["cpu"].__setitem__(name, {"sha256": "0" * 64, "size": 1})


NO_BLOB = {"sha256": "0" * 64, "size": 1}
EDITS: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("a newer format", edited("format", 99), "manifest format 99"),
    ("format as text", edited("format", "1"), "manifest format '1'"),
    ("format true", edited("format", True), "manifest format True"),
    ("no format", lambda data: data.pop("format"), "manifest format None"),
    ("a key missing", lambda data: data.pop("history"), "missing keys: history"),
    ("several missing", lambda data: (data.pop("files"), data.pop("unstable")), "missing keys: files, unstable"),
    ("a shared key missing", lambda data: data["shared"].pop("versions"), "missing keys: versions"),
    ("shared is no table", edited("shared", 3), "shared: "),
    ("a key shared that may not be", lambda data: data["shared"].update(files=NO_BLOB), "shared: files"),
    ("a key in both places", edited("facts", {}), "shared: facts"),
    ("a shared blob that is not there", lambda data: data["shared"].update(facts=NO_BLOB), "no such file"),
    ("a shared digest that is a path", lambda data: data["shared"]["facts"].update(sha256="../x"), "sha256"),
    (
        "a shared blob of something else",
        lambda data: data["shared"].update(facts=data["files"]["base/sub/weights.safetensors"]),
        "facts: not JSON",
    ),
    ("a key unknown", edited("extra", 1), "extra: Extra inputs"),
    ("another fixture's", edited("scenario", "lora-other"), "the manifest is of v061/lora-other"),
    (
        "no adapter",
        lambda data: [data["files"].pop(n) for n in list(data["files"]) if "adapter/" in n],
        "no adapter file",
    ),
    ("no golden", edited("goldens", {}), "no golden"),
    ("an empty golden", edited("goldens", {"cpu": {}}), "no golden"),
    (
        "a digest that is a path",
        lambda data: data["files"]["base/config.json"].update(sha256="../../etc/passwd"),
        "sha256",
    ),
    ("a digest in capitals", lambda data: data["files"]["base/config.json"].update(sha256="A" * 64), "sha256"),
    (
        "a digest with a newline",
        lambda data: data["files"]["base/config.json"].update(sha256="a" * 64 + "\n"),
        "sha256",
    ),
    ("a size below 0", lambda data: data["files"]["base/config.json"].update(size=-1), "size"),
    ("a size as text", lambda data: data["files"]["base/config.json"].update(size="3"), "size"),
    ("up and out", file_named("adapter/../../x"), "'..'"),
    ("absolute", file_named("/etc/passwd"), "plain relative path"),
    ("two slashes", file_named("adapter//x"), "plain relative path"),
    ("a folder's name", file_named("adapter/"), "plain relative path"),
    ("a drive", file_named("C:/x"), "colon"),
    ("a backslash", file_named("adapter\\..\\x"), "backslash"),
    ("a NUL", file_named("adapter/\0"), "does not print"),
    ("half a character", file_named("adapter/\ud800"), "does not print"),
    ("elsewhere", file_named("other/x"), "not under adapter/ or base/"),
    ("in golden/", file_named("golden/x"), "not under adapter/ or base/"),
    ("the part itself", file_named("adapter"), "not under adapter/ or base/"),
    ("a file as a folder", file_named("base/config.json/x"), "would be a file and"),
    ("a very long name", file_named("adapter/" + "x" * 300), "longer than"),
    ("a golden's way out", golden_named("../x"), "'..'"),
    ("a device's way out", edited("goldens", {"../x": {"a": {"sha256": "0" * 64, "size": 1}}}), "'..'"),
    ("no date", edited("created", "yesterday"), "created"),
]


@pytest.mark.parametrize(("edit", "found"), [pytest.param(*row[1:], id=row[0]) for row in EDITS])
def test_a_manifest_that_cannot_be_used_is_bad(store: Store, edit: Callable[[dict[str, Any]], Any], found: str) -> None:
    save(store)
    save(store, blank("lora-other"))
    path = store.folder / FILE
    data = manifests.read(store.folder, "v061", "lora-linear")
    edit(data)
    manifests.write(store.folder, "v061", "lora-linear", data)
    assert store.manifest("v061", "lora-other"), "one bad line costs one fixture"
    with pytest.raises(BadFixture) as error:
        store.manifest("v061", "lora-linear")
    assert found in error.value.found
    assert f"{path}:1: " in error.value.found or "shared content" in error.value.found
    assert error.value.expected
    assert error.value.next_step
    assert [(p.path, p.kind, p.fixtures) for p in integrity.verify(store)] == [
        (path, "manifest", ("v061/lora-linear",))
    ]
    with pytest.raises(BadFixture, match="nobody knows"):  # its blobs must not be taken for orphans
        integrity.prune(store, dry_run=False)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"<<<<<<< HEAD\n", b"[" * 100_000])
def test_a_manifest_that_is_no_json_object_is_bad(text: bytes) -> None:
    with pytest.raises(BadFixture, match=r"v061\.jsonl:1: "):
        parse(PLACE, text, no_blob)


def test_a_truncated_manifest_is_bad_at_every_length(store: Store) -> None:
    save(store)
    text = json.dumps(manifests.read(store.folder, "v061", "lora-linear")).encode()
    for length in range(0, len(text) - 2, 97):
        with pytest.raises(BadFixture, match="not JSON"):
            parse(PLACE, text[:length], no_blob)


# ---- saving -------------------------------------------------------------------------------------------------------

OTHER = {**ADAPTER, "adapter_model.safetensors": b"other"}


def test_the_same_content_again_is_no_change(store: Store) -> None:
    first = save(store)
    before = content(store.folder)
    elsewhere = blank(created="2026-01-01", facts={"device": "cpu", "threads": 1, "cpu": "another"})
    assert save(store, elsewhere, replace="a reason that is not needed") == first
    assert content(store.folder) == before


@pytest.mark.parametrize(
    ("changes", "files", "found"),
    [
        ({}, {"adapter": OTHER}, "adapter/adapter_model.safetensors: now 5 bytes"),
        ({}, {"adapter": {**ADAPTER, "more": b""}}, "adapter/more: now 0 bytes"),
        ({}, {"base": {"config.json": b"{}\n"}}, "base/sub/weights.safetensors: now not there"),
        ({}, {"golden": {**GOLDEN, "observation.json": b"{}"}}, "golden/observation.json: now 2 bytes"),
        ({"resolved": {}}, {}, "resolved"),
        ({"scenario_digest": "e" * 64}, {}, "scenario_digest"),
        ({"lock_digest": "e" * 64}, {}, "lock_digest"),
        ({"versions": {"peft": "0.6.2"}}, {}, "versions"),
        ({"standing_defects": ["merged differs"]}, {}, "standing_defects"),
        ({"unstable": True}, {}, "unstable"),
    ],
)
@pytest.mark.parametrize("reason", [None, "", "  \n"])
def test_other_content_is_refused_without_a_reason(
    store: Store, changes: dict[str, Any], files: dict[str, Files], found: str, reason: str | None
) -> None:
    save(store)
    before = content(store.folder)
    with pytest.raises(HarnessError) as error:
        save(store, blank(**changes), replace=reason, **files)  # type: ignore[arg-type]
    assert found in error.value.found
    assert error.value.next_step
    assert content(store.folder) == before


def test_a_reason_replaces_and_is_kept(store: Store) -> None:
    save(store)
    old = line(store)
    save(store, blank(created="2026-02-01"), adapter=OTHER, replace=" the fill was wrong ")
    second = line(store)
    last = save(store, blank(created="2026-03-01"), replace="it was right")
    assert [(r.date, r.reason, r.previous) for r in last.history] == [
        ("2026-02-01", "the fill was wrong", old["sha256"]),
        ("2026-03-01", "it was right", second["sha256"]),
    ]
    assert store.manifest("v061", "lora-linear") == last
    assert [path.name for path in integrity.orphans(store)] == [stored_file(b"other").sha256]


def test_orphans_are_reported_and_pruned(store: Store) -> None:
    save(store)
    save(store, adapter=OTHER, replace="another adapter")
    killed = store.folder / "blobs" / "ab" / ".killed.tmp"
    folder(killed.parent, {killed.name: b"half"})
    stray = store.folder / ".v061.jsonl.killed.tmp"
    stray.write_bytes(b"half")
    expected = sorted([blob(store, stored_file(ADAPTER["adapter_model.safetensors"])), killed, stray])
    assert [(p.kind, p.path) for p in integrity.verify(store)] == [("orphan", path) for path in expected]
    assert integrity.verify(store, ["v061"]) == []
    assert integrity.prune(store) == expected
    assert all(path.exists() for path in expected)
    assert integrity.prune(store, dry_run=False) == expected
    assert not killed.parent.exists()
    assert (integrity.verify(store), integrity.orphans(store), store.scenarios("v061")) == ([], [], ["lora-linear"])


def test_a_damaged_manifest_is_replaced_only_with_a_reason(store: Store) -> None:
    save(store)
    path = store.folder / FILE
    path.write_bytes(b"{")
    with pytest.raises(BadFixture):
        save(store)
    assert path.read_bytes() == b"{"
    assert [r.reason for r in save(store, replace="it was damaged").history] == ["it was damaged"]


def test_a_newer_manifest_is_never_replaced(store: Store) -> None:
    path = store.folder / FILE
    text = creator_file.line_of("lora-linear", b'{"format": 99}') + b"\n"
    folder(path.parent, {path.name: text})
    with pytest.raises(NewerFormat):
        save(store, replace="for whatever reason")
    assert path.read_bytes() == text


CUDA = {**GOLDEN, "arrays.safetensors": b"on a GPU"}


def test_a_golden_of_another_device_is_added(store: Store, tmp_path: Path) -> None:
    first = save(store)
    gpu = blank(facts={"device": "cuda"}, unstable=True, standing_defects=["merged"], versions={"peft": "0.6.1+cu"})
    both = save(store, gpu, golden=CUDA, device_class="cuda")
    assert both.history == []
    assert both.seen_on("cpu") == both
    assert both.model_copy(update={"goldens": first.goldens, "elsewhere": {}}) == first
    seen = both.seen_on("cuda")
    assert (seen.facts, seen.unstable, seen.standing_defects) == ({"device": "cuda"}, True, ["merged"])
    store.materialise(both, tmp_path / "out", "cuda")
    assert content(tmp_path / "out/golden") == CUDA
    assert save(store, gpu, golden=CUDA, device_class="cuda") == both
    assert save(store) == both
    assert integrity.verify(store) == []


def test_replacing_one_devices_golden_leaves_the_other(store: Store) -> None:
    save(store)
    both = save(store, blank(facts={"device": "cuda"}), golden=CUDA, device_class="cuda")
    with pytest.raises(HarnessError, match="differs from the stored one"):
        save(store, golden={"observation.json": b"1"}, device_class="cuda")
    after = save(store, golden={"observation.json": b"1"}, device_class="cuda", replace="a better driver")
    assert after.goldens["cpu"] == both.goldens["cpu"]
    assert set(after.goldens["cuda"]) == {"observation.json"}
    after = save(store, blank(unstable=True), golden={"observation.json": b"2"}, replace="more probes")
    assert (after.unstable, set(after.goldens["cpu"]), set(after.elsewhere)) == (True, {"observation.json"}, {"cuda"})


def test_replacing_an_adapter_removes_the_goldens_of_other_devices(store: Store) -> None:
    save(store)
    save(store, golden=CUDA, device_class="cuda")
    with pytest.raises(HarnessError, match="adapter_model"):
        save(store, adapter=OTHER, golden=CUDA, device_class="cuda")
    after = save(store, adapter=OTHER, replace="another fill")
    assert (list(after.goldens), after.elsewhere) == (["cpu"], {})


def test_a_device_without_a_golden_has_no_fixture(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NoFixture, match="no golden for device class 'cuda'"):
        store.materialise(save(store), tmp_path / "out", "cuda")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", ["adapter", "base", "golden"])
def test_only_plain_files_are_stored(store: Store, part: str) -> None:
    place = ["adapter", "base", "golden"].index(part)
    with parts() as folders:
        (folders[place] / "link").symlink_to("/etc/hostname")
        with pytest.raises(HarnessError, match="not a plain file"):
            store.save(blank(), *folders)
        shutil.rmtree(folders[place])
        with pytest.raises(HarnessError, match="no folder"):
            store.save(blank(), *folders)
    assert content(store.folder) == {}


@pytest.mark.parametrize("part", ["adapter", "golden"])
def test_a_fixture_without_evidence_is_not_stored(store: Store, part: str) -> None:
    with pytest.raises(BadFixture, match="no adapter file, or no golden"):
        save(store, **{part: {}})  # type: ignore[arg-type]
    assert content(store.folder) == {}


def test_killed_before_the_manifest_nothing_is_visible(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed_at_the_manifest(path: Path, data: bytes) -> None:
        if path.suffix == ".jsonl":
            raise KeyboardInterrupt
        write_durably(path, data)

    monkeypatch.setattr(manifests_module, "write_durably", killed_at_the_manifest)
    with pytest.raises(KeyboardInterrupt):
        save(store)
    assert store.creators() == []
    assert {problem.kind for problem in integrity.verify(store)} == {"orphan"}
    monkeypatch.undo()
    save(store)
    assert integrity.verify(store) == []


def test_a_writer_that_hangs_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "LOCK_TIMEOUT_S", 0.05)
    with store.locked(), pytest.raises(HarnessError, match="another process has been writing"):
        save(store)


def _save_all(root: str, scenarios: list[str], payload: bytes) -> None:
    for scenario in scenarios:
        try:
            save(Store(Path(root)), blank(scenario), adapter={"w": payload})
        except HarnessError as error:
            assert "differs from the stored one" in error.found  # noqa: PT017


@pytest.mark.parametrize("same", [True, False], ids=["the same content", "different content"])
def test_processes_that_save_at_once_do_no_harm(store: Store, same: bool) -> None:
    names = [f"s{number}" for number in range(8)]
    context = multiprocessing.get_context("fork")
    payloads = [b"0", b"0"] if same else [b"0", b"1"]
    processes = [context.Process(target=_save_all, args=(str(store.folder), names, payload)) for payload in payloads]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert store.scenarios("v061") == names
    assert [p for p in integrity.verify(store) if p.kind != "orphan"] == []
    assert all(store.manifest("v061", name).history == [] for name in names)


# ---- fallback, compare, digest ----------------------------------------------------------------------------------


def test_a_fallback_provides_what_the_folder_lacks(tmp_path: Path) -> None:
    behind = Store(tmp_path / "committed")
    save(behind)
    save(behind, blank("lora-other"), adapter=OTHER)
    front = Store(tmp_path / "own", fallback=behind.folder, origin="created")
    own = save(front, blank(unstable=True))
    save(front, blank("ia3", "v070"))
    assert (front.creators(), front.scenarios("v061")) == (["v061", "v070"], ["lora-linear", "lora-other"])
    assert front.manifest("v061", "lora-linear") == own
    front.materialise(front.manifest("v061", "lora-other"), tmp_path / "out")
    assert content(tmp_path / "out/adapter") == OTHER
    assert integrity.orphans(front) == []
    assert behind.scenarios("v070") == []
    assert [front.origin_of(front.manifest("v061", s)) for s in front.scenarios("v061")] == ["created", "committed"]
    truncated(blob(behind, stored_file(b"other")))
    assert [p.fixtures for p in integrity.verify(front)] == [("v061/lora-other",)]


def test_a_fallback_to_itself_is_none(tmp_path: Path) -> None:
    assert Store(tmp_path, fallback=tmp_path / "x" / "..").fallback is None


def test_compare_names_what_differs(store: Store) -> None:
    manifest = save(store)
    with parts() as folders:
        assert store.compare(manifest, *folders) == []
    with parts(adapter=OTHER, base={"config.json": b"{}\n", "new": b""}) as folders:
        lines = store.compare(manifest, *folders)
    assert [line.split(":")[0] for line in lines] == [
        "adapter/adapter_model.safetensors",
        "base/new",
        "base/sub/weights.safetensors",
    ]
    assert "stored 256 bytes" in lines[0]
    assert lines[1].endswith("stored not at all")


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"base": {"other": b""}}, True),
        ({"golden": {"other": b""}}, True),
        ({"adapter": OTHER}, False),
        ({"adapter": {"renamed": ADAPTER["adapter_model.safetensors"]}}, False),
        ({"adapter": {**ADAPTER, "adapter_config.json": b'{"peft_version": "0.9"}'}}, True),
        ({"adapter": {**ADAPTER, "empty": b""}}, False),
    ],
)
def test_the_digest_tells_weights_apart(tmp_path: Path, changes: dict[str, Files], same: bool) -> None:
    one = save(Store(tmp_path / "1"))
    other = save(Store(tmp_path / "2"), **changes)  # type: ignore[arg-type]
    assert (one.weights_digest == other.weights_digest) is same


# ---- invariants -----------------------------------------------------------------------------------------------------

_PART = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\:", categories=("L", "N", "P", "S", "M")),
    min_size=1,
    max_size=12,
).filter(lambda part: part not in (".", "..") and part.isprintable())
_NAME = st.lists(_PART, min_size=1, max_size=3).map("/".join)


def _no_nesting(files: Files) -> bool:
    names = [name.casefold() for name in files]
    return not any(a != b and (b.startswith(f"{a}/") or a == b) for a in names for b in names)


_FILES = st.dictionaries(_NAME, st.binary(max_size=200), min_size=1, max_size=4).filter(_no_nesting)
_QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@_QUICK
@given(adapter=_FILES, base=_FILES, golden=_FILES)
def test_any_bytes_under_any_allowed_names_come_back(adapter: Files, base: Files, golden: Files) -> None:
    with tempfile.TemporaryDirectory() as name:
        store, out = Store(Path(name) / "fixtures"), Path(name) / "out"
        saved = save(store, adapter=adapter, base=base, golden=golden)
        before = content(store.folder)
        assert save(store, adapter=adapter, base=base, golden=golden) == saved
        assert content(store.folder) == before
        store.materialise(store.manifest("v061", "lora-linear"), out)
        assert [content(out / part) for part in ("adapter", "base", "golden")] == [adapter, base, golden]
        assert integrity.verify(store) == []


@_QUICK
@given(data=st.binary(min_size=1, max_size=300), draw=st.data())
def test_one_flipped_bit_anywhere_is_found(data: bytes, draw: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name) / "fixtures")
        manifest = save(store, adapter={"w": data})
        bit = draw.draw(st.integers(0, 8 * len(data) - 1))
        path = blob(store, manifest.files["adapter/w"])
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert [(p.kind, p.path) for p in integrity.verify(store)] == [("blob", path)]
        with pytest.raises(BadFixture, match="altered"):
            store.materialise(manifest, Path(name) / "out")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@_QUICK
@given(resolved=st.dictionaries(st.text(max_size=5), _JSON), facts=st.dictionaries(st.text(max_size=5), _JSON))
def test_a_manifests_text_reads_back_as_the_manifest(resolved: dict[str, Any], facts: dict[str, Any]) -> None:
    one = StoredFile(sha256="0" * 64, size=0)
    manifest = blank(resolved=resolved, facts=facts, files={"adapter/w": one}, goldens={"cpu": {"g": one}})
    whole, text, contents = packed(manifest)
    by_digest = {stored_file(content).sha256: content for content in contents.values()}
    assert parse(PLACE, text, lambda stored: by_digest[stored.sha256]) == whole
    assert packed(whole)[:2] == (whole, text)
    assert whole.model_copy(update={"shared": {}}) == manifest


# ---- what many fixtures share, and older formats --------------------------------------------------------------------


def test_shared_values_are_stored_once(store: Store) -> None:
    save(store)
    before = len(list((store.folder / "blobs").rglob("*/*")))
    save(store, blank("lora-other", resolved=blank().resolved))
    assert len(list((store.folder / "blobs").rglob("*/*"))) == before
    data = manifests.read(store.folder, "v061", "lora-linear")
    assert set(data["shared"]) == {"facts", "resolved", "versions"}
    assert not set(data["shared"]) & set(data)


def test_a_golden_is_packed_and_what_the_library_saved_is_not(store: Store, tmp_path: Path) -> None:
    saved = save(store, golden={"observation.json": b"packs well " * 100})
    stored = saved.goldens["cpu"]["observation.json"]
    file = store.folder / "blobs" / stored.sha256[:2] / f"{stored.sha256}.gz"
    assert file.stat().st_size < stored.size
    assert gzip.decompress(file.read_bytes()) == b"packs well " * 100
    assert blob(store, saved.files["adapter/adapter_model.safetensors"]).suffix == ""
    store.materialise(saved, tmp_path / "out")
    assert (tmp_path / "out/golden/observation.json").read_bytes() == b"packs well " * 100


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:0],
        lambda data: data[:-9],
        lambda data: data[1:],
        lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:],
        lambda data: gzip.compress(data),
    ],
)
def test_a_damaged_packed_blob_is_bad_and_repaired(
    store: Store, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    golden = {"observation.json": b"packs well " * 100}
    saved = save(store, golden=golden)
    file = blob(store, saved.goldens["cpu"]["observation.json"])
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(BadFixture, match=r"golden/observation\.json of v061/lora-linear"):
        store.materialise(saved, tmp_path / "out")
    assert [(problem.path, problem.kind) for problem in integrity.verify(store)] == [(file, "blob")]
    save(store, golden=golden)
    assert integrity.verify(store) == []


def _save_until_killed(root: str, seed: int) -> None:
    chance = random.Random(seed)
    while True:
        adapter = {"w": bytes([chance.randrange(3)])}
        save(Store(Path(root)), blank(f"s{chance.randrange(8)}"), adapter=adapter, replace="another fill")


def test_killed_writers_leave_no_damage(store: Store) -> None:
    context = multiprocessing.get_context("fork")
    for seed in range(4):
        processes = [context.Process(target=_save_until_killed, args=(str(store.folder), seed + at)) for at in (0, 10)]
        for process in processes:
            process.start()
        time.sleep(0.1 + 0.1 * seed)
        assert [process.exitcode for process in processes] == [None, None], "they write until they are killed"
        for process in processes:
            process.kill()
            process.join()
        assert {problem.kind for problem in integrity.verify(store)} <= {"orphan"}
    integrity.prune(store, dry_run=False)
    assert integrity.verify(store) == []
