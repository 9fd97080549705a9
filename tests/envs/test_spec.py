"""The forms of a spec, and the errors of malformed ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.core.errors import UsageError
from harness.envs import spec
from harness.envs.spec import Checkout, Git, Interpreter, Named, Pins

NAMES = ["current", "v061", "v090"]
PEFT = "https://github.com/huggingface/peft"

READ: list[tuple[str, spec.Spec]] = [
    ("v061", Named("v061")),
    (" current ", Named("current")),
    ("peft==0.9.0", Pins((("peft", "0.9.0"),))),
    ("Transformers==4.38.2, peft == 0.9.0", Pins((("peft", "0.9.0"), ("transformers", "4.38.2")))),
    ("zoo==1,peft==0.9.0,torch==2.1.2+cpu", Pins((("peft", "0.9.0"), ("torch", "2.1.2+cpu"), ("zoo", "1")))),
    (f"git+{PEFT}", Git(PEFT, "", "")),
    (f"git+{PEFT}@main", Git(PEFT, "main", "")),
    (f"git+{PEFT}.git@v0.9.0#subdirectory=sub/dir", Git(f"{PEFT}.git", "v0.9.0", "sub/dir")),
    (f"git+{PEFT}@me/my-branch", Git(PEFT, "me/my-branch", "")),
    ("git+ssh://git@host/peft@main", Git("ssh://git@host/peft", "main", "")),
    ("git+file:///tmp/peft@abc123", Git("file:///tmp/peft", "abc123", "")),
]

REFUSED: list[tuple[str, str]] = [
    ("", "declared here: current, v061, v090"),
    ("v06", "did you mean v061"),
    ("nonsense", "declared here: current, v061, v090"),
    ("peft>=0.9", "does not pin a version"),
    ("peft==0.9.*", "does not pin a version"),
    ("peft==0.9.0,", "does not pin a version"),
    ("peft==0.9.0,PEFT==0.10.0", "twice"),
    ("peft==latest", "is not a version"),
    ("./nowhere", "is not a folder"),
    ("python:/no/such/python", "is not a program"),
    ("python:/etc", "is not a program"),
    ("git+ext::sh -c x", "is not a git address"),
    ("git+https://", "is not a git address"),
    (f"git+{PEFT}@--upload-pack=x", "is not a git address"),
    (f"git+{PEFT}@main#subdirectory=../..", "is not a git address"),
]


@pytest.mark.parametrize(("text", "expected"), READ)
def test_forms(text: str, expected: spec.Spec) -> None:
    assert spec.parse(text, NAMES) == expected


@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_a_refused_spec_says_why_and_what_to_do(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        spec.parse(text, NAMES)
    assert said in str(caught.value)
    assert caught.value.expected
    assert caught.value.next_step


def test_a_checkout_is_a_path_with_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v061").mkdir()
    with pytest.raises(UsageError, match="holds no Python project"):
        spec.parse("./v061", NAMES)
    (tmp_path / "v061" / "setup.py").touch()
    assert spec.parse("./v061", NAMES) == Checkout((tmp_path / "v061").resolve())
    assert spec.parse("v061", NAMES) == Named("v061")
    assert spec.parse(str(tmp_path / "v061"), NAMES) == Checkout((tmp_path / "v061").resolve())
    with pytest.raises(UsageError, match=r"pass \./v061"):
        spec.parse("v061", [])


def test_a_lock_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "after.txt").write_text("peft==0.13.2\n")
    monkeypatch.chdir(tmp_path)
    for text in ("after.txt", "./after.txt", str(tmp_path / "after.txt")):
        assert spec.parse(text, []) == spec.UserLock((tmp_path / "after.txt").resolve())
    with pytest.raises(UsageError, match="is not a file"):
        spec.parse("./before.txt", [])


def test_an_interpreter_is_not_resolved_to_what_it_links_to(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(os.path.realpath("/bin/sh"))
    assert spec.parse(f"python:{python}", NAMES) == Interpreter(python)
    assert spec.parse(f"python:{tmp_path}", NAMES) == Interpreter(python)


def test_names_of_pins_are_file_names() -> None:
    assert spec.parse_pins("transformers==4.38.2,peft==0.9.0").name == "peft-0.9.0+transformers-4.38.2"
    assert spec.parse_pins("torch==1!2.1.2+cpu").name == "torch-1-2.1.2-cpu"
