"""`lint`: checks scenarios, bases, environments and known breaks without running anything."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cli import common
from harness.cli.parser import command
from harness.core import data
from harness.core.errors import ExitCode
from harness.core.text import enumerated
from harness.judge import breaks
from harness.runner import lint as checks

_SHOWN = 8


@dataclass(frozen=True)
class LintOptions:
    matrices: Path | None = None
    json: bool = False


def add_to(commands: Any) -> None:
    one = command(
        commands, "lint", lint, "check scenarios, bases, environments and known breaks; nothing is run",
        "  peft-regress lint\n"
        "  peft-regress lint --matrices my-matrices\n\n"
        "Each complaint is one line: FILE:LINE: RULE: what was found, and what is expected.\n\n"
        "exit codes: 0 no complaint, 1 complaints, 64 no such folder, or nothing in it to check",
        LintOptions,
    )  # fmt: skip
    one.add_argument("--matrices", metavar="DIR", help="the folder to check (default: the repository's matrices/)")
    one.add_argument("--json", action="store_true", help="print JSON")


def lint(options: LintOptions) -> int:
    """Print every complaint about a folder of declarations."""
    folder = options.matrices or data.matrices()
    found = checks.matrix(folder, data.matrices())
    if note := breaks.old_form(folder):
        common.say(note)
    if ruleless := checks.without_rule(folder):
        common.say(
            f"note: {enumerated(ruleless, _SHOWN)}: `doctor` does not know which adapters the known break is about. "
            "Next: add a table `adapter` (docs/expectations.md shows the keys), or say in its `untold` why none can"
        )
    if options.json:
        common.out_json([dataclasses.asdict(one) for one in found])
    else:
        for one in found:
            common.out(str(one))
        common.say(f"{len(found)} complaints in {folder}" if found else f"{folder}: no complaint")
    return ExitCode.REGRESSED if found else ExitCode.CLEAN
