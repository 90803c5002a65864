"""
aiohttp's server for our own pages: health, admin, and the stand-in provider.

The rule: nothing of an unreadable request is answered or logged. aiohttp's own answers, and the errors that it logs,
quote the line at which it failed, which may hold an ``Authorization``. So every answer that none of our handlers gave
is made by *refuse* from a status alone, and *report* gets errors, which it logs by their kind.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web

MALFORMED = "malformed-request"
"""The code of a request that cannot be read; that of any other refusal is its status's phrase."""

ANY = "0.0.0.0"  # noqa: S104  compared with; who starts a server says where it listens
ANY_IPV6 = "::"

Refuse = Callable[[int, str, str], web.Response]
"""``refuse(status, code, message)``: the answer in the form of the page."""


class WebServer:
    """
    Serves *app* on one address. *on_malformed* is called with the address that sent an unreadable request. Started
    once, stopped once; ``stop`` without ``start`` does nothing.

    *shutdown*: seconds that calls may take to end; *cancel*: a handler is cancelled when its caller leaves; *options*
    are those of aiohttp's ``RequestHandler``.
    """

    def __init__(
        self,
        app: web.Application,
        refuse: Refuse,
        *,
        report: Callable[[BaseException], None],
        on_malformed: Callable[[str], None] = lambda _: None,
        shutdown: float,
        cancel: bool = False,
        **options: Any,
    ) -> None:
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, handler_cancellation=cancel, shutdown_timeout=shutdown
        )
        self._refuse = refuse
        self._report = report
        self._on_malformed = on_malformed
        self._options = options
        self._server: asyncio.Server | None = None

    def __repr__(self) -> str:
        return f"<WebServer {self._server.sockets[0].getsockname() if self._server else 'stopped'}>"

    async def start(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> int:
        """
        Listen on *host* and *port* (0 for any), with *tls* where given, and return the port. ``0.0.0.0`` are all
        addresses of the machine: of a pod in a cluster of IPv6, too, which has no other. Raises ``OSError`` if it is
        taken.
        """
        await self._runner.setup()
        try:
            self._server = await self._listen(host, port, tls)
        except BaseException:
            await self._runner.cleanup()
            raise
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def _listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        if host == ANY and port:
            with contextlib.suppress(OSError):  # a machine without IPv6; or the port is taken, which comes up below
                return await loop.create_server(self._accept, (host, ANY_IPV6), port, ssl=tls)
        return await loop.create_server(self._accept, host, port, ssl=tls)

    async def stop(self) -> None:
        """Stop listening and close what is open."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            await self._runner.cleanup()

    def refusal(self, status: int, peer: str = "") -> web.Response:
        """The answer with *status* to a request that no handler answered; *peer* sent it."""
        if status == HTTPStatus.BAD_REQUEST:
            self._on_malformed(peer)
            return self._refuse(status, MALFORMED, "the request is not well-formed HTTP/1.1")
        phrase = HTTPStatus(status).phrase
        return self._refuse(status, phrase.lower().replace(" ", "-"), phrase)

    def tell(self, error: BaseException | None) -> None:
        """Report an error that the caller must not see."""
        if error is not None and not isinstance(error, web.RequestPayloadError):
            self._report(error)

    def _accept(self) -> web.RequestHandler:
        manager = self._runner.server
        assert manager is not None, "it was set up"
        loop = asyncio.get_running_loop()
        return _Connection(self, manager, loop=loop, access_log=None, **self._options)


class _Connection(web.RequestHandler):
    """aiohttp's connection, without its own answers and log lines."""

    def __init__(self, own: WebServer, manager: web.Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self._own = own

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes the request
    ) -> web.StreamResponse:
        """The answer to an unreadable request, or after a failed handler."""
        if isinstance(exc, web.RequestPayloadError):
            status = HTTPStatus.BAD_REQUEST
        elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._own.tell(exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun, so there can be no other")
        response = self._own.refusal(status, request.remote or "")
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send *resp*; an answer that aiohttp made itself is replaced, because its text may quote the request."""
        if isinstance(resp, web.HTTPException):
            ours = self._own.refusal(resp.status, request.remote or "")
            if allowed := resp.headers.get("allow"):
                ours.headers["allow"] = allowed
            resp = ours
        return await super().finish_response(request, resp, start_time)

    def log_exception(self, *_: Any, exc_info: Any = None, **__: Any) -> None:
        """An error that nobody caught."""
        self._own.tell(exc_info if isinstance(exc_info, BaseException) else None)

    def log_debug(self, *_: Any, **__: Any) -> None:
        """Nothing."""
