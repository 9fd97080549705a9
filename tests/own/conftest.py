"""What the tests of users' own adapters share."""

from __future__ import annotations

import pytest

from harness.core import data
from harness.store import saved_adapter
from harness.store.fixtures import Store
from harness.store.saved_adapter import Written


@pytest.fixture(scope="session")
def stored() -> list[Written]:
    """Every adapter of the repository's fixtures."""
    store = Store(data.fixtures())
    names = [(creator, name) for creator in store.creators() for name in store.scenarios(creator)]
    return [saved_adapter.read(store, store.manifest(creator, name)) for creator, name in names]
