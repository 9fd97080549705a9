"""Makes docs/checking-a-pr.md: runs the worked example for real and puts what came out into the page.

    python docs/checking_a_pr.py [WORK_FOLDER]

It needs an index with PEFT's wheel, and the environment `current` (built where it is not). The integration test
`tests/integration/test_against.py` runs the same steps.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
WHEEL = "peft==0.21.2"
FILE = "peft/tuners/lokr/layer.py"
SOUND = "self.scaling[adapter_name] = alpha / r\n"
BROKEN = "self.scaling[adapter_name] = alpha / r**0.5\n"


def unpack(folder: Path) -> Path:
    """A release's wheel, from the index that pip is told of, unpacked in `folder/my-peft`."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", WHEEL]
    subprocess.run([*command, "-d", str(folder)], check=True)
    tree = folder / "my-peft"
    with zipfile.ZipFile(next(folder.glob("peft-*.whl"))) as archive:
        archive.extractall(tree)
    return tree


def break_(tree: Path) -> None:
    """Break one line, as a pull request might."""
    text = (tree / FILE).read_text()
    assert text.count(SOUND) == 1
    (tree / FILE).write_text(text.replace(SOUND, BROKEN))


def check(folder: Path, *more: str) -> tuple[int, str]:
    """Exit code and output of the check."""
    command = [sys.executable, "-m", "harness", "check", "--against", "./my-peft", "--reports", "reports", *more]
    done = subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(HERE.parent)},
                          capture_output=True, text=True, check=False)  # fmt: skip
    said = done.stdout
    for place in (f"{folder}/", f"{folder}/".replace("_", r"\_")):  # as it is, and as Markdown needs it
        said = said.replace(place, "")
    return done.returncode, said


def page(clean: str, comment: str) -> str:
    """The page."""
    comment = re.sub(r"\n{3,}", "\n\n", comment).strip()
    text = (HERE / "checking-a-pr.template.md").read_text(encoding="utf-8")
    return text.replace("@@CLEAN@@", clean.strip()).replace("@@COMMENT@@", comment)


def main() -> None:
    """Run the example and write the page."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    tree = unpack(folder)
    code, clean = check(folder, "-q")
    assert code == 0, clean
    break_(tree)
    code, comment = check(folder, "--format", "markdown")
    assert code == 1, comment
    (HERE / "checking-a-pr.md").write_text(page(clean, comment), encoding="utf-8")


if __name__ == "__main__":
    main()
