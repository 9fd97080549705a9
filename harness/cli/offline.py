"""`export` and `judge`: another machine, with nothing but Python and the libraries, computes the cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness import report
from harness.cli import common, streams
from harness.cli.parser import choice, command, hub, where
from harness.core.errors import ExitCode
from harness.report import terminal
from harness.runner import offline
from harness.runner.offline import ExportRequest, JudgeRequest


@dataclass(frozen=True)
class JudgeOptions:
    request: JudgeRequest
    json: bool = False


def add_to(commands: Any) -> None:
    one = command(commands, "export", export, "write worker, plan and fixtures for another machine",
                  "  peft-regress export box --creator v061 --device cuda\n"
                  "  (there)  python box/worker --plan box/plan.json --out box/out --device cuda\n"
                  "  (here)   peft-regress judge box", ExportRequest)  # fmt: skip
    one.add_argument("folder", metavar="DIR", help="an empty or new folder")
    one.add_argument(
        "--creator", dest="creators", action="append", default=[], metavar="NAME",
        help="whose fixtures (default: all that are stored)",
    )  # fmt: skip
    one.add_argument(
        "--loader", default="current", metavar="SPEC",
        help="an environment with versions similar to the other machine's (default: current)",
    )  # fmt: skip
    one.add_argument("--name", help="name of the other machine's environment in the report")
    one.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="the other machine's device")
    one.add_argument("--device-class", metavar="CLASS", help="the class of the other machine's GPU, such as cuda-sm90")
    where(one)
    choice(one, scenarios=False)
    hub(one)
    one = command(commands, "judge", judge, "compare the results in an exported folder, and write the report",
                  "  peft-regress judge box\n  peft-regress judge box --out box/out --json", JudgeOptions)  # fmt: skip
    one.add_argument("folder", metavar="DIR", help="the folder that `export` wrote")
    one.add_argument("--out", metavar="DIR", help="the folder that the worker wrote (default: DIR/out)")
    one.add_argument("--reports", metavar="DIR", help="where the run's folder is made (default: reports/)")
    where(one)
    one.add_argument("--json", action="store_true", help="print JSON")


def export(request: ExportRequest) -> int:
    """Write a folder with worker, plan and fixtures, to carry to another machine."""
    exported = offline.export(request, common.say)
    name = request.folder.name
    common.out(f"{exported.cells} cells in {request.folder}, {len(exported.left_out)} left out")
    common.out(
        f"there: PYTHON {name}/worker --plan {name}/plan.json --out {name}/out --device {request.device}\n"
        f"here:  peft-regress judge {common.shown(request.folder)}"
    )
    return ExitCode.CLEAN


def judge(options: JudgeOptions) -> int:
    """Compare what a worker left in a folder, and write the report."""
    run, folder = offline.judge(options.request)
    report.write(run, folder)
    if options.json:
        common.out((folder / "report.json").read_text())
    else:
        terminal.render(run, streams.console())
        common.say(f"report: {folder}")
    return run.exit_code
