"""What of the rules injection needs to know."""

from __future__ import annotations

import pytest

from sidecar.cli.inject import injection
from sidecar.core.rules import AzureIdentity, RedisRule, Region, Rules, Service, StoredCredential
from sidecar.dialects import DIALECTS

STORED = StoredCredential("api-key", "/key")
WORKLOAD, MANAGED = AzureIdentity("workload"), AzureIdentity("managed")


@pytest.mark.parametrize(
    ("region", "redis", "labelled"),
    [
        (None, None, False),
        (STORED, None, False),
        (MANAGED, MANAGED, False),
        (WORKLOAD, None, True),
        (WORKLOAD, MANAGED, True),
        (None, WORKLOAD, True),
        (STORED, WORKLOAD, True),
    ],
)
def test_identity(region, redis, labelled):
    """Pods need the label of workload identity if any region uses one, or Redis."""
    place = Region("here", "https://gateway.example", credential=region)
    service = Service("openai", DIALECTS["openai"], (place,), path="/openai")
    rules = Rules((service,), (), redis=RedisRule("rediss://cache", credential=redis))

    assert labelled is injection(rules, image="image", version="").identity


def test_identity_without_redis():
    """Without a Redis, regions alone decide."""
    service = Service("openai", DIALECTS["openai"], (Region("here", "https://gateway.example"),), path="/openai")

    assert not injection(Rules((service,), ()), image="image", version="").identity


@pytest.mark.parametrize("url", ["https://{resource}.openai.azure.com", "https://contoso.openai.azure.com"])
def test_azure(url):
    """A service that speaks Azure's form is known as such, also where its regions are resources by name."""
    azure = Service("chat", DIALECTS["azure-openai"], (Region("here", url),), path="/azure")
    openai = Service("openai", DIALECTS["openai"], (Region("here", "https://api.openai.com"),), path="/openai")
    found = injection(Rules((azure, openai), ()), image="image", version="").services

    assert {"chat": True, "openai": False} == {service.name: service.azure for service in found}
