"""Where our own pages are served."""

from __future__ import annotations

import socket

import pytest
from aiohttp import ClientSession, web

from sidecar.net.web_server import WebServer
from tests.redis_servers import free_port


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as one:
        try:
            one.bind(("::1", 0))
        except OSError:
            return False
    return True


def server() -> WebServer:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="page")

    app = web.Application()
    app.router.add_get("/", page)
    return WebServer(app, lambda status, *_: web.Response(status=status), report=pytest.fail, shutdown=1.0)


async def answered(address: str) -> bool:
    async with ClientSession() as session:
        try:
            async with session.get(f"http://{address}/") as response:
                return await response.text() == "page"
        except OSError:
            return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize(("host", "both"), [("0.0.0.0", True), ("127.0.0.1", False)])
async def test_all_addresses(host: str, both: bool):
    """In a cluster of IPv6, kubelet and Prometheus know a pod by no other address; on loopback nobody else may ask."""
    pages = server()
    port = await pages.start(host, free_port())
    try:
        assert (True, both) == (await answered(f"127.0.0.1:{port}"), await answered(f"[::1]:{port}"))
    finally:
        await pages.stop()

    assert not await answered(f"127.0.0.1:{port}")
    assert not await answered(f"[::1]:{port}")


async def test_a_machine_without_ipv6(monkeypatch):
    """Its other addresses are served."""
    monkeypatch.setattr("sidecar.net.web_server.ANY_IPV6", "2001:db8::1")  # an address that no machine has
    pages = server()
    port = await pages.start("0.0.0.0", free_port())
    try:
        assert await answered(f"127.0.0.1:{port}")
    finally:
        await pages.stop()


async def test_a_port_that_is_taken():
    """It is an error as on any address, and nothing is left listening."""
    first, second = server(), server()
    port = await first.start("0.0.0.0", free_port())
    try:
        with pytest.raises(OSError, match="in use"):
            await second.start("0.0.0.0", port)
        await second.stop()
    finally:
        await first.stop()
