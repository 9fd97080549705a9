"""The recorder of executed code, in interpreters that have only a small library: all that runs is recorded, or nothing.

Each Python from 3.8 on that is on the PATH runs these tests; from 3.12 on, another profiler records.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
LIBRARY = """\
import contextlib, functools, threading
from concurrent.futures import ThreadPoolExecutor

def at_import():
    return 1

VALUE = at_import()

def plain():
    return [inner for inner in range(3)]

def never():
    def inside():
        pass
    return inside

def outer():
    def nested():
        return 1
    return nested()

@functools.lru_cache(maxsize=None)
def decorated():
    return 1

class Thing:
    def __init__(self):
        self.made = True

    @property
    def value(self):
        return (lambda: 1)()

    @classmethod
    def build(cls):
        class Local:
            def of_local(self):
                return 1
        Local().of_local()
        return cls()

    @staticmethod
    def unused():
        pass

    def __del__(self):
        pass

def generator():
    yield 1
    yield helper_of_generator()

def helper_of_generator():
    return 2

@contextlib.contextmanager
def manager():
    yield

async def coroutine():
    return 1

def raising():
    raise ValueError

def handled():
    try:
        raising()
    except ValueError:
        return in_handler()

def in_handler():
    return 1

def recursive(depth):
    return depth and recursive(depth - 1)

def in_thread():
    return deep_in_thread()

def deep_in_thread():
    return 1

def thread():
    one = threading.Thread(target=in_thread)
    one.start()
    one.join()

def in_pool(_):
    return 1

def pool():
    with ThreadPoolExecutor(2) as workers:
        list(workers.map(in_pool, range(4)))

def waits(event):
    event.wait(20)

def thread_that_goes_on():
    threading.Thread(target=waits, args=(threading.Event(),), daemon=True).start()
    while not threading.active_count() > 1:
        pass

def by_c():
    return sorted([2, 1], key=sort_key)

def sort_key(one):
    return one

def exits():
    raise SystemExit(3)

def lazily():
    import late
    return late.in_late()
"""
AROUND = """\
import json, os, sys, threading
sys.path.insert(0, {library!r})
from harness.worker.serve import executed
from harness.worker.serve.executed import Recorder

before = executed.before_cells()
import library
before.stop()
cell = executed.of_cell()
try:
    {do}
except (Exception, SystemExit):
    pass
cell.stop()
print("SAID", json.dumps(cell.said()))
sys.stdout.flush()
os._exit(0)
"""


@functools.cache
def _pythons() -> dict[str, str]:
    """The interpreters on the PATH that start, by version."""
    found = {"this": sys.executable}
    for minor in (8, 9, 10, 12, 13, 14):
        python = shutil.which(f"python3.{minor}")
        if python and subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0:
            found[f"3.{minor}"] = python
    return found


@pytest.fixture(params=["this", "3.8", "3.9", "3.10", "3.12", "3.13", "3.14"])
def python(request: pytest.FixtureRequest) -> str:
    """An interpreter."""
    if request.param not in _pythons():
        pytest.skip(f"no Python {request.param} on the PATH")
    return _pythons()[request.param]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of packages."""
    folder = tmp_path / "lib" / "site-packages"
    folder.mkdir(parents=True)
    (folder / "library.py").write_text(LIBRARY)
    (folder / "late.py").write_text("def in_late():\n    return 1\n\ndef never_late():\n    pass\n")
    (folder / "data.txt").write_text("data")
    return folder


def said(python: str, site: Path, do: str) -> dict[str, Any]:
    """What is recorded of a statement."""
    code = AROUND.format(library=str(site), do=do)
    done = subprocess.run(
        [python, "-S", "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("SAID ")]
    assert lines, done.stderr
    found: dict[str, Any] = json.loads(lines[0].removeprefix("SAID "))
    return found


def names(python: str, site: Path, do: str) -> set[str]:
    """The names of the library's functions that are recorded of a statement."""
    found = said(python, site, do)
    assert not found["why"]
    return {name for _, name in found["functions"]["library.py"]}


@pytest.mark.parametrize(
    ("do", "ran"),
    [
        ("pass", set()),
        ("library.plain()", {"plain"}),
        ("library.outer()", {"outer", "nested"}),
        ("library.decorated()", {"decorated"}),
        ("library.Thing.build().value", {"__init__", "value", "<lambda>", "build", "of_local", "__del__"}),
        ("list(library.generator())", {"generator", "helper_of_generator"}),
        ("next(library.generator())", {"generator"}),
        ("library.generator()", set()),  # it is made, and none of it runs
        ("library.manager().__enter__()", {"manager"}),
        ("library.coroutine().send(None)", {"coroutine"}),
        ("library.raising()", {"raising"}),
        ("library.handled()", {"handled", "raising", "in_handler"}),
        ("library.recursive(50)", {"recursive"}),
        ("library.thread()", {"thread", "in_thread", "deep_in_thread"}),
        ("library.pool()", {"pool", "in_pool"}),
        ("library.thread_that_goes_on()", {"thread_that_goes_on", "waits"}),
        ("library.by_c()", {"by_c", "sort_key"}),
        ("library.exits()", {"exits"}),
        ("library.lazily()", {"lazily"}),
    ],
)
def test_exactly_what_runs_is_recorded(python: str, site: Path, do: str, ran: set[str]) -> None:
    missed_if_it_is_made = {"generator", "coroutine"} if do == "library.generator()" else set()
    assert names(python, site, do) - missed_if_it_is_made == ran | {"at_import"}


def test_equal_functions_of_different_files_are_different_functions(python: str, site: Path) -> None:
    (site / "twin.py").write_text(LIBRARY)
    found = said(python, site, "import twin; library.plain(); twin.plain()")["functions"]
    assert found["twin.py"] == found["library.py"]
    assert len(found["twin.py"]) == 2


def test_a_function_begins_at_its_first_decorator(python: str, site: Path) -> None:
    lines = LIBRARY.splitlines()
    found = said(python, site, "library.decorated(); library.Thing().value")["functions"]["library.py"]
    at = {name: lines[line - 1].strip() for line, name in found}
    assert (at["decorated"], at["value"]) == ("@functools.lru_cache(maxsize=None)", "@property")


def test_modules_that_are_imported_late_count(python: str, site: Path) -> None:
    found = said(python, site, "library.lazily()")
    assert found["imported"] == ["late.py", "library.py"]
    assert [name for _, name in found["functions"]["late.py"]] == ["in_late"]
    gone = said(python, site, "library.lazily(); del sys.modules['late']")
    assert gone["imported"] == ["late.py", "library.py"], "its body ran, also if it is gone"


@pytest.mark.parametrize(
    ("do", "why"),
    [
        ("os.fork() or os._exit(0)", "it forks"),
        ("import subprocess; subprocess.run([sys.executable, '-c', ''])", "it runs Python in another process"),
        ("import subprocess; subprocess.run('python3 -c 1', shell=True)", "it runs Python in another process"),
        ("os.system('python3 -c 1')", "it runs Python in another process"),
        ("import multiprocessing as m; m.get_context('fork').Process(target=int).start()", "it forks"),
    ],
)
def test_what_runs_elsewhere_leaves_no_trace_of_the_cell(python: str, site: Path, do: str, why: str) -> None:
    assert said(python, site, do) == {"why": why}


def test_another_program_does_no_harm(python: str, site: Path) -> None:
    assert names(python, site, "import subprocess; subprocess.run(['true']); library.plain()") == {"at_import", "plain"}


@pytest.mark.parametrize(
    ("do", "why"),
    [
        ("sys.setprofile(lambda *_: None)", "it sets a profile function"),
        ("sys.setprofile(None); library.plain()", "it sets a profile function"),
        ("import cProfile; cProfile.Profile().enable()", "it sets a profile function"),
        ("threading.setprofile(None)", "the profile function of its threads was replaced"),
        (
            "import _thread; _thread.start_new_thread(library.plain, ())",
            "it starts a thread without the module threading",
        ),
    ],
)  # fmt: skip
def test_a_profile_that_is_not_whole_is_none(site: Path, do: str, why: str) -> None:
    found = said(sys.executable, site, do)
    if sys.version_info < (3, 12):  # later ones monitor all threads, and do not mind
        assert found == {"why": why}


def test_a_process_that_is_profiled_already_has_no_trace(site: Path) -> None:
    code = AROUND.replace("before = ", "sys.setprofile(lambda *_: None)\nbefore = ").format(
        library=str(site), do="pass"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.partition("SAID ")[2]) == {"why": "it is profiled already"}


@pytest.mark.parametrize(
    ("do", "file"),
    [
        ("import inspect; inspect.getsource(library.never)", "library.py"),
        ("import inspect; inspect.getsourcelines(library.Thing)", "library.py"),
        ("open(library.__file__).read()", "library.py"),
        ("from pathlib import Path; (Path(library.__file__).resolve().parent / 'data.txt').read_text()", "data.txt"),
    ],
)
def test_a_file_that_is_read_as_text_counts_as_a_whole(python: str, site: Path, do: str, file: str) -> None:
    assert [0, "<source>"] in said(python, site, do)["functions"][file]


def test_neither_imports_nor_a_traceback_are_reading(python: str, site: Path) -> None:
    do = """
    library.lazily()
    try: library.raising()
    except ValueError:
        import traceback; assert "raise ValueError" in traceback.format_exc()
    import warnings; warnings.warn_explicit("x", UserWarning, library.__file__, 3)"""
    found = said(python, site, do)
    assert all([0, "<source>"] not in codes for codes in found["functions"].values())


def test_a_module_of_no_package_folder_leaves_no_trace(python: str, site: Path) -> None:
    elsewhere = site.parent.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "stray.py").write_text("x = 1\n")
    do = f"import tempfile; tempfile.tempdir = '/nowhere'; sys.path.insert(0, {str(elsewhere)!r}); import stray"
    assert said(python, site, do) == {"why": "it imported stray.py, which is in no site-packages"}


def test_files_are_named_as_they_are_imported(python: str, site: Path, tmp_path: Path) -> None:
    """The packages of a layered environment are links to another one's."""
    linked = tmp_path / "over" / "site-packages"
    linked.mkdir(parents=True)
    (linked / "library.py").symlink_to(site / "library.py")
    (linked / "torch").mkdir()
    (linked / "torch" / "__init__.py").write_text("def left_out():\n    pass\nleft_out()\n")
    found = said(python, linked, "import torch; library.plain()")
    assert set(found["functions"]) == {"library.py"}
    assert found["imported"] == ["library.py"]
