"""The generated changes of `benchmarks.selection`: each is one real change, in the place where it says it is."""

from __future__ import annotations

import ast

from benchmarks.edits import edited, edits
from harness.runner.change import code_diff
from harness.runner.change.new_names import Package
from harness.runner.change.touched import Files

TEXT = '''
import math

LIMIT = 3 + 1


class Layer:
    rank = 2 * 4

    def forward(self, x):
        """Not edited."""
        if x > 1:
            x += 2
        return [each * 2 for each in x] if x else None

    @property
    def size(self):
        self.check(1)
        return self.rank == 3


def save(path):
    if not path:
        raise ValueError(path)
    return path + "1"
'''
FILE = "peft/a.py"


def files(text: str) -> Files:
    return Files(frozenset({FILE}), lambda _: text)


def difference(now: str) -> code_diff.Difference:
    return code_diff.of_file(FILE, TEXT.encode(), now.encode(), Package(files(TEXT), files(now)))


def test_each_is_one_change_of_the_function_or_the_module_that_it_is_in() -> None:
    every = edits({FILE: TEXT}, 40, 3, seed=1)
    assert len(every) == len(set(every)) > 8
    names = set[str]()
    for edit in every:
        found = difference(ast.unparse(edited(TEXT, [edit])))
        assert len(found.functions) + len(found.modules) == 1, edit
        names.update(one.name for one in found.functions)
        names.update(found.modules.values())
    assert names >= {"Layer.forward", "Layer.size", "save", "LIMIT", "Layer: rank"}


def test_all_at_once_are_the_same_changes_and_no_function_moves() -> None:
    every = edits({FILE: TEXT}, 40, 0, seed=1)
    whole = edited(TEXT, every)
    assert len(difference(ast.unparse(whole)).functions) == 3
    lines = [[n.lineno for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)] for tree in (ast.parse(TEXT), whole)]
    assert lines[0] == lines[1]
    compile(whole, FILE, "exec")


def test_a_seed_gives_the_same_changes() -> None:
    assert edits({FILE: TEXT}, 5, 1, seed=1) == edits({FILE: TEXT}, 5, 1, seed=1) != edits({FILE: TEXT}, 5, 1, seed=2)
