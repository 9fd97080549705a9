"""Whatever is in the place of a file of a checkout or of a package's metadata: reading it neither waits nor fails."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.core import syntax
from harness.envs import installed, layer, record, source_tree, unpacked_wheel
from harness.runner.change import files


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


KINDS: dict[str, Callable[[Path], object]] = {
    "missing": lambda _: None,
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path),
    "huge": _huge,
    "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe\0x"),
    "nested deeply": lambda path: path.write_bytes(b"(" * 100_000),
    "a long expression": lambda path: path.write_bytes(b"setup(a" + b".b" * 50_000 + b")"),
    "a deep unary": lambda path: path.write_bytes(b"-" * 100_000 + b"1"),
    "a NUL": lambda path: path.write_bytes(b"a = 1\0"),
    "a long field": lambda path: path.write_bytes(b'"' + b"a" * 200_000),
    "sections": lambda path: path.write_bytes(b"[metadata]\nname\n[metadata]\n"),
}


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    """Puts something into the place of a file."""

    def put(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        KINDS[request.param](path)

    return put


@pytest.mark.parametrize("name", ["pyproject.toml", "setup.cfg", "setup.py"])
def test_a_checkouts_package_is_its_folders_name(tmp_path: Path, place: Callable[[Path], None], name: str) -> None:
    place(tmp_path / "tree" / name)
    assert source_tree.package_of(tmp_path / "tree") == ("tree", None)


def test_what_has_no_metadata_is_no_unpacked_wheel(tmp_path: Path, place: Callable[[Path], None]) -> None:
    place(tmp_path / "peft-1.0.dist-info" / "METADATA")
    assert unpacked_wheel.package_of(tmp_path) is None


def test_a_record_that_is_unreadable_lists_nothing(tmp_path: Path, place: Callable[[Path], None]) -> None:
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    info = site / "peft-1.0.dist-info"
    place(info / "RECORD")
    assert not any("/" in row[0] for row in record.rows(info))
    assert layer.site_packages(tmp_path) == site
    installed.settle(tmp_path)


def test_only_files_and_links_belong_to_a_tree(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    before = source_tree.digest(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "sub").mkdir()
    os.mkfifo(tmp_path / "sub" / "pipe")
    assert source_tree.digest(tmp_path) == before
    (tmp_path / "link").symlink_to("/dev/zero")
    assert source_tree.files(tmp_path) == ["a.py", "link"]
    assert source_tree.copy(tmp_path, tmp_path / "copy") == source_tree.digest(tmp_path / "copy") != before


def test_a_module_of_a_change_is_compared_whatever_it_is(tmp_path: Path, place: Callable[[Path], None]) -> None:
    for name in ("before", "now"):
        place(tmp_path / name / "peft" / "x.py")
    before, now = (files.Installed(tmp_path / name, {"peft/x.py": name}) for name in ("before", "now"))
    assert files.differing(before, now) in ((), ("peft/x.py",))


def test_a_digest_is_of_a_regular_file(tmp_path: Path) -> None:
    (tmp_path / "device").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    assert {files._digest(tmp_path / name) for name in ("device", "pipe", "nothing")} == {"unreadable"}


@pytest.mark.parametrize("text", ["(" * 100_000, "-" * 100_000 + "1", "a" + ".b" * 50_000, "\0", "\ud800", "x ="])
def test_source_that_cannot_be_parsed_is_a_syntax_error(text: str) -> None:
    with pytest.raises(SyntaxError):
        syntax.module(text)
