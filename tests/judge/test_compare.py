"""Every check is made to fail once on purpose; the tables read like the specification."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.verdict import Verdict
from harness.judge.compare import COMPARED
from tests.support.observations import (
    BIAS,
    FORWARD,
    HEAD,
    KEYS,
    LAYERS,
    LIKE_FORWARD,
    Mutation,
    Pair,
    all_nan,
    base_moves,
    beyond,
    both,
    dropout,
    exact,
    fact,
    golden,
    golden_generates_without_adapter,
    lost,
    mutated,
    no_layer_evidence,
    nothing_comparable,
    now,
    put,
    refuses,
    spread,
    swapped_layers,
    tokens,
    told,
)

V = Verdict


SPECIFICATION: list[tuple[str, Mutation, Verdict, tuple[str, str]]] = [
    # outputs
    ("float32 alone is off", beyond(FORWARD), V.SILENT_WRONG, ("forward", "values")),
    ("float64 alone is off", beyond("forward/float64/logits"), V.SILENT_WRONG, ("forward", "values")),
    ("all outputs are off", lambda p: p.move_outputs(0.1), V.SILENT_WRONG, ("forward", "values")),
    ("a NaN now", put("now", FORWARD, np.nan), V.SILENT_WRONG, ("forward", "values")),
    ("an inf now", put("now", FORWARD, np.inf), V.SILENT_WRONG, ("forward", "values")),
    ("a NaN for the creator alone", put("golden", FORWARD, np.nan), V.SILENT_WRONG, ("forward", "values")),
    (
        "an inf of the other sign",
        both(put("golden", FORWARD, np.inf), put("now", FORWARD, -np.inf)),
        V.SILENT_WRONG,
        ("forward", "values"),
    ),
    (
        "an inf on both sides hides no other element",
        both(put("golden", FORWARD, np.inf), put("now", FORWARD, np.inf), beyond(FORWARD)),
        V.SILENT_WRONG,
        ("forward", "values"),
    ),
    (
        "another shape",
        lambda p: p.now.arrays.update({FORWARD: p.now.arrays[FORWARD][:, :4]}),
        V.SILENT_WRONG,
        ("forward", "values"),
    ),
    ("an output is gone", now("drop", "fresh/float32/logits"), V.CONTRACT, ("fresh", "outputs-missing")),
    # base and adapter told apart
    ("the base moved, layers agree", base_moves(0.01), V.BASE_MOVED, ("base", "base-moved")),
    (
        "the base moved, the output is within its allowance",
        both(now("shift", "base", 0.01), now("shift", "unloaded", 0.01)),
        V.BASE_MOVED,
        ("base", "base-moved"),
    ),
    (
        "base and layers moved",
        both(base_moves(0.01), now("shift", "layers", 0.1)),
        V.SILENT_WRONG,
        ("forward", "values"),
    ),
    (
        "the base moved, no layer was fed alone",
        both(base_moves(0.01), no_layer_evidence),
        V.BASE_MOVED,
        ("base", "base-moved"),
    ),
    (
        "the base moved a little, the output a lot, and no layer was fed alone",
        both(base_moves(1e-4), now("shift", "forward", 0.1), no_layer_evidence),
        V.SILENT_WRONG,
        ("forward", "values"),
    ),
    (
        "the base moved a little, the output a lot, though the layers agree (a lost bias)",
        both(base_moves(1e-4), now("shift", "forward", 0.1)),
        V.SILENT_WRONG,
        ("forward", "values"),
    ),
    (
        "base and output are not finite, no layer was fed alone",
        both(put("now", "base/float32/logits", np.nan), put("now", FORWARD, np.nan), no_layer_evidence),
        V.SILENT_WRONG,
        ("forward", "values"),
    ),
    ("two layers swapped, the output hardly moves", swapped_layers, V.SILENT_WRONG, ("layers", "values")),
    (
        "a layer is missing",
        fact("now", "layers", "missing", [LAYERS[1]]),
        V.SILENT_WRONG,
        ("layers", "layers-missing"),
    ),
    (
        "layers are missing, another one has come, and the outputs disagree",
        both(
            fact("now", "layers", "names", ["experts"]),
            fact("now", "layers", "missing", list(LAYERS)),
            now("drop", "layers/"),
            lambda p: p.move_outputs(0.1),
        ),
        V.SILENT_WRONG,
        ("layers", "layers-missing"),
    ),
    # the checkpoint's tensors
    (
        "a lost tensor, outputs disagree",
        both(lost(KEYS[0]), lambda p: p.move_outputs(0.1)),
        V.SILENT_WRONG,
        ("accounting", "lost-tensors"),
    ),
    (
        "a lost tensor, outputs disagree though layers agree",
        both(lost(KEYS[0]), *(now("shift", probe, 0.1) for probe in ("forward", *LIKE_FORWARD))),
        V.SILENT_WRONG,
        ("accounting", "lost-tensors"),
    ),
    ("a lost tensor that no layer owns", lost(HEAD), V.SILENT_WRONG, ("accounting", "lost-tensors")),
    (
        "a lost bias hidden by a moved base",
        both(lost(BIAS), base_moves(0.01)),
        V.SILENT_WRONG,
        ("accounting", "lost-tensors"),
    ),
    # errors
    ("loading raises", lambda p: refuses(p.now), V.LOAD_ERROR, ("load", "error")),
    ("a probe raises", now("raises", "merged"), V.RUN_ERROR, ("merged", "error")),
    ("forward raises", now("raises", "forward"), V.RUN_ERROR, ("forward", "error")),
    ("a probe no longer applies", now("skips", "merged", "no merge"), V.CONTRACT, ("merged", "probe-lost")),
    # what must equal what
    ("merged", now("shift", "merged", 0.1), V.SILENT_WRONG, ("merged", "differs-from-forward")),
    (
        "merged, by more than for the creator",
        both(golden("shift", "merged", 0.1), now("shift", "merged", 0.2)),
        V.SILENT_WRONG,
        ("merged", "differs-from-forward"),
    ),
    ("unmerged", now("shift", "unmerged", 0.1), V.SILENT_WRONG, ("unmerged", "differs-from-forward")),
    ("safe merge", now("shift", "safe_merged", 0.1), V.SILENT_WRONG, ("safe_merged", "differs-from-forward")),
    (
        "merged and saved",
        now("shift", "merged_saved", 0.1),
        V.SILENT_WRONG,
        ("merged_saved", "differs-from-merge_and_unload"),
    ),
    ("saved and reloaded", now("shift", "roundtrip", 0.1), V.SILENT_WRONG, ("roundtrip", "differs-from-forward")),
    ("under another name", now("shift", "renamed", 0.1), V.SILENT_WRONG, ("renamed", "differs-from-forward")),
    ("beside another", now("shift", "second", 0.1), V.SILENT_WRONG, ("second", "differs-from-forward")),
    ("no switch", fact("now", "second", "other_differs", False), V.SILENT_WRONG, ("second", "no-switch")),
    ("unloaded", now("shift", "unloaded", 0.1), V.CONTRACT, ("unloaded", "differs-from-base")),
    ("unloaded weights", fact("now", "unloaded", "base_changed", ["w"]), V.CONTRACT, ("unloaded", "base-weights")),
    ("loading spoils", fact("now", "accounting", "base_changed", ["w"]), V.CONTRACT, ("accounting", "base-weights")),
    (
        "disabled",
        now("shift", "base", 0.1, only="disabled.logits"),
        V.SILENT_WRONG,
        ("base", "disabled-differs"),
    ),
    # training, tokens, what is written
    ("a gradient differs", now("shift", "gradients", 0.1), V.SILENT_WRONG, ("gradients", "values")),
    ("dropout is lost", dropout("golden"), V.CONTRACT, ("train", "train-mode")),
    ("dropout where there was none", dropout("now"), V.CONTRACT, ("train", "train-mode")),
    ("other tokens", tokens("now", [4]), V.SILENT_WRONG, ("generate", "values")),
    (
        "tokens that the outputs do not predict, though the creator's prove nothing",
        both(golden_generates_without_adapter, tokens("now", [0, 2])),
        V.SILENT_WRONG,
        ("generate", "values"),
    ),
    ("tokens that the outputs do not predict", tokens("now", [0, 2]), V.SILENT_WRONG, ("generate", "values")),
    ("created anew it differs", now("shift", "fresh", 0.1), V.CONTRACT, ("fresh", "fresh-values")),
    # what can't be told
    ("two runs of the creator disagree", spread(0.2, off=0.1), V.UNSTABLE, ("forward", "unstable")),
    ("by some times less than the replay differs", spread(0.02, off=0.1), V.UNSTABLE, ("forward", "unstable")),
    ("infinitely", spread(np.inf, off=0.1), V.UNSTABLE, ("forward", "unstable")),
    ("two runs disagree in NaN", spread(np.nan, off=0.1), V.UNSTABLE, ("forward", "unstable")),
    (
        "the replay is far further away than two runs were",
        spread(1e-3, off=0.1),
        V.SILENT_WRONG,
        ("forward", "values"),
    ),
    (
        "an unstable probe and a warning",
        both(spread(0.2, "train", 0.1), now("warns", "forward", "UserWarning: ignored")),
        V.UNSTABLE,
        ("train", "unstable"),
    ),
]
"""(name, what is changed in a sound pair, the verdict, probe and kind of one finding)."""


@pytest.mark.parametrize(
    ("mutation", "verdict", "expected"), [row[1:] for row in SPECIFICATION], ids=[r[0] for r in SPECIFICATION]
)
def test_each_check_fails_on_purpose(mutation: Mutation, verdict: Verdict, expected: tuple[str, str]) -> None:
    judgement = mutated(mutation)
    assert judgement.verdict is verdict, told(judgement)
    assert expected in {(f.probe, f.kind) for f in judgement.findings}, told(judgement)


@pytest.mark.parametrize("probe", COMPARED)
def test_one_element_beyond_its_allowance_is_never_clean(probe: str) -> None:
    names = Pair().now.names(probe)
    for name in (n for n in names if n != "generate/float32/base.tokens"):
        mutation = tokens("now", [4]) if probe == "generate" else beyond(name)
        if probe == "base" and "disabled" not in name:
            mutation = both(mutation, beyond(name.replace("base/", "unloaded/")) if "32" in name else mutation)
        assert mutated(mutation).verdict.is_deviation, name


CLEAN: list[tuple[str, Mutation, str]] = [
    ("within noise", both(), ""),
    ("just within the allowance", beyond(FORWARD, 0.9), ""),
    ("a NaN on both sides", both(put("golden", FORWARD, np.nan), put("now", FORWARD, np.nan)), ""),
    ("base drift within noise", now("shift", "base", 5e-8), ""),
    (
        "float64 can't be run by the loader",
        now("without_float64"),
        "the loader cannot run float64 (RuntimeError)",
    ),
    (
        "one probe can't be run in float64",
        now("raises", "merged", "float64"),
        "the loader cannot run merged in float64",
    ),
    ("the golden has float32 alone", golden("without_float64"), "rounding was not measured"),
    ("both have float32 alone", both(golden("without_float64"), now("without_float64")), "not measured"),
    # the creator failed too
    (
        "a layer was missing for the creator too",
        both(*(fact(s, "layers", "missing", ["x"]) for s in ("golden", "now"))),
        "",
    ),
    ("both raise", both(golden("raises", "merged"), now("raises", "merged")), "merged raised ValueError"),
    ("the creator raised", golden("raises", "merged"), "merged raised for the creator and works now"),
    ("new to the loader", both(golden("skips", "merged", "no"), now("raises", "merged")), "did not offer it"),
    (
        "merging is as wrong as for the creator",
        both(golden("shift", "merged", 0.1), now("shift", "merged", 0.1)),
        "merging in place changes the output (by 0.1), as for the creator (0.1)",
    ),
    (
        "merging is wrong, the creator could not",
        both(golden("skips", "merged", "no"), now("shift", "merged", 0.1)),
        "merging in place changes the output (by 0.1); the creator has no result to compare it with",
    ),
    (
        "unloading is new, and leaves something behind",
        both(
            golden("skips", "unloaded", "no"),
            lambda p: p.golden.facts.pop("unloaded"),
            fact("now", "unloaded", "base_changed", ["w"]),
        ),
        "unloading does not restore 1 weights of the base; the creator has no result to compare it with",
    ),
    (
        "the base is spoilt as for the creator",
        both(fact("golden", "unloaded", "base_changed", ["w"]), fact("now", "unloaded", "base_changed", ["w"])),
        "as for the creator",
    ),
    (
        "disabled differs as for the creator",
        both(*(d("shift", "base", 0.1, only="disabled.logits") for d in (golden, now))),
        "with the adapter disabled the output is not the base's (by 0.1), as for the creator",
    ),
    # what is a release's own affair
    ("other random numbers in dropout", dropout("golden", "now"), "gives other numbers"),
    (
        "the base alone generates other tokens",
        tokens("now", [5], "base.tokens"),
        "the base alone generates other tokens",
    ),
    # the creator's golden proves nothing
    ("the creator generated without its adapter", golden_generates_without_adapter, "as if there were no adapter"),
    (
        "the creator's tokens do not follow from its outputs",
        tokens("golden", [0, 0]),
        "not those that its outputs predict",
    ),
    (
        "neither's tokens follow from the outputs",
        both(tokens("golden", [0, 0]), tokens("now", [0, 1])),
        "the generated tokens are not those that the outputs predict, as for the creator",
    ),
    # instability that does no harm
    ("unstable, and equal all the same", spread(0.2), ""),
]
"""(name, what is changed in a sound pair, what a note or standing defect says of it)."""


@pytest.mark.parametrize(("mutation", "said"), [row[1:] for row in CLEAN], ids=[row[0] for row in CLEAN])
def test_no_false_alarm(mutation: Mutation, said: str) -> None:
    judgement = mutated(mutation)
    assert judgement.verdict is Verdict.CLOSE, told(judgement)
    assert not judgement.findings
    assert any(said in text for text in (*judgement.notes, *judgement.standing_defects)) or not said


def _neither_loads(pair: Pair) -> None:
    refuses(pair.golden)
    refuses(pair.now)


NEVER_GREEN: list[tuple[str, Mutation]] = [
    ("no arrays at all", nothing_comparable),
    ("no arrays, and a warning", both(nothing_comparable, now("warns", "forward", "UserWarning: x"))),
    ("NaN against NaN", all_nan),
    ("the worker left no outcome", lambda p: p.now.load.clear()),
    ("neither side loads", _neither_loads),
    ("the creator alone could not load", lambda p: refuses(p.golden)),
]


@pytest.mark.parametrize("mutation", [row[1] for row in NEVER_GREEN], ids=[row[0] for row in NEVER_GREEN])
def test_nothing_compared_is_never_green(mutation: Mutation) -> None:
    judgement = mutated(mutation)
    assert not judgement.verdict.is_clean
    assert judgement.notes or judgement.findings


def test_an_empty_replay_of_a_loaded_adapter_is_not_comparable() -> None:
    pair = Pair()
    pair.golden.arrays, pair.now.arrays = {}, {}
    assert pair.judge().verdict is Verdict.NOT_COMPARABLE


# -- what is said, and how often --------------------------------------------------------------------------------------


def test_a_probe_that_raises_hides_no_other() -> None:
    judgement = mutated(both(now("raises", "merged"), now("shift", "renamed", 0.1)))
    assert judgement.verdict is Verdict.SILENT_WRONG
    assert {f.probe for f in judgement.findings} == {"merged", "renamed"}
    assert judgement.error is not None
    assert judgement.probes["merged"].verdict is Verdict.RUN_ERROR


def test_what_goes_on_from_a_probe_that_raised_is_not_told_again() -> None:
    judgement = mutated(both(now("raises", "merged"), now("skips", "unmerged", "there is no model")))
    assert [f.probe for f in judgement.findings] == ["merged"]
    assert "unmerged could not run: there is no model" in judgement.notes


def test_one_broken_merge_is_told_once() -> None:
    merges = ("merged", "safe_merged", "merge_and_unload", "merged_saved")
    judgement = mutated(both(*(now("shift", probe, 0.1) for probe in merges)))
    assert [(f.probe, f.kind) for f in judgement.findings] == [("merged", "differs-from-forward")]
    assert judgement.probes["safe_merged"].verdict is Verdict.SILENT_WRONG


def test_a_changed_meaning_accuses_layers_and_output_and_nobody_else() -> None:
    judgement = mutated(lambda pair: pair.move_outputs(0.1))
    assert {f.probe for f in judgement.findings} == {"layers", "forward"}
    assert {judgement.probes[p].verdict for p in ("train", "gradients")} == {Verdict.SILENT_WRONG}


def test_a_moved_base_accuses_nobody_else() -> None:
    judgement = mutated(base_moves(0.01))
    assert [(f.probe, f.kind) for f in judgement.findings] == [("base", "base-moved")]


def test_an_adapter_without_effect_is_called_that() -> None:
    def ignored(pair: Pair) -> None:
        for probe in ("forward", *LIKE_FORWARD):
            for name in pair.now.names(probe):
                pair.now.arrays[name] = pair.now.arrays[f"base/{name.split('/')[1]}/logits"]

    messages = [f.message for f in mutated(ignored).findings if f.probe == "forward"]
    assert messages == ["the adapter's effect on the output is 0, as if there were no adapter: the output differs"]


def test_the_first_layer_that_differs_is_named_in_order_of_execution() -> None:
    def drift(pair: Pair) -> None:
        pair.move_outputs(0.1)
        for precision in ("float32", "float64"):
            pair.now.arrays[f"forward/{precision}/sketch"][1] += 0.1
        pair.now.facts["forward"]["sketch"].reverse()
        for precision in ("float32", "float64"):
            pair.now.arrays[f"forward/{precision}/sketch"] = pair.now.arrays[f"forward/{precision}/sketch"][::-1]

    judgement = mutated(drift)
    assert judgement.first_difference == LAYERS[1]
    assert [row.name for row in judgement.layers] == list(LAYERS)


def test_a_layers_allowance_is_its_own() -> None:
    """Layers of one size have one allowance, and larger ones a larger one, in whatever order they come."""
    sizes = [10.0 ** (index % 4) for index in range(80)]

    def many(pair: Pair) -> None:
        for side in (pair.golden, pair.now):
            side.facts["forward"]["sketch"] = [[f"layer{index}", "adapter"] for index in range(len(sizes))]
            for precision in ("float32", "float64"):
                side.arrays[f"forward/{precision}/sketch"] = np.outer(sizes, np.arange(1.0, 7.0))

    allowances = [row.allowance for row in mutated(many).layers]
    assert len(set(zip(sizes, allowances, strict=True))) == 4
    assert allowances[:4] == sorted(set(allowances))


def test_nan_in_a_sketch_does_not_hide_the_layer() -> None:
    def broken(pair: Pair) -> None:
        pair.move_outputs(0.1)
        pair.golden.arrays["forward/float32/sketch"][0] = np.nan
        pair.now.arrays["forward/float64/sketch"][0] += 0.1

    assert mutated(broken).first_difference == LAYERS[0]


def test_a_base_that_moved_under_the_padding_excuses_no_other_token() -> None:
    def padding(pair: Pair, by: float) -> None:
        for name in [*pair.now.names("base"), *pair.now.names("unloaded")]:
            pair.now.arrays[name][1, 3:] += 0.5
        for probe in ("forward", *LIKE_FORWARD):
            for name in pair.now.names(probe):
                pair.now.arrays[name][1, 3:] += 0.7
                pair.now.arrays[name][:, :3] += by

    assert mutated(lambda pair: padding(pair, 0.0)).verdict is Verdict.BASE_MOVED
    assert mutated(lambda pair: padding(pair, 2e-6)).verdict is Verdict.BASE_MOVED, "a few times the noise"
    assert mutated(lambda pair: padding(pair, 0.01)).verdict is Verdict.SILENT_WRONG


def test_what_float32_can_not_show_is_said() -> None:
    judgement = mutated(lambda pair: pair.now.shift("layers", 3e-9, precision="float64"))
    assert judgement.verdict is Verdict.CLOSE
    assert any("in float64 2 arrays differ by less than float32 can show" in note for note in judgement.notes)

    judgement = mutated(lambda pair: pair.now.shift("", 3e-9, precision="float64"))
    assert not judgement.notes, "where the base differs as finely, the model computes in float32 inside"


def test_where_the_base_computes_in_float32_inside_both_twins_and_both_roundings_add_up() -> None:
    noise = 1e-5

    def apart(pair: Pair, twins: float, *, coarse_base: bool) -> None:
        """Each side rounds by `noise`, away from the other; their float64 twins are so far apart."""
        for probe in ("forward", "train", *LIKE_FORWARD):
            pair.now.shift(probe, twins, precision="float64")
            for side, by in ((pair.golden, -noise), (pair.now, twins + noise)):
                side.shift(probe, by, precision="float32")
        if coarse_base:
            pair.now.shift("base", 1e-9, precision="float64")

    assert mutated(lambda pair: apart(pair, 1e-5, coarse_base=True)).verdict is Verdict.CLOSE
    assert mutated(lambda pair: apart(pair, 1e-5, coarse_base=False)).verdict is Verdict.SILENT_WRONG
    assert mutated(lambda pair: apart(pair, 1e-4, coarse_base=True)).verdict.is_deviation


def test_a_probe_that_agrees_with_a_twin_that_agrees_with_the_golden_is_judged() -> None:
    def apart(pair: Pair, share: float) -> None:
        allowance = pair.allowance("merged/float64/logits")
        pair.golden.shift("merged", -0.9 * allowance)
        pair.now.shift("merged", share * allowance)

    assert mutated(lambda pair: apart(pair, 0.3)).probes["merged"].verdict is Verdict.CLOSE
    assert mutated(lambda pair: apart(pair, 2.0)).probes["merged"].verdict is Verdict.SILENT_WRONG


def test_the_size_of_a_standing_defect_says_nothing_once_the_outputs_moved() -> None:
    def moved(pair: Pair) -> None:
        pair.golden.shift("base", 0.1, only="disabled.logits")
        pair.now.shift("base", 0.3, only="disabled.logits")
        pair.move_outputs(0.1)

    judgement = mutated(moved)
    assert "base" not in {f.probe for f in judgement.findings}
    assert any("(by 0.3), as for the creator (0.1)" in text for text in judgement.standing_defects)


def test_the_creators_own_gap_is_a_measurement_of_rounding() -> None:
    def rounds(pair: Pair, golden_share: float, now_share: float) -> None:
        allowance = pair.allowance("merged/float64/logits")
        pair.golden.shift("merged", golden_share * allowance)
        pair.now.shift("merged", now_share * allowance)

    assert mutated(lambda pair: rounds(pair, 0.4, 1.2)).verdict is Verdict.CLOSE
    assert mutated(lambda pair: rounds(pair, 0.0, 1.2)).verdict is Verdict.SILENT_WRONG
    assert mutated(lambda pair: rounds(pair, 0.4, 1.8)).verdict is Verdict.SILENT_WRONG


def test_neither_side_loads() -> None:
    judgement = mutated(_neither_loads)
    assert judgement.verdict is Verdict.LOAD_ERROR
    assert judgement.notes == ("the creator's own library refuses it too: RuntimeError: size mismatch",)


def test_a_probe_that_only_the_loader_runs_is_not_called_equal() -> None:
    judgement = mutated(golden("raises", "merged"))
    assert judgement.probes["merged"].verdict is Verdict.NOT_COMPARABLE


def test_equal_to_the_bit_is_exact() -> None:
    judgement = exact().judge()
    assert judgement.verdict is Verdict.EXACT
    assert set(judgement.notes) | set(judgement.standing_defects) == set()


def test_bits_of_an_adapter_created_anew_do_not_count() -> None:
    pair = exact()
    pair.now.shift("fresh", 1e-8)
    assert pair.judge().verdict is Verdict.EXACT


# -- properties -------------------------------------------------------------------------------------------------------

SPOILT = fact("now", "accounting", "base_changed", ["w", "v"])
UNTIED = fact("now", "merge_and_unload", "ties", [])
JUDGED_ARRAYS = [n for p in ("forward", "layers", "gradients", *LIKE_FORWARD) for n in Pair().now.names(p)]
MUTATIONS = st.lists(st.sampled_from([row[1] for row in SPECIFICATION if row[0] != "loading raises"]), max_size=3)


@settings(max_examples=30, deadline=None)
@given(MUTATIONS)
def test_an_observation_against_itself_has_no_findings(mutations: list[Mutation]) -> None:
    pair = Pair()
    _apply(pair, mutations)
    pair.golden = pair.now
    judgement = pair.judge()
    proves_nothing = {f.kind for f in judgement.findings} == {"proves-nothing"}
    assert judgement.findings == () or proves_nothing
    assert judgement.verdict in (Verdict.EXACT, Verdict.NOT_COMPARABLE)
    failed = pair.now.probes["forward"]["float32"]["outcome"] == "error"
    assert judgement.verdict is Verdict.EXACT or failed or proves_nothing


@settings(max_examples=30, deadline=None)
@given(MUTATIONS, st.sampled_from([lost("stray"), SPOILT, UNTIED]))
def test_a_further_deviation_never_makes_it_better(mutations: list[Mutation], further: Mutation) -> None:
    pair = Pair()
    _apply(pair, mutations)
    before = pair.judge().verdict
    further(pair)
    after = pair.judge().verdict
    assert after.is_deviation
    assert after.severity <= before.severity


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([n for p in ("forward", "layers", "gradients", *LIKE_FORWARD) for n in Pair().now.names(p)]),
    st.data(),
)
def test_a_mutation_beyond_the_allowance_is_never_clean(name: str, data: st.DataObject) -> None:
    pair = Pair()
    array = pair.now.arrays[name]
    place = data.draw(st.integers(0, array.size - 1))
    factor = data.draw(st.floats(1.1, 1e6)) * data.draw(st.sampled_from([-1, 1]))
    wide = array.astype(np.float64)
    wide.flat[place] = pair.golden.arrays[name].flat[place] + factor * pair.bound(name)
    pair.now.arrays[name] = wide.astype(array.dtype)
    assert pair.judge().verdict.is_deviation


def _apply(pair: Pair, mutations: list[Mutation]) -> None:
    for mutation in mutations:
        try:
            mutation(pair)
        except (KeyError, IndexError, ValueError):
            continue  # an earlier mutation took away what this one changes
