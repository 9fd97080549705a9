"""The configuration of a base is found where the Hub's client keeps it, and nothing is fetched unasked."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.core.errors import HarnessError, UsageError
from harness.own import base_config

LLAMA = {"model_type": "llama", "hidden_size": 16, "sliding_window": None}
ADAPTER = {"base_model_name_or_path": "org/tiny"}


def cached(home: Path, name: str = "org/tiny", revision: str = "main", commit: str = "c0ffee") -> dict[str, str]:
    """A Hub's cache as its client makes it: the snapshot's file is a link to a blob."""
    repo = home / "hub" / ("models--" + name.replace("/", "--"))
    for folder in ("refs", "blobs", f"snapshots/{commit}"):
        (repo / folder).mkdir(parents=True)
    (repo / "refs" / revision).write_text(commit)
    (repo / "blobs" / "b1").write_text(json.dumps(LLAMA))
    (repo / "snapshots" / commit / "config.json").symlink_to("../../blobs/b1")
    return {"HF_HOME": str(home)}


def test_the_hubs_cache_is_read_through_its_links(tmp_path: Path) -> None:
    environ = cached(tmp_path)
    found = base_config.find(ADAPTER, None, environ)
    assert found.values == LLAMA
    assert base_config.find({**ADAPTER, "revision": "c0ffee"}, None, environ).values == LLAMA
    assert base_config.find({**ADAPTER, "revision": None}, None, environ).values == LLAMA
    assert base_config.known({**ADAPTER, "revision": "other"}, environ) is None
    own = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HOME": "/nowhere"}
    assert base_config.known(ADAPTER, own) is not None


def test_a_folder_a_file_and_a_local_path_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    for base in (tmp_path, tmp_path / "config.json"):
        assert base_config.find({}, base, {}).values == LLAMA
    assert base_config.find({"base_model_name_or_path": str(tmp_path)}, None, {}).origin.endswith("config.json")


@pytest.mark.parametrize("name", ["a" * 3000, "o/" + "a" * 3000])
def test_a_name_that_no_path_can_have_is_not_here(tmp_path: Path, name: str) -> None:
    assert base_config.known({"base_model_name_or_path": name}, cached(tmp_path)) is None


@pytest.mark.parametrize("name", ["../../etc", "/etc", "a/b/c", "..", "a/..", "", None, 3, "a\0b", "a b"])
def test_a_hostile_name_reads_nothing(tmp_path: Path, name: object) -> None:
    adapter = {"base_model_name_or_path": name}
    assert base_config.known(adapter, cached(tmp_path)) is None
    with pytest.raises(UsageError, match="--base"):
        base_config.find(adapter, None, {"HF_ENDPOINT": "http://127.0.0.1:9"}, fetch=True)


def test_a_missing_configuration_says_which_file_to_hand_over(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        base_config.find(ADAPTER, None, {"HF_HOME": str(tmp_path)})
    said = str(raised.value)
    assert "org/tiny" in said
    assert "https://huggingface.co/org/tiny/resolve/main/config.json" in said
    assert "--fetch" in said


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not the configuration"),
        ("[]", "no JSON object"),
        ("{}", "model_type"),
        ('{"peft_type": "LORA"}', "an adapter's"),
        ('{"model_type": 3}', "model_type"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_configuration_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=why):
        base_config.find({}, tmp_path, {})


def test_a_folder_without_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no config\.json"):
        base_config.find({}, tmp_path, {})
    with pytest.raises(UsageError, match="no such file"):
        base_config.find({}, tmp_path / "absent", {})


class _Hub(http.server.BaseHTTPRequestHandler):
    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        known = self.path == "/org/tiny/resolve/main/config.json"
        self.send_response(200 if known else 401 if "gated" in self.path else 404)
        self.end_headers()
        if known:
            self.wfile.write(json.dumps(LLAMA).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[dict[str, str]]:
    _Hub.asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": "/nowhere"}
    server.shutdown()
    server.server_close()


def test_one_file_is_fetched_if_asked_and_nothing_otherwise(hub: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        base_config.find(ADAPTER, None, hub)
    assert _Hub.asked == []
    assert base_config.find(ADAPTER, None, hub, fetch=True).values == LLAMA
    assert _Hub.asked == ["/org/tiny/resolve/main/config.json"]


@pytest.mark.parametrize(("name", "why"), [("org/other", "does not exist"), ("org/gated", "gated")])
def test_a_refusal_of_the_hub_is_passed_on(hub: dict[str, str], name: str, why: str) -> None:
    with pytest.raises(HarnessError, match=why):
        base_config.find({"base_model_name_or_path": name}, None, hub, fetch=True)


def test_no_answer_is_no_silence() -> None:
    with pytest.raises(HarnessError, match="refused"):
        base_config.find(ADAPTER, None, {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": "/nowhere"}, fetch=True)
