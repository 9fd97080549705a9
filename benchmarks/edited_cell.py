"""A handler for the worker (`worker_handler`): replays each cell with edited functions of the libraries.

PEFT_REGRESS_EDITS names a JSON file: `scenario@creator` → edits (see `edits.py`). A cell runs in a forked child, so its
edits stay in it, and all cells share one import of the libraries.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import os
import types
from pathlib import Path
from typing import Any, Dict, Iterator, List  # noqa: UP035 - Python 3.8

_cell = importlib.import_module("peft_regress_worker.observe.cell")
preload = _cell.preload
warm_up = _cell.warm_up
is_sound = _cell.is_sound


def handle(request: Dict[str, Any]) -> None:  # noqa: UP006
    """Edit the functions of this cell, then do what the worker does."""
    place = Path(os.environ["PEFT_REGRESS_EDITS"])
    cell = next((part for part in Path(request["scratch"]).parts if "@" in part), "").partition(":")[0]
    count = _edit(json.loads(place.read_text()).get(cell, []))
    (place.parent / f"{cell}.count").write_text(str(count))
    _cell.handle(request)


def _edit(edits: List[Any]) -> int:  # noqa: UP006
    """Replace the code of these functions; how many functions have other code."""
    spec = importlib.util.spec_from_file_location("edits", Path(__file__).with_name("edits.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    site = next(
        path for path in Path(importlib.import_module("peft").__file__ or "").parents if path.name == "peft"
    ).parent
    codes = {}
    for file in {edit[0] for edit in edits}:
        tree = module.edited((site / file).read_text(encoding="utf-8"), [edit for edit in edits if edit[0] == file])
        for code in _codes(compile(tree, file, "exec", dont_inherit=True)):
            codes[file, code.co_firstlineno, code.co_name] = code
    gc.unfreeze()  # else those that were there before the fork are not listed
    count = 0
    for function in [each for each in gc.get_objects() if isinstance(each, types.FunctionType)]:
        old = function.__code__
        new = codes.get((old.co_filename.partition("site-packages/")[2], old.co_firstlineno, old.co_name))
        if new is not None and new.co_freevars == old.co_freevars and _program(new) != _program(old):
            function.__code__ = new.replace(co_filename=old.co_filename)
            count += 1
    return count


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield each
            yield from _codes(each)


def _program(code: types.CodeType) -> Any:
    consts = [_program(each) if isinstance(each, types.CodeType) else repr(each) for each in code.co_consts]
    return code.co_code, consts, code.co_names
