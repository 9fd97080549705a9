"""Under which environment an adapter is taken to have been written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from packaging.version import Version

from harness.core.errors import UsageError
from harness.core.versions import version_of
from harness.envs.declaration import Declaration
from harness.own import dating, written_by
from harness.store.adapter import Adapter


def spec_for(release: str, declared: Mapping[str, Declaration], *, quantised: bool) -> str:
    """The environment for a release of PEFT: the declared one, which is likely built, else `peft==X`.

    Args:
        quantised: it needs bitsandbytes.
    """
    wanted = Version(release)
    found = [name for name, one in declared.items() if _is_for(one, wanted, quantised)]
    if found:
        return min(found, key=lambda name: (len(declared[name].pins), len(name), name))
    return f"peft=={release},bitsandbytes==0.46.0" if quantised else f"peft=={release}"


def _is_for(declared: Declaration, wanted: Version, quantised: bool) -> bool:
    pins = declared.exact()
    own = version_of(pins.get("peft", ""))
    return own == wanted and not declared.on_demand and "trl" not in pins and ("bitsandbytes" in pins) is quantised


def writer(adapter: Adapter, matrices: Path) -> tuple[str, str]:
    """The newest release of PEFT that can have written an adapter, and why.

    Raises:
        UsageError: none is known.
    """
    dated = dating.date(adapter, written_by.load(matrices))
    if not dated.releases:
        raise unknown(dated.span)
    return dated.releases[-1], f"written by {dated.span}: {'; '.join(dated.reasons[:1])}"


def unknown(span: str) -> UsageError:
    """The error if nothing says which release wrote an adapter."""
    return UsageError(
        f"the adapter was written by {span}", "the release that it was trained with",
        "name it with --from, for example --from peft==0.9.0",
    )  # fmt: skip
