"""The pattern of a deviation: what turns the golden's numbers into the replay's."""

from __future__ import annotations

from typing import Literal

from harness.core.model import Model

PatternKind = Literal[
    "not-finite",
    "zero",
    "factor",
    "sign",
    "bias",
    "exchange",
    "transposition",
    "permutation",
    "shift",
    "clip",
    "factors",
    "narrow",
    "dropped",
]
"""What a pattern is, the simplest first.

not-finite: values became NaN or infinite. zero: all values are 0. factor, sign: each value times one number, or −1.
bias: the same vector is added to each row. exchange: two layers have each other's effect. transposition: an update acts
transposed. permutation, shift: values moved along an axis. clip: values are cut at a limit. factors: each slice along
an axis has a factor of its own. narrow: values were rounded to a narrower type. dropped: tensors never arrive.
"""


_SHORT: dict[str, str] = {
    "zero": "the effect is 0",
    "sign": "the opposite sign",
    "bias": "the same vector in each row",
    "exchange": "exchanged",
    "transposition": "transposed",
    "permutation": "in another order:",
    "shift": "shifted:",
    "clip": "clipped",
    "factors": "a factor for each of the",
    "narrow": "rounded to",
    "not-finite": "",
}


class Pattern(Model):
    """What turns the golden's numbers into the replay's, within the measured allowance."""

    kind: PatternKind
    says: str
    """One line for a person: `×3.000 = alpha/r in 4 of 4 layers`."""
    factor: float | None = None
    """The factor, if it is the same in all layers."""
    expressions: tuple[str, ...] = ()
    """Expressions of the adapter's config that are equal to the factor in every layer: `alpha/r`."""
    detail: str = ""
    """What distinguishes two patterns of one kind: an axis and an order, a type, a number of positions."""
    layers: tuple[str, ...] = ()
    """The layers that it explains."""
    unexplained: tuple[str, ...] = ()
    """Layers that differ in another way."""
    compared: int = 0
    """How many layers were compared; 0 if the pattern is that of the model's output."""
    tensors: tuple[str, ...] = ()
    """The checkpoint's tensors that it is about."""
    remaining: float | None = None
    """The greatest remaining error ÷ allowance, at most 1; None if the pattern is not one of numbers."""

    @property
    def short(self) -> str:
        """It without sizes and layers, for a title: `alpha/r`, `features reversed`; empty if nothing short says it."""
        if self.kind == "factor":
            return f"×{self.expressions[0]}" if self.expressions else "a constant factor"
        if self.kind == "dropped":
            return ""  # the kind of finding says it
        return f"{_SHORT.get(self.kind, self.kind)} {self.detail}".strip()

    @property
    def signature(self) -> tuple[str, ...]:
        """What two cells with the same pattern have in common, besides an expression that both factors can be."""
        return (self.kind, self.detail) if self.detail else (self.kind,)
