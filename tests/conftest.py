"""Shared by all tests: a cache of their own, so that nothing outside the test run is read or left behind."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "data_scripts"))  # they import each other, as when they are run


@pytest.fixture(autouse=True, scope="session")
def _cache_of_the_test_run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSOL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Sums are added up in one order everywhere: here, on other machines, and in the processes that tests start."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
