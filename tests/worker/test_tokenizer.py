"""The tokenizer of a base; other libraries read it in tests/integration."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from harness.worker.model import tokenizer

FILES = ["tokenizer.json", "tokenizer.model", "tokenizer_config.json"]


GOLDEN = {
    "tokenizer.json": "beab68844e587a8d",
    "tokenizer.model": "09a3a3f19fa15a3b",
    "tokenizer_config.json": "7cd90df233f8bcde",
}


def written(folder: Path, size: int) -> dict[str, bytes]:
    """The files of a vocabulary of this size."""
    folder.mkdir(exist_ok=True)
    tokenizer.write(str(folder), size)
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_files(tmp_path: Path) -> None:
    assert sorted(written(tmp_path, 32)) == FILES


def test_each_character_is_a_token(tmp_path: Path) -> None:
    model = json.loads(written(tmp_path, 7)["tokenizer.json"])["model"]

    assert model["vocab"] == {"<unk>": 0, "<s>": 1, "</s>": 2, "!": 3, '"': 4, "#": 5, "$": 6}


def test_the_bytes_are_the_same_each_time(tmp_path: Path) -> None:
    # stored fixtures have these files, and a creator that is run again must write them
    assert written(tmp_path / "a", 32) == written(tmp_path / "b", 32)
    digests = {name: hashlib.sha256(data).hexdigest()[:16] for name, data in written(tmp_path / "a", 32).items()}
    assert digests == GOLDEN


def test_sentencepiece_message(tmp_path: Path) -> None:
    data = written(tmp_path, 4)["tokenizer.model"]

    # pieces (1): text (1), score (2), kind (3); trainer (2): unigram, 4 pieces, ids; normaliser (3)
    assert data.startswith(b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x80\x18\x02")
    assert b"\x0a\x0a\x0a\x01!\x15\x00\x00\x40\xc0\x18\x01" in data, "the last piece: score -3, normal"
    assert data.endswith(b"\x0a\x08identity\x18\x00\x20\x00\x28\x01")


@pytest.mark.parametrize("size", [0, 3, 98, 50_000])
def test_a_vocabulary_without_a_character_for_each_token(tmp_path: Path, size: int) -> None:
    with pytest.raises(ValueError, match=rf"{size} tokens; expected 4 to 97"):
        tokenizer.write(str(tmp_path), size)
    assert list(tmp_path.iterdir()) == []


def test_the_greatest_vocabulary(tmp_path: Path) -> None:
    vocabulary = json.loads(written(tmp_path, tokenizer.LARGEST)["tokenizer.json"])["model"]["vocab"]

    assert len(vocabulary) == tokenizer.LARGEST
    assert list(vocabulary)[-1] == "~"
