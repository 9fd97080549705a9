"""What scenario and base files may say: the schemas of `matrices/scenarios/*.toml` and `matrices/bases/*.toml`."""

from __future__ import annotations

from typing import Any, Literal

import pydantic

from harness.core import versions
from harness.core.model import Strict
from harness.worker.shared import LOAD_PATH, LOAD_PATHS, PROBES, WRAPPERS


class Input(Strict):
    """One named input of a base."""

    kind: Literal["tokens", "mask", "uniform", "values"]
    """`tokens`: whole numbers in [low, high); `uniform`: floats there; `mask`: ones, zeros where padded; `values`."""
    shape: list[int] | None = None
    low: float = 0
    high: float = 1
    contain: list[int] | None = None
    """For `tokens`: tokens that must occur; they are put at the beginning of the last row's unpadded part."""
    pad_left: list[int] | None = None
    """For `mask`: how many positions at the left of each row are padding."""
    pad_right: list[int] | None = None
    values: list[Any] | None = None
    dtype: Literal["int64", "float32"] | None = None

    @pydantic.model_validator(mode="after")
    def _complete(self) -> Input:
        if self.kind == "values" and self.values is None:
            raise ValueError("an input of kind `values` needs `values`")
        if self.kind != "values" and not self.shape:
            raise ValueError(f"an input of kind `{self.kind}` needs `shape`")
        return self


class Module(Strict):
    """One step of a plain base: a module of `torch.nn`, or Transformers' `Conv1D`."""

    name: str
    type: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}


class Transformers(Strict):
    """A model of Transformers, built from a configuration."""

    model: str
    config: str
    args: dict[str, Any] = {}


class Hub(Strict):
    """A model of the hub at one commit, read from the hub's cache on this machine; nothing is ever fetched."""

    repo: str = pydantic.Field(pattern=r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
    revision: str = pydantic.Field(pattern=r"^[0-9a-f]{40}$")
    """The whole commit: a branch would be another model tomorrow."""
    model: str
    """The class of Transformers that reads it."""


class BaseWhen(Strict):
    """What another version of a library needs otherwise."""

    if_: str = pydantic.Field(alias="if")
    args: dict[str, Any] = {}
    drop: list[str] = []
    model: str | None = None
    load_with: dict[str, Any] = {}

    _check = pydantic.field_validator("if_")(lambda text: _condition(text))


class Quantize(Strict):
    """How bitsandbytes quantises the linear layers of a base."""

    bits: Literal[4, 8]
    type: Literal["nf4", "fp4"] = "nf4"
    """Of 4 bits."""
    double: bool = False
    """4 bits: the scales of the blocks are quantised too."""
    threshold: float = 6.0
    """8 bits: inputs beyond it are computed with apart."""
    skip: list[str] = ["lm_head"]
    """Names, or parts of dotted names, of linear layers that stay as they are."""
    from_: Literal["weights", "quantised"] = pydantic.Field(default="weights", alias="from")
    """What the fixture holds: weights that are quantised on loading, or what bitsandbytes wrote of quantised ones."""


class Base(Strict):
    """A tiny model that adapters are put on, with its inputs (`matrices/bases/NAME.toml`)."""

    why: str
    transformers: Transformers | None = None
    hub: Hub | None = None
    """A real model, with its own weights; such scenarios run with `--hub` alone."""
    modules: list[Module] | None = None
    python: str | None = None
    """A Python file beside this one with a function `build()` that returns a `torch.nn.Module`."""
    inputs: dict[str, Input] = {}
    outputs: list[str] = []
    """Which fields of the model's output are compared; empty for a model that returns a tensor."""
    generate: dict[str, Any] | None = None
    """Arguments of `generate` where the model can; absent: the probe does not apply."""
    resize_to: int | None = None
    """The vocabulary's size after loading: what is on disk has fewer tokens, as before a user added some."""
    load_with: dict[str, Any] = {}
    """Further arguments of the base's `from_pretrained`."""
    quantize: Quantize | None = None
    when: list[BaseWhen] = []

    @pydantic.model_validator(mode="after")
    def _one_kind(self) -> Base:
        if sum(kind is not None for kind in (self.transformers, self.hub, self.modules, self.python)) != 1:
            raise ValueError("a base has exactly one of `transformers`, `hub`, `modules`, `python`")
        return self


class Expert(Strict):
    """An adapter that another one is made of: the configuration's class and its arguments."""

    config: str
    args: dict[str, Any] = {}


class Adapter(Expert):
    """The adapter's configuration: the class's name and its arguments, as in PEFT's documentation."""

    experts: dict[str, Expert] = {}
    """Adapters that must be saved before this one can be made (X-LoRA); NAME is put into `adapter/experts/NAME`."""
    convert: bool = False
    """Saved as plain LoRA, as PEFT does it for initialisations that change the base (`pissa`, `olora`)."""


class Wrap(Strict):
    """What stands around the model when the adapter is made and when it is loaded, from inside out.

    `peft` says where the adapter is put (at the end where it is not named): what comes before stands around the base,
    what comes after around the PeftModel.
    """

    saved: list[str] = []
    loaded: list[str] = []
    adapters: dict[str, Expert] = {}
    """For `adapter:NAME`: the adapters that the base has already; they are stored nowhere."""

    @pydantic.model_validator(mode="after")
    def _known(self) -> Wrap:
        for where, kinds in (("saved", self.saved), ("loaded", self.loaded)):
            if kinds.count("peft") > 1:
                raise ValueError(f"`{where}` names `peft` twice: the adapter is put in one place")
            for kind in kinds:
                self._check(where, kind)
        return self

    def _check(self, where: str, declared: str) -> None:
        kind, colon, name = declared.partition(":")
        if kind not in WRAPPERS:
            known = ", ".join(f"{k}:NAME" if named else k for k, named in WRAPPERS.items())
            raise ValueError(f"`{where}`: no such wrapper: {declared!r}; wrappers are {known}")
        if WRAPPERS[kind] and not name.isidentifier():
            raise ValueError(f"`{where}`: {declared!r}: write `{kind}:NAME`, the attribute's or the adapter's name")
        if not WRAPPERS[kind] and colon:
            raise ValueError(f"`{where}`: {declared!r}: `{kind}` takes no name")
        if kind == "adapter" and name not in self.adapters:
            raise ValueError(f"`{where}`: {declared!r} is not declared; add [scenario.wrap.adapters.{name}]")


class Expects(Strict):
    """What the checkpoint must hold: glob pattern of keys → how many keys match it. Every key must match one."""

    keys: dict[str, int]
    shapes: dict[str, list[int]] = {}
    """Glob pattern of keys → the shape that each of them has."""


class Steps(Strict):
    """After which steps the structure of the model is recorded (see the worker's `steps`)."""

    names: list[str] = pydantic.Field(min_length=1)
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """What the base is loaded in: in a narrow type it shows what is cast."""


class Sft(Strict):
    """How TRL's SFTTrainer is called, which then makes the adapter: filled, and trained for two steps."""

    bf16: bool = False
    gradient_checkpointing: bool = False
    wrapped: bool = False
    """It gets a PeftModel; else the base, and the adapter's configuration."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """What the base is loaded in."""


class When(Strict):
    """What another version of a library needs otherwise; merged in, in order, where the condition holds."""

    if_: str = pydantic.Field(alias="if")
    args: dict[str, Any] = {}
    drop: list[str] = []
    """Adapter arguments that this version does not know."""
    config: str | None = None
    expects: Expects | None = None
    skip: dict[str, str] = {}

    _check = pydantic.field_validator("if_")(lambda text: _condition(text))


class Scenario(Strict):
    """A base, an adapter configuration, and what is observed (`[[scenario]]` in `matrices/scenarios/*.toml`)."""

    name: str = pydantic.Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    why: str = pydantic.Field(min_length=1)
    guards: list[str] = []
    """Public issues and pull requests that it stands guard over."""
    family: str = ""
    """What it is grouped under; the file's name where it says nothing."""
    base: str | None = None
    base_file: str | None = None
    """A Python file beside the scenario file with `build()`, for a base that the declarative form can't say."""
    quantize: Quantize | None = None
    """In place of what the base says of it."""
    adapter: Adapter
    beside: Adapter | None = None
    """Another adapter in the same model: when saving, of which only the first is saved, and in the probe `second`."""
    adapter_name: str = "default"
    inputs: dict[str, Input] = {}
    """In place of the base's inputs of the same name."""
    adapter_inputs: dict[str, Input] = {}
    """Inputs that the adapter takes and the base alone does not (`task_ids`)."""
    outputs: list[str] | None = None
    requires: list[str] = []
    """What creator and loader must be to have the feature: `["peft>=0.6"]`."""
    creator_requires: list[str] = []
    """What a creator must be besides: for a release that has the feature but can't make or save it."""
    stored_by: list[str] = []
    """Conditions, of which a creator must meet one for its fixture to be stored; every creator where there are none.

    For what only changes with a library that few creators differ in. A pair makes the others' fixtures as ever."""
    wrap: Wrap | None = None
    load_paths: list[str] | Literal["all"] = []
    """Load paths to try besides `PeftModel.from_pretrained`: names from `LOAD_PATHS`, or `all`. The output of each must
    be that of the probe `forward`."""
    doors: list[str] | Literal["all"] = []
    """Old spelling of `load_paths`."""
    expects: Expects | None = None
    skip: dict[str, str] = {}
    """Probe → why it is not run; a load path is the probe `door.NAME`."""
    fill: dict[str, list[float]] = {}
    """Glob of parameter names → [centre, spread], in place of the method's recipe; [] leaves the parameter alone."""
    steps: Steps | None = None
    sft: Sft | None = None
    time_limit_s: float = 120.0
    when: list[When] = []

    _requires = pydantic.field_validator("requires", "creator_requires", "stored_by")(
        lambda texts: [_condition(text) for text in texts]
    )

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Scenario:
        if (self.base is None) == (self.base_file is None):
            raise ValueError("a scenario has exactly one of `base`, `base_file`")
        if self.quantize and not any("bitsandbytes" in text for text in self.requires):
            raise ValueError("a scenario with `quantize` says under `requires` which bitsandbytes it needs")
        if self.sft:
            self._trainable()
        if self.load_paths and self.doors:
            raise ValueError("`doors` is the old spelling of `load_paths`: write `load_paths` only")
        probes = (*PROBES, *(LOAD_PATH + name for name in self.every_load_path()))
        unknown = sorted(set(self.skip) - set(probes))
        if unknown:
            raise ValueError(f"`skip` names no probe: {', '.join(unknown)}; probes are {', '.join(probes)}")
        return self

    def _trainable(self) -> None:
        """Refuse what a trainer can't make, and what would do without it."""
        if not any("trl" in text for text in self.requires + self.creator_requires):
            raise ValueError("a scenario with `sft` says under `creator_requires` which TRL it needs")
        if self.beside or self.wrap or self.adapter.convert or self.adapter.experts:
            raise ValueError("`sft` goes with none of `beside`, `wrap`, `adapter.convert`, `adapter.experts`")
        if self.adapter_name != "default" and not self.sft.wrapped:  # type: ignore[union-attr]
            raise ValueError("SFTTrainer calls the adapter `default`: another name needs `sft.wrapped = true`")

    def every_load_path(self) -> tuple[str, ...]:
        """The declared load paths, in the order of `LOAD_PATHS`."""
        declared = self.load_paths or self.doors
        return tuple(name for name in LOAD_PATHS if declared == "all" or name in declared)

    @pydantic.field_validator("load_paths", "doors", mode="before")
    @classmethod
    def _known_load_paths(cls, declared: Any) -> Any:
        names = declared if isinstance(declared, list) else []
        if unknown := [str(name) for name in names if name not in LOAD_PATHS]:
            known = ", ".join(LOAD_PATHS)
            raise ValueError(
                f"no such load path: {', '.join(unknown)}; load paths are {known}, or `all` for all of them"
            )
        if len(set(names)) < len(names):
            raise ValueError("a load path is named twice")
        return declared


class ScenarioFile(Strict):
    """The content of one file of scenarios."""

    family: str = ""
    stored_by: list[str] = []
    """Of every scenario that has none of its own."""
    scenario: list[Scenario] = pydantic.Field(min_length=1)


def _condition(text: str) -> str:
    versions.parse(text)
    return text
