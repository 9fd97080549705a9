"""Deviations grouped by what is the matter with them."""

from __future__ import annotations

import pytest

from harness.core.pattern import Pattern
from harness.core.run import Cell, ErrorReport, Finding
from harness.core.verdict import Verdict
from harness.judge import causes
from tests.support import samples
from tests.support.samples import cell, exact, known, lost, refused, run, wrong


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("object at 0x7f3a01", "object at 0xdeadbeef"),
        ("shape [8, 16] and [16, 8]", "shape [4, 4, 2] and [1]"),
        ("No module named 'peft.tuners.lora'", "No module named 'peft.tuners.oft.layer'"),
        ("can't open /tmp/a/b.bin", "can't open /home/x/y/z.safetensors"),
        ("model.layers.3.self_attn.q_proj is gone", "model.layers.11.mlp.up_proj is gone"),
        ("loss 1.5e-3", "loss 2"),
        ("two\n  lines", "two lines"),
    ],
)
def test_two_instances_of_one_error_are_normalised_alike(one: str, other: str) -> None:
    assert causes.normalised(one) == causes.normalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("size mismatch", "missing keys"), ("unexpected keyword 'use_dora'", "unexpected keyword 'use_qalora'")],
)
def test_different_errors_stay_different(one: str, other: str) -> None:
    assert causes.normalised(one) != causes.normalised(other)


def test_one_cause_for_cells_of_one_family_and_finding() -> None:
    found = causes.unexpected(samples.regressed())
    assert [(str(cause.verdict), cause.title, len(cause.cells)) for cause in found] == [
        ("silent-wrong", "lokr · forward: values differ", 3),
        ("silent-wrong", "lora · accounting: tensors of the checkpoint never arrive", 1),
        ("load-error", "state dict · RuntimeError: size mismatch for layers.3: (8, 16) vs (16, 8) at 0x7f00", 1),
    ]


def test_the_representative_has_the_worst_ratio() -> None:
    cause = causes.unexpected(samples.regressed())[0]
    assert cause.representative.scenario == "lokr-both"
    assert cause.scenarios == ("lokr-alpha", "lokr-both", "lokr-conv")


def test_the_most_telling_finding_decides() -> None:
    finding = causes.main_finding(lost("lora-bias"))
    assert finding is not None
    assert finding.kind == "lost-tensors"
    finding = causes.main_finding(wrong("lokr-alpha"))
    assert finding is not None
    assert finding.probe == "forward", "merged is wrong because forward is"


def test_a_worse_finding_outranks_a_more_telling_kind() -> None:
    findings = (
        Finding(probe="roundtrip", kind="lost-tensors", verdict=Verdict.CONTRACT, message="a key"),
        Finding(probe="merged", kind="values", verdict=Verdict.SILENT_WRONG, message="values"),
    )
    finding = causes.main_finding(cell("lora-x", "silent-wrong", findings=findings))
    assert finding is findings[1]


def test_errors_are_one_cause_across_families_and_have_no_numbers_in_a_shared_title() -> None:
    one = refused("lora-a", "mismatch at 0x1f: 3 and 4")
    two = refused("loha-b", "mismatch at 0x2f: 5 and 6")
    (cause,) = causes.unexpected(run(one, two))
    assert cause.title == "state dict · RuntimeError: mismatch at <address>: <n> and <n>"


def test_an_error_without_a_finding_is_told_by_its_report() -> None:
    error = ErrorReport(stage="forward", type="KeyError", message="'x'")
    (cause,) = causes.unexpected(run(cell("lora-a", "run-error", error=error)))
    assert cause.title == "forward · KeyError: 'x'"


def test_a_crash_is_told_by_its_reason_or_its_last_words() -> None:
    one = cell("lora-a", "crash", log_tail="loading\nSegmentation fault (core dumped) pid 17\n")
    two = cell("loha-b", "crash", log_tail="Segmentation fault (core dumped) pid 18")
    (cause,) = causes.unexpected(run(one, two))
    assert cause.title == "Segmentation fault (core dumped) pid <n>"


def test_ranges_never_span_a_release_that_is_sound() -> None:
    (cause,) = causes.unexpected(samples.across_releases())
    assert cause.creators.ranges == "0.6.1–0.9.0, 0.13.2"
    assert cause.creators.bad == ("0.6.1", "0.9.0", "0.13.2")
    assert cause.creators.first == "0.6.1"
    assert cause.loaders.first == "0.20.0"


def test_a_release_that_was_not_tried_does_not_break_a_range() -> None:
    environments = tuple(samples.environment(f"v{n}", f"0.{n}.0") for n in (6, 7, 8))
    cells = (wrong("lokr-a", creator="v6"), exact("lora-b", creator="v7"), wrong("lokr-a", creator="v8"))
    (cause,) = causes.unexpected(run(*cells, environments=environments))
    assert cause.creators.ranges == "0.6.0–0.8.0"


def test_releases_are_ordered_as_versions_and_unknown_ones_come_last() -> None:
    environments = tuple(samples.environment(name, peft) for name, peft in (("a", "0.10.0"), ("b", "0.9.0"), ("c", "")))
    cells = [wrong("lokr-a", creator=name) for name in ("a", "b", "c")]
    (cause,) = causes.unexpected(run(*cells, environments=environments))
    assert cause.creators.bad == ("0.9.0", "0.10.0", "c")


def test_two_creators_of_one_release_are_told_apart_by_name() -> None:
    environments = (samples.V061, samples.environment("v061-torch21", "0.6.1"), samples.CURRENT)
    cells = (wrong("lokr-a"), wrong("lokr-a", creator="v061-torch21"))
    (cause,) = causes.unexpected(run(*cells, environments=environments))
    assert cause.creators.bad == ("0.6.1 (v061)", "0.6.1 (v061-torch21)")


def test_expected_causes_are_kept_apart() -> None:
    found = causes.group(run(wrong("lokr-a"), known(wrong("lokr-b")), known(wrong("lokr-c"))))
    assert [(cause.expected, len(cause.cells)) for cause in found] == [(False, 1), (True, 2)]
    assert found[1].details["id"] == "lokr-alpha"


def test_a_new_warning_is_a_cause_only_where_it_counts() -> None:
    warned = cell("lora-a", "warned", new_warnings=("x",))
    assert causes.unexpected(run(warned)) == ()
    assert len(causes.unexpected(run(warned, strict=True))) == 1


def test_each_new_warning_is_a_cause_of_its_own() -> None:
    def warns(name: str, text: str) -> Cell:
        said = Finding(probe="warnings", kind="new-warning", verdict=Verdict.WARNED, message=text)
        return cell(name, "warned", findings=(said,))

    found = causes.unexpected(
        run(warns("lora-a", "x is 3"), warns("loha-b", "x is 4"), warns("lora-c", "y"), strict=True)
    )
    assert [(cause.title, len(cause.cells)) for cause in found] == [
        ("a new warning: x is <n>", 2),
        ("a new warning: y", 1),
    ]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("loading failed (config): TypeError: no such key", "TypeError: no such key"),
        ("TypeError: no such key", "TypeError: no such key"),
        ("no such key", "TypeError: no such key"),
    ],
)
def test_what_was_raised_is_said_once(message: str, said: str) -> None:
    finding = Finding(probe="load", kind="error", verdict=Verdict.LOAD_ERROR, message=message, error_type="TypeError")
    assert causes.raised(finding) == said


def test_what_could_not_be_judged_is_grouped_by_reason() -> None:
    (cause,) = causes.undetermined(samples.nothing())
    assert (str(cause.verdict), cause.title, len(cause.cells)) == ("env-failed", "current: × No solution found", 3)


def test_every_cell_that_is_not_clean_has_exactly_one_place() -> None:
    sample = samples.every_verdict()
    every = (*causes.group(sample), *causes.undetermined(sample), *causes.unsupported(sample))
    placed = sorted(cell.id for cause in every for cell in cause.cells)
    assert placed == sorted(cell.id for cell in sample.cells if not cell.verdict.is_clean)


def factor(name: str, *expressions: str) -> Cell:
    """A cell whose effect has a factor that these expressions of its config give."""
    pattern = Pattern(kind="factor", says="×2 in 2 of 2 layers", factor=2.0, expressions=expressions)
    finding = Finding(probe="layers", kind="values", verdict=Verdict.SILENT_WRONG, message="", pattern=pattern)
    return cell(name, "silent-wrong", findings=(finding,))


def test_cells_whose_factors_can_be_one_expression_have_one_cause() -> None:
    found = causes.unexpected(
        run(
            factor("lokr-a", "alpha/r"),
            factor("lokr-b", "√r", "alpha/r", "2"),
            factor("lokr-c", "√r"),
            factor("lokr-d"),
        )
    )
    assert {cause.title: cause.scenarios for cause in found} == {
        "lokr · layers: values differ, ×alpha/r": ("lokr-a", "lokr-b"),
        "lokr · layers: values differ, ×√r": ("lokr-c",),
        "lokr · layers: values differ, a constant factor": ("lokr-d",),
    }


def test_cells_with_other_patterns_have_other_causes() -> None:
    def cell_with(name: str, pattern: Pattern | None) -> Cell:
        finding = Finding(probe="layers", kind="values", verdict=Verdict.SILENT_WRONG, message="", pattern=pattern)
        return cell(name, "silent-wrong", findings=(finding,))

    zero, sign = Pattern(kind="zero", says="0"), Pattern(kind="sign", says="-")
    found = causes.unexpected(run(cell_with("lora-a", zero), cell_with("lora-b", sign), cell_with("lora-c", zero)))
    assert [cause.scenarios for cause in found] == [("lora-a", "lora-c"), ("lora-b",)]
