"""`env verify`: whether built environments are as they were installed."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from typing import Any

from harness.cli import common
from harness.cli.parser import SPEC, command, where
from harness.core.errors import ExitCode
from harness.core.text import many
from harness.envs.installed import Verified
from harness.runner.request import Places


@dataclass(frozen=True)
class VerifyOptions:
    specs: tuple[str, ...] = ()
    json: bool = False
    places: Places = Places()


def add_to(commands: Any) -> None:
    one = command(commands, "verify", verify, "read every file of built environments: as installed, or edited?",
                  "  peft-regress env verify\n  peft-regress env verify v061 current", VerifyOptions)  # fmt: skip
    one.add_argument("specs", nargs="*", metavar="SPEC", help=f"{SPEC} (default: all in the cache)")
    one.add_argument("--json", action="store_true", help="print JSON")
    where(one, fixtures=False)


def verify(options: VerifyOptions) -> int:
    """Compare every file of built environments with what was installed, and with the list made at the build."""
    found = []
    for one in options.places.environments(common.say).verify(options.specs):
        found.append(one)
        if not options.json:
            _show(one)
    changed = [one for one in found if one.differences]
    if options.json:
        common.out_json([dataclasses.asdict(one) for one in found])
    else:
        common.say(f"{many(len(found), 'environment')} verified, {len(changed)} changed")
    for one in changed:
        common.say(f"rebuild it with: peft-regress env build --rebuild {shlex.quote(one.spec)}")
    return ExitCode.CANNOT_TELL if changed or not found else ExitCode.CLEAN


def _show(one: Verified) -> None:
    state = f"{len(one.differences):,} changed" if one.differences else "as installed"
    common.out(f"{one.name}: {many(one.files, 'file')}, {state}")
    for difference in one.differences:
        common.out(f"  {difference}")
