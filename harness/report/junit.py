"""A run as JUnit XML, which every CI system reads: one suite per loader, one test case per cell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from harness.core.comparison import Comparison
from harness.core.run import Cell, Run
from harness.core.text import xml
from harness.core.verdict import Verdict
from harness.judge import causes
from harness.report import cell_facts, sentence, summary

Outcome = Literal["passed", "failure", "error", "skipped"]


@dataclass(frozen=True)
class Case:
    """One test case."""

    name: str
    classname: str
    outcome: Outcome
    kind: str = ""
    """The type of a failure or error: the verdict."""
    message: str = ""
    body: str = ""
    seconds: float = 0.0
    properties: tuple[tuple[str, str], ...] = ()


def render(run: Run) -> bytes:
    """The report as an XML document in UTF-8."""
    root = ElementTree.Element("testsuites", name=xml(run.title or run.id))
    for name, cases in suites(run).items():
        _suite(root, name, cases, run)
    _count(root, [case for cases in suites(run).values() for case in cases])
    ElementTree.indent(root)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def suites(run: Run) -> dict[str, list[Case]]:
    """All test cases by suite.

    There are also suites for planned cells without a result, for known breaks that failed the run, and for a run in
    which nothing was compared: a run that is not clean never looks green. Against a baseline, a property of each case
    says how it changed.
    """
    found: dict[str, list[Case]] = {}
    deviating = {cell.id for cell in run.deviations}
    change = {comparison.cell: comparison for comparison in run.comparisons}
    for cell in run.cells:
        found.setdefault(cell.loader, []).append(_case(cell, cell.id in deviating, change.pop(cell.id, None)))
    found |= _named("baseline", [_changed(comparison) for comparison in change.values()])
    found |= _named("not run", [*map(_not_run, run.not_run), *(_left_out(*item) for item in run.left_out.items())])
    found |= _named("expectations", [_problem(p.id, p.problem, p.message) for p in run.expectation_problems])
    if not any(case.outcome in ("passed", "failure", "error") for cases in found.values() for case in cases):
        found |= _named("run", _compared(run))
    return found


def _named(name: str, cases: list[Case]) -> dict[str, list[Case]]:
    return {f"({name})": cases} if cases else {}


def _case(cell: Cell, deviates: bool, change: Comparison | None) -> Case:
    outcome, message = _outcome(cell, deviates)
    return Case(
        name=cell.id,
        classname=f"{cell.loader}.{cell.creator}",
        outcome=outcome,
        kind=str(cell.verdict),
        message=message,
        body=_body(cell) if outcome in ("failure", "error") else "",
        seconds=cell.duration_s,
        properties=_properties(cell, change),
    )


def _outcome(cell: Cell, deviates: bool) -> tuple[Outcome, str]:
    if deviates:
        return "failure", _first_line(cell)
    if cell.expected:
        known = ", ".join(part for part in (cell.expectation, summary.reference(cell)) if part)
        return "skipped", f"known break, {cell.verdict} ({known}): {cell.expectation_reason}"
    if cell.verdict is Verdict.UNSUPPORTED:
        return "skipped", f"unsupported: {cell.reason or 'no reason given'}"
    if cell.verdict.cannot_tell:
        return "error", f"could not tell: {cell.reason or cell.verdict}"
    return "passed", ""


def _first_line(cell: Cell) -> str:
    size = next((row.value for row in cell_facts.facts(cell) if row.label == "greatest"), "")
    return "; ".join(part for part in (causes.title(cell), size) if part)


def _body(cell: Cell) -> str:
    return "\n".join(f"{row.label:<14}{row.value}" for row in cell_facts.facts(cell))


def _properties(cell: Cell, change: Comparison | None) -> tuple[tuple[str, str], ...]:
    values = {
        "scenario": cell.scenario,
        "creator": cell.creator,
        "loader": cell.loader,
        "device": cell.device,
        "settings": cell.settings,
        "verdict": str(cell.verdict),
        "expected": str(cell.expected).lower(),
        "error_over_allowance": "" if cell.worst_ratio is None else repr(cell.worst_ratio),
        "change": f"{change.change}: {summary.arrow(change)}" if change else "",
        "reproduce": cell.reproduce,
    }
    return tuple((name, value) for name, value in values.items() if value)


def _changed(change: Comparison) -> Case:
    """A cell of the baseline that this run does not have."""
    message = f"{change.change} ({summary.arrow(change)}): {summary.CHANGES[change.change]}"
    return Case(change.cell, "baseline", "skipped", change.change, message)


def _not_run(cell: str) -> Case:
    return Case(cell, "not-run", "error", "not-run", "could not tell: planned, but it has no result")


def _left_out(name: str, reason: str) -> Case:
    return Case(name, "left-out", "skipped", "left-out", f"left out: {reason or 'no reason given'}")


def _problem(name: str, problem: str, message: str) -> Case:
    return Case(name, "expectations", "failure", problem, message)


def _compared(run: Run) -> list[Case]:
    """The failing case of a run that has nothing but skips."""
    if any(cell.verdict.is_deviation for cell in run.cells):
        return []
    return [Case("something was compared", "run", "error", "nothing-compared", str(sentence.of(run)))]


def _suite(root: ElementTree.Element, name: str, cases: Iterable[Case], run: Run) -> None:
    cases = list(cases)
    suite = ElementTree.SubElement(root, "testsuite", name=xml(name), timestamp=xml(run.created.removesuffix("Z")))
    _count(suite, cases)
    environment = next((e for e in run.environments if e.name == name), None)
    if environment is not None:
        _add_properties(suite, sorted(environment.versions.items()))
    for case in cases:
        _add_case(suite, case)


def _count(element: ElementTree.Element, cases: list[Case]) -> None:
    for outcome, attribute in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        element.set(attribute, str(sum(case.outcome == outcome for case in cases)))
    element.set("tests", str(len(cases)))
    element.set("time", f"{sum(case.seconds for case in cases):.3f}")


def _add_case(suite: ElementTree.Element, case: Case) -> None:
    element = ElementTree.SubElement(
        suite, "testcase", name=xml(case.name), classname=xml(case.classname), time=f"{case.seconds:.3f}"
    )
    _add_properties(element, case.properties)
    if case.outcome == "passed":
        return
    outcome = ElementTree.SubElement(element, case.outcome, message=xml(case.message), type=xml(case.kind))
    if case.body:
        outcome.text = xml(case.body)


def _add_properties(element: ElementTree.Element, properties: Iterable[tuple[str, str]]) -> None:
    rows = list(properties)
    if rows:
        parent = ElementTree.SubElement(element, "properties")
        for name, value in rows:
            ElementTree.SubElement(parent, "property", name=xml(name), value=xml(value))
