"""The small client that asks for tokens, against real sockets."""

import asyncio
import socket
import ssl
import time

import pytest

from sidecar.identity.client import TokenClient
from sidecar.net.outbound.resolve import Resolver


@pytest.fixture
def ways():
    """What the client asked the way to."""
    return []


@pytest.fixture
def fetch(ways):
    client = TokenClient(
        proxy_for=lambda url: ways.append(url) or ("", ""),
        trust=ssl.create_default_context,
        resolver=Resolver(clock=time.monotonic),
    )

    async def fetch(url, method="GET", headers=None, body=b"", *, seconds=30.0, proxy=False):
        return await client(method, url, headers or {}, body, seconds=seconds, proxy=proxy)

    return fetch


async def test_get(fetch, endpoint, say, ways):
    """A request as it was asked for, with its query untouched, and the answer."""
    endpoint.answers = [say("yes", 418, "Retry-After: 5\r\n")]
    status, fields, body = await fetch(f"{endpoint.url}/a?r=https%3A%2F%2Fx+y", headers={"Metadata": "true"})
    head = endpoint.requests[0][0].splitlines()

    assert (418, "5", b"yes") == (status, fields.get("retry-after"), body)
    assert "GET /a?r=https%3A%2F%2Fx+y HTTP/1.1" == head[0]
    assert "Metadata: true" in head
    assert [] == ways


async def test_post(fetch, endpoint, say, ways):
    """A form goes out as it is; the way to the authority may lead through a proxy."""
    endpoint.answers = [say("{}")]
    await fetch(f"{endpoint.url}/t", "POST", {"Content-Type": "application/x-www-form-urlencoded"}, b"a=b", proxy=True)
    head, body = endpoint.requests[0]

    assert b"a=b" == body
    assert "Content-Type: application/x-www-form-urlencoded" in head.splitlines()
    assert [f"{endpoint.url}/t"] == ways


async def test_proxy(endpoint, say):
    """A proxy is asked for a tunnel, and told its credentials; that it refuses is told."""
    endpoint.answers = [say("secret", 407)]
    client = TokenClient(
        proxy_for=lambda _: (endpoint.url, "Basic dTpw"),
        trust=ssl.create_default_context,
        resolver=Resolver(clock=time.monotonic),
    )

    with pytest.raises(OSError, match=r"^the proxy answered 407$"):
        await client("POST", "https://login.invalid/t", {}, b"assertion", seconds=30.0, proxy=True)

    ((head, body),) = endpoint.requests

    assert "CONNECT login.invalid:443 HTTP/1.1" == head.splitlines()[0]
    assert "Proxy-Authorization: Basic dTpw" in head.splitlines()
    assert b"" == body


async def test_environment_is_not_read(fetch, endpoint, say, monkeypatch):
    """No variable sends the machine's endpoint through a proxy."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://proxy.invalid:1")
    endpoint.answers = [say("{}")]

    assert 200 == (await fetch(endpoint.url))[0]


async def test_redirect(fetch, endpoint, say):
    """A redirect is an answer like another, and is not followed."""
    endpoint.answers = [say("", 302, f"Location: {endpoint.url}/elsewhere\r\n")]

    assert 302 == (await fetch(endpoint.url))[0]
    assert 1 == len(endpoint.requests)


async def test_longest_answer(fetch, endpoint, say):
    """64 KiB are read, and not a byte more."""
    endpoint.answers = [say(b"a" * 65536), say(b"a" * 65537)]

    assert 65536 == len((await fetch(endpoint.url))[2])

    with pytest.raises(OSError, match=r"^the answer is longer than 64 KiB$"):
        await fetch(endpoint.url)


async def test_coded_answer(fetch, endpoint, say):
    """A coded answer is not decoded: there is nothing that could swell."""
    endpoint.answers = [say(b"\x1f\x8b", 200, "Content-Encoding: gzip\r\n")]

    assert b"\x1f\x8b" == (await fetch(endpoint.url))[2]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "no answer that can be read (ServerDisconnectedError)"),
        (b"secret garbage\r\n\r\n", "no answer that can be read (BadStatusLine)"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsecret", "no answer that can be read (ClientPayloadError)"),
        (b"HTTP/1.1 200 OK\r\nsecret\r\n\r\n", "no answer that can be read (InvalidHeader)"),
    ],
    ids=["nothing", "garbage", "cut", "no field"],
)
async def test_broken_answer(fetch, endpoint, text, told):
    """What is no HTTP is told by its kind, and not quoted."""
    endpoint.answers = [text]

    with pytest.raises(OSError, match="no answer that can be read") as caught:
        await fetch(endpoint.url)

    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__
    assert told.partition("(")[0] in str(caught.value)


async def test_silence(fetch, endpoint):
    """An endpoint that says nothing is given up."""
    endpoint.answers = [None]

    with pytest.raises(OSError, match=r"^no answer in time$"):
        await fetch(endpoint.url, seconds=0.05)


async def test_nobody_listens(fetch):
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))

        with pytest.raises(OSError, match="refused"):
            await fetch(f"http://127.0.0.1:{taken.getsockname()[1]}/")


async def test_no_tls(fetch):
    """TLS with who speaks none."""

    async def serve(reader, writer):
        writer.write(b"HTTP/1.1 400 Bad\r\n\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        with pytest.raises(OSError, match=r"^TLS failed$"):
            await fetch(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")


async def test_trust_is_loaded_once():
    """The trust anchors are read when they are needed, and once."""
    loaded = []

    def trust():
        loaded.append(1)
        return ssl.create_default_context()

    client = TokenClient(proxy_for=lambda _: ("", ""), trust=trust, resolver=Resolver(clock=time.monotonic))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        for proxy in (False, True, True):
            with pytest.raises(OSError, match="refused"):
                await client("GET", url, {}, b"", seconds=5.0, proxy=proxy)

    assert [1] == loaded


async def test_cancelled(fetch, endpoint):
    """A request that is cancelled leaves no connection open."""
    endpoint.gate.clear()
    endpoint.answers = [None]
    asking = asyncio.create_task(fetch(endpoint.url))
    await endpoint.asked.wait()
    asking.cancel()

    assert [asyncio.CancelledError] == [type(e) for e in await asyncio.gather(asking, return_exceptions=True)]
