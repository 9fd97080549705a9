"""pip's configuration as uv's: one table of (pip's options, the user's variables, what uv gets)."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.errors import UsageError
from harness.envs import pip_config

HERE = Path("/here")
BEST = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
HTTPS = "https://mirror.example/simple"

TABLE: list[tuple[str, dict[str, str], dict[str, str], dict[str, str], tuple[str, ...]]] = [
    ("nothing", {}, {}, {}, ()),
    ("index", {"index-url": HTTPS}, {}, {"UV_DEFAULT_INDEX": HTTPS}, ()),
    ("index as a folder", {"index-url": "simple"}, {}, {"UV_DEFAULT_INDEX": "file:///here/simple"}, ()),
    (
        "several extra indexes",
        {"extra-index-url": "https://a.example/s\nfile:///b/simple"},
        {},
        {"UV_INDEX": "https://a.example/s file:///b/simple"},
        (),
    ),
    (
        "find-links: folders and a page",
        {"find-links": "/w https://x.example/l.html rel"},
        {},
        {"UV_FIND_LINKS": "file:///w,https://x.example/l.html,file:///here/rel"},
        (),
    ),
    ("no index", {"no-index": "true"}, {}, {}, ("--no-index",)),
    ("no index, said not to", {"no-index": "0"}, {}, {}, ()),
    ("certificate", {"cert": "/etc/ca.pem"}, {}, {"SSL_CERT_FILE": "/etc/ca.pem"}, ()),
    ("pip's certificate wins", {"cert": "/ca"}, {"SSL_CERT_FILE": "/other"}, {"SSL_CERT_FILE": "/ca"}, ()),
    ("that of requests", {}, {"REQUESTS_CA_BUNDLE": "/ca"}, {"SSL_CERT_FILE": "/ca"}, ()),
    ("but not over one for all", {}, {"REQUESTS_CA_BUNDLE": "/ca", "SSL_CERT_FILE": "/other"}, {}, ()),
    ("client certificate", {"client-cert": "/me.pem"}, {}, {"SSL_CLIENT_CERT": "/me.pem"}, ()),
    ("trusted hosts", {"trusted-host": "a b:8080"}, {}, {"UV_INSECURE_HOST": "a b:8080"}, ()),
    ("time limit", {"default-timeout": "180"}, {}, {"UV_HTTP_TIMEOUT": "180"}, ()),
    ("proxy", {"proxy": "http://p:1"}, {}, {"HTTP_PROXY": "http://p:1", "HTTPS_PROXY": "http://p:1"}, ()),
    ("the user's proxy", {"proxy": "http://p:1"}, {"https_proxy": "http://q"}, {}, ()),
    (
        "the user's uv wins",
        {"index-url": HTTPS, "extra-index-url": HTTPS, "find-links": "/w", "default-timeout": "9"},
        {"UV_INDEX_URL": "u", "UV_EXTRA_INDEX_URL": "v", "UV_FIND_LINKS": "w", "UV_INDEX_STRATEGY": "first-index"},
        {
            "UV_INDEX_URL": "u",
            "UV_EXTRA_INDEX_URL": "v",
            "UV_FIND_LINKS": "w",
            "UV_INDEX_STRATEGY": "first-index",
            "UV_HTTP_TIMEOUT": "9",
        },
        (),
    ),
    ("also over no-index", {"no-index": "1"}, {"UV_DEFAULT_INDEX": HTTPS}, {"UV_DEFAULT_INDEX": HTTPS}, ()),
]


@pytest.mark.parametrize(("pip", "environ", "env", "args"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_translation(pip: dict[str, str], environ: dict[str, str], env: dict[str, str], args: tuple[str, ...]) -> None:
    settings = pip_config.uv_settings(pip, environ, here=HERE)
    assert dict(settings.env) == BEST | env
    assert settings.args == args


def test_a_folder_of_certificates(tmp_path: Path) -> None:
    settings = pip_config.uv_settings({"cert": str(tmp_path)}, {}, here=HERE)
    assert settings.env["SSL_CERT_DIR"] == str(tmp_path)


@pytest.mark.parametrize(
    ("environ", "used"),
    [
        ({}, True),
        ({"SSL_CERT_FILE": "/ca"}, False),
        ({"UV_NATIVE_TLS": "0"}, False),
        ({"REQUESTS_CA_BUNDLE": "/ca"}, False),
    ],
)
def test_the_system_store_is_used_where_nothing_else_is_said(environ: dict[str, str], used: bool) -> None:
    settings = pip_config.uv_settings({}, environ, here=HERE, system_store=True)
    assert ("UV_SYSTEM_CERTS" in settings.env) is used


@pytest.mark.parametrize(
    ("files", "environ", "expected"),
    [
        ([{"global": {"index-url": "a"}}, {"global": {"index-url": "b"}}], {}, {"index-url": "b"}),
        ([{"install": {"index-url": "a"}}, {"global": {"index-url": "b"}}], {}, {"index-url": "a"}),
        ([{"global": {"index-url": "a"}}], {"PIP_INDEX_URL": "e"}, {"index-url": "e"}),
        ([{"global": {"index-url": "a"}}], {"PIP_INDEX_URL": ""}, {"index-url": "a"}),
        ([{"global": {"Extra_Index_Url": "a"}}], {}, {"extra-index-url": "a"}),
        ([{"freeze": {"index-url": "a"}}], {}, {}),
        ([], {"PIP_CONFIG_FILE": "x", "PIP_TIMEOUT": "3"}, {"default-timeout": "3"}),
    ],
)
def test_precedence_is_pips(
    files: list[dict[str, dict[str, str]]], environ: dict[str, str], expected: dict[str, str]
) -> None:
    assert pip_config.effective(files, environ) == expected


def test_which_files_count_and_in_what_order(tmp_path: Path) -> None:
    named = tmp_path / "mine.conf"
    home = {"HOME": "/h"}
    user = [Path("/h/.pip/pip.conf"), Path("/h/.config/pip/pip.conf")]
    system = [Path("/etc/xdg/pip/pip.conf"), Path("/etc/pip.conf")]
    site = [Path("/base/pip.conf"), Path("/venv/pip.conf")]

    def files(environ: dict[str, str]) -> list[Path]:
        return pip_config.config_files(environ, ["/base", "/venv"], "linux")

    assert files(home) == [*system, *user, *site]
    assert files({**home, "PIP_CONFIG_FILE": str(named)}) == [*system, *user, *site, named]
    named.touch()
    assert files({**home, "PIP_CONFIG_FILE": str(named)}) == [*system, *site, named]
    assert files({**home, "PIP_CONFIG_FILE": "/dev/null"}) == []


def test_a_file_is_read_and_a_broken_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pip.conf"
    assert pip_config.sections_of(path) == {}
    path.write_text("[global]\nindex-url = https://u:%20p@host/simple\nextra-index-url =\n    a\n    b\n")
    assert pip_config.sections_of(path)["global"]["index-url"] == "https://u:%20p@host/simple"
    assert pip_config.effective([pip_config.sections_of(path)], {})["extra-index-url"].split() == ["a", "b"]
    path.write_text("index-url = x\n")
    with pytest.raises(UsageError, match=r"pip\.conf.*\n.*pip's configuration"):
        pip_config.sections_of(path)


def test_indexes_to_ask() -> None:
    settings = pip_config.UvSettings({"UV_DEFAULT_INDEX": "https://a/?x=1", "UV_INDEX": "own=https://b https://c"})
    assert settings.indexes() == ["https://a/?x=1", "https://b", "https://c"]
    assert pip_config.UvSettings({}).indexes() == [pip_config.DEFAULT_INDEX]
    assert pip_config.UvSettings({}, ("--no-index",)).indexes() == []


def test_this_machine_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    settings = pip_config.read({"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": "https://secret@host/simple"})
    assert settings.env["UV_DEFAULT_INDEX"] == "https://secret@host/simple"
