"""Which adapters a change can affect, by what they execute: on traces made by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from harness.core.comparison import ChangedCode
from harness.core.matrix import Declared
from harness.runner.change import exact, scope
from harness.runner.change.code_diff import Difference, Function
from harness.runner.change.scope import Rule, Scope
from harness.runner.executed import Executed
from tests.runner.test_touched import declared

LOKR, MODEL = "peft/tuners/lokr/layer.py", "peft/peft_model.py"
FORWARD = Function(LOKR, 10, 20, "LoKrLayer.forward")
SAVE = Function(MODEL, 5, 8, "save")


def ran(*functions: tuple[str, int], imported: Iterable[str] = (LOKR, MODEL)) -> Executed:
    files = {file for file, _ in functions}
    every = {file: frozenset((line, "f") for of, line in functions if of == file) for file in files}
    return Executed(every, frozenset(imported))


TRACES = {
    "lokr": ran((LOKR, 10), (MODEL, 5)),
    "lokr-closure": ran((LOKR, 15)),
    "lora": ran((LOKR, 30), (MODEL, 5)),
    "prompt": ran((MODEL, 40)),
    "bare": ran(imported=[MODEL]),
}


@pytest.mark.parametrize(
    ("difference", "running", "importing"),
    [
        (Difference((FORWARD,)), {"lokr", "lokr-closure"}, set[str]()),
        (Difference((SAVE,)), {"lokr", "lora"}, set[str]()),
        (Difference((FORWARD, SAVE)), {"lokr", "lokr-closure", "lora"}, set[str]()),
        (Difference((Function(LOKR, 50, 60, "unused"),)), set[str](), set[str]()),
        (Difference(modules={LOKR: "X"}), set[str](), {"lokr", "lokr-closure", "lora", "prompt"}),
        (Difference((SAVE,), {LOKR: "X"}), {"lokr", "lora"}, {"lokr-closure", "prompt"}),
        (Difference(modules={"peft/never_imported.py": "X"}), set[str](), set[str]()),
        (Difference(defines=(LOKR,)), set[str](), set[str]()),
        (Difference(everything="peft/new.py is new"), set[str](), set(TRACES)),
    ],
)
def test_a_cell_is_selected_if_it_meets_the_difference(
    difference: Difference, running: set[str], importing: set[str]
) -> None:
    pairs = [(name, "v1") for name in (*TRACES, "untraced")]
    found = exact.split(pairs, {(name, "v1"): trace for name, trace in TRACES.items()}, difference)
    assert {name for name, _ in found.running} == running
    assert {name for name, _ in found.importing} == importing
    assert {name for name, _ in found.untouched} == {*TRACES} - running - importing
    assert found.unknown == (("untraced", "v1"),)


def test_a_trace_is_of_one_creators_adapter() -> None:
    found = exact.split([("lokr", "v1"), ("lokr", "v2")], {("lokr", "v1"): TRACES["lokr"]}, Difference((FORWARD,)))
    assert found.running == (("lokr", "v1"),)
    assert found.unknown == (("lokr", "v2"),)


@pytest.mark.parametrize(
    ("defines", "kept", "added"),
    [
        ((LOKR,), set[str](), {"prompt"}),
        ((LOKR,), {"bare"}, {"prompt"}),
        ((LOKR,), {"lokr"}, set[str]()),
        ((LOKR, MODEL), set[str](), {"prompt", "bare"}),
        ((MODEL,), {"lokr"}, set[str]()),
        (("peft/never_imported.py",), set[str](), set[str]()),
        ((), set[str](), set[str]()),
    ],
)
def test_a_file_with_a_new_name_is_imported_by_some_cell(
    defines: tuple[str, ...], kept: set[str], added: set[str]
) -> None:
    executed = {(name, "v1"): trace for name, trace in TRACES.items()}
    costs = {"prompt": 1.0, "lokr-closure": 2.0, "bare": 0.5, "lokr": 3.0, "lora": 3.0}
    found = exact.importing(defines, executed, {(name, "v1") for name in kept}, costs)
    assert {name for name, _ in found} == added


def scenarios(count: int, config: str = "LoraConfig", first: int = 0) -> dict[str, Declared]:
    names = [f"{config.lower()}-{number}" for number in range(first, first + count)]
    return {name: declared(name, config, family=f"{config.lower()}-{number % 7}") for number, name in enumerate(names)}


def fewer(
    running: Mapping[str, Declared], importing: Mapping[str, Declared], by_files: Mapping[str, Declared],
    rule: Rule, affected: Iterable[str] = (),
) -> tuple[set[str], dict[str, str]]:  # fmt: skip
    every = {**running, **importing, **by_files}
    found = Scope(dict.fromkeys(affected, "x"), {}, "words", rule)
    chosen, _, out = scope.fewer([*running], [*importing], [*by_files], every, found, dict.fromkeys(every, 1.0))
    assert chosen | {*out} == {*every}, "none is dropped without a reason"
    assert not chosen & {*out}
    return chosen, out


def test_all_that_run_it_are_checked_wherever_it_is() -> None:
    running = scenarios(30)
    assert fewer(running, {}, {}, "cover") == ({*running}, {})
    assert fewer(running, {}, {}, "affected") == ({*running}, {})
    assert fewer(running, scenarios(30, "LoKrConfig"), {}, "cover")[1] == {}


def test_many_that_run_it_are_reduced_to_all_features() -> None:
    running = scenarios(scope.MANY) | scenarios(1, "LoKrConfig")
    chosen, out = fewer(running, {}, {}, "affected")
    assert {name.partition("-")[0] for name in chosen} == {"loraconfig", "lokrconfig"}
    assert len(chosen) < 10
    assert all("--every-scenario" in why for why in out.values())


def test_of_many_that_only_import_a_methods_file_its_own_are_checked_and_one_of_each_family() -> None:
    own, others = scenarios(20, "LoKrConfig"), scenarios(100)
    chosen, out = fewer({}, own | others, {}, "affected", affected=own)
    assert {*own} <= chosen
    assert len(chosen - {*own}) == 7
    assert all("one scenario of each family" in why for why in out.values())


def test_what_is_unknown_is_checked_as_the_files_say() -> None:
    running, unknown = scenarios(3), scenarios(50, "LoKrConfig")
    assert fewer(running, {}, unknown, "affected")[0] == {*running, *unknown}
    assert {*running} < fewer(running, {}, unknown, "cover")[0] < {*running, *unknown}
    assert len(fewer(running, {}, unknown, "sample")[0]) == 3 + 7


def test_features_that_are_checked_already_are_not_covered_twice() -> None:
    assert fewer(scenarios(3), {}, scenarios(50, first=3), "cover")[0] == {*scenarios(3)}


@pytest.mark.parametrize(
    ("code", "chosen", "words"),
    [
        (ChangedCode(functions=("f (a)",), executing=1, untouched=9), 1, "1 adapter executes the changed function"),
        (ChangedCode(functions=("f", "g"), executing=9), 9, "9 adapters execute a changed function"),
        (ChangedCode(functions=("f",), executing=99), 9,
         "99 adapters execute the changed function; 9 of these were chosen"),
        (ChangedCode(elsewhere=("X",), importing=2), 2, "2 adapters import a file that changed outside of functions"),
        (ChangedCode(functions=("f",), unknown=2), 2,
         "0 adapters execute the changed function; of 2 it is not recorded what they execute, and words"),
    ],
)  # fmt: skip
def test_the_report_says_why(code: ChangedCode, chosen: int, words: str) -> None:
    assert exact.words(code, chosen, Scope({}, {}, "words")) == words


@pytest.mark.parametrize(
    ("code", "proved"),
    [
        (ChangedCode(untouched=9), True),
        (ChangedCode(remembered=9, text_only=1), True),
        (ChangedCode(), False),
        (ChangedCode(text_only=1), False),
        (ChangedCode(untouched=9, executing=1), False),
        (ChangedCode(untouched=9, importing=1), False),
        (ChangedCode(untouched=9, unknown=1), False),
    ],
)
def test_nothing_is_proved_by_nothing(code: ChangedCode, proved: bool) -> None:
    assert code.proved is proved
