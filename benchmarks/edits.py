"""Generated edits of Python files. Also read by a worker, so this is Python 3.8 without our own imports."""

from __future__ import annotations

import ast
import random
from typing import Any, Dict, Iterable, List, Tuple  # noqa: UP035 - Python 3.8

Edit = Tuple[str, int, int]  # noqa: UP006
"""A file, a statement by its place in `ast.walk`, and a node in it by its place there; below 0 drops the statement."""
_OTHER: Dict[Any, Any] = {  # noqa: UP006
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_STATEMENTS = (ast.Assign, ast.AugAssign, ast.Return, ast.If, ast.Expr, ast.Raise)
_DROPPED = (ast.AugAssign, ast.Raise, ast.Expr)


def edits(texts: Dict[str, str], count: int, of_modules: int, seed: int) -> List[Edit]:  # noqa: UP006
    """Edits in functions, and of `of_modules` statements of modules and classes."""
    chosen = random.Random(seed)
    inner: List[Edit] = []  # noqa: UP006
    outer: List[Edit] = []  # noqa: UP006
    for file, text in sorted(texts.items()):
        tree = ast.parse(text)
        functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
        inside = {id(each) for node in functions for part in node.body for each in ast.walk(part)}
        for place, node in enumerate(ast.walk(tree)):
            if not isinstance(node, _STATEMENTS) or isinstance(getattr(node, "value", None), ast.Constant):
                continue
            hows = [how for how, each in enumerate(ast.walk(node)) if _can_be_edited(each)]
            hows += [-1] if isinstance(node, _DROPPED) and id(node) in inside else []
            if hows:
                (inner if id(node) in inside else outer).append((file, place, chosen.choice(hows)))
    few = chosen.sample(outer, min(len(outer), of_modules))
    return chosen.sample(inner, min(len(inner), count - len(few))) + few


def edited(text: str, some: Iterable[Edit]) -> ast.Module:
    """A file with edits, as a syntax tree in which all lines are what they were."""
    tree = ast.parse(text)
    nodes = list(ast.walk(tree))
    made = [(nodes[place], None if how < 0 else list(ast.walk(nodes[place]))[how]) for _, place, how in some]
    for statement, node in made:
        if node is None:
            _drop(tree, statement)
        else:
            _edit(node)
    return ast.fix_missing_locations(tree)


def _drop(tree: ast.Module, statement: ast.AST) -> None:
    for owner in ast.walk(tree):
        for _, value in ast.iter_fields(owner):
            if isinstance(value, list) and any(each is statement for each in value):
                value[[each is statement for each in value].index(True)] = ast.copy_location(ast.Pass(), statement)


def _can_be_edited(node: ast.AST) -> bool:
    if isinstance(node, (ast.BinOp, ast.BoolOp)):
        return type(node.op) in _OTHER
    if isinstance(node, ast.Compare):
        return type(node.ops[0]) in _OTHER
    return isinstance(node, ast.If) or (isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)))


def _edit(node: Any) -> None:
    if isinstance(node, (ast.BinOp, ast.BoolOp)):
        node.op = _OTHER[type(node.op)]()
    elif isinstance(node, ast.Compare):
        node.ops[0] = _OTHER[type(node.ops[0])]()
    elif isinstance(node, ast.If):
        node.test = ast.copy_location(ast.UnaryOp(ast.Not(), node.test), node.test)
    else:
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1
