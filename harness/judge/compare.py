"""Compares two observations: what differs, by how much, and what that means (pure).

The order of the questions is the policy:

1. Did it load? An error there is the cell's verdict: see `harness.judge.outcomes`.
2. Did each probe run as it did for the creator? A probe that raises hides no other.
3. Did the base's own output move, and did the adapter's own effect (each layer fed the golden's input) move? If the
   outputs moved, the adapter is to blame, unless the base moved, every layer's effect is unchanged, and the outputs
   moved no further than the base's move explains.
4. What must be equal within the loader (merged = unmerged, disabled = base, …): see `harness.judge.invariants`. Other
   load paths than `PeftModel.from_pretrained`: see `harness.judge.load_paths`.
5. Contracts that no number shows: see `harness.judge.contracts`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.core import key_conversion
from harness.core.observation import Observed
from harness.core.run import Figures, ProbeResult
from harness.core.text import many
from harness.core.verdict import Verdict, worst
from harness.judge import (
    accounting,
    anew,
    base_drift,
    contracts,
    further,
    invariants,
    load_paths,
    numbers,
    outcomes,
    precision,
    standard,
    structure_steps,
    tokens,
    trainability,
    training,
    types,
    written,
)
from harness.judge.contracts import Found
from harness.judge.evidence import Evidence
from harness.judge.judgement import Judgement
from harness.judge.numbers import beyond
from harness.judge.pattern.findings import with_patterns
from harness.worker.shared import EQUALS, FURTHER

COMPARED = ("forward", "base", "layers", "train", "gradients", "generate", "fresh", *EQUALS)
"""Probes whose arrays are compared with the golden's."""


def judge(golden: Observed, now: Observed) -> Judgement:
    """Compare a replay with its golden."""
    found = Found()
    failed = outcomes.load_failure(golden, now, found)
    if failed is not None:
        return Judgement(
            failed,
            findings=tuple(found.findings),
            notes=tuple(found.notes),
            standing_defects=tuple(found.standing),
            creators_own=standard.of(golden, now).creators_own,
            conversion=key_conversion.seen(now),
            error=found.error,
        )
    return _Judge(golden, now, found).run()


class _Judge:
    """One comparison, step by step; each step appends to what was found."""

    def __init__(self, golden: Observed, now: Observed, found: Found) -> None:
        self.standard = standard.of(golden, now)
        self.golden, self.creator, self.now = self.standard.golden, self.standard.creator, now
        self.evidence = Evidence(self.golden, now, self.creator)
        self.found = found
        self.figures = {probe: self.evidence.figures(probe) for probe in COMPARED}
        self.load_paths = load_paths.figures(self.evidence)
        self.base_moved = self._moved("base")
        self.moved_with_base = base_drift.explained(self.evidence, self.figures["layers"]) if self.base_moved else ()
        self.scaled = base_drift.scaled(self.evidence, self.figures["layers"])
        self.adapter_moved = self._moved("layers") and not self.moved_with_base and not self.scaled
        self.layers = self.evidence.sketches()
        self.narrow: tuple[Figures, ...] = ()

    def run(self) -> Judgement:
        outcomes.compare(self.golden, self.now, self.found)
        self._unstable()
        self._arrays_missing()
        self._layers()
        self._outputs()
        self._fixed()
        self._generated()
        self._gradients()
        self._trained()
        if anew.compare(self.evidence, self.figures["fresh"], self._outputs_moved, self._base_alone, self.found):
            self._follows("fresh")
        invariants.compare(self.evidence, self.found, self._outputs_moved, self.standard.lacks_reload)
        load_paths.compare(self.evidence, self.found, self._outputs_moved)
        self._contracts()
        types.compare(self.creator, self.now, self.found)
        outcomes.kernels(self.golden, self.now, self.found)
        structure_steps.compare(self.golden, self.now, self.found)
        structure_steps.sft(self.golden, self.now, self.found)
        self.narrow = precision.compare(self.now, self.found)
        further.compare(self.evidence, self.found)
        outcomes.limits(self.evidence, self.found)
        return self._judgement()

    def _unstable(self) -> None:
        """Arrays that differ between two runs cannot be judged, unless the replay is further off than the runs are."""
        for probe, all_figures in self.figures.items():
            doubtful = [f for f in all_figures if not beyond(f) and f.max_abs > self.evidence.rounding(f)]
            if doubtful:
                golden, now = self.evidence.noise, self.evidence.own_noise
                spread = max(numbers.spread(f.array, golden, now) for f in doubtful)
                whose = "creator" if any(golden.spread.get(f.array, 0.0) == spread for f in doubtful) else "loader"
                message = (
                    f"two runs of the {whose} differ by {spread:.3g} in {many(len(doubtful), 'array')}, "
                    "so the replay's difference says nothing"
                )
                self._add(probe, "unstable", Verdict.UNSTABLE, message, figures=doubtful[0])

    def _arrays_missing(self) -> None:
        for probe in COMPARED:
            missing = self.evidence.missing(probe) if probe not in ("layers", "gradients") else []
            if missing:  # the two probes left out have findings of their own for it
                message = f"{len(missing)} outputs of {probe} are missing"
                self._add(probe, "outputs-missing", Verdict.CONTRACT, message, details=tuple(missing))

    # -- 3. numbers -------------------------------------------------------------------------------------------------

    def _moved(self, probe: str) -> bool:
        """True if a probe's own outputs exceed their allowance; those of the disabled adapter are another check."""
        return any(beyond(f) for f in self._own(probe))

    def _own(self, probe: str) -> list[Figures]:
        return [f for f in self.figures[probe] if "/disabled." not in f.array]

    @property
    def _outputs_moved(self) -> bool:
        """True if the outputs are not those of the creator's reload, so that what rests on them differs too."""
        return self.base_moved or self.adapter_moved or (self._moved("forward") and not self.standard.repeated)

    def _layers(self) -> None:
        if self.adapter_moved:
            worst_layer = self.figures["layers"][0]
            name = _name(worst_layer)
            count = len({_name(f) for f in self.figures["layers"] if beyond(f)})
            message = f"the adapter's own effect differs in {many(count, 'layer')}, most in {name}"
            self._values("layers", worst_layer, message, name)
        base_drift.report(self.evidence, self.moved_with_base, self.found)
        if self.scaled:
            self.found.notes.append("the base scales its embeddings inside the layer now; the outputs agree")
        if called_otherwise := self.now.fact("layers", "renamed"):
            old, new = next(iter(called_otherwise.items()))
            message = f"{len(called_otherwise)} adapter layers have other names (matched by the base's weights in them)"
            self.found.notes.append(f"{message}: {old} is {new}")
        known = set(self.golden.fact("layers", "missing") or [])
        missing = [name for name in self.now.fact("layers", "missing") or [] if name not in known]
        names_before, names_after = (set(side.fact("layers", "names") or []) for side in (self.golden, self.now))
        if missing and len(names_after - names_before) >= len(missing):
            # sound loaders rename; the outputs show whether the right layers carry the adapter
            self.found.notes.append(f"{len(missing)} adapter layers have other names and were not run alone")
        elif missing and self._fused():
            self.found.notes.append(f"{len(missing)} adapter layers were fused into others and not run alone")
        elif missing and not (self.standard.lacks_reload and self._outputs_agree):
            message = f"{len(missing)} adapter layers are missing: {', '.join(missing[:5])}"
            self._add("layers", "layers-missing", Verdict.SILENT_WRONG, message, details=tuple(missing))

    def _fused(self) -> set[str]:
        """Adapter layers that were replaced by others while the outputs agree: experts that a newer base stacks."""
        before, after = (set(side.fact("layers", "names") or []) for side in (self.golden, self.now))
        gone = before - after - set(self.now.fact("layers", "renamed") or {})
        return gone if after - before and self._outputs_agree else set()

    @property
    def _outputs_agree(self) -> bool:
        return bool(self.figures["forward"]) and not self._moved("forward")

    def _outputs(self) -> None:
        if self._moved("forward") and not (self.base_moved and self._effect_agrees()):
            self._forward_moved()
        elif self.base_moved and (size := precision.attention_moved_base(self.evidence)) is not None:
            # with the release's own attention the base agrees
            self.found.notes.append(f"the attention itself changes the base's output (by {size:.3g}); not judged")
        elif self.base_moved:
            agrees = "" if self._accused("layers") else "; the adapter's effect agrees"
            message = f"the base model's own output moved{agrees}{self._reference('base')}"
            figures = next(f for f in self._own("base") if beyond(f))
            self._add("base", "base-moved", Verdict.BASE_MOVED, message, figures=figures)
            if self._moved("forward"):
                self.found.follow["forward"] = Verdict.BASE_MOVED

    def _effect_agrees(self) -> bool:
        """True if the adapter's effect is unchanged, though base and output moved.

        Layers fed the golden's own inputs show what each does alone. They cannot show that the model uses them as
        before (trained biases, prompts, dropped wrappers), so the output must not have moved out of proportion to the
        base.
        """
        if self._accused("layers"):
            return False
        explained = self.evidence.explained_by_base()
        if not explained:
            self.found.notes.append("the base's own output moved too, but too little to explain the output's change")
        elif not self.figures["layers"]:
            self.found.notes.append(
                "no layer of this method was run alone: base drift and adapter drift are distinguished by size only"
            )
        return explained

    def _forward_moved(self) -> None:
        first = self._first_difference()
        parts = ["the output differs"]
        if self.standard.reload_differs:
            same = ", as after the creator's own reload" if self.standard.repeated else ""
            parts = [f"the output differs {standard.SINCE_SAVED}{same}"]
        if first:
            parts.append(f"the first layer that differs is {first}")
        self._values("forward", self.figures["forward"][0], "; ".join(parts) + self._reference("forward"), first)

    def _fixed(self) -> None:
        """Say that the replay computes what was saved, and the creator's own reload does not."""
        if self.standard.lacks_reload and self._outputs_agree:
            own = self.standard.creators_own
            self.found.fixed.append(f"the creator's own reload is {own}; this loader computes what was saved")
            self.found.notes.append(
                "layers, gradients and train mode are not compared, because the creator's come from its wrong reload"
            )

    def _reference(self, probe: str) -> str:
        """For a quantised base: whether the quantised layers or the weights' meaning changed."""
        agrees = self.evidence.reference_agrees(probe)
        if agrees is None:
            return ""
        return (
            "; its dequantised reference agrees, so the quantised layers cause it"
            if agrees
            else "; its dequantised reference differs too, so the meaning of the weights changed"
        )

    def _first_difference(self) -> str:
        return next((row.name for row in self.layers if row.max_abs > row.allowance), "")

    @property
    def _base_alone(self) -> bool:
        """True if the outputs moved, and the base's move explains that."""
        return self.base_moved and not self._accused("layers") and not self._accused("forward")

    def _gradients(self) -> None:
        if not self._moved("gradients"):
            return
        alone = self._base_alone
        if (self._outputs_moved and not alone) or training.gradients(
            self.evidence, self.figures["gradients"], alone, self.found
        ):
            self._follows("gradients")

    def _trained(self) -> None:
        if training.train(self.evidence, self.figures["train"], self._outputs_moved, self._base_alone, self.found):
            self._follows("train")

    def _generated(self) -> None:
        if tokens.compare(self.evidence, self.figures["generate"], self._outputs_moved, self.found):
            self._follows("generate")

    # -- 5. contracts, and the sum ----------------------------------------------------------------------------------

    def _contracts(self) -> None:
        agreeing = {_name(f) for f in self.figures["layers"]} - {_name(f) for f in self.figures["layers"] if beyond(f)}
        if self._accused("forward"):
            agreeing = set()  # the outputs decide, and they differ
        fused = self._fused()
        converted = fused | set(self.now.fact("layers", "renamed") or {}) if self._outputs_agree else set()
        losses = self.standard.reload_differs and not self._outputs_agree
        accounting.compare(
            self.creator, self.now, agreeing | fused, self._outputs_agree, self.found, creators_losses=losses
        )
        contracts.compare(self.creator, self.now, self.found, converted, self.standard.lacks_reload)
        trainability.compare(self.creator, self.now, self.found, converted)
        written.compare(self.evidence, self.found, converted, self.standard.lacks_reload)

    def _accused(self, probe: str) -> bool:
        return any(f.probe == probe and f.verdict is Verdict.SILENT_WRONG for f in self.found.findings)

    def _follows(self, probe: str) -> None:
        """The probe differs only because the outputs do: it gets their verdict."""
        causes = worst(f.verdict for f in self.found.findings if f.probe in ("forward", "base", "layers"))
        self.found.follow[probe] = causes

    def _values(self, probe: str, figures: Figures, message: str, subject: str = "", kind: str = "values") -> None:
        self._add(probe, kind, Verdict.SILENT_WRONG, message, subject=subject, figures=figures)

    def _add(self, probe: str, kind: str, verdict: Verdict, message: str, **more: Any) -> None:
        self.found.add(probe, kind, verdict, message, **more)

    def _judgement(self) -> Judgement:
        if following := [probe for probe in self.found.follow if probe not in EQUALS and probe != "forward"]:
            self.found.notes.append(f"{', '.join(following)}: the values differ too, like the output")
        verdict = worst([*(f.verdict for f in self.found.findings), self._agreement()])
        probes = sorted(set(self.golden.probes) | set(self.now.probes))
        return Judgement(
            verdict=verdict,
            findings=with_patterns(self.evidence, sorted(self.found.findings, key=lambda f: f.verdict.severity)),
            probes={probe: self._probe_result(probe) for probe in probes},
            notes=tuple(dict.fromkeys(self.found.notes)),
            standing_defects=tuple(dict.fromkeys(self.found.standing)),
            fixed=tuple(dict.fromkeys(self.found.fixed)),
            creators_own=self.standard.creators_own,
            layers=self.layers,
            first_difference=self._first_difference() if verdict.is_deviation else "",
            adapter_delta=self._adapter_delta(),
            base_delta=_greatest(self._own("base")),
            keys=self.found.keys,
            conversion=key_conversion.seen(self.now),
            config_differences=self.found.config_differences,
            new_warnings=self.found.new_warnings,
            error=self.found.error,
        )

    def _adapter_delta(self) -> float | None:
        """How far the adapter's own effect moved; None if part of it was not measured and the rest agrees."""
        lost = self.found.keys is not None and self.found.keys.lost
        partial = self.now.fact("layers", "missing") or lost or self.now.outcome("forward") != "ok"
        partial = partial or self.standard.reload_differs  # then layers are compared with a reload that is wrong
        return None if partial and not self.adapter_moved else _greatest(self.figures["layers"])

    def _agreement(self) -> Verdict:
        """The verdict if nothing is found; green only if an output was compared."""
        if not self.evidence.says_something("forward"):
            self.found.notes.append("no output could be compared")
            return Verdict.NOT_COMPARABLE
        # a new adapter is no replay of the old checkpoint: its bits may differ
        exact = all(self.evidence.same_bits(probe) for probe in COMPARED if probe != "fresh")
        by_load_paths = all(f.max_abs == 0 for figures in self.load_paths.values() for f in figures)
        return Verdict.EXACT if exact and by_load_paths and not precision.was_asked(self.now) else Verdict.CLOSE

    def _probe_result(self, probe: str) -> ProbeResult:
        figures = self.figures.get(probe) or self.load_paths.get(probe, ())
        figures = (*figures[:5], *(f for f in self.narrow if f.array.startswith(f"{probe}/")))
        said = self.now.probes.get(probe, {}).get("float32", {})
        return ProbeResult(
            verdict=self._probe_verdict(probe, figures),
            outcome=self.now.outcome(probe),  # type: ignore[arg-type]
            golden_outcome=self.golden.outcome(probe),  # type: ignore[arg-type]
            reason=str(said.get("reason", "")),
            figures=figures[:6],
            duration_s=sum(t for name, t in self.now.timings.items() if name.startswith(f"{probe}/")),
        )

    def _probe_verdict(self, probe: str, figures: tuple[Figures, ...]) -> Verdict:
        own = [f.verdict for f in self.found.findings if f.probe == probe]
        if own:
            return worst(own)
        if probe in self.found.follow:
            return self.found.follow[probe]
        outcome = self.now.outcome(probe)
        if outcome in ("skipped", "missing"):
            return Verdict.UNSUPPORTED
        undetermined = probe not in {*self.load_paths, *FURTHER} and self.golden.outcome(probe) != "ok"
        if self.standard.lacks_reload and probe in standard.ON_RELOAD:
            return Verdict.CLOSE if probe in EQUALS and outcome == "ok" else Verdict.NOT_COMPARABLE
        if outcome == "error" or undetermined or probe in self.evidence.weak or any(beyond(f) for f in figures):
            return Verdict.NOT_COMPARABLE  # a note says why
        return Verdict.EXACT if all(f.max_abs == 0 for f in figures) else Verdict.CLOSE


def _name(figures: Figures) -> str:
    return figures.array.split("/", 2)[2]


def _greatest(figures: Iterable[Figures]) -> float | None:
    return max((f.max_abs for f in figures), default=None)
