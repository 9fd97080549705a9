"""Checks one change: the same cells under the change and under a baseline. Only what is worse under the change counts.

`check_change` does all of it, for a library call.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from harness import __version__
from harness.core import run_file
from harness.core.comparison import Against
from harness.core.progress import Log, quiet
from harness.core.run import EnvironmentReport, Run, finished
from harness.runner import folder as runs
from harness.runner.change import select
from harness.runner.change import sides as two_sides
from harness.runner.change.plan import ChangePlan, ChangeRequest, again, plan_change, ready
from harness.runner.change.sides import SideFailed, Sides
from harness.runner.checking import Checking, OnCell, run_folders
from harness.runner.request import CheckRequest


def check_change(
    change: ChangeRequest,
    request: CheckRequest = CheckRequest(),
    *,
    on_cell: OnCell = lambda _: None,
    log: Log = quiet,
) -> Run:
    """Check what a change does to stored adapters: see `Run.against`, `Run.comparisons` and `Run.exit_code`.

    Writes a run's folder as `harness.runner.check` does.

    Args:
        request: which creators, scenarios and cells; its loaders are not used.

    Raises:
        UsageError: an argument or a file is wrong, both sides are the same, or no cell is selected.
    """
    environments = request.places.environments(log)
    found = two_sides.sides(change.change, change.baseline, environments)
    request = again(change, request, found)
    select.refuse_unknown(request, environments, found)
    with run_folders(request) as folder:
        try:
            asked = ready(plan_change(change, request, environments, found), change, request)
        except SideFailed as failed:
            run = failed_run(found, failed, runs.new_folder(folder, f"against-{found.change.name}").name)
            run_file.dump(run, folder / run.id / "report.json")
            return run
        left_out = {**asked.left_out, **request.selection.left_out(request.places.matrix())}
        if not asked.to_run:
            run = untouched_run(asked, runs.new_folder(folder, f"against-{found.change.name}").name, left_out)
            run_file.dump(run, folder / run.id / "report.json")
            return run
        with Checking(
            asked.request, environments, log=log, on_cell=on_cell, after=asked.after, side_by_side=True
        ) as checking:
            to_run = asked.to_run
            recorder = checking.record([str(cell.id) for cell in to_run], folder, selected=asked.selected)
            checking.run(to_run)
            run = asked.finished(checking.finished(left_out=left_out), recorder.cells)
            run_file.dump(run, recorder.folder / "report.json")
    return run


def failed_run(sides: Sides, failed: SideFailed, id: str, command: str = "") -> Run:
    """The run of a check where one side does not build: nothing was compared."""
    about = two_sides.model(sides).model_copy(update={"failed": failed.what, "scope": f"{failed.what} can't be had"})
    report = EnvironmentReport(name=failed.name, spec=failed.spec, role=("loader",), failed=str(failed.error))
    return _without_cells(about, id, command, environments=(report,))


def untouched_run(planned: ChangePlan, id: str, left_out: Mapping[str, str], command: str = "") -> Run:
    """The run of a check where no adapter can differ: nothing was compared."""
    return _without_cells(planned.about, id, command, left_out=dict(left_out), notes=planned.notes)


def _without_cells(about: Against, id: str, command: str, **more: Any) -> Run:
    return finished(
        Run(
            id=id,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            tool_version=__version__,
            command=command,
            title=f"{about.subject} against {about.baseline}",
            against=about,
            baseline=about.baseline,
            **more,
        )
    )
