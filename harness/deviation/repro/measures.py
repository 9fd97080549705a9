"""Lines that compute `results`: a dictionary of tensors or plain values, equal on both sides if all is well (pure)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from harness.core.run import Cell, Finding
from harness.deviation.repro import training
from harness.deviation.repro.load_paths import tensors
from harness.deviation.repro.loading import Loading
from harness.deviation.repro.operations import OPERATIONS
from harness.deviation.repro.python_text import Part, arguments, joined, part
from harness.deviation.repro.subject import Subject

Measure = Callable[[Loading], Part]
_NAMED = 8
"""At most this many names are listed in a script."""


@dataclass(frozen=True)
class Shown:
    """Something other than numbers, shown on both sides."""

    title: str
    before: Part
    after: Part
    with_outputs: bool = False
    """`results` also has the outputs."""


def _both(title: str, subject: Subject, measure: Measure) -> Shown:
    return Shown(title, measure(Loading(subject.before, subject)), measure(Loading(subject.after, subject)))


# -- numbers ---------------------------------------------------------------------------------------------------------


def outputs(loading: Loading) -> Part:
    """The outputs of the loaded adapter."""
    return loading.load().then(part("results = outputs(model)"))


def base_outputs(loading: Loading) -> Part:
    """The outputs of the base."""
    return part(f"results = {loading.base_outputs.format('load_base()')}")


_LESS = "results = {name: value - reference[name] for name, value in outputs(model).items()}"


def disabled(loading: Loading) -> Part:
    """The outputs with the adapter disabled, minus those of the base."""
    return joined([
        part(f"reference = {loading.base_outputs.format('load_base()')}"),
        loading.load(),
        part("with model.disable_adapter():", f"    found = {loading.base_outputs.format('model')}",
             "results = {name: value - reference[name] for name, value in found.items()}"),
    ])  # fmt: skip


def after(probe: str) -> Measure:
    """The outputs after an operation, minus those before it; after unloading, minus those of the base."""

    def measure(loading: Loading) -> Part:
        operation = OPERATIONS[probe](loading)
        of_base = loading.base_outputs
        if probe == "fresh":
            return operation.then(part("results = outputs(model)"))
        if probe == "unloaded":
            found = f"{of_base.format('model')}.items()"
            less = part(f"reference = {of_base.format('load_base()')}",
                        f"results = {{name: value - reference[name] for name, value in {found}}}")  # fmt: skip
            return joined([loading.load(), operation, less])
        if probe == "merged_after_run":  # the operation assigns `reference` itself
            return joined([loading.load(), operation, part(_LESS)])
        again = loading.load() if loading.side.quantize else Part()  # running a quantised layer may change its weight
        return joined([loading.load(), part("reference = outputs(model)"), again, operation, part(_LESS)])

    return measure


def layer_output(name: str) -> Measure:
    """The outputs of one layer."""

    def measure(loading: Loading) -> Part:
        return joined([loading.load(), _plain_name(loading), part(
            f'layer = next(module for path, module in model.named_modules() if plain_name(path) == "{name}")',
            "results = {}",
            'layer.register_forward_hook(lambda module, given, output: results.update(output=output))',
            "outputs(model)",
        )])  # fmt: skip

    return measure


def gradients(loading: Loading) -> Part:
    """The norm of each trainable parameter's gradient, for a weighted sum of the outputs."""
    return joined([
        loading.load(is_trainable=True), _plain_name(loading), part(
            "loss = sum((value * torch.linspace(-1, 1, value.numel()).view_as(value)).sum()",
            "           for value in outputs(model).values() if value.is_floating_point())",
            "loss.backward()",
            "trained = {plain_name(name): p.grad for name, p in model.named_parameters() if p.requires_grad}",
            "results = {name: grad.norm() for name, grad in trained.items() if grad is not None}",
        ),
    ])  # fmt: skip


def dropout_of(loading: Loading) -> Part:
    """The outputs in train mode, minus those in eval mode: the effect of dropout."""
    return joined([loading.load(is_trainable=True), part(
        "reference = outputs(model)", "model.train()", "torch.manual_seed(0)", _LESS,
    )])  # fmt: skip


def generated(loading: Loading) -> Part:
    """Tokens generated from the first row of the inputs."""
    given = arguments(loading.side.scenario.get("generate") or {})
    return joined([loading.load(), part(
        'first = {name: value[:1] for name, value in inputs.items() if not name.startswith("decoder_")}',
        f'results = {{"tokens": model.generate(**first{", " if given else ""}{given}).tolist()}}',
    )])  # fmt: skip


# -- other than numbers ----------------------------------------------------------------------------------------------


def _plain_name(loading: Loading) -> Part:
    """The function `plain_name(name)`, which removes what PEFT adds to a parameter's name."""
    lines = (
        "def plain_name(name):",
        '    parts = name.removeprefix("base_model.model.").split(".")',
        f'    return ".".join(part for part in parts if part not in ("base_layer", "{loading.side.adapter_name}"))',
    )
    return Part(helpers={"plain_name": lines})


def _operated(loading: Loading, probe: str) -> Part:
    loaded = loading.load()
    if probe in OPERATIONS:
        return joined([loaded, OPERATIONS[probe](loading)])
    return loaded


def _quoted(names: Iterable[str]) -> str:
    return json.dumps(list(names), ensure_ascii=False)


def ties(finding: Finding, _: Cell, subject: Subject) -> Shown | None:
    """Whether pairs of parameters share memory."""
    pairs = [tuple(text.split(" = ")) for text in finding.details][:_NAMED]

    def measure(loading: Loading) -> Part:
        lines = ("named = model.named_parameters(remove_duplicate=False)",
                 "at = {plain_name(name): parameter.data_ptr() for name, parameter in named}",
                 f"pairs = {pairs!r}",
                 'results = {f"{a} is {b}": at.get(a, 0) == at.get(b, 1) for a, b in pairs}')  # fmt: skip
        return joined([_operated(loading, finding.probe), _plain_name(loading), part(*lines)])

    return _both("whether tied weights are tied", subject, measure) if pairs else None


def weights(finding: Finding, _: Cell, subject: Subject) -> Shown | None:
    """Whether the base's weights are unchanged, found by value."""
    names = f"for name in {_quoted(finding.details)}" if len(finding.details) <= _NAMED else "for name in weights"

    def measure(loading: Loading) -> Part:
        lines = ("weights = dict(load_base().named_parameters())",
                 "there = [p for p in model.parameters()]",
                 "def is_there(weight):",
                 "    return any(weight.shape == p.shape and torch.equal(weight, p) for p in there)",
                 f"results = {{name: is_there(weights[name]) {names} if name in weights}}")  # fmt: skip
        return joined([_operated(loading, finding.probe), part(*lines)])

    return _both("whether the base's weights are unchanged", subject, measure)


def trainable(finding: Finding, _: Cell, subject: Subject) -> Shown | None:
    """Which parameters are trainable."""
    names = [text.partition(": ")[2] for text in finding.details][:_NAMED]

    def measure(loading: Loading) -> Part:
        lines = ("trains = {plain_name(name) for name, p in model.named_parameters() if p.requires_grad}",
                 f"results = {{name: name in trains for name in {_quoted(names)}}}")  # fmt: skip
        return joined([loading.load(is_trainable=True), _plain_name(loading), part(*lines)])

    return _both("which parameters are trainable after loading with `is_trainable=True`", subject, measure)


def _before_colon(finding: Finding) -> list[str]:
    return [text.partition(": ")[0] for text in finding.details][:_NAMED]


def dtypes(finding: Finding, _: Cell, subject: Subject) -> Shown | None:
    """The dtypes of parameters or outputs."""
    names = _before_colon(finding)

    def measure(loading: Loading) -> Part:
        if finding.probe == "forward":
            return loading.load().then(
                part("results = {name: str(value.dtype) for name, value in outputs(model).items()}")
            )
        lines = ("types = {plain_name(name): str(p.dtype) for name, p in model.named_parameters()}",
                 f"results = {{name: types.get(name) for name in {_quoted(names)}}}")  # fmt: skip
        return joined([loading.load(), _plain_name(loading), part(*lines)])

    return _both("dtypes", subject, measure)


def shapes(finding: Finding, _: Cell, subject: Subject) -> Shown | None:
    """The shapes of parameters."""

    def measure(loading: Loading) -> Part:
        lines = ("shapes = {plain_name(name): list(p.shape) for name, p in model.named_parameters()}",
                 f"results = {{name: shapes.get(name) for name in {_quoted(_before_colon(finding))}}}")  # fmt: skip
        return joined([loading.load(), _plain_name(loading), part(*lines)])

    return _both("shapes of parameters", subject, measure)


def gradient_names(finding: Finding, _: Cell, subject: Subject) -> Shown | None:
    """Which parameters get a gradient: those that are trainable."""
    named = finding.model_copy(update={"details": tuple(f"trains: {name}" for name in finding.details)})
    return trainable(named, _, subject)


def arrived(finding: Finding, _: Cell, subject: Subject, load: Measure | None = None) -> Shown | None:
    """Whether the checkpoint's tensors are in the model, found by value; and the outputs."""
    keys = finding.details
    names = _quoted(keys) if len(keys) <= _NAMED else "stored"

    def measure(loading: Loading, load: Measure) -> Part:
        lines = ('stored = tensors("adapter")',
                 "there = list(model.state_dict().values())",
                 "def is_there(value):",
                 "    same = [t for t in there if t.numel() == value.numel() and t.is_floating_point()]",
                 "    return any(torch.equal(t.flatten().float(), value.flatten().float()) for t in same)",
                 f"results.update({{key: is_there(stored[key]) for key in {names}}})")  # fmt: skip
        return joined([load(loading), tensors(), part(*lines)])

    before = measure(Loading(subject.before, subject), outputs)
    return Shown("whether the checkpoint's tensors are loaded, and the outputs", before,
                 measure(Loading(subject.after, subject), load or outputs), True)  # fmt: skip


def keys_kept(finding: Finding, _: Cell, subject: Subject) -> Shown | None:
    """Which keys of the checkpoint remain when the adapter is saved again."""

    def measure(loading: Loading) -> Part:
        lines = (f'again = tensors("{loading.saved_in("again")}")',
                 f"results = {{key: key in again for key in {_quoted(finding.details[:_NAMED])}}}")  # fmt: skip
        return joined([loading.load(), loading.save("again"), tensors(), part(*lines)])

    return _both("which keys remain when the adapter is saved again", subject, measure)


def tensors_kept(finding: Finding, _: Cell, subject: Subject) -> Shown | None:
    """Which tensors of the checkpoint stay the same when the adapter is saved again."""

    def measure(loading: Loading) -> Part:
        lines = (f'stored, again = tensors("adapter"), tensors("{loading.saved_in("again")}")',
                 "results = {key: stored[key].dtype == again[key].dtype and torch.equal(stored[key], again[key])",
                 f"           for key in {_quoted(finding.details[:_NAMED])}}}")  # fmt: skip
        return joined([loading.load(), loading.save("again"), tensors(), part(*lines)])

    return _both("which tensors stay the same when the adapter is saved again", subject, measure)


def config_kept(finding: Finding, _: Cell, subject: Subject) -> Shown | None:
    """Which entries of the configuration stay the same when the adapter is saved again."""
    names = list(dict.fromkeys(re.sub(r"^[-+~] ", "", text).split(":")[0].split(" ")[0] for text in finding.details))

    def measure(loading: Loading) -> Part:
        lines = ('stored = json.load(open("adapter/adapter_config.json"))',
                 f'again = json.load(open("{loading.saved_in("again")}/adapter_config.json"))',
                 'def kept(name):',
                 '    a, b = stored.get(name, "absent"), again.get(name, "absent")',
                 "    return sorted(a) == sorted(b) if isinstance(a, list) and isinstance(b, list) else a == b",
                 f"results = {{name: kept(name) for name in {_quoted(names)}}}")  # fmt: skip
        save = [loading.load(), loading.save("again"), part(*lines, imports=["import json"])]
        return joined(save)

    return _both("which entries of the configuration stay the same when the adapter is saved again", subject, measure)


def steps(finding: Finding, _: Cell, subject: Subject) -> Shown | None:
    """Dtype and trainability of all parameters after a step of preparing a model for training."""
    step = next((text.partition(":")[0] for text in finding.details), "")
    declared = subject.after.scenario.get(finding.probe) or {}
    if step not in (training.STEPS if finding.probe == "sft" else _STEPS):
        return None

    def measure(loading: Loading) -> Part:
        dtype = declared.get("dtype", "float32")
        base = loading.read("base", dtype=dtype)
        if not loading.side.quantize and dtype != "float32":
            base = base.then(part(f"base = base.to(torch.{dtype})"))
        lines = ("results = {plain_name(name): f\"{p.dtype}, {'trainable' if p.requires_grad else 'frozen'}\"",
                 "           for name, p in model.named_parameters()}")  # fmt: skip
        return joined([_after_step(loading, base, step), _plain_name(loading), part(*lines)])

    return _both(f"dtype and trainability of parameters ({step})", subject, measure)


def _after_step(loading: Loading, base: Part, step: str) -> Part:
    if step in training.STEPS:
        return training.trained(loading, base, step)
    config = [loading.config(loading.side.scenario["adapter"])] if "wrapped" in step else []
    return joined([base, *config, *(part(line, imports=imports) for line, imports in _STEPS[step](loading))])


_PREPARE = ("base = prepare_model_for_kbit_training(base)", ["from peft import prepare_model_for_kbit_training"])
_WRAP = "model = get_peft_model(base, config{0})"
_AS_IS = ", autocast_adapter_dtype=False"
_GET = ["from peft import get_peft_model"]
_FROM = ["from peft import PeftModel"]

_STEPS: dict[str, Callable[[Loading], list[tuple[str, list[str]]]]] = {
    "base": lambda _: [("model = base", [])],
    "prepared": lambda _: [_PREPARE, ("model = base", [])],
    "wrapped": lambda _: [_PREPARE, (_WRAP.format(""), _GET)],
    "wrapped-as-is": lambda _: [_PREPARE, (_WRAP.format(_AS_IS), _GET)],
    "loaded": lambda loading: [(f"model = {loading.adapter(base='base')}", _FROM)],
    "loaded-as-is": lambda loading: [(f"model = {loading.adapter(base='base', autocast_adapter_dtype=False)}", _FROM)],
    "loaded-for-training": lambda loading: [
        _PREPARE, (f"model = {loading.adapter(base='base', is_trainable=True)}", _FROM)
    ],
}  # fmt: skip


def warned(finding: Finding, cell: Cell, subject: Subject) -> Shown | None:
    """Whether a warning is issued."""
    said = re.sub(r"^[\w.]+: ", "", finding.message)
    snippet = max(re.split(r"…|\s{2,}", said), key=len)[:300].strip()
    probe = next((text.partition(": ")[0] for text in cell.new_warnings if finding.message in text), "load")

    def measure(loading: Loading) -> Part:
        heard = part(
            "said = []",
            "class Heard(logging.Handler):",
            "    def emit(self, record):",
            '        said.append(" ".join(record.getMessage().split()))',
            "logging.captureWarnings(True)",
            'warnings.simplefilter("always")',
            'for name in ("", "transformers", "peft", "accelerate", "bitsandbytes", "trl"):',
            "    logging.getLogger(name).addHandler(Heard())",
            imports=["import logging", "import warnings"],
        )
        done = disabled(loading) if probe == "base" else _operated(loading, probe).then(part("outputs(model)"))
        ask = part(f"results = {{{snippet!r}: any({snippet!r} in text for text in said)}}")
        return joined([heard, done, ask])

    return _both("the warnings", subject, measure)


def dropout(finding: Finding, _: Cell, subject: Subject) -> Shown | None:
    """Whether dropout acts in train mode."""
    del finding
    asked = part('results = {"dropout acts": any(bool((value != 0).any()) for value in results.values())}')
    return _both("whether dropout acts in train mode", subject, lambda loading: dropout_of(loading).then(asked))


def switching(finding: Finding, _: Cell, subject: Subject) -> Shown | None:
    """Whether switching to another adapter has an effect."""
    del finding

    def measure(loading: Loading) -> Part:
        operation = OPERATIONS["second"](loading)
        lines = operation.lines[:-1]  # without the line that switches back
        differ = "any(not torch.equal(other[name], reference[name]) for name in other)"
        ask = ("other = outputs(model)", f'results = {{"switching has an effect": {differ}}}')
        return joined([loading.load(), part("reference = outputs(model)"), part(*lines).needing(operation), part(*ask)])

    return _both("whether switching to another adapter has an effect", subject, measure)
