"""A handler for the worker: its own steps, with functions of the libraries that raise.

A request may hold `only`, a file: every function that is not in this record of executed code raises. Or `raises`: the
functions that raise. Those that were called are in `called.json` of the cell's folder. For Python 3.11.
"""

from __future__ import annotations

import builtins
import gc
import importlib
import inspect
import json
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

_cell = importlib.import_module("peft_regress_worker.observe.cell")
_executed: Any = importlib.import_module("peft_regress_worker.serve.executed")
preload, warm_up, is_sound = _cell.preload, _cell.warm_up, _cell.is_sound
_called: list[str] = []
Chosen = Callable[[str, int, str], bool]


def handle(request: dict[str, Any]) -> None:
    """Serve the request."""
    folder = Path(request["scratch"])
    if "only" in request:
        said = json.loads(Path(request["only"]).read_text())["functions"]
        ran = {(file, *code) for file, codes in said.items() for code in codes}
        _break(lambda *code: code not in ran)
    elif "raises" in request:
        raising = {tuple(code) for code in request["raises"]}
        _break(lambda *code: code in raising)
    try:
        _cell.handle(request)
    finally:
        (folder / "called.json").write_text(json.dumps(_called))


def _break(chosen: Chosen) -> None:
    """Have the chosen functions raise: those that there are, and those of modules that are imported from now on."""
    builtins.__peft_regress_called__ = _called.append  # type: ignore[attr-defined]
    gc.unfreeze()
    for one in gc.get_objects():
        if type(one) is FunctionType:  # `isinstance` asks the object for its class
            changed = _changed(one.__code__, chosen)
            if changed is not one.__code__:
                one.__code__ = changed
    loaded = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, name: str) -> CodeType | None:
        code = loaded(loader, name)
        return _changed(code, chosen) if code else code

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign, assignment]


def _changed(code: CodeType, chosen: Chosen) -> CodeType:
    """The code where it, or what is defined in it, raises if it is chosen; else the same object."""
    file = _executed.relative(code.co_filename)
    if not file:
        return code
    is_function = code.co_flags & inspect.CO_OPTIMIZED and code.co_name not in _executed.COMPREHENSIONS
    if is_function and chosen(file, code.co_firstlineno, code.co_name):
        return _raising(code, f"{file}:{code.co_firstlineno} {code.co_name}")
    constants = tuple(_changed(one, chosen) if isinstance(one, CodeType) else one for one in code.co_consts)
    same = all(one is other for one, other in zip(constants, code.co_consts, strict=True))
    return code if same else code.replace(co_consts=constants)


def _raising(code: CodeType, name: str) -> CodeType:
    """Code with the same signature that raises."""
    source = f"def f():\n __peft_regress_called__({name!r})\n raise RuntimeError('a function that was not executed')"
    body = next(one for one in compile(source, code.co_filename, "exec").co_consts if isinstance(one, CodeType))
    lazy = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
    return code.replace(
        co_code=body.co_code, co_consts=body.co_consts, co_names=body.co_names, co_flags=code.co_flags & ~lazy,
        co_stacksize=body.co_stacksize, co_linetable=body.co_linetable, co_exceptiontable=body.co_exceptiontable,
    )  # fmt: skip
