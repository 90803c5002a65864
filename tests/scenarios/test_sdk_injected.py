"""
SDKs in processes of their own, in the environment that injection gives a container, before a sidecar that runs by the
same configuration. Their programs name no base URL.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.sdk_matrix.applications import APPLICATIONS
from tests.sdk_matrix.injected import KEY, PROXIES, Stage, run

LOCKED = ("openai", "openai (Azure)", "anthropic", "azure-ai-documentintelligence")
"""Clients that the lock of development holds."""

OURS = [application for application in APPLICATIONS if application.client in LOCKED]


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A sidecar in a process of its own, and what stands behind it."""
    running = Stage(tmp_path)
    await running.start()
    yield running
    await running.stop()


async def test_arrives(stage):
    """
    A program has what its manifest says, with its addresses rewritten, and what injection has added. By that, each is
    answered through the sidecar, and so are the polls of the operation that Document Intelligence begins.
    """
    here, documents = f"http://127.0.0.1:{stage.port}", f"http://127.0.0.1:{stage.documents_port}"
    claude = {"ANTHROPIC_BASE_URL": f"{here}/anthropic"}
    both = {"OPENAI_BASE_URL": f"{here}/openai/v1", **claude}
    azure = {"AZURE_OPENAI_ENDPOINT": f"{here}/azure/contoso/", "OPENAI_API_VERSION": "2024-10-21"}

    environments = [stage.environment(application) for application in OURS]
    said = await asyncio.gather(*map(run, OURS, environments))

    assert [
        {"OPENAI_API_KEY": KEY, **both},
        {"AZURE_OPENAI_API_KEY": KEY, **azure, **claude},
        {"ANTHROPIC_API_KEY": KEY, **both},
        {"DOCUMENTINTELLIGENCE_KEY": KEY, "DOCUMENTINTELLIGENCE_ENDPOINT": f"{documents}/", **both},
    ] == environments
    assert [""] * len(LOCKED) == said
    assert {"chat": 2, "messages": 1} == stage.provider.counts
    assert {"analyze": 1, "poll": 2} == stage.documents.counts


async def test_arrives_beside_a_proxy(stage):
    """Where a container is told an egress proxy, that proxy gets nothing: of httpx (OpenAI), of requests (Azure)."""
    told = [each for each in OURS if each.client in {"openai", "azure-ai-documentintelligence"}]
    found = [stage.environment(application, proxy=stage.trap.url) for application in told]

    said = await asyncio.gather(*map(run, told, found))

    assert ["", ""] == said
    assert (2, 2) == (stage.calls, stage.documents.counts["poll"])
    assert [] == stage.trap.asked


async def test_exceptions_are_needed(stage):
    """Without what injection puts into NO_PROXY, key and prompt go to the egress proxy in clear."""
    [application] = [each for each in OURS if each.client == "openai"]
    environment = stage.environment(application, proxy=stage.trap.url)

    said = await run(application, {name: value for name, value in environment.items() if name.upper() != "NO_PROXY"})

    assert set(PROXIES) <= environment.keys()
    assert said
    assert [f"http://127.0.0.1:{stage.port}/openai/v1/chat/completions"] == stage.trap.caught
    assert 0 == stage.calls
