"""Makes fixtures: has the worker create an adapter in the creator's environment, and refuses what proves nothing."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.core import matrix, observation
from harness.core.errors import HarnessError
from harness.core.matrix import Declared
from harness.core.observation import Done, Observed
from harness.judge import checkpoint_keys, compare, numbers
from harness.runner.workers.gpus import WorkerPool
from harness.runner.workers.pool import Job
from harness.runner.workers.process import WORKER
from harness.store.fixtures import Manifest, Store

EFFECT = 1e-3
"""An adapter must move the output by this share of the output's root mean square, or its fixture would prove nothing.

Not a tolerance: what a loader may deviate is measured. The fill makes effects of 0.1 to 1; anything near this bound
means that the adapter was switched off or that the inputs do not reach it."""

_FACTS = ("python", "platform", "machine", "cpu", "threads")
_NUMERICS = ("ATEN_", "CUBLAS", "GLIBC_TUNABLES", "MKL_", "NVIDIA_TF32", "OMP_", "ONEDNN", "OPENBLAS", "PYTHONHASHSEED")


class CreationRefused(HarnessError):
    """The scenario could not be created, or what came out would prove nothing."""


def worker_command(python: Path, handler: Path | None) -> list[str] | None:
    """How a worker is started with another handler than its own; None where it has its own.

    Args:
        handler: a Python file in place of `worker/cell.py`; for tests of everything around it.
    """
    return [str(python), str(WORKER), "--serve", "--handler", str(handler)] if handler else None


def create(
    pool: WorkerPool, declared: Declared, creator: str, lock_digest: str, scratch: Path, *, device: str = "cpu"
) -> tuple[Manifest, Path]:
    """Have a fixture's files made in `scratch`, and check them.

    Args:
        device: other than the CPU: `scratch` holds the fixture as it was made on the CPU, and is only observed there.

    Returns:
        the manifest as far as it is known without the store, and the folder with `adapter/`, `base/` and `golden/`.

    Raises:
        CreationRefused: the libraries raised, or the adapter has no effect, or a value is not finite, or the
        checkpoint does not
            hold what the scenario `expects`.
        WorkerFailed: the environment's worker does not start.
    """
    facts = pool.facts()
    versions = {str(k): str(v) for k, v in facts["versions"].items()}
    resolved = matrix.resolve(declared, versions)
    scratch.mkdir(parents=True, exist_ok=True)
    stored = {"stored": True} if device != "cpu" else {}
    request = {"kind": "create", "scratch": str(scratch), "scenario": resolved, "device": device, **stored}
    name = f"create:{declared.name}@{creator}"
    done = pool.submit(Job(name, request, scratch, declared.scenario.time_limit_s)).result()
    golden = _read(done, scratch, declared.name)
    refuse_unfit(golden, resolved)
    (scratch / "golden" / "timings.json").unlink(missing_ok=True)
    manifest = Manifest(
        scenario=declared.name,
        creator=creator,
        scenario_digest=matrix.digest(resolved),
        resolved=resolved,
        lock_digest=lock_digest,
        versions=versions,
        facts=evidence(facts) | {"device": device} | ({"gpu": facts["gpu"]} if "gpu" in facts else {}),
        standing_defects=list(standing_defects(golden)),
        unstable=bool(golden.facts.get("repeat")),
        created=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
    return manifest, scratch


def evidence(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What of a worker's facts a manifest keeps: what numbers may hang on; no path of the machine."""
    numerics = facts.get("numerics", {})
    pins = {name: value for name, value in numerics.get("environ", {}).items() if name.startswith(_NUMERICS)}
    libc = {"libc": numerics["libc"]} if "libc" in numerics else {}
    return {key: facts[key] for key in _FACTS if key in facts} | libc | {"pins": pins}


def save(
    store: Store, manifest: Manifest, folder: Path, *, device_class: str = "cpu", replace: str | None = None
) -> Manifest:
    """Store what `create` left in a folder."""
    return store.save(
        manifest, folder / "adapter", folder / "base", folder / "golden", device_class=device_class, replace=replace
    )


def _read(done: Done, scratch: Path, scenario: str) -> Observed:
    if done.outcome != "done":
        raise CreationRefused(
            f"{scenario}: creating it ended with {done.outcome}: {done.detail}\n{done.log_tail}".rstrip(),
            "a creation that ends",
            "run it alone with `create -k` and read the log",
        )
    golden = observation.read(scratch / "golden")
    made = golden.load.get("create", {})
    if made.get("outcome") != "ok":
        error = compare.error_report(made.get("error"))
        what = f"{error.type}: {error.message} (stage {error.stage})" if error else "no outcome"
        raise CreationRefused(
            f"{scenario}: the creator's libraries refuse it: {what}",
            "a scenario that this release can create",
            "mend the scenario, or state under `requires` or `when` what it needs",
        )
    return golden


def refuse_unfit(golden: Observed, resolved: Mapping[str, Any]) -> None:
    """Raise CreationRefused where a golden would prove nothing."""
    name = golden.scenario
    _refuse_failed(golden, name)
    if problems := checkpoint_keys.unmet(golden, resolved):
        raise CreationRefused(
            f"{name}: the checkpoint does not hold what the scenario `expects`: {'; '.join(problems)}",
            "the keys and shapes under `expects`",
            f"keys are: {', '.join(checkpoint_keys.stored_keys(golden))}",
        )
    for array_name, array in golden.arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise CreationRefused(
                f"{name}: {array_name} is not finite", "finite numbers everywhere", "mend base, inputs or fill"
            )
    if (effect := effect_of(golden)) < EFFECT:
        raise CreationRefused(
            f"{name}: the adapter moves the output by {effect:.2g} of its size",
            f"at least {EFFECT:g}, so that losing the adapter would show",
            "check target modules, inputs and `fill`",
        )
    if (error := kernel_error(golden)) * numbers.BELIEVED > effect:
        raise CreationRefused(
            f"{name}: the quantised base is {error:.2g} of its size away from what its weights stand for, and the "
            f"adapter moves it by {effect:.2g}",
            f"kernels whose error is at most a {numbers.BELIEVED:g}th of the adapter's effect",
            "the creator's bitsandbytes computes wrongly on this processor, or for this PEFT: take another release",
        )


def _refuse_failed(golden: Observed, name: str) -> None:
    for what, said in (("reloading it", golden.load.get("float32", {})), ("forward", _said(golden, "forward"))):
        if said.get("outcome") != "ok":
            error = said.get("error") or {}
            raise CreationRefused(
                f"{name}: {what} fails in the creator's own library: {error.get('type')}: {error.get('message')}",
                "an adapter that its creator can load and run",
                "mend the scenario, or state under `requires` what it needs",
            )


def _said(golden: Observed, probe: str) -> Mapping[str, Any]:
    said: Mapping[str, Any] = golden.probes.get(probe, {}).get("float32", {})
    return said


def effect_of(golden: Observed) -> float:
    """How far the adapter moves the base's output, as a share of its root mean square; the greatest of all outputs."""
    adapted, plain = golden.group("forward", "float32"), golden.group("base", "float32")
    shares = [0.0]
    for name in set(adapted) & set(plain) - {"sketch"}:
        if adapted[name].shape != plain[name].shape:
            return float("inf")  # a prompt that lengthens the output has an effect that nobody can miss
        scale = numbers.rms(plain[name]) or 1.0
        shares.append(numbers.rms(adapted[name].astype(np.float64) - plain[name]) / scale)
    return max(shares)


def kernel_error(golden: Observed) -> float:
    """How far a quantised base is from its dequantised reference, as a share of its root mean square; else 0."""
    if numbers.measure(golden).kernels is None:
        return 0.0
    own, reference = golden.group("base", "float32"), golden.group("base", "float64")
    shares = [0.0]
    for name in set(own) & set(reference) - {"sketch"}:
        scale = numbers.rms(reference[name]) or 1.0
        shares.append(numbers.rms(own[name].astype(np.float64) - reference[name]) / scale)
    return max(shares)


def standing_defects(golden: Observed) -> tuple[str, ...]:
    """What the creator's own library fails of the checks that need no golden: the golden is held against itself."""
    defects = list(compare.judge(golden, golden).standing_defects)
    before, after = golden.group("created", "float32"), golden.group("forward", "float32")
    noise = numbers.measure(golden)
    for name in sorted(set(before) & set(after)):
        full = f"forward/float32/{name}"
        gap = numbers.difference(full, before[name], after[name], numbers.allowance(full, before[name], noise, noise))
        if compare.beyond(gap):
            defects.insert(0, f"saved and reloaded by its own library it computes something else, by {gap.max_abs:.3g}")
    return tuple(defects)
