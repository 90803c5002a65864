"""Who asks the API server: plain JSON over HTTPS, and every refusal is an exception."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.cluster.servers import RealApiServer

PATCH = "application/merge-patch+json"


class RefusedByServer(Exception):
    """The API server has refused a request; *status* is that of its answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class Client:
    """Somebody who bears *token*, by default the administrator. *warnings* are all that the API server has said."""

    def __init__(self, server: RealApiServer, token: str = "") -> None:
        self._server = server
        self._token = token or server.token
        self._session: aiohttp.ClientSession | None = None
        self.warnings: list[str] = []

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            self._server.url,
            connector=aiohttp.TCPConnector(ssl=self._server.trust, limit=0),
            headers={"Authorization": f"Bearer {self._token}"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def ask(self, method: str, path: str, item: object = None, *, form: str = "", **query: str) -> Any:
        """The object that the API server answers with. *form* is the content type of *item*."""
        assert self._session is not None
        headers = {"Content-Type": form} if form else {}
        async with self._session.request(method, path, json=item, params=query, headers=headers) as answer:
            self.warnings += answer.headers.getall("Warning", [])
            told = await answer.json()
            if answer.status >= 300:
                raise RefusedByServer(answer.status, told["message"])
            return told

    async def get(self, path: str) -> Any:
        """The object, or the list, at *path*."""
        return await self.ask("GET", path)

    async def create(self, path: str, item: object, **query: str) -> Any:
        """*item* as the API server has taken it into the list at *path*."""
        return await self.ask("POST", path, item, **query)

    async def patch(self, path: str, item: object) -> Any:
        """The object at *path* with the members of *item*; None takes one away."""
        return await self.ask("PATCH", path, item, form=PATCH)

    async def delete(self, path: str) -> None:
        """Delete the object, or all in the list, at *path*."""
        await self.ask("DELETE", path, {"gracePeriodSeconds": 0})
