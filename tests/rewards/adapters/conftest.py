"""Each test registers the rewards of a folder of its own, and under the same names."""

import pytest

from rewards.adapters import verl
from rewards.registry import REGISTRY


@pytest.fixture(autouse=True)
def _registry():
    before = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)
    verl._load.cache_clear()
