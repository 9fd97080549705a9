"""Hooks of MkDocs: pages that are files elsewhere in the repository, and links to such files.

On the site a link to a file outside of `docs/` cannot work, so its text is kept without the link; a file that does not
exist is an error, as for any other dead link.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
INCLUDED = {"contributing.md": "CONTRIBUTING.md", "fixture-format.md": "fixtures/FORMAT.md"}
"""Page → the file that it shows."""
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>[^)#:\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_page_read_source(page: Any, **_: Any) -> str | None:
    """Show a file of the repository in the place of a page's own text."""
    file = INCLUDED.get(page.file.src_uri)
    return None if file is None else (REPOSITORY / file).read_text(encoding="utf-8")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Resolve links that are relative to the repository, and drop those that leave the site."""
    uri = page.file.src_uri
    file = PurePosixPath(INCLUDED.get(uri, f"docs/{uri}"))
    here = PurePosixPath("docs", uri).parent

    def resolved(link: re.Match[str]) -> str:
        target = _normal(file.parent / link["target"])
        if not (REPOSITORY / target).exists():
            raise FileNotFoundError(f"{file}: dead link to {link['target']}")
        if target.parts[:1] != ("docs",) or target.suffix not in (".md", ".png", ".json"):
            return f"{link['text']}"
        return f"[{link['text']}]({_relative(target, here)}{link['anchor'] or ''})"

    return _LINK.sub(resolved, markdown)


def _normal(path: PurePosixPath) -> PurePosixPath:
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return PurePosixPath(*parts)


def _relative(target: PurePosixPath, here: PurePosixPath) -> str:
    common = 0
    while common < min(len(target.parts) - 1, len(here.parts)) and target.parts[common] == here.parts[common]:
        common += 1
    return "/".join([".."] * (len(here.parts) - common) + list(target.parts[common:]))
