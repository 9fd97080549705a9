"""The file of a break: it is read as it was meant, and a change touches nothing else."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import UsageError
from harness.core.text import visible
from harness.deviation.accept import break_file
from harness.deviation.accept.break_file import Changed
from harness.judge import breaks
from harness.judge.breaks import Condition
from tests.support.samples import HOSTILE

FIELDS: dict[str, Any] = {
    "id": "lokr", "title": "Twice", "cause": "Known.", "references": ["https://example.org/1"], "since": None,
    "expires": date(2027, 5, 31),
    "condition": [
        {"scenarios": ["lokr-a"], "creators": "peft<0.14", "loaders": ["current"], "devices": None,
         "verdict": "silent-wrong", "kinds": ["values"]},
        {"scenarios": ["lokr-b"], "creators": ["v*"], "loaders": "peft>=0.14", "verdict": "load-error"},
    ],
}  # fmt: skip


def there(fields: dict[str, Any]) -> dict[str, Any]:
    """What a file has of the fields."""
    left = {key: value for key, value in fields.items() if value is not None and key != "id"}
    return left | {"condition": [{k: v for k, v in one.items() if v is not None} for one in fields["condition"]]}


def test_a_file_reads_like_those_that_are_written_by_hand() -> None:
    assert break_file.text(FIELDS, ["shown by a@b:c", "blame: numpy"]) == (
        "# shown by a@b:c\n# blame: numpy\n"
        'title = "Twice"\ncause = "Known."\nreferences = ["https://example.org/1"]\nexpires = 2027-05-31\n\n'
        '[[condition]]\nscenarios = ["lokr-a"]\ncreators = "peft<0.14"\nloaders = ["current"]\n'
        'verdict = "silent-wrong"\nkinds = ["values"]\n\n'
        '[[condition]]\nscenarios = ["lokr-b"]\ncreators = ["v*"]\nloaders = "peft>=0.14"\nverdict = "load-error"\n'
    )


def test_long_texts_are_folded_and_long_lists_have_a_line_for_each() -> None:
    fields = FIELDS | {
        "cause": 'Since 0.14 "a" is not b. ' * 12 + "End.",
        "references": ["https://e.org/" + "x" * 60] * 3,
    }
    text = break_file.text(fields)
    assert max(map(len, text.splitlines())) <= break_file.WIDTH
    assert 'cause = """\nSince 0.14 "a" is not b.' in text
    assert tomllib.loads(text) == there(fields)


WORDS = st.sampled_from(
    [
        "word",
        "a" * 60,
        " ",
        "  ",
        "",
        "\n",
        "\\",
        '"',
        '""',
        '"""',
        "'",
        "#",
        "\t",
        "\x00",
        "\x7f",
        "\u202e",
        "é",
        "😀",
        "]",
    ]
)
TEXTS = st.lists(WORDS, min_size=1, max_size=60).map(" ".join) | st.text(max_size=80)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, remark=TEXTS)
def test_any_text_is_read_again_as_it_was(text: str, remark: str) -> None:
    fields = FIELDS | {"cause": text, "references": [text, text]}
    assert tomllib.loads(break_file.text(fields, [remark])) == there(fields)
    assert not [c for c in break_file.text(fields) if not c.isprintable() and c != "\n"]


def test_nothing_hostile_leaves_the_comment_or_its_line() -> None:
    for text in HOSTILE:
        written = break_file.text(FIELDS | {"cause": visible(text)}, [text])
        assert tomllib.loads(written)["title"] == "Twice"
        assert not [c for c in written if not c.isprintable() and c != "\n"]


# -- changes ----------------------------------------------------------------------------------------------------------


def matrices(tmp_path: Path) -> Path:
    """A folder with two breaks."""
    for id in ("lokr", "other"):
        break_file.added(tmp_path, FIELDS | {"id": id}).write()
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    """File name → bytes, without the lock."""
    return {path.name: path.read_bytes() for path in sorted((folder / breaks.FOLDER).iterdir())}


SHAPE: dict[str, Any] = {
    "shape": {
        "forward values": {"pattern": ["factor alpha/r"]},
        "load error": {"says": ["config · TypeError: " + "x" * 90, "b \\"]},
        "values": {},
    },
    "size": {"lokr-a": {"forward values": [0.5, 3]}, "lokr.b": {"forward values": 1e-06, "accounting lost-tensors": 4}},
}


def test_shape_and_size_are_tables_of_a_line_each_if_they_fit() -> None:
    kinds = {key: value for key, value in FIELDS["condition"][0].items() if key != "kinds"}
    text = break_file.text(FIELDS | {"condition": [kinds | SHAPE]})
    assert '[condition.shape]\n"forward values" = { pattern = "factor alpha/r" }\nvalues = {}\n' in text
    assert '[condition.shape."load error"]\nsays = [\n' in text
    assert '[condition.size]\nlokr-a = { "forward values" = [0.5, 3] }\n"lokr.b" = ' in text
    known = breaks.parse(text, Path("lokr.toml"))
    assert known.condition[0].model_dump(include={"shape", "size"}, exclude_none=True) == SHAPE


def test_measuring_replaces_kinds_and_leaves_the_rest_of_the_file(tmp_path: Path) -> None:
    folder = matrices(tmp_path)
    path = folder / breaks.FOLDER / "lokr.toml"
    path.write_text("# by hand\n" + path.read_text("utf-8").replace("Known.", "Known,  \\u0062y hand."), "utf-8")
    before, known = path.read_text("utf-8"), break_file.one(folder, "lokr")
    first = Condition.model_validate(known.condition[0].model_dump(exclude={"kinds"}) | SHAPE)
    measured = known.model_copy(update={"condition": [first, known.condition[1]]})
    break_file.remeasured(folder, measured).write()
    now = path.read_text("utf-8")
    assert break_file.one(folder, "lokr") == measured
    assert now.startswith(before[: before.index("kinds")])
    assert now.endswith(before[before.index("\n[[condition]]", before.index("kinds")) :])
    break_file.remeasured(folder, measured).write()
    assert path.read_text("utf-8") == now


def test_measuring_leaves_the_rules_about_adapters(tmp_path: Path) -> None:
    folder = matrices(tmp_path)
    path = folder / breaks.FOLDER / "lokr.toml"
    rule = 'method = "LOKR"\nunless = [{ config = { alpha = { set = false } } }]\nonly_if = ["merge"]\n'
    text = path.read_text("utf-8").replace("\n[[condition]]", f"\n[adapter]\n{rule}\n[[condition]]", 1)
    text = text.replace('kinds = ["values"]\n', f'kinds = ["values"]\n\n[condition.adapter]\n{rule}', 1)
    path.write_text(text, "utf-8")
    known = break_file.one(folder, "lokr")
    first = Condition.model_validate(known.condition[0].model_dump(exclude={"kinds"}) | SHAPE)
    measured = known.model_copy(update={"condition": [first, known.condition[1]]})
    break_file.remeasured(folder, measured).write()
    now = break_file.one(folder, "lokr")
    assert (now.adapter, now.condition[0].adapter) == (known.adapter, known.condition[0].adapter)
    assert now.condition[0].shape == first.shape
    assert path.read_text("utf-8").count(rule) == 2


def test_a_file_that_cannot_be_measured_by_a_command_is_left_alone(tmp_path: Path) -> None:
    folder = matrices(tmp_path)
    path = folder / breaks.FOLDER / "lokr.toml"
    path.write_text(path.read_text("utf-8").replace('kinds = ["values"]', "'kinds' = ['values']"), "utf-8")
    known = break_file.one(folder, "lokr")
    first = Condition.model_validate(known.condition[0].model_dump(exclude={"kinds"}) | SHAPE)
    before = content(folder)
    with pytest.raises(UsageError, match="command can't change"):
        break_file.remeasured(folder, known.model_copy(update={"condition": [first, known.condition[1]]}))
    assert content(folder) == before


def test_a_break_is_added_renewed_and_removed_and_other_files_stay(tmp_path: Path) -> None:
    folder = matrices(tmp_path)
    before = content(folder)
    change = break_file.renewed(folder, "lokr", date(2028, 1, 1))
    assert [line for line in change.diff.splitlines() if line[:2] in ("-e", "+e")] == [
        "-expires = 2027-05-31", "+expires = 2028-01-01",
    ]  # fmt: skip
    change.write()
    assert content(folder) == before | {"lokr.toml": before["lokr.toml"].replace(b"2027-05-31", b"2028-01-01")}
    break_file.removed(folder, "lokr").write()
    assert content(folder) == {"other.toml": before["other.toml"]}


@pytest.mark.parametrize("id", ["../x", "/x", "a/b", "", "..", "A"])
def test_an_id_never_leads_to_another_folder(tmp_path: Path, id: str) -> None:
    folder = matrices(tmp_path)
    (tmp_path / "x.toml").write_bytes((folder / breaks.FOLDER / "lokr.toml").read_bytes())
    with pytest.raises(UsageError, match="cannot be the id"):
        break_file.removed(folder, id)
    with pytest.raises(UsageError, match="cannot be the id"):
        break_file.renewed(folder, id, date(2028, 1, 1))
    with pytest.raises(UsageError):
        break_file.added(folder, FIELDS | {"id": id})


BY_HAND = [
    "# a comment\n  # another\nexpires=2027-05-31 # soon\ntitle='x'\ncause=''' y '''\nreferences=['https://e.org/1']\n"
    "[[condition]]\nscenarios=['a']\ncreators='peft<1'\nloaders='peft>0'\nverdict='crash'",
]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("text", BY_HAND)
def test_another_date_is_all_that_renewing_changes(tmp_path: Path, text: str, newline: str) -> None:
    (tmp_path / "breaks").mkdir()
    path = tmp_path / "breaks" / "a.toml"
    path.write_bytes(text.replace("\n", newline).encode())
    break_file.renewed(tmp_path, "a", date(2028, 1, 1)).write()
    wanted = text.replace("expires=2027-05-31", "expires = 2028-01-01").replace("\n", newline)
    assert path.read_bytes() == wanted.encode()


@pytest.mark.parametrize(
    "fields",
    [{"expires": None, "permanent": "old"}, {"cause": "see\nexpires = 2027-05-31"}],
    ids=["permanent", "a date in a text"],
)
def test_what_a_command_cannot_renew_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    (tmp_path / "breaks").mkdir()
    path = tmp_path / "breaks" / "a.toml"
    text = break_file.text(FIELDS | fields).replace("\\n", "\n").replace('"see', '"""see').replace('31"', '31"""')
    path.write_text(text)
    with pytest.raises(UsageError, match="nothing was written"):
        break_file.renewed(tmp_path, "a", date(2028, 1, 1))
    assert path.read_text() == text


def test_an_unknown_id_is_refused_with_what_is_close(tmp_path: Path) -> None:
    folder = matrices(tmp_path)
    for change in (break_file.removed, lambda where, id: break_file.renewed(where, id, date(2028, 1, 1))):
        with pytest.raises(UsageError) as error:
            change(folder, "lok")
        assert "lokr" in error.value.expected


def test_an_entry_of_the_old_file_is_not_changed_by_a_command(tmp_path: Path) -> None:
    old = tmp_path / breaks.OLD_FILE
    old.write_text(
        '[[expectation]]\nid = "a"\nscenarios = ["x"]\ncreators = ["*"]\nloaders = ["*"]\nverdict = "crash"\n'
        'issue = "https://e.org/1"\nreason = "r"\nexpires = 2027-05-31\n'
    )
    with pytest.raises(UsageError, match="the old form"):
        break_file.removed(tmp_path, "a")


def touched(path: Path) -> None:
    path.write_text("# by somebody else\n")


@pytest.mark.parametrize("other", [touched, Path.unlink])
def test_a_change_is_not_written_over_what_somebody_else_did(tmp_path: Path, other: Callable[[Path], None]) -> None:
    folder = matrices(tmp_path)
    changes = [break_file.removed(folder, "lokr"), break_file.renewed(folder, "lokr", date(2028, 1, 1))]
    other(folder / "breaks" / "lokr.toml")
    before = content(folder)
    for change in changes:
        with pytest.raises(Changed):
            change.write()
    assert content(folder) == before


def test_a_new_break_is_not_written_over_another_of_its_name(tmp_path: Path) -> None:
    first, second = itertools.repeat(break_file.added(tmp_path, FIELDS), 2)
    first.write()
    before = content(tmp_path)
    with pytest.raises(Changed):
        second.write()
    assert content(tmp_path) == before


def test_every_stored_break_is_written_as_it_would_be_by_a_command() -> None:
    """So a break that `accept` wrote and one that was edited look alike, and diffs stay small."""
    folder = Path(__file__).parents[2] / "matrices" / breaks.FOLDER
    for path in sorted(folder.glob("*.toml")):
        text = path.read_text()
        assert break_file.text(tomllib.loads(text)) == text, path.name
