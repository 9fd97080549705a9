"""Every method that the newest PEFT has is in some scenario: one that comes with a release must not go unseen."""

from __future__ import annotations

import json
import subprocess

import pytest

from harness.core.matrix import Matrix
from harness.envs.environments import Environments
from tests.support.mini.world import REPOSITORY

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("real")]

SCRIPT = """
import json
from peft import PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
print(json.dumps({kind.value: getattr(PEFT_TYPE_TO_CONFIG_MAPPING.get(kind), "__name__", None) for kind in PeftType}))
"""


def test_every_method_of_the_newest_peft_is_in_a_scenario(environments: Environments) -> None:
    python = environments.build("current").python
    done = subprocess.run([str(python), "-c", SCRIPT], capture_output=True, text=True, check=True)
    methods: dict[str, str | None] = json.loads(done.stdout.splitlines()[-1])
    scenarios = [declared.scenario for declared in Matrix(REPOSITORY / "matrices").scenarios()]
    used = {scenario.adapter.config for scenario in scenarios}
    used |= {when.config for scenario in scenarios for when in scenario.when if when.config}

    assert len(methods) > 40
    assert [kind for kind, config in methods.items() if config is None] == []
    assert sorted(str(config) for config in methods.values() if config not in used) == []
