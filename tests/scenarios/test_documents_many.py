"""Many uploads of few documents, in mixed forms and through several sidecars: each document is analysed once."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import Iterator

import aiohttp
import pytest

from tests.scenarios.conftest import VENDORS
from tests.scenarios.document_desks import DocumentDesks
from tests.scenarios.document_sdks import INTELLIGENCE, KEY, document
from tests.scenarios.processes import configured, launch, run_by
from tests.scenarios.tokens import SUBJECT, bearer, token

UPLOADS, DISTINCT, AT_ONCE = 1000, 100, 32

BY_KEY = {"ocp-apim-subscription-key": KEY}


def forms(data: bytes) -> Iterator[tuple[bytes, str]]:
    """The forms of a document: body and media type."""
    yield data, "application/octet-stream"
    yield data, "application/pdf"
    yield json.dumps({"base64Source": base64.b64encode(data).decode()}).encode(), "application/json"
    head = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.pdf"\r\n\r\n'
    yield head + data + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"


class Uploads:
    """Uploads in an order that looks like none, always the same."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._draw = random.Random(14)
        self.numbers = [number % DISTINCT for number in range(UPLOADS)]
        self._draw.shuffle(self.numbers)

    async def start(self, base: str, number: int, headers: dict[str, str]) -> str:
        """Upload a document in one of its forms; the path and the query of its operation."""
        body, kind = self._draw.choice(list(forms(document(f"document {number}"))))
        given = {**headers, "content-type": kind}
        async with self._session.post(base + INTELLIGENCE.start, data=body, headers=given) as response:
            assert 202 == response.status, await response.text()
            where = response.headers["operation-location"]
        assert where.startswith(base)
        return where.removeprefix(base)

    async def finish(self, base: str, where: str, headers: dict[str, str]) -> str:
        """The text of the result, which *base* is asked for."""
        while True:
            async with self._session.get(base + where, headers=headers) as response:
                found = await response.json()
                assert 200 == response.status, found
                if "retry-after" not in response.headers:
                    return str(found["analyzeResult"]["content"])

    async def upload(self, bases: list[str], number: int, headers: dict[str, str]) -> None:
        """Upload a document to one of the sidecars, and ask another one for its result."""
        where = await self.start(self._draw.choice(bases), number, headers)
        text = await self.finish(self._draw.choice(bases), where, headers)

        assert f"document {number}, page 1\n" in text


@pytest.fixture
async def uploads():
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE)) as session:
        yield Uploads(session)


@pytest.mark.parametrize("replicas", [1, 4])
async def test_a_thousand_uploads(provider, build_lab, build_fleet, uploads, replicas):
    """A thousand uploads of a hundred documents, some of them at once, are a hundred analyses."""
    desks = DocumentDesks(provider, build_lab, build_fleet)
    opened = [await desks.open(fleet=replicas > 1) for _ in range(replicas)]
    for desk in opened:
        desk.lab.clocks.without_pauses()
    bases = [desk.url(INTELLIGENCE) for desk in opened]
    turns = asyncio.Semaphore(AT_ONCE)

    async def upload(number: int) -> None:
        async with turns:
            await uploads.upload(bases, number, BY_KEY)

    await asyncio.gather(*map(upload, uploads.numbers))

    assert [1] * DISTINCT == sorted(provider.documents.analyses.values())
    assert DISTINCT == provider.documents.asked


async def test_a_token_a_minute(provider, build_lab, uploads):
    """With tokens that change, each of them costs at most the calls that are on their way when it is first seen."""
    desk = await DocumentDesks(provider, build_lab, dialects=VENDORS).open()
    desk.lab.clocks.without_pauses()
    tokens = 5
    for turn in range(tokens):
        headers = bearer(token(**SUBJECT, jti=turn))
        for start in range(turn * UPLOADS // tokens, (turn + 1) * UPLOADS // tokens, AT_ONCE):
            numbers = uploads.numbers[start : min(start + AT_ONCE, (turn + 1) * UPLOADS // tokens)]
            await asyncio.gather(*(uploads.upload([desk.url(INTELLIGENCE)], number, headers) for number in numbers))

    assert DISTINCT <= provider.documents.asked <= DISTINCT + tokens * AT_ONCE
    assert DISTINCT == len(provider.documents.analyses)


async def test_replicas_killed(provider, redis_server, tmp_path, uploads):
    """Two of four replicas are killed while analyses run: every operation that was accepted has its result."""
    provider.documents.faults.paused = True
    config = configured(tmp_path, redis_server, f"http://127.0.0.1:{provider.port}")
    config.write_text(
        config.read_text(encoding="utf-8").replace("dialect: openai", "dialect: azure-documents"), encoding="utf-8"
    )
    replicas = [launch(tmp_path, *run_by(config), mark=str(number)) for number in range(4)]
    try:
        for each in replicas:
            await each.started()
        bases = [f"http://127.0.0.1:{each.port}/openai" for each in replicas]
        started = [
            (number, await uploads.start(bases[(turn + turn // 20) % 4], number, BY_KEY))
            for turn, number in enumerate([*range(20)] * 2)
        ]
        for each in replicas[:2]:
            each.child.kill()
            each.child.wait()
        provider.documents.faults.paused = False
        texts = await asyncio.gather(
            *(uploads.finish(bases[2 + number % 2], where, BY_KEY) for number, where in started)
        )
    finally:
        for each in replicas:
            each.child.kill()
            each.child.wait()

    assert [f"document {number}, page 1" for number, _ in started] == [text.partition("\n")[0] for text in texts]
    assert [1] * 20 == sorted(provider.documents.analyses.values())
