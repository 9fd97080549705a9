"""The environments of a run side by side, and where its fixtures come from, as data. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from harness.core.run import EnvironmentReport, Run
from harness.core.text import many
from harness.core.verdict import Verdict
from harness.core.versions import package_order
from harness.report.labels import creator_labels, loader_labels


@dataclass(frozen=True)
class Environments:
    """The environments in release order: creators, then loaders. A row has one value per environment."""

    id: ClassVar[str] = "environments"
    title: ClassVar[str] = "Environments"
    names: tuple[str, ...]
    roles: tuple[str, ...]
    packages: tuple[tuple[str, tuple[str, ...]], ...]
    """Package → its versions."""
    alike: tuple[tuple[str, str], ...]
    """Package → its version, if all environments have the same."""
    facts: tuple[tuple[str, tuple[str, ...]], ...]
    fixtures: str
    devices: str

    @property
    def differing(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The packages that are not the same in all environments."""
        same = dict(self.alike)
        return tuple((name, row) for name, row in self.packages if name not in same)

    @property
    def note(self) -> str:
        """How many packages differ."""
        return f"{len(self.names):,}, {many(len(self.differing), 'package differs', 'packages differ')}"


def environments(run: Run) -> Environments:
    """The environments of a run."""
    every = _ordered(run)
    packages = {e.name: e.versions | ({"python": e.python} if e.python else {}) for e in every}
    names = sorted({name for known in packages.values() for name in known}, key=package_order)
    table = tuple((name, tuple(packages[e.name].get(name, "–") for e in every)) for name in names)
    known = [place for place, e in enumerate(every) if packages[e.name]]
    return Environments(
        names=tuple(e.name for e in every),
        roles=tuple(" and ".join(e.role) or e.kind for e in every),
        packages=table,
        alike=tuple((name, row[known[0]]) for name, row in table if len({row[place] for place in known}) == 1),
        facts=_facts(every),
        fixtures=fixtures(run),
        devices=", ".join(dict.fromkeys(cell.place for cell in run.cells)) or "none",
    )


def _ordered(run: Run) -> list[EnvironmentReport]:
    order = {name: place for place, name in enumerate([*creator_labels(run), *loader_labels(run)])}
    return sorted(run.environments, key=lambda e: order.get(e.name, len(order)))


def _facts(every: Sequence[EnvironmentReport]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Where each environment ran, without the lines that are empty for all."""
    lines = {
        "spec": [e.spec if e.spec != e.name else "" for e in every],
        "kind": [e.kind for e in every],
        "lock": [e.lock_digest[:12] for e in every],
        "platform": [str(e.facts.get("platform", "")) for e in every],
        "processor": [str(e.facts.get("cpu", "")) for e in every],
        "device": [_device(e) for e in every],
        "threads": [str(e.facts.get("threads", "")) for e in every],
    }
    return tuple((name, tuple(values)) for name, values in lines.items() if any(values))


def _device(environment: EnvironmentReport) -> str:
    cuda, gpu = environment.facts.get("cuda"), environment.facts.get("gpu")
    name = gpu.get("name", "") if isinstance(gpu, dict) else gpu
    return str(environment.facts.get("device") or name or ("cuda" if cuda else ""))


def fixtures(run: Run) -> str:
    """How many fixtures were read and intact, where they come from, and how many were damaged or missing."""
    origins = Counter(cell.fixture_origin for cell in {c.fixture: c for c in run.cells if c.fixture}.values())
    total = origins.total()
    where = ", ".join(f"{origins[name]:,} {name}" for name in ("committed", "created") if origins[name])
    parts = [f"{many(total, 'checkpoint')} read, digests intact" + (f" ({where})" if where else "")] if total else []
    shared = sum(bool(cell.same_as) for cell in run.cells)
    if shared:
        parts.append(f"{many(shared, 'cell')} reused the result of an equivalent fixture")
    for verdict, word in ((Verdict.BAD_FIXTURE, "damaged"), (Verdict.NO_FIXTURE, "missing")):
        count = sum(cell.verdict is verdict for cell in run.cells)
        parts += [f"{count:,} {word}"] if count else []
    return "; ".join(parts) or "none was read"
