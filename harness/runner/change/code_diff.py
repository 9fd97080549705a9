"""What runs differently between two versions of Python files. Pure.

A cell that ran no code which differs computes the same under both versions. So what counts is where the code differs:

* in the body of a function or method: that matters to cells that run it. All that is nested in it belongs to it;
* at the level of a module or a class (a signature, a default, a decorator, a base class, a constant, an import,
  a method that is new or gone): that matters to every cell that imports the file;
* in something that is no Python source, or in a file that is new or gone: that can matter to every cell.

Comments, formatting and line numbers do not run. A docstring does not count if nothing in the package reads docstrings.
Three kinds of module-level statements do not count where only one side has them and no other code uses their names: see
`new_names`.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from harness.runner.change.new_names import Package, is_new_import, is_unknown
from harness.runner.executed import SOURCE, Executed

_Def = ast.FunctionDef | ast.AsyncFunctionDef
_STATED = re.compile(r"v?\d+(\.\d+)*([-_.]?(a|b|rc|alpha|beta|dev|post)[-_.]?\d*)*(\+[A-Za-z0-9.]+)?")
"""A version as packages state it. Any other text may not be one, and then what reads it fails."""
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_READS_CODE = re.compile(
    r"\bjit\b|\bgetsource|\b__code__\b|\bfx\.|\btorch\.compile\(|^\s*@torch\.compile\b", re.MULTILINE
)
"""A file that does so may compile a function, which then does not run as Python."""


@dataclass(frozen=True, order=True)
class Function:
    """A function or method whose body differs."""

    file: str
    first: int
    """Its first line in the baseline, or its first decorator's, as code objects have it."""
    last: int
    name: str
    """With its classes: `LoraLayer.forward`."""

    def __str__(self) -> str:
        return f"{self.name} ({self.file})"


@dataclass(frozen=True)
class Difference:
    """What runs differently."""

    functions: tuple[Function, ...] = ()
    """Those whose body differs, in files that are the same otherwise."""
    modules: Mapping[str, str] = field(default_factory=dict)
    """File that differs outside of functions → what differs: `the signature of LoraLayer.forward`."""
    everything: str = ""
    """Why every cell can be affected; empty if not."""
    defines: tuple[str, ...] = ()
    """Files in which a name is new or gone that nothing else knows: that affects no cell if they can be imported."""

    @property
    def files(self) -> frozenset[str]:
        """The files that it is in."""
        return frozenset((*self.modules, *self.defines, *(one.file for one in self.functions)))

    def __bool__(self) -> bool:
        return bool(self.functions or self.modules or self.everything or self.defines)

    def met_by(self, executed: Executed) -> Met:
        """What a cell has to do with it; empty for a cell that it cannot affect."""
        if any(
            one.first <= line <= one.last for one in self.functions for line, _ in executed.functions.get(one.file, ())
        ):
            return "runs"
        if any(SOURCE in executed.functions.get(one.file, ()) for one in self.functions):
            return "imports"
        if self.everything or any(file in executed.imported or file in executed.functions for file in self.modules):
            return "imports"
        return ""


Met = Literal["", "runs", "imports"]
"""`runs`: a function that differs. `imports`: a file that differs elsewhere, or that it reads as text."""


def between(
    names: Iterable[str], before: Callable[[str], bytes | None], now: Callable[[str], bytes | None], package: Package
) -> Difference:
    """What runs differently in these files.

    Args:
        before: the content of a file of the baseline by its name; None if it has no such file, or it is not readable.
        now: the same of the change.
        package: all of the package's Python files, on both sides.
    """
    functions: list[Function] = []
    modules: dict[str, str] = {}
    defines: list[str] = []
    for name in names:
        one, other = before(name), now(name)
        if one is None or other is None:
            return Difference(everything=f"{name} {_only_on_one_side(one, other)}")
        if not name.endswith(".py"):
            return Difference(everything=f"{name} is no Python source")
        try:
            found = of_file(name, one, other, package)
        except (SyntaxError, RecursionError) as error:
            return Difference(everything=f"{name} does not parse: {getattr(error, 'msg', error)}")
        functions += found.functions
        modules |= found.modules
        defines += found.defines
    return Difference(tuple(functions), modules, defines=tuple(defines))


def _only_on_one_side(before: bytes | None, now: bytes | None) -> str:
    if before is None and now is None:
        return "can't be read"
    return "is new" if before is None else "is gone"


def of_file(name: str, before: bytes, now: bytes, package: Package) -> Difference:
    """What runs differently in one Python file.

    Raises:
        SyntaxError: one of both does not parse or compile.
    """
    sides = [_Side(content) for content in (before, now)]
    if sides[0].whole == sides[1].whole:
        return Difference()
    if not package.reads_docstrings:
        for side in sides:
            side.strip_docstrings()
    for side in sides:
        side.take_out_functions()
    here, there = _without_unknown(name, sides[0].statements, sides[1].statements, package)
    outer = [[ast.dump(statement) for statement in statements] for statements in (here, there)]
    if outer[0] != outer[1]:
        return Difference(modules={name: _first_apart(here, there, outer)})
    pairs = zip(sides[0].functions_of(here), sides[1].functions_of(there), strict=True)
    functions = [Function(name, one.first, one.last, one.name) for one, other in pairs if one.body != other.body]
    if functions and any(_READS_CODE.search(content.decode(errors="replace")) for content in (before, now)):
        return Difference(modules={name: f"{functions[0].name}, which may be compiled,"})
    defines = len(here) != len(sides[0].statements) or len(there) != len(sides[1].statements)
    return Difference(tuple(functions), defines=(name,) if defines else ())


# -- one side ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Outermost:
    """A function that is in no other function."""

    name: str
    first: int
    last: int
    body: str


class _Side:
    """One version of a file: its statements, from which the bodies of functions are taken out."""

    def __init__(self, content: bytes) -> None:
        """Parse a file.

        Raises:
            SyntaxError: it does not parse or compile.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(content, type_comments=b"jit" in content)  # torch.jit reads them
                compile(content, "<source>", "exec", dont_inherit=True)  # a `return` outside of a function parses
            for one in tree.body:
                _forget_version(one)
            self.whole = ast.dump(tree)
        except (ValueError, LookupError, RecursionError, MemoryError) as error:
            raise SyntaxError(str(error)) from error
        self._tree = tree
        self._functions: dict[int, list[_Outermost]] = {}

    @property
    def statements(self) -> list[ast.stmt]:
        """Those of the module. Which version one states is left out."""
        return self._tree.body

    def strip_docstrings(self) -> None:
        """Delete all docstrings."""
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Module | ast.ClassDef | _Def) and ast.get_docstring(node, clean=False) is not None:
                del node.body[0]

    def take_out_functions(self) -> None:
        """Replace the bodies of all functions that are in no other function."""
        self._functions = {id(statement): list(_taken_out(statement, "")) for statement in self.statements}

    def functions_of(self, statements: Iterable[ast.stmt]) -> list[_Outermost]:
        """The outermost functions of these statements, in their order."""
        return [function for statement in statements for function in self._functions[id(statement)]]


def _taken_out(node: ast.AST, prefix: str) -> Iterator[_Outermost]:
    """The outermost functions in a node. Their bodies are replaced by what a caller can tell of them."""
    if isinstance(node, _Def):
        first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        body = "\n".join(map(ast.dump, node.body))
        kind = "generator" if any(map(_yields, node.body)) else "function"
        yield _Outermost(f"{prefix}{node.name}", first, node.end_lineno or node.lineno, body)
        node.body = [ast.Expr(ast.Constant(kind))]
        return
    inner = f"{prefix}{node.name}." if isinstance(node, ast.ClassDef) else prefix
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.expr):  # a lambda at this level is a part of it
            yield from _taken_out(child, inner)


def _yields(node: ast.AST) -> bool:
    """True if a node makes the function around it a generator."""
    if isinstance(node, _SCOPES):
        return False
    return isinstance(node, ast.Yield | ast.YieldFrom) or any(map(_yields, ast.iter_child_nodes(node)))


def _forget_version(node: ast.stmt) -> None:
    """Leave out which version a statement like `__version__ = "1.2"` states. That there is one counts."""
    match node:
        case ast.Assign(targets=[ast.Name(id="__version__"), *more], value=ast.Constant(value=str(text))):
            if _STATED.fullmatch(text) and all(isinstance(one, ast.Name) and one.id == "version" for one in more):
                node.value = ast.Constant("a version")


# -- what differs outside of functions ---------------------------------------------------------------------------------


def _first_apart(before: list[ast.stmt], now: list[ast.stmt], outer: list[list[str]]) -> str:
    """The first statement that differs, in words."""
    place = next((i for i, (one, other) in enumerate(zip(*outer, strict=False)) if one != other), None)
    if place is None:
        longer = max(before, now, key=len)
        return _words(longer[min(len(before), len(now))])
    one, other = before[place], now[place]
    if outer[1].count(outer[0][place]) < outer[0].count(outer[0][place]):
        return _words_of_change(one, other) if _named(one) == _named(other) else _words(one)
    return _words(other)


def _words_of_change(one: ast.stmt, other: ast.stmt) -> str:
    if isinstance(one, ast.ClassDef) and isinstance(other, ast.ClassDef):
        inner = [[ast.dump(each) for each in side.body] for side in (one, other)]
        if inner[0] != inner[1]:
            return f"{one.name}: {_first_apart(one.body, other.body, inner)}"
    if isinstance(one, _Def) and isinstance(other, _Def):
        return f"the signature of {one.name}"
    return _words(other)


def _words(statement: ast.stmt) -> str:
    """`LoraLayer`, `_LIMIT`, `an import`, `line 12`."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return "an import"
    return _named(statement) or "a statement"


def _named(statement: ast.stmt) -> str:
    if isinstance(statement, _Def | ast.ClassDef):
        return statement.name
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return next((each.id for each in targets if isinstance(each, ast.Name)), "")


def _without_unknown(
    file: str, before: list[ast.stmt], now: list[ast.stmt], package: Package
) -> tuple[list[ast.stmt], list[ast.stmt]]:
    """The statements of both sides without those that only one has, and that cannot matter by themselves."""
    dumped = [set(map(ast.dump, statements)) for statements in (before, now)]
    if dumped[0] == dumped[1]:
        return before, now
    old, new = package.texts
    gone = [one for one in before if ast.dump(one) not in dumped[1] and is_unknown(one, file, old, new, package)]
    added = [one for one in now if ast.dump(one) not in dumped[0]
             and (is_unknown(one, file, new, old, package) or is_new_import(one, file, new, old))]  # fmt: skip
    return [one for one in before if one not in gone], [one for one in now if one not in added]
