"""`triage`: what is shown of a cause, what is drafted, and that a draft is no expectation."""

from __future__ import annotations

import builtins
import json
import os
import pty
import re
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.cli import triage as command
from harness.core.errors import HarnessError, UsageError
from harness.core.run import Run
from harness.deviation import blame_notes, triage
from harness.deviation.accept import conditions
from harness.deviation.search import blame
from harness.deviation.search.work import SearchRequest
from harness.judge import breaks
from harness.judge.breaks import Break
from tests.deviation.test_accept import THERE, TODAY, cell, run
from tests.support.breaks import known
from tests.support.mini.world import REPOSITORY, World, filled
from tests.support.samples import HOSTILE

SENTENCE = "minipeft 2.0 → 2.1 alone causes it"


def items(where: Run, there: tuple[Break, ...] = (), **more: object) -> tuple[triage.Item, ...]:
    """What is to be decided about."""
    return triage.items(conditions.applied(where, there, TODAY), there, TODAY, **more)  # type: ignore[arg-type]


MANY = run(
    cell("lora@v061:current", "contract", ["config"]), cell("lokr-a@v061:current"), cell("lokr-b@v070:current"),
    cell("lokr-a@v080:current", "exact"), cell("sound@v061:current", "exact"),
)  # fmt: skip


def test_causes_come_worst_first_each_with_its_draft() -> None:
    first, second = items(MANY)
    assert (first.cause.verdict, len(first.cause.cells)) == ("silent-wrong", 2)
    assert (second.cause.verdict, second.cause.scenarios) == ("contract", ("lora",))
    assert [(one["scenarios"], one["creators"]) for one in first.draft["condition"]] == [
        (["lokr-a"], ["v061"]),
        (["lokr-b"], ["v070"]),
    ]
    assert second.draft["expires"] == date(2027, 5, 22)


def test_a_draft_is_refused_until_both_are_filled_in(tmp_path: Path) -> None:
    (tmp_path / "breaks").mkdir()
    for name, drafted in triage.files(items(MANY)).items():
        path = tmp_path / "breaks" / name
        for text, key in (
            (drafted, "references"),
            (drafted.replace(triage.NO_ISSUE, "https://example.org/issues/1"), "cause"),
            (drafted.replace('cause = ""', 'cause = "known"'), "references"),
        ):
            path.write_text(text, encoding="utf-8")
            with pytest.raises(UsageError, match=f"`{key}`"):
                breaks.read(path)
        filled_in = drafted.replace(triage.NO_ISSUE, "https://example.org/issues/1").replace(
            'cause = ""', 'cause = "k"'
        )
        path.write_text(filled_in, encoding="utf-8")
    assert not conditions.applied(MANY, breaks.load(tmp_path), TODAY).deviations


def test_no_draft_has_the_id_of_another() -> None:
    there = (known(**THERE | {"id": "lora-contract", "scenarios": ["elsewhere"]}),)
    assert [item.draft["id"] for item in items(MANY, there)] == ["lokr-silent-wrong", "lora-contract-2"]


def test_versions_where_they_take_in_no_other_cell() -> None:
    between = run(
        cell("lokr-a@v061:current"), cell("lokr-a@v070:current", "exact"), cell("lokr-a@v080:current"),
        cell("lora@v061:current"), cell("lora@v070:current"),
    )  # fmt: skip
    lokr, lora = sorted(items(between, ranges=["peft"]), key=lambda item: item.cause.scenarios)
    assert lora.draft["condition"][0]["creators"] == "peft>=0.6.1,<=0.7.0"
    assert lokr.draft["condition"][0]["creators"] == ["v061", "v080"]
    assert "would take in 1 more: lokr-a@v070:current[cpu] is exact" in lokr.notes[0]


LIKE = [
    # a break's fields, why it is like the cause
    ({"scenarios": ["lokr-a"], "creators": ["v070"]}, "it covers cells of this run that show exactly the same"),
    ({"scenarios": ["lokr-a"], "creators": ["nobody"]}, "it is about the same scenario, with other"),
    (
        {"scenarios": ["lokr-z"], "kinds": ["values"], "creators": ["nobody"]},
        "the same verdict and kinds, in the same family",
    ),
    ({"scenarios": ["lokr-z"], "kinds": ["config"], "creators": ["nobody"]}, ""),
    ({"scenarios": ["lokr-a"], "verdict": "contract", "creators": ["nobody"]}, ""),
    ({"scenarios": ["*"], "creators": ["nobody"]}, ""),
]


@pytest.mark.parametrize(("fields", "why"), LIKE)
def test_breaks_that_are_like_a_cause(fields: dict[str, object], why: str) -> None:
    where = run(cell("lokr-a@v061:current"), cell("lokr-a@v070:current"), cell("lokr-z@v061:current", "exact"))
    one = known(**THERE | fields)
    (item,) = items(where, (one,))
    assert [like.why[: len(why)] for like in item.like] == ([why] if why else [])


def test_hostile_text_stays_in_its_comment_and_its_line() -> None:
    where = run(*(cell(f"a-{n}@v061:current", "load-error", [], reason=text) for n, text in enumerate(HOSTILE)))
    found = items(where)
    for item in found:
        assert len(tomllib.loads(item.toml())["condition"]) == len(item.draft["condition"])
    for text in (triage.toml(where, found), triage.markdown(where, found), *(triage.text(item, "1") for item in found)):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)


# -- blame ------------------------------------------------------------------------------------------------------------


def told(reports: Path, name: str, content: str | bytes) -> Path:
    """A file that `blame` might have left."""
    path = reports / "blame" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_the_sentence_of_a_cause_is_of_its_representative_or_of_another_cell(tmp_path: Path) -> None:
    cells = [cell("lokr-a@v061:current"), cell("lokr-b@v061:current")]
    assert blame_notes.of(cells, blame_notes.known(tmp_path)) == ""
    told(tmp_path, "other.json", json.dumps({"cell": cells[1].id, "sentence": "other", "more": 1}))
    assert blame_notes.of(cells, blame_notes.known(tmp_path)) == "other"
    older = told(tmp_path, "z.json", json.dumps({"cell": cells[0].id, "sentence": "older"}))
    os.utime(older, (1, 1))
    told(tmp_path, "a.json", json.dumps({"cell": cells[0].id, "sentence": "newer"}))
    assert blame_notes.of(cells, blame_notes.known(tmp_path)) == "newer"
    assert blame_notes.of([cells[0]], {"elsewhere": "x"}) == ""


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"7", b'{"cell": 1, "sentence": 2}', b'{"cell": "x"}'])
def test_a_damaged_file_of_blame_says_nothing(tmp_path: Path, content: bytes) -> None:
    told(tmp_path, "x.json", content)
    assert blame_notes.known(tmp_path) == {}


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, created: Path, loaders: Path) -> World:
    """A run with three causes; not to be altered."""
    world = filled(tmp_path_factory.mktemp("ran"), created, loaders)
    options = [f"--loader={world.spec(release)}" for release in ("2.0", "2.1", "2.3", "2.4")]
    assert world.run("check", *options).code == 1
    return world


@pytest.fixture
def deviating(mini: World, ran: World) -> World:
    """A world with that run."""
    shutil.copytree(ran.reports, mini.reports)
    return mini


def entries(world: World) -> list[str]:
    """Ids of the known breaks."""
    return [one.id for one in breaks.load(world.matrices)]


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Answers to what is asked, one after the other; then the end of input."""
    answers: list[str] = []

    def answer(question: str) -> str:
        print(question)
        if not answers:
            raise EOFError
        return answers.pop(0)

    monkeypatch.setattr(builtins, "input", answer)
    monkeypatch.setattr(command, "on_terminal", lambda: True)
    yield answers
    assert not answers, "more was answered than asked"


def test_without_a_terminal_drafts_are_printed(deviating: World) -> None:
    said = deviating.run("triage", "--range", "peft")
    assert said.code == 0, said
    parts = re.split(r"^# ---- matrices/breaks/.*$", said.out, flags=re.MULTILINE)[1:]
    drafts = [one for part in parts for one in tomllib.loads(part)["condition"]]
    assert {one["verdict"] for one in drafts} == {"silent-wrong", "contract", "load-error"}
    assert {one["creators"] for one in drafts} == {"peft==1.0"}
    assert "# silent-wrong, 1 cell: " in said.out
    assert "# starts at: layer1 (adapter), |Δ| " in said.out
    assert "unexplained deviations; `peft-regress triage` walks through them" in said.err


def test_drafts_are_files_in_a_new_folder(deviating: World, tmp_path: Path) -> None:
    folder = tmp_path / "drafts"
    assert deviating.run("triage", "--output", str(folder)).code == 0
    before = {path.name: path.read_text() for path in folder.iterdir()}
    assert [len(tomllib.loads(text)["condition"]) for text in before.values()] == [1, 1, 1]
    said = deviating.run("triage", "--output", str(folder))
    assert (said.code, {path.name: path.read_text() for path in folder.iterdir()}) == (64, before)
    assert "exists already" in said.err
    assert deviating.run("triage", "--output", "/proc/drafts").code == 2


def test_other_formats_are_a_new_file(deviating: World, tmp_path: Path) -> None:
    file = tmp_path / "triage.md"
    assert deviating.run("triage", "--format", "markdown", "--output", str(file)).code == 0
    before = file.read_text()
    assert before.startswith("## Triage of ")
    assert deviating.run("triage", "--format", "markdown", "--output", str(file)).code == 64
    assert file.read_text() == before


def test_other_formats(deviating: World) -> None:
    told(deviating.reports, "x.json", json.dumps({"cell": deviating.id("two-layers", "2.1"), "sentence": SENTENCE}))
    data = json.loads(deviating.run("triage", "--json").out)
    assert [one["verdict"] for one in data["causes"]] == ["silent-wrong", "load-error", "contract"]
    assert [one["sentence"] for one in data["causes"]] == [SENTENCE, "", ""]
    pasted = deviating.run("triage", "--format", "markdown").out
    assert pasted.count("```toml\ntitle = ") == 3
    assert f"- blame: `{SENTENCE}`" in pasted
    shown = deviating.run("triage", "--format", "text").out
    assert f"  blame      {SENTENCE}" in shown
    assert "  blame      not asked yet: `peft-regress blame '" in shown


def test_what_does_not_hold_is_told_with_the_command_for_it(deviating: World) -> None:
    deviating.expect(id="old", expires="2020-01-01")
    deviating.expect(id="gone", scenarios=["one-layer"], loaders="minipeft==2.0")
    deviating.expect(id="other", loaders="minipeft==2.4")
    said = deviating.run("triage").out
    assert "# expired: old: `peft-regress accept --renew old --expires DATE` if it still holds" in said
    assert "# stale: gone: `peft-regress accept --remove gone`" in said
    assert "# mismatch: other: find out what changed; `peft-regress accept --update other` if" in said
    assert "# like: old: it covers this and has expired; if it still holds," in said
    deviating.expect(id="some", scenarios=["*"], loaders="minipeft==2.1")
    assert "# stale: some: narrow its conditions by hand" in deviating.run("triage").out


def test_one_after_the_other_on_a_terminal(deviating: World, answering: list[str]) -> None:
    told(deviating.reports, "x.json", json.dumps({"cell": deviating.id("two-layers", "2.1"), "sentence": SENTENCE}))
    issue = "https://example.org/issues/9"
    answering += ["?", "d", "a", "the forum", issue, "yesterday", "2998-01-01", "", "", "y"]  # accepted, with defaults
    answering += ["s"]  # skipped
    answering += ["a", "", "a", issue, "", "because", "mine", "n", "a", issue, "", "because", "mine", "y"]
    said = deviating.run("triage")
    assert said.code == 0, said
    assert "1 of 3  silent-wrong, 1 cell: " in said.out
    assert "2 of 3  load-error, 2 cells: " in said.out
    assert "draft:\n# silent-wrong" in said.out
    assert "'the forum' is no https address" in said.out
    assert "--expires 'yesterday' is no date" in said.out
    assert "3 cells accepted, 0 known breaks renewed or removed, 1 skipped; left in run" in said.out
    second, first = breaks.load(deviating.matrices)
    assert (first.id, first.cause, first.expires, first.issue) == (
        "two-layers-silent-wrong", SENTENCE, date(2998, 1, 1), issue,
    )  # fmt: skip
    assert (second.id, second.cause, second.condition[0].verdict) == ("mine", "because", "contract")
    assert deviating.run("check", "--loader", deviating.spec("2.1")).code == 0


def test_a_refusal_is_told_and_asked_again(deviating: World, answering: list[str]) -> None:
    deviating.expect(id="taken", scenarios=["elsewhere"])
    answering += ["a", "https://example.org/1", "", "because", "taken", "q"]
    said = deviating.run("triage")
    assert "there is a known break 'taken' already" in said.out
    assert (said.code, entries(deviating)) == (0, ["taken"])


def test_the_file_exists_meanwhile(deviating: World, answering: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost: the same cause is asked about again, with the known breaks of now."""
    answering += ["a", "https://example.org/1", "", "because", "", "y"] * 2 + ["q"]
    real, once = command.choose, [1]

    def changed(question: str, letters: str) -> str:
        if question.startswith("write") and once:
            once.clear()
            deviating.expect(id="two-layers-silent-wrong", scenarios=["elsewhere"])
        return real(question, letters)

    monkeypatch.setattr(command, "choose", changed)
    said = deviating.run("triage")
    assert "was changed by somebody else meanwhile; nothing was written" in said.out
    assert entries(deviating) == ["two-layers-silent-wrong-2", "two-layers-silent-wrong"]


def test_what_does_not_hold_is_settled_on_a_terminal(deviating: World, answering: list[str]) -> None:
    deviating.expect(id="old", expires="2020-01-01")
    deviating.expect(id="gone", scenarios=["one-layer"], loaders="minipeft==2.0")
    deviating.expect(id="other", loaders="minipeft==2.4")
    answering += ["n", "2998-01-01", "s", "s", "r", "s"]  # what is renewed settles one of the three causes
    said = deviating.run("triage")
    assert said.code == 0, said
    assert "0 cells accepted, 2 known breaks renewed or removed, 3 skipped; left" in said.out
    assert entries(deviating) == ["old", "other"]


def test_nothing_is_left(mini: World, answering: list[str]) -> None:
    assert mini.run("check", "--loader", mini.spec("2.0")).code == 0
    assert not answering
    said = mini.run("triage")
    assert said.code == 0
    assert "0 causes without a known break" in said.out


def test_ctrl_c_keeps_what_was_accepted(
    deviating: World, answering: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answering += ["a", "https://example.org/1", "", "because", "", "y"]
    real = builtins.input

    def interrupted(question: str) -> str:
        if not answering:
            raise KeyboardInterrupt
        return real(question)

    monkeypatch.setattr(builtins, "input", interrupted)
    said = deviating.run("triage")
    assert said.code == 130
    assert "stopped; what was accepted is kept" in said.err
    assert entries(deviating) == ["two-layers-silent-wrong"]


def test_on_a_real_terminal(deviating: World) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        deviating.command("triage"), stdin=theirs, stdout=theirs, stderr=theirs, cwd=REPOSITORY,
        env=deviating.environ(), start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    said = ""
    answers = [
        ("[q]uit: ", "a"), ("(empty: back): ", "https://example.org/1"), ("expires [", ""),
        ("reason (empty: back): ", "so"), ("id [", ""), ("[y]es, [n]o: ", "y"), ("2 of 3", "q"),
    ]  # fmt: skip
    try:
        for question, answer in answers:
            end = time.monotonic() + 60
            while question not in said:
                assert time.monotonic() < end, said
                said += os.read(ours, 4096).decode()
            said = said.partition(question)[2]
            os.write(ours, f"{answer}\n".encode())
        assert process.wait(60) == 0
    finally:
        process.kill()
        os.close(ours)
    assert entries(deviating) == ["two-layers-silent-wrong"]


# -- triage --blame ---------------------------------------------------------------------------------------------------


def test_blame_is_asked_once_a_cause(deviating: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def blamed(request: SearchRequest) -> Any:
        cell = request.about.cell
        asked.append(cell)
        if deviating.name("2.4") in cell:
            raise HarnessError("two libraries moved at once", "one", "name the environments")
        return SimpleNamespace(sentence=f"about {cell}")

    monkeypatch.setattr(blame, "blame", blamed)
    told(deviating.reports, "x.json", json.dumps({"cell": deviating.id("two-layers", "2.1"), "sentence": SENTENCE}))
    said = deviating.run("triage", "--blame", "--json")
    assert said.code == 0, said
    causes = json.loads(said.out)["causes"]
    assert [one["sentence"] for one in causes] == [SENTENCE, "", f"about {asked[1]}"]
    assert len(asked) == 2
    assert "blame failed for" in said.err
