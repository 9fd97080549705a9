"""The variables that a worker is started with."""

from __future__ import annotations

from harness.runner.workers.process import environment


def test_environment_keeps_what_is_not_its_business() -> None:
    variables = environment({"LANG": "C", "PYTHONHOME": "/x", "GLIBC_TUNABLES": "glibc.malloc.check=1"})
    assert variables["LANG"] == "C"
    assert "PYTHONHOME" not in variables
    assert variables["PYTHONNOUSERSITE"] == "1"
    assert variables["GLIBC_TUNABLES"].startswith("glibc.malloc.check=1:glibc.cpu.hwcaps=")
    assert environment({"PEFT_REGRESS_HASH_SEED": "3"})["PYTHONHASHSEED"] == "3"
