"""Which releases can have written an adapter: by `peft_version`, the model card, and keys."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from harness.core import data
from harness.own import dating, written_by
from harness.own.dating import Dated
from harness.own.written_by import Table
from harness.store.adapter import Adapter
from harness.store.saved_adapter import Written

RELEASES = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "0.4.1", "0.5.0", "0.6.0", "0.7.0"]


def _written(release: str, method: str, config: str, keys: tuple[str, ...] = ()) -> Written:
    values = dict.fromkeys(config) | {"peft_type": method}
    return Written("s", f"v{release}", release, {}, dict.fromkeys(keys, (1,)), config=values)


def _table() -> Table:
    """`b` came with 0.3.0 or the patches after 0.2.0, `c` with 0.5.0, `a` went with 0.6.0; OFT came with 0.3.0."""
    configs = {"0.2.0": "ahij", "0.3.0": "abhij", "0.4.0": "abhij", "0.5.0": "abchij", "0.6.0": "bchij"}
    lora = [_written(release, "LORA", config) for release, config in configs.items()]
    lora[-1] = dataclasses.replace(lora[-1], versions={"peft_version": "0.6.0"})
    oft = [
        _written(release, "OFT", "x", (f"q.{'oft_r' if release < '0.5' else 'oft_R'}.weight",))
        for release in ("0.3.0", "0.4.0", "0.5.0", "0.6.0")
    ]
    more = [_written("0.2.0", "IA3", "x")]
    return written_by.table([*lora, *oft, *more], dict.fromkeys(RELEASES, ""), {})


def dated(config: str, method: str = "LORA", card: str = "", keys: tuple[str, ...] = (), **more: Any) -> Dated:
    always = "hij" if config and method == "LORA" else ""
    values = dict.fromkeys(config + always) | {"peft_type": method} | more
    return dating.date(Adapter(values, dict.fromkeys(keys, (1,)), card=card), _table())


CASES = [
    # what: result, releases, newer, words of a reason or of a doubt
    ("before the first release that is known", dated("a"), "0.1.0 0.2.0", False, "lacks `b`, which 0.3.0 writes"),
    ("patches between releases that write the same", dated("ab"), "0.3.0 0.3.1 0.4.0 0.4.1", False, "has `b`, which"),
    ("a patch between releases that differ may be either", dated("abc"), "0.4.1 0.5.0", False, "has `c`"),
    ("a release after the newest that is known", dated("bc", peft_version=None), "0.6.0 0.7.0", False, "lacks `a`"),
    ("a key that nobody knows", dated("bcd", peft_version=None), "0.7.0", True, "`d`, which no release up to 0.7.0"),
    ("a key added by hand", dated("abd"), "0.3.0 0.3.1 0.4.0 0.4.1", True, "it was added by hand"),
    ("keys removed by hand", dated("c"), "0.4.1 0.5.0 0.6.0 0.7.0", False, "it was edited"),
    ("parts of the tensors' names", dated("x", "OFT", keys=("q.oft_R",)), "0.4.1 0.5.0 0.6.0 0.7.0", False, "`oft_R`"),
    ("the method came with a release", dated("x", "OFT", keys=("q.oft_r",)), "0.3.0 0.3.1 0.4.0 0.4.1", False, "0.3.0"),
    ("a config of another program", dated(""), "0.1.0 0.2.0 0.3.0 0.3.1 0.4.0 0.4.1 0.5.0 0.6.0 0.7.0", False,
     "another program wrote it"),
    ("an unknown method", dated("x", "NEW"), "0.7.0", True, "does not know the method"),
    ("peft_version", dated("bc", peft_version="0.6.0"), "0.6.0", False, "`peft_version` in its configuration says"),
    ("peft_version, edited", dated("abc", peft_version="0.6.0"), "0.6.0", False, "has `a`, which 0.6.0 does not write"),
    ("a checkout", dated("bc", peft_version="0.6.1.dev0@0123"), "0.6.1.dev0", False, "it is unreleased"),
    ("a later release", dated("bc", peft_version="0.9.0"), "0.9.0", False, "this tool knows PEFT up to 0.7.0"),
    ("no version at all", dated("bc", peft_version="x"), "0.6.0 0.7.0", False, "`peft_version`"),
    ("the card", dated("ab", card="### Framework versions\n\n- PEFT 0.3.1\n"), "0.3.1", False, "agree"),
    ("a card with a colon", dated("ab", card="- PEFT: 0.3.1"), "0.3.1", False, "agree"),
    ("saved twice", dated("ab", card="- PEFT 0.4.0\n\n- PEFT 0.3.0"), "0.3.0 0.4.0", False, "PEFT 0.3.0 and 0.4.0"),
    ("a card of another adapter", dated("a", card="- PEFT 0.6.0"), "0.1.0 0.2.0", False, "edited or replaced"),
    ("keys removed, and a card", dated("c", card="- PEFT 0.3.0"), "0.3.0 0.4.1 0.5.0 0.6.0 0.7.0", False, "replaced"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("result", "releases", "newer", "words"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_the_releases_that_can_have_written_it(result: Dated, releases: str, newer: bool, words: str) -> None:
    assert (" ".join(result.releases), result.newer) == (releases, newer)
    assert words in " ".join([*result.reasons, *result.doubts])


def test_other_libraries_of_the_card() -> None:
    found = dated("ab", card="### Framework versions\n\n- PEFT 0.3.1\n- Transformers 4.31.0\n- Pytorch 2.0\n")
    assert found.creators == [{"peft": "0.3.1", "transformers": "4.31.0"}]


def test_the_table_is_read_as_it_was_written(tmp_path: Any) -> None:
    (tmp_path / written_by.FILE).write_text(written_by.render(_table()))
    assert written_by.load(tmp_path) == _table()


def _adapter(one: Written, *, version: bool) -> Adapter:
    """The stored adapter without its card; without a version in the configuration, too."""
    versions = {key: value if version else None for key, value in one.versions.items()}
    return Adapter({**one.config, **versions}, one.shapes, one.dtypes, tuple(one.files))


def test_every_stored_adapter_is_dated_to_a_range_that_has_its_release(stored: list[Written]) -> None:
    table = written_by.load(data.matrices())
    for version in (True, False):
        wrong = [
            one
            for one in _kinds(stored)
            if one.release not in dating.date(_adapter(one, version=version), table).releases
        ]
        assert not wrong


def test_every_stored_adapter_is_dated_by_a_table_without_its_release(stored: list[Written]) -> None:
    """Most releases of users are in no table."""
    releases = written_by.load(data.matrices()).releases
    for left_out in sorted({one.release for one in stored}):
        table = written_by.table([one for one in stored if one.release != left_out], releases)
        own = [one for one in _kinds(stored) if one.release == left_out]
        assert [one for one in own if left_out not in dating.date(_adapter(one, version=False), table).releases] == []


def test_an_adapter_from_before_all_fixtures() -> None:
    config = dict.fromkeys(written_by.EARLY["LORA"]) | {"peft_type": "LORA"}
    found = dating.date(Adapter(config), written_by.load(data.matrices()))
    assert (found.releases[-1], found.doubts) == ("0.2.0", ())


def test_a_stored_adapter_is_doubted_by_nobody(stored: list[Written]) -> None:
    table = written_by.load(data.matrices())
    assert [one for one in _kinds(stored) if dating.date(_adapter(one, version=True), table).doubts] == []


def test_the_table_is_up_to_date(stored: list[Written]) -> None:
    ((path, text),) = written_by.again(data.matrices(), stored).items()
    assert path.read_text() == text, "run `peft-regress docs`"


def test_further_releases_are_added_to_the_table(tmp_path: Any) -> None:
    (tmp_path / written_by.FILE).write_text(written_by.render(_table()))
    ((path, text),) = written_by.again(tmp_path, [], {"0.7.1": "2026-01-01"}).items()
    path.write_text(text)
    assert list(written_by.load(tmp_path).releases) == [*RELEASES, "0.7.1"]


def _kinds(stored: list[Written]) -> list[Written]:
    """One adapter of each kind that can be told apart."""
    kinds = {
        (one.method, one.release, *sorted(one.config), *sorted(written_by.own_parts(one.method, one.shapes))): one
        for one in stored
    }
    return list(kinds.values())
