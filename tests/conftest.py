"""What holds for every test: nothing asserts a duration, and so neither does hypothesis; the servers tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.fetched import Desk
from tests.redis_servers import RedisServer

# Reading the system's 140 trust anchors takes 30 ms, and every client and every sidecar of a test reads them.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).parent / "anchor.pem")

# A process that a test starts would else compile the program anew, which takes 0.4 s.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_collection_finish() -> None:
    """The tests themselves are no garbage: looking through them took half a second each time, a timeout in some."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def settled_heap() -> None:
    """Nor are the reports of thousands of tests that are over; so no later collection looks through them either."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_redis_server() -> Iterator[RedisServer]:
    """One server for all tests that don't stop it."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_server(shared_redis_server: RedisServer) -> RedisServer:
    """An empty server. Who kills it starts it again."""
    shared_redis_server.resume()
    shared_redis_server.call("FLUSHALL")
    return shared_redis_server


@pytest.fixture
async def desks() -> AsyncIterator[Callable[..., Desk]]:
    """Makes desks, after which nothing may run on and no bug may have been met."""
    made: list[Desk] = []

    def make(*script: object, **how: int) -> Desk:
        made.append(Desk(*script, **how))
        return made[-1]

    yield make
    for desk in made:
        await desk.settle()

        assert set() == desk.tasks
        assert [] == desk.bugs
