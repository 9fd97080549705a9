"""Where data is: in the repository's folders if we run from a checkout, else in the installed package.

| | in a checkout | installed |
|---|---|---|
| scenarios, bases, environments, known breaks | `matrices/` | inside the package |
| fixtures | `fixtures/` | `CACHE/fixtures-VERSION`, filled by `peft-regress fixtures fetch` |
| reports | `reports/` | `reports/` in the current folder |
| generated pages | `docs/` | nowhere |

CACHE is `$PEFT_REGRESS_CACHE`, else `$XDG_CACHE_HOME/peft-regress`, else `~/.cache/peft-regress`.
"""

from __future__ import annotations

import os
from pathlib import Path

from harness import __version__
from harness.core.errors import UsageError
from harness.core.files import expanded

CODE = Path(__file__).resolve().parents[1]
"""The folder of our own code."""


def checkout() -> Path | None:
    """The repository that this code runs from; None in an installed package."""
    folder = CODE.parent
    return folder if (folder / "pyproject.toml").is_file() and (folder / "matrices").is_dir() else None


def cache() -> Path:
    """The folder for what can be made or fetched again: environments, answers of package indexes, fetched fixtures."""
    if os.environ.get("PEFT_REGRESS_CACHE"):
        return expanded(os.environ["PEFT_REGRESS_CACHE"]).absolute()
    named = expanded(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else expanded("~/.cache")) / "peft-regress"  # as the XDG standard says


def matrices() -> Path:
    """Scenarios, bases, environments and known breaks."""
    folder = checkout()
    return folder / "matrices" if folder else CODE / "data" / "matrices"


def fixtures() -> Path:
    """The stored fixtures. In an installed package the folder does not exist until they are fetched."""
    folder = checkout()
    return folder / "fixtures" if folder else cache() / f"fixtures-{__version__}"


def reports() -> Path:
    """Where runs are written."""
    return (checkout() or Path.cwd()) / "reports"


def root() -> Path:
    """What paths in reports are relative to."""
    return checkout() or Path.cwd()


def docs() -> Path:
    """Where the generated pages are committed.

    Raises:
        UsageError: the package is installed, so there is no such folder.
    """
    folder = checkout()
    if folder is None:
        raise UsageError(
            "peft-regress is installed, and an installed package has no docs/", "a checkout of peft-regress",
            "pass --out DIR, or run the command in a checkout",
        )  # fmt: skip
    return folder / "docs"


def refuse_packaged(folder: Path) -> None:
    """Refuse to write into the matrices that an installed package carries.

    Raises:
        UsageError: the folder is inside the installed package.
    """
    if checkout() is None and folder.resolve().is_relative_to(CODE):
        raise UsageError(
            f"{folder} belongs to the installed package", "a folder of your own",
            "pass --matrices DIR, or work in a checkout of peft-regress",
        )  # fmt: skip


def fixtures_missing(folder: Path) -> UsageError:
    """The error of a command that needs stored fixtures when their folder does not exist."""
    return UsageError(
        f"no fixtures: {folder} does not exist", "a folder of fixtures",
        "pass --fixtures DIR, or unpack an archive: `peft-regress fixtures fetch --from FILE`",
    )  # fmt: skip
