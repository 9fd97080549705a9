"""How inputs, base and adapter are loaded, as Python that a person would write (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.deviation.repro import bases, python_text, quantised, wrapping
from harness.deviation.repro.python_text import Part, arguments, part
from harness.deviation.repro.subject import Side, Subject

INPUTS_FILE = "inputs.safetensors"


@dataclass(frozen=True)
class Loading:
    """How one script loads inputs, base and adapter.

    Attributes:
        double: in float64, if float32's rounding would hide the deviation.
    """

    side: Side
    subject: Subject
    double: bool = False

    # -- inputs and outputs ------------------------------------------------------------------------------------------

    def preamble(self) -> Part:
        """The start of every script: the inputs, `load_base` and `outputs`."""
        return (
            self._inputs()
            .then(Part(helpers={**self._base().helpers, "outputs": self._outputs()}))
            .needing(self._base())
        )

    def _inputs(self) -> Part:
        inputs = self.subject.inputs
        small = {name: array for name, array in inputs.items() if python_text.is_literal(array)}
        lines, imports = [], ["import torch"]
        if len(small) < len(inputs):
            lines.append(f'inputs = load_file("{INPUTS_FILE}")')
            imports.append("from safetensors.torch import load_file")
            lines += [f'inputs["{name}"] = {python_text.tensor(array)}' for name, array in small.items()]
            if self.double:
                lines.append("inputs = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}")
        else:
            lines.append("inputs = {")
            lines += [f'    "{name}": {python_text.tensor(array)},' for name, array in small.items()]
            lines.append("}")
        if self.subject.device != "cpu":
            lines.append(f'inputs = {{name: value.to("{self.subject.device}") for name, value in inputs.items()}}')
        if self.subject.adapter_only:
            names = ", ".join(f'"{name}"' for name in sorted(self.subject.adapter_only))
            lines.append(f"base_inputs = {{name: value for name, value in inputs.items() if name not in ({names},)}}")
        return part(*lines, imports=imports)

    def _outputs(self) -> tuple[str, ...]:
        signature = "def outputs(model, inputs=inputs):" if self.subject.adapter_only else "def outputs(model):"
        around = self.side.wrappers()[1]
        put = [f"    if isinstance(model, PeftModel):\n        model = {wrapping.expression(kind, 'model')}"
               for kind in around]  # fmt: skip
        return (signature, *put, f"    result = model({self._call()})", f"    return {self._fields()}")

    def _call(self) -> str:
        alone = len(self.subject.inputs) == 1 and not self.of_library
        return f'inputs["{next(iter(self.subject.inputs))}"]' if alone else "**inputs"

    @property
    def of_library(self) -> bool:
        """True if the base's class is a library's, not in `model.py`."""
        return self.side.base["kind"] in ("transformers", "hub") or self.subject.has_own_format

    def _fields(self) -> str:
        names = self.subject.outputs
        if any("value-head" in kind for kinds in self.side.wrappers() for kind in kinds):
            return f'{{"{names[0]}": result[0]}}'  # its result is a tuple
        if names == ("output",):
            whole = self.side.base["kind"] == "modules"
            return '{"output": result}' if whole else '{"output": result if torch.is_tensor(result) else result[0]}'
        field = "result.{0}" if self.of_library else 'result["{0}"]'
        return "{" + ", ".join(f'"{name}": {field.format(name)}' for name in names) + "}"

    @property
    def base_outputs(self) -> str:
        """The expression for the outputs of a model without an adapter, with `{0}` for the model."""
        return "outputs({0}, base_inputs)" if self.subject.adapter_only else "outputs({0})"

    # -- the base ----------------------------------------------------------------------------------------------------

    def _base(self) -> Part:
        read = self.read("base")
        around = wrapping.parts(self.side)
        lines = [*read.lines, *(f"base = {wrapping.expression(kind, 'base')}" for kind in around.kinds)]
        if size := self.side.base.get("resize_to"):
            lines[len(read.lines) : len(read.lines)] = _added_tokens(int(size))
        if self.double and self.side.quantize:
            values = quantised.dequantising(self.side.quantize)
            read = read.needing(values)
            lines = ["torch.set_default_dtype(torch.float32)", *lines, *values.lines]
        elif self.double:
            lines.append("base = base.double()")
        if self.subject.device != "cpu" and not self.side.quantize:
            lines.append(f'base = base.to("{self.subject.device}")')
        body = [f"return {lines[0].removeprefix('base = ')}"] if len(lines) == 1 else [*lines, "return base"]
        helpers = {**read.helpers, **around.helpers}
        text_of = ("def load_base():", *(f"    {line}" for line in body))
        return Part(imports=(*read.imports, *around.imports), helpers={**helpers, "load_base": text_of})

    def read(self, folder: str, stored: bool = False, dtype: str = "float32") -> Part:
        """Lines that load the base from a folder into `base`.

        Args:
            stored: the folder has quantised weights, as bitsandbytes saved them.
            dtype: of the weights that are not quantised.
        """
        if self.side.quantize:
            return quantised.read(self.side, self.subject, folder, stored, dtype)
        return bases.unquantised(self.side, self.subject, folder)

    # -- the adapter -------------------------------------------------------------------------------------------------

    def adapter(self, folder: str = "adapter", name: str = "", base: str = "load_base()", **more: Any) -> str:
        """The expression that loads the adapter."""
        name = name or self.side.adapter_name
        given = {**({"adapter_name": name} if name != "default" else {}), **more}
        rest = f", {arguments(given)}" if given else ""
        return f'PeftModel.from_pretrained({base}, "{folder}"{rest}){".double()" if self.double else ""}.eval()'

    def load(self, **more: Any) -> Part:
        """Lines that load the adapter into `model`."""
        return part(f"model = {self.adapter(**more)}", imports=["from peft import PeftModel"])

    def config(self, adapter: Mapping[str, Any]) -> Part:
        """Lines that assign `config`, as the scenario declares an adapter."""
        kind = adapter["config"]
        if adapter.get("given"):
            lines = ('config = PeftConfig.from_pretrained("adapter")', "config.inference_mode = False")
            return part(*lines, imports=["from peft import PeftConfig"])
        return part(f"config = {kind}({arguments(adapter['args'])})", imports=[f"from peft import {kind}"])

    def save(self, folder: str) -> Part:
        """Lines that save the adapter again."""
        name = self.side.adapter_name
        more = ", save_embedding_layers=False" if self.side.release.asks_hub_on_saving else ""
        return part(f'model.save_pretrained("{folder}"{more})  # into {self.saved_in(folder)}' if name != "default"
                    else f'model.save_pretrained("{folder}"{more})')  # fmt: skip

    def saved_in(self, folder: str) -> str:
        """The folder that `save` writes: an adapter that is not named `default` has a subfolder."""
        name = self.side.adapter_name
        return folder if name == "default" else f"{folder}/{name}"


def _added_tokens(size: int) -> list[str]:
    """Add tokens after loading; their rows get the same values on both sides."""
    return [
        "known = base.get_input_embeddings().weight.shape[0]",
        f"base.resize_token_embeddings({size})  # tokens were added after loading",
        "for layer in (base.get_input_embeddings(), base.get_output_embeddings()):",
        "    rows = layer.weight.data[known:]",
        "    rows.copy_(torch.linspace(-0.5, 0.5, rows.numel()).view_as(rows))",
    ]
