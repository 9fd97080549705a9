"""Consumers: how they are named, declared, locked and built. uv is a function, the index a dictionary."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from harness.core.errors import UsageError
from harness.envs import declared, sdist, spec, wheelhouse
from harness.envs import lock as locks
from harness.envs.environment import EnvFailed
from harness.envs.environments import Environments
from tests.envs.test_envs import PYTHON, Room

READER = f"""
why = "reads GGUF"
python = "{PYTHON}"
on_demand = true
[pins]
reader = "1.0"
tiny = "1.0"
[consumer]
driver = "llamacpp"
package = "reader"
extract = ["tools/*.py"]
"""


def archive(*members: tuple[str, bytes], link: str = "") -> bytes:
    """An sdist with files, and with a symbolic link if one is named."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            file.addfile(info)
    return content.getvalue()


SDISTS = {
    version: archive(
        (f"reader-{version}/tools/convert.py", f"VERSION = '{version}'".encode()), ("reader/setup.py", b"1/0")
    )
    for version in ("1.0", "0.9")
}


def fetch(address: str) -> bytes:
    if address.endswith(".tar.gz"):
        return SDISTS[address.rpartition("-")[2].removesuffix(".tar.gz")]
    if "/reader" not in address:
        raise OSError("404")
    files = [
        {
            "filename": f"reader-{version}.tar.gz", "upload-time": "2024-05-05T10:00:00Z", "yanked": False,
            "requires-python": "", "url": f"../files/reader-{version}.tar.gz",
            "hashes": {"sha256": hashlib.sha256(content).hexdigest()},
        }
        for version, content in SDISTS.items()
    ]  # fmt: skip
    return json.dumps({"files": files}).encode()


class Consumers(Room):
    """A room with a consumer."""

    def consumer(self, text: str = READER, name: str = "reader") -> Path:
        path = self.matrices / "consumers" / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def open(self) -> Environments:
        return Environments(self.matrices, self.cache, self.log.append, uv=self.uv, fetch=fetch)


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Consumers:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    made = Consumers(tmp_path)
    made.consumer()
    made.open().lock("consumer:reader")
    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("consumer:llama.cpp", spec.Consumer("llama.cpp")),
        (" consumer:llama.cpp==0.2.90 ", spec.Consumer("llama.cpp", "0.2.90")),
        ("torch==2.1 over consumer:x", spec.Over(spec.Pins((("torch", "2.1"),)), "consumer:x")),
    ],
)
def test_forms(text: str, expected: spec.Spec) -> None:
    assert spec.parse(text, []) == expected
    assert spec.reads_only(text)


@pytest.mark.parametrize(
    "text", ["consumer:", "consumer:==1", "consumer:x==", "consumer:x==new", "consumer:../x", "consumer:X"]
)
def test_what_names_no_consumer_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        spec.parse(text, [])


def test_an_unknown_consumer_names_those_that_there_are(room: Consumers) -> None:
    with pytest.raises(UsageError, match=r"no consumer 'x'(.|\n)*consumers: consumer:reader"):
        room.open().describe("consumer:x")


def test_a_lock_has_the_digest_of_the_sdist_and_no_address(room: Consumers) -> None:
    text = (room.matrices / "consumers" / "locks" / "reader.txt").read_text()
    digest = hashlib.sha256(SDISTS["1.0"]).hexdigest()
    assert f"reader==1.0  # sdist sha256:{digest}, not installed" in text
    assert "://" not in text
    assert room.uv.asked == ["tiny==1.0"]  # the package itself is never resolved, which would build it
    found = room.open().describe("consumer:reader")
    assert (found.name, found.kind, found.versions["reader"]) == ("consumer-reader", "consumer", "1.0")
    assert found.consumer is not None
    assert found.consumer.sdist == digest
    assert found.requirement_lines() == ["tiny==1.0"]


def test_files_of_the_sdist_are_in_the_build_and_belong_to_it(room: Consumers) -> None:
    built = room.open().build("consumer:reader")
    source = built.python.parent.parent / sdist.FOLDER
    assert [path.name for path in source.rglob("*") if path.is_file()] == ["convert.py"]
    assert built.versions["reader"] == "1.0"
    assert room.open().is_unchanged(built)
    assert room.open().gc(dry_run=True) == []
    (source / "tools" / "convert.py").write_text("VERSION = 'edited'")
    with pytest.raises(EnvFailed, match="1 file changed after the build"):
        room.open().build("consumer:reader")


def test_a_release_is_another_environment(room: Consumers) -> None:
    locked, older = (room.open().describe(text) for text in ("consumer:reader", "consumer:reader==0.9"))
    assert older.name == "consumer-reader-0.9"
    assert older.versions["reader"] == "0.9"
    assert locked.lock_digest != older.lock_digest
    built = room.open().build("consumer:reader==0.9")
    assert (built.python.parent.parent / sdist.FOLDER / "tools" / "convert.py").read_text() == "VERSION = '0.9'"
    with pytest.raises(UsageError, match="reader has no release 7"):
        room.open().describe("consumer:reader==7.0")


def test_an_sdist_that_the_index_replaced_is_not_used(room: Consumers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SDISTS, "1.0", archive(("reader-1.0/tools/convert.py", b"other")))
    with pytest.raises(EnvFailed, match="has SHA-256"):
        room.open().build("consumer:reader")
    assert room.built() == [] or not list((room.cache / "envs").glob("consumer-reader-*/peft-regress.json"))


def test_a_driver_of_ones_own_decides_the_environment(room: Consumers) -> None:
    room.consumer(READER.replace('"llamacpp"', '"mine.py"'))
    with pytest.raises(UsageError, match=r"mine\.py"):
        room.open().describe("consumer:reader")
    driver = room.matrices / "consumers" / "mine.py"
    driver.write_text("x = 1")
    first = room.open().describe("consumer:reader")
    driver.write_text("x = 2")
    assert room.open().describe("consumer:reader").lock_digest != first.lock_digest
    assert first.consumer is not None
    assert first.consumer.driver == str(driver)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"1.0"\ntiny', '"newest"\ntiny', "must have a version of reader"),
        ('"tools/*.py"', '"../x"', "inside of the package"),
        ('"llamacpp"', '"../x.py"', "driver"),
        (
            '[consumer]\ndriver = "llamacpp"\npackage = "reader"\nextract = ["tools/*.py"]\n',
            "",
            "has no \\[consumer\\]",
        ),
    ],
)
def test_a_wrong_declaration_names_its_key(room: Consumers, old: str, new: str, said: str) -> None:
    room.consumer(READER.replace(old, new))
    with pytest.raises(UsageError, match=said):
        room.open().describe("consumer:reader")


def test_an_environment_with_a_consumer_table_is_in_the_wrong_folder(room: Consumers) -> None:
    with pytest.raises(UsageError, match=r"has a \[consumer\]"):
        declared.load(room.declare("reader", READER))


def test_consumers_are_listed_and_built_only_if_they_are_named(room: Consumers) -> None:
    room.consumer("nonsense", "broken")
    status = {one.name: one for one in room.open().status()}
    assert status["consumer:reader"].locked
    assert status["consumer:reader"].on_demand
    assert status["consumer:broken"].problem
    assert room.open().names() == ["current"]


def test_a_lock_without_the_digest_is_refused(room: Consumers) -> None:
    path = room.matrices / "consumers" / "locks" / "reader.txt"
    path.write_text("\n".join(line.partition("  #")[0] for line in path.read_text().splitlines()) + "\n")
    with pytest.raises(EnvFailed, match="no digest of the sdist"):
        room.open().describe("consumer:reader")


def extracted(folder: Path, content: bytes, *globs: str) -> int:
    digest = hashlib.sha256(content).hexdigest()
    return sdist.extract("e", "p", "1", digest, globs or ("*.py",), lambda *_: content, folder)


def test_a_consumer_that_needs_an_sdist_is_not_packed(room: Consumers, tmp_path: Path) -> None:
    """Before anything is downloaded: a wheelhouse has wheels only."""
    target = tmp_path / "house"
    with pytest.raises(UsageError, match=r"needs files out of the sdist of reader(.|\n)*env build consumer:reader"):
        wheelhouse.pack(room.open().describe("consumer:reader"), target, room.log.append)
    assert not target.exists()


def test_only_regular_files_inside_are_extracted(tmp_path: Path) -> None:
    content = archive(("p/a.py", b"1"), ("p/../../b.py", b"2"), ("c.py", b"3"), ("p/d/e.py", b"4"), link="p/l.py")
    assert extracted(tmp_path, content) == 2
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.py")) == ["a.py", "d/e.py"]


def test_an_archive_without_the_files_and_a_damaged_one_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EnvFailed, match=r"the sdist of p 1 has no file that matches \*\.txt"):
        extracted(tmp_path, archive(("p/a.py", b"1")), "*.txt")
    with pytest.raises(EnvFailed, match="the sdist of p 1: "):
        extracted(tmp_path, b"no archive")
    monkeypatch.setattr(sdist, "LARGEST", 3)
    with pytest.raises(EnvFailed, match="over 0 MiB"):
        extracted(tmp_path, archive(("p/a.py", b"1234")))


def test_locks_of_environments_have_no_sdists() -> None:
    text = "# declaration: sha256:" + "0" * 64 + "\ntiny==1.0\n"
    assert locks.parse(text, "x", Path("x")).sdists == {}
