"""What is done again and again goes on, whatever happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sidecar.inject.api_server import ApiServerError
from sidecar.inject.periodic import CONFLICT_SECONDS, repeat


class Script:
    """Outcomes one after the other; a task's own end after the last."""

    def __init__(self, *outcomes: float | Exception) -> None:
        self._outcomes = list(outcomes)
        self.counted: list[str] = []
        self.told: list[tuple[str, str]] = []
        self.bugs: list[BaseException] = []

    async def __call__(self) -> float:
        if not self._outcomes:
            raise asyncio.CancelledError
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def tell(self, name: str, /, *, level: str = "info", **fields: Any) -> None:
        self.told.append((name, str(fields.get("message", ""))))


async def ran(script: Script, monkeypatch) -> list[float]:
    """The pauses that *script* led to."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("sidecar.inject.periodic.asyncio.sleep", pause)
    run: Callable[..., Awaitable[None]] = repeat
    try:
        await run("nodes", script, retry=5.0, count=script.counted.append, tell=script.tell, report=script.bugs.append)
    except asyncio.CancelledError:
        return pauses
    raise AssertionError


async def test_what_happens_to_it(monkeypatch):
    """A refusal is counted, and said until it changes or ends; a bug is reported; a conflict is neither."""
    refused, conflict = ApiServerError("GET /x", 403, "no"), ApiServerError("PUT /x", 409, "late")
    script = Script(
        30.0, refused, refused, ApiServerError("GET /x", 0, "away"), 30.0, ValueError("bug"), conflict, 30.0
    )

    assert [30.0, 5.0, 5.0, 5.0, 30.0, 5.0, CONFLICT_SECONDS, 30.0] == await ran(script, monkeypatch)
    assert ["nodes"] * 3 == script.counted
    assert [("cluster-error", "GET /x: no"), ("cluster-error", "GET /x: away"), ("cluster-answers", "")] == script.told
    assert ["bug"] == [str(bug) for bug in script.bugs]
