"""What the tests of the webhook share."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from sidecar.inject.certificates import issue
from tests.inject.small_api_server import SmallApiServer, account, api_at


@pytest.fixture
async def small_api(tmp_path: Path):
    """A small API server, and what asks it."""
    server = SmallApiServer()
    address = await server.start()
    folder = account(tmp_path, issue(("localhost",), datetime.now(UTC)).authority)
    async with api_at(address, folder) as api:
        yield server, api
    await server.stop()
