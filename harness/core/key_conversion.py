"""How names of a checkpoint are converted on loading, side by side for the models that can be asked about (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.core.model import Model
from harness.core.observation import Observed


class ConversionView(Model):
    """What Transformers says to rename and fuse for one model, and what that makes of the checkpoint's keys."""

    of: str
    """`base`, `PEFT model`, `wrapper`, or `PEFT's own`: what PEFT itself asks for and gets."""
    given: str = ""
    """The class of the model that was asked about."""
    conversions: tuple[tuple[str, str], ...] = ()
    """(what becomes of what, its scope: what a key must begin with), in order."""
    keys: int = 0
    changed: int = 0
    examples: tuple[tuple[str, str], ...] = ()
    """Some of the changed keys, and what they become."""
    kept: tuple[str, ...] = ()
    """Some of those that stay as they are."""
    error: str = ""


class Conversion(Model):
    """For the bare base, the PEFT model and a plain wrapper, and what PEFT itself does.

    No part of a verdict: it tells why a verdict is what it is.
    """

    views: tuple[ConversionView, ...] = ()

    @property
    def differs(self) -> bool:
        """True where not all models change the same keys into the same, or where one raises."""
        return len({(view.changed, view.examples, view.error) for view in self.models}) > 1

    @property
    def models(self) -> tuple[ConversionView, ...]:
        """The views of models, without what PEFT does."""
        return tuple(view for view in self.views if view.of != "PEFT's own")


def seen(side: Observed) -> Conversion | None:
    """What a replay recorded of it; None where its Transformers converts nothing of the base."""
    views = side.fact("conversion", "views") or []
    return Conversion(views=tuple(_view(view) for view in views)) if views else None


def _view(view: Mapping[str, Any]) -> ConversionView:
    return ConversionView(
        of=str(view["of"]),
        given=str(view.get("given", "")),
        conversions=tuple(_worded(*one) for one in view.get("conversions", ())),
        keys=int(view.get("keys", 0)),
        changed=int(view.get("changed", 0)),
        examples=tuple((str(before), str(after)) for before, after in view.get("examples", ())),
        kept=tuple(map(str, view.get("kept", ()))),
        error=str(view.get("error", "")),
    )


def _worded(kind: str, sources: Sequence[str], targets: Sequence[str], scope: str) -> tuple[str, str]:
    return f"{kind}: {', '.join(sources)} → {', '.join(targets)}", scope


def rows(conversion: Conversion) -> list[tuple[str, str]]:
    """(label, text): the models side by side, each with its scopes, how many keys it changes, and one of them."""
    return [(_label(view), _line(view)) for view in conversion.views]


def _label(view: ConversionView) -> str:
    return f"{view.of} ({view.given})" if view.given else view.of


def _line(view: ConversionView) -> str:
    if view.error:
        return f"raises {view.error}"
    scopes = dict.fromkeys(scope or "none" for _, scope in view.conversions)
    parts = [f"scope {', '.join(scopes)}"] if scopes else []
    parts.append(f"changes {view.changed} of {view.keys} keys")
    if view.examples:
        before, after = view.examples[0]
        parts.append(f"{before} → {after}")
    elif view.kept:
        parts.append(f"{view.kept[0]} stays")
    return "; ".join(parts)
