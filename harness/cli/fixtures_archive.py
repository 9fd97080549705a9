"""`fixtures fetch` and `fixtures pack`: the stored fixtures as a release's asset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cli import common
from harness.cli.parser import command
from harness.core import data
from harness.core.errors import ExitCode
from harness.store import archive


@dataclass(frozen=True)
class FetchOptions:
    source: str = ""
    to: Path | None = None


@dataclass(frozen=True)
class PackOptions:
    to: Path
    fixtures: Path | None = None


def add_to(commands: Any) -> None:
    one = command(commands, "fetch", fetch, "download the fixtures of this release",
                  "  peft-regress fixtures fetch\n"
                  f"  peft-regress fixtures fetch --from Downloads/{archive.NAME}", FetchOptions)  # fmt: skip
    one.add_argument("--from", dest="source", metavar="WHERE",
                     help="address or path of the archive, with its .sha256 file next to it "
                     "(default: the asset of this version's release)")  # fmt: skip
    one.add_argument("--to", metavar="DIR", help="a new folder (default: in the cache, where every command looks)")
    one = command(commands, "pack", pack, "write the archive that `fixtures fetch` downloads",
                  f"  peft-regress fixtures pack --to dist/{archive.NAME}", PackOptions)  # fmt: skip
    one.add_argument("--to", metavar="FILE", default=archive.NAME, help=f"(default: {archive.NAME})")
    one.add_argument("--fixtures", metavar="DIR", help="where fixtures are (default: the repository's)")


def fetch(options: FetchOptions) -> int:
    """Download this release's fixtures, or unpack an archive of them."""
    target = options.to or data.fixtures()
    count = archive.fetch(options.source, target, common.say)
    common.out(f"{target}: {count:,} files")
    return ExitCode.CLEAN


def pack(options: PackOptions) -> int:
    """Write the archive of the stored fixtures and its SHA-256."""
    digest = archive.pack(options.fixtures or data.fixtures(), options.to)
    common.out(f"{digest}  {options.to}")
    return ExitCode.CLEAN
