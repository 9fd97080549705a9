"""A session on a GPU machine, with a fake interpreter and a fake peft-regress: order, clock, faults and results."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.mini.world import REPOSITORY
from tools.gpu import machine, results, wheels
from tools.gpu import session as sessions
from tools.gpu.session import CANNOT_TELL, OK, RED, Asked, session
from tools.gpu.steps import STEPS

FAKE = REPOSITORY / "tests" / "support" / "fakes" / "gpu_machine.py"
ALL = [step.name for step in STEPS]


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The fake interpreter, as one file that can be executed."""
    file = tmp_path / "python"
    file.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" "$@"\n')
    file.chmod(0o755)
    return file


def run(python: Path, out: Path, *, minutes: float = 0.5, only: Sequence[str] = ()) -> tuple[int, str]:
    """The exit code and the log of a session."""
    asked = Asked(out, minutes, f"python:{python}", out / "no-wheels", only=tuple(only))
    code = session(asked, [str(python)])
    return code, (out / results.LOG).read_text()


def fake(monkeypatch: pytest.MonkeyPatch, **said: Any) -> None:
    monkeypatch.setenv("FAKE_GPU", json.dumps(said))


def archives(out: Path) -> dict[str, list[str]]:
    """Archive → the files in it; fails if one cannot be read to its end."""
    found = {}
    for path in sorted(out.glob("*.tar.gz")):
        with tarfile.open(path) as archive:
            found[path.name] = [member.name for member in archive.getmembers()]
    return found


# -- all well ----------------------------------------------------------------------------------------------------------


def test_a_session_leaves_at_most_eight_files_the_most_valuable_first(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, packages={"torch": "2.11.0", "bitsandbytes": "0.50.2", "flash_attn": "2.8"})
    code, log = run(python, tmp_path / "out")
    assert code == OK, log
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(files) <= 8
    assert files[:3] == ["1-session.log", "2-cuda-float32.tar.gz", "3-goldens.tar.gz"]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in files)
    assert archives(tmp_path / "out")["2-cuda-float32.tar.gz"] == [
        "cuda-float32/output.txt", "cuda-float32/run/report.html", "cuda-float32/run/report.json",
    ]  # fmt: skip
    assert f"end: clean: {', '.join(ALL)}" in log


def test_each_figure_says_what_it_is_of(python: Path, tmp_path: Path) -> None:
    _, log = run(python, tmp_path / "out", only=["cuda-float32", "cuda-again"])
    assert "cuda-float32: one stored adapter of each family on the GPU, in float32; at most 9 s" in log
    assert "NO NEW BREAKS in cuda-float32. Greatest error ÷ allowance of a close adapter: 0.25 (lora-linear)." in log
    assert "Peak GPU memory of one adapter's tensors: 3.5 MB (lora-linear)." in log
    assert "versions: torch 2.11.0, bitsandbytes 0.50.2" in log


def test_the_sample_has_each_family_once_with_peft_061_or_the_oldest_creator(python: Path, tmp_path: Path) -> None:
    run(python, tmp_path / "out", only=["cuda-float32"])
    with tarfile.open(tmp_path / "out" / "2-cuda-float32.tar.gz") as archive:
        output = archive.extractfile("cuda-float32/output.txt")
        assert output is not None
        assert "--cell lora-linear@v061:* --cell vera-linear@v0111:*" in output.read().decode()


def test_two_equal_runs_are_compared_figure_by_figure(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = {"id": "lora-linear@v061:here[cuda]"}
    other = {**same, "probes": {"forward": {"figures": [{"max_abs": 2e-7}]}}}
    only = ["cuda-float32", "cuda-again"]
    fake(monkeypatch, cells={"cuda-float32": same, "cuda-again": same})
    assert "1 of 1 adapters have equal figures, 0 have another verdict" in run(python, tmp_path / "a", only=only)[1]
    fake(monkeypatch, cells={"cuda-float32": same, "cuda-again": other})
    assert "0 of 1 adapters have equal figures, 0 have another verdict" in run(python, tmp_path / "b", only=only)[1]


# -- faults of the machine ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpu", "words"),
    [
        ({"usable": False, "why": "no GPU is visible"}, "no usable GPU: no GPU is visible"),
        ({"usable": False, "why": "all CUDA-capable devices are busy or unavailable"}, "busy or unavailable"),
        (
            {"usable": False, "why": "The NVIDIA driver on your system is too old (found 11040)"},
            "driver on your system",
        ),
        ({"free_mb": 300}, "300 MB free of 10,000 MB; expected 800 MB"),
        ("raises", "the libraries do not import: ImportError: no torch"),
        ("dies", "the worker ended without an answer"),
    ],
)
def test_a_gpu_that_cannot_be_used_could_not_tell(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: Any, words: str
) -> None:
    fake(monkeypatch, gpu=gpu)
    code, log = run(python, tmp_path / "out")
    assert code == CANNOT_TELL
    assert "could not tell: " in log
    assert words in log
    assert not archives(tmp_path / "out")


def test_a_gpu_that_does_not_answer_costs_a_part_of_the_time(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, gpu="hangs")
    monkeypatch.setattr(sessions, "LEAST_START_S", 1.0)
    started = time.monotonic()
    code, log = run(python, tmp_path / "out", minutes=0.1)
    assert (code, time.monotonic() - started < 6) == (CANNOT_TELL, True)
    assert "did not answer, within 1 s" in log


def test_without_bitsandbytes_its_step_is_skipped_and_named(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, packages={"torch": "2.11.0"})
    code, log = run(python, tmp_path / "out")
    assert code == CANNOT_TELL
    assert "bitsandbytes: skipped, bitsandbytes is not installed" in log
    assert "skipped or cut off: bitsandbytes, flash" in log


def test_a_disk_without_room_is_refused(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LEAST_SPACE", 2**60)
    code, log = run(python, tmp_path / "out")
    assert code == CANNOT_TELL
    assert "MB free; expected 1,099,511,627,776 MB" in log


def test_a_disk_that_fills_up_keeps_the_results_in_the_work_folder(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    _, log = run(python, tmp_path / "out", only=["cuda-float32"])
    said = re.search(r"cannot be written: No space left on device; its results stay in (\S+)", log)
    assert said is not None
    assert list(Path(said[1]).rglob("report.json"))
    shutil.rmtree(said[1])


# -- faults of a step --------------------------------------------------------------------------------------------------


def test_what_regressed_is_the_answer_of_the_session(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, codes={"cuda-float32": 1})
    code, log = run(python, tmp_path / "out", only=["cuda-float32", "bfloat16"])
    assert code == RED
    assert "end: regressed: cuda-float32; clean: bfloat16" in log


def test_a_step_that_hangs_is_cut_off_and_the_others_go_on(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, seconds={"cuda-float32": 500})
    code, log = run(python, tmp_path / "out", minutes=0.1, only=["cuda-float32", "bfloat16", "cuda-again"])
    assert code == CANNOT_TELL
    assert "cuda-float32: cut off at its limit of 2 s" in log
    assert "cuda-again: skipped, cuda-float32 has no result" in log
    assert "end: skipped or cut off: cuda-float32, cuda-again; clean: bfloat16" in log


def test_an_archive_that_is_too_large_has_the_reports_only(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, bytes=200_000)
    monkeypatch.setattr(results, "LARGEST", 100_000)
    _, log = run(python, tmp_path / "out", only=["cuda-float32"])
    assert "cuda-float32 would have 0.2 MiB, so it has the reports only" in log
    names = archives(tmp_path / "out")["2-cuda-float32.tar.gz"]
    assert names == ["cuda-float32/output.txt", "cuda-float32/run/report.json"]


@pytest.mark.parametrize("minute", range(1, 10))
def test_a_machine_that_is_taken_away_loses_only_the_step_that_ran(python: Path, tmp_path: Path, minute: int) -> None:
    """Ten minutes in six seconds, cut after each minute."""
    out = tmp_path / "out"
    said = {"seconds": dict.fromkeys([*ALL, "create"], 0.5)}
    code = (
        "import sys; from pathlib import Path; from tools.gpu.session import Asked, session\n"
        "out, python = map(Path, sys.argv[1:])\n"
        "session(Asked(out, 0.1, f'python:{python}', out / 'no-wheels'), [str(python)])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(out), str(python)], cwd=REPOSITORY, start_new_session=True,
        env={**os.environ, "FAKE_GPU": json.dumps(said)}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    time.sleep(0.6 * minute)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    log = (out / results.LOG).read_text() if out.exists() else ""
    ended = re.findall(r"(\S+): exit code 0 after", log)
    packed = {name.split("/")[0] for names in archives(out).values() for name in names}
    assert len(set(ended) - packed) <= 2, "at most the two steps that had just ended: one on the GPU, one on the CPU"
    assert not [path for path in out.glob("*.gz") if path.stat().st_size == 0]


# -- wheels ------------------------------------------------------------------------------------------------------------


def wheel_of(folder: Path, *libraries: str) -> Path:
    info = "bitsandbytes-0.50.2.dist-info"
    content = {f"bitsandbytes/{name}": "x" * 1000 for name in libraries}
    content[f"{info}/METADATA"] = "Metadata-Version: 2.1\nName: bitsandbytes\nVersion: 0.50.2\n"
    content[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    digests = {name: hashlib.sha256(text.encode()).digest() for name, text in content.items()}
    record = [f"{name},sha256={base64.urlsafe_b64encode(one).rstrip(b'=').decode()}," for name, one in digests.items()]
    file = folder / "bitsandbytes-0.50.2-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in content.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,"]) + "\n")
    return file


def test_bitsandbytes_is_carried_with_one_cuda_version(tmp_path: Path) -> None:
    file = wheel_of(tmp_path, *(f"libbitsandbytes_{kind}.so" for kind in ("cpu", "cuda118", "cuda130")), "__init__.py")
    wheels.slim(file, "130")
    with zipfile.ZipFile(file) as archive:
        names = {Path(name).name for name in archive.namelist()}
    assert {"libbitsandbytes_cpu.so", "libbitsandbytes_cuda130.so", "__init__.py"} <= names
    assert "libbitsandbytes_cuda118.so" not in names


def test_a_cuda_version_that_bitsandbytes_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no library for CUDA 140; it has .*cuda130"):
        wheels.slim(wheel_of(tmp_path, "libbitsandbytes_cuda130.so"), "140")


def test_the_command_explains_itself() -> None:
    command = [str(REPOSITORY / "tools" / "gpu_session.sh"), "--help"]
    said = subprocess.run(
        command, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, check=True
    )
    assert "exit codes: 0 all steps are clean" in said.stdout
    wrong = subprocess.run(
        [*command[:1], "--minutes", "nan"],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        check=False,
    )
    assert wrong.returncode == 64
