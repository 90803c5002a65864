"""The health server over real sockets."""

from __future__ import annotations

import asyncio
import socket

import pytest

from sidecar.admin.health import HealthServer, Part, Readiness

METRICS = b"# TYPE sidecar_connections gauge\nsidecar_connections 1.0\n"


class Process:
    """What the server asks about."""

    def __init__(self) -> None:
        self.readiness = Readiness(ready=True)
        self.scrapes = 0

    def ready(self) -> Readiness:
        return self.readiness

    def metrics(self) -> bytes:
        self.scrapes += 1
        return METRICS


async def ask(port: int, target: str, method: str = "GET") -> tuple[int, dict[str, str], str]:
    """One request on a connection of its own: status, headers, body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    head, _, body = answer.decode().partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    return int(status.split()[1]), {name.lower(): value for name, value in (x.split(": ", 1) for x in lines)}, body


@pytest.fixture
def process() -> Process:
    return Process()


@pytest.fixture
async def port(process):
    """A started server's port."""
    server = HealthServer(process.ready, process.metrics)
    yield await server.start("127.0.0.1", 0)
    await server.stop()


@pytest.mark.parametrize(
    ("readiness", "target", "status", "body"),
    [
        pytest.param(Readiness(True), "/livez", 200, "ok\n", id="alive"),
        pytest.param(Readiness(False), "/livez", 200, "ok\n", id="alive-while-draining"),
        pytest.param(Readiness(True), "/readyz", 200, "ok\n", id="ready"),
        pytest.param(Readiness(False), "/readyz", 503, "not ready\n", id="not-ready"),
        pytest.param(
            Readiness(True, (Part("listener", True), Part("config", False, "line 3: unknown key"))),
            "/readyz?verbose",
            200,
            "[+] listener\n[-] config: line 3: unknown key\nok\n",
            id="verbose-with-a-bad-part",
        ),
        pytest.param(
            Readiness(False, (Part("listener", False, "draining"),)),
            "/readyz?verbose=1",
            503,
            "[-] listener: draining\nnot ready\n",
            id="verbose-not-ready",
        ),
        pytest.param(
            Readiness(True, (Part("listener", True),)), "/readyz", 200, "ok\n", id="parts-only-where-asked-for"
        ),
    ],
)
async def test_probes(process, port, readiness, target, status, body):
    """A process is alive while it answers, and ready when it says so."""
    process.readiness = readiness
    found, headers, text = await ask(port, target)

    assert (status, body) == (found, text)
    assert "no-store" == headers["cache-control"]
    assert "sidecar" == headers["server"]


async def test_metrics(process, port):
    """Metrics are made at each scrape and carry Prometheus' content type."""
    for _ in range(2):
        status, headers, body = await ask(port, "/metrics")

        assert (200, METRICS.decode()) == (status, body)
        assert "text/plain; version=0.0.4; charset=utf-8" == headers["content-type"]

    assert 2 == process.scrapes


async def test_page_for_people(port):
    """Whoever opens the address in a browser learns what there is."""
    status, _, body = await ask(port, "/")

    assert 200 == status
    assert all(path in body for path in ("/livez", "/readyz", "/metrics"))


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        pytest.param("GET", "/metrics/", 404, id="unknown-path"),
        pytest.param("GET", "/../etc/passwd", 404, id="dots"),
        pytest.param("POST", "/", 405, id="post-index"),
        pytest.param("POST", "/readyz", 405, id="post"),
        pytest.param("HEAD", "/livez", 405, id="head"),
        pytest.param("DELETE", "/metrics", 405, id="delete"),
        pytest.param("POST", "/quitquitquit", 404, id="post-unknown-path"),
    ],
)
async def test_anything_else(process, port, method, target, status):
    """What is not a GET of one of the paths is refused."""
    found, headers, _ = await ask(port, target, method)

    assert status == found
    assert "sidecar" == headers["server"]
    assert 0 == process.scrapes


async def test_stop(process):
    """A stopped server does not listen, even while a connection was kept open; stopping again does nothing."""
    server = HealthServer(process.ready, process.metrics)
    port = await server.start("127.0.0.1", 0)

    assert f"<HealthServer 127.0.0.1:{port}>" == repr(server)

    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")

    assert b"HTTP/1.1 200" in await reader.readuntil(b"ok\n")

    await server.stop()
    await server.stop()

    assert b"" == await reader.read()
    writer.close()
    await writer.wait_closed()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)

    assert "<HealthServer stopped>" == repr(server)


async def test_taken_port(process):
    """A taken port is an error of the start, and leaves nothing behind."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        server = HealthServer(process.ready, process.metrics)
        with pytest.raises(OSError, match="address already in use"):
            await server.start("127.0.0.1", holder.getsockname()[1])

        assert "<HealthServer stopped>" == repr(server)
