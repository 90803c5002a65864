"""Processes that share a log of purges."""

from __future__ import annotations

import pytest

from tests.fleet.logs import Pod, secrets
from tests.redis_servers import RedisServer


@pytest.fixture
def now() -> list[float]:
    """The wall clock of all pods; a test may turn it."""
    return [1e9]


@pytest.fixture
async def pods(now):
    """Makes pods, and closes them."""
    made: list[Pod] = []

    def make(server: RedisServer, secret: bytes = secrets(1), namespace: str = "team-a") -> Pod:
        made.append(Pod(server.url, namespace=namespace, secret=secret, now=now))
        return made[-1]

    yield make
    for pod in made:
        await pod.close()
