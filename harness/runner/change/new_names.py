"""Names that a change adds or removes and nothing else knows: only code that differs too can reach them. Pure."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from harness.core import syntax
from harness.runner.change.touched import Files

_WITH_EFFECTS = {
    "__future__",
    "antigravity",
    "distutils",
    "idlelib",
    "imp",
    "readline",
    "rlcompleter",
    "this",
    "turtle",
}
"""Modules of the standard library whose import does more than to define names."""
_ENUMERATES = re.compile(r"\b(globals|locals|vars)\s*\(|\b__dict__\b|\bdef __(getattr|dir)__\b|\bsys\.modules\b")
"""A file that does so may reach a name without mentioning it."""
_ENUMERATES_OTHERS = re.compile(r"\b(dir|getmembers)\s*\(")
_READS_DOCSTRINGS = re.compile(r"__doc__|docstring|getdoc")


@dataclass(frozen=True)
class Package:
    """A package on both sides, and what else could know its names.

    Attributes:
        others: whether a name occurs in code besides the package which a cell may run.
    """

    before: Files
    now: Files
    others: Callable[[str], bool] = lambda _: True

    @functools.cached_property
    def texts(self) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """The texts of all Python files of the baseline, and of the change."""
        sides = (self.before, self.now)
        before, now = ({name: side.read(name) for name in sorted(side.names) if name.endswith(".py")} for side in sides)
        return before, now

    @functools.cached_property
    def reads_docstrings(self) -> bool:
        """True if something in the package may read the docstring of a function or class."""
        return any(_reads_docstrings(text) for side in self.texts for text in side.values())

    def knows(self, name: str, side: Mapping[str, str]) -> bool:
        """True if a name occurs anywhere on one side, or in what is besides the package."""
        return _occurs(name, side.values()) or self.others(name)


def _occurs(name: str, texts: Iterable[str]) -> bool:
    word = re.compile(rf"\b{re.escape(name)}\b")
    return any(name in text and word.search(text) for text in texts)


def _reads_docstrings(text: str) -> bool:
    return bool(_READS_DOCSTRINGS.search(text)) and _names_docstrings(text)


@functools.lru_cache(maxsize=1_000)
def _names_docstrings(text: str) -> bool:
    try:
        tree = syntax.module(text)
    except SyntaxError:
        return True
    copied = {
        id(part) for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "assigned"
        for part in ast.walk(node.value)
    }  # fmt: skip  # of functools.wraps: the names of what it copies
    return any(id(node) not in copied and _is_of_docstrings(node) for node in ast.walk(tree))


def _is_of_docstrings(node: ast.AST) -> bool:
    match node:
        case ast.Constant(value=str(text)):
            return text == "__doc__"
        case ast.Attribute(attr=name, ctx=ast.Load()) | ast.Name(id=name, ctx=ast.Load()) | ast.alias(name=name):
            return bool(_READS_DOCSTRINGS.search(name))
    return False


def is_unknown(
    statement: ast.stmt, file: str, here: Mapping[str, str], elsewhere: Mapping[str, str], package: Package
) -> bool:
    """True if a statement only defines a name that the other side does not mention.

    Then only code that differs itself can reach it. It is an undecorated function with plain defaults, or a constant.
    """
    match statement:
        case ast.FunctionDef(name=name, decorator_list=[]) | ast.AsyncFunctionDef(name=name, decorator_list=[]):
            only_defines = _is_plain(statement.args, statement.returns, here.get(file, ""))
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            only_defines = _is_constant(value)
        case _:
            return False
    if name.startswith("__"):  # Python itself knows `__name__`, `__path__` and the like
        return False
    return only_defines and not _enumerates(file, here, elsewhere) and not package.knows(name, elsewhere)


def is_new_import(statement: ast.stmt, file: str, here: Mapping[str, str], elsewhere: Mapping[str, str]) -> bool:
    """True if an import from the standard library only defines names that this file did not mention before.

    Other files may have the same names. They do not see these, because none imports this file with a star.
    """
    match statement:
        case ast.Import(names=aliases):
            sources = [each.name for each in aliases]
        case ast.ImportFrom(names=aliases, module=str(source), level=0):
            sources = [source]
        case _:
            return False
    names = [each.asname or each.name for each in aliases]
    return (
        all(map(_is_harmless_module, sources))
        and not any("." in name or name == "*" or _occurs(name, [elsewhere.get(file, "")]) for name in names)
        and not _enumerates(file, here, elsewhere)
        and not _is_imported_with_a_star(file, elsewhere.values())
    )


def _enumerates(file: str, here: Mapping[str, str], elsewhere: Mapping[str, str]) -> bool:
    """True if something may reach the names of a file without mentioning them."""
    own = here.get(file, "") + elsewhere.get(file, "")
    return (
        bool(_ENUMERATES.search(own))
        or any(_ENUMERATES_OTHERS.search(text) for text in elsewhere.values())
        or any(_computes_names_of(_stem(file), text) for text in elsewhere.values())
    )


def _computes_names_of(module: str, text: str) -> bool:
    """True if a file imports a module and may ask it for a name that it computes: `getattr(inits, f"init_{kind}")`."""
    if ("getattr" not in text and "hasattr" not in text) or module not in text:
        return False
    try:
        tree = syntax.module(text)
    except SyntaxError:
        return True
    bound = {
        (each.asname or each.name).rpartition(".")[2] for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom) for each in node.names
        if each.name.rpartition(".")[2] == module
    }  # fmt: skip
    return bool(bound) and any(_asks_for_computed(node, bound) for node in ast.walk(tree))


def _asks_for_computed(node: ast.AST, modules: set[str]) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="getattr" | "hasattr"), args=[_, ast.Constant(), *_]):
            return False
        case ast.Call(func=ast.Name(id="getattr" | "hasattr"), args=[ast.Name(id=name) | ast.Attribute(attr=name), *_]):
            return name in modules
    return False


def _stem(file: str) -> str:
    """The last part of a module's name."""
    return file.removesuffix(".py").removesuffix("/__init__").rpartition("/")[2]


def _is_harmless_module(name: str) -> bool:
    top = name.partition(".")[0]
    return top in sys.stdlib_module_names and top not in _WITH_EFFECTS


def _is_imported_with_a_star(file: str, texts: Iterable[str]) -> bool:
    stem = _stem(file)
    star = re.compile(rf"^\s*from\s+(\S*\.)?({re.escape(stem)})?\s+import\s+\*", re.MULTILINE)
    return any(star.search(text) for text in texts if "*" in text and "import" in text)


def _is_plain(arguments: ast.arguments, returns: ast.expr | None, here: str) -> bool:
    """True if the definition of a function runs no code but its own: constants as defaults, simple annotations."""
    defaults = [each for each in (*arguments.defaults, *arguments.kw_defaults) if each is not None]
    every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg)
    annotations = [each.annotation for each in every if each is not None and each.annotation is not None]
    annotations += [returns] if returns is not None else []
    late = "from __future__ import annotations" in here
    simple = ast.Name | ast.Constant | ast.BinOp | ast.BitOr | ast.Load
    plain = all(isinstance(node, simple) for each in annotations for node in ast.walk(each))
    return all(map(_is_constant, defaults)) and (late or plain)


def _is_constant(value: ast.expr) -> bool:
    """True for a literal that cannot be changed later: a number, a text, a tuple of them."""
    match value:
        case ast.Constant():
            return True
        case ast.Tuple(elts=parts):
            return all(map(_is_constant, parts))
        case ast.UnaryOp(operand=ast.Constant()):
            return True
    return False
