"""Two versions of a file → what runs differently. The table is the specification."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import pytest

from harness.runner.change import code_diff
from harness.runner.change.code_diff import Difference
from harness.runner.change.new_names import Package
from harness.runner.change.touched import Files
from harness.runner.executed import Executed

FILE = "peft/a.py"
NOTHING, DEFINES, MODULE = "nothing", "defines", "module"
"""What a row expects: nothing runs differently; names are new that nobody knows; the module's own level differs. Any
other text names the functions whose bodies differ."""

SAME = [
    ("a comment", "x = 1\n", "x = 1  # one\n\n# more\n"),
    ("formatting", "f(1, 2)\n", "f(\n    1,\n    2,\n)\n"),
    ("quotes and escapes", "x = 'a\\x62'\n", 'x = "ab"\n'),
    ("a line that is joined", "x = 1 + \\\n  2\n", "x = 1 + 2\n"),
    ("lines that moved", "def f():\n    return 1\n", "\n\n\n# moved\ndef f():\n    return 1\n"),
    ("tabs", "def f():\n\treturn 1\n", "def f():\n        return 1\n"),
    ("line ends", "def f():\n    return 1\n", "def f():\r\n    return 1\r\n"),
    ("a mark of the byte order", "x = 'é'\n", "\ufeffx = 'é'\n"),
    ("the module's docstring", '"""One."""\nx = 1\n', '"""Two."""\nx = 1\n'),
    ("a function's docstring", 'def f():\n    """One."""\n    return 1\n', "def f():\n    return 1\n"),
    ("a class's and a method's docstring",
     'class A:\n    """One."""\n    def f(self):\n        """One."""\n        g()\n',
     'class A:\n    """Two."""\n    def f(self):\n        """Two."""\n        g()\n'),
    ("the stated version", "__version__ = '1.0'\nx = 1\n", "__version__ = '1.1.dev0'\nx = 1\n"),
    ("a version that a build writes", "__version__ = version = '1.0'\n", "__version__ = version = '1.1.dev2+g1a'\n"),
    ("a type comment that nobody reads", "x = f()  # type: int\n", "x = f()  # type: float\n"),
]  # fmt: skip

BODIES = [
    ("a function", "def f():\n    return 1\n", "def f():\n    return 2\n", "f"),
    ("a method", "class A:\n    def f(self):\n        return 1\n    def g(self): ...\n",
     "class A:\n    def f(self):\n        return 2\n    def g(self): ...\n", "A.f"),
    ("a decorated one", "class A:\n    @property\n    def f(self):\n        return 1\n",
     "class A:\n    @property\n    def f(self):\n        return 2\n", "A.f"),
    ("an async one", "async def f():\n    await g()\n", "async def f():\n    await h()\n", "f"),
    ("a generator", "def f():\n    yield 1\n", "def f():\n    yield 2\n", "f"),
    ("a nested class", "class A:\n    class B:\n        def f(self): return 1\n",
     "class A:\n    class B:\n        def f(self): return 2\n", "A.B.f"),
    ("a nested function", "def f():\n    def g(): return 1\n    return g\n",
     "def f():\n    def g(): return 2\n    return g\n", "f"),
    ("a signature in a function", "def f():\n    def g(x): return 1\n", "def f():\n    def g(x, y): return 1\n", "f"),
    ("a lambda in a function", "def f():\n    return lambda: 1\n", "def f():\n    return lambda: 2\n", "f"),
    ("a comprehension", "def f():\n    return [x for x in y]\n", "def f():\n    return [x for x in z]\n", "f"),
    ("a class in a function", "def f():\n    class A: x = 1\n", "def f():\n    class A: x = 2\n", "f"),
    ("an import in a function", "def f():\n    import a\n", "def f():\n    import b\n", "f"),
    ("a statement that is gone", "def f():\n    g()\n    h()\n", "def f():\n    h()\n", "f"),
    ("a text that is no docstring", "def f():\n    return 'a'\n", "def f():\n    return 'b'\n", "f"),
    ("a docstring's place in a value", "def f():\n    x = '''a'''\n", "def f():\n    x = '''b'''\n", "f"),
    ("a match statement", "def f(x):\n    match x:\n        case 1: return 1\n",
     "def f(x):\n    match x:\n        case 2: return 1\n", "f"),
    ("an annotation of a local name", "def f():\n    x: int = 1\n", "def f():\n    x: float = 1\n", "f"),
    ("a conditional definition", "if a:\n    def f(): return 1\nelse:\n    def f(): return 2\n",
     "if a:\n    def f(): return 1\nelse:\n    def f(): return 3\n", "f:4-4"),
    ("one in try and except", "try:\n    import a\nexcept ImportError:\n    def f(): return 1\n",
     "try:\n    import a\nexcept ImportError:\n    def f(): return 2\n", "f"),
    ("a setter, and not the getter of the same name",
     "class A:\n    @property\n    def x(self):\n        return 1\n    @x.setter\n    def x(self, v):\n        g(v)\n",
     "class A:\n    @property\n    def x(self):\n        return 1\n    @x.setter\n    def x(self, v):\n        h(v)\n",
     "A.x:5-7"),
    ("the last of several overloads",
     "@overload\ndef f(x: int): ...\n@overload\ndef f(x: str): ...\ndef f(x): return 1\n",
     "@overload\ndef f(x: int): ...\n@overload\ndef f(x: str): ...\ndef f(x): return 2\n", "f:5-5"),
    ("two, with the lines of the baseline", "@d(1)\n@e\ndef f():\n    return 1\n\n\ndef g():\n    return 1\n",
     "# new\n@d(1)\n@e\ndef f():\n    return 2\n\n\ndef g():\n    return 2\n", "f:1-4 g:7-8"),
    ("a method of a dataclass", "@dataclass\nclass A:\n    x: int = 1\n    def f(self): return 1\n",
     "@dataclass\nclass A:\n    x: int = 1\n    def f(self): return 2\n", "A.f"),
]  # fmt: skip

MODULES = [
    ("a constant", "X = 1\nprint(X)\n", "X = 2\nprint(X)\n"),
    ("a new parameter", "def f(x): return 1\n", "def f(x, y): return 1\n"),
    ("a default", "def f(x=1): return x\n", "def f(x=2): return x\n"),
    ("an annotation", "def f(x: int): return x\n", "def f(x: float): return x\n"),
    ("a decorator", "def f(): return 1\n", "@d\ndef f(): return 1\n"),
    ("async", "def f(): return 1\n", "async def f(): return 1\n"),
    ("a function that becomes a generator", "def f(): return 1\n", "def f(): yield 1\n"),
    ("a base class", "class A(B): ...\n", "class A(C): ...\n"),
    ("a metaclass", "class A: ...\n", "class A(metaclass=M): ...\n"),
    ("a version that is no version", "__version__ = '1.0'\n", "__version__ = 'next'\n"),
    ("a version that is computed", "__version__ = '1.0'\n", "__version__ = metadata.version('gone')\n"),
    ("a version that is gone", "__version__ = '1.0'\nx = f()\n", "x = f()\n"),
    ("a constant that is called a version", "version = 1\nf(version)\n", "version = 2\nf(version)\n"),
    ("VERSION", "VERSION = 'v1'\nf(VERSION)\n", "VERSION = 'v2'\nf(VERSION)\n"),
    ("a class attribute", "class A:\n    x = 1\n", "class A:\n    x = 2\n"),
    ("a field of a dataclass", "@dataclass\nclass A:\n    x: int = 1\n", "@dataclass\nclass A:\n    x: int = 2\n"),
    ("a lambda of a class", "class A:\n    f = lambda: 1\n", "class A:\n    f = lambda: 2\n"),
    ("a comprehension of a module", "x = [i for i in a]\n", "x = [i for i in b]\n"),
    ("a new method", "class A:\n    x = 1\n", "class A:\n    x = 1\n    def f(self): ...\n"),
    ("a method that is gone", "class A:\n    x = 1\n    def f(self): ...\n", "class A:\n    x = 1\n"),
    ("a method of another name", "class A:\n    def f(self): ...\n", "class A:\n    def g(self): ...\n"),
    ("the order of methods", "class A:\n    def f(self): ...\n    def g(self): ...\n",
     "class A:\n    def g(self): ...\n    def f(self): ...\n"),
    ("the order of functions", "def f(): ...\ndef g(): ...\n", "def g(): ...\ndef f(): ...\n"),
    ("a function that is defined once more", "def f(): return 1\n", "def f(): return 1\ndef f(): return 1\n"),
    ("an import of a library", "import a\n", "import b\n"),
    ("an import of the package", "x = 1\n", "x = 1\nfrom peft.b import other\n"),
    ("a star import", "from peft.b import y\n", "from peft.b import *\n"),
    ("a future import", "x = 1\n", "from __future__ import annotations\nx = 1\n"),
    ("what is imported for type checkers", "if TYPE_CHECKING:\n    import a\n", "if TYPE_CHECKING:\n    import b\n"),
    ("__all__", "__all__ = ['a']\n", "__all__ = ['a', 'b']\n"),
    ("a walrus", "if (n := 1) > 0: pass\n", "if (n := 2) > 0: pass\n"),
    ("a condition around a function", "if a:\n    def f(): return 1\n", "if b:\n    def f(): return 1\n"),
    ("an exception that is caught", "try:\n    import a\nexcept ImportError: pass\n",
     "try:\n    import a\nexcept Exception: pass\n"),
    ("a match of a module", "match a:\n    case 1: pass\n", "match a:\n    case 2: pass\n"),
    ("a registration", "register(A)\n", "register(A)\nregister(B)\n"),
    ("a body that torch.jit compiles", "@torch.jit.script\ndef f(x): return x\n",
     "@torch.jit.script\ndef f(x): return -x\n"),
    ("a body that triton compiles", "@triton.jit\ndef f(x): return x\n", "@triton.jit\ndef f(x): return -x\n"),
    ("a type comment that torch.jit reads", "import torch.jit\ndef f(x):\n    # type: (int) -> int\n    return x\n",
     "import torch.jit\ndef f(x):\n    # type: (float) -> float\n    return x\n"),
]  # fmt: skip

DEFINITIONS = [
    ("a helper that nobody knows", "x = 1\n", "x = 1\ndef helper(a, b=1, *, c=(1, -2)) -> int: return a\n"),
    ("a helper that is gone", "x = 1\ndef helper(): return 1\n", "x = 1\n"),
    ("a constant that nobody knows", "x = 1\n", "_LIMIT = 3\nx = 1\n"),
    ("an import of the standard library", "x = 1\n", "import math\nfrom re import sub as replace\nx = 1\n"),
    ("annotations that are not evaluated", "from __future__ import annotations\n",
     "from __future__ import annotations\ndef helper(x: torch.Tensor) -> torch.Tensor: return x\n"),
]  # fmt: skip

NO_DEFINITIONS = [
    ("a decorated helper", "x = 1\n", "x = 1\n@register\ndef helper(): ...\n", {}),
    ("a default that is computed", "x = 1\n", "x = 1\ndef helper(a=f()): ...\n", {}),
    ("a default that can be changed", "x = 1\n", "x = 1\ndef helper(a=[]): ...\n", {}),
    ("annotations that are evaluated", "x = 1\n", "x = 1\ndef helper(x: torch.Tensor): ...\n", {}),
    ("a constant that is computed", "x = 1\n", "x = 1\n_LIMIT = f()\n", {}),
    ("a name that another file mentions", "x = 1\n", "x = 1\ndef helper(): ...\n",
     {"peft/b.py": "hasattr(a, 'helper')"}),
    ("a name that this file mentions", "x = helper\n", "x = helper\ndef helper(): ...\n", {}),
    ("a name that another library mentions", "x = 1\n", "x = 1\ndef known_elsewhere(): ...\n", {}),
    ("a file that looks at all its names", "x = globals()\n", "x = globals()\ndef helper(): ...\n", {}),
    ("a file whose missing names are found", "def __getattr__(n): ...\n",
     "def __getattr__(n): ...\ndef helper(): ...\n", {}),
    ("a package that looks at all names", "x = 1\n", "x = 1\ndef helper(): ...\n",
     {"peft/b.py": "for n in dir(a): f(n)"}),
    ("a name that another file computes", "x = 1\n", "x = 1\ndef init_new(): ...\n",
     {"peft/b.py": "from peft import a as inits\ngetattr(inits, f'init_{kind}', None)\n"}),
    ("a file that computes its own names", "f = getattr(sys.modules[__name__], 'init_' + kind, None)\n",
     "f = getattr(sys.modules[__name__], 'init_' + kind, None)\ndef init_new(): ...\n", {}),
    ("a name that Python knows", "class A: ...\n", "__name__ = 'other'\nclass A: ...\n", {}),
    ("a new class", "x = 1\n", "x = 1\nclass New: ...\n", {}),
    ("an import whose name the file mentions", "x = math\n", "import math\nx = math\n", {}),
    ("an import of a submodule", "x = 1\n", "import os.path\nx = 1\n", {}),
    ("an import with an effect", "x = 1\n", "import readline\nx = 1\n", {}),
    ("a relative import", "x = 1\n", "from . import math\nx = 1\n", {}),
    ("an import into a file that is imported with a star", "x = 1\n", "import math\nx = 1\n",
     {"peft/b.py": "from .a import *\n"}),
    ("an import that is gone", "import math\nx = 1\n", "x = 1\n", {}),
]  # fmt: skip


def texts(here: str, more: Mapping[str, str]) -> Files:
    every = {FILE: here, **more}
    return Files(frozenset(every), every.__getitem__)


def of(before: str | bytes, now: str | bytes, more: Mapping[str, str] | None = None) -> Difference:
    sides = [side if isinstance(side, bytes) else side.encode() for side in (before, now)]
    old, new = (texts(side.decode(errors="replace"), more or {}) for side in sides)
    package = Package(old, new, lambda name: name == "known_elsewhere")
    one, other = ({FILE: side}.get for side in sides)
    return code_diff.between([FILE], one, other, package)


def words(found: Difference) -> str:
    assert not found.everything, found
    if found.modules:
        return MODULE
    lines = " ".join(f"{one.name}:{one.first}-{one.last}" for one in found.functions)
    return lines or (DEFINES if found.defines else NOTHING)


@pytest.mark.parametrize(("before", "now"), [row[1:] for row in SAME], ids=[row[0] for row in SAME])
def test_what_does_not_run_is_no_difference(before: str, now: str) -> None:
    assert words(of(before, now)) == NOTHING
    assert not of(before, now)


@pytest.mark.parametrize(("before", "now", "expected"), [row[1:] for row in BODIES], ids=[row[0] for row in BODIES])
def test_a_body_that_differs_is_told_with_its_lines_in_the_baseline(before: str, now: str, expected: str) -> None:
    found = words(of(before, now))
    assert found == expected or (":" not in expected and found.startswith(f"{expected}:") and " " not in found)


@pytest.mark.parametrize(("before", "now"), [row[1:] for row in MODULES], ids=[row[0] for row in MODULES])
def test_all_else_is_a_difference_of_the_module(before: str, now: str) -> None:
    assert words(of(before, now)) == MODULE
    assert words(of(now, before)) == MODULE


@pytest.mark.parametrize(("before", "now"), [row[1:] for row in DEFINITIONS], ids=[row[0] for row in DEFINITIONS])
def test_what_only_defines_an_unknown_name_is_told_apart(before: str, now: str) -> None:
    assert words(of(before, now)) == DEFINES
    assert of(before, now), "the file may not import"


@pytest.mark.parametrize(
    ("before", "now", "more"), [row[1:] for row in NO_DEFINITIONS], ids=[row[0] for row in NO_DEFINITIONS]
)
def test_a_name_that_something_can_know_is_a_difference_of_the_module(
    before: str, now: str, more: Mapping[str, str]
) -> None:
    assert words(of(before, now, more)) == MODULE


def test_a_helper_with_the_function_that_uses_it() -> None:
    found = of(
        "def f(x): return x\n", "import math\n\ndef helper(x): return math.pi * x\n\ndef f(x): return helper(x)\n"
    )
    assert words(found) == "f:1-1"
    assert found.defines


@pytest.mark.parametrize(
    ("before", "now", "why"),
    [
        ("x = 1\n", "x = (\n", "does not parse"),
        ("x = (\n", "x = 1\n", "does not parse"),
        ("def f(): return 1\n", "return 1\n", "does not parse"),
        ("x = 1\n", "x = '\0'\n", "does not parse"),
        ("x = 1\n", f"x = {'(' * 2_000}1{')' * 2_000}\n", "does not parse"),
        ("x = 1\n", b"# coding: no-such-one\nx = 1\n", "does not parse"),
        ("x = 1\n", b"x = '\xff'\n", "does not parse"),
        ("if a:\n    f()\n", "if a:\n\tf()\n        g()\n", "does not parse"),
    ],
)
def test_what_does_not_parse_can_affect_everything(before: str, now: str | bytes, why: str) -> None:
    assert why in of(before, now).everything


def test_an_encoding_is_read_as_python_reads_it() -> None:
    latin, utf = b"# coding: latin-1\nx = '\xe9'\n", "x = 'é'\n"
    assert words(of(latin, utf)) == NOTHING
    assert words(of(b"# coding: latin-1\nx = '\xc3\xa9'\n", utf)) == MODULE


@pytest.mark.parametrize(
    ("name", "before", "now", "why"),
    [
        ("peft/new.py", None, b"x = 1", "peft/new.py is new"),
        ("peft/old.py", b"x = 1", None, "peft/old.py is gone"),
        ("peft/odd.py", None, None, "peft/odd.py can't be read"),
        ("peft/data.json", b"{}", b"[]", "peft/data.json is no Python source"),
        ("peft/_C.so", b"1", b"2", "peft/_C.so is no Python source"),
    ],
)
def test_other_files_can_affect_everything(name: str, before: bytes | None, now: bytes | None, why: str) -> None:
    package = Package(texts("", {}), texts("", {}))
    assert code_diff.between([name], lambda _: before, lambda _: now, package).everything == why


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("print('docs are in __doc__')", NOTHING),
        ("functools.wraps(f, assigned=('__doc__', '__name__'))", NOTHING),
        ("f.__doc__ = 'new'", NOTHING),
        ("print(f.__doc__)", "f"),
        ("getattr(f, '__doc__')", "f"),
        ("inspect.getdoc(f)", "f"),
        ("from inspect import getdoc as d", "f"),
        ("@add_start_docstrings(X)\ndef g(): ...", "f"),
        ("x = (  # __doc__", "f"),
    ],
)
def test_docstrings_count_where_the_package_reads_them(more: str, expected: str) -> None:
    before, now = 'def f():\n    """One."""\n', 'def f():\n    """Two."""\n'
    assert words(of(before, now, {"peft/b.py": more})).partition(":")[0] == expected


def test_a_class_docstring_counts_as_well() -> None:
    before, now = 'class A:\n    """One."""\n', 'class A:\n    """Two."""\n'
    assert words(of(before, now, {"peft/b.py": "print(A.__doc__)"})) == MODULE


BASELINE = textwrap.dedent("""
    X = 1

    @wrap
    def f():
        return [a for a in g()]

    def g():
        return 1
""").lstrip()  # fmt: skip


@pytest.mark.parametrize(
    ("functions", "imported", "now", "met"),
    [
        ({FILE: {(3, "f")}}, {FILE}, ("g()]", "h()]"), True),
        ({FILE: {(5, "<listcomp>")}}, {FILE}, ("g()]", "h()]"), True),
        ({FILE: {(7, "g")}}, {FILE}, ("g()]", "h()]"), False),
        ({FILE: {(0, "<source>")}}, {FILE}, ("g()]", "h()]"), True),  # read as text
        ({"peft/b.py": {(3, "f")}}, {FILE}, ("g()]", "h()]"), False),
        ({}, {FILE}, ("g()]", "h()]"), False),
        ({}, {FILE}, ("X = 1", "X = 2"), True),
        ({}, {"peft/b.py"}, ("X = 1", "X = 2"), False),
        ({FILE: {(7, "g")}}, set(), ("X = 1", "X = 2"), True),  # an import that raised leaves no module
        ({FILE: {(3, "f"), (7, "g")}}, {FILE}, ("X = 1", "X = 1  # one"), False),
        ({}, set(), ("X = 1", "X = ("), True),
    ],
)
def test_a_cell_is_met_by_what_it_ran_or_imported(
    functions: dict[str, set[tuple[int, str]]], imported: set[str], now: tuple[str, str], met: bool
) -> None:
    executed = Executed({file: frozenset(ran) for file, ran in functions.items()}, frozenset(imported))
    found = of(BASELINE, BASELINE.replace(*now))
    assert bool(found.met_by(executed)) is met


def test_the_words_name_what_differs() -> None:
    rows = {
        ("class A:\n    x = 1\n", "class A:\n    x = 2\n"): "A: x",
        ("class A:\n    def f(self): ...\n", "class A:\n    def f(self, y): ...\n"): "A: the signature of f",
        ("import a\n", "import b\n"): "an import",
        ("f()\n", "f()\ng()\n"): "a statement",
        ("class A: ...\n", "class A: ...\nclass B: ...\n"): "B",
        ("class A: ...\nclass B: ...\n", "class B: ...\n"): "A",
    }
    assert {sides: of(*sides).modules[FILE] for sides in rows} == rows
