"""Records which code of the libraries a process executes, so that a check of a change can leave cells out.

What the imports execute counts for every cell of the process: they leave registries and caches that cells rely on. The
record is whole, or there is none. There is none if a cell forks, runs Python in another process, compiles functions
without running them, or sets a profile function itself.

Not seen are Python functions that native code calls in a thread of its own. Torch on the CPU has no such threads.
"""

from __future__ import annotations

import _thread
import inspect
import json
import os
import sys
import sysconfig
import tempfile
import threading
from pathlib import Path
from types import CodeType
from typing import Any, Dict, List, Optional, Set, Tuple

from ..shared import EXECUTED

SOURCE = (0, "<source>")
"""In the place of a line and a name: the file was read as text, so that all of it counts."""
_LEFT_OUT = ("torch", "torchgen", "functorch")
"""Packages that are never a checkout."""
_PACKAGES = ("/site-packages/", "/dist-packages/")
_COMPILER = ("/torch/_dynamo/symbolic_convert.py", "step")
"""The method that reads the bytecode of functions instead of running them."""
COMPREHENSIONS = frozenset(("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"))
"""They run only where the function around them ran."""
_IMPORTERS = (
    "<frozen importlib._bootstrap_external>",
    "/tokenize.py",  # for the lines of a traceback; who asks for the source of an object is seen elsewhere
    "/transformers/utils/import_utils.py",  # reads which names each module exports
)
_PROCESSES = frozenset(("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn"))
_FORKS = frozenset(("os.fork", "os.forkpty"))
_MONITORS = hasattr(sys, "monitoring")


class Recorder:
    """Records the code that this process executes, from `start` to `stop`.

    Attributes:
        why: why the record is not whole; empty if it is.
        ran: file, first line, name and flags of the code that ran. Not the code itself: two functions of different
            files may be equal.
        read: files that were read as text.
    """

    def __init__(self) -> None:
        self.why = ""
        self.ran: Set[Tuple[str, int, str, int]] = set()
        self.read: Set[str] = set()
        self._engine: Any = None
        self._findsource: Any = None

    def start(self) -> None:
        """Begin."""
        if sys.getprofile() is not None:
            self.fail("it is profiled already")
            return
        try:
            self._engine = _Monitor(self) if _MONITORS else _Profiles(self)
        except ImportError:
            self.fail("its interpreter has no profiler")
            return
        self._findsource = inspect.findsource
        inspect.findsource = self._reading_source
        _watch(self)
        self._engine.start()

    def stop(self) -> None:
        """End. Only then `ran` is complete."""
        if self._engine is None:
            return
        self._engine.stop()
        _watch(None)
        inspect.findsource = self._findsource
        compiler, step = _COMPILER
        if any(name == step and file.endswith(compiler) for file, _, name, _ in self.ran):
            self.fail("it compiles functions with torch.compile")

    def add(self, code: CodeType) -> None:
        """Record that this code ran."""
        self.ran.add((code.co_filename, code.co_firstlineno, code.co_name, code.co_flags))

    def fail(self, why: str) -> None:
        """Record that the record is not whole."""
        self.why = self.why or why

    def said(self) -> Dict[str, Any]:
        """What was executed: file → first line and name of each function; and the files of all imported modules."""
        functions: Dict[str, Set[Tuple[int, str]]] = {name: {SOURCE} for name in map(relative, self.read) if name}
        imported = set(self._modules())
        for path, line, name, flags in self.ran:
            file = relative(path)
            if not file or name in COMPREHENSIONS:
                continue
            if flags & inspect.CO_OPTIMIZED:
                functions.setdefault(file, set()).add((line, name))
            elif name == "<module>":  # the body of a class runs with its module's, or with its function's
                imported.add(file)
        if self.why:
            return {"why": self.why}
        return {"why": "", "functions": {name: sorted(codes) for name, codes in functions.items()},
                "imported": sorted(imported)}  # fmt: skip

    def event(self, event: str, arguments: Tuple[Any, ...]) -> None:
        """Look at what Python's audit reports."""
        if event == "open":
            self._opened(arguments[0])
        elif event in _FORKS:
            self.fail("it forks")
        elif event in _PROCESSES:
            if any("python" in os.path.basename(word) or sys.prefix in word for word in _words(arguments)):
                self.fail("it runs Python in another process")
        elif event == "sys.setprofile":
            self._engine.profile_set(sys._getframe(2).f_code)  # beyond this method and the hook

    def _opened(self, path: Any) -> None:
        file = path.decode("utf-8", "replace") if isinstance(path, bytes) else path
        if isinstance(file, str) and relative(file):
            caller = sys._getframe(3).f_code.co_filename  # beyond this method, `event` and the hook
            if not caller.endswith(_IMPORTERS):
                self.read.add(file)

    def _reading_source(self, object: Any) -> Any:
        found = self._findsource(object)
        file = inspect.getsourcefile(object)
        if file:
            self.read.add(file)
        return found

    def _modules(self) -> List[str]:
        """The files of all imported modules."""
        found, elsewhere = [], _elsewhere()
        for file in filter(None, map(file_of, list(sys.modules.values()))):
            name = relative(file)
            if name:
                found.append(name)
            elif not any(folder in file for folder in _PACKAGES) and not file.startswith(elsewhere):
                self.fail("it imported {}, which is in no site-packages".format(os.path.basename(file)))
        return found


class _Profiles:
    """The C profiler, one for each thread: Python before 3.12."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._main = self._new()
        self._threads: List[Any] = []
        self._start_thread = _thread.start_new_thread
        own, thread = vars(_Profiles), vars(threading.Thread)
        self._calls = {
            function.__code__ for function in (own["start"], own["stop"], own["_in_thread"], thread["_bootstrap_inner"])
        }

    @staticmethod
    def _new() -> Any:
        import _lsprof

        return _lsprof.Profiler(subcalls=False, builtins=False)

    def start(self) -> None:
        threading.setprofile(self._in_thread)
        _thread.start_new_thread = self._started_otherwise
        self._main.enable()

    def stop(self) -> None:
        if sys.getprofile() is not self._main:
            self._recorder.fail("its profile function was replaced")
        self._main.disable()
        if vars(threading).get("_profile_hook") != self._in_thread:
            self._recorder.fail("the profile function of its threads was replaced")
        threading.setprofile(None)
        _thread.start_new_thread = self._start_thread
        for profile in (self._main, *self._threads):
            profile.disable()  # or functions that go on in a thread would not count
            for entry in profile.getstats():
                if not isinstance(entry.code, str):
                    self._recorder.add(entry.code)

    def _in_thread(self, frame: Any, _event: str, _argument: Any) -> None:
        """Called with the first event of a thread."""
        self._recorder.add(frame.f_code)
        profile = self._new()
        self._threads.append(profile)
        profile.enable()

    def _started_otherwise(self, *arguments: Any, **more: Any) -> Any:
        self._recorder.fail("it starts a thread without the module threading")
        return self._start_thread(*arguments, **more)

    def profile_set(self, by: CodeType) -> None:
        """See that a thread's profile function is set, by this code."""
        if by not in self._calls:
            self._recorder.fail("it sets a profile function")


class _Monitor:
    """Python's own monitoring, which sees all threads and costs next to nothing: Python 3.12 and later."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._monitoring: Any = getattr(sys, "monitoring")  # noqa: B009 - unknown to older type checkers
        self._tool: Optional[int] = None

    def start(self) -> None:
        free = [tool for tool in (3, 4) if self._monitoring.get_tool(tool) is None]
        if not free:
            self._recorder.fail("it is profiled already")
            return
        self._tool = free[0]
        events = self._monitoring.events
        self._monitoring.use_tool_id(self._tool, "peft-regress")
        for event in (events.PY_START, events.PY_RESUME):
            self._monitoring.register_callback(self._tool, event, self._seen)
        self._monitoring.set_events(self._tool, events.PY_START | events.PY_RESUME)
        self._monitoring.restart_events()

    def stop(self) -> None:
        if self._tool is None:
            return
        events = self._monitoring.events
        if self._monitoring.get_events(self._tool) != events.PY_START | events.PY_RESUME:
            self._recorder.fail("its monitoring was replaced")
        self._monitoring.set_events(self._tool, 0)
        self._monitoring.free_tool_id(self._tool)

    def profile_set(self, by: CodeType) -> None:
        """Do nothing: monitoring goes on."""

    def _seen(self, code: CodeType, _offset: int) -> Any:
        self._recorder.add(code)
        return self._monitoring.DISABLE


_watched: Optional[Recorder] = None
_hooked = False


def _watch(recorder: Optional[Recorder]) -> None:
    global _watched, _hooked
    _watched = recorder
    if not _hooked:
        _hooked = True
        sys.addaudithook(_hook)  # it cannot be removed


def _hook(event: str, arguments: Tuple[Any, ...]) -> None:
    if _watched is not None and event in _EVENTS:
        try:
            _watched.event(event, arguments)
        except Exception as error:  # noqa: BLE001 - it would be the cell's
            _watched.fail("what it does cannot be told: {}".format(type(error).__name__))


_EVENTS = _FORKS | _PROCESSES | {"open", "sys.setprofile"}


def file_of(module: Any) -> str:
    """The file of a module; empty if it has none."""
    # not `getattr`: a module may import its parts when it is asked for a name
    file = vars(module).get("__file__") if isinstance(module, type(sys)) else None
    return file if isinstance(file, str) and os.path.isabs(file) else ""


def relative(file: str) -> str:
    """A file's name relative to the site-packages that it is in; empty for other files, and for those left out."""
    for folder in _PACKAGES:
        if folder in file:
            name = file.rpartition(folder)[2]
            return "" if name.partition("/")[0] in _LEFT_OUT else name
    return ""


def _elsewhere() -> Tuple[str, ...]:
    """Where modules are that are no library's: the standard library, the worker, and what a cell wrote itself."""
    worker = str(Path(__file__).resolve().parents[1])
    standard = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), os.path.dirname(os.__file__)]
    handler = vars(sys.modules.get("peft_regress_handler", sys)).get("__file__", worker)
    return (*standard, worker, handler, tempfile.gettempdir(), os.getcwd())


def _words(arguments: Any) -> List[str]:
    """All texts in the arguments of an event."""
    if isinstance(arguments, (str, bytes)):
        return [os.fsdecode(arguments)]
    if isinstance(arguments, (list, tuple)):
        return [word for one in arguments for word in _words(one)]
    return [os.fspath(arguments)] if hasattr(arguments, "__fspath__") else []


# --- In the worker ----------------------------------------------------------------------------------------------------

_before: Optional[Recorder] = None
"""What the imports of this process executed; None if cells are not asked for what they execute."""


def before_cells() -> Recorder:
    """Begin to record what the imports execute. Whoever calls this calls `stop` before the first cell."""
    global _before
    _before = Recorder()
    for module in list(sys.modules.values()):  # imported when the interpreter started: nobody saw what ran
        _before.read.add(file_of(module))
    _before.start()
    return _before


def records() -> bool:
    """True if cells are asked for what they execute."""
    return _before is not None


def of_cell() -> Recorder:
    """Begin to record a cell. What the imports executed counts."""
    recorder = Recorder()
    if _before is None:
        recorder.fail("what its imports executed was not recorded")
        return recorder
    recorder.fail(_before.why) if _before.why else recorder.start()
    recorder.ran |= _before.ran
    recorder.read |= _before.read
    return recorder


def write(recorder: Recorder, folder: Path) -> None:
    """Write what a cell executed."""
    recorder.stop()
    (folder / EXECUTED).write_text(json.dumps(recorder.said()), encoding="utf-8")
