"""Source trees, releases on an index, and uv."""

from __future__ import annotations

import io
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uv

from harness.envs import index, installers, source_tree
from harness.envs.environment import EnvFailed
from harness.envs.index import Releases
from harness.envs.installers import Uv
from harness.envs.spec import Git

SETUP = """
from setuptools import setup
VERSION = "0.21.3.dev0"
setup(name="peft", version=VERSION, extras_require={"a": ["b"]})
"""


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"pyproject.toml": '[project]\nname = "My_Peft"\nversion = "1.0"'}, ("my-peft", "1.0")),
        ({"pyproject.toml": "[tool.ruff]", "setup.py": SETUP}, ("peft", "0.21.3.dev0")),
        ({"pyproject.toml": '[project]\nname = "peft"\ndynamic = ["version"]'}, ("peft", None)),
        ({"setup.cfg": "[metadata]\nname = peft\nversion = 2.0"}, ("peft", "2.0")),
        ({"setup.cfg": "[metadata]\nname = peft\nversion = attr: peft.v"}, ("peft", None)),
        ({"setup.py": "import setuptools\nsetuptools.setup(name='trl', version=read())"}, ("trl", None)),
        ({"setup.py": "raise SystemExit(1)"}, ("a-tree", None)),
        ({"setup.py": "this is no Python"}, ("a-tree", None)),
    ],
)
def test_a_trees_package_is_read_without_running_it(
    tmp_path: Path, files: dict[str, str], expected: tuple[str, str | None]
) -> None:
    tree = tmp_path / "A_tree"
    tree.mkdir()
    for name, text in files.items():
        (tree / name).write_text(text)
    assert source_tree.package_of(tree) == expected


def test_a_trees_digest_counts_content_names_links_and_permissions(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "a.py").write_text("1")
    (tree / "sub" / "link").symlink_to("../a.py")
    seen = [source_tree.digest(tree)]
    assert source_tree.copy(tree, tmp_path / "copy") == seen[0] == source_tree.digest(tmp_path / "copy")
    changes: list[Callable[[], object]] = [
        lambda: (tree / "a.py").write_text("2"),
        lambda: (tree / "a.py").rename(tree / "b.py"),
        lambda: (tree / "b.py").chmod(0o755),
        lambda: (tree / "sub" / "link").unlink(),
        lambda: (tree / "sub" / "link").symlink_to("../b.py"),
    ]
    for change in changes:
        change()
        seen.append(source_tree.digest(tree))
    assert len(set(seen)) == len(seen)
    for left_out in (".git", "__pycache__", "build", "x.egg-info", ".venv"):
        (tree / left_out).mkdir()
        (tree / left_out / "file").touch()
    assert source_tree.digest(tree) == seen[-1]


def test_releases_of_a_page() -> None:
    page = {
        "files": [
            {"filename": "p-1.0.tar.gz", "upload-time": "2023-01-02T23:00:00Z", "yanked": False},
            {"filename": "p-1.0-py3-none-any.whl", "upload-time": "2023-01-03T01:00:00Z", "requires-python": ">=3.8"},
            {"filename": "p-2.0-py3-none-any.whl", "upload-time": "2024-01-03T01:00:00Z", "yanked": "no good"},
            {"filename": "p-3.0-py3-none-any.whl"},
            {"filename": "p-4.0.exe", "upload-time": "2024-01-03T01:00:00Z"},
        ]
    }
    found = index.parse(page)
    assert {version: (item.day, item.yanked) for version, item in found.items()} == {
        "1.0": ("2023-01-02", False),
        "2.0": ("2024-01-03", True),
    }
    assert found["1.0"].fits("3.11")
    assert not found["2.0"].fits("3.11")


def test_the_first_index_that_answers_is_used_and_passwords_stay_secret(tmp_path: Path) -> None:
    pages = {
        "https://html/simple/p/": b"<html>",
        "https://me:secret@undated/simple/p/": b'{"files": []}',
        "https://good/p/": b'{"files": [{"filename": "p-1.0.tar.gz", "upload-time": "2023-01-02T23:00:00Z"}]}',
    }
    bad = ["file:///local", "https://html/simple/", "https://me:secret@undated/simple"]
    assert Releases(lambda: [*bad, "https://good"], tmp_path, pages.__getitem__).of("p", "1.0.0").version == "1.0"
    with pytest.raises(EnvFailed, match="undated/simple: has no upload times") as caught:
        Releases(lambda: bad, tmp_path / "other", pages.__getitem__).of("p", "1.0")
    assert "secret" not in str(caught.value)
    with pytest.raises(EnvFailed, match="no-index"):
        Releases(list, tmp_path / "other", pages.__getitem__).of("p", "1.0")


def test_a_broken_cache_of_releases_is_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"1.0": {"old": "format"}}')
    page = b'{"files": [{"filename": "p-1.0.tar.gz", "upload-time": "2023-01-02T23:00:00Z"}]}'
    assert Releases(lambda: ["https://good"], tmp_path, lambda _: page).of("p", "1.0").day == "2023-01-02"


def test_a_password_in_an_address_is_sent_as_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[urllib.request.Request] = []

    def urlopen(request: urllib.request.Request, **_: Any) -> io.BytesIO:
        seen.append(request)
        return io.BytesIO(b"page")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    assert index.fetcher(dict)("https://me:a%20b@host:8443/simple/p/") == b"page"
    assert seen[0].full_url == "https://host:8443/simple/p/"
    assert seen[0].get_header("Authorization") == "Basic bWU6YSBi"


def test_uv_gets_pips_settings_and_no_misleading_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "uv"
    script.write_text('#!/bin/sh\n[ "$1" = --version ] && exec echo uv 0.99.0\necho "$@"\nenv\nexit 3\n')
    script.chmod(0o755)
    monkeypatch.setattr(installers, "_binary", lambda: str(script))
    given = {"PATH": "/usr/bin:/bin", "UV_EXCLUDE_NEWER": "2020-01-01", "PYTHONPATH": "/x", "UV_LINK_MODE": "copy"}
    given |= {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1"}
    outcome = Uv(tmp_path / "cache", given)(["pip", "check"], tmp_path)
    lines = outcome.stdout.splitlines()
    assert outcome.code == 3
    assert lines[0] == "pip check --no-index"
    expected = {"UV_LINK_MODE=copy", f"UV_CACHE_DIR={tmp_path / 'cache'}", "UV_PYTHON_DOWNLOADS=never"}
    assert expected <= set(lines)
    assert not [line for line in lines if line.startswith(("UV_EXCLUDE_NEWER", "PYTHONPATH"))]


def test_a_machine_without_uv_is_reported_with_a_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise FileNotFoundError("uv")

    monkeypatch.setattr(uv, "find_uv_bin", missing)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EnvFailed, match="pip install --upgrade uv"):
        installers._binary()


def test_a_machine_without_git_is_reported_with_a_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvFailed, match=r"git is not installed[\s\S]*next: install git"):
        source_tree.fetch("git+https://host/peft", Git("https://host/peft", "main", ""), tmp_path)
