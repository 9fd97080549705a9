"""An environment with one package of its own: all others are links to those of another environment."""

from __future__ import annotations

import json
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest

from harness.envs import layer
from tests.envs.test_envs_build import environments, make_wheel, room, run

__all__ = ["room"]
INNER = Path("lib", "python3.11", "site-packages")


def install(environment: Path, name: str, files: dict[str, str], version: str = "1.0") -> Path:
    """A package as an installer leaves it; returns its folder of packages."""
    site = environment / INNER
    info = f"{name}-{version}.dist-info"
    files = {**files, f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"}
    for path, text in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
    (site / info / "RECORD").write_text("".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"]))
    return site


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """`peft` 1.0 with a module that will go, `torch`, a module of its own, and a folder that two packages share."""
    folder = tmp_path / "base"
    install(folder, "peft", {"peft/__init__.py": "A = 1\n", "peft/gone.py": "", "peft/same.py": "S = 1\n",
                             "shared/of_peft.py": "", "peft_only/x.py": "", "single.py": "old = True\n"})  # fmt: skip
    install(folder, "torch", {"torch/__init__.py": "T = 1\n", "torch/lib/x.so": "", "shared/of_torch.py": "",
                              "six.py": "", "torch.pth": "# nothing\n"})  # fmt: skip
    for path in (folder / INNER).rglob("*.py"):
        py_compile.compile(str(path))
    return folder


def laid(tmp_path: Path, base: Path, files: dict[str, str]) -> Path:
    site = install(tmp_path / "mine", "peft", files, "2.0")
    layer.lay_under(base, tmp_path / "mine", "peft")
    return site


def test_all_but_the_package_is_linked(tmp_path: Path, base: Path) -> None:
    before = {path: path.lstat().st_mtime_ns for path in base.rglob("*")}
    site = laid(
        tmp_path, base, {"peft/__init__.py": "A = 2\n", "peft/same.py": "S = 1\n", "shared/of_peft.py": "new = 1"}
    )
    names = {path.relative_to(site).as_posix() for path in site.rglob("*") if not path.is_dir()}
    assert {name for name in names if "__pycache__" not in name and "dist-info" not in name} == {
        "peft/__init__.py", "peft/same.py", "shared/of_peft.py", "shared/of_torch.py", "six.py", "torch.pth",
    }  # fmt: skip
    assert (site / "torch").is_symlink()
    assert not (site / "peft").is_symlink()
    assert not (site / "shared").is_symlink()
    assert (site / "shared" / "of_peft.py").read_text() == "new = 1"
    assert {path.name for path in site.glob("*.dist-info")} == {"peft-2.0.dist-info", "torch-1.0.dist-info"}
    assert not (site / "torch-1.0.dist-info").is_symlink(), "uv takes no link for a package"
    assert {path: path.lstat().st_mtime_ns for path in base.rglob("*")} == before


def test_a_new_folder_of_the_package_does_not_write_into_that_of_another(tmp_path: Path, base: Path) -> None:
    site = laid(tmp_path, base, {"torch/extra.py": "x = 1\n", "six.py": "mine = True\n"})
    assert {path.name for path in (site / "torch").iterdir()} == {"extra.py", "__init__.py", "lib"}
    assert (site / "six.py").read_text() == "mine = True\n"
    assert not (base / INNER / "torch" / "extra.py").exists()


def test_byte_code_is_taken_from_files_that_are_equal_and_from_no_others(tmp_path: Path, base: Path) -> None:
    site = laid(tmp_path, base, {"peft/__init__.py": "A = 2\n", "peft/same.py": "S = 1\n", "single.py": "new = True\n"})
    assert [path.name.partition(".")[0] for path in site.rglob("*.pyc") if path.is_relative_to(site / "peft")] == [
        "same"
    ]
    assert not (site / "__pycache__").exists(), "a module beside the packages never shares its byte code"
    code = "import peft, peft.same, single, torch; print(peft.A, peft.same.S, torch.T, hasattr(single, 'new'))"
    done = subprocess.run([sys.executable, "-v", "-c", code], cwd=site, capture_output=True, text=True, check=True)
    assert done.stdout == "2 1 1 True\n"
    matched = {line.split()[-1] for line in done.stderr.splitlines() if "matches" in line and str(site) in line}
    assert matched == {str(site / "peft" / "same.py"), str(site / "torch" / "__init__.py")}
    (site / "peft" / "same.py").write_text("S = 333\n")
    code = "import peft.same; print(peft.same.S)"
    said = [subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True).stdout
            for folder in (site, base / INNER)]  # fmt: skip
    assert said == ["333\n", "1\n"], "an edit in one stays there"


PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "peft"
version = "0.99"
"""
BACKEND = """
import base64, hashlib, pathlib, zipfile

def get_requires_for_build_wheel(config_settings=None):
    return []

def build_wheel(folder, config_settings=None, metadata_directory=None):
    info = "peft-0.99.dist-info"
    files = {str(p.relative_to("src")): p.read_text() for p in pathlib.Path("src").rglob("*") if p.is_file()}
    files[f"{info}/METADATA"] = "Metadata-Version: 2.1\\nName: peft\\nVersion: 0.99\\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    files[f"{info}/entry_points.txt"] = "[console_scripts]\\npeft-says = peft:says\\n[plugins]\\nmine = peft:says\\n"
    lines = [f"{n},sha256={base64.urlsafe_b64encode(hashlib.sha256(t.encode()).digest()).rstrip(b'=').decode()},"
             for n, t in files.items()]
    files[f"{info}/RECORD"] = "\\n".join([*lines, f"{info}/RECORD,,", ""])
    with zipfile.ZipFile(pathlib.Path(folder) / "peft-0.99-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return "peft-0.99-py3-none-any.whl"
"""
ASKED = """
import importlib.metadata as metadata, importlib.resources, json, peft, helper
print(json.dumps({
    "version": metadata.version("peft"),
    "names": sorted(found.metadata["Name"] for found in metadata.distributions()),
    "plugins": [point.load()() for point in metadata.entry_points(group="plugins")],
    "data": importlib.resources.files("peft").joinpath("data.json").read_text(),
    "helper": helper.marker,
}))
"""


def test_it_behaves_as_an_installed_package(room: Path) -> None:
    """Version, entry points, scripts, package data, src layout, `uv pip list`; a second edit is another environment."""
    make_wheel(room / "wheels of mine", "helper", "1.6", "marker = 'linked'\n")
    environments(room).lock("current")
    tree = room / "clone"
    (tree / "src" / "peft").mkdir(parents=True)
    (tree / "pyproject.toml").write_text(PROJECT)
    (tree / "backend.py").write_text(BACKEND)
    (tree / "src" / "peft" / "__init__.py").write_text("def says():\n    return 'first'\n")
    (tree / "src" / "peft" / "data.json").write_text("{}")
    log: list[str] = []
    declared = environments(room, log)
    # `peft` is one module in `current`, and a folder here
    built = declared.build(str(tree))
    assert not [line for line in log if "importing" in line and "checkout" in line]
    names = ["helper", "peft", "torch"]
    said = json.loads(run(built.python, ASKED))
    assert said == {"version": "0.99", "names": names, "plugins": ["first"], "data": "{}", "helper": "linked"}
    script = built.python.parent / "peft-says"
    assert subprocess.run([script], capture_output=True, text=True).stderr == "first\n"
    listed = declared._uv(["pip", "list", "--python", str(built.python)], room)
    assert [line.split()[0] for line in listed.stdout.splitlines()[2:]] == names
    (tree / "src" / "peft" / "__init__.py").write_text("def says():\n    return 'second'\n")
    again = environments(room).build(str(tree))
    assert json.loads(run(again.python, ASKED))["plugins"] == ["second"]
    assert json.loads(run(built.python, ASKED))["plugins"] == ["first"]
    assert run(declared.build("current").python, "import peft; print(peft.marker)") == "installed"


def test_without_its_base_it_is_built_again(room: Path) -> None:
    tree = room / "clone"
    tree.mkdir()
    make_wheel(room, "peft", "0.7", "marker = 1\n")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(next(room.glob("peft*.whl"))), str(tree)], check=True)
    declared = environments(room)
    built = declared.build(str(tree))
    declared.remove("current")
    assert not declared.is_built(declared.describe(str(tree)))
    again = environments(room).build(str(tree))
    assert again.python == built.python
    assert run(again.python, "import peft, helper; print(peft.marker)") == "1"
