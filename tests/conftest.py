"""What every test stands on: one thread for each worker, and no folder of the person who runs them."""

import os
from collections.abc import Iterator

# Read when the numeric libraries are loaded: workers of pytest share the cores, and sums keep their order.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import hypothesis
import pytest

# How long an example takes says how busy the machine is, not whether the code is right.
hypothesis.settings.register_profile("mood", deadline=None)
hypothesis.settings.load_profile("mood")


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches and data roots of the tests, and of the processes that they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOOD_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("MOOD_DATA", raising=False)
        yield
