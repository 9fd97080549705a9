"""Models of the hub, from its cache on this machine. Nothing is downloaded: a missing model is an error."""

from __future__ import annotations

import os
from typing import Any, Mapping

MARK = "hub.json"
"""The file that replaces the base in a fixture: the weights are a gigabyte, and the commit identifies them."""


class NotInHubCache(Exception):
    """The model is not in the cache, or not at that commit. This says nothing about the libraries."""

    __module__ = "peft_regress_worker.hub"  # reports name the type: it stays when the module moves


def cache(environ: Mapping[str, str]) -> str:
    """The hub's cache, by the variables that its client reads, of old releases and new."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(name):
            return os.path.expanduser(environ[name])
    home = environ.get("HF_HOME") or os.path.join(environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return os.path.join(os.path.expanduser(home), "hub")


def found_in(environ: Mapping[str, str], repo: str, revision: str) -> str:
    """The cache, if it has the model at that commit.

    Raises:
        NotInHubCache: it does not; the message says what it has, and how to get the model.
    """
    where = cache(environ)
    snapshots = os.path.join(where, "models--" + repo.replace("/", "--"), "snapshots")
    if os.path.isfile(os.path.join(snapshots, revision, "config.json")):
        return where
    there = sorted(os.listdir(snapshots)) if os.path.isdir(snapshots) else []
    has = f"it has {', '.join(name[:12] for name in there[:3])}" if there else "it has nothing of it"
    raise NotInHubCache(
        f"{repo} at {revision} is not in the hub's cache ({where}): {has}; "
        f"get it where there is a network: `hf download {repo} --revision {revision}`"
    )


def load(base: Mapping[str, Any], environ: Mapping[str, str], how: Mapping[str, Any]) -> Any:
    """The model in float32, or in the dtype that a replay asks for.

    Args:
        how: further arguments of `from_pretrained`.
    """
    import transformers

    where = found_in(environ, base["repo"], base["revision"])
    model = getattr(transformers, base["model"]).from_pretrained(
        base["repo"], revision=base["revision"], cache_dir=where, local_files_only=True, **{**base["load_with"], **how}
    )
    return model if base.get("dtype") else model.float()
