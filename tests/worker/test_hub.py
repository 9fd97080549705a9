"""Where the hub's cache is, and what is said of a model that is not in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.worker.model import hub

REVISION = "0123456789abcdef0123456789abcdef01234567"

PLACES = [
    ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
    ({"HUGGINGFACE_HUB_CACHE": "/c"}, "/c"),
    ({"HF_HOME": "/b"}, "/b/hub"),
    ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
    ({"HF_HUB_CACHE": "", "HF_HOME": "/b"}, "/b/hub"),
]


@pytest.mark.parametrize(("environ", "place"), PLACES)
def test_where_the_hubs_client_looks(environ: dict[str, str], place: str) -> None:
    assert hub.cache(environ) == place


def test_at_home_where_nothing_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert hub.cache({}) == "/home/me/.cache/huggingface/hub"


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    environ = {"HF_HUB_CACHE": str(tmp_path)}
    with pytest.raises(hub.NotInHubCache, match=r"it has nothing of it; .*hf download me/tiny --revision 0123"):
        hub.found_in(environ, "me/tiny", REVISION)
    other = tmp_path / "models--me--tiny" / "snapshots" / ("f" * 40)
    other.mkdir(parents=True)
    with pytest.raises(hub.NotInHubCache, match="it has ffffffffffff"):
        hub.found_in(environ, "me/tiny", REVISION)
    (other.parent / REVISION).mkdir()
    with pytest.raises(hub.NotInHubCache):  # a download that was broken off
        hub.found_in(environ, "me/tiny", REVISION)
    (other.parent / REVISION / "config.json").touch()
    assert hub.found_in(environ, "me/tiny", REVISION) == str(tmp_path)
