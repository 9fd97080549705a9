"""A known break covers what is known and nothing else: a table of what is known, found and said."""

from __future__ import annotations

import math
from typing import Any

import pytest

from harness.core.pattern import Pattern
from harness.core.run import Cell, Figures, Finding, ProbeResult
from harness.core.verdict import Verdict
from harness.judge import shape, shape_measured
from harness.judge.shape import Line
from tests.support.samples import cell as sample

SCALED = "model.layers.0.self_attn.q_proj.bias", "model.layers.1.self_attn.q_proj.bias"


def factor(value: float, *expressions: str, layers: int = 4) -> Pattern:
    """An effect times a number in some of four layers."""
    names = tuple("abcd"[:layers])
    return Pattern(kind="factor", says=f"×{value}", factor=value, expressions=expressions, layers=names, compared=4)


def numbers(error: float, pattern: Pattern | None = None, probe: str = "forward", allowance: float = 1e-6) -> Finding:
    """Values that differ, by this error relative to the RMS."""
    figures = Figures(
        array=f"{probe}/float64/a", dtype="float64", max_abs=2 * error, scale=2.0, allowance=2 * allowance, differing=9
    )
    return Finding(
        probe=probe, kind="values", verdict=Verdict.SILENT_WRONG, message="differs", figures=figures, pattern=pattern
    )


def lost(*names: str) -> Finding:
    return Finding(probe="accounting", kind="lost-tensors", verdict=Verdict.SILENT_WRONG, message="lost", details=names)


def error(stage: str, message: str, kind: str = "builtins.TypeError") -> Finding:
    return Finding(
        probe="load", kind="error", verdict=Verdict.LOAD_ERROR, stage=stage, error_type=kind,
        message=f"loading failed ({stage}): {kind}: {message}",
    )  # fmt: skip


def config(*entries: str) -> Finding:
    return Finding(probe="roundtrip", kind="config", verdict=Verdict.CONTRACT, message="config", details=entries)


def cell(*findings: Finding, scenario: str = "lora-a", **more: Any) -> Cell:
    worst = min((finding.verdict for finding in findings), key=lambda verdict: verdict.severity)
    return sample(scenario, worst, findings=findings, **more)


KEY = "__init__() got an unexpected keyword argument 'alpha_pattern'"
LOKR = cell(numbers(2.0, factor(3.0, "alpha/r")), numbers(5.0, factor(3.0, "alpha/r"), "layers"))
BIAS = cell(numbers(1.3), lost(*SCALED))
REFUSED = cell(error("config", KEY))
CONTRACT = cell(config("use_dora: None → False"))
NAN = Pattern(kind="not-finite", says="the effect is NaN", detail="NaN")
ZERO = Pattern(kind="zero", says="the effect is 0", factor=0.0, layers=("a", "b", "c", "d"), compared=4)


@pytest.mark.parametrize(
    ("known", "now", "says"),
    [
        (LOKR, LOKR, ""),
        (LOKR, cell(numbers(2.15, factor(3.0, "alpha/r")), LOKR.findings[1]), ""),  # within the margin
        (LOKR, cell(numbers(2.0, factor(-22.5)), LOKR.findings[1]), "found ×-22.5, known is factor alpha/r"),
        (LOKR, cell(numbers(math.inf, NAN), LOKR.findings[1]), "values that are not finite, known is factor alpha/r"),
        (LOKR, cell(numbers(math.inf), LOKR.findings[1]), "values that are not finite"),
        (LOKR, cell(numbers(1.0, ZERO), LOKR.findings[1]), "found the effect is 0, known is factor alpha/r"),
        (LOKR, cell(numbers(2.0), LOKR.findings[1]), "found no pattern, known is factor alpha/r"),  # a wrong base
        (LOKR, cell(numbers(1.1, factor(3.0, "alpha/r", layers=2))), "forward values: found ×3.0"),  # half fixed
        (LOKR, cell(*LOKR.findings, lost("a.bias")), "accounting lost-tensors is not known: lost"),
        (LOKR, cell(numbers(2.6, factor(3.0, "alpha/r"))), "the size is 2.6 × the RMS, known is 2"),
        (BIAS, cell(numbers(1.30001), lost(*SCALED)), ""),
        (BIAS, cell(numbers(1.3), lost(*SCALED, "model.layers.0.fc1.bias")), "found model.layers.0.fc1.bias"),
        (BIAS, cell(numbers(1.3), lost(SCALED[0])), "accounting lost-tensors: the size is 1, known is 2"),
        (BIAS, cell(numbers(0.9), lost(*SCALED)), "forward values: the size is 0.9"),
        (BIAS, cell(numbers(1.3), lost(*SCALED), numbers(0.5, probe="layers")), "layers values is not known"),  # scaled
        (BIAS, cell(lost(*SCALED)), "forward values is known, but was not found"),
        (REFUSED, cell(error("config", KEY)), ""),
        (REFUSED, cell(error("injection", KEY)), "injection · TypeError"),
        (REFUSED, cell(error("config", "Target modules q_proj not found")), "'config · TypeError: Target modules"),
        (REFUSED, cell(error("config", KEY, "ValueError")),
         "config · ValueError"),
        (CONTRACT, cell(config("use_dora: None → True")), ""),
        (CONTRACT, cell(config("use_dora: None → False", "bias: none → all")), "config: found bias: none → all"),
    ],
)  # fmt: skip
def test_what_deviates_otherwise_than_known_is_named(known: Cell, now: Cell, says: str) -> None:
    lines, sizes = shape_measured.measured([known])
    found = "; ".join(shape.unlike(lines, sizes.get(now.scenario, {}), now))
    assert (says in found) if says else not found


def test_values_that_are_not_finite_are_covered_only_where_they_are_stated() -> None:
    nan = cell(numbers(math.inf, NAN))
    assert shape.unlike({"values": Line()}, {}, nan)
    assert not shape.unlike({"values": Line(pattern=["not-finite NaN"])}, {}, nan)


@pytest.mark.parametrize(("size", "now", "same"), [(8.9e-7, 2.2e-6, True), (8.9e-7, 4.1e-6, False)])
def test_what_is_near_the_allowance_may_be_off_by_rounding(size: float, now: float, same: bool) -> None:
    lines, sizes = shape_measured.measured([cell(numbers(size, allowance=7e-7))])
    assert sizes["lora-a"]["forward values"] == [0, size]  # it may be absent on another machine
    assert (not shape.unlike(lines, sizes["lora-a"], cell(numbers(now, allowance=7e-7)))) is same


def test_a_shape_is_symbolic_and_a_size_is_one_for_each_scenario() -> None:
    lines, sizes = shape_measured.measured([
        cell(numbers(2.0, factor(3.0, "alpha/r", "r"))),
        cell(numbers(0.5, factor(2.0, "alpha/r")), scenario="lora-b"),
        cell(numbers(0.51, factor(2.0, "sqrt(r)", "alpha/r")), scenario="lora-b", creator="v070"),
    ])  # fmt: skip
    assert lines == {"forward values": Line(pattern=["factor alpha/r"])}
    assert sizes == {"lora-a": {"forward values": 2}, "lora-b": {"forward values": [0.5, 0.51]}}


def test_the_greatest_of_the_layers_is_the_size_whichever_leads() -> None:
    small, great = (numbers(size, probe="layers").figures for size in (1.0, 1.2))
    assert small is not None
    assert great is not None
    probes = {"layers": ProbeResult(verdict=Verdict.SILENT_WRONG, outcome="ok", figures=(small, great))}
    one = cell(numbers(1.0, probe="layers"), probes=probes)
    assert shape_measured.measured([one])[1] == {"lora-a": {"layers values": 1.2}}


def test_names_and_messages_are_without_what_varies() -> None:
    names = ("base_model.model.model.layers.0.q_proj.bias", "base_model.model.model.layers.1.q_proj.bias")
    lines, _ = shape_measured.measured([
        cell(lost(*names)),
        cell(error("load", "size 3 at 0x7f12ab of /tmp/x/adapter.bin is not [4]", "a.b.OddError")),
        cell(config("modules_to_save: ['a'] → None", "bias: none → all")),
        cell(config("config: tied: True → False", "x: {'a: b': 1}", "- r (was ['a.b', 'c'])")),
    ])  # fmt: skip
    assert lines["accounting lost-tensors"] == Line(names=["*.q_proj.bias"])
    assert lines["load error"] == Line(says=["load · OddError: size * at * of * is not [*]"])
    assert lines["roundtrip config"] == Line(
        names=["- r *", "bias: *", "config: tied: *", "modules_to_save: *", "x: *"]
    )
    assert not shape.unlike(lines, {}, cell(error("load", "size 5 at 0x0 of /y/z/w is not [12]", "OddError")))


def test_an_update_widens_and_forgets_nothing() -> None:
    known = {"values": Line(pattern=["factor alpha/r"]), "load error": Line(says=["config · *"])}
    others = [cell(numbers(1.0, ZERO)), cell(error("injection", "no")), BIAS]
    lines, sizes = shape_measured.measured(others, known, {"lora-b": {"forward values": 1}})
    assert lines["values"] == Line(pattern=None)  # one of them has no pattern: it is left open
    assert lines["load error"].says == ["config · *", "injection · TypeError: no"]
    assert lines["accounting lost-tensors"].names == ["*.self_attn.q_proj.bias"]
    assert sizes["lora-b"] == {"forward values": 1}
    assert all(not shape.unlike(lines, sizes.get(one.scenario, {}), one) for one in others)


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (LOKR, ""),
        (cell(numbers(1.0, factor(3.0, "alpha/r", layers=2))), ""),  # half of it: less
        (cell(numbers(1.0, ZERO)), "found the effect is 0"),
        (cell(numbers(2.0, factor(-22.5))), "found ×-22.5"),
        (cell(numbers(3.0, factor(3.0, "alpha/r"))), "the size is 3 × the RMS, known is 0 to 2"),
        (cell(*LOKR.findings, lost("a")), "lost-tensors is not known"),
    ],
)
def test_against_a_baseline_less_of_the_same_is_not_worse(now: Cell, says: str) -> None:
    found = "; ".join(shape_measured.worse(LOKR, now))
    assert (says in found) if says else not found
