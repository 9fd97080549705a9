"""The standard is what the adapter computed when it was saved, whatever the creator's own reload makes of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.core.matrix import CellId
from harness.core.observation import Done
from harness.core.verdict import Verdict
from harness.judge import cell_result, change, standard
from tests.support.observations import BIAS, FORWARD, LIKE_FORWARD, Pair, Side, exact, mutated, told

SAVED = "created/float32/logits"
RELOADED = ("forward", "layers", "gradients", "train", "generate", *LIKE_FORWARD)
ERROR = {"stage": "state dict", "type": "KeyError", "message": "lora_head", "traceback": ""}

DONE = Done("x", "done", "", "", 0.1)
Step = Callable[[Pair], None]


def saved(pair: Pair) -> None:
    """The golden knows what the adapter computed when it was saved: what the reload computes."""
    pair.golden.arrays[SAVED] = pair.golden.arrays[FORWARD].copy()
    pair.golden.arrays["fresh/float32/logits"] = pair.golden.arrays[FORWARD].copy()


def creator_loses(pair: Pair) -> None:
    """The creator's own reload computes something else, in every probe, and misses a tensor."""
    saved(pair)
    for probe in RELOADED:
        if probe != "generate":
            pair.golden.shift(probe, 0.5)
    _miss(pair.golden)


def creator_raises(pair: Pair) -> None:
    """The creator's own library refuses its file."""
    saved(pair)
    pair.golden.load = {name: {"outcome": "error", "error": ERROR} for name in ("float32", "float64")}
    for probe in RELOADED:
        pair.golden.drop(f"{probe}/")
        pair.golden.probes.pop(probe, None)
    pair.golden.facts = {"created": {"filled": []}}


def loader_loses_alike(pair: Pair) -> None:
    for probe in RELOADED:
        if probe != "generate":
            pair.now.shift(probe, 0.5)
    _miss(pair.now)


def loader_loses_otherwise(pair: Pair) -> None:
    pair.move_outputs(-0.4)


def loader_merges_wrongly(pair: Pair) -> None:
    pair.now.shift("merged", 0.3)


def loader_raises(pair: Pair) -> None:
    pair.now.load = {name: {"outcome": "error", "error": ERROR} for name in ("float32", "float64")}


def nothing(pair: Pair) -> None:
    del pair


def _miss(side: Side) -> None:
    side.facts["accounting"]["tensors"][BIAS] = {"found": "nowhere", "at": []}


@pytest.mark.parametrize(
    ("creator", "loader", "verdict", "fixed", "said"),
    [
        (saved, nothing, Verdict.CLOSE, False, ""),
        (saved, loader_loses_alike, Verdict.SILENT_WRONG, False, "the output differs"),
        (creator_loses, nothing, Verdict.CLOSE, True, "this loader computes what was saved"),
        (creator_loses, loader_loses_alike, Verdict.SILENT_WRONG, False, "as after the creator's own reload"),
        (creator_loses, loader_loses_otherwise, Verdict.SILENT_WRONG, False, standard.SINCE_SAVED),
        (creator_loses, loader_merges_wrongly, Verdict.SILENT_WRONG, True, "merging in place changes the output"),
        (creator_loses, loader_raises, Verdict.LOAD_ERROR, False, "KeyError: lora_head"),
        (creator_raises, nothing, Verdict.CLOSE, True, "this loader computes what was saved"),
        (creator_raises, loader_loses_otherwise, Verdict.SILENT_WRONG, False, standard.SINCE_SAVED),
        (creator_raises, loader_raises, Verdict.LOAD_ERROR, False, "the creator's own library refuses it too"),
    ],
)
def test_a_loader_is_compared_with_what_was_saved(
    creator: Step, loader: Step, verdict: Verdict, fixed: bool, said: str
) -> None:
    pair = Pair()
    creator(pair)
    loader(pair)
    judgement = pair.judge()
    assert judgement.verdict is verdict, told(judgement)
    assert bool(judgement.fixed) is fixed
    assert said in "\n".join([told(judgement), *judgement.fixed])


def test_a_loader_as_wrong_as_the_creator_names_the_tensors_that_both_lose() -> None:
    pair = Pair()
    creator_loses(pair)
    loader_loses_alike(pair)
    judgement = pair.judge()
    (lost,) = [finding for finding in judgement.findings if finding.kind == "lost-tensors"]
    assert lost.details == (BIAS,)
    assert f"the creator's own reload loses 1 of them too: {BIAS}" in lost.message


def test_the_creators_own_cell_is_judged_like_any_other() -> None:
    pair = Pair()
    creator_loses(pair)
    pair.now = pair.golden
    judgement = pair.judge()
    assert judgement.verdict is Verdict.SILENT_WRONG
    assert judgement.creators_own.startswith("silent-wrong: the output differs by 0.5")


def test_a_reload_that_agrees_changes_nothing() -> None:
    pair = exact()
    saved(pair)
    pair.now.arrays["fresh/float32/logits"] = pair.golden.arrays[SAVED].copy()
    judgement = pair.judge()
    assert (judgement.verdict, judgement.creators_own, judgement.fixed) == (Verdict.EXACT, "", ())


def test_probes_of_a_wrong_reload_are_not_compared_with_a_right_loader() -> None:
    judgement = mutated(creator_loses)
    assert judgement.probes["layers"].verdict is Verdict.NOT_COMPARABLE
    assert judgement.probes["merged"].verdict is Verdict.CLOSE
    assert any("layers, gradients and train mode are not compared" in note for note in judgement.notes)


def test_unloading_and_saving_again_are_no_findings_where_the_creators_reload_proves_nothing() -> None:
    def loader(pair: Pair) -> None:
        pair.now.shift("unloaded", 0.3)
        pair.now.facts["unloaded"]["base_changed"] = ["lm_head.weight"]
        pair.now.facts["roundtrip"]["lost"] = [BIAS]

    pair = Pair()
    saved(pair)
    loader(pair)
    assert {f.kind for f in pair.judge().findings} == {"differs-from-base", "base-weights", "roundtrip-keys"}
    creator_loses(pair)
    judgement = pair.judge()
    assert judgement.verdict is Verdict.CLOSE, told(judgement)
    assert judgement.fixed
    assert any("unloading does not give the base back" in note for note in judgement.notes)


def test_disabling_is_no_finding_where_the_creator_lost_what_acts_with_it() -> None:
    pair = Pair()
    saved(pair)
    pair.now.shift("base", 0.3, only="disabled.logits")
    assert {f.kind for f in pair.judge().findings} == {"disabled-differs"}
    creator_loses(pair)
    judgement = pair.judge()
    assert not judgement.findings, told(judgement)
    assert any("with the adapter disabled" in note for note in judgement.notes)


@pytest.mark.parametrize(
    ("fact", "creator", "loader", "verdict", "fixed"),
    [
        ("trainable_back", ["beside"], ["first"], Verdict.CLOSE, True),
        ("trainable_back", ["beside"], [], Verdict.CLOSE, True),
        ("trainable_back", ["first"], [], Verdict.CLOSE, False),
        ("trainable_back", ["first"], ["first", "beside"], Verdict.CONTRACT, False),
        ("trainable_other", ["beside"], ["first"], Verdict.CONTRACT, False),
        ("trainable_other", ["first", "beside"], ["beside"], Verdict.CLOSE, True),
        ("trainable_back", ["beside"], ["beside"], Verdict.CLOSE, False),
    ],
)
def test_an_inactive_adapter_must_not_train(
    fact: str, creator: list[str], loader: list[str], verdict: Verdict, fixed: bool
) -> None:
    pair = Pair()
    pair.golden.facts["second"][fact], pair.now.facts["second"][fact] = creator, loader
    judgement = pair.judge()
    assert judgement.verdict is verdict, told(judgement)
    assert bool(judgement.fixed) is fixed


@pytest.mark.parametrize(
    ("made", "verdict", "fixed"),
    [(None, Verdict.CONTRACT, False), (["b"], Verdict.CLOSE, True), (["a", "b"], Verdict.CONTRACT, False)],
)
def test_what_trained_when_the_adapter_was_made_is_the_standard(
    made: list[str] | None, verdict: Verdict, fixed: bool
) -> None:
    pair = Pair()
    pair.golden.facts["structure"]["trainable"], pair.now.facts["structure"]["trainable"] = ["a", "b"], ["b"]
    if made:
        pair.golden.facts["created"] = {"filled": made}
    judgement = pair.judge()
    assert judgement.verdict is verdict, told(judgement)
    assert bool(judgement.fixed) is fixed


def test_a_merge_that_only_the_creator_gets_wrong_is_fixed() -> None:
    judgement = mutated(lambda pair: pair.golden.shift("merged", 0.3))
    assert judgement.verdict is Verdict.CLOSE
    assert any("merging in place changes the output for the creator" in text for text in judgement.fixed)


def test_a_new_adapter_that_is_wrong_beside_another_is_no_standard() -> None:
    def switches_wrongly(pair: Pair) -> None:
        saved(pair)
        pair.golden.shift("fresh", 0.2)

    judgement = mutated(switches_wrongly)
    assert judgement.verdict is Verdict.CLOSE, told(judgement)
    assert any("created again by the creator" in text for text in judgement.fixed)


@pytest.mark.parametrize("was_trained", [False, True])
def test_a_new_adapter_is_not_what_a_trainer_made(was_trained: bool) -> None:
    """What it computed after its training is no standard for a new adapter, which is not trained."""

    def made_otherwise(pair: Pair) -> None:
        saved(pair)
        for side in (pair.golden, pair.now):
            side.shift("fresh", 0.2)
            if was_trained:
                side.probes["sft"] = {"float32": {"outcome": "ok"}}

    kinds = {finding.kind for finding in mutated(made_otherwise).findings}
    assert ("fresh-values" in kinds) is not was_trained


def test_without_what_was_saved_the_reload_is_the_standard() -> None:
    pair = Pair()
    creator_loses(pair)
    loader_loses_alike(pair)
    golden = standard.without_saved(pair.golden.observed())
    assert standard.of(golden, pair.now.observed()).creators_own == ""


def test_a_change_that_reads_what_was_lost_is_fixed_and_not_regressed() -> None:
    """The baseline loses what the creator loses too; the change reads it."""
    lost, read = Pair(), Pair()
    creator_loses(lost)
    loader_loses_alike(lost)
    creator_loses(read)
    before, now = (
        cell_result.cell(CellId("lora-x", "v0140", loader, "cpu"), pair.golden.observed(), pair.now.observed(), DONE)
        for loader, pair in (("baseline", lost), ("change", read))
    )
    for first, second, change_said in ((before, now, "fixed"), (now, before, "regressed")):
        comparison = change.compared(first, second, strict=False)
        assert comparison is not None
        assert comparison.change == change_said
