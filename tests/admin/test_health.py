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


async def ask(
    port: int, target: str, method: str = "GET", *, fields: str = "Host: 127.0.0.1\r\n"
) -> tuple[int, dict[str, str], str]:
    """One request on a connection of its own: status, headers, body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{method} {target} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n".encode())
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
    server = HealthServer(process.ready, process.metrics, names=frozenset({"sidecar.team.svc"}))
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


BROWSERS = [
    "Accept-Language: en\r\n",
    "Accept-Language:\r\n",
    "Origin: http://evil.example\r\n",
    "Sec-Fetch-Site: same-origin\r\n",
    "Referer: http://evil.example/\r\n",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n",
]


@pytest.mark.parametrize("marks", BROWSERS)
@pytest.mark.parametrize(
    "host", ["evil.example", "EVIL.example:7480", "7f000001.rebind", "localhost.evil.example", "team"]
)
async def test_a_page_that_led_a_browser_here(process, port, host, marks):
    """It reads neither metrics nor the parts, and readiness itself hangs on nobody's name."""
    process.readiness = Readiness(True, (Part("listener", True),))
    fields = f"Host: {host}\r\n{marks}"
    refused = [
        await ask(port, target, fields=fields) for target in ("/metrics", "/readyz?verbose", "/readyz?verbose=0")
    ]
    plain = [await ask(port, target, fields=fields) for target in ("/livez", "/readyz")]

    assert [403] * 3 == [status for status, _, _ in refused]
    assert all(body.startswith("foreign-host: ") and "listener" not in body for _, _, body in refused)
    assert (0, [(200, "ok\n")] * 2) == (process.scrapes, [(status, body) for status, _, body in plain])


@pytest.mark.parametrize("target", ["/metrics", "/readyz?verbose"])
@pytest.mark.parametrize("marks", ["", *BROWSERS])
@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:7480", "127.0.0.1:7480", "10.1.2.3", "[::1]:7480", "[fd00::5]", "Sidecar.team.svc:80"],
)
async def test_names_of_ours(port, host, marks, target):
    """An address names itself, and a name that is listed is ours: whoever calls by them is answered."""
    status, _, _ = await ask(port, target, fields=f"Host: {host}\r\n{marks}")

    assert 200 == status


@pytest.mark.parametrize("target", ["/metrics", "/readyz?verbose", "/livez", "/readyz"])
@pytest.mark.parametrize(
    "fields", ["Host: prometheus-target\r\n", "Host: x.example\r\nUser-Agent: Prometheus/3.0\r\n", "Host:\r\n"]
)
async def test_probes_and_scrapers(port, fields, target):
    """They are no browsers, and call by whatever name they have."""
    status, _, _ = await ask(port, target, fields=fields)

    assert 200 == status
