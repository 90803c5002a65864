"""Sidecars before the stand-in's document services, each at a port of its own as the SDKs need it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

import aiohttp
from azure.core.pipeline.policies import SansIOHTTPPolicy
from yarl import URL

from sidecar.core.dialect import Dialect
from sidecar.core.rules import Region, Service, TokenRule
from sidecar.demo.provider import DemoProvider
from sidecar.dialects import DIALECTS
from tests.redis_servers import free_port
from tests.scenarios.document_sdks import DocumentSdk, DocumentVoice

if TYPE_CHECKING:
    from tests.scenarios.conftest import BuildFleet, BuildLab, Lab

SERVED = ("azure-documents", "azure-language", "azure-vision")


@dataclass
class DocumentDesk:
    """A sidecar: *ports* of its services by dialect."""

    lab: Lab
    ports: dict[str, int]

    def url(self, sdk: DocumentSdk) -> str:
        return f"http://127.0.0.1:{self.ports[sdk.service]}"

    def voice(self, sdk: DocumentSdk, manner: str, credential: Any = None, **more: Any) -> DocumentVoice:
        """The SDK, with this sidecar as its endpoint."""
        return DocumentVoice(sdk, self.url(sdk), manner, credential, **more)


@dataclass
class DocumentDesks:
    """Builds desks before *provider*, with the services of *dialects*."""

    provider: DemoProvider
    build_lab: BuildLab
    build_fleet: BuildFleet | None = None
    dialects: Mapping[str, Dialect] = field(default_factory=lambda: DIALECTS)

    async def open(
        self, *, fleet: bool = False, ports: dict[str, int] | None = None, tokens: TokenRule | None = None
    ) -> DocumentDesk:
        """One more desk, at *ports* or at free ones; of a *fleet* over one Redis."""
        base = f"http://127.0.0.1:{self.provider.port}"  # type: ignore[attr-defined]
        at = ports or {name: free_port() for name in SERVED}
        services = tuple(
            Service(name, self.dialects[name], (Region("here", base),), port=port, tokens=tokens or TokenRule())
            for name, port in at.items()
        )
        if fleet:
            assert self.build_fleet is not None
            [lab] = await self.build_fleet(base, 1, services=services)
        else:
            lab = await self.build_lab(base, services=services)
        return DocumentDesk(lab, at)


class Elsewhere(SansIOHTTPPolicy[Any, Any]):
    """Sends an SDK's polls to another port than that of its call, as a load balancer does."""

    def __init__(self, port: int) -> None:
        self._port = port

    def on_request(self, request: Any) -> None:
        if request.http_request.method == "GET":
            request.http_request.url = str(URL(request.http_request.url, encoded=True).with_port(self._port))


async def raw(
    method: str, url: str, *, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """A call without an SDK: status, headers by lower-case name, body."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, URL(url, encoded=True), data=body and BytesIO(body), headers=headers) as response,
    ):
        return response.status, {name.lower(): value for name, value in response.headers.items()}, await response.read()
