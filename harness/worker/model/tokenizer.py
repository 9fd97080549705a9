"""Writes a base's tokenizer without a tokenizer library: the same bytes in each environment.

Readers of models outside of Transformers want a tokenizer beside the weights. Each token is one printable ASCII
character, so each list of ids has a text that is tokenized to these ids.

Both forms of a tokenizer are written: `tokenizer.json` (tokenizers, mistral.rs) and `tokenizer.model` (SentencePiece:
llama.cpp's converter takes that without a list of known tokenizers).
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any, List

SPECIAL = ("<unk>", "<s>", "</s>")
"""Ids 0, 1 and 2. `<unk>` is the padding too."""
LARGEST = len(SPECIAL) + 0x7E - 0x20
"""The size of the greatest vocabulary: each printable ASCII character except space has its token."""

_NORMAL, _UNKNOWN, _CONTROL = 1, 2, 3
"""`ModelProto.SentencePiece.Type` of sentencepiece_model.proto."""
_UNIGRAM = 1
"""`TrainerSpec.ModelType` of sentencepiece_model.proto."""


def write(folder: str, size: int) -> None:
    """Write the tokenizer of a vocabulary of this size.

    Raises:
        ValueError: there are not as many characters.
    """
    if not len(SPECIAL) < size <= LARGEST:
        raise ValueError(
            f"the base has {size} tokens; expected {len(SPECIAL) + 1} to {LARGEST}, one for each printable character; "
            "next: change `vocab_size` of the base, or remove its `tokenizer`"
        )
    pieces = [*SPECIAL, *(chr(0x21 + index) for index in range(size - len(SPECIAL)))]
    _json(folder, "tokenizer.json", _tokenizers(pieces))
    _json(folder, "tokenizer_config.json", _CONFIG)
    with open(os.path.join(folder, "tokenizer.model"), "wb") as file:
        file.write(_sentencepiece(pieces))


_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "unk_token": "<unk>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "<unk>",
    "add_bos_token": False,
    "add_eos_token": False,
    "add_prefix_space": False,
}


def _tokenizers(pieces: List[str]) -> Any:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": index, "content": piece, **plain} for index, piece in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Split", "pattern": {"String": ""}, "behavior": "Isolated", "invert": False},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "model": {
            "type": "WordLevel",
            "vocab": {piece: index for index, piece in enumerate(pieces)},
            "unk_token": "<unk>",
        },
    }


def _json(folder: str, name: str, content: Any) -> None:
    with open(os.path.join(folder, name), "w", encoding="utf-8", newline="\n") as file:
        json.dump(content, file, indent=2)
        file.write("\n")


def _sentencepiece(pieces: List[str]) -> bytes:
    """The message `ModelProto` of sentencepiece_model.proto: pieces, trainer_spec, normalizer_spec."""
    kinds = [_UNKNOWN, _CONTROL, _CONTROL] + [_NORMAL] * (len(pieces) - len(SPECIAL))
    encoded = b"".join(
        _message(1, _text(1, piece) + _float(2, -float(rank)) + _number(3, kind))
        for rank, (piece, kind) in enumerate(zip(pieces, kinds))
    )
    ids = [(40, 0), (41, 1), (42, 2), (43, -1)]  # unk, bos, eos, pad
    trainer = _number(3, _UNIGRAM) + _number(4, len(pieces)) + b"".join(_number(*one) for one in ids)
    # no prefix, spaces stay, a space is the character U+2581
    normalizer = _text(1, "identity") + b"".join(_number(*one) for one in [(3, 0), (4, 0), (5, 1)])
    return encoded + _message(2, trainer) + _message(3, normalizer)


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    encoded: List[int] = []
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())
