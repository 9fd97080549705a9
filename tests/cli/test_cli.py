"""The command line: every command says what it does, every error what to do next, and runs can be worked with later."""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cli import main as cli
from harness.core.errors import HarnessError
from tests.support import manifests
from tests.support.mini.world import HANDLER, REPOSITORY, World, main, scenario


def commands(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command there is, from the parser itself."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for group in groups:
        for name, inner in group.choices.items():
            yield (*words, name)
            yield from commands(inner, (*words, name))


COMMANDS = [(), *commands(cli.parser())]
LEAVES = [words for words in COMMANDS if words not in ((), ("fixtures",), ("env",))]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    said = main(*words, "--help")
    assert said.code == 0
    assert "usage: peft-regress" in said.out
    if words not in (("fixtures",), ("env",)):
        assert "examples:\n  peft-regress " in said.out
    assert "worker-handler" not in said.out


def test_the_examples_of_the_help_are_commands() -> None:
    """Each example is one that the parser takes."""
    for words in COMMANDS:
        examples = main(*words, "--help").out.partition("examples:\n")[2].splitlines()
        for line in (line.strip() for line in examples if line.startswith("  peft-regress ")):
            command, _, _ = line.partition("  ")  # behind it stands what it does
            cli.parser().parse_args(shlex.split(command)[1:])


def test_the_command_list_is_whole() -> None:
    assert {words[0] for words in LEAVES} >= {
        "list", "create", "check", "pair", "show", "report", "diff", "fixtures", "env", "export", "judge",
    }  # fmt: skip


USAGE = [
    (["frobnicate"], "no command 'frobnicate'"),
    (["chekc"], "did you mean check?"),
    (["env", "biuld"], "did you mean build?"),
    (["check", "--frobnicate"], "no option '--frobnicate'"),
    (["check", "--loder=x"], "did you mean --loader?"),
    (["check", "-Z"], "no option '-Z'"),
    (["check", "--device", "tpu"], "--device 'tpu'"),
    (["check", "--device", "cdua"], "did you mean cuda?"),
    (["pair", "--creator", "x"], "the following arguments are required"),
    ([], "the following arguments are required"),
]


@pytest.mark.parametrize(("words", "said"), USAGE, ids=[" ".join(row[0]) for row in USAGE])
def test_wrong_usage_is_64_and_points_to_the_help(words: list[str], said: str) -> None:
    ended = main(*words)
    assert ended.code == 64
    assert said in ended.err
    assert re.search(r"next: .*see `peft-regress", ended.err)
    assert ended.out == ""


NUMBERS = [
    *(
        [*command, "--time-limit", value]
        for command in (["check"], ["pair"], ["matrix"])
        for value in ("nan", "inf", "-1", "0", "x")
    ),
    *(
        [*command, "--jobs", value]
        for command in (["check"], ["create", "a"], ["fixtures", "verify"], ["env", "build"], ["env", "add"])
        for value in ("-5", "x", "1.5", "9" * 5000)
    ),
    *(["check", "--dry-run", "-n", value] for value in ("x", "-1")),
]
EMPTY = [["lint", "--matrices", ""], ["check", "--baseline", ""], ["check", "--reports="], ["accept", "--remove", ""]]


@pytest.mark.parametrize("words", [*NUMBERS, *EMPTY], ids=lambda words: " ".join(words)[:60])
def test_numbers_that_mean_nothing_and_empty_values_are_refused_by_the_parser(words: list[str]) -> None:
    ended = main(*words)
    assert ended.code == 64
    option = words[-1].removesuffix("=") if words[-1].endswith("=") else words[-2]
    assert f"argument {option}" in ended.err
    assert "\n  expected: " in ended.err
    assert "\n  next: " in ended.err


ERRORS = [
    ["check", "--baseline", "no-such-run"],
    ["check", "--loader", "nobody"],
    ["check", "--scenarios", "no-such-file.toml"],
    ["check", "--resume"],
    ["check", "--", "--no-such-option-of-pytest"],
    ["create", "nobody"],
    ["create", "nobody", "--replace"],
    ["create", "nobody", "-k", "no-such-scenario"],
    ["show", "anything"],
    ["show", "anything", "no-such-run"],
    ["report", "no-such-run"],
    ["diff", "no-such-run", "no-such-run"],
    ["judge", "no-such-folder"],
    ["export", "/proc"],
    ["fixtures", "verify", "--recreate", "nobody"],
    ["list", "--matrices", "no-such-folder"],
    ["env", "build", "nobody"],
    ["env", "rm", "nobody"],
]


@pytest.mark.parametrize("words", ERRORS, ids=[" ".join(row) for row in ERRORS])
def test_every_error_says_what_was_found_what_was_expected_and_what_to_do(mini: World, words: list[str]) -> None:
    loader = ["--loader", mini.spec("2.0")] if words[0] == "check" and "--loader" not in words else []
    at = words.index("--") if "--" in words else len(words)
    words = [*words[:at], *loader, *words[at:]]
    if words[0] in ("show", "diff", "report"):
        said = main(*words, *(["--reports", str(mini.reports)] if words[0] == "show" else []))
    else:
        said = mini.run(*words)
    assert said.code == 64, said
    assert "\npeft-regress: " in f"\n{said.err}"
    assert "\n  expected: " in said.err
    assert "\n  next: " in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize("inside", ["", "/inside"])
def test_a_file_is_no_folder_to_write_in(two_runs: tuple[World, Path, Path], inside: str) -> None:
    """Each says so before anything is checked: a traceback would exit with 1, which means that something regressed."""
    mini, before, _ = two_runs
    file = mini.root / "a-file"
    file.touch()
    for words in (
        ["check", "--loader", mini.spec("2.0"), "--fixtures", str(mini.fixtures), "--reports", f"{file}{inside}"],
        ["report", str(before), "--out", f"{file}{inside}"],
        ["docs", "--out", f"{file}{inside}", "--fixtures", str(mini.fixtures)],
        ["docs", "--check", "--out", f"{file}{inside}", "--fixtures", str(mini.fixtures)],
        ["export", f"{file}/inside", "--loader", mini.spec("2.0"), "--fixtures", str(mini.fixtures)],
        ["create", mini.spec("1.0"), "--fixtures", f"{file}{inside}"],
        ["create", mini.spec("1.0"), "--dry-run", "--fixtures", f"{file}{inside}"],
    ):
        ended = main(*words, "--matrices", str(mini.matrices)) if words[0] != "report" else main(*words)
        assert ended.code == 64, ended
        assert f"{file} is a file\n  expected: a folder\n  next: " in ended.err
        assert "INTERNALERROR" not in ended.err + ended.out


def test_an_error_has_three_parts() -> None:
    assert str(HarnessError("found", "wanted", "do")) == "found\n  expected: wanted\n  next: do"


# -- before anything runs ----------------------------------------------------------------------------------------------


def test_list(mini: World) -> None:
    said = mini.run("list", "-v")
    assert said.code == 0
    assert f"two-layers  plain                 mlp                 {mini.name('1.0')}" in said.out
    assert "no fixture" in next(line for line in said.out.splitlines() if line.startswith("later"))
    assert "A feature of the second line of releases." in said.out
    data = json.loads(mini.run("list", "--json").out)
    assert [one["name"] for one in data] == ["two-layers", "one-layer", "later"]
    assert data[0]["fixtures"] == [mini.name("1.0")]
    assert data[0]["guards"] == ["https://github.com/example/minipeft/issues/1"]
    assert [one["name"] for one in json.loads(mini.run("list", "--json", "--family", "future").out)] == ["later"]


def test_dry_runs_start_nothing(mini: World) -> None:
    said = mini.run("check", "--loader", mini.spec("2.0"), "--dry-run")
    assert said.code == 0
    assert said.out.splitlines()[0] == mini.id("two-layers", "2.0")
    assert "3 cells would be checked" in said.out
    cells = json.loads(mini.run("check", "--loader", mini.spec("2.0"), "--dry-run", "--json").out)["cells"]
    assert cells == [mini.id(name, "2.0") for name in ("two-layers", "one-layer", "later")]
    assert "3 fixtures would be created" in mini.run("create", mini.spec("2.0"), "--dry-run").out
    assert mini.run("fixtures", "prune", "--dry-run").code == 0
    assert not mini.trace.exists()
    assert not mini.reports.exists()


def test_co_lists_the_cells(mini: World) -> None:
    said = mini.run("check", "--loader", mini.spec("2.0"), "-k", "one-layer", "--co")
    assert said.code == 0
    assert mini.id("one-layer", "2.0") in said.out
    assert "two-layers" not in said.out


# -- creating ----------------------------------------------------------------------------------------------------------


def test_evidence_is_not_overwritten_unasked(mini: World) -> None:
    creator = mini.spec("1.0")
    assert "2 unchanged, 1 unsupported" in mini.run("create", creator).out
    path = mini.matrices / "scenarios" / "plain.toml"
    path.write_text(path.read_text().replace("r = 1, alpha = 3.0", "r = 1, alpha = 4.0"))
    refused = mini.run("create", creator, "-k", "one-layer")
    assert refused.code == 2
    assert "differs from the stored one: " in refused.out
    replaced = mini.run("create", creator, "-k", "one-layer", "--replace", "--reason", "alpha was wrong")
    assert replaced.code == 0, replaced
    manifest = manifests.read(mini.fixtures, mini.name("1.0"), "one-layer")
    assert [entry["reason"] for entry in manifest["history"]] == ["alpha was wrong"]


def test_recreating_yields_the_same_bytes_or_says_which_differ(mini: World) -> None:
    said = mini.run("fixtures", "verify", "--recreate", mini.spec("1.0"))
    assert said.code == 0, said
    assert said.out.endswith("2 same\n")
    path = mini.matrices / "bases" / "mlp.toml"
    path.write_text(path.read_text().replace("shape = [3, 6]", "shape = [4, 6]"))
    said = mini.run("fixtures", "verify", "--recreate", mini.spec("1.0"))
    assert said.code == 1, said
    assert "one-layer: differs: golden/arrays.safetensors: now " in said.out


def test_what_proves_nothing_is_refused(empty: World) -> None:
    empty.scenarios(
        scenario("no-effect", targets=[]),
        scenario("nothing-there", targets=["layer9"]),
        scenario("stray", expects={"keys": 1}).replace('expects = {"keys": 1}', 'expects = { keys = { "*_A" = 2 } }'),
        scenario("infinite") + "fill = { '*' = [inf, 1.0] }",
        file="plain",
    )
    said = empty.run("create", empty.spec("1.0"), "--json")
    assert said.code == 2
    made = {one["scenario"]: one for one in json.loads(said.out)}
    assert {one["outcome"] for one in made.values()} == {"refused"}
    for name, words in {
        "no-effect": "the adapter moves the output by 0 of its size",
        "nothing-there": "the creator's libraries refuse it: KeyError",
        "stray": "key 'layer1.low_rank_B' matches no pattern",
        "infinite": "is not finite",
    }.items():
        assert words in made[name]["detail"], made[name]
    assert not list(empty.fixtures.rglob("*.jsonl"))


# -- after a run -------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_runs(mini: World) -> tuple[World, Path, Path]:
    """A run in which `two-layers` deviates, and one in which all is well; of one loader's name each."""
    assert mini.run("check", "--loader", mini.spec("2.1")).code == 1
    bad = mini.folder()
    assert mini.run("check", "--loader", mini.spec("2.0")).code == 0
    return mini, bad, mini.folder()


def test_runs_can_be_compared_shown_and_rendered_again(two_runs: tuple[World, Path, Path]) -> None:
    mini, bad, good = two_runs
    regressed = main("diff", str(good), str(bad))
    assert regressed.code == 1
    assert "regressed" in regressed.out
    fixed = main("diff", str(bad), str(good), "--json")
    assert fixed.code == 0
    assert [(c["change"], c["before"], c["now"]) for c in json.loads(fixed.out)] == [("fixed", "silent-wrong", "exact")]
    against = mini.run("check", "--loader", mini.spec("2.1"), "--baseline", str(good))
    assert against.code == 1
    assert [c.change for c in mini.report().comparisons] == ["regressed"]
    shown = main("show", "two-layers", str(bad))
    assert shown.code == 0
    assert "layer1" in shown.out
    assert json.loads(main("show", "two-layers", str(bad), "--json").out)["verdict"] == "silent-wrong"
    assert main("show", "one-layer", "--reports", str(mini.reports)).code == 0
    assert "2 cells of run" in main("show", "layer", str(bad)).err
    assert "REGRESSED" in main("report", str(bad), "--format", "markdown").out.splitlines()[0]
    assert "REGRESSED" in main("report", str(bad)).out
    assert json.loads(main("report", str(bad), "--format", "json").out)["exit_code"] == 1
    table = mini.root / "cells.csv"
    assert main("report", str(bad), "--format", "csv", "--out", str(table)).code == 0
    with table.open() as file:
        assert {row["verdict"] for row in csv.DictReader(file)} == {"silent-wrong", "exact", "unsupported"}
    assert main("report", str(bad), "--format", "csv").code == 64
    other = main("report", str(bad), str(good))
    assert other.code == 64
    assert "different plans" in other.err


def unread(world: World, *command: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, whose stdout nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    try:
        return subprocess.run(
            command, stdout=write, stderr=subprocess.PIPE, text=True, check=False, cwd=REPOSITORY, env=world.environ()
        )
    finally:
        os.close(write)


def test_the_exit_code_is_the_same_if_nobody_reads_the_output(two_runs: tuple[World, Path, Path]) -> None:
    """`| head` makes neither a regression of a success, nor a success of a regression."""
    mini, bad, good = two_runs
    harness = [sys.executable, "-m", "harness"]
    for code, command in (
        (1, mini.command("check", "--loader", mini.spec("2.1"), "--format", "markdown")),
        (0, mini.command("check", "--loader", mini.spec("2.1"), "--co")),
        (0, [*harness, "show", "two-layers", str(bad)]),
        (0, [*harness, "report", str(bad)]),
        (1, [*harness, "diff", str(good), str(bad)]),
        (0, [*harness, "check", "--help"]),
    ):
        ended = unread(mini, *command)
        assert ended.returncode == code, (command, ended.stderr)
        assert "Error" not in ended.stderr
        assert "Exception ignored" not in ended.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
def test_output_that_is_lost_is_no_success_and_no_regression(mini: World) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            mini.command("list"), stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=REPOSITORY
        )
    assert ended.returncode == 2
    assert "the output cannot be written" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_shards_of_one_plan_are_merged(mini: World) -> None:
    """Two machines each did a part: what they left is put together by cell."""
    mini.run("check", "--loader", mini.spec("2.1"))
    folder = mini.folder()
    whole = json.loads((folder / "report.json").read_text())
    for name, part in (("a", whole["cells"][:1]), ("b", whole["cells"][1:])):
        (mini.root / name).mkdir()
        (mini.root / name / "report.json").write_text(json.dumps({**whole, "cells": part}))
    said = main("report", str(mini.root / "a"), str(mini.root / "b"), "--out", str(mini.root / "merged"))
    assert said.code == 0, said
    merged = json.loads((mini.root / "merged" / "report.json").read_text())
    assert [cell["id"] for cell in merged["cells"]] == whole["plan"]
    assert merged["exit_code"] == 1


def test_the_worker_alone_and_judge(mini: World) -> None:
    mini.expect()
    box = mini.root / "box"
    said = mini.run("export", str(box), "--loader", mini.spec("2.1"), "--name", "gpu-box")
    assert said.code == 0, said
    assert "2 cells" in said.out
    assert "1 left out" in said.out
    assert {"worker", "plan.json", "fixtures", "judge.json"} <= {path.name for path in box.iterdir()}
    nothing_yet = mini.run("judge", str(box))
    assert nothing_yet.code == 2, nothing_yet
    python = mini.spec("2.1").removeprefix("python:")
    command = [python, "box/worker", "--plan", "box/plan.json", "--out", "box/out", "--handler", str(HANDLER)]
    done = subprocess.run(command, cwd=mini.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    said = mini.run("judge", str(box))
    assert said.code == 0, said
    assert "1 known break" in said.line
    report = mini.report()
    assert {cell.id: str(cell.verdict) for cell in report.cells} == {
        f"two-layers@{mini.name('1.0')}:gpu-box[cpu]": "silent-wrong",
        f"one-layer@{mini.name('1.0')}:gpu-box[cpu]": "exact",
    }
    versions = {one.name: one.versions["minipeft"] for one in report.environments}
    assert versions == {mini.name("1.0"): "1.0", "gpu-box": "2.1"}
    assert list(report.left_out) == [f"later@{mini.name('1.0')}:gpu-box[cpu]"]
    assert json.loads(mini.run("judge", str(box), "--json").out)["exit_code"] == 0
    (box / "out" / "cells" / "0" / "now" / "arrays.safetensors").write_bytes(b"cut short")
    assert mini.run("judge", str(box)).code == 2
    assert mini.cell("two-layers").verdict == "not-comparable"


def test_every_command_is_known_by_its_name() -> None:
    """A command whose name is missing would still work, but slowly: all commands would be imported."""
    every = {name for names in cli._COMMANDS.values() for name in names}
    (there,) = (one for one in cli.parser()._actions if isinstance(one, argparse._SubParsersAction))
    assert list(there.choices) == [name for names in cli._COMMANDS.values() for name in names]
    for name in every:
        (one,) = (each for each in cli.parser(name)._actions if isinstance(each, argparse._SubParsersAction))
        assert name in one.choices


def test_a_command_imports_only_what_it_needs() -> None:
    code = (
        "import sys; from harness.cli import main; main.parser('doctor'); "
        "print('harness.runner.session' in sys.modules);"
        " main.parser(); print('harness.runner.session' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "True"]
