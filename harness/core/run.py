"""The model of a run, which `report.json` stores (`harness.core.run_file`). Renderers read this and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

import pydantic

from harness.core.cell_settings import place
from harness.core.comparison import Against, Comparison, Writes
from harness.core.errors import ExitCode
from harness.core.key_conversion import Conversion
from harness.core.model import Model
from harness.core.pattern import Pattern
from harness.core.verdict import Reading, Verdict

FORMAT = 1
"""Version of `report.json`. Before you rename or remove a field of the model below, or change its meaning, raise this
number and teach `run_file.load` to read the old format too. A new field that has a default needs no new number."""


class Figures(Model):
    """The size of one difference between two arrays, and the allowed size.

    All numbers are in the units of the array. `allowance` is measured (see `harness.judge.compare`), never set by hand.
    """

    array: str
    """Which array: `forward/float32/logits`."""
    dtype: str = ""
    shape: tuple[int, ...] = ()
    elements: int = 0
    differing: int = 0
    """How many elements are beyond the allowance, or not finite where the golden is finite."""
    max_abs: float = 0.0
    """The greatest absolute difference; `inf` if only one side is finite."""
    index: tuple[int, ...] = ()
    """Where the greatest difference is; of whole numbers (token ids) where the first is, since they have no size."""
    golden: float | None = None
    now: float | None = None
    allowance: float = 0.0
    scale: float = 0.0
    """Root mean square of the golden array, to compare `max_abs` with."""
    histogram: tuple[int, ...] = ()
    """Elements by decade of absolute difference: equal ones first, then 1e-18.., …, 1e0.., 1e1 and more."""

    @property
    def is_size(self) -> bool:
        """False for whole numbers: one token is not further from another because its id is."""
        return not self.dtype.startswith(("int", "uint", "bool"))

    @property
    def ratio(self) -> float:
        """Error ÷ allowance. 0 if two runs were infinitely far apart, since then everything is allowed."""
        if self.max_abs == 0 or self.allowance == float("inf"):
            return 0.0
        return self.max_abs / self.allowance if self.allowance > 0 else float("inf")


class Finding(Model):
    """One difference, with its explanation."""

    probe: str
    kind: str
    """A stable word: `values`, `lost-tensors`, `error`, `tie-broken`, `new-warning`, … (`harness.judge.compare`)."""
    verdict: Verdict
    message: str
    """One line for a person."""
    subject: str = ""
    """What it is about: a layer, a parameter, a key."""
    details: tuple[str, ...] = ()
    figures: Figures | None = None
    pattern: Pattern | None = None
    """What turns the golden's numbers into the replay's, if that is recognised; `message` begins with it."""
    stage: str = ""
    """For errors: base, config, injection, state dict, forward, …"""
    error_type: str = ""


class LayerSketch(Model):
    """How far one layer's activation is from the golden's, in execution order."""

    name: str
    kind: Literal["adapter", "block"]
    max_abs: float
    allowance: float
    scale: float = 0.0


class ProbeResult(Model):
    """The result of one probe."""

    verdict: Verdict
    outcome: Literal["ok", "error", "skipped", "missing"]
    """What the probe did under the loader."""
    golden_outcome: Literal["ok", "error", "skipped", "missing"] = "ok"
    reason: str = ""
    """For a probe that was skipped: why."""
    figures: tuple[Figures, ...] = ()
    """The array with the greatest error ÷ allowance first."""
    duration_s: float = 0.0


class CheckpointKeys(Model):
    """Where the tensors of the checkpoint are in the model, found by value."""

    total: int = 0
    arrived: int = 0
    lost: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    """Not found by value, but loaders fuse or recompute this kind of tensor: the output decides."""
    unexpected: tuple[str, ...] = ()
    """Keys that the scenario's `expects` does not list."""
    constant: int = 0
    """How many tensors have equal values only, and cannot be recognised by value."""
    lost_by: dict[str, tuple[str, ...]] = pydantic.Field(default_factory=dict)
    """Load path → keys that do not arrive by it, though they do by `PeftModel.from_pretrained`."""


class ErrorReport(Model):
    """An exception in the pinned environment, as a value."""

    stage: str
    type: str
    message: str
    traceback: str = ""


class Cell(Model):
    """One (scenario, creator, loader, device) and its result."""

    id: str
    """`scenario@creator:loader[device]`, with the settings behind the device."""
    scenario: str
    creator: str
    loader: str
    device: str = "cpu"
    settings: str = ""  # what the loader computed with besides its own: `bfloat16+sdpa` (`harness.core.cell_settings`)
    family: str = ""
    method: str = ""
    verdict: Verdict
    expected: bool = False
    """True if a known break covers the deviation."""
    expectation: str = ""  # id of the known break
    expectation_issue: str = ""
    expectation_expires: str = ""
    expectation_reason: str = ""
    reason: str = ""  # why the cell was not compared
    probes: dict[str, ProbeResult] = pydantic.Field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    """Facts that a reader may want to know, but that are no deviation."""
    standing_defects: tuple[str, ...] = ()
    """What the creator's own library failed when the fixture was made, and the loader fails too."""
    fixed: tuple[str, ...] = ()
    """What the creator's own library gets wrong with this adapter, and the loader gets right."""
    creators_own: str = ""
    """The verdict on the creator's own reload, and why, if that is not what the adapter computed when it was saved."""
    duration_s: float = 0.0
    compute_s: float = 0.0  # seconds that the worker spent on it
    same_as: str = ""
    """The cell whose result was reused: its fixture loads the same way (`harness.runner.shared_replay`)."""
    remembered: str = ""  # when its observation was computed (UTC), if it is from the memory of an earlier run
    gpu_peak_mb: float | None = None  # the most memory that its tensors took at once; None on the CPU
    first_difference: str = ""
    """The first layer in execution order whose activation differs by more than its allowance."""
    layers: tuple[LayerSketch, ...] = ()
    adapter_delta: float | None = None
    """Greatest absolute deviation of the adapter's effect, with the golden's own layer inputs. None if part of the
    adapter was not measured (missing layers, lost tensors, a forward pass that raised) and the rest agrees."""
    base_delta: float | None = None
    """Greatest absolute deviation of the base model's own output."""
    worst_ratio: float | None = None
    """Error ÷ allowance of the main finding; of a clean cell the greatest of all probes. None if that has no size: an
    error, say (`harness.judge.size`)."""
    keys: CheckpointKeys | None = None
    conversion: Conversion | None = None
    config_differences: tuple[str, ...] = ()
    new_warnings: tuple[str, ...] = ()
    error: ErrorReport | None = None
    log_tail: str = ""  # last lines of the worker's log, for a cell that died
    reproduce: str = ""
    reading: Reading = ""  # what the loader did with the checkpoint; empty if unknown
    writes: Writes | None = None  # what the loader saves; only for `check --against`, and not in report.json
    observed: str = ""  # all that it observed, packed; for `check --against` as well
    fixture: str = ""  # digest of the adapter's files: equal digests mean equal checkpoints
    fixture_origin: Literal["", "committed", "created"] = ""

    @property
    def place(self) -> str:
        """The device with its settings: `cpu`, `cpu+bfloat16`."""
        return place(self.device, self.settings)

    @property
    def deviates(self) -> bool:
        """True for a deviation that no known break covers."""
        return self.verdict.is_deviation and not self.expected


class EnvironmentReport(Model):
    """One environment of a run, as the worker process found it."""

    name: str
    spec: str = ""
    role: tuple[str, ...] = ()
    """`creator`, `loader`."""
    kind: str = ""
    python: str = ""
    lock_digest: str = ""
    versions: dict[str, str] = pydantic.Field(default_factory=dict)
    facts: dict[str, Any] = pydantic.Field(default_factory=dict)
    """Device, threads, processor, instruction-set pins."""
    failed: str = ""
    """The installer's last lines, if the environment did not build."""


class ExpectationProblem(Model):
    """A known break that fails the run: stale (nothing deviates any more), expired, or not as stated."""

    id: str
    problem: Literal["stale", "expired", "mismatch"]
    message: str


class KnownBreak(Model):
    """What is recorded of a known break (`matrices/breaks/`)."""

    title: str = ""
    since: str = ""
    """The release that introduced it."""
    fixed: str = ""
    verified: str = ""
    """Which releases were seen to fail, and how."""
    workaround: str = ""
    references: tuple[str, ...] = ()


class Shard(Model):
    """A part of a plan that several machines share: `check --shard 2/3`. Merged runs have several numbers."""

    numbers: tuple[int, ...]
    count: int
    """How many shards of the plan have cells."""
    plan: str
    """A digest of the whole plan's cells."""
    missing: tuple[int, ...] = ()
    """The shards that a merge lacks."""


class Run(Model):
    """The cells that were checked together."""

    format: int = FORMAT
    id: str
    created: str
    """ISO 8601, UTC."""
    tool_version: str
    command: str = ""
    title: str = ""
    sentence: str = ""
    """The verdict in a sentence, as every report has it first; filled in when reports are written."""
    environments: tuple[EnvironmentReport, ...] = ()
    plan: tuple[str, ...] = ()
    """Ids of all requested cells; of a shard, its own."""
    shard: Shard | None = None
    """Which part of a larger plan this is."""
    cells: tuple[Cell, ...] = ()
    left_out: dict[str, str] = pydantic.Field(default_factory=dict)
    """Cell or scenario → why it was not run."""
    expectation_problems: tuple[ExpectationProblem, ...] = ()
    breaks: dict[str, KnownBreak] = pydantic.Field(default_factory=dict)
    """The known breaks that cover cells, by id."""
    baseline: str = ""
    comparisons: tuple[Comparison, ...] = ()
    against: Against | None = None
    """In a PR check: what was compared. Then only regressions fail the run (`harness.judge.change`)."""
    interrupted: bool = False
    strict: bool = False
    duration_s: float = 0.0
    timings: dict[str, float] = pydantic.Field(default_factory=dict)
    """Seconds by step: `import:<env>`, `compute`, …"""
    counts: dict[str, int] = pydantic.Field(default_factory=dict)
    """Cells by verdict, plus `expected`, `planned`, `compared`."""
    exit_code: int = ExitCode.CANNOT_TELL
    notes: tuple[str, ...] = ()
    """What a reader of the whole run should know: shards that disagreed, …"""
    notices: tuple[str, ...] = ()
    """What is not about this run's cells but should be known: the registry has newer releases, …"""

    @property
    def deviations(self) -> tuple[Cell, ...]:
        """The cells that need attention. Under `strict` a new warning is enough."""
        warned = [Verdict.WARNED] if self.strict else []
        return tuple(cell for cell in self.cells if cell.deviates or (cell.verdict in warned and not cell.expected))

    @property
    def not_run(self) -> tuple[str, ...]:
        """Planned cells that have no result."""
        done = {cell.id for cell in self.cells}
        return tuple(cell for cell in self.plan if cell not in done)

    @property
    def is_incomplete(self) -> bool:
        """True if planned cells have no result, or a merge lacks a shard."""
        return bool(self.not_run or (self.shard and self.shard.missing))


def counts_of(cells: Iterable[Cell], planned: int) -> dict[str, int]:
    """Cells by verdict, worst first, plus `expected`, `compared` and `planned`."""
    cells = list(cells)
    by_verdict = Counter(cell.verdict for cell in cells)
    counts = {str(verdict): by_verdict[verdict] for verdict in Verdict if by_verdict[verdict]}
    counts["expected"] = sum(cell.expected for cell in cells)
    counts["compared"] = sum(cell.verdict.is_judged for cell in cells)
    counts["planned"] = planned
    return counts


def exit_code_of(run: Run) -> ExitCode:
    """The exit code of a run. The order of the questions is the policy.

    "Could not tell" is never clean: neither if one cell could not be judged, nor if nothing was compared at all, nor
    if planned cells never ran.
    """
    if run.interrupted:
        return ExitCode.INTERRUPTED
    if run.against is not None:
        return _exit_code_of_change(run)
    if run.deviations or run.expectation_problems:
        return ExitCode.REGRESSED
    compared = [cell for cell in run.cells if cell.verdict.is_judged]
    if not compared or any(cell.verdict.cannot_tell for cell in run.cells) or run.is_incomplete:
        return ExitCode.CANNOT_TELL
    return ExitCode.CLEAN


def _exit_code_of_change(run: Run) -> ExitCode:
    """In a PR check, a deviation on both sides neither fails the change nor lets it pass."""
    if any(comparison.change == "regressed" for comparison in run.comparisons):
        return ExitCode.REGRESSED
    if run.against and run.against.writes and run.against.writes.worse:
        return ExitCode.REGRESSED
    if run.against and run.against.code and run.against.code.proved and not run.plan and not run.against.failed:
        return ExitCode.CLEAN  # nothing was compared, because nothing can differ
    apart = {c.cell: c for c in run.comparisons if c.change in ("new", "gone")}
    cells = [cell for cell in run.cells if cell.verdict.is_judged]
    unknown = any(c.unknown for c in apart.values()) or any(c.unjudged for c in run.comparisons)
    undetermined = any(cell.verdict.cannot_tell for cell in run.cells) or run.is_incomplete
    refused = {comparison.cell for comparison in run.comparisons if comparison.refused}
    compared = any(cell.id not in apart and cell.id not in refused for cell in cells)
    return ExitCode.CLEAN if compared and not unknown and not undetermined else ExitCode.CANNOT_TELL


def finished(run: Run) -> Run:
    """The run with its cells in plan order and its counts and exit code computed."""
    place = {cell: index for index, cell in enumerate(run.plan)}
    cells = tuple(sorted(run.cells, key=lambda cell: (place.get(cell.id, len(place)), cell.id)))
    inner = {"writes": None, "observed": ""}
    cells = tuple(cell.model_copy(update=inner) if cell.writes or cell.observed else cell for cell in cells)
    run = run.model_copy(update={"cells": cells, "counts": counts_of(cells, len(run.plan))})
    return run.model_copy(update={"exit_code": int(exit_code_of(run))})
