"""
The admission webhook: takes reviews over TLS and answers them.

The rule: it keeps no state of a cluster, so any number of replicas may answer, and its memory does not grow with the
pods. A certificate that is replaced is used from the next connection on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web
from msgspec import json

from sidecar.core.events import TellEvent
from sidecar.core.pods.settings import Injection
from sidecar.errors import Refused
from sidecar.inject.admission import Review, request_of, review_config, review_pod, subject_of
from sidecar.inject.certificates import expiry
from sidecar.inject.metrics import AdmissionMetrics
from sidecar.net.web_server import WebServer
from sidecar.tasks import SCANNED_IN_LOOP, in_thread_if_large

LARGEST = 4 * 1024 * 1024
"""
Bytes of a review: an API server takes 3 MB with a new pod, and an update of a ConfigMap brings two, of 1 MiB each. One
that was made to be large in memory takes thirty times as much.
"""

LARGE_AT_ONCE = 8
"""Long reviews that are held at a time. Others wait in their connections; each takes its length in memory."""

READ_SECONDS = 5.0
"""How long a review may take to arrive. API servers give up then."""

KEEP_SECONDS = 120.0
"""How long an idle connection stays open: longer than API servers keep it, which is 90 s, so they never write into one
that is being closed."""

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_FileTimes = tuple[int, int]
_Reviewed = tuple[Mapping[str, Any], Review, bytes]


def _untold(name: str, /, *, level: str = "info", **fields: str | float | None) -> None:
    """Nobody wants to know."""


class Certificate:
    """
    A certificate and its key in files that something else replaces. *expiry* is when it ends, in seconds of the epoch.
    Raises ``OSError`` or ``ssl.SSLError``.
    """

    def __init__(self, cert_file: str, key_file: str) -> None:
        self._cert_file = cert_file
        self._key_file = key_file
        self._seen: tuple[_FileTimes, _FileTimes] | None = None
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.expiry = 0.0
        self.refresh()

    def __repr__(self) -> str:
        return f"<Certificate {self._cert_file}>"

    def refresh(self) -> bool:
        """Load the files again if they have changed; returns whether they had. A pair that does not fit is an error."""
        cert, key = (_times(name) for name in (self._cert_file, self._key_file))
        if (cert, key) == self._seen:
            return False
        self.context.load_cert_chain(self._cert_file, self._key_file)
        self.expiry = expiry(Path(self._cert_file).read_bytes()).timestamp()
        self._seen = cert, key
        return True


class Webhook:
    """
    The server. *settings* are asked for at each review. *check* raises ``ConfigError`` for the text and the name of a
    configuration that is wrong. *report* gets bugs. *lacking* says what is not there yet to answer with, ``""`` for
    nothing: until then the server is not ready. *tell* logs each review.
    """

    def __init__(
        self,
        settings: Callable[[], Injection],
        check: Callable[[str, str], None],
        report: Callable[[BaseException], None],
        *,
        metrics: AdmissionMetrics,
        lacking: Callable[[], str] = lambda: "",
        tell: TellEvent = _untold,
    ) -> None:
        self._settings = settings
        self._check = check
        self._report = report
        self._metrics = metrics
        self._lacking = lacking
        self._tell = tell
        self._draining = False
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._pods, self._configs = asyncio.Lock(), asyncio.Lock()
        self._server: WebServer | None = None
        self._health: WebServer | None = None

    def __repr__(self) -> str:
        return f"<Webhook {self._server!r}>"

    async def start(self, host: str, port: int, health_port: int, *, tls: ssl.SSLContext | None) -> tuple[int, int]:
        """Listen for reviews (by *tls*, None for plain HTTP in tests) and for probes; returns both ports."""
        app = web.Application(client_max_size=LARGEST)
        app.router.add_post("/mutate", self._on_pod)
        app.router.add_post("/validate", self._on_config)
        health = web.Application()
        health.router.add_get("/livez", _ok)
        health.router.add_get("/readyz", self._on_ready)
        health.router.add_get("/metrics", self._on_metrics)
        self._server = WebServer(app, _refusal, report=self._report, shutdown=5.0, keepalive_timeout=KEEP_SECONDS)
        self._health = WebServer(health, _refusal, report=self._report, shutdown=1.0)
        bound = await self._server.start(host, port, tls=tls)
        return bound, await self._health.start(host, health_port)

    def drain(self) -> None:
        """Be ready no more, and end each connection with its next answer: the API server goes to another replica."""
        self._draining = True

    async def stop(self) -> None:
        """Answer what has come, and stop."""
        for server in (self._server, self._health):
            if server is not None:
                await server.stop()

    async def _on_pod(self, request: web.Request) -> web.Response:
        settings, report = self._settings(), self._reporter()
        return await self._answer(
            request, lambda asked: review_pod(asked, settings, report), SCANNED_IN_LOOP, self._pods
        )

    async def _on_config(self, request: web.Request) -> web.Response:
        report = self._reporter()
        return await self._answer(request, lambda asked: review_config(asked, self._check, report), 0, self._configs)

    def _reporter(self) -> Callable[[BaseException], None]:
        """``report`` for a thread."""
        loop = asyncio.get_running_loop()

        def report(error: BaseException) -> None:
            loop.call_soon_threadsafe(self._report, error)

        return report

    async def _answer(
        self, request: web.Request, review: Callable[[Any], Review], most: int, turn: asyncio.Lock
    ) -> web.Response:
        """The answer to *request*. Of more than *most* bytes it is long, and takes its *turn*."""
        if why := self._lacking():
            return _refusal(503, "not-ready", why)
        if request.content_type != "application/json":
            return _refusal(415, "not-json", "a review is JSON; send `Content-Type: application/json`")
        length = request.content_length
        is_large = length is None or length > SCANNED_IN_LOOP
        try:
            async with self._large if is_large else contextlib.nullcontext():
                async with asyncio.timeout(READ_SECONDS):
                    body = await request.read()
                found = await self._reviewed(body, review, most, turn)
        except web.HTTPRequestEntityTooLarge:
            return _refusal(413, "too-large", f"a review has at most {LARGEST} bytes")
        except TimeoutError:
            refusal = _refusal(408, "too-slow", f"the review did not arrive within {READ_SECONDS:g} s")
            refusal.force_close()
            return refusal
        except Refused as refused:
            return _refusal(refused.status, refused.code, refused.message)
        asked, reviewed, answer = found
        self._metrics.reviewed(reviewed.result)
        dry = "yes" if asked.get("dryRun") is True else None
        self._tell("reviewed", result=reviewed.result.value, why=reviewed.why or None, dry_run=dry, **subject_of(asked))
        response = web.Response(body=answer, content_type="application/json")
        if self._draining:
            response.force_close()
        return response

    async def _reviewed(self, body: bytes, review: Callable[[Any], Review], most: int, turn: asyncio.Lock) -> _Reviewed:
        """
        The request in *body*, its review and the answer. Long ones have a thread, so that others and the probes are not
        held up, and take turns, pods and configurations apart: one takes many times its size in memory, and threads
        would not make several faster.
        """

        def reviewed() -> _Reviewed:
            asked = request_of(body)
            found = review(asked)
            return asked, found, found.encode()

        if len(body) <= most:
            return reviewed()
        async with turn:
            return await in_thread_if_large(len(body), most, reviewed)

    async def _on_ready(self, _: web.Request) -> web.Response:
        why = "it stops" if self._draining else self._lacking()
        return web.Response(status=503 if why else 200, text=f"{why or 'ok'}\n")

    async def _on_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"content-type": METRICS_TYPE})


async def _ok(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


def _refusal(status: int, code: str, message: str) -> web.Response:
    body = json.encode({"error": {"code": code, "message": message}})
    return web.Response(status=status, body=body, content_type="application/json")


def _times(name: str) -> _FileTimes:
    status = Path(name).stat()
    return status.st_ino, status.st_mtime_ns
