"""Requests that cannot be read, to every port: the answer and the log are ours, and quote nothing of them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.demo.provider import DemoProvider
from tests.scenarios.processes import SECRET, Running
from tests.scenarios.raw_requests import send

KEY = b"Bearer " + SECRET

PURGE = b"POST /api/purge HTTP/1.1\r\nHost: localhost:@\r\nContent-Type: application/json\r\n"
GET = b"GET /api/status?verbose HTTP/1.1\r\nHost: localhost:@\r\n"
AUTH = b"Authorization: " + KEY

MALFORMED = {
    "a CR behind it": GET + AUTH + b"\r\r\n\r\n",
    "a CR in it": GET + b"Authorization: Bearer\r" + SECRET + b"\r\n\r\n",
    "a NUL behind it": GET + AUTH + b"\0\r\n\r\n",
    "a NUL before it": GET + b"Authorization: \0" + KEY + b"\r\n\r\n",
    "a DEL behind it": GET + AUTH + b"\x7f\r\n\r\n",
    "an escape": GET + AUTH + b"\x1b[0m\r\n\r\n",
    "a bare LF": GET + AUTH + b"\n\n",
    "a bare LF within": GET + b"X: y\n" + AUTH + b"\r\n\r\n",
    "a folded field": GET + b"Authorization:\r\n " + KEY + b"\r\n\r\n",
    "a blank before the colon": GET + b"Authorization : " + KEY + b"\r\n\r\n",
    "no colon": GET + KEY + b"\r\n\r\n",
    "no name": GET + b": " + KEY + b"\r\n\r\n",
    "it as the name": GET + KEY + b": x\r\n\r\n",
    "other than ASCII": GET + AUTH + b"\xff\xc3\r\n\r\n",
    "other than ASCII in the name": GET + b"\xe9" + SECRET + b": " + KEY + b"\r\n\r\n",
    "a long line": b"GET /" + SECRET * 6000 + b" HTTP/1.1\r\nHost: localhost:@\r\n\r\n",
    "a long field": GET + AUTH + b"x" * 100_000 + b"\r\n\r\n",
    "a long name": GET + SECRET * 6000 + b": " + KEY + b"\r\n\r\n",
    "many fields": GET + b"".join(b"X-%d: %b\r\n" % (number, KEY) for number in range(5000)) + b"\r\n",
    "a method that is none": SECRET + b" / HTTP/1.1\r\nHost: localhost:@\r\n\r\n",
    "a method with a colon": b"Bearer:" + SECRET + b" / HTTP/1.1\r\nHost: localhost:@\r\n\r\n",
    "a version that is none": b"GET /" + SECRET + b" HTTP/9.9\r\nHost: localhost:@\r\n" + AUTH + b"\r\n\r\n",
    "a version of text": b"GET / " + SECRET + b"\r\nHost: localhost:@\r\n\r\n",
    "no version": b"GET /" + SECRET + b"\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + KEY,
    "TLS": b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + KEY + b"\r\n\r\n",
    "a target that is none": b"GET " + SECRET + b" HTTP/1.1\r\nHost: localhost:@\r\n\r\n",
    "a target of a bad port": b"GET http://" + SECRET + b":99999/ HTTP/1.1\r\nHost: localhost:@\r\n\r\n",
    "a target of a bad address": b"GET http://[" + SECRET + b"/ HTTP/1.1\r\nHost: localhost:@\r\n\r\n",
    "a target with a blank": b"GET /x " + SECRET + b" HTTP/1.1\r\nHost: localhost:@\r\n\r\n",
    "CONNECT": b"CONNECT " + SECRET + b":443 HTTP/1.1\r\nHost: localhost:@\r\n\r\n",
    "a length that is none": PURGE + b"Content-Length: " + SECRET + b"\r\n\r\n{}",
    "a length below zero": PURGE + AUTH + b"\r\nContent-Length: -5\r\n\r\n",
    "two lengths": PURGE + AUTH + b"\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}{}{}",
    "a length and chunks": PURGE + AUTH + b"\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a coding that is none": PURGE + b"Transfer-Encoding: " + SECRET + b"\r\n\r\n",
    "a chunk that is none": PURGE + b"Transfer-Encoding: chunked\r\n\r\n" + KEY + b"\r\n\r\n",
    "a second chunk that is none": PURGE
    + AUTH
    + b"\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
    + KEY
    + b"\r\n\r\n",
    "a chunk without its end": PURGE + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}" + KEY + b"\r\n\r\n",
    "a trailer that is none": PURGE + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + KEY + b"\r\n\r\n",
    "two hosts": b"GET /livez HTTP/1.1\r\nHost: localhost:@\r\nHost: " + SECRET + b"\r\n\r\n",
    "a host that is none": b"GET /livez HTTP/1.1\r\nHost: " + KEY + b"/ \r\n\r\n",
    "no host": b"GET /livez HTTP/1.1\r\n" + AUTH + b"\r\n\r\n",
    "an expectation": GET + b"Expect: " + SECRET + b"\r\n\r\n",
    "an expectation of an unknown path": b"GET /"
    + SECRET
    + b" HTTP/1.1\r\nHost: localhost:@\r\nExpect: "
    + KEY
    + b"\r\n\r\n",
    "an encoding that is none": PURGE + b"Content-Encoding: gzip\r\nContent-Length: 30\r\n\r\n" + (KEY * 2)[:30],
    "another protocol": GET
    + AUTH
    + b"\r\nConnection: upgrade, close\r\nUpgrade: "
    + SECRET
    + b"\r\n\r\n"
    + KEY
    + b"\r\n\r\n",
    "a second one that is none": GET + b"\r\n" + SECRET + b"\r\n\r\n",
    "a body that is none": PURGE + AUTH + b"\r\nContent-Length: 30\r\n\r\n" + (KEY * 2)[:30],
    "a form": b"POST /api/mode HTTP/1.1\r\nHost: localhost:@\r\nContent-Type: "
    + KEY
    + b"\r\nContent-Length: 0\r\n\r\n",
    "half of one": GET + AUTH,
    "an empty line, and nonsense": b"\r\n\r\n" + KEY + b"\r\n\r\n",
}


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    process = Running(tmp_path, PYTHONASYNCIODEBUG="1")
    yield process
    process.child.kill()
    process.child.wait()


async def test_every_port(running: Running):
    """Whatever is wrong with it, the secret is in no answer and no line, and every line is JSON."""
    ports = await running.ports()
    answers = {(port, name): await send(ports[port], request) for port in ports for name, request in MALFORMED.items()}
    for port in ports.values():
        assert (await send(port, b"")).startswith(b"HTTP/1.1 ")
    running.child.send_signal(signal.SIGTERM)
    assert 0 == await asyncio.to_thread(running.child.wait, 20)

    assert {} == {where: answer for where, answer in answers.items() if b"correct" in answer.lower()}
    log = running.log.read_bytes()
    assert b"correct" not in log.lower()
    assert b"" == running.output.read_bytes()
    events = running.events
    assert len(log.splitlines()) == len(events)
    assert "stopped" == events[-1]["event"]
    assert set() == {event["event"] for event in events} & {
        "bug",
        "loop-error",
        "unraisable",
        "crashed",
        "thread-failed",
    }


@pytest.mark.parametrize(
    ("port", "form"), [("admin", b"application/json"), ("health", b"text/plain"), ("listen", b"json")]
)
async def test_the_answer(running: Running, port: str, form: bytes):
    """It has the form of its port, a code, and no more than that; the admin port leaves one line for each."""
    ports = await running.ports()
    names = ["a CR behind it", "a NUL behind it", "a DEL behind it", "TLS", "a method with a colon"]
    for name in names:
        head, _, body = (await send(ports[port], MALFORMED[name])).partition(b"\r\n\r\n")

        assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
        assert form in head.lower()
        assert b"malformed-request" in body
    lines = [event for event in running.events if event["event"] == "admin-malformed"]
    assert len(names) * (port == "admin") == len(lines)
    assert {"127.0.0.1"} >= {line["peer"] for line in lines}


async def test_the_stand_in(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture):
    """The demo's provider answers real callers only; what it cannot read it doesn't quote, either."""
    provider = DemoProvider()
    port = await provider.start()
    quoted = {
        name
        for name, request in MALFORMED.items()
        if name not in MAY_BE_QUOTED and b"correct" in (await send(port, request)).lower()
    }
    await provider.stop()
    out, err = capfd.readouterr()

    assert set() == quoted
    assert "correct" not in (out + err + caplog.text).lower()


MAY_BE_QUOTED = frozenset({"a target that is none", "an expectation of an unknown path", "no version"})
"""These can be read as a path, which the real services quote in their 404."""
