"""Makes docs/checking-a-pr.md: runs the worked example for real and puts what came out into the page.

    python docs/checking_a_pr.py [WORK_FOLDER]

It needs an index with PEFT's wheel, and the environment `current` (built where it is not). The integration test
`tests/integration/test_against.py` runs the same steps.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
WHEEL = "peft==0.21.2"
FILE = "peft/tuners/lokr/layer.py"
SOUND = "self.scaling[adapter_name] = alpha / r\n"
BROKEN = "self.scaling[adapter_name] = alpha / max(r, 1) ** 0.5\n"
FIXED = "self.scaling[adapter_name] = alpha / max(r, 1)\n"


class Step(NamedTuple):
    """One command of the example: its exit code, its output, its seconds, and those of all its processes on a core."""

    code: int
    said: str
    seconds: float
    cpu_s: float


def unpack(folder: Path) -> Path:
    """A release's wheel, from the index that pip is told of, unpacked in `folder/my-peft`."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", WHEEL]
    subprocess.run([*command, "-d", str(folder)], check=True)
    tree = folder / "my-peft"
    with zipfile.ZipFile(next(folder.glob("peft-*.whl"))) as archive:
        archive.extractall(tree)
    return tree


def edit(tree: Path, old: str, new: str) -> None:
    """Change one line, as a pull request might."""
    text = (tree / FILE).read_text()
    assert text.count(old) == 1
    (tree / FILE).write_text(text.replace(old, new))


def run(folder: Path, *arguments: str) -> Step:
    """Run a command of peft-regress in a folder."""
    command = [sys.executable, "-m", "harness", *arguments]
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(HERE.parent)},
                          capture_output=True, text=True, check=False)  # fmt: skip
    said = done.stdout
    for place in (f"{folder}/", f"{folder}/".replace("_", r"\_")):  # as it is, and as Markdown needs it
        said = said.replace(place, "")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Step(done.returncode, re.sub(r"\n{3,}", "\n\n", said).strip(), time.monotonic() - started, cpu_s)


def check(folder: Path, *more: str) -> Step:
    """Run the check."""
    return run(folder, "check", "--against", "./my-peft", "--reports", "reports", *more)


def newest(folder: Path) -> Path:
    """The folder of the newest run."""
    return max((folder / "reports").iterdir(), key=lambda path: path.stat().st_mtime)


def page(**steps: Step) -> str:
    """The page: the output of each step, and its seconds."""
    text = (HERE / "checking-a-pr.template.md").read_text(encoding="utf-8")
    for name, step in steps.items():
        seconds = f"{step.seconds:.0f} s ({step.cpu_s:.0f} s of CPU)"
        text = text.replace(f"@@{name}@@", step.said).replace(f"@@{name}_SECONDS@@", seconds)
    return text


def main() -> None:
    """Run the example and write the page and the comment."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    tree = unpack(folder)
    edit(tree, SOUND, BROKEN)
    red = check(folder, "-q")
    assert red.code == 1, red
    comment = run(folder, "report", str(newest(folder)), "--format", "markdown")
    edit(tree, BROKEN, FIXED)
    last_red = check(folder, "-q", "--last-red")
    assert last_red.code == 0, last_red
    green = check(folder, "-q")
    assert green.code == 0, green
    written = page(RED=red, LAST_RED=last_red, GREEN=green)
    (HERE / "checking-a-pr.md").write_text(written, encoding="utf-8")
    example = (
        f"# A comment on a pull request\n\nThe comment of [the worked example](checking-a-pr.md).\n\n{comment.said}\n"
    )
    (HERE / "checking-a-pr-comment.md").write_text(example, encoding="utf-8")


if __name__ == "__main__":
    main()
