"""JUnit as two public readers see it: `xml.etree` and junitparser."""

from __future__ import annotations

from collections import Counter
from xml.etree import ElementTree

import junitparser
import pytest

from harness.core.run import Run
from harness.core.text import visible_lines
from harness.report import junit
from tests.support import samples


def read(run: Run) -> dict[str, junitparser.TestCase]:
    """All cases by name, as junitparser reads them."""
    document = junitparser.JUnitXml.fromstring(junit.render(run))
    return {case.name: case for suite in document for case in suite}


def properties(run: Run, tag: str, name: str) -> dict[str, str]:
    """The properties of one suite or case."""
    root = ElementTree.fromstring(junit.render(run))
    (element,) = (element for element in root.iter(tag) if element.attrib["name"] == name)
    return {found.attrib["name"]: found.attrib["value"] for found in element.iterfind("properties/property")}


def outcome(case: junitparser.TestCase) -> tuple[str, str, str]:
    """What became of a case: kind, type and message."""
    if not case.result:
        return ("passed", "", "")
    (result,) = case.result
    return (type(result).__name__.lower(), result.type, result.message)


def test_one_suite_a_loader_with_its_packages() -> None:
    run = samples.across_releases()
    document = junitparser.JUnitXml.fromstring(junit.render(run))
    assert [(suite.name, suite.tests, suite.failures) for suite in document] == [("v0200", 5, 1), ("current", 5, 3)]
    assert properties(run, "testsuite", "v0200")["peft"] == "0.20.0"


def test_what_becomes_of_each_kind_of_cell() -> None:
    cases = read(samples.regressed())
    at = "@v061:current[cpu]"
    assert outcome(cases[f"lora-llama{at}"])[0] == "passed"
    assert outcome(cases[f"lora-warns{at}"])[0] == "passed"
    assert outcome(cases[f"lokr-alpha{at}"]) == (
        "failure",
        "silent-wrong",
        "lokr · forward: values differ; |Δ| 0.791 at [0, 3, 17], allowance 4.10e-07, so 1.9e+06×",
    )
    assert outcome(cases[f"lokr-old{at}"]) == (
        "skipped",
        "silent-wrong",
        "known break, silent-wrong (lokr-alpha, https://github.com/huggingface/peft/issues/1, until 2027-06-30): "
        "LoKr with alpha ≠ r: no scaling up to 0.13.2, alpha/r from 0.14.0",
    )
    assert outcome(cases[f"lora-dora{at}"]) == (
        "skipped",
        "unsupported",
        "unsupported: v061 has no such feature: requires peft>=0.9",
    )
    assert outcome(cases[f"lora-t5{at}"]) == (
        "error",
        "no-fixture",
        "could not tell: no manifest fixtures/v061/lora-t5.json",
    )


def test_a_case_has_its_creator_and_its_device() -> None:
    name = "lokr-alpha@v061:current[cpu]"
    found = properties(samples.regressed(), "testcase", name)
    assert (found["creator"], found["device"], found["verdict"]) == ("v061", "cpu", "silent-wrong")
    assert "allowance 4.10e-07" in read(samples.regressed())[name].result[0].text


def test_counts_are_the_sums() -> None:
    root = ElementTree.fromstring(junit.render(samples.every_verdict()))
    for element in (root, *root.iter("testsuite")):
        cases = list(element.iter("testcase"))
        found = Counter(child.tag for case in cases for child in case if child.tag != "properties")
        assert int(element.attrib["tests"]) == len(cases)
        for tag, attribute in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            assert int(element.attrib[attribute]) == found[tag]


@pytest.mark.parametrize(
    "run", [samples.nothing(), samples.empty(), samples.regressed(), samples.every_verdict(), samples.interrupted()]
)
def test_what_is_not_clean_is_never_green(run: Run) -> None:
    assert run.exit_code != 0
    assert any(outcome(case)[0] in ("failure", "error") for case in read(run).values())


def test_only_unsupported_cells_are_not_green() -> None:
    cases = read(samples.run(samples.cell("lora-a", "unsupported", reason="old")))
    assert outcome(cases["something was compared"])[:2] == ("error", "nothing-compared")


@pytest.mark.parametrize("run", [samples.green(), samples.clean(), samples.run(samples.known(samples.wrong("lokr-a")))])
def test_what_is_clean_has_no_failure(run: Run) -> None:
    assert run.exit_code == 0
    assert all(outcome(case)[0] in ("passed", "skipped") for case in read(run).values())


def test_expectations_and_what_never_ran_have_their_cases() -> None:
    cases = read(samples.every_verdict())
    assert outcome(cases["old"]) == ("failure", "expired", "its date 2026-01-01 is past")
    assert outcome(cases["lora-never@v061:current[cpu]"])[0] == "error"
    assert outcome(cases["lora-slow"]) == ("skipped", "left-out", "left out: takes an hour; ask with --slow")


def test_changes_against_a_baseline() -> None:
    run = samples.against_baseline()
    changed = properties(run, "testcase", "lokr-alpha@v061:current[cpu]")["change"]
    assert changed == "regressed: exact → silent-wrong"
    assert outcome(read(run)["lora-gone@v061:current[cpu]"])[:2] == ("skipped", "gone")


@pytest.mark.parametrize("text", samples.HOSTILE)
def test_hostile_text_comes_back_as_text(text: str) -> None:
    run = samples.hostile(text)
    root = ElementTree.fromstring(junit.render(run))
    assert {child.tag for child in root.iter()} <= {
        *("testsuites", "testsuite", "testcase", "properties", "property", "failure", "error", "skipped")
    }
    names = {case.attrib["name"] for case in root.iter("testcase")}
    # A reader of attributes sees a line break as a space (XML 1.0, 3.3.3), unless it was written as a reference.
    assert visible_lines(run.cells[0].id) in names or "\n" in text
    read(run)
