"""Observes how names of a checkpoint are converted: for the bare base, for the PEFT model and for a plain wrapper.

Transformers 5 renames and fuses weights on loading, by a list that depends on the model. For another model than the
base the list matches other keys: `get_model_conversion_mapping` of a PEFT model puts `base_model.model` into the scope
of each renaming. This decides no verdict; it explains one.
"""

from __future__ import annotations

from typing import Any, Callable, Mapping

from ..compat import libraries
from ..model import adapters
from .context import Context

EXAMPLES = 6
_PREFIX = "base_model.model."


def observe(context: Context) -> None:
    """Record the fact `conversion` if the loader's Transformers converts keys of this base."""
    try:
        base = context.base()
        tools = libraries.conversion_tools()
        if tools is None or not libraries.own_conversions(tools, base):
            return
        stored = libraries.load_adapter_tensors(adapters.ADAPTER_FOLDER)
        views = _views(context, tools, base, [key[len(_PREFIX) :] for key in stored if key.startswith(_PREFIX)])
        views.append(_by_peft(_peft_model(context), stored))
    except Exception as error:  # noqa: BLE001 - an extra observation: it must not fail the cell
        views = [{"of": "conversion", "error": _said(error)}]
    context.observation.facts["conversion"] = {"views": views}


def _views(context: Context, tools: Any, base: Any, keys: list[str]) -> list[dict[str, Any]]:
    models: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("base", lambda: base),
        ("PEFT model", lambda: _peft_model(context)),
        ("wrapper", lambda: _wrapper(context.torch, base)),
    )
    return [_view(tools, of, model, keys) for of, model in models]


def _view(tools: Any, of: str, model: Callable[[], Any], keys: list[str]) -> dict[str, Any]:
    view: dict[str, Any] = {"of": of, "keys": len(keys)}
    try:
        given = model()
        view["given"] = type(given).__name__
        conversions = libraries.own_conversions(tools, given)
        view["conversions"] = [_described(one) for one in conversions]
        return {**view, **_changed({key: libraries.renamed_key(tools, key, conversions) for key in keys})}
    except Exception as error:  # noqa: BLE001 - the error is the observation
        return {**view, "error": _said(error)}


def _by_peft(model: Any, stored: dict[str, Any]) -> dict[str, Any]:
    """The model that this release of PEFT asks the list of, and the adapter's keys after conversion."""
    view: dict[str, Any] = {"of": "PEFT's own", "keys": len(stored)}
    try:
        given, after = libraries.converted_by_peft(model, stored)
    except Exception as error:  # noqa: BLE001 - the error is the observation
        return {**view, "error": _said(error)}
    view["given"] = given or "nothing is asked for"
    gone = sorted(set(stored) - set(after))
    return {**view, **_changed({**{key: key for key in stored}, **_paired(gone, sorted(set(after) - set(stored)))})}


def _paired(gone: list[str], new: list[str]) -> dict[str, str]:
    """Old key → new key, one by one if there are as many; else all of the new ones."""
    if len(gone) == len(new):
        return dict(zip(gone, new))
    return {key: " + ".join(new[:2]) + (" …" if len(new) > 2 else "") for key in gone}


def _changed(after: Mapping[str, str]) -> dict[str, Any]:
    changed = [[key, now] for key, now in after.items() if key != now]
    kept = [key for key, now in after.items() if key == now]
    return {"changed": len(changed), "examples": changed[:EXAMPLES], "kept": kept[:2]}


def _described(conversion: Any) -> list[Any]:
    """[class, patterns, what they become, scope]."""
    sources, targets = list(conversion.source_patterns), list(conversion.target_patterns)
    return [type(conversion).__name__, sources[:4], targets[:4], libraries.scope_of(conversion)]


def _peft_model(context: Context) -> Any:
    """The loaded adapter; if it does not load, another one on the same base: only the model's names matter."""
    try:
        return context.model()
    except Exception:  # noqa: BLE001 - the cell reports it
        return libraries.any_adapter(context.torch, context.base())


def _wrapper(torch: Any, base: Any) -> Any:
    class Wrapper(torch.nn.Module):  # type: ignore[misc]
        """A module that has the base as an attribute, as in users' training code."""

        def __init__(self) -> None:
            super().__init__()
            self.wrapped = base
            self.config = base.config

    return Wrapper()


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:300]}"
