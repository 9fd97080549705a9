"""The schemas of `matrices/scenarios/*.toml` and `matrices/bases/*.toml`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic

from harness.core import versions
from harness.core.model import Strict
from harness.worker.shared import LOAD_PATH, LOAD_PATHS, PROBES, STEPS, WRAPPERS

ClassName = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z_]\w*$")]
"""The name of a class. It becomes code in the scripts that `repro` writes."""


class Input(Strict):
    """One named input of a base."""

    kind: Literal["tokens", "mask", "uniform", "values"]
    """`tokens`: integers in [low, high); `uniform`: floats in it; `mask`: ones, and zeros for padding; `values`."""
    shape: list[int] | None = None
    low: float = 0
    high: float = 1
    contain: list[int] | None = None
    """For `tokens`: tokens that must occur. They start the unpadded part of the last row."""
    pad_left: list[int] | None = None
    """For `mask`: the number of padded positions at the left of each row."""
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

    model: ClassName
    """Its class; `AutoModelForCausalLM` and the like choose one by the configuration."""
    config: ClassName | None = None
    config_file: str | None = None
    """A model's own `config.json`, beside this file, in the place of `config`. TOML has no null."""
    code: list[Annotated[str, pydantic.Field(pattern=r"^\w[\w.-]*\.py$")]] = []
    """Python files of a model that Transformers does not have, beside this file. The worker executes them."""
    args: dict[str, Any] = {}
    """Arguments of the configuration. They replace entries of `config_file`."""

    @pydantic.model_validator(mode="after")
    def _one_configuration(self) -> Transformers:
        if (self.config is None) == (self.config_file is None):
            raise ValueError("`transformers` has exactly one of `config`, `config_file`")
        if self.code and not (self.config_file and self.model.startswith("Auto")):
            raise ValueError("`code` needs `config_file`, and a `model` such as AutoModelForCausalLM")
        return self


class Hub(Strict):
    """A model of the Hub at one commit, read from the local cache. Nothing is downloaded."""

    repo: str = pydantic.Field(pattern=r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
    revision: str = pydantic.Field(pattern=r"^[0-9a-f]{40}$")
    """The full commit: a branch may point to another model tomorrow."""
    model: str
    """The class of Transformers that loads it."""


class BaseWhen(Strict):
    """What a version of a library needs differently."""

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
    """Only for 4 bits."""
    double: bool = False
    """For 4 bits: quantise the scales of the blocks too."""
    threshold: float = 6.0
    """For 8 bits: inputs above it are computed separately."""
    skip: list[str] = ["lm_head"]
    """Names, or parts of dotted names, of linear layers that are not quantised."""
    from_: Literal["weights", "quantised"] = pydantic.Field(default="weights", alias="from")
    """What is stored: weights that are quantised on loading, or quantised weights that bitsandbytes wrote."""


class Base(Strict):
    """A tiny model for adapters, with its inputs (`matrices/bases/NAME.toml`)."""

    why: str
    transformers: Transformers | None = None
    hub: Hub | None = None
    """A real model with its own weights. Such scenarios run only with `--hub`."""
    modules: list[Module] | None = None
    python: str | None = None
    """A Python file beside this one with a function `build()` that returns a `torch.nn.Module`."""
    inputs: dict[str, Input] = {}
    outputs: list[str] = []
    """The fields of the model's output to compare; empty for a model that returns a tensor."""
    generate: dict[str, Any] | None = None
    """Arguments of `generate`. Without it, the probe does not apply."""
    resize_to: int | None = None
    """The size of the vocabulary after loading. The stored model has fewer tokens, as if a user had added some."""
    load_with: dict[str, Any] = {}
    """More arguments of the base's `from_pretrained`."""
    dtype: Literal["bfloat16", "float16"] | None = None
    """The type that it is saved in; default: float32. It is then also loaded without a type, as users do: by
    Transformers 4 in float32, by Transformers 5 as it was saved."""
    quantize: Quantize | None = None
    tokenizer: Literal["characters"] | None = None
    """A tokenizer that is saved beside the weights, for readers that want one: a token is a character."""
    when: list[BaseWhen] = []

    @pydantic.model_validator(mode="after")
    def _one_kind(self) -> Base:
        if sum(kind is not None for kind in (self.transformers, self.hub, self.modules, self.python)) != 1:
            raise ValueError("a base has exactly one of `transformers`, `hub`, `modules`, `python`")
        if self.dtype and (self.hub or self.quantize):
            raise ValueError(
                "`dtype` is for a base that is made: a Hub model and a quantised base have their own types"
            )
        if self.tokenizer and not self.transformers:
            raise ValueError("`tokenizer` is for a base that is a model of `transformers`")
        return self


class Expert(Strict):
    """An adapter that another adapter is made of: class of the configuration, and its arguments."""

    config: ClassName
    args: dict[str, Any] = {}


class Adapter(Expert):
    """The adapter's configuration: name of the class, and its arguments as in PEFT's documentation."""

    experts: dict[str, Expert] = {}
    """Adapters that must be saved before this one is made (X-LoRA). NAME is saved in `adapter/experts/NAME`."""
    convert: bool = False
    """Save it as plain LoRA, as PEFT can for initialisations that change the base (`pissa`, `olora`)."""


class Wrap(Strict):
    """The wrappers of the model when the adapter is made and when it is loaded, from inside out.

    `peft` is the place of the adapter; by default the end. Wrappers before it are around the base, and wrappers after
    it are around the PeftModel.
    """

    saved: list[str] = []
    loaded: list[str] = []
    adapters: dict[str, Expert] = {}
    """For `adapter:NAME`: adapters that the base already has. They are not stored."""

    @pydantic.model_validator(mode="after")
    def _known(self) -> Wrap:
        for where, kinds in (("saved", self.saved), ("loaded", self.loaded)):
            if kinds.count("peft") > 1:
                raise ValueError(f"`{where}` names `peft` twice: the adapter has one place")
            for kind in kinds:
                self._check(where, kind)
        return self

    def _check(self, where: str, declared: str) -> None:
        kind, colon, name = declared.partition(":")
        if kind not in WRAPPERS:
            known = ", ".join(f"{k}:NAME" if named else k for k, named in WRAPPERS.items())
            raise ValueError(f"`{where}`: no such wrapper: {declared!r}; wrappers are {known}")
        if WRAPPERS[kind] and not name.isidentifier():
            raise ValueError(f"`{where}`: {declared!r}: write `{kind}:NAME`, with the name of the attribute or adapter")
        if not WRAPPERS[kind] and colon:
            raise ValueError(f"`{where}`: {declared!r}: `{kind}` takes no name")
        if kind == "adapter" and name not in self.adapters:
            raise ValueError(f"`{where}`: {declared!r} is not declared; add [scenario.wrap.adapters.{name}]")


class Expects(Strict):
    """What the checkpoint must contain: glob pattern → number of keys that match it. Every key must match one."""

    keys: dict[str, int]
    shapes: dict[str, list[int]] = {}
    """Glob pattern → shape of each key that matches it."""


class Steps(Strict):
    """The steps after which the structure of the model is recorded (see the worker's `steps`)."""

    names: list[str] = pydantic.Field(min_length=1)
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """The type that the base is loaded in. A narrow type shows what is cast."""

    @pydantic.field_validator("names")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        if unknown := [name for name in names if name not in STEPS]:
            raise ValueError(f"no such step: {', '.join(unknown)}; steps are {', '.join(STEPS)}")
        return names


class Sft(Strict):
    """How to call TRL's SFTTrainer. It makes the adapter, which is then filled and trained for two steps."""

    bf16: bool = False
    gradient_checkpointing: bool = False
    wrapped: bool = False
    """Pass a PeftModel; else the base and the adapter's configuration."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """The type that the base is loaded in."""


class When(Strict):
    """What a version of a library needs differently. Applied in order, each if its condition holds."""

    if_: str = pydantic.Field(alias="if")
    args: dict[str, Any] = {}
    drop: list[str] = []
    """Arguments of the adapter that this version does not have."""
    config: ClassName | None = None
    expects: Expects | None = None
    leaves_out: str | None = pydantic.Field(default=None, min_length=1)
    skip: dict[str, str] = {}

    _check = pydantic.field_validator("if_")(lambda text: _condition(text))


class Scenario(Strict):
    """A base, an adapter configuration, and what is observed (`[[scenario]]` in `matrices/scenarios/*.toml`)."""

    name: str = pydantic.Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    why: str = pydantic.Field(min_length=1)
    guards: list[str] = []
    """Public issues and pull requests whose fix it tests."""
    family: str = ""
    """The group that it belongs to; default: the name of the file."""
    base: str | None = None
    base_file: str | None = None
    """A Python file beside the scenario file with `build()`, for a base that TOML cannot describe."""
    quantize: Quantize | None = None
    """Replaces the base's `quantize`."""
    adapter: Adapter
    adapter_files: str | None = None
    """A folder beside this file with a saved adapter. It is loaded, not made; `adapter` then only names the class of
    its configuration."""
    beside: Adapter | None = None
    """A second adapter in the same model, when saving and in the probe `second`. It is not saved."""
    adapter_name: str = "default"
    inputs: dict[str, Input] = {}
    """Replace the base's inputs of the same name."""
    adapter_inputs: dict[str, Input] = {}
    """Inputs that only the adapter takes, not the base (`task_ids`)."""
    outputs: list[str] | None = None
    requires: list[str] = []
    """Versions that creator and loader need for the feature: `["peft>=0.6"]`."""
    creator_requires: list[str] = []
    """Versions that only the creator needs: a release may have the feature but fail to create or save it."""
    stored_by: list[str] = []
    """Store a fixture only of creators that meet one of these conditions; empty for all creators.

    Use it if the result depends on a library in which few creators differ. `pair` still makes the other fixtures."""
    wrap: Wrap | None = None
    load_paths: list[str] | Literal["all"] = []
    """Load paths to try besides `PeftModel.from_pretrained`: names from `LOAD_PATHS`, or `all`. The output of
    each must be that of the probe `forward`."""
    doors: list[str] | Literal["all"] = []
    """Old spelling of `load_paths`."""
    expects: Expects | None = None
    skip: dict[str, str] = {}
    """Probe → why it is not run. A load path is the probe `door.NAME`."""
    leaves_out: str | None = pydantic.Field(default=None, min_length=1)
    """Why saving is meant to leave something out, so that the reloaded adapter computes something else than it did when
    it was saved. The creator's own reload is the standard then."""
    fill: dict[str, list[float]] = {}
    """Glob of parameter names → [centre, spread], instead of the method's own; [] does not fill the parameter."""
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
            raise ValueError("a scenario with `quantize` needs a condition on bitsandbytes in `requires`")
        if self.sft:
            self._trainable()
        if self.adapter_files is not None:
            self._given()
        if self.load_paths and self.doors:
            raise ValueError("`doors` is the old spelling of `load_paths`: write `load_paths` only")
        probes = (*PROBES, *(LOAD_PATH + name for name in self.every_load_path()))
        unknown = sorted(set(self.skip) - set(probes))
        if unknown:
            raise ValueError(f"`skip`: no such probe: {', '.join(unknown)}; probes are {', '.join(probes)}")
        return self

    def _given(self) -> None:
        """Refuse what is for an adapter that is made."""
        if self.adapter.args or self.adapter.convert or self.adapter.experts:
            raise ValueError("with `adapter_files`, `adapter` has only `config`: the files have the rest")
        if self.sft or self.wrap or self.leaves_out or self.fill:
            raise ValueError("`adapter_files` cannot be combined with `sft`, `wrap`, `leaves_out` or `fill`")

    def _trainable(self) -> None:
        """Refuse what a trainer cannot make, or does not need."""
        if not any("trl" in text for text in self.requires + self.creator_requires):
            raise ValueError("a scenario with `sft` needs a condition on TRL in `creator_requires`")
        if self.beside or self.wrap or self.adapter.convert or self.adapter.experts:
            raise ValueError("`sft` cannot be combined with `beside`, `wrap`, `adapter.convert` or `adapter.experts`")
        if self.adapter_name != "default" and not self.sft.wrapped:  # type: ignore[union-attr]
            raise ValueError("SFTTrainer names the adapter `default`; another name needs `sft.wrapped = true`")

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
    """A scenario file."""

    family: str = ""
    stored_by: list[str] = []
    """For every scenario without its own."""
    scenario: list[Scenario] = pydantic.Field(min_length=1)


def _condition(text: str) -> str:
    versions.parse(text)
    return text
