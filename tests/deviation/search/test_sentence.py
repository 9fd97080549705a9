"""The answer of `blame` in words, as a table."""

from __future__ import annotations

import pytest

from harness.deviation.search.coupling import Ends
from harness.deviation.search.delta import Blame, Candidate, Culprits
from harness.deviation.search.sentence import notes, sentence

NAMES = ("peft", "transformers", "accelerate", "numpy", "idna")
ENDS = Ends(dict.fromkeys(NAMES, "1"), dict.fromkeys(NAMES, "2"), {}, {})


def culprits(*packages: str, sound: dict[str, str] | None = None, companions: dict[str, tuple[str, ...]] | None = None,
             tied: dict[str, str] | None = None) -> Culprits:  # fmt: skip
    """A set of culprits; all other packages have their new version in the sound candidate."""
    versions = {name: "1" if name in packages else "2" for name in NAMES} if sound is None else sound
    return Culprits(packages, companions or {}, Candidate(versions, "sound"), Candidate({}, "bad"), (), tied or {})


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (Blame((), False, "x"), "the library that causes it could not be determined"),
        (Blame((culprits("peft"),)),
         "peft 1 → 2 alone causes it; transformers, accelerate, numpy and 1 more package are innocent"),
        (Blame((culprits("peft", sound={"idna": "2"}),)), "peft 1 → 2 alone causes it; idna is innocent"),
        (Blame((culprits("peft", sound={}),)), "peft 1 → 2 alone causes it"),
        (Blame((culprits("peft", "transformers", sound={}),)),
         "peft 1 → 2 and transformers 1 → 2 cause it only together"),
        (Blame((culprits("peft", sound={}), culprits("numpy", sound={}))),
         "peft 1 → 2 alone causes it; independently, numpy 1 → 2 alone causes it"),
    ],
)  # fmt: skip
def test_the_sentence(found: Blame, says: str) -> None:
    assert sentence(found, ENDS) == says


def test_the_notes() -> None:
    one = culprits("peft", companions={"peft": ("idna",)}, tied={"numpy": "it does\nnot import", "idna": "x"})
    assert notes(Blame((one,), False, "a mix failed"), ENDS) == (
        "idna had to change together with peft, because of their requirements",
        "numpy 1 could not be tested: it does not import",
        "there may be further causes: a mix failed",
    )
    assert notes(Blame((), False, "nothing helps"), ENDS) == ("no culprit was found: nothing helps",)
