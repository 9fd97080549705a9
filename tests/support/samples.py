"""Runs made by hand for the tests of everything that reads a run."""

from __future__ import annotations

from typing import Any

from harness.core.comparison import Comparison
from harness.core.run import (
    Cell,
    CheckpointKeys,
    EnvironmentReport,
    ErrorReport,
    ExpectationProblem,
    Figures,
    Finding,
    LayerSketch,
    ProbeResult,
    Run,
    finished,
)
from harness.core.verdict import Verdict

HOSTILE = (
    "<script>alert(1)</script>",
    "| a | b |",
    "`tick` ```fence```",
    "line\nbreak\r\n\n# title",
    "\x1b[31mred\x1b[0m\x1b]8;;http://evil.example\x07link",
    "nul\x00 bell\x07 del\x7f c1\x9b31m",
    "bidi\u202e\u2066gnp.exe\u2069",
    "[red]markup[/red] [/] [link=http://evil.example]x[/link] :skull:",
    "]]></failure><x/>",
    "@somebody #1 https://evil.example www.evil.example",
    "=HYPERLINK(1)",
    "\ud800\ufffe\U0001f600",
    "![x](http://evil.example/x.png) </details> &lt;",
)
"""Texts in a checkpoint, a warning or a traceback that try to leave the place where they are shown."""


def environment(name: str, peft: str, role: str = "creator", **more: Any) -> EnvironmentReport:
    """An environment with the packages that reports show."""
    versions = {"peft": peft, "transformers": "5.23.0" if role == "loader" else "4.35.2", "torch": "2.13.0+cpu"}
    versions |= {"accelerate": "1.9.0" if role == "loader" else "0.24.1", "safetensors": "0.6.2"}
    return EnvironmentReport(name=name, role=(role,), kind="named", python="3.11.7", versions=versions, **more)


V061 = environment("v061", "0.6.1")
CURRENT = environment("current", "0.21.2", "loader")


def cell(scenario: str, verdict: Verdict | str, creator: str = "v061", loader: str = "current", **more: Any) -> Cell:
    """A cell with the given verdict; its family is the first word of the scenario's name."""
    device = more.pop("device", "cpu")
    name = f"{scenario}@{creator}:{loader}[{device}]"
    values: dict[str, Any] = {
        "id": name,
        "scenario": scenario,
        "creator": creator,
        "loader": loader,
        "device": device,
        "family": scenario.split("-")[0],
        "method": scenario.split("-")[0],
        "verdict": Verdict(verdict),
        "duration_s": 0.25,
        "reproduce": f"peft-regress check --creator {creator} --loader {loader} -k {scenario}",
    }
    return Cell(**values | more)


def exact(scenario: str, **more: Any) -> Cell:
    """A cell that is equal to the bit."""
    probes = {"forward": ProbeResult(verdict=Verdict.EXACT, outcome="ok", duration_s=0.01)}
    return cell(scenario, Verdict.EXACT, probes=probes, worst_ratio=0.0, adapter_delta=0.0, base_delta=0.0, **more)


def close(scenario: str, **more: Any) -> Cell:
    """A cell within the noise."""
    figures = Figures(array="forward/float32/logits", max_abs=7.5e-8, allowance=2.4e-7, scale=0.4, elements=640)
    probes = {"forward": ProbeResult(verdict=Verdict.CLOSE, outcome="ok", figures=(figures,), duration_s=0.01)}
    return cell(
        scenario, Verdict.CLOSE, probes=probes, worst_ratio=figures.ratio, adapter_delta=1e-9, base_delta=7e-8, **more
    )


LOKR_FIGURES = Figures(
    array="forward/float32/logits",
    dtype="float32",
    shape=(2, 10, 32),
    elements=640,
    differing=640,
    max_abs=0.79123456,
    index=(0, 3, 17),
    golden=-0.41250001,
    now=0.37873455,
    allowance=4.1e-7,
    scale=0.37,
    histogram=(0,) * 17 + (12, 400, 228, 0),
)


def wrong(scenario: str, ratio: float = 1.9e6, **more: Any) -> Cell:
    """A cell with a wrong result, like LoKr with alpha ≠ r."""
    layer = "model.layers.0.self_attn.q_proj"
    message = f"the output differs; the first layer that differs is {layer}"
    values: dict[str, Any] = {
        "probes": {
            "forward": ProbeResult(
                verdict=Verdict.SILENT_WRONG, outcome="ok", figures=(LOKR_FIGURES,), duration_s=0.02
            ),
            "base": ProbeResult(verdict=Verdict.EXACT, outcome="ok", duration_s=0.01),
            "merged": ProbeResult(verdict=Verdict.SILENT_WRONG, outcome="ok", figures=(LOKR_FIGURES,), duration_s=0.03),
            "generate": ProbeResult(verdict=Verdict.UNSUPPORTED, outcome="skipped", reason="the base has no generate"),
        },
        "findings": (
            Finding(probe="merged", kind="values", verdict=Verdict.SILENT_WRONG, message=message, figures=LOKR_FIGURES),
            Finding(
                probe="forward",
                kind="values",
                verdict=Verdict.SILENT_WRONG,
                message=message,
                figures=LOKR_FIGURES,
                subject=layer,
            ),
        ),
        "layers": (
            LayerSketch(name="model.layers.0.input_layernorm", kind="block", max_abs=0.0, allowance=1e-7, scale=1.0),
            LayerSketch(name=layer, kind="adapter", max_abs=0.26, allowance=1.1e-7, scale=0.3),
        ),
        "first_difference": layer,
        "adapter_delta": 0.262,
        "base_delta": 3e-8,
        "worst_ratio": ratio,
        "keys": CheckpointKeys(total=8, arrived=8),
        "new_warnings": ("UserWarning: Unsupported layer type is found",),
        "fixture": "ab" * 32,
        "fixture_origin": "committed",
    }
    return cell(scenario, Verdict.SILENT_WRONG, **values | more)


def lost(scenario: str, **more: Any) -> Cell:
    """A cell that loses part of its checkpoint, like LoRA with biases."""
    keys = CheckpointKeys(total=12, arrived=8, lost=("base_model.model.model.layers.0.self_attn.q_proj.bias",) * 4)
    found = Finding(
        probe="accounting",
        kind="lost-tensors",
        verdict=Verdict.SILENT_WRONG,
        message="4 of 12 tensors of the checkpoint are nowhere in the loaded model",
    )
    cell = wrong(scenario, 3.4e5, **more)
    return cell.model_copy(update={"keys": keys, "findings": (*cell.findings, found)})


def refused(
    scenario: str, message: str = "size mismatch for layers.3: (8, 16) vs (16, 8) at 0x7f00", **more: Any
) -> Cell:
    """A cell whose loading raised."""
    error = ErrorReport(
        stage="state dict",
        type="RuntimeError",
        message=message,
        traceback=f"File x.py, line 3\nRuntimeError: {message}",
    )
    found = Finding(
        probe="load",
        kind="error",
        verdict=Verdict.LOAD_ERROR,
        message=f"loading failed (state dict): RuntimeError: {message}",
        stage="state dict",
        error_type="RuntimeError",
    )
    return cell(scenario, Verdict.LOAD_ERROR, error=error, findings=(found,), log_tail=f"loading\n{message}", **more)


def crashed(scenario: str, **more: Any) -> Cell:
    """A cell whose process died."""
    return cell(
        scenario, Verdict.CRASH, reason="the worker was killed by signal 11", log_tail="Fatal Python error", **more
    )


def known(cell: Cell, issue: str = "https://github.com/huggingface/peft/issues/1") -> Cell:
    """The same cell as a known break."""
    return cell.model_copy(
        update={
            "expected": True,
            "expectation": "lokr-alpha",
            "expectation_issue": issue,
            "expectation_expires": "2027-06-30",
            "expectation_reason": "LoKr with alpha ≠ r: no scaling up to 0.13.2, alpha/r from 0.14.0",
        }
    )


def trained(
    creator: str, loader: str, *lines: str, scenario: str = "sft-bf16", probe: str = "sft", **more: Any
) -> Cell:
    """A cell on how a trainer changes a model, with the lines that differ from the creator."""
    verdict = Verdict.CONTRACT if lines else Verdict.EXACT
    finding = Finding(
        probe=probe, kind="structure-steps", verdict=Verdict.CONTRACT, message="it differs", details=lines
    )
    return cell(
        scenario, verdict, creator, loader, findings=(finding,) if lines else (),
        probes={probe: ProbeResult(verdict=verdict, outcome="ok")}, **more,
    )  # fmt: skip


def run(*cells: Cell, environments: tuple[EnvironmentReport, ...] = (V061, CURRENT), **more: Any) -> Run:
    """A finished run of the given cells."""
    values: dict[str, Any] = {
        "id": "2026-11-20T03-12-00",
        "created": "2026-11-20T03:12:00Z",
        "tool_version": "0.1.0",
        "command": "peft-regress check --creator v061 --loader current",
        "environments": environments,
        "plan": tuple(cell.id for cell in cells),
        "cells": cells,
        "duration_s": 38.2,
    }
    return finished(Run(**values | more))


def green() -> Run:
    """Everything agrees."""
    return run(exact("lora-llama"), exact("lora-opt"), close("ia3-llama"), close("loha-llama"))


def clean() -> Run:
    """Everything agrees or is a known break."""
    return run(
        exact("lora-llama"),
        close("ia3-llama", standing_defects=("merged: the creator can't merge this either",)),
        known(wrong("lokr-alpha")),
        known(wrong("lokr-both")),
    )


def fixed() -> Run:
    """The creator cannot read back what it saved, and the loader can."""
    wrong_reload = "silent-wrong: the output differs by 0.5"
    return run(
        exact("lora-llama"),
        close("lora-head", fixed=("the creator's own reload is wrong",), creators_own=wrong_reload),
    )


def regressed() -> Run:
    """Three causes, a known break, cells that could not be judged."""
    return run(
        exact("lora-llama"),
        close("ia3-llama"),
        wrong("lokr-alpha"),
        wrong("lokr-both", 2.5e6),
        wrong("lokr-conv", 31.0),
        lost("lora-bias-all"),
        refused("adalora-gpt2"),
        known(wrong("lokr-old")),
        cell("lora-t5", "no-fixture", reason="no manifest fixtures/v061/lora-t5.json"),
        cell("lora-dora", "unsupported", reason="v061 has no such feature: requires peft>=0.9"),
        cell("lora-warns", "warned", new_warnings=("FutureWarning: x is deprecated",)),
    )


def every_verdict() -> Run:
    """One cell per verdict, and one of everything else that a report can show."""
    plain = {
        verdict: cell(f"lora-{verdict}", verdict, reason=f"the reason for {verdict}")
        for verdict in Verdict
        if verdict not in (Verdict.SILENT_WRONG, Verdict.LOAD_ERROR, Verdict.CRASH)
    }
    cells = (wrong("lokr-alpha"), refused("lora-load-error"), crashed("lora-crashed"), *plain.values())
    return run(
        *cells,
        known(wrong("lokr-old")),
        plan=(*(cell.id for cell in cells), "lora-never@v061:current[cpu]"),
        left_out={"lora-slow": "takes an hour; ask with --slow"},
        expectation_problems=(
            ExpectationProblem(id="gone", problem="stale", message="nothing deviates any more: remove it"),
            ExpectationProblem(id="old", problem="expired", message="its date 2026-01-01 is past"),
        ),
    )


def across_releases() -> Run:
    """One cause over several creators with a sound one between, and two loaders."""
    creators = [("v061", "0.6.1"), ("v090", "0.9.0"), ("v0100", "0.10.0"), ("v0132", "0.13.2"), ("v0171", "0.17.1")]
    loaders = [("v0200", "0.20.0"), ("current", "0.21.2")]
    bad = {("v061", "current"), ("v090", "current"), ("v0132", "current"), ("v061", "v0200")}
    cells = [
        (wrong if (creator, loader) in bad else exact)("lokr-alpha", creator=creator, loader=loader)
        for creator, _ in creators
        for loader, _ in loaders
    ]
    environments = [environment(name, peft) for name, peft in creators]
    return run(*cells, environments=(*environments, *(environment(name, peft, "loader") for name, peft in loaders)))


def interrupted() -> Run:
    """Ctrl-C after two of four cells."""
    plan = tuple(f"lora-{n}@v061:current[cpu]" for n in range(4))
    return run(exact("lora-0"), exact("lora-1"), plan=plan, interrupted=True)


def nothing() -> Run:
    """A run in which nothing was compared."""
    failed = environment("current", "", "loader", failed="× No solution found:\n  because peft==9 does not exist")
    reason = "current: × No solution found"
    cells = [cell(f"lora-{n}", "env-failed", reason=reason) for n in range(3)]
    return run(*cells, environments=(V061, failed))


def empty() -> Run:
    """A run without a single cell."""
    return run()


def against_baseline() -> Run:
    """A run that is compared with an older one."""
    gone = "lora-gone@v061:current[cpu]"
    return regressed().model_copy(
        update={
            "baseline": "2026-11-19T03-12-00",
            "comparisons": (
                Comparison(
                    cell="lokr-alpha@v061:current[cpu]",
                    change="regressed",
                    before=Verdict.EXACT,
                    now=Verdict.SILENT_WRONG,
                ),
                Comparison(
                    cell="ia3-llama@v061:current[cpu]", change="fixed", before=Verdict.LOAD_ERROR, now=Verdict.CLOSE
                ),
                Comparison(cell="lokr-both@v061:current[cpu]", change="new", now=Verdict.SILENT_WRONG),
                Comparison(cell=gone, change="gone", before=Verdict.EXACT),
                Comparison(
                    cell="lokr-old@v061:current[cpu]",
                    change="still",
                    before=Verdict.SILENT_WRONG,
                    now=Verdict.SILENT_WRONG,
                ),
            ),
        }
    )


def hostile(text: str) -> Run:
    """A run with one text in every place that untrusted text can reach."""
    finding = Finding(
        probe=text,
        kind=text,
        verdict=Verdict.SILENT_WRONG,
        message=text,
        subject=text,
        details=(text,),
        figures=Figures(array=text, max_abs=1.0, allowance=0.1),
    )
    bad = wrong(
        f"x-{text}",
        family=text,
        method=text,
        findings=(finding,),
        probes={
            text: ProbeResult(verdict=Verdict.SILENT_WRONG, outcome="ok", figures=(Figures(array=text, max_abs=1.0),))
        },
        layers=(LayerSketch(name=text, kind="adapter", max_abs=1.0, allowance=0.1),),
        keys=CheckpointKeys(total=3, lost=(text,), undecided=(text,), unexpected=(text,)),
        first_difference=text,
        config_differences=(text,),
        new_warnings=(text,),
        notes=(text,),
        standing_defects=(text,),
        error=ErrorReport(stage=text, type=text, message=text, traceback=text),
        log_tail=text,
        reproduce=text,
    )
    error = refused("y", text).model_copy(update={"id": f"y{text}"})
    unknown = cell("z", "env-failed", reason=text)
    prepared = trained("v061", "current", f"{text}: {text}", scenario=f"s-{text}")
    environments = (V061, CURRENT.model_copy(update={"failed": text, "versions": {**CURRENT.versions, text: text}}))
    change = Comparison(cell=text, change="regressed", before=Verdict.EXACT, now=Verdict.CONTRACT)
    return run(
        bad,
        error,
        unknown,
        prepared,
        exact(f"w-{text}"),
        known(wrong("k"), text).model_copy(
            update={"expectation": text, "expectation_reason": text, "expectation_expires": text}
        ),
        cell("u", "unsupported", reason=text),
        environments=environments,
        plan=(bad.id, error.id, unknown.id, prepared.id, f"never {text}"),
        left_out={text: text},
        title=text,
        command=text,
        notes=(text,),
        notices=(text,),
        baseline=text,
        comparisons=(change,),
        expectation_problems=(ExpectationProblem(id=text, problem="stale", message=text),),
    )


def plain() -> tuple[Run, ...]:
    """Runs of all kinds, without hostile text."""
    return (
        green(), clean(), regressed(), every_verdict(), across_releases(), interrupted(), nothing(), empty(),
        against_baseline(),
    )  # fmt: skip
