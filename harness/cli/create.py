"""`create`: makes fixtures in the environment that it names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.cli import common
from harness.cli.parser import Output, choice, command, count, handler, hub, saying, where
from harness.core.errors import ExitCode
from harness.runner import create as creation
from harness.runner.create import CreateRequest, Made


@dataclass(frozen=True)
class CreateOptions:
    request: CreateRequest
    output: Output = Output()
    dry_run: bool = False


def add_to(commands: Any) -> None:
    one = command(
        commands, "create", create, "create fixtures under a pinned environment and store them",
        "  peft-regress create v061\n"
        "  peft-regress create v061 -k lokr --replace --reason 'alpha in the declaration was wrong'\n"
        "  peft-regress create v061 --device cuda      adds a golden of this GPU's class",
        CreateOptions,
    )  # fmt: skip
    one.add_argument("creator", metavar="CREATOR", help="an environment: a name, peft==X, a checkout, python:PATH")
    where(one)
    choice(one)
    hub(one)
    saying(one)
    one.add_argument("--jobs", type=count, default=0, help="fixtures at once (default: cores)")
    one.add_argument("--replace", action="store_true", help="overwrite stored fixtures; needs --reason")
    one.add_argument("--reason", metavar="TEXT", help="why stored fixtures are replaced; kept in the manifest")
    one.add_argument(
        "--device", default="cpu", choices=["cpu", "cuda"],
        help="cuda: replay the stored fixtures there, and add a golden of that device class",
    )  # fmt: skip
    one.add_argument(
        "--device-class",
        metavar="CLASS",
        help="the class of that golden (default: the architecture's, such as cuda-sm90)",
    )
    one.add_argument("--dry-run", action="store_true", help="list what would be created")
    handler(one)


def create(options: CreateOptions) -> int:
    """Create fixtures under a pinned environment and store them."""
    if options.dry_run:
        declared = creation.selected(options.request, common.say)
        common.out("\n".join(f"{one.name}@{options.request.creator}" for one in declared))
        common.out(f"{len(declared)} fixtures would be created in {options.request.creator}")
        return ExitCode.CLEAN
    return show(creation.create(options.request, common.say), options.output)


def show(made: Sequence[Made], output: Output) -> int:
    """Print the outcome of each fixture and the counts; the exit code."""
    if output.json:
        common.out_json([vars(one) for one in made])
    else:
        for one in made:
            if one.outcome in ("refused", "differs"):
                common.out(f"{one.scenario}: {one.outcome}: {one.detail}")
            elif one.kept:
                common.out(f"{one.scenario}: {one.outcome}: {one.kept}")
            elif one.detail and output.verbose:
                common.out(f"{one.scenario}: {one.outcome} ({one.detail})")
        common.out(", ".join(f"{count} {outcome}" for outcome, count in Counter(one.outcome for one in made).items()))
    outcomes = {one.outcome for one in made}
    if "differs" in outcomes:
        return ExitCode.REGRESSED
    useful = bool(outcomes & {"stored", "unchanged", "same"})
    return ExitCode.CLEAN if useful and "refused" not in outcomes else ExitCode.CANNOT_TELL
