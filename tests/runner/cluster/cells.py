"""Planned cells for tests of what sends them."""

from __future__ import annotations

from pathlib import Path

from harness.core.matrix import CellId, Declared
from harness.core.scenario import Base, Scenario
from harness.runner.plan import Planned


def planned(scenario: str, creator: str = "v061", loader: str = "current", limit_s: float = 10.0) -> Planned:
    """One cell."""
    declared = Declared(
        Scenario.model_validate(
            {"name": scenario, "why": "A test.", "base": "mlp", "family": "x", "adapter": {"config": "LoraConfig"}}
        ),
        Base.model_validate({"why": "A test.", "python": "mlp.py"}),
        "mlp", Path("x.toml"), {},
    )  # fmt: skip
    return Planned(CellId(scenario, creator, loader), declared, creator, loader, limit_s)


def many(count: int, creators: int = 1, loader: str = "current") -> list[Planned]:
    """Cells of several scenarios and creators."""
    return [planned(f"s{number:03}", f"v{one}", loader) for number in range(count) for one in range(creators)]
