"""Shared by all tests: a cache of their own, so that nothing outside the test run is read or left behind."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def _cache_of_the_test_run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSOL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
