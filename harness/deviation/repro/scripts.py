"""The text of `before.py`, which saves results, and of `after.py`, which computes the same and compares (pure)."""

from __future__ import annotations

from collections.abc import Iterable

from harness.deviation.repro import python_text
from harness.deviation.repro.aspects import Aspect, words
from harness.deviation.repro.loading import Loading
from harness.deviation.repro.python_text import Part, joined, part
from harness.deviation.repro.subject import Subject

KEPT = "before.pt"
DEVIATES = "It deviates."
SOUND = "No deviation."
"""The last line that `after.py` prints."""


def before(subject: Subject, aspect: Aspect) -> str:
    """The text of `before.py`."""
    loading = Loading(subject.before, subject, aspect.double)
    does = f"Run with the libraries that saved the adapter: {words(aspect.title)}, saved in {KEPT}."
    shown = "value.flatten()[:4]" if aspect.compares == "numbers" else "value"
    end = part(f'torch.save(results, "{KEPT}")', "for name, value in results.items():", f"    print(name, {shown})")
    return _whole(does, loading, aspect, [aspect.before, end])


def after(subject: Subject, aspect: Aspect) -> str:
    """The text of `after.py`."""
    loading = Loading(subject.after, subject, aspect.double)
    if aspect.raises or aspect.dies:
        does = f"Run with the newer libraries, after before.py: {words(aspect.title)}."
        end = part(f'print("{SOUND}")')
        return _whole(does, loading, aspect, [aspect.after, end])
    does = f"Run with the newer libraries, after before.py: {words(aspect.title)}, compared with {KEPT}."
    return _whole(does, loading, aspect, [aspect.after, _comparing(aspect)])


def _comparing(aspect: Aspect) -> Part:
    numbers = (
        "difference = (results[name].double() - expected.double()).abs().max().item()",
        'print(f"{name}: greatest difference {difference:.3g}")',
        f"deviates = deviates or not difference <= {_number(aspect.bound)}  # more than rounding explains",
    )
    facts = (
        "if results.get(name) != expected:",
        '    print(f"{name}: was {expected}, is {results.get(name)}")',
        "    deviates = True",
    )
    each: tuple[str, ...] = numbers
    match aspect.compares:
        case "numbers":
            pass
        case "facts":
            each = facts
        case "both":
            each = ("if torch.is_tensor(expected):", *(f"    {line}" for line in numbers), f"el{facts[0]}", *facts[1:])
    if aspect.grads:  # releases may name a parameter differently
        each = ("if name not in results:", "    continue", *each)
    lines = (
        f'before = torch.load("{KEPT}", weights_only=True)',
        "deviates = False",
        "for name, expected in before.items():",
        *(f"    {line}" for line in each),
        f'print("{DEVIATES}" if deviates else "{SOUND}")',
        "sys.exit(int(deviates))",
    )
    return part(*lines, imports=["import sys"])


def _number(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e+") if value != 0.5 else "0.5"


def _whole(does: str, loading: Loading, aspect: Aspect, parts: Iterable[Part]) -> str:
    start = []
    if not aspect.grads:
        start.append("torch.set_grad_enabled(False)")
    if aspect.double:
        start.append("torch.set_default_dtype(torch.float64)  # float32's rounding would hide it")
    preamble, body = loading.preamble(), joined(parts)
    if any("torch.compile(" in line for lines in preamble.helpers.values() for line in lines):
        start.append('torch.compiler.set_stance("force_eager")')
    if loading.side.wrappers()[1]:
        preamble = preamble.needing(part(imports=["from peft import PeftModel"]))
    helpers = {**body.helpers, **preamble.helpers}
    sections = [_quoted(does), *python_text.imported([*preamble.imports, *body.imports, "import torch"]), ""]
    sections += [*start, *([""] if start else []), *preamble.lines, ""]
    for name in _in_order(helpers):
        sections += ["", *helpers[name], ""]
    sections += ["", *body.lines]
    return _tidy(sections)


def _in_order(helpers: dict[str, tuple[str, ...]]) -> list[str]:
    """`load_base` and `outputs` last, because they use the others."""
    last = [name for name in ("load_base", "outputs") if name in helpers]
    return [*(name for name in helpers if name not in last), *last]


def _quoted(does: str) -> str:
    does = " ".join(does.split()).replace("\\", "\\\\").replace('"', '\\"')  # names in it come from a checkpoint
    if len(does) >= python_text.WIDTH - 6:
        at = does.rfind(" ", 0, python_text.WIDTH - 6)
        does = f"{does[:at]}\n{does[at + 1 :]}"
    return f'"""{does}"""'


def _tidy(lines: Iterable[str]) -> str:
    """Without more than two empty lines in a row."""
    found: list[str] = []
    for line in "\n".join(lines).split("\n"):
        if line or found[-2:] != ["", ""]:
            found.append(line.rstrip())
    return "\n".join(found).strip("\n") + "\n"
