"""Declarations and locks: their content, when a lock is stale, and uv's arguments."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from harness.core.errors import HarnessError, UsageError
from harness.envs import declaration
from harness.envs import lock as locks
from harness.envs.declaration import Declaration, Exempt
from harness.envs.environment import EnvFailed, last_lines
from harness.envs.installers import Outcome

PLAIN = """
why = "because"
python = "3.11"
released = 2023-11-09
[pins]
PEFT = "0.6.1"
torch = "2.13.0"
accelerate = "newest"
[exceptions]
sympy = { until = 2026-07-08, reason = "torch" }
Typing_Extensions = { reason = "torch" }
[extra]
"safetensors>=0.4" = "saved with it"
"""


def load(tmp_path: Path, text: str = PLAIN) -> Declaration:
    path = tmp_path / "v.toml"
    path.write_text(text, encoding="utf-8")
    return declaration.load(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("why =", "wy =", "unknown key `wy` (did you mean `why`?)"),
        ("why =", "wy =", "key `why` is missing"),
        ('python = "3.11"', "python = 3.11", "`python` = 3.11"),
        ('python = "3.11"', 'python = "2.7"', "`python` = '2.7'"),
        ("released = 2023-11-09", 'released = "soon"', "`released` = 'soon'"),
        ('PEFT = "0.6.1"', 'PEFT = ">=0.6"', "peft: '>=0.6' is neither one version nor 'newest'"),
        ('reason = "torch"', 'because = "torch"', "unknown key `exceptions.sympy.because`"),
        ('"safetensors>=0.4"', '"safetensors >"', "is not a requirement"),
        ('"safetensors>=0.4"', '"safetensors @ https://x.example/s.whl"', "without an address"),
        ("[pins]", "[without]\nvision = ' '\n[pins]", "'vision' must be the name of a package, with a reason"),
        ("[pins]", '[without]\n"vision>1" = "w"\n[pins]', "'vision>1' must be the name of a package"),
        ("[pins]", "[pins", "not TOML"),
    ],
)
def test_a_wrong_declaration_is_named_with_file_and_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, PLAIN.replace(old, new, 1))
    assert said.lower() in str(caught.value).lower()
    assert str(tmp_path / "v.toml") in str(caught.value)
    assert caught.value.expected


def test_the_requirements_to_resolve(tmp_path: Path) -> None:
    declared = load(tmp_path)
    assert declared.requirements() == ["accelerate", "peft==0.6.1", "torch==2.13.0", "safetensors>=0.4"]
    asked = locks.arguments(declared, "in", "out")
    dates = {asked[at + 1] for at, item in enumerate(asked) if item == "--exclude-newer-package"}
    assert asked[asked.index("--exclude-newer") + 1] == "2023-11-10T00:00:00Z"
    far = "9999-01-01T00:00:00Z"
    assert dates == {"sympy=2026-07-09T00:00:00Z", f"typing-extensions={far}", f"peft={far}", f"torch={far}"}


def test_only_what_decides_the_resolution_makes_a_lock_stale(tmp_path: Path) -> None:
    declared = load(tmp_path)
    same = [("because", "for another reason"), ('reason = "torch"', 'reason = "sympy"'), ("PEFT", "peft")]
    other = [("2023-11-09", "2023-11-10"), ("0.6.1", "0.6.2"), ("2026-07-08", "2026-07-09"), (">=0.4", ">=0.3")]
    assert {load(tmp_path, PLAIN.replace(*change)).digest() for change in same} == {declared.digest()}
    assert declared.digest() not in {load(tmp_path, PLAIN.replace(*change)).digest() for change in other}


def test_a_written_declaration_reads_back_equal(tmp_path: Path) -> None:
    declared = load(tmp_path, PLAIN.replace("because", 'a \\"quote\\" and ü') + '[without]\nvision = "images only"\n')
    assert load(tmp_path, declaration.render(declared)) == declared


def test_a_written_lock_reads_back_equal_and_knows_its_declaration(tmp_path: Path) -> None:
    declared, path = load(tmp_path), tmp_path / "locks" / "v.txt"
    packages = {"peft": "0.6.1", "torch": "2.13.0"}
    with pytest.raises(EnvFailed, match=r"not locked(.|\n)*peft-regress env lock v"):
        locks.read(path, "v", declared)
    locks.write(path, locks.render("v", declared, packages, "made by hand"))
    assert locks.read(path, "v", declared).packages == packages
    assert [item.name for item in path.parent.iterdir()] == ["v.txt"]
    with pytest.raises(EnvFailed, match=r"stale(.|\n)*peft-regress env lock v") as caught:
        locks.read(path, "v", load(tmp_path, PLAIN.replace("0.6.1", "0.6.2")))
    assert caught.value.stage == "lock"


@pytest.mark.parametrize("line", ["peft @ file:///home/me/peft.whl", "--index-url https://x", "peft>=1", "-e ."])
def test_a_lock_with_an_address_is_refused(line: str) -> None:
    text = f"# declaration: sha256:{'0' * 64}\ntorch==2.13.0\n"
    assert locks.parse(text, "v", Path("v.txt")).packages == {"torch": "2.13.0"}
    with pytest.raises(EnvFailed, match="is not a lock"):
        locks.parse(text + line, "v", Path("v.txt"))


def test_comments_do_not_count_in_the_digest() -> None:
    a, b = (locks.parse(f"# declaration: sha256:{c * 64}\na==1\n", "v", Path("v")) for c in "01")
    assert a.digest() == b.digest() == locks.digest_of({"a": "1"})


class Resolver:
    """A fake `uv pip compile` that records what its output file held before."""

    def __init__(self, answer: str, code: int = 0, said: str = "") -> None:
        self.answer, self.code, self.said = answer, code, said
        self.preferred = self.overrides = ""

    def __call__(self, args: Sequence[str], folder: Path) -> Outcome:
        path = folder / args[args.index("--output-file") + 1]
        self.preferred = path.read_text() if path.exists() else ""
        self.overrides = (folder / args[args.index("--override") + 1]).read_text() if "--override" in args else ""
        path.write_text(self.answer)
        return Outcome(self.code, "", self.said)


@pytest.mark.parametrize(("preferred", "seen"), [(None, ""), ({"peft": "0.6.0"}, "peft==0.6.0\n")])
def test_resolving_forgets_local_versions_and_old_locks(preferred: Mapping[str, str] | None, seen: str) -> None:
    resolver = Resolver("peft==0.6.1\nTorch==2.13.0+cpu\n")
    declared = Declaration(why="w", python="3.11", pins={"peft": "0.6.1"})
    assert locks.resolve("v", declared, resolver, preferred) == {"peft": "0.6.1", "torch": "2.13.0"}
    assert resolver.preferred == seen


def test_a_package_is_left_out_that_others_require(tmp_path: Path) -> None:
    declared = load(tmp_path, PLAIN.replace("[pins]", '[without]\nTorch_Vision = "images only"\n[pins]'))
    resolver = Resolver("peft==0.6.1\n")
    locks.resolve("v", declared, resolver)
    assert resolver.overrides == "torch-vision; python_version < '3'\n"
    assert declared.digest() != load(tmp_path).digest()


def test_a_failed_resolution_is_reported_with_uvs_last_lines() -> None:
    said = "warning: old\n" + "\n".join(f"line {n}" for n in range(40)) + "\nno https://me:secret@host/simple"
    declared = Declaration(why="w", python="3.11", pins={"peft": "0.6.1"}, released=datetime.date(2023, 11, 9))
    with pytest.raises(EnvFailed) as caught:
        locks.resolve("v", declared, Resolver("", 1, said))
    assert (caught.value.stage, caught.value.name) == ("resolve", "v")
    assert len(caught.value.tail.splitlines()) == 15
    assert "secret" not in str(caught.value)
    assert "as of 2023-11-09" in str(caught.value)


def test_last_lines_omit_warnings() -> None:
    assert last_lines("warning: a\nb  \n\nc") == "b\nc"


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(HarnessError, match=r"cannot write .*v\.txt: .*No space"):
        locks.write(tmp_path / "v.txt", "text")
    assert list(tmp_path.iterdir()) == []


def test_pins_over_a_template_keep_the_templates_pins() -> None:
    template = Declaration(
        why="w", python="3.11", pins={"peft": "newest", "torch": "2.13.0"}, exceptions={"sympy": Exempt(reason="torch")}
    )
    made = template.with_pins({"peft": "0.9.0"}, datetime.date(2024, 2, 28), "why")
    assert made.requirements() == ["peft==0.9.0", "torch==2.13.0"]
    assert made.exceptions == template.exceptions
    assert made.released == datetime.date(2024, 2, 28)
