"""What a file of a package uses of its other modules: the imports that can make code of theirs run. Pure.

Three kinds of imports do not count. A name that is only tested for (`isinstance(layer, AdaLoraLayer)`) or only
annotates runs no code of its module. An import within a function counts only if something calls the function. And what
is imported for type checkers alone is never imported.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness.core import data, syntax

_FEW = 1_000
"""In a package with more files, every function counts as called: to search it takes longer than to check too much."""
_TESTS = {"isinstance", "issubclass"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Import:
    """One imported name: `from peft.tuners.lora import LoraLayer`, or a module."""

    node: ast.Import | ast.ImportFrom
    alias: ast.alias


def used(tree: ast.Module, called: Callable[[str], bool]) -> Iterator[Import]:
    """The imports of a file that can make code of the imported module run.

    Args:
        called: whether something calls a function of this file, by its name.
    """
    tested = _only_tested(tree)
    for node in _statements(tree, called):
        for alias in node.names:
            if (alias.asname or alias.name.partition(".")[0]) not in tested:
                yield Import(node, alias)


def _statements(tree: ast.Module, called: Callable[[str], bool]) -> Iterator[ast.Import | ast.ImportFrom]:
    for statement in tree.body:
        found = list(_imports(statement))
        name = _plain_function(statement)
        if found and (not name or called(name)):
            yield from found


def _plain_function(statement: ast.stmt) -> str:
    """The name of a function without decorators; empty for any other statement. A decorator may register it."""
    return statement.name if isinstance(statement, Function) and not statement.decorator_list else ""


def _imports(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for other in node.orelse:
            yield from _imports(other)
    elif not isinstance(node, ast.expr):  # which holds no statement
        for each in ast.iter_child_nodes(node):
            yield from _imports(each)


def _only_tested(tree: ast.AST) -> set[str]:
    """The names that a file only tests for or annotates with."""
    nodes = list(ast.walk(tree))
    harmless = {id(name) for node in nodes for part in _harmless(node) for name in ast.walk(part)}
    uses: dict[bool, set[str]] = {True: set(), False: set()}
    for node in nodes:
        if isinstance(node, ast.Name):
            uses[id(node) in harmless].add(node.id)
    return uses[True] - uses[False]


def _harmless(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Call(func=ast.Name(id=name), args=[_, kinds]) if name in _TESTS:
            yield kinds
        case ast.AnnAssign() | ast.arg() if node.annotation is not None:
            yield node.annotation
        case ast.FunctionDef() | ast.AsyncFunctionDef() if node.returns is not None:
            yield node.returns


class Calls:
    """Which functions of a package are called: from a class, from the top of a file, or from a function that is called.

    Args:
        names: the package's Python files.
        read: a file's text.
    """

    def __init__(self, names: frozenset[str], read: Callable[[str], str]) -> None:
        self._names = sorted(name for name in names if name.endswith(".py"))
        self._read = functools.cache(read)

    def reach(self, function: str) -> bool:
        """True if something calls a function of this name, or our own worker mentions it."""
        return len(self._names) > _FEW or self._reached(function, frozenset())

    def importers(self, file: str) -> list[str]:
        """The files that import a module. Unknown, so none, for a package's `__init__` and in a large package."""
        stem = file.removesuffix(".py").rpartition("/")[2]
        if not file.endswith(".py") or stem == "__init__" or len(self._names) > _FEW:
            return []
        word = re.compile(rf"\b{re.escape(stem)}\b")
        return [name for name in self._names if name != file and word.search(self._read(name))]

    def _reached(self, function: str, waiting: frozenset[str]) -> bool:
        if function in waiting:
            return False
        if _mentioned(function):
            return True
        users = {user for name in self._names if function in self._read(name) for user in self._users(name, function)}
        return "" in users or any(self._reached(user, waiting | {function}) for user in sorted(users))

    def _users(self, file: str, function: str) -> Iterator[str]:
        """The functions of a file that mention this one; empty for a class and for the top of the file."""
        try:
            tree = syntax.module(self._read(file))
        except SyntaxError:
            yield ""
            return
        for node in tree.body:
            name = _plain_function(node)
            if name != function and any(_mentions(each, function) for each in ast.walk(node)):
                yield name


def _mentions(node: ast.AST, function: str) -> bool:
    return (isinstance(node, ast.Name) and node.id == function) or (
        isinstance(node, ast.Attribute) and node.attr == function
    )


@functools.cache
def _mentioned(function: str) -> bool:
    """True if the worker, which calls the package, has the word."""
    texts = (path.read_text(encoding="utf-8") for path in (data.CODE / "worker").rglob("*.py"))
    return any(re.search(rf"\b{re.escape(function)}\b", text) for text in texts)
