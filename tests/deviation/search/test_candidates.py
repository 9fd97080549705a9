"""Failures of disk and network are not failures of a candidate's versions."""

from __future__ import annotations

import pytest

from harness.deviation.search.candidates import is_outage
from harness.envs.environment import EnvFailed

OUTAGES = [
    "error: failed to copy file: No space left on device (os error 28)",
    "error: Failed to fetch: `https://index/simple/peft/`\n  Caused by: dns error: failed to lookup address",
    "  Caused by: error sending request for url (https://index/simple/peft/)",
    "  Caused by: tcp connect error: Connection refused (os error 111)",
    "error: Failed to fetch ... HTTP status server error (503 Service Unavailable)",
    "error: failed to create directory: Permission denied (os error 13)",
    "  Caused by: operation timed out",
]
VERSIONS = [
    "  × No solution found when resolving dependencies:\n  ╰─▶ And because you require peft==0.21.2 …",
    "error: Failed to fetch: `https://index/peft-9.whl` HTTP status client error (404 Not Found)",
    "  × Failed to build `tokenizers==0.13.3`",
    "ImportError: cannot import name 'Cache' from 'transformers'",
]


@pytest.mark.parametrize("said", OUTAGES)
def test_failures_of_disk_and_network_are_outages(said: str) -> None:
    assert is_outage(EnvFailed("try-1", "build", "`uv pip` fails with exit code 2", tail=said))


@pytest.mark.parametrize("said", VERSIONS)
def test_failures_of_versions_are_not_outages(said: str) -> None:
    assert not is_outage(EnvFailed("try-1", "resolve", "it does not resolve", tail=said))
