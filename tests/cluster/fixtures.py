"""The API server that stories share, and the webhook installed into it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.client import Client
from tests.cluster.installation import Installation
from tests.cluster.manifests import K8S, built
from tests.cluster.servers import RealApiServer

Install = Callable[..., Awaitable[Installation]]


@pytest.fixture(scope="session")
def api_server() -> Iterator[RealApiServer]:
    """One for all stories of a process of tests: it takes some seconds to start."""
    with RealApiServer() as server:
        yield server


@pytest.fixture
async def api(api_server: RealApiServer) -> AsyncIterator[Client]:
    """The administrator of the API server."""
    async with Client(api_server) as client:
        yield client


@pytest.fixture
async def install(api_server: RealApiServer, api: Client, tmp_path: Path) -> AsyncIterator[Install]:
    """Applies the base, or an *overlay*, of ``k8s/`` with *components*; nothing of it is left after the story."""
    made: list[Installation] = []

    async def apply(*components: str, overlay: str = "") -> Installation:
        resource = K8S / "overlays" / overlay if overlay else K8S / "base"
        installed = Installation(api_server, api, tmp_path, built(tmp_path / "manifests", resource, *components))
        made.append(installed)
        await installed.apply()
        return installed

    yield apply
    for each in made:
        await each.remove()
