"""The first sentence: the answer, with every count, for every kind of run."""

from __future__ import annotations

import itertools
import re

import pytest

from harness.core.comparison import Against
from harness.core.errors import ExitCode
from harness.core.run import Cell, Run, exit_code_of
from harness.judge import change
from harness.report import sentence
from tests.support import samples

RUNS = {
    "green": samples.green(),
    "clean": samples.clean(),
    "known breaks only": samples.run(*(cell for cell in samples.clean().cells if cell.expected)),
    "regressed": samples.regressed(),
    "several creators": samples.across_releases(),
    "interrupted": samples.interrupted(),
    "nothing": samples.nothing(),
    "empty": samples.empty(),
    "unstable": samples.run(samples.exact("lora-a"), samples.cell("lora-b", "unstable")),
    "not run": samples.run(samples.exact("lora-a"), plan=("lora-a@v061:current[cpu]", "lora-b@v061:current[cpu]")),
    "strict": samples.run(samples.cell("lora-a", "warned"), strict=True),
    "problems": samples.every_verdict(),
}
WORDS = {
    "green": "CLEAN",
    **dict.fromkeys(("clean", "known breaks only"), "NO NEW BREAKS"),
    **dict.fromkeys(("regressed", "several creators", "strict", "problems"), "REGRESSED"),
    **dict.fromkeys(("nothing", "empty", "unstable", "not run"), "COULD NOT TELL"),
    "interrupted": "INTERRUPTED",
}


@pytest.mark.parametrize("name", RUNS)
def test_the_sentence_has_the_verdict_and_all_counts(name: str) -> None:
    said, counts = sentence.of(RUNS[name]), sentence.tally(RUNS[name])
    assert said.word == WORDS[name]
    groups = (counts.clean, counts.deviating, counts.known, counts.undetermined, counts.unsupported)
    numbers = set(re.findall(r"\d+", said.text))
    assert {str(len(group)) for group in groups if group} <= numbers
    answer = (*counts.clean, *counts.deviating, *counts.known, *counts.undetermined)
    assert all(f"{verdict}" in said.answer for verdict in {cell.verdict for cell in answer})
    assert said.text.endswith(".")


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (
            samples.clean(),
            "NO NEW BREAKS: 2 load and compute the same (1 exact, 1 close); 2 known breaks (silent-wrong). "
            "4 adapters from v061 under current.",
        ),
        (
            samples.across_releases(),
            "REGRESSED: 4 new breaks (silent-wrong, 1 cause); 6 load and compute the same (exact). "
            "10 cells from 5 PEFT releases under v0200 and current.",
        ),
        (
            samples.run(samples.exact("lora-a", device="cuda")),
            "CLEAN: 1 loads and computes the same (exact). 1 adapter from v061 under current on cuda.",
        ),
        (
            samples.run(samples.exact("a"), samples.cell("b", "unstable"), left_out={"c": "needs --hub"}),
            "COULD NOT TELL: 1 could not be judged (unstable); no new breaks; 1 loads and computes the same (exact). "
            "2 adapters from v061 under current. 1 left out.",
        ),
        (
            samples.run(samples.cell("b", "no-fixture")),
            "COULD NOT TELL: nothing was compared; 1 could not be judged (no-fixture). "
            "1 adapter from v061 under current.",
        ),
    ],
)
def test_whole_sentences(run: Run, said: str) -> None:
    assert str(sentence.of(run)) == said


AGAINST = Against(spec="../peft", package="peft", version="1", source="../peft", baseline="peft 0 (current)")
PAIRS: dict[str, tuple[Cell, Cell]] = {
    "clean": (samples.exact("clean"), samples.exact("clean")),
    "broken": (samples.exact("broken"), samples.wrong("broken")),
    "still": (samples.wrong("still"), samples.wrong("still")),
    "refused": (samples.refused("refused", "no"), samples.refused("refused", "no")),
    "fixed": (samples.wrong("fixed"), samples.exact("fixed")),
    "unknown": (samples.exact("unknown"), samples.cell("unknown", "unstable")),
}
PARTS = {
    "clean": "the same",
    "broken": "1 new break (silent-wrong, 1 cause)",
    "still": "1 fails on the baseline too (silent-wrong)",
    "refused": "1 can't be loaded on either side",
    "fixed": "1 of them fixed",
    "unknown": "1 could not be judged (unstable)",
}


def held(*names: str) -> Run:
    """A PR check with one cell of each of these kinds."""
    before, now = zip(*(PAIRS[name] for name in names), strict=True)
    return change.held(samples.run(*now), before, AGAINST)


@pytest.mark.parametrize(
    "names", [names for n in range(1, len(PAIRS) + 1) for names in itertools.combinations(PAIRS, n)], ids=", ".join
)
def test_every_combination_in_a_check_of_a_change(names: tuple[str, ...]) -> None:
    run = held(*names)
    said, code = sentence.of(run), exit_code_of(run)
    for name, part in PARTS.items():
        if name != "clean":
            assert (part in said.answer) == (name in names), name
    same = len({"clean", "fixed"} & set(names))
    assert f"{same} load{'s and computes' if same == 1 else ' and compute'} the same" in said.answer or not same
    compared = set(names) - {"refused", "unknown"}
    if "broken" in names:
        assert (said.word, code) == ("REGRESSED", ExitCode.REGRESSED)
    elif not compared:
        assert (said.word, code) == ("COULD NOT TELL", ExitCode.CANNOT_TELL)
        assert said.answer.startswith("nothing was compared; ")
    elif "unknown" in names:
        assert (said.word, code) == ("COULD NOT TELL", ExitCode.CANNOT_TELL)
        assert "no new breaks" in said.answer
    else:
        broken = {"still", "refused"} & set(names)
        assert (said.word, code) == ("NO NEW BREAKS" if broken else "CLEAN", ExitCode.CLEAN)


def test_seven_of_which_six_refuse_on_both_sides_are_not_clean() -> None:
    refused = [samples.refused(f"r{n}", "no") for n in range(6)]
    run = change.held(samples.run(samples.exact("a"), *refused), [samples.exact("a"), *refused], AGAINST)
    assert str(sentence.of(run)) == (
        "NO NEW BREAKS: 1 loads and computes the same (exact); 6 can't be loaded on either side. 7 adapters from v061."
    )


def test_two_creators_with_one_release_are_environments() -> None:
    cells = [samples.exact("lora-a", creator=name) for name in ("v061", "v061-cuda", "v090")]
    environments = [samples.environment(cell.creator, "0.6.1") for cell in cells]
    assert "from 3 environments" in sentence.of(samples.run(*cells, environments=tuple(environments))).text


def test_the_sentence_counts_problems_and_changes() -> None:
    assert "(1 expired and 1 stale)" in sentence.of(samples.every_verdict()).answer
    assert "1 regressed, 1 new, 1 gone, 1 fixed, 1 still" in sentence.of(samples.against_baseline()).text


def test_every_cell_is_counted_once() -> None:
    runs = (samples.every_verdict(), samples.regressed(), samples.clean(), samples.nothing(), held(*PAIRS))
    for run in runs:
        counts = sentence.tally(run)
        groups = (counts.clean, counts.deviating, counts.known, counts.neither, counts.undetermined, counts.unsupported)
        assert sum(map(len, (*groups, counts.refused))) == len(run.cells)
