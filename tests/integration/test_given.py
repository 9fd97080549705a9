"""An adapter that a scenario gives as files is judged as the one that was made, and its file is never changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.runner.request import Places
from harness.worker.files import tree_digest
from tests.integration.conftest import Said

pytestmark = [pytest.mark.integration, pytest.mark.slow]

INPUTS = """
[inputs]
input_ids = { kind = "tokens", shape = [2, 7], low = 3, high = 48 }
attention_mask = { kind = "mask", shape = [2, 7], pad_right = [0, 2] }
"""


def take_out(creator: str, scenario: str, folder: Path) -> None:
    """Write a stored fixture's adapter, and the configuration of its base, as a user has them."""
    store = Places().store()
    manifest = store.manifest(creator, scenario)
    for name in manifest.laid_out("cpu"):
        if name.startswith("adapter/") or name == "base/config.json":
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.content(manifest, name))


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[Said, Path, dict[str, str]]:
    """A run of two adapters of PEFT 0.6.1, given as files, on bases from their `config.json`."""
    folder, digests = tmp_path_factory.mktemp("given"), {}
    (folder / "bases").mkdir()
    lines = []
    for scenario, config in (("lokr-alpha-differs", "LoKrConfig"), ("lora-linear", "LoraConfig")):
        take_out("v061", scenario, folder / scenario)
        text = (folder / scenario / "base/config.json").read_text()
        (folder / "bases" / f"{scenario}.json").write_text(text)
        (folder / "bases" / f"{scenario}.toml").write_text(
            f'why = "x"\n[transformers]\nmodel = "AutoModelForCausalLM"\nconfig_file = "{scenario}.json"\n{INPUTS}'
        )
        lines += ["[[scenario]]", f'name = "own-{scenario}"', 'why = "x"', f'base = "{scenario}"']
        lines += [f'adapter_files = "{scenario}/adapter"', f'adapter = {{ config = "{config}" }}']
        digests[scenario] = tree_digest(folder / scenario / "adapter")
    (folder / "own.toml").write_text("\n".join(lines))
    scenarios = str(folder / "own.toml")
    return (
        Said.of(folder, "pair", "--creator", "v061", "--loader", "current", "--scenarios", scenarios),
        folder,
        digests,
    )


def test_the_verdicts_are_those_of_the_stored_fixtures(said: tuple[Said, Path, dict[str, str]]) -> None:
    run = said[0]
    assert run.verdicts["own-lokr-alpha-differs"] == "silent-wrong", run
    assert run.verdicts["own-lora-linear"] in ("exact", "close"), run
    assert run.code == 1


def test_the_files_are_as_they_were(said: tuple[Said, Path, dict[str, str]]) -> None:
    for scenario, digest in said[2].items():
        assert tree_digest(said[1] / scenario / "adapter") == digest
