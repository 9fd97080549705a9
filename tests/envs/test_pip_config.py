"""pip's configuration as uv's settings: a table of (pip's options, the user's variables, uv's settings)."""

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
def test_the_system_store_is_used_if_no_certificate_is_configured(environ: dict[str, str], used: bool) -> None:
    settings = pip_config.uv_settings({}, environ, here=HERE, system_store=True)
    assert ("UV_SYSTEM_CERTS" in settings.env) is used


LISTED = [
    ("nothing", "", {}),
    ("a command's section over the global one", "global.cert='a'\ninstall.cert='b'\nwheel.cert='c'", {"cert": "b"}),
    ("variables over both, whatever the order", ":env:.cert='v'\nglobal.cert='a'\ninstall.cert='b'", {"cert": "v"}),
    ("an empty value does not count", ":env:.cert=''\nglobal.cert='a'", {"cert": "a"}),
    ("another command's section", "freeze.cert='a'", {}),
    ("several lines", r"global.extra-index-url='\na\nb'", {"extra-index-url": "a\nb"}),
    ("an apostrophe", 'global.find-links="/it\'s"', {"find-links": "/it's"}),
    ("two names of one option", ":env:.timeout='3'", {"default-timeout": "3"}),
    ("what -v adds", "For variant 'global', will try loading '/etc/pip.conf'\nglobal.cert='a'", {"cert": "a"}),
]


@pytest.mark.parametrize(("listed", "expected"), [row[1:] for row in LISTED], ids=[row[0] for row in LISTED])
def test_options_from_the_lines_of_pip(listed: str, expected: dict[str, str]) -> None:
    assert pip_config.options(listed) == expected


def test_pip_itself_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "mine.conf"
    path.write_text(
        "[global]\nindex-url = https://u:%20p@host/simple\nextra-index-url =\n    https://a\n    b\nquiet = 2\n"
        "[install]\ntimeout = 7\n[freeze]\ncert = /x\n"
    )
    found = pip_config.read({"PIP_CONFIG_FILE": str(path), "PIP_NO_INDEX": "", "PIP_FIND_LINKS": "/w"}).env
    assert found["UV_DEFAULT_INDEX"] == "https://u:%20p@host/simple"
    assert found["UV_INDEX"] == f"https://a {(Path.cwd() / 'b').as_uri()}"
    assert found["UV_HTTP_TIMEOUT"] == "7"
    assert found["UV_FIND_LINKS"] == "file:///w"
    assert found.get("SSL_CERT_FILE") != "/x"


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.conf"
    path.write_text("index-url = x\n")
    with pytest.raises(UsageError, match=r"broken\.conf") as caught:
        pip_config.read({"PIP_CONFIG_FILE": str(path)})
    assert "pip config debug" in caught.value.next_step


def test_indexes_to_ask() -> None:
    settings = pip_config.UvSettings({"UV_DEFAULT_INDEX": "https://a/?x=1", "UV_INDEX": "own=https://b https://c"})
    assert settings.indexes() == ["https://a/?x=1", "https://b", "https://c"]
    assert pip_config.UvSettings({}).indexes() == [pip_config.DEFAULT_INDEX]
    assert pip_config.UvSettings({}, ("--no-index",)).indexes() == []


def test_the_users_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    settings = pip_config.read({"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": "https://secret@host/simple"})
    assert settings.env["UV_DEFAULT_INDEX"] == "https://secret@host/simple"
