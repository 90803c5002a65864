"""
The SDKs of Azure's document services, asked the same way: what they are, and a client of each, sync or async.

A sync client works in threads of its own, because the sidecar that it calls runs in the test's event loop.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from azure.ai import contentunderstanding, documentintelligence, formrecognizer, textanalytics
from azure.ai.contentunderstanding import aio as contentunderstanding_aio
from azure.ai.documentintelligence import aio as documentintelligence_aio
from azure.ai.formrecognizer import aio as formrecognizer_aio
from azure.ai.textanalytics import aio as textanalytics_aio
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline.policies import SansIOHTTPPolicy

from sidecar.demo.documents.pages import pdf

KEY = "document-key"

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def document(mark: str, pages: int = 2) -> bytes:
    """A document with *mark* on each of its pages."""
    return pdf([[f"{mark}, page {number}", "Amber Paper"] for number in range(1, pages + 1)])


@dataclass(frozen=True)
class DocumentSdk:
    """
    One SDK. *builds*: its clients, sync and async. *begin* starts an analysis of these bytes, *plain* is a result as
    JSON. *service*: the dialect of its service, *start* and *result* what its calls and its polls look like. *deletes*:
    how it deletes a result by the id, where it can.
    """

    name: str
    service: str
    builds: tuple[Any, Any]
    begin: Callable[..., Any]
    plain: Callable[[Any], Any]
    start: str
    result: str
    deletes: Callable[[Any, str], Any] | None = None
    more: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.name


def _begin_layout(client: Any, data: bytes, **more: Any) -> Any:
    return client.begin_analyze_document("prebuilt-layout", data, **more)


def _begin_binary(client: Any, data: bytes, **more: Any) -> Any:
    return client.begin_analyze_binary("prebuilt-layout", data, **more)


def _begin_actions(client: Any, data: bytes, **more: Any) -> Any:
    actions = [textanalytics.RecognizeEntitiesAction(), textanalytics.ExtractKeyPhrasesAction()]
    text = "".join(re.findall(r"\((.*?)\) Tj", data.decode("latin-1")))
    return client.begin_analyze_actions([text], actions, **more)


def _delete_layout(client: Any, number: str) -> Any:
    return client.delete_analyze_result("prebuilt-layout", number)


def _delete_result(client: Any, number: str) -> Any:
    return client.delete_result(number)


INTELLIGENCE = DocumentSdk(
    "documentintelligence",
    "azure-documents",
    (documentintelligence.DocumentIntelligenceClient, documentintelligence_aio.DocumentIntelligenceClient),
    _begin_layout,
    lambda result: result.as_dict(),
    "/documentintelligence/documentModels/prebuilt-layout:analyze?api-version=2024-11-30",
    "/documentintelligence/documentModels/prebuilt-layout/analyzeResults/{}?api-version=2024-11-30",
    _delete_layout,
)

RECOGNIZER = DocumentSdk(
    "formrecognizer",
    "azure-documents",
    (formrecognizer.DocumentAnalysisClient, formrecognizer_aio.DocumentAnalysisClient),
    _begin_layout,
    lambda result: result.to_dict(),
    "/formrecognizer/documentModels/prebuilt-layout:analyze?stringIndexType=unicodeCodePoint&api-version=2023-07-31",
    "/formrecognizer/documentModels/prebuilt-layout/analyzeResults/{}?api-version=2023-07-31",
)

UNDERSTANDING = DocumentSdk(
    "contentunderstanding",
    "azure-documents",
    (contentunderstanding.ContentUnderstandingClient, contentunderstanding_aio.ContentUnderstandingClient),
    _begin_binary,
    lambda result: result.as_dict(),
    "/contentunderstanding/analyzers/prebuilt-layout:analyzeBinary?stringEncoding=codePoint&api-version=2025-11-01",
    "/contentunderstanding/analyzerResults/{}?api-version=2025-11-01",
    _delete_result,
)

LANGUAGE = DocumentSdk(
    "textanalytics",
    "azure-language",
    (textanalytics.TextAnalyticsClient, textanalytics_aio.TextAnalyticsClient),
    _begin_actions,
    lambda result: [[repr(each) for each in text] for text in result],
    "/language/analyze-text/jobs?api-version=2023-04-01",
    "/language/analyze-text/jobs/{}?api-version=2023-04-01",
)

SDKS = [INTELLIGENCE, RECOGNIZER, UNDERSTANDING, LANGUAGE]


@dataclass(frozen=True)
class Heard:
    """A call of an SDK, and what it got: header names in lower case."""

    method: str
    target: str
    status: int
    headers: dict[str, str]
    sent: dict[str, str]
    port: str

    @property
    def cache(self) -> str:
        return self.headers.get("cache-status", "")


class _Listener(SansIOHTTPPolicy[Any, Any]):
    """Listens to an SDK's calls, whatever its retries do; changes nothing."""

    def __init__(self, heard: list[Heard]) -> None:
        self._heard = heard

    def on_response(self, request: Any, response: Any) -> None:
        asked, answered = request.http_request, response.http_response
        url = urlsplit(asked.url)
        headers = {name.lower(): value for name, value in answered.headers.items()}
        target = f"{url.path}?{url.query}"
        self._heard.append(
            Heard(asked.method, target, answered.status_code, headers, dict(asked.headers), str(url.port))
        )


class DocumentVoice:
    """
    A client of *sdk* with its default settings and a key, or with *credential*. *heard*: its calls, of which each poll
    is one. *policies* stand before its own.
    """

    def __init__(
        self,
        sdk: DocumentSdk,
        url: str,
        manner: str,
        credential: Any = None,
        policies: Sequence[SansIOHTTPPolicy[Any, Any]] = (),
        **more: Any,
    ) -> None:
        self.sdk = sdk
        self.heard: list[Heard] = []
        self._waits = manner == "async"
        build = sdk.builds[self._waits]
        policies = [*policies, _Listener(self.heard)]
        self.client = build(url, credential or AzureKeyCredential(KEY), per_call_policies=policies, **more)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.run(self.client.close)

    async def run(self, call: Callable[..., Any], *args: Any, **params: Any) -> Any:
        """Make a call of the client's."""
        if self._waits:
            return await call(*args, **params)
        return await asyncio.to_thread(call, *args, **params)

    async def begin(self, data: bytes, **more: Any) -> Any:
        """Start an analysis; its poller, which in a sync client has begun to poll."""
        return await self.run(self.sdk.begin, self.client, data, **more)

    async def finish(self, poller: Any) -> Any:
        """The result, as JSON."""
        found = await self.run(poller.result)
        if hasattr(found, "__aiter__"):
            found = [each async for each in found]
        return self.sdk.plain(found)

    async def analyse(self, data: bytes, **more: Any) -> Any:
        """The result of an analysis, as JSON."""
        return await self.finish(await self.begin(data, **more))

    async def failure(self, data: bytes) -> str:
        """
        What the SDK says of an analysis that fails. The sync client of Content Understanding wraps a poller that is at
        work already, and loses its error as often as not: then it is what the last poll said.
        """
        poller = await self.begin(data)
        try:
            await self.finish(poller)
        except HttpResponseError as error:
            return str(error)
        assert (UNDERSTANDING, False) == (self.sdk, self._waits)
        return str(poller.polling_method()._pipeline_response.http_response.text())

    async def streamed(self, call: Callable[..., Any], *args: Any) -> bytes:
        """All bytes of what *call* streams."""
        found = await self.run(call, *args)
        if hasattr(found, "__aiter__"):
            return b"".join([piece async for piece in found])
        return b"".join(found)

    async def delete(self, number: str) -> None:
        """Delete a result."""
        assert self.sdk.deletes is not None
        await self.run(self.sdk.deletes, self.client, number)

    @property
    def starts(self) -> list[Heard]:
        """Its calls that began an analysis."""
        return [one for one in self.heard if one.method == "POST"]

    @property
    def polls(self) -> list[Heard]:
        """Its calls that asked after one."""
        return [one for one in self.heard if one.method == "GET"]

    @property
    def ids(self) -> list[str]:
        """The ids of its analyses, as the answers named them."""
        return [_ID.findall(one.headers["operation-location"])[-1] for one in self.starts]
