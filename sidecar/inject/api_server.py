"""
The API server of the cluster, as far as the webhook asks it.

The rule: plain requests, and no watches: what is needed again is asked for again, so nothing of a cluster stays in
memory. Of lists only the metadata is asked for, page by page. The token is read for each request, for kubelet replaces
it every hour; so is the cluster's authority, which is replaced when its certificates are rotated.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp
from msgspec import Struct, json

from sidecar.core.key.json_rule import UNREADABLE
from sidecar.errors import ConfigError, SidecarError
from sidecar.net.bounded import read_whole

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where kubelet puts a service account: the files ``token``, ``ca.crt`` and ``namespace``."""

SECONDS = 10.0
"""How long an answer may take."""

PAGE = 250
"""Objects of one page of a list."""

LARGEST_OBJECT = 8 * 1024 * 1024
"""Bytes of an answer. An object has at most 1.5 MiB; a page of metadata has much less than this."""

NOT_FOUND, CONFLICT = 404, 409

_JSON = "application/json"
_METADATA = "application/json;as=PartialObjectMetadata{0};g=meta.k8s.io;v=v1"
_JSON_PATCH = "application/json-patch+json"

_Decoded = TypeVar("_Decoded")
_PageKind = TypeVar("_PageKind", bound="Page")


class ApiServerError(SidecarError):
    """
    The API server did not do what it was asked for. *status* is its answer's, 0 if none came. The text names the
    request, and quotes the server; it never holds an object.
    """

    def __init__(self, asked: str, status: int, text: str) -> None:
        super().__init__(f"{asked}: {text}")
        self.status = status


class ObjectMetadata(Struct, frozen=True, rename={"being_deleted": "deletionTimestamp", "version": "resourceVersion"}):
    """What the webhook reads of an object's metadata."""

    name: str = ""
    namespace: str = ""
    version: str = ""
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None
    being_deleted: str | None = None


class PartialObject(Struct, frozen=True):
    """An object of which only the metadata was asked for."""

    metadata: ObjectMetadata


class ListMetadata(Struct, frozen=True, rename={"token": "continue"}):
    """The metadata of a page: the *token* of the next one, ``""`` after the last."""

    token: str = ""


class Page(Struct, frozen=True, kw_only=True):
    """A page of a list."""

    metadata: ListMetadata = ListMetadata()


class _MetadataPage(Page, frozen=True):
    items: Sequence[PartialObject] | None = None


class _Refusal(Struct, frozen=True):
    """A refusal by the API server (``v1.Status``)."""

    message: str = ""


class ApiServer:
    """
    The API server at *address*, asked as the service account in *folder*. *namespace* is that of the account. Used as
    an asynchronous context. Raises ``ConfigError`` if the folder holds no service account.
    """

    def __init__(self, address: str, folder: str) -> None:
        self._address = address
        self._folder = Path(folder)
        try:
            self.namespace = (self._folder / "namespace").read_text(encoding="utf-8").strip()
            (self._folder / "token").read_bytes()
            self._authorities = (self._folder / "ca.crt").read_bytes()
            self._trust = ssl.create_default_context(cafile=str(self._folder / "ca.crt"))
        except (OSError, UnicodeDecodeError, ssl.SSLError) as error:
            why = getattr(error, "strerror", None) or "cannot be read"
            text = f"--service-account: {folder}: {why}; a pod has one unless automountServiceAccountToken is false"
            raise ConfigError((text,)) from None
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"<ApiServer {self._address}>"

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._trust),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=SECONDS),
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, kind: type[_Decoded]) -> _Decoded:
        """The object at *path*. Raises ``ApiServerError``."""
        return _decoded(f"GET {path}", await self._ask("GET", path), kind)

    async def metadata(self, path: str) -> ObjectMetadata:
        """The metadata of the object at *path*, without the object. Raises ``ApiServerError``."""
        body = await self._ask("GET", path, accept=_METADATA.format(""))
        return _decoded(f"GET {path}", body, PartialObject).metadata

    async def listed(self, path: str, **query: str) -> AsyncIterator[ObjectMetadata]:
        """The metadata of all objects at *path*, as *query* selects them. Raises ``ApiServerError``."""
        async for page in self.pages(path, _MetadataPage, accept=_METADATA.format("List"), **query):
            for item in page.items or ():  # null if there are none
                yield item.metadata

    async def pages(
        self, path: str, kind: type[_PageKind], *, accept: str = _JSON, **query: str
    ) -> AsyncIterator[_PageKind]:
        """The list at *path*, page by page. Raises ``ApiServerError``."""
        token = ""
        while True:
            asked = {**query, "limit": str(PAGE)} | ({"continue": token} if token else {})
            page = _decoded(f"GET {path}", await self._ask("GET", path, accept=accept, query=asked), kind)
            yield page
            token = page.metadata.token
            if not token:
                return

    async def create(self, path: str, item: Mapping[str, Any]) -> None:
        """Create *item* in the list at *path*. Raises ``ApiServerError``, with status 409 if it is there already."""
        await self._ask("POST", path, body=json.encode(item))

    async def replace(self, path: str, item: Mapping[str, Any]) -> None:
        """
        Replace the object at *path*. Raises ``ApiServerError``, with status 409 if it is no longer of the
        ``resourceVersion`` that *item* has.
        """
        await self._ask("PUT", path, body=json.encode(item))

    async def patch(self, path: str, operations: Sequence[Mapping[str, Any]]) -> None:
        """Change the object at *path* by a JSON patch. Raises ``ApiServerError``."""
        await self._ask("PATCH", path, body=json.encode(operations), content_type=_JSON_PATCH)

    def _trust_anew(self) -> None:
        """Trust what ``ca.crt`` holds by now, besides what it held before. What cannot be read changes nothing."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            found = (self._folder / "ca.crt").read_bytes()
            if found != self._authorities:
                self._trust.load_verify_locations(cadata=found.decode("ascii"))
                self._authorities = found

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        accept: str = _JSON,
        body: bytes | None = None,
        content_type: str = _JSON,
    ) -> bytes:
        assert self._session is not None, "it was entered"
        asked = f"{method} {path}"
        self._trust_anew()
        try:
            token = (self._folder / "token").read_text(encoding="utf-8").strip()
            headers = {"Authorization": f"Bearer {token}", "Accept": accept}
            if body is not None:
                headers["Content-Type"] = content_type
            async with self._session.request(
                method, f"{self._address}{path}", params=query, data=body, headers=headers, allow_redirects=False
            ) as answer:
                found = await read_whole(answer.content, LARGEST_OBJECT)
                if answer.status >= 300:
                    raise ApiServerError(asked, answer.status, _refusal_text(answer.status, found))
                return found
        except TimeoutError:
            raise ApiServerError(asked, 0, "the API server gave no answer in time") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            raise ApiServerError(asked, 0, f"the API server cannot be asked: {why}") from None


def address_of(environ: Mapping[str, str] = os.environ) -> str:
    """The URL of the API server, as kubelet tells pods; ``""`` outside of a pod."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
    return f"https://{f'[{host}]' if ':' in host else host}:{port}" if host else ""


def _decoded(asked: str, body: bytes, kind: type[_Decoded]) -> _Decoded:
    try:
        return json.decode(body, type=kind)
    except UNREADABLE as error:
        raise ApiServerError(asked, 0, f"the answer is not what was asked for ({type(error).__name__})") from None


def _refusal_text(status: int, body: bytes) -> str:
    try:
        message = json.decode(body, type=_Refusal).message
    except UNREADABLE:
        message = ""
    return f"{status} {message}"[:300].strip()
