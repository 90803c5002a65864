"""An identity endpoint on a real socket, that answers as it is told to."""

import asyncio

import pytest

from tests.identity.rotation import Clock, Volume


def answer(body, status=200, fields=""):
    """A whole answer as bytes."""
    body = body if isinstance(body, bytes) else body.encode()
    return f"HTTP/1.1 {status} Whatever\r\nContent-Length: {len(body)}\r\n{fields}\r\n".encode() + body


class Endpoint:
    """*answers* are given in turn, the last again and again; a None is silence. *requests* are head and body."""

    def __init__(self):
        self.answers = []
        self.requests = []
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.url = ""
        self._writers = []

    async def serve(self, reader, writer):
        self._writers.append(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:
            return
        size = next((int(line[15:]) for line in head.lower().splitlines() if line.startswith("content-length:")), 0)
        self.requests.append((head, await reader.readexactly(size)))
        self.asked.set()
        await self.gate.wait()
        text = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if text is None:
            return
        writer.write(text)
        writer.close()

    async def start(self):
        self._server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self):
        self.gate.set()
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()


@pytest.fixture
async def endpoint():
    endpoint = Endpoint()
    await endpoint.start()
    yield endpoint
    await endpoint.stop()


@pytest.fixture
def say():
    return answer


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def volume(tmp_path):
    return Volume(tmp_path)


@pytest.fixture
def reports():
    return []
