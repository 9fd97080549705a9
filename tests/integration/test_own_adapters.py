"""Adapters that users made, in folders that users have: `doctor`, `try` and `adopt` say of each what is true of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.envs.environments import Environments
from tests.integration.conftest import Said
from tests.support.mini.world import REPOSITORY
from tests.support.own import folders
from tests.support.own.made import ADAPTERS, Maker, Own

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("real")]
CLEAN = {"exact", "close", "warned"}
QUICK = "dora"
EACH = [pytest.param(own, id=own.name, marks=() if own.name == QUICK else pytest.mark.nightly) for own in ADAPTERS]


def examined(adapter: Path, *more: str) -> tuple[int, dict[str, Any]]:
    """What `doctor` says."""
    command = [sys.executable, "-m", "harness", "doctor", str(adapter), "--json", *more]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("own", EACH)
def test_doctor_dates_it_and_warns_of_what_try_finds(
    own: Own, own_adapters: Maker, environments: Environments, tmp_path: Path
) -> None:
    adapter = folders.hub_cache(own_adapters.adapter(own.name), tmp_path, "acme/adapter")
    loader = "current-bnb" if own.name == "four_bits_stored" else "current"  # as `try` chooses it
    code, said = examined(adapter, "--base", str(own_adapters.base(own.name)), "--to", loader)
    release = environments.locked_versions(own.environment)["peft"]

    assert release in said["written_by"]["peft"]
    known = {one["id"] for one in said["breaks"]}
    assert (own.break_ in known) if own.break_ else (code == 0), said


@pytest.mark.nightly
def test_the_keys_alone_date_an_adapter(own_adapters: Maker, environments: Environments, tmp_path: Path) -> None:
    """Without a model card, and from PEFT before 0.18, which writes no version."""
    for own in ADAPTERS:
        release = environments.locked_versions(own.environment)["peft"]
        adapter = folders.awkward(own_adapters.adapter(own.name), tmp_path / own.name)
        (adapter / "README.md").unlink(missing_ok=True)
        assert release in examined(adapter)[1]["written_by"]["peft"], own


@pytest.mark.parametrize("own", EACH)
def test_try_finds_a_sound_adapter_clean_and_names_a_known_break(own: Own, own_adapters: Maker, tmp_path: Path) -> None:
    adapter = folders.read_only(own_adapters.adapter(own.name), tmp_path)
    before = folders.listing(adapter)
    said = Said.of(tmp_path, "try", str(adapter), "--base", str(own_adapters.base(own.name)))
    (cell,) = said.report["cells"]

    assert folders.listing(adapter) == before
    if own.break_:
        assert (cell["verdict"] not in CLEAN, said.code) == (True, 1), said.out
        assert f"known break {own.break_}:" in said.err
    else:
        assert (cell["verdict"] in CLEAN, said.code) == (True, 0), said.out


@pytest.mark.nightly
def test_adopt_keeps_what_try_showed_and_nothing_of_the_user(own_adapters: Maker, tmp_path: Path) -> None:
    adapter, base = own_adapters.adapter("lokr_alpha"), own_adapters.base("lokr_alpha")
    matrices = tmp_path / "matrices"
    said = Said.of(
        tmp_path, "adopt", str(adapter), "--base", str(base), "--name", "lokr-adopted", "--to-matrices", str(matrices)
    )

    assert "still shows silent-wrong" in said.out + said.err
    written = "".join(path.read_text(encoding="utf-8") for path in matrices.rglob("*") if path.is_file())
    assert [secret for secret in ("acme", str(adapter.parent), "640") if secret in written] == []


@pytest.mark.nightly
def test_the_commands_for_a_cell_work_on_one_of_try(own_adapters: Maker, tmp_path: Path) -> None:
    Said.of(tmp_path, "try", str(own_adapters.adapter("vit")), "--base", str(own_adapters.base("vit")))
    blamed = Said.of(tmp_path, "blame", "out", "--no-pin")

    assert Said.of(tmp_path, "show", "out").code in (0, 1)
    assert blamed.code == 0
    assert "transformers" in blamed.out
    assert Said.of(tmp_path, "repro", "out", "--out", str(tmp_path / "repro")).code == 0
