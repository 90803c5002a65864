"""
A stand-in for Azure Document Intelligence, as far as one analysis goes (API version 2024-11-30).

The rule: it behaves as the service does in its recordings: 202 with an absolute ``Operation-Location`` at its own host,
then polls, of which the first finds the analysis still running.
"""

from __future__ import annotations

import re
from collections import Counter

from aiohttp import web

CONTENT = "While Healthcare is still in the early stages"

_ID = "e73344b8-e58f-4752-a911-f13c5c07e875"
_CALL = re.compile(
    rf"POST //?documentintelligence/documentModels/([\w-]+):analyze"
    rf"|GET //?documentintelligence/documentModels/([\w-]+)/analyzeResults/{_ID}"
)
_TIMES = {"createdDateTime": "2024-12-17T20:49:41Z", "lastUpdatedDateTime": "2024-12-17T20:49:42Z"}


class Documents:
    """*key* is the resource's. *counts* are the calls it has answered: ``analyze`` and ``poll``."""

    def __init__(self, host: str, key: str) -> None:
        self.counts: Counter[str] = Counter()
        self.port = 0
        self._host = host
        self._running = False
        self._key = key
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close the port."""
        assert self._runner is not None
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.Response:
        """One call. The SDK doubles the first slash of a path where its endpoint ends with one."""
        called = _CALL.fullmatch(f"{request.method} {request.path}")
        if called is None or request.host != self._host:
            return _refusal(404, "Resource not found")
        if request.headers.get("Ocp-Apim-Subscription-Key") != self._key:
            return _refusal(401, "Access denied due to invalid subscription key")
        analyzed, polled = called.groups()
        return self._analyze(analyzed) if analyzed else self._poll(polled)

    def _analyze(self, model: str) -> web.Response:
        self.counts["analyze"] += 1
        self._running = True
        results = f"/documentintelligence/documentModels/{model}/analyzeResults/{_ID}?api-version=2024-11-30"
        place = f"https://{self._host}{results}"
        return web.Response(status=202, headers={"Operation-Location": place, "apim-request-id": _ID})

    def _poll(self, model: str) -> web.Response:
        self.counts["poll"] += 1
        if self._running:
            self._running = False
            return web.json_response({"status": "running", **_TIMES}, headers={"Retry-After": "1"})
        result = {
            "apiVersion": "2024-11-30", "modelId": model, "stringIndexType": "textElements", "content": CONTENT,
            "pages": [], "contentFormat": "text",
        }  # fmt: skip
        return web.json_response({"status": "succeeded", **_TIMES, "analyzeResult": result})


def _refusal(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"code": str(status), "message": message}}, status=status)
