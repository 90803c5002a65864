"""
The admin port: ``/api`` for operators, to see the state of a sidecar and to act on it.

The rule: this module decides who may ask and checks what is asked; others do it. Each action leaves one audit line,
however it ends. Nothing here is for web pages: no CORS, only our own Host, and actions only in JSON.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol, TypeVar

from msgspec import json

from sidecar.admin.access import admit, check_host, is_loopback, plain
from sidecar.admin.actions import (
    BODY_BYTES,
    ModeRequest,
    ModeResult,
    PurgeRequest,
    PurgeResult,
    RegionRequest,
    RegionResult,
    ReloadRequest,
    ReloadResult,
    mode_request,
    purge_request,
    region_request,
    reload_request,
)
from sidecar.admin.erasure import EraseRequest, Receipt, erase_request
from sidecar.core.events import TellEvent
from sidecar.errors import ConfigError, Refused

if TYPE_CHECKING:
    from aiohttp import web
    from aiohttp.typedefs import Handler

    from sidecar.net.web_server import WebServer

__all__ = [
    "ControlServer",
    "EraseRequest",
    "ModeRequest",
    "ModeResult",
    "PurgeRequest",
    "PurgeResult",
    "Receipt",
    "RegionRequest",
    "RegionResult",
    "ReloadRequest",
    "ReloadResult",
]

MALFORMED = "malformed-request"
"""The code of a request that cannot be read; ``net/web_server`` has it, too."""

BODY_SECONDS = 10.0
"""How long a request's body may take."""

_OFFERS = (
    "there is GET /api/status and /api/regions, and POST /api/purge, /api/erase, /api/mode, /api/regions and "
    "/api/reload"
)

_HEADERS = {"server": "sidecar", "cache-control": "no-store", "x-content-type-options": "nosniff"}


class Audited(Protocol):
    """Something with fields for an audit line."""

    def audit_fields(self) -> Mapping[str, str | float]:
        """The fields of the line."""


ActionRequest = TypeVar("ActionRequest", bound=Audited)
Done = TypeVar("Done", bound=Audited)


class ControlServer:
    """
    The control server. *purge*, *erase*, *mode*, *region* and *reload* act, and may raise ``Refused`` with a message
    for the caller. *status* and *regions* are asked at each request, and must hold no secret; the member ``mode`` of
    the first is a ``ModeResult``, the member ``regions`` of the second a list of ``Standing``. *report* gets internal
    errors.

    Without a *token_file* (``""``), callers on this machine act on this process alone. Started once, stopped once;
    ``stop`` without ``start`` does nothing.
    """

    def __init__(
        self,
        *,
        purge: Callable[[PurgeRequest], Awaitable[PurgeResult]],
        erase: Callable[[EraseRequest], Awaitable[Receipt]],
        mode: Callable[[ModeRequest], Awaitable[ModeResult]],
        region: Callable[[RegionRequest], Awaitable[RegionResult]],
        reload: Callable[[ReloadRequest], Awaitable[ReloadResult]],
        status: Callable[[], Awaitable[Mapping[str, object]]],
        regions: Callable[[], Awaitable[Mapping[str, object]]],
        audit: TellEvent,
        report: Callable[[BaseException], None],
        token_file: str = "",
    ) -> None:
        self._purge = purge
        self._erase = erase
        self._mode = mode
        self._region = region
        self._reload = reload
        self._status = status
        self._regions = regions
        self._audit = audit
        self._report = report
        self._token_file = token_file
        self._server: WebServer | None = None
        self._host = ""
        self._port = 0

    def adopt(self, token_file: str) -> None:
        """From now on, the token stands in *token_file*. ``""`` only where the port listens on this machine alone."""
        self._token_file = token_file

    def __repr__(self) -> str:
        return f"<ControlServer {f'{self._host}:{self._port}' if self._server else 'stopped'}>"

    async def start(self, host: str, port: int) -> int:
        """
        Listen on *host* and *port* (0 for any), and return the port.

        Raises ``ConfigError`` for an address that others can reach without a token, ``OSError`` for a taken port.
        """
        check_reach(host, self._token_file)
        from aiohttp import web  # noqa: PLC0415 - 30 ms that only a process that serves has to spend

        from sidecar.net.web_server import WebServer  # noqa: PLC0415 - as above

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guard(request, handler)

        app = web.Application(middlewares=[guard], client_max_size=BODY_BYTES)
        app.router.add_get("/api/status", self._on_status, allow_head=False)
        app.router.add_get("/api/regions", self._on_regions, allow_head=False)
        app.router.add_post("/api/purge", self._on_purge)
        app.router.add_post("/api/erase", self._on_erase)
        app.router.add_post("/api/mode", self._on_mode)
        app.router.add_post("/api/regions", self._on_region)
        app.router.add_post("/api/reload", self._on_reload)
        server = WebServer(
            app,
            _refusal,
            report=self._report,
            on_malformed=self._on_malformed,
            shutdown=1.0,
            keepalive_timeout=75.0,
            lingering_time=1.0,
            auto_decompress=False,
        )
        self._host, self._port = host, await server.start(host, port)
        self._server = server
        return self._port

    async def stop(self) -> None:
        """Stop listening and close what is open."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop()

    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every answer is JSON, also a refusal; a request under a foreign Host is refused."""
        from aiohttp import web  # noqa: PLC0415 - loaded by then

        try:
            here = request.transport.get_extra_info("sockname") if request.transport else None
            address, port = here[:2] if here else (self._host, self._port)
            check_host(request.headers.getall("host", ()), self._host, plain(address), port)
            return await handler(request)
        except Refused as refused:
            return _refusal(refused.status, refused.code, refused.message)
        except web.HTTPNotFound:
            return _refusal(404, "not-found", _OFFERS)
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            return _refusal(405, "wrong-method", f"this takes {allowed}", {"allow": allowed})
        except web.RequestPayloadError:  # its text quotes the body; the action's log line has the error
            return _refusal(400, MALFORMED, "the body of the request is not well-formed HTTP/1.1")
        except web.HTTPRequestEntityTooLarge:
            return _refusal(413, "too-large", "this is more than any action takes")
        except web.HTTPException as error:
            return _refusal(error.status, "refused", HTTPStatus(error.status).phrase)
        except Exception as error:  # noqa: BLE001 - the caller gets an answer in any case, and the log the reason
            self._report(error)
            return _refusal(500, "failed", "this failed; the sidecar's log has the reason")

    def _on_malformed(self, peer: str) -> None:
        self._audit("admin-malformed", level="warning", peer=plain(peer), result=f"refused: {MALFORMED}")

    async def _on_status(self, request: web.Request) -> web.Response:
        return await self._tell(request, self._status)

    async def _on_regions(self, request: web.Request) -> web.Response:
        return await self._tell(request, self._regions)

    async def _tell(self, request: web.Request, what: Callable[[], Awaitable[Mapping[str, object]]]) -> web.Response:
        """Reading is open to callers on this machine; others must send the token for that, too."""
        if not is_loopback(_peer(request)):
            self._admit(request)
        return _reply(200, json.encode(await what()))

    async def _on_purge(self, request: web.Request) -> web.Response:
        return await self._act(request, "purge", purge_request, self._purge)

    async def _on_erase(self, request: web.Request) -> web.Response:
        async def erase(asked: EraseRequest) -> Receipt:
            token, peer = self._admit(request), _peer(request)
            return await self._erase(replace(asked, by=f"token {token} from {peer}" if token else f"{peer}, no token"))

        return await self._act(request, "erase", erase_request, erase)

    async def _on_mode(self, request: web.Request) -> web.Response:
        return await self._act(request, "mode", mode_request, self._mode)

    async def _on_region(self, request: web.Request) -> web.Response:
        return await self._act(request, "region", region_request, self._region)

    async def _on_reload(self, request: web.Request) -> web.Response:
        return await self._act(request, "reload", reload_request, self._reload)

    async def _act(
        self,
        request: web.Request,
        name: str,
        read: Callable[..., ActionRequest],
        do: Callable[[ActionRequest], Awaitable[Done]],
    ) -> web.Response:
        """Read what is asked, do it, and write the audit line."""
        token = ""
        what: dict[str, str | float] = {}
        result = "failed"
        try:
            token = self._admit(request)
            asked = read(await _body(request), fleet=bool(token))
            what |= asked.audit_fields()
            done = await do(asked)
            what |= done.audit_fields()
            result = "done"
        except Refused as refused:
            result = f"refused: {refused.code}"
            raise
        except Exception as error:
            result = f"failed: {type(error).__name__}"  # its text may quote what is cached
            raise
        finally:
            level = "info" if result == "done" else "warning"
            self._audit(f"admin-{name}", level=level, peer=_peer(request), token=token, **what, result=result)
        return _reply(200, json.encode(done))

    def _admit(self, request: web.Request) -> str:
        return admit(self._token_file, _peer(request), request.headers.getall("authorization", ()))


def check_reach(host: str, token_file: str) -> None:
    """Refuse an address that others can reach without a token. Raises ``ConfigError``."""
    if not token_file and not is_loopback(host):
        remedy = "set admin.token_file, or admin.host to 127.0.0.1"
        raise ConfigError((f"admin.host: whoever reaches {host} could act on this sidecar; {remedy}",))


def _peer(request: web.Request) -> str:
    """The caller's address."""
    peer = request.transport.get_extra_info("peername") if request.transport else None
    return plain(peer[0]) if peer else ""


async def _body(request: web.Request) -> bytes:
    """The body of an action. A form on another site cannot send this content type (Fetch, CORS-safelisted headers)."""
    if request.content_type != "application/json":
        raise Refused(415, "not-json", "an action is JSON; send `Content-Type: application/json`")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise Refused(408, "too-slow", f"the body took longer than {BODY_SECONDS:.0f} s") from None


def _refusal(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    extra = {"www-authenticate": "Bearer"} if status == 401 else headers or {}
    return _reply(status, json.encode({"error": {"code": code, "message": message}}), extra)


def _reply(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> web.Response:
    from aiohttp import web  # noqa: PLC0415 - loaded by then

    kind = {"content-type": "application/json"}
    return web.Response(status=status, body=body, headers={**_HEADERS, **kind, **(headers or {})})
