"""The loopback endpoint that stands for the service."""

import os
from types import SimpleNamespace

import pytest
from braket.tracking import pricing

from solvers.cloud import devices
from tests.braket_endpoint import Endpoint


@pytest.fixture
def braket(tmp_path, monkeypatch):
    """The endpoint, with the SDK's environment pointed at it and nothing remembered."""
    for name in [*os.environ]:
        if name.startswith(("AWS_", "AMZN_BRAKET")):
            monkeypatch.delenv(name)
    devices._offers.cache_clear()
    pricing._pricing._price_list.clear()
    pricing.price_search.cache_clear()
    # The SDK waits for seconds between its own attempts.
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))
    with Endpoint() as endpoint:
        for name, value in endpoint.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        yield endpoint
    devices._offers.cache_clear()
