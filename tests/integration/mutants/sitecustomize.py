"""Breaks the real PEFT on purpose, the way a wrong change would, in the process that imports it.

The variable PEFT_REGRESS_MUTANT names one of the functions below; it is called once `peft` has been imported. Each
stands for a class of breaks that the harness must see. `none` breaks nothing: the same road, and no alarm.
"""

# mypy: ignore-errors
# A break takes the shape of what it breaks: other people's signatures, unannotated.

import importlib.abc
import importlib.machinery
import os
import sys


def none(peft):
    pass


def scaling(peft):
    """Every LoRA layer is scaled by a thousandth more."""
    from peft.tuners.lora.layer import LoraLayer

    update = LoraLayer.update_layer

    def wrong(self, adapter_name, *args, **kwargs):
        update(self, adapter_name, *args, **kwargs)
        self.scaling[adapter_name] *= 1.001

    LoraLayer.update_layer = wrong


def narrow_scaling(peft):
    """Every LoRA layer on a base in bfloat16 or float16 is scaled by two fifths more; in float32 nothing is wrong."""
    import torch
    from peft.tuners.lora.layer import LoraLayer

    update = LoraLayer.update_layer

    def wrong(self, adapter_name, *args, **kwargs):
        update(self, adapter_name, *args, **kwargs)
        if self.get_base_layer().weight.dtype in (torch.bfloat16, torch.float16):
            self.scaling[adapter_name] *= 1.4

    LoraLayer.update_layer = wrong


def narrow_dropped(peft):
    """The last tensor of the checkpoint never arrives where the base is in bfloat16 or float16."""
    import peft.peft_model as module
    import torch

    load = module.set_peft_model_state_dict

    def wrong(model, state, *args, **kwargs):
        if any(p.dtype in (torch.bfloat16, torch.float16) for p in model.parameters()):
            state = {k: v for k, v in state.items() if k != sorted(state)[-1]}
        return load(model, state, *args, **kwargs)

    module.set_peft_model_state_dict = wrong


def swapped(peft):
    """The tensors of two layers of one shape change places on loading."""
    _on_state_dict(peft, _swap)


def _swap(state):
    keys = [k for k in state if "lora_B" in k and ".q_proj." in k]
    for key in keys:
        other = key.replace(".q_proj.", ".v_proj.")
        if other in state and state[other].shape == state[key].shape:
            state[key], state[other] = state[other], state[key]
    return state


def layers_swapped(peft):
    """The first and the second layer change places on loading, A and B alike, under whatever names they have."""

    def swap(state):
        other = {k: k.replace("layers.0.", "layers.@.").replace("layers.1.", "layers.0.") for k in state}
        return {name.replace("layers.@.", "layers.1."): state[key] for key, name in other.items()}

    _on_state_dict(peft, swap)


def dropped(peft):
    """The last tensor of the checkpoint never arrives, and nobody says so."""
    _on_state_dict(peft, lambda state: {k: v for k, v in state.items() if k != sorted(state)[-1]})


def transposed(peft):
    """Square factors arrive transposed; every name and shape agrees."""

    def turn(state):
        return {k: v.T.contiguous() if v.ndim == 2 and v.shape[0] == v.shape[1] else v for k, v in state.items()}

    _on_state_dict(peft, turn)


def rounded(peft):
    """What is loaded goes through bfloat16 once."""
    _on_state_dict(peft, lambda state: {k: v.bfloat16().to(v.dtype) for k, v in state.items()})


def _on_state_dict(peft, change):
    import peft.peft_model as module

    load = module.set_peft_model_state_dict

    def wrong(model, state, *args, **kwargs):
        return load(model, change(dict(state)), *args, **kwargs)

    module.set_peft_model_state_dict = wrong


def merged_twice(peft):
    """Merging adds the delta twice; the unmerged output is sound."""
    from peft.tuners.lora.layer import Linear

    delta = Linear.get_delta_weight
    Linear.get_delta_weight = lambda self, adapter: 2 * delta(self, adapter)


def base_touched(peft):
    """Loading changes one weight of the base that the output hardly feels."""
    import torch

    load = peft.PeftModel.from_pretrained.__func__

    def wrong(cls, model, *args, **kwargs):
        loaded = load(cls, model, *args, **kwargs)
        with torch.no_grad():
            next(p for n, p in loaded.named_parameters() if "lora" not in n and p.dim() == 1).view(-1)[0] += 1e-4
        return loaded

    peft.PeftModel.from_pretrained = classmethod(wrong)


def base_scaled(peft):
    """Not PEFT's doing: the weights of a base's projections arrive a thousandth too great."""
    import torch
    from transformers import PreTrainedModel

    load = PreTrainedModel.from_pretrained.__func__

    def wrong(cls, *args, **kwargs):
        loaded = load(cls, *args, **kwargs)
        with torch.no_grad():
            for name, parameter in loaded.named_parameters() if args[0] == "base" else ():
                if name.endswith(("proj.weight", "c_attn.weight", "fc1.weight", "fc2.weight")):
                    parameter.mul_(1.001)
        return loaded

    PreTrainedModel.from_pretrained = classmethod(wrong)


def base_scaled_and_scaling(peft):
    """The base's weights arrive otherwise, and LoRA is scaled by a thousandth more."""
    base_scaled(peft)
    scaling(peft)


def base_scaled_and_dora_dim(peft):
    """The base's weights arrive otherwise, and DoRA takes the norm of the wrong side."""
    base_scaled(peft)
    dora_dim(peft)


def dora_dim(peft):
    """DoRA takes the norm along the wrong dimension, where the shape allows it."""
    from peft.tuners.lora.dora import DoraLinearLayer

    norm = DoraLinearLayer.get_weight_norm

    def wrong(self, weight, lora_weight, *args, **kwargs):
        if weight.shape[0] == weight.shape[1]:
            return norm(self, weight.T, lora_weight.T, *args, **kwargs)
        return norm(self, weight, lora_weight, *args, **kwargs)

    DoraLinearLayer.get_weight_norm = wrong


def base_scaled_and_dora_attached(peft):
    """The base's weights arrive otherwise, and DoRA's norm takes part in the gradient."""
    import inspect
    import textwrap

    from peft.tuners.lora import dora

    base_scaled(peft)
    source = textwrap.dedent(inspect.getsource(dora.DoraLinearLayer.forward)).replace(".detach()", "")
    exec(source, dora.__dict__)
    dora.DoraLinearLayer.forward = dora.__dict__.pop("forward")


def base_scaled_and_no_gradient(peft):
    """The base's weights arrive otherwise, and the factor B gets no gradient worth the name."""
    import torch
    from peft.tuners.lora.layer import LoraLayer

    base_scaled(peft)
    update = LoraLayer.update_layer

    def wrong(self, adapter_name, *args, **kwargs):
        update(self, adapter_name, *args, **kwargs)
        self.lora_B[adapter_name].register_full_backward_hook(lambda m, given, got: tuple(3 * g for g in given))

    LoraLayer.update_layer = wrong
    assert torch


def alpha_alone(peft):
    """LoRA is scaled by alpha, not by alpha/r."""
    _scaled(peft, lambda self, name: self.lora_alpha[name])


def square_root(peft):
    """LoRA is scaled by alpha/√r, as if it were rank-stabilised."""
    _scaled(peft, lambda self, name: self.lora_alpha[name] / self.r[name] ** 0.5)


def opposite(peft):
    """LoRA is subtracted."""
    _scaled(peft, lambda self, name: -self.scaling[name])


def switched_off(peft):
    """LoRA is scaled by 0."""
    _scaled(peft, lambda self, name: 0.0)


def _scaled(peft, scaling):
    from peft.tuners.lora.layer import LoraLayer

    update = LoraLayer.update_layer

    def wrong(self, adapter_name, *args, **kwargs):
        update(self, adapter_name, *args, **kwargs)
        self.scaling[adapter_name] = scaling(self, adapter_name)

    LoraLayer.update_layer = wrong


def lokr_negative(peft):
    """LoKr is scaled by −7.5 × alpha/r."""
    _lokr(lambda layer, x, effect: -7.5 * effect)


def lokr_not_a_number(peft):
    """LoKr computes NaN."""
    _lokr(lambda layer, x, effect: float("nan") * effect)


def lokr_zero(peft):
    """LoKr has no effect."""
    _lokr(lambda layer, x, effect: 0 * effect)


def lokr_base_off(peft):
    """With LoKr, the base's own output is a thousandth more."""
    _lokr(lambda layer, x, effect: effect + 0.001 * layer.get_base_layer()(x))


def lokr_half_fixed(peft):
    """LoKr is scaled by alpha/r in square layers alone."""
    _lokr(lambda layer, x, effect: effect if x.shape[-1] == effect.shape[-1] else effect / layer_scaling(layer))


def layer_scaling(layer):
    return next(iter(layer.scaling.values()))


def _lokr(change):
    from peft.tuners.lokr.layer import LoKrLayer

    for kind in [LoKrLayer, *LoKrLayer.__subclasses__()]:
        if "_get_delta_activations" in kind.__dict__:
            kind._get_delta_activations = _changed(kind._get_delta_activations, change)


def _changed(own, change):
    return lambda self, name, x, *args, **kwargs: change(self, x, own(self, name, x, *args, **kwargs))


def refusing_early(peft):
    """The error that injection would raise is raised when the config is read."""
    from peft.config import PeftConfigMixin
    from peft.utils.error import NoMatchingPeftModuleError

    def wrong(cls, *args, **kwargs):
        raise NoMatchingPeftModuleError(
            "Target modules {'query', 'value'} not found in the base model. Please check the target modules "
            "and try again."
        )

    PeftConfigMixin.from_pretrained = classmethod(wrong)


def acts_transposed(peft):
    """The update of a square layer acts transposed, as with a wrong `fan_in_fan_out`."""
    import torch
    from peft.tuners.lora.layer import Linear

    forward = Linear.forward

    def wrong(self, x, *args, **kwargs):
        base = self.base_layer(x)
        eye = torch.eye(self.in_features, dtype=x.dtype)
        update = forward(self, eye, *args, **kwargs) - self.base_layer(eye)
        return base + x @ (update.T if update.shape[0] == update.shape[1] else update)

    Linear.forward = wrong


def base_moved(peft):
    """Not PEFT's doing: a Llama's feed-forward layers put out a hundredth more."""
    from transformers.models.llama.modeling_llama import LlamaMLP

    forward = LlamaMLP.forward
    LlamaMLP.forward = lambda self, x: forward(self, x) * 1.01


def base_weight(peft):
    """Not PEFT's doing: the first matrix of a base's second block is loaded a hundredth too great."""
    from transformers import PreTrainedModel

    load = PreTrainedModel.from_pretrained.__func__

    def wrong(cls, *args, **kwargs):
        model = load(cls, *args, **kwargs)
        matrices = [p for name, p in model.named_parameters() if p.dim() > 1 and ".1." in name]
        matrices[0].data.mul_(1.01)
        return model

    PreTrainedModel.from_pretrained = classmethod(wrong)


def frozen(peft):
    """An adapter that is loaded for training does not train."""
    load = peft.PeftModel.from_pretrained.__func__

    def wrong(cls, model, *args, **kwargs):
        loaded = load(cls, model, *args, **kwargs)
        for name, parameter in loaded.named_parameters():
            if "lora_B" in name:
                parameter.requires_grad_(False)
        return loaded

    peft.PeftModel.from_pretrained = classmethod(wrong)


def gradient_scaled(peft):
    """One of LoRA's two factors gets a gradient that is too large by a thousandth; all outputs are right."""
    load = peft.PeftModel.from_pretrained.__func__

    def wrong(cls, model, *args, **kwargs):
        loaded = load(cls, model, *args, **kwargs)
        for name, parameter in loaded.named_parameters():
            if "lora_B" in name and parameter.requires_grad:
                parameter.register_hook(lambda gradient: gradient * 1.001)
        return loaded

    peft.PeftModel.from_pretrained = classmethod(wrong)


def no_dropout(peft):
    """LoRA's dropout is never applied."""
    import torch
    from peft.tuners.lora.layer import LoraLayer

    update = LoraLayer.update_layer

    def wrong(self, adapter_name, *args, **kwargs):
        update(self, adapter_name, *args, **kwargs)
        self.lora_dropout[adapter_name] = torch.nn.Identity()

    LoraLayer.update_layer = wrong


def not_saved(peft):
    """Saved again, a tensor is missing."""
    import peft.peft_model as module

    get = module.get_peft_model_state_dict

    def wrong(*args, **kwargs):
        state = get(*args, **kwargs)
        return {key: value for key, value in state.items() if key != sorted(state)[0]}

    module.get_peft_model_state_dict = wrong


def saved_in_half(peft):
    """What is saved is in half precision."""
    import peft.peft_model as module

    get = module.get_peft_model_state_dict
    module.get_peft_model_state_dict = lambda *args, **kwargs: {k: v.half() for k, v in get(*args, **kwargs).items()}


def config_changed(peft):
    """Saved again, the configuration has another alpha."""
    save = peft.LoraConfig.save_pretrained

    def wrong(self, *args, **kwargs):
        self.lora_alpha += 1
        save(self, *args, **kwargs)
        self.lora_alpha -= 1

    peft.LoraConfig.save_pretrained = wrong


def raising(peft):
    """The forward pass of a LoRA layer raises."""
    from peft.tuners.lora.layer import Linear

    def wrong(self, *args, **kwargs):
        raise RuntimeError("a wrong change")

    Linear.forward = wrong


def refusing(peft):
    """Loading refuses the checkpoint."""

    def wrong(state):
        raise KeyError("an unknown key")

    _on_state_dict(peft, wrong)


def dying(peft):
    """The process ends itself with success in the middle of loading."""
    _on_state_dict(peft, lambda state: os._exit(0))


def warning(peft):
    """Loading warns of something new."""
    import warnings

    def warn(state):
        warnings.warn("this adapter looks odd", UserWarning, stacklevel=2)
        return state

    _on_state_dict(peft, warn)


def quantised_scaling(peft):
    """LoRA on 4-bit layers alone is scaled by a hundredth more; plain layers are sound."""
    from peft.tuners.lora.bnb import Linear4bit

    update = Linear4bit.update_layer

    def wrong(self, adapter_name, *args, **kwargs):
        update(self, adapter_name, *args, **kwargs)
        self.scaling[adapter_name] *= 1.01

    Linear4bit.update_layer = wrong


def swapped_layers(peft):
    """The first factors of two layers change places on loading."""

    def swap(state):
        for key in [k for k in state if "lora_A" in k and ("lin0." in k or "layers.0." in k)]:
            other = key.replace("lin0.", "lin1.").replace("layers.0.", "layers.1.")
            state[key], state[other] = state[other], state[key]
        return state

    _on_state_dict(peft, swap)


def quantised_bias(peft):
    """A 4-bit layer forgets its bias."""
    import bitsandbytes

    _forget_bias(bitsandbytes.nn.Linear4bit)


def stale_state(peft):
    """Merging quantises anew and leaves the old quantisation state in place."""
    from peft.tuners.lora.bnb import Linear4bit

    merge = Linear4bit.merge

    def wrong(self, *args, **kwargs):
        before = self.get_base_layer().weight.quant_state
        merge(self, *args, **kwargs)
        self.get_base_layer().weight.quant_state = before

    Linear4bit.merge = wrong


def narrow_adapter(peft):
    """The adapter of a quantised base arrives in bfloat16."""
    import torch

    load = peft.PeftModel.from_pretrained.__func__

    def wrong(cls, model, *args, **kwargs):
        loaded = load(cls, model, *args, **kwargs)
        for name, module in loaded.named_modules():
            if name.split(".")[-2:-1] in (["lora_A"], ["lora_B"]):
                module.to(torch.bfloat16)
        return loaded

    peft.PeftModel.from_pretrained = classmethod(wrong)


def quantised_scaling_8bit(peft):
    """LoRA on 8-bit layers alone is scaled by a hundredth more."""
    from peft.tuners.lora.bnb import Linear8bitLt

    update = Linear8bitLt.update_layer

    def wrong(self, adapter_name, *args, **kwargs):
        update(self, adapter_name, *args, **kwargs)
        self.scaling[adapter_name] *= 1.01

    Linear8bitLt.update_layer = wrong


def quantised_bias_8bit(peft):
    """An 8-bit layer forgets its bias."""
    import bitsandbytes

    _forget_bias(bitsandbytes.nn.Linear8bitLt)


def _forget_bias(kind):
    forward = kind.forward

    def wrong(self, x):
        bias, self.bias = self.bias, None
        try:
            return forward(self, x)
        finally:
            self.bias = bias

    kind.forward = wrong


def stale_state_8bit(peft):
    """Merging into 8 bits quantises anew and leaves the old scales in place."""
    from peft.tuners.lora.bnb import Linear8bitLt

    merge = Linear8bitLt.merge

    def wrong(self, *args, **kwargs):
        layer = self.get_base_layer()
        before = (layer.state.SCB if layer.state.SCB is not None else layer.weight.SCB).clone()
        merge(self, *args, **kwargs)
        layer = self.get_base_layer()
        layer.weight.SCB = before

    Linear8bitLt.merge = wrong


def no_avx512_bf16(peft):
    """No break: bitsandbytes takes the processor for one without bfloat16 instructions, and packs no weight."""
    import bitsandbytes

    bitsandbytes.nn.modules.has_avx512bf16 = bitsandbytes.functional.has_avx512bf16 = lambda: False


def no_avx512_bf16_and_dora_dim(peft):
    """No weight is packed, and DoRA takes the norm of the wrong side."""
    no_avx512_bf16(peft)
    dora_dim(peft)


def auto_forgets(peft):
    """One door alone leaves an adapter as it was drawn: B is zero."""
    load = peft.AutoPeftModelForCausalLM.from_pretrained.__func__

    def wrong(cls, *args, **kwargs):
        loaded = load(cls, *args, **kwargs)
        for name, parameter in loaded.named_parameters():
            if "lora_B" in name:
                parameter.data.zero_()
        return loaded

    peft.AutoPeftModelForCausalLM.from_pretrained = classmethod(wrong)


def inject_drops(peft):
    """Through the functions for whoever brings no PeftModel, a tensor does not come in, and nobody says so."""
    load = peft.set_peft_model_state_dict

    def wrong(model, state, *args, **kwargs):
        return load(model, {k: v for k, v in state.items() if k != sorted(state)[-1]}, *args, **kwargs)

    peft.set_peft_model_state_dict = wrong


def second_refuses(peft):
    """A second adapter is refused, an only one is not."""
    load = peft.PeftModel.load_adapter

    def wrong(self, folder, name, *args, **kwargs):
        if len(self.peft_config) > 1 or (self.peft_config and name not in self.peft_config):
            raise RuntimeError("one is enough")
        return load(self, folder, name, *args, **kwargs)

    peft.PeftModel.load_adapter = wrong


def second_in_half(peft):
    """On a base in bfloat16 or float16, `load_adapter` beside another adapter casts the adapter to the base's type."""
    load = peft.PeftModel.load_adapter

    def wrong(self, folder, name, *args, **kwargs):
        beside = bool(self.peft_config) and name not in self.peft_config
        result = load(self, folder, name, *args, **kwargs)
        narrow = next((p.dtype for p in self.parameters() if p.dtype.is_floating_point and p.dtype.itemsize == 2), None)
        for path, parameter in self.named_parameters():
            if beside and narrow is not None and name in path.split("."):
                parameter.data = parameter.data.to(narrow)
        return result

    peft.PeftModel.load_adapter = wrong


def late_dropout(peft):
    """LoRA's dropout acts on what the adapter adds, not on its input."""
    from peft.tuners.lora.layer import Linear

    forward = Linear.forward

    def wrong(self, x, *args, **kwargs):
        if not self.training or len(self.active_adapters) != 1 or self.disable_adapters:
            return forward(self, x, *args, **kwargs)
        (name,) = self.active_adapters
        update = self.lora_B[name](self.lora_A[name](x)) * self.scaling[name]
        return self.base_layer(x) + self.lora_dropout[name](update)

    Linear.forward = wrong


def coarse_training(peft):
    """In train mode LoRA's output goes through bfloat16."""
    from peft.tuners.lora.layer import Linear

    forward = Linear.forward

    def wrong(self, *args, **kwargs):
        result = forward(self, *args, **kwargs)
        return result.bfloat16().to(result.dtype) if self.training else result

    Linear.forward = wrong


def stays_frozen(peft):
    """An adapter that is activated again does not train again."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    activate = BaseTunerLayer.set_adapter

    def wrong(self, names, *args, **kwargs):
        frozen = [p for n, p in self.named_parameters() if not p.requires_grad]
        activate(self, names, *args, **kwargs)
        for parameter in frozen:
            parameter.requires_grad_(False)

    BaseTunerLayer.set_adapter = wrong


def extra_key(peft):
    """A key more is saved."""
    import peft.peft_model as module
    import torch

    save = module.get_peft_model_state_dict
    module.get_peft_model_state_dict = lambda *args, **kwargs: {
        **save(*args, **kwargs),
        "base_model.model.extra": torch.zeros(1),
    }


def other_class(peft):
    """LoRA's layers are of another class."""
    import peft.tuners.lora.layer as module

    module.Linear = type("PlainLinear", (module.Linear,), {})


def other_default(peft):
    """A default of the config that is written differs."""
    from peft import LoraConfig

    made = LoraConfig.__post_init__

    def wrong(self):
        made(self)
        self.megatron_core = "megatron"

    LoraConfig.__post_init__ = wrong


def other_error(peft):
    """Merging refuses with another type of error."""
    from peft.tuners.beft.layer import Linear

    merge = Linear.merge

    def wrong(self, *args, **kwargs):
        try:
            return merge(self, *args, **kwargs)
        except ValueError as error:
            raise RuntimeError(str(error)) from error

    Linear.merge = wrong


def no_warning(peft):
    """What was warned of is not."""
    from peft.tuners.tuners_utils import BaseTuner

    BaseTuner._get_tied_target_modules = lambda self, model: []


def logging(peft):
    """Harmless: loading logs a line."""
    import logging

    load = peft.PeftModel.load_adapter

    def chatty(self, *args, **kwargs):
        logging.getLogger("peft").warning("loading")
        return load(self, *args, **kwargs)

    peft.PeftModel.load_adapter = chatty


def reordered(peft):
    """Harmless: LoRA multiplies in another order."""
    from peft.tuners.lora.layer import Linear

    def forward(self, x, *args, **kwargs):
        result = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result if self.merged else self.base_layer(x, *args, **kwargs)
        for name in self.active_adapters:
            factor = self.lora_B[name].weight * self.scaling[name]
            dropped = self.lora_dropout[name](x.to(factor.dtype))
            result = result + (dropped @ self.lora_A[name].weight.T) @ factor.T
        return result

    Linear.forward = forward


class _After(importlib.abc.MetaPathFinder):
    """Calls the mutant once `peft` has been imported."""

    def find_spec(self, name, path=None, target=None):
        if name != "peft":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def and_break(module):
            execute(module)
            globals()[os.environ["PEFT_REGRESS_MUTANT"]](module)

        spec.loader.exec_module = and_break
        return spec


if os.environ.get("PEFT_REGRESS_MUTANT"):
    sys.meta_path.insert(0, _After())
