"""Changing `expectations.toml`: an entry reads as it was meant, and no other byte of the file changes."""

from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tomlkit.exceptions import ParseError

from harness.core.errors import HarnessError, UsageError
from harness.deviation.accept import toml_text
from harness.deviation.accept.file import Snapshot
from harness.judge import expectations

REAL = Path(__file__).parents[2] / "matrices" / "expectations.toml"
NEW: dict[str, Any] = {
    "id": "new",
    "scenarios": ["lora-linear"],
    "creators": ["v061"],
    "loaders": "peft>=0.21.2,<0.22",
    "verdict": "contract",
    "kinds": ["config"],
    "issue": "https://example.org/issues/1",
    "reason": "Known.",
    "expires": date(2999, 1, 1),
}

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=400)
WORDY = st.lists(st.text("ab\\\"'# =[]ü\u2028\x7f", max_size=30), min_size=1, max_size=40).map(" ".join)


@given(text=TEXTS | WORDY)
def test_a_text_reads_as_it_was_meant(text: str) -> None:
    written = toml_text.entry({"reason": text, "id": text, "scenarios": [text]})
    (read,) = tomllib.loads(written)["expectation"]
    assert read == {"id": text, "reason": text, "scenarios": [text]}


@given(text=TEXTS)
def test_whoever_reads_the_file_sees_all_that_is_in_it(text: str) -> None:
    assert toml_text.entry({"reason": text}).replace("\n", "").isprintable()


@given(words=st.lists(st.text('abc"\\', min_size=1, max_size=40), min_size=1, max_size=80))
def test_lines_are_no_longer_than_those_written_by_hand(words: list[str]) -> None:
    written = toml_text.entry(NEW | {"reason": " ".join(words), "scenarios": ["s" * 30] * 9})
    assert max(map(len, written.splitlines())) <= toml_text.WIDTH


@given(comment=TEXTS)
def test_nothing_in_a_comment_can_end_it(comment: str) -> None:
    written = toml_text.entry(NEW, comment)
    assert tomllib.loads(written) == tomllib.loads(toml_text.entry(NEW))


def test_an_entry_looks_as_if_written_by_hand() -> None:
    said = 'The experts are called "0" and "1"; since 0.20.0 keys with another adapter\'s name in them are lost.'
    scenarios = [f"lora-save-confusable-names-{number}" for number in range(4)]
    fields = NEW | {"reason": f"{said} {said}", "scenarios": scenarios}
    written = toml_text.entry(fields, "By hand: 0.20.0 alone.")
    assert written == (
        "# By hand: 0.20.0 alone.\n"
        "[[expectation]]\n"
        'id = "new"\n'
        "scenarios = [\n" + "".join(f'  "{name}",\n' for name in scenarios) + "]\n"
        'creators = ["v061"]\n'
        'loaders = "peft>=0.21.2,<0.22"\n'
        'verdict = "contract"\n'
        'kinds = ["config"]\n'
        'issue = "https://example.org/issues/1"\n'
        'reason = """\n'
        f"{said} The experts are \\\n"
        f'{said.removeprefix("The experts are ")}"""\n'
        "expires = 2999-01-01\n"
    )


# -- files ------------------------------------------------------------------------------------------------------------

_ASIDE = st.lists(
    st.sampled_from(["", "# a comment", "#", "# ---- part ----", "  # [[expectation]]", '# """', "#\tü"]), max_size=4
)
_TAIL = st.sampled_from(["", "  # behind it", "\t"])
_REASONS = st.sampled_from(
    [
        '"short"', "'literal # no comment'", '"""\nlong \\\n  text\n"""', '"""\n[[expectation]]\nid = "no entry"\n"""',
        "'''\n# no comment\n\n[[expectation]]'''", '"""\nends with\n# a hash"""', '"""\n\n# a hash\n\n"""',
    ]
)  # fmt: skip
_KEYS = st.sampled_from(["expectation", " expectation ", '"expectation"', "'expectation'\t"])
_INDENTS = st.sampled_from(["", "", "  ", "\t"])


@st.composite
def files(draw: st.DrawFn) -> str:
    """A file as somebody might write it, with traps for whoever reads it by lines."""
    lines: list[str] = draw(_ASIDE)
    header = f"[[{draw(_KEYS)}]]"  # one spelling in a file, see `REFUSED`
    for number in range(draw(st.integers(0, 4))):
        lines += [*draw(_ASIDE), draw(_INDENTS) + header + draw(_TAIL)]
        values = [
            f'id = "e{number}"', 'scenarios = ["a",\n  # within\n  "b"]', 'creators = "peft<1"', 'loaders=["*"]',
            'verdict = "contract"', 'issue = "https://example.org/1"', f"reason = {draw(_REASONS)}",
            "expires  =  2999-01-01",
        ]  # fmt: skip
        for value in draw(st.permutations(values)):
            lines += [value + draw(_TAIL), *draw(st.sampled_from([[], [], [""], ["# between"]]))]
    text = "\n".join([*lines, *draw(_ASIDE)]) + draw(st.sampled_from(["", "\n", "\n\n"]))
    return text.replace("\n", "\r\n") if draw(st.booleans()) else text


def snapshot(text: str) -> Snapshot:
    """A file that is not on disk."""
    path = Path("expectations.toml")
    return Snapshot(path, text, expectations.parse(text, path))


SLOW_START = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)


@SLOW_START
@given(text=files(), place=st.integers(0, 5), number=st.integers(1, 2))
def test_everything_else_stays_byte_for_byte(text: str, place: int, number: int) -> None:
    before = snapshot(text)
    beside = f"e{place}" if place < 5 else None
    fields = [NEW | {"id": f"new{index}"} for index in range(number)]
    after = before.with_entries([toml_text.entry(one) for one in fields], beside)
    added = len(after) - len(text)
    start = next((i for i, (a, b) in enumerate(zip(text, after, strict=False)) if a != b), len(text))
    # one stretch is new, and without it the file is what it was
    assert any(after[:at] + after[at + added :] == text for at in range(max(0, start - added), start + 1))
    ids = [one.id for one in expectations.parse(after, before.path)]
    at = ids.index("new0")
    assert ids[:at] + ids[at + number :] == [one.id for one in before.expectations]
    assert at == (place + 1 if place < len(before.expectations) else len(before.expectations))
    assert ("\r" in after) == ("\r" in text)


@SLOW_START
@given(text=files(), place=st.integers(0, 3))
def test_only_an_entry_and_its_comment_go(text: str, place: int) -> None:
    before = snapshot(text)
    if place >= len(before.expectations):
        with pytest.raises(UsageError, match="there is no expectation"):
            before.without(f"e{place}")
        return
    after = before.without(f"e{place}")
    removed = len(text) - len(after)
    assert any(text[:at] + text[at + removed :] == after for at in range(len(after) + 1))
    assert expectations.parse(after, before.path) == tuple(one for one in before.expectations if one.id != f"e{place}")


@SLOW_START
@given(text=files(), place=st.integers(0, 3))
def test_only_a_date_changes(text: str, place: int) -> None:
    before = snapshot(text)
    if place >= len(before.expectations):
        return
    after = before.renewed(f"e{place}", date(2031, 12, 30))
    assert [a for a, b in zip(text, after, strict=True) if a != b]
    assert after.replace("2031-12-30", "2999-01-01") == text


@SLOW_START
@given(text=files())
def test_what_was_put_in_can_be_taken_out(text: str) -> None:
    before = snapshot(text)
    after = snapshot(before.with_entries([toml_text.entry(NEW)]))
    assert after.without("new").rstrip() == text.rstrip()


@pytest.mark.parametrize("there", ["", "# whose file it is", "# whose file it is\n", "# whose file it is\n\n"])
def test_one_blank_line_stands_between_entries(there: str) -> None:
    entries = [toml_text.entry(NEW | {"id": f"new{number}"}) for number in range(3)]
    wanted = "\n".join([*filter(None, [there.strip() + "\n" if there else ""]), *entries])
    assert snapshot(there).with_entries(entries) == wanted
    assert snapshot(snapshot(there).with_entries(entries[:1])).with_entries(entries[1:], "new0") == wanted


def test_the_real_file_keeps_its_comments() -> None:
    before = Snapshot.of(REAL)
    entry = toml_text.entry(NEW)
    after = before.with_entries([entry], "lokr-scaled-by-alpha-over-r")
    assert after.replace("\n" + entry, "", 1) == before.text
    behind = after.partition(entry)[2]
    assert behind.startswith("\n# By hand: PEFT 0.17.1 works on Transformers 4.51.3")
    assert snapshot(after).without("new") == before.text


def test_the_comment_right_above_goes_with_its_entry() -> None:
    gone = Snapshot.of(REAL).without("lora-bias-all-key-renamed-mlp")
    assert "As above, on a plain model; what 0.4 made loses a layer besides" in gone  # another entry's
    assert gone.count("As above, on a plain model") == REAL.read_text().count("As above, on a plain model") - 1


def test_the_comment_that_opens_a_file_stays() -> None:
    text = "# whose file it is\n" + toml_text.entry(NEW)
    assert snapshot(text).without("new") == "# whose file it is\n"


INLINE = 'expectation = [{id = "e", scenarios = ["a"], creators = ["*"], loaders = ["*"], verdict = "crash", '
INLINE += 'issue = "https://example.org/1", reason = "r", expires = 2999-01-01}]\n'
ENTRY = toml_text.entry(NEW | {"id": "e"})

REFUSED = [
    # a file that TOML allows, what is found
    (INLINE, "not each written as a table of their own"),
    (INLINE + "# behind it\n", "not each written as a table of their own"),
    # tomlkit has one spelling of a table's name for all of its kind
    (ENTRY + toml_text.entry(NEW | {"id": "f"}).replace("[[expectation]]", '[["expectation"]]'),
     "line 11 is '[[\"expectation\"]]', and tomlkit would write '[[expectation]]'"),
]  # fmt: skip
CHANGES: dict[str, tuple[Any, ...]] = {
    "with_entries": ([toml_text.entry(NEW)],), "without": ("e",), "renewed": ("e", date(2031, 1, 1)),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("text", "found"), REFUSED, ids=["inline", "inline-and-comment", "two-spellings"])
def test_a_file_that_cannot_be_changed_is_refused(text: str, found: str, change: str) -> None:
    before = snapshot(text)
    with pytest.raises(UsageError) as error:
        getattr(before, change)(*CHANGES[change])
    assert found in error.value.found
    assert "nothing was written" in error.value.found
    assert error.value.next_step


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_tomlkit_cannot_read_is_refused(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads what the program reads, as far as anybody knows."""

    def refuses(_text: str) -> None:
        raise ParseError(3, 4, "what is this?")

    before = snapshot(ENTRY)
    monkeypatch.setattr("tomlkit.parse", refuses)
    with pytest.raises(UsageError, match="tomlkit can't read it: what is this"):
        getattr(before, change)(*CHANGES[change])


def test_an_entry_cannot_stand_behind_an_array() -> None:
    with pytest.raises(UsageError, match="can't be changed by a command"):
        snapshot("expectation = []\n").with_entries([toml_text.entry(NEW)])


def test_a_change_that_loses_something_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last guard, made to bite by a change that is wrong on purpose."""
    before = snapshot(toml_text.entry(NEW | {"id": "e0"}))
    monkeypatch.setattr(toml_text, "inserted", lambda *_: toml_text.entry(NEW))
    with pytest.raises(HarnessError, match="can't be changed by a command"):
        before.with_entries([toml_text.entry(NEW)])
