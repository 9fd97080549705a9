"""Adapters of users: which there are, what is known of each, and how their old environments make them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from harness.envs.environments import Environments
from tests.support.mini.world import REPOSITORY

SCRIPT = Path(__file__).with_name("train.py")


@dataclass(frozen=True)
class Own:
    """One adapter that `train.py` makes.

    Attributes:
        name: its function in `train.py`, and its folder.
        environment: where it is made.
        break_: the known break that it meets under `current`; empty if it is sound there.
    """

    name: str
    environment: str
    break_: str = ""


ADAPTERS = (
    Own("lokr_alpha", "v061", "lokr-scaled-by-alpha-over-r"),
    Own("lora_bias_all", "v061", "lora-bias-key-renamed"),
    Own("prefix_gpt2", "v061", "prompt-learning-generate-cache-renamed"),
    Own("lora_bin", "v061"),
    Own("dora", "v090"),
    Own("rslora_patterns", "v090"),
    Own("gpt2_conv1d", "v090"),
    Own("classifier", "v0120"),
    Own("mixtral_experts", "v0120"),
    Own("ia3_t5", "v0120"),
    Own("resized_vocabulary", "v0120"),
    Own("adalora", "v0120"),
    Own("vit", "v0132", "names-vit-targets"),
    Own("whisper", "v0132"),
    Own("gemma_embedding", "v0132"),
    Own("trainable_tokens_tied", "v0152", "trainable-tokens-second-adapter-tied"),
    Own("high_layers", "v0152"),
    Own("lora_t5", "v0152"),
    Own("token_rows_and_lora", "v0152"),
    Own("qwen2_bfloat16", "v0171"),
    Own("llava", "v0171"),
    Own("oft", "v0191"),
    Own("two_adapters", "v0191"),
    Own("four_bits", "bnb-v0171"),
    Own("four_bits_stored", "bnb-v0171", "bnb-packed-weight-merged"),
    Own("lora_plain", "current"),
)


class Maker:
    """Makes the adapters of an environment the first time that one of them is asked for."""

    def __init__(self, environments: Environments, cache: Path) -> None:
        self._environments = environments
        self._cache = cache

    def folder(self, name: str) -> Path:
        """The user's folder: the base is in `acme/…`, the adapter in `out`."""
        environment = next(own.environment for own in ADAPTERS if own.name == name)
        built = self._environments.build(environment)
        names = [own.name for own in ADAPTERS if own.environment == environment]
        digest = hashlib.sha256(SCRIPT.read_bytes() + f"{built.lock_digest} {names}".encode()).hexdigest()
        made = self._cache / f"{environment}-{digest[:12]}"
        with FileLock(made.with_suffix(".lock")):
            if not made.is_dir():
                _make(built.python, made, names)
        return made / name

    def adapter(self, name: str) -> Path:
        """The folder with the adapter; of several adapters the first."""
        out = self.folder(name) / "out"
        return out if (out / "adapter_config.json").is_file() else out / "policy"

    def base(self, name: str) -> Path:
        """The base's folder."""
        (base,) = (self.folder(name) / "acme").iterdir()
        return base


def _make(python: Path, made: Path, names: Iterable[str]) -> None:
    unfinished = made.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    done = subprocess.run(
        [str(python), str(SCRIPT), str(unfinished), *names],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{SCRIPT.name} failed under {python}:\n{done.stderr[-3000:]}")
    unfinished.rename(made)


def main(cache: Path) -> None:
    """Make all adapters, and print where they are."""
    cache.mkdir(parents=True, exist_ok=True)
    maker = Maker(Environments(REPOSITORY / "matrices", log=lambda line: print(line, file=sys.stderr)), cache)
    for own in ADAPTERS:
        print(f"{own.name:24}{own.environment:12}{maker.folder(own.name)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
