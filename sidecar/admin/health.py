"""
The health port: kubelet asks whether this process lives and may get calls; Prometheus reads its metrics.

The rule: it answers GET, reads, changes nothing and shows no secret. Readiness concerns only this process: a failing
service or a failing Redis is no reason to send callers away.

A web page whose own name was made to lead here (DNS rebinding) could read names of services and traffic. So a browser
that comes by a foreign name gets neither metrics nor parts. Probes and scrapers may use any name, and ``/livez`` and
``/readyz`` answer everybody.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from aiohttp import web

    from sidecar.net.web_server import WebServer

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text format, which *metrics* is expected to return."""

_INDEX = """\
sidecar: health

/livez             200 while the process answers
/readyz            200 while it takes calls; /readyz?verbose names the parts
/metrics           for Prometheus
"""

_PORT = re.compile(r":[0-9]*\Z")
_BROWSERS = ("origin", "referer", "sec-fetch-site", "sec-fetch-mode", "accept-language")
"""
Fields that browsers send. Every browser request has the last one, and no page can remove it. To a plain address
browsers send no ``Sec-Fetch-*``, and to a page's own origin no ``Origin``.
"""

_FOREIGN = (
    "the Host of this request is not a name of this sidecar, so a web page may have made a browser send it; call the "
    "sidecar by its address, or add the name to listen.names"
)

_HEADERS = {"server": "sidecar", "cache-control": "no-store"}


class Part(NamedTuple):
    """A line of ``/readyz?verbose``. A part that is not *good* is only shown; ``Readiness.ready`` alone decides."""

    name: str
    good: bool
    detail: str = ""

    def __str__(self) -> str:
        line = f"[{'+' if self.good else '-'}] {self.name}"
        return f"{line}: {self.detail}" if self.detail else line


class Readiness(NamedTuple):
    """*ready*: true from listening until draining."""

    ready: bool
    parts: tuple[Part, ...] = ()


class HealthServer:
    """
    The health server. *ready* and *metrics* are called at each request, so they must be quick; *report* gets internal
    errors. *names* are the values of ``Host``, in lower case, that mean this sidecar.

    Started once, stopped once; ``stop`` without ``start`` does nothing.
    """

    def __init__(
        self,
        ready: Callable[[], Readiness],
        metrics: Callable[[], bytes],
        report: Callable[[BaseException], None] = lambda _: None,
        *,
        names: frozenset[str] = frozenset(),
    ) -> None:
        self._ready = ready
        self._metrics = metrics
        self._report = report
        self.adopt(names)
        self._server: WebServer | None = None
        self._address = ""

    def __repr__(self) -> str:
        return f"<HealthServer {self._address or 'stopped'}>"

    def adopt(self, names: frozenset[str]) -> None:
        """From now on, *names* mean this sidecar."""
        self._names = names | {"localhost"}

    async def start(self, host: str, port: int) -> int:
        """Listen on *host* and *port* (0 for any), and return the port. Raises ``OSError`` if it is taken."""
        from aiohttp import web  # noqa: PLC0415 - 30 ms that only a process that serves has to spend

        from sidecar.net.web_server import WebServer  # noqa: PLC0415 - as above

        app = web.Application()
        for path, handler in {
            "/": self._index,
            "/livez": self._live,
            "/readyz": self._readyz,
            "/metrics": self._expose,
        }.items():
            app.router.add_get(path, handler, allow_head=False)
        app.on_response_prepare.append(_head)
        server = WebServer(app, _refusal, report=self._report, shutdown=1.0, keepalive_timeout=75.0)
        bound = await server.start(host, port)
        self._server = server
        self._address = f"{host}:{bound}"
        return bound

    async def stop(self) -> None:
        """Stop listening and close what is open."""
        server, self._server = self._server, None
        self._address = ""
        if server is not None:
            await server.stop()

    async def _index(self, _: web.Request) -> web.Response:
        return _text(200, _INDEX)

    async def _live(self, _: web.Request) -> web.Response:
        return _text(200, "ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        if "verbose" in request.query and self._is_foreign(request):
            return _refusal(403, "foreign-host", _FOREIGN)
        ready, parts = self._ready()
        lines = [str(part) for part in parts] if "verbose" in request.query else []
        lines.append("ok" if ready else "not ready")
        return _text(200 if ready else 503, "".join(f"{line}\n" for line in lines))

    async def _expose(self, request: web.Request) -> web.Response:
        if self._is_foreign(request):
            return _refusal(403, "foreign-host", _FOREIGN)
        return _reply(200, self._metrics(), METRICS_TYPE)

    def _is_foreign(self, request: web.Request) -> bool:
        """Whether a browser came by a foreign name."""
        hosts = [_PORT.sub("", host).lower() for host in request.headers.getall("host", ())]
        return _is_browsers(request.headers) and not all(host in self._names or _is_address(host) for host in hosts)


def _is_browsers(headers: Mapping[str, str]) -> bool:
    return any(name in headers for name in _BROWSERS) or headers.get("user-agent", "").startswith("Mozilla/")


def _is_address(host: str) -> bool:
    """Whether *host* is an address, or empty: no name server can make it lead elsewhere."""
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return not host
    return True


async def _head(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def _refusal(status: int, code: str, message: str) -> web.Response:
    response = _text(status, f"{code}: {message}\n")
    response.headers.update(_HEADERS)
    return response


def _text(status: int, text: str) -> web.Response:
    return _reply(status, text.encode(), "text/plain; charset=utf-8")


def _reply(status: int, body: bytes, kind: str) -> web.Response:
    from aiohttp import web  # noqa: PLC0415 - loaded by then

    return web.Response(status=status, body=body, headers={"content-type": kind})
