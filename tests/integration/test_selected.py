"""`check --against` selects by what the real PEFT's code executes: each kind of change, on a copy of PEFT."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import selection
from harness.envs.environments import CURRENT, Environments
from harness.runner import CheckRequest
from harness.runner.change import files as changed_files
from tests.integration.conftest import Said

pytestmark = [pytest.mark.integration, pytest.mark.slow]
LAYER, SAVING = "tuners/lokr/layer.py", "utils/save_and_load.py"
CELLS = ("-k", "lokr-alpha-equals-r or loha-linear or ia3-no-feed", "--baseline", CURRENT, "--creator", "v061")
LOKR, IA3, LOHA = "lokr-alpha-equals-r", "ia3-no-feedforward", "loha-linear"
CLASS = "class LoKrLayer(nn.Module, LycorisLayer):\n"
STATE = "    if state_dict is None:\n        state_dict = model.state_dict()\n"
SCALING = "        self.scaling[adapter_name] = alpha / r\n"


@pytest.fixture
def tree(environments: Environments, tmp_path: Path) -> Path:
    """PEFT as `current` has it, unpacked."""
    package = changed_files.installed(environments.build(CURRENT), "peft")
    assert package is not None
    for folder in ("peft", *(path.name for path in package.site.glob("peft-*.dist-info"))):
        shutil.copytree(package.site / folder, tmp_path / "tree" / folder, ignore=shutil.ignore_patterns("*.pyc"))
    return tmp_path / "tree"


def edit(tree: Path, file: str, old: str, new: str) -> None:
    path = tree / "peft" / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.unlink()  # it may be a link to the environment's
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def selected(said: Said) -> set[str]:
    """The scenarios that a dry run names."""
    return {line.partition("@")[0] for line in said.out.splitlines() if line.endswith("[cpu]")}


def test_each_kind_of_change(tree: Path, peft_regress: Callable[..., Said]) -> None:
    def check(*more: str) -> Said:
        return peft_regress("check", "--against", str(tree), *CELLS, *more)

    edit(tree, LAYER, SCALING, SCALING.replace("alpha / r", "(alpha / r)") + "        _ = 1\n")
    first = check("--every-scenario", "-q")  # the baseline is computed, and what it executes recorded
    assert first.code in (0, 2), first
    assert {cell["scenario"] for cell in first.report["cells"]} == {LOKR, IA3, LOHA}

    one = check("-q")
    assert one.code == 0, one
    assert {cell["scenario"] for cell in one.report["cells"]} == {LOKR}
    code = one.report["against"]["code"]
    assert code["functions"] == [f"LoKrLayer.update_layer (peft/{LAYER})"]
    assert (code["executing"], code["untouched"]) == (1, 2)
    assert "execute" in one.report["left_out"][IA3]

    def says(*expected: str, file: str = LAYER, old: str = SCALING, new: str) -> Said:
        edit(tree, file, old, new)
        said = check("--dry-run")
        assert selected(said) == {*expected}, said
        edit(tree, file, new, old)
        return said

    edit(tree, LAYER, SCALING.replace("alpha / r", "(alpha / r)") + "        _ = 1\n", SCALING)
    assert "nothing that runs has changed" in says(new=f"        # one\n{SCALING}").out
    says(LOKR, IA3, LOHA, file=SAVING, old=STATE, new=f"{STATE}        _ = 1\n")
    says(LOKR, IA3, LOHA, old=CLASS, new=f"{CLASS}    extra = 1\n")
    says(LOKR, IA3, LOHA, old="    def reset_adapter_parameters_random(", new="    def reset_at_random(")
    edit(tree, LAYER, CLASS, f"def _scaled_for_the_test(alpha, r):\n    return alpha / r\n\n\n{CLASS}")
    unused = check("--dry-run")
    assert len(selected(unused)) == 1, "a helper that nobody uses: only the import can fail"
    assert "shows that it can be imported" in " ".join(unused.out.split())
    says(LOKR, new=SCALING.replace("alpha / r", "_scaled_for_the_test(alpha, r)"))
    (tree / "peft" / "tuners" / "lokr" / "new.py").write_text("X = 1\n")
    assert selected(check("--dry-run")) == {LOKR}, "as the changed files say"


@pytest.mark.nightly
def test_generated_changes_are_never_missed_and_a_wrong_selection_is_noticed(environments: Environments) -> None:
    request = CheckRequest(creators=("v061",), observations=True, audit=0)
    cells = selection.cells_of(request, environments, 6)
    found = selection.measure(20, 7, environments, request, cells)
    assert found.edited > 0
    assert not found.missed, found

    found = selection.measure(100, 1, environments, request, cells[:1], lambda *_: False)
    assert found.missed, "nothing was selected, and an edit of what the cell executes was not noticed"
