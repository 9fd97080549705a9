"""Source trees that build a wheel with nothing installed, so that a checkout builds where there is no index."""

from __future__ import annotations

from collections.abc import Mapping


def project(name: str, version: str, files: Mapping[str, str]) -> dict[str, str]:
    """The files of a project, but for its modules: `pyproject.toml` and the build backend that it names.

    Args:
        files: path in the tree → path in the wheel.
    """
    wheel = f"{name.lower()}-{version}"
    info = f"{wheel}.dist-info"
    written = "".join(f'        wheel.write("{source}", "{path}")\n' for source, path in files.items())
    metadata = rf"Metadata-Version: 2.1\nName: {name.lower()}\nVersion: {version}\n"
    backend = f'''
import zipfile
def build_wheel(folder, settings=None, metadata=None):
    open("left-behind-by-the-build", "w").close()
    name = "{wheel}-py3-none-any.whl"
    with zipfile.ZipFile(f"{{folder}}/{{name}}", "w") as wheel:
{written}        wheel.writestr("{info}/METADATA", "{metadata}")
        wheel.writestr("{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("{info}/RECORD", "")
    return name
'''
    told = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    return {"pyproject.toml": f'{told}[project]\nname = "{name}"\nversion = "{version}"\n', "backend.py": backend}
