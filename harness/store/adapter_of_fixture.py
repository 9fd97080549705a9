"""The facts of a stored adapter, as of a user's folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.store.adapter import Adapter
from harness.store.fixtures import Store
from harness.store.manifest import Manifest
from harness.store.saved_adapter import any_device_class, json_of, read

_BASE = "base/config.json"
_CARD = "adapter/README.md"


def adapter_of(store: Store, manifest: Manifest) -> Adapter:
    """The adapter of one fixture.

    Raises:
        BadFixture: a file cannot be read.
    """
    written = read(store, manifest)
    return Adapter(
        config={**written.config, **written.versions},
        shapes=written.shapes,
        dtypes=written.dtypes,
        files=tuple(sorted(written.files)),
        card=_card(store, manifest),
        base=_base(store, manifest),
    )


def _card(store: Store, manifest: Manifest) -> str:
    if _CARD not in manifest.files:
        return ""
    return store.content(manifest, _CARD, any_device_class(manifest)).decode(errors="replace")


def _base(store: Store, manifest: Manifest) -> Mapping[str, Any] | None:
    """The configuration of the base; empty for a plain module of Torch, which has none."""
    if _BASE in manifest.files:
        return json_of(store, manifest, _BASE, any_device_class(manifest))
    return {} if manifest.resolved["base"].get("kind") in ("modules", "python") else None
