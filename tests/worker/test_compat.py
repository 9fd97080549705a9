"""Branches on versions that can be tried without the libraries."""

from __future__ import annotations

import sys
import types

import pytest

from harness.worker.compat import libraries


def test_peft_0_8_is_told_that_the_hub_has_no_such_base(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object) -> bool:
        raise ConnectionError("offline")

    module = types.SimpleNamespace(file_exists=asked)
    monkeypatch.setitem(sys.modules, "peft.utils.save_and_load", module)
    with libraries.without_hub():
        assert module.file_exists("base", "config.json") is False
    assert module.file_exists is asked


def test_releases_that_do_not_ask_when_offline_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.SimpleNamespace(file_exists=len, check_file_exists_on_hf_hub=len)
    monkeypatch.setitem(sys.modules, "peft.utils.save_and_load", module)
    with libraries.without_hub():
        assert module.file_exists is len
    monkeypatch.delitem(sys.modules, "peft.utils.save_and_load")
    with libraries.without_hub():
        pass
