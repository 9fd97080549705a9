"""The steps of a session, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One command of peft-regress, and what its figures are of.

    Attributes:
        name: names the step in the log, and its folder in the results.
        file: the archive of results that it goes to; several steps may share one.
        what: what it computes.
        share: the greatest part of the whole time that it may take.
        argv: the command; `{place}` is replaced, see `Session.places`.
        needs: a package without which the step is skipped.
        on_cpu: True if it computes on the CPU: it runs beside the steps on the GPU.
        after: a step without whose results this one cannot run.
        again: the step that this one repeats, to compare their figures.
    """

    name: str
    file: str
    what: str
    share: float
    argv: tuple[str, ...]
    needs: str = ""
    on_cpu: bool = False
    after: str = ""
    again: str = ""


CHECK = ("check", "--loader", "{loader}", "--reports", "{results}", "--jobs", "{jobs}")
ON_GPU = (*CHECK, "--device", "cuda")
CREATE = ("create", "{loader}", "--fixtures", "{fixtures}")
COMMON = (
    "-k",
    "lora-rank-alpha-pattern or lora-dropout or loha-linear or ia3-linear or lokr-alpha or adaption-prompt-last-layer",
)

STEPS = (
    Step(
        "cuda-float32", "cuda-float32", "one stored adapter of each family on the GPU, in float32", 0.3,
        (*ON_GPU, "{adapters}", "{baseline}"),
    ),
    Step(
        "own-cpu", "goldens", "new adapters of this machine's libraries, with goldens of its CPU", 0.4,
        (*CREATE, *COMMON), on_cpu=True,
    ),
    Step(
        "cpu", "cpu", "all adapters of PEFT 0.6.1 on this machine's CPU: its goldens were computed on another CPU", 0.6,
        (*CHECK, "--creator", "v061"), on_cpu=True,
    ),
    Step(
        "own-cuda", "classes", "the new adapters on the GPU, compared with the CPU's goldens", 0.12,
        (*ON_GPU, "--fixtures", "{fixtures}", *COMMON), after="own-cpu",
    ),
    Step(
        "own-goldens", "goldens", "goldens of this GPU's device class for the new adapters", 0.12,
        (*CREATE, "--device", "cuda", *COMMON), after="own-cpu",
    ),
    Step(
        "own-again", "classes", "the new adapters on the GPU, compared with the goldens of its own class", 0.12,
        (*ON_GPU, "--fixtures", "{fixtures}", *COMMON), after="own-goldens",
    ),
    Step(
        "bfloat16", "narrow", "common methods on the GPU in bfloat16, with sdpa", 0.15,
        (*ON_GPU, "--creator", "v061", "--dtype", "bfloat16", "--attention", "sdpa", *COMMON),
    ),
    Step(
        "bitsandbytes", "bitsandbytes", "4-bit and 8-bit bases on the GPU, with bitsandbytes' CUDA kernels", 0.2,
        (*ON_GPU, "--creator", "bnb-v0212"), needs="bitsandbytes",
    ),
    Step(
        "cuda-again", "cuda-again", "cuda-float32 once more: two equal runs must give equal figures", 0.3,
        (*ON_GPU, "{adapters}"), after="cuda-float32", again="cuda-float32",
    ),
    Step(
        "float16", "narrow", "common methods on the GPU in float16, with sdpa", 0.15,
        (*ON_GPU, "--creator", "v061", "--dtype", "float16", "--attention", "sdpa", *COMMON),
    ),
    Step(
        "flash", "narrow", "LoRA on the GPU in bfloat16, with flash attention", 0.1,
        (*ON_GPU, "--creator", "v061", "--dtype", "bfloat16", "--attention", "flash_attention_2", "-k", "lora-linear"),
        needs="flash_attn",
    ),
)  # fmt: skip
"""In the order of their value: what is cut off by the end of the time is the least valuable."""
