"""What looks damaged in a saved adapter: files, values, keys, shapes and configuration that do not fit together (pure).

Each check is one function. None of them may complain about an adapter that a release of PEFT saved as it should: a test
runs all of them over every stored fixture.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.core.text import listed, many, one_line
from harness.own.layout import PROMPT, Place, are_simple, matching, named, pattern_value, places, saves, within
from harness.own.values import Scan
from harness.store.adapter import Adapter
from harness.store.tensor_file import BadTensorFile


@dataclass(frozen=True)
class Damage:
    """Something that does not fit together.

    Attributes:
        kind: one word or two, for programs.
        text: what was found, in a sentence.
        next_step: what to do about it; empty if nothing but saving it again helps.
        serious: False if it is a warning: the adapter may be as it should be.
    """

    kind: str
    text: str
    next_step: str = ""
    serious: bool = True


@dataclass(frozen=True)
class Case:
    """What a check looks at."""

    adapter: Adapter
    scan: Scan = field(default_factory=Scan)
    unreadable: BadTensorFile | None = None

    @property
    def config(self) -> Mapping[str, Any]:
        return self.adapter.config

    @property
    def places(self) -> list[Place]:
        return places(self.adapter.method, self.adapter.shapes)

    def names(self, key: str) -> list[str]:
        """The entries of a list, or the keys of a table, in the configuration."""
        value = self.config.get(key)
        return [str(name) for name in value] if isinstance(value, (list, tuple, Mapping)) else []


def find(case: Case) -> list[Damage]:
    """Everything that looks damaged, the serious first."""
    if case.unreadable:
        return [Damage("unreadable", case.unreadable.found, case.unreadable.next_step)]
    found = [one for check in CHECKS for one in check(case)]
    return sorted(found, key=lambda one: not one.serious)


def _empty(case: Case) -> Iterator[Damage]:
    if not case.adapter.shapes:
        yield Damage("empty", "the file holds no tensors", "save the adapter again with model.save_pretrained()")
    if hollow := [key for key, shape in case.adapter.shapes.items() if 0 in shape]:
        yield Damage(
            "empty", f"{_some(hollow)} without values, as DeepSpeed ZeRO-3 leaves them if nothing gathers them",
            "save it again with the parameters gathered (stage3_gather_16bit_weights_on_model_save)",
        )  # fmt: skip


def _prefix(case: Case) -> Iterator[Damage]:
    """Keys that a wrapper's name stands before, or that another program wrote: PEFT finds no module for them."""
    strange = [key for key in case.adapter.shapes if not key.startswith("base_model.")]
    if strange and case.adapter.method not in PROMPT:
        yield Damage(
            "prefix", f"{_some(strange)} without `base_model.` at the start of the key, so PEFT does not load it",
            "remove what stands before it, such as `module.` or `_fsdp_wrapped_module.`",
        )  # fmt: skip


def _values(case: Case) -> Iterator[Damage]:
    if keys := case.scan.not_finite:
        yield Damage("not-finite", f"{_some(keys)} with NaN or infinite values", "use an earlier checkpoint")


def _without_effect(case: Case) -> Iterator[Damage]:
    """A factor that is zero in all layers, as most methods initialise one: the product is zero."""
    zero, kinds = set(case.scan.zero), defaultdict(list)
    for place in case.places:
        if place.own and _FACTOR.search(place.part):
            kinds[place.part].append(place.key)
    for part, keys in kinds.items():
        if part and zero.issuperset(keys):
            alone = all(place.own for place in case.places)
            yield Damage(
                "no-effect", f"all {len(keys)} tensors {part} are zero, as before training, so it changes nothing",
                "check that it was trained and saved from the trained model", serious=alone,
            )  # fmt: skip
            return


_FACTOR = re.compile(r"(lora|hira|delora|gralora|pvera)_(embedding_)?[AB]$|lora_[ABE](\.weight)?$|hada_w\d|lokr_w\d")


def _halves(case: Case) -> Iterator[Damage]:
    """`lora_A` without `lora_B`, and the like."""
    there = {(place.module, place.part) for place in case.places if place.own}
    alone = [f"{module}.{part}" for module, part in sorted(there) if (o := _other(part)) and (module, o) not in there]
    if alone:
        yield Damage("half-a-pair", f"{_some(alone)} without the other half", "use another copy of the file")


def _other(part: str) -> str:
    """The part that a part never is without; empty if there is none."""
    if part.endswith(".bias"):
        return ""
    for one, other in (("A", "B"), ("B", "A"), ("a", "b"), ("b", "a")):
        if found := re.match(rf"((?:lora|hira|delora|gralora|hada_w\d|lokr_w\d)(?:_embedding)?_){one}(.*)", part):
            return f"{found[1]}{other}{found[2]}"
    if part.startswith("vera_lambda_"):
        return f"vera_lambda_{'d' if part.endswith('b') else 'b'}"
    return ""


def _ranks(case: Case) -> Iterator[Damage]:
    """LoRA's factors whose ranks are not those of the configuration."""
    if case.adapter.method != "LORA" or not are_simple(case.config.get("rank_pattern")):
        return
    rank = case.config.get("r")
    if type(rank) is not int or rank < 1:
        return  # no rank: the check of values tells
    parameters = [name.rpartition(".")[0] for name in case.names("target_parameters")]
    wrong = []
    for place in case.places:
        if not place.own or len(place.shape) < 2 or not (half := _HALF.match(place.part)):
            continue
        if half[1] == "B" and (len(place.shape) > 2 or case.config.get("use_bdlora")):
            continue  # of groups and blocks: a part of the rank
        rank = place.shape[0 if half[1] == "A" else 1]
        wanted = pattern_value(case.config.get("rank_pattern"), place.module, case.config.get("r"))
        of_parameter = named(place.module, [name for name in parameters if name])
        if isinstance(wanted, int) and wanted > 0 and (rank % wanted if of_parameter else rank != wanted):
            wrong.append((place.key, rank, wanted))
    if wrong:
        key, rank, wanted = wrong[0]
        more = f", and {len(wrong) - 1} more tensors are like that" if wrong[1:] else ""
        yield Damage(
            "rank", f"{key} has rank {rank}, and the configuration says {wanted}{more}",
            "use the adapter_config.json that was saved with these tensors",
        )  # fmt: skip


_HALF = re.compile(r"lora_(?:embedding_)?([AB])(\.weight)?$")


def _inner(case: Case) -> Iterator[Damage]:
    """Two factors that cannot be multiplied, and DoRA's magnitude of another length than the output."""
    shapes = {(place.module, place.part): place.shape for place in case.places if place.own}
    wrong = []
    for (module, part), shape in shapes.items():
        other = shapes.get((module, _other(part)), ())
        between = (module, _CORE.get(part[:7], "")) in shapes  # a third factor
        inner = {"A": (0, 1), "a": (1, 0)}.get(part.removesuffix(".weight")[-1])
        compared = case.adapter.method != "LORA" and len(shape) == len(other) == 2 and not between
        if inner and compared and shape[inner[0]] != other[inner[1]]:
            wrong.append(f"{module}: {part} {list(shape)} and {_other(part)} {list(other)}")
        output = shapes.get((module, "lora_B.weight"))
        if part.startswith("lora_magnitude_vector") and output and _count(shape) not in (output[0], 1):
            wrong.append(f"{module}: DoRA's magnitude has {_count(shape)} values, and the layer {output[0]} outputs")
    if wrong:
        yield Damage("shapes", f"{wrong[0]} do not fit together{_more(wrong)}", "use another copy of the file")


_CORE = {"hada_w1": "hada_t1", "hada_w2": "hada_t2", "lokr_w2": "lokr_t2"}


def _count(shape: tuple[int, ...]) -> int:
    return max(shape, default=1)


def _more(found: Sequence[str]) -> str:
    return f" (and {len(found) - 1} more)" if found[1:] else ""


def _some(keys: Sequence[str]) -> str:
    """`the tensor x is` … the start of a sentence on some tensors."""
    return (
        f"1 tensor, {one_line(keys[0], 160)},"
        if len(keys) == 1
        else f"{len(keys)} tensors, such as {one_line(keys[0], 160)},"
    )


def _targets(case: Case) -> Iterator[Damage]:
    """Tensors of modules that the configuration does not target."""
    wanted = case.config.get("target_modules")
    if isinstance(wanted, str) and wanted != "all-linear" and not is_regex(wanted):
        yield Damage("no-target", f"`target_modules` is no regular expression: {one_line(wanted, 80)}", "correct it")
        return
    own = [place for place in case.places if place.own and place.module and not place.part.startswith(_TOKENS)]
    if case.config.get("ensure_weight_tying"):
        return  # the tensors of one tied module are those of the other
    if case.adapter.method in (*PROMPT, "XLORA", "ADAPTION_PROMPT", "SHADOW") or wanted == "all-linear":
        return
    if not isinstance(wanted, (str, list, tuple)):
        return  # the targets are those that PEFT knows for the model
    parents = [name.rpartition(".")[0] for name in case.names("target_parameters")]
    others = [*parents, *case.names("modules_to_save")]
    rest = [place for place in own if not within(place.module, [name for name in others if name])]
    modules = sorted({place.module for place in rest})
    if isinstance(wanted, str):
        fits = matching(wanted, modules)
    else:
        fits = [_is_named(one, case) for one in modules]
    strangers = {module for module, fit in zip(modules, fits or (), strict=False) if not fit}
    if keys := [place.key for place in rest if place.module in strangers]:
        yield Damage(
            "no-target", f"{_some(keys)} of a module that `target_modules` does not name",
            "use the adapter_config.json that was saved with these tensors", serious=len(keys) == len(own),
        )  # fmt: skip


def is_regex(text: str) -> bool:
    """True if a text is a regular expression."""
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


_TOKENS = ("token_adapter", "trainable_tokens")
"""Parts of single tokens' rows: a tied head has them, too."""


def _whole(case: Case) -> Iterator[Damage]:
    """Whole tensors of the base that nothing in the configuration asks for."""
    saved = case.names("modules_to_save")
    biases = case.config.get("bias") not in (None, "none", False)
    strange = [
        place.key
        for place in case.places
        if not place.own and not saves(saved, place.module) and not (biases and place.part == "bias")
        and not _EMBEDDING.search(place.module) and not _OWN_MODULE.search(place.key)
    ]  # fmt: skip
    if strange and case.adapter.method not in (*PROMPT, "ADAPTION_PROMPT"):
        yield Damage(
            "no-target", f"{_some(strange)} of a module that the configuration does not name",
            "use the adapter_config.json that was saved with these tensors", serious=False,
        )  # fmt: skip


_HEADS = ("classifier", "score", "qa_outputs", "regressor")
"""Names of heads that PEFT saves of its own accord."""
_EMBEDDING = re.compile(rf"(embed|wte|wpe|embed_out|shared|output_layer|head)[^.]*$|(^|\.)({'|'.join(_HEADS)})(\.|$)")
_OWN_MODULE = re.compile(r"internal_xlora_classifier|ln_tuning_layers|poly_router|^base_model\.\w+$")


def _is_named(module: str, case: Case) -> bool:
    """True if `target_modules` names a module, one around it (attention as a whole), or only the end of its name.

    The last is how PEFT before 0.5 took it.
    """
    names = case.names("target_modules")
    return within(module, names) or any(module.endswith(name) for name in names)


def _patterns(case: Case) -> Iterator[Damage]:
    """Entries of `rank_pattern` and `alpha_pattern` that no module of the file has."""
    if case.adapter.method == "ADALORA":  # its `rank_pattern` has the tensors' own names
        return
    modules = {place.module for place in case.places if place.own}
    for key in ("rank_pattern", "alpha_pattern"):
        table = case.config.get(key)
        names = case.names(key) if isinstance(table, Mapping) and are_simple(table) else []
        names = [name for name in names if is_regex(name)]  # the check of values tells others
        unused = [name for name in names if not any(pattern_value({name: True}, each, False) for each in modules)]
        if unused and modules:
            yield Damage(
                "pattern", f"`{key}` names {_quoted(unused)}, which no layer with tensors has",
                "correct the name, or leave it out: it has no effect", serious=False,
            )  # fmt: skip


def _announced(case: Case) -> Iterator[Damage]:
    """Tensors that an entry of the configuration announces, and that are not there."""
    for entry, part in (("use_dora", "lora_magnitude_vector"), ("trainable_token_indices", "trainable_tokens_delta")):
        if case.config.get(entry) and case.adapter.shapes and not any(part in key for key in case.adapter.shapes):
            yield Damage(
                "not-saved", f"`{entry}` is set, and the file has no `{part}`",
                "save the adapter again from the trained model, or use the adapter_config.json of these tensors",
            )  # fmt: skip


def _quoted(names: Sequence[str]) -> str:
    return listed([f"`{one_line(name, 80)}`" for name in names[:4]] + (["more"] if names[4:] else []))


def _saved_modules(case: Case) -> Iterator[Damage]:
    """Entries of `modules_to_save` without a tensor in the file."""
    names = case.names("modules_to_save")
    modules = [place.module for place in case.places]
    missing = [name for name in names if not any(saves([name], module) for module in modules)]
    if set(missing) < set(names):
        missing = [name for name in missing if name not in _HEADS]  # PEFT names all heads, and a model has one
    if missing:
        yield Damage(
            "not-saved", f"`modules_to_save` names {_quoted(missing)}, and the file has no tensor of it",
            "save the adapter again from the trained model",
        )  # fmt: skip


def _layers(case: Case) -> Iterator[Damage]:
    """Layers in the middle without tensors that the layers around have."""
    narrowed = any(case.config.get(key) for key in ("layers_to_transform", "exclude_modules", "layers_pattern"))
    targets = case.config.get("target_modules")
    if narrowed or isinstance(targets, str) or any(re.search(r"\d", name) for name in case.names("target_modules")):
        return
    stacks: dict[tuple[str, str], set[int]] = defaultdict(set)
    for place in case.places:
        if place.own and (found := re.match(r"(.*?)\.(\d{1,6})\.(\D*)$", place.module)):
            stacks[found[1], found[3]].add(int(found[2]))
    for (stack, part), there in sorted(stacks.items()):
        gaps = sorted(set(range(min(there), max(there))) - there)
        if gaps and len(gaps) * 10 <= len(there):
            yield Damage(
                "missing-layers", f"{stack}.{gaps[0]}.{part} is missing, and the layers around have it"
                + (f" ({many(len(gaps), 'layer')} in all)" if gaps[1:] else ""),
                "use another copy of the file; if it was trained so, all is well", serious=False,
            )  # fmt: skip
            return


def _prompt(case: Case) -> Iterator[Damage]:
    """A prompt of another length than the configuration says."""
    shape, count = case.adapter.shapes.get("prompt_embeddings", ()), case.config.get("num_virtual_tokens")
    if case.adapter.method in PROMPT and case.adapter.shapes and not shape:
        yield Damage("no-prompt", "the file holds no `prompt_embeddings`", "save the adapter again")
    elif shape and isinstance(count, int) and count > 0 and shape[0] % count:
        yield Damage(
            "shapes", f"`prompt_embeddings` has {shape[0]} tokens, and `num_virtual_tokens` is {count}",
            "use the adapter_config.json that was saved with it",
        )  # fmt: skip


CHECKS: tuple[Callable[[Case], Iterable[Damage]], ...] = (
    _empty, _prefix, _values, _without_effect, _halves, _ranks, _inner, _targets, _whole, _patterns, _saved_modules,
    _layers, _prompt, _announced,
)  # fmt: skip
