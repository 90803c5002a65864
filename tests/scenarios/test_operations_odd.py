"""Services that accept an operation in odd ways, or answer polls of it in odd ways."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.core.rules import Route
from tests.scenarios.answers import whole
from tests.scenarios.operation_desks import IMPATIENT, KEPT, KEY, Desk, service

RESULT = "/documentintelligence/documentModels/prebuilt-layout/analyzeResults"
DONE = json.dumps({"status": "succeeded", "analyzeResult": {"modelId": "prebuilt-layout", "pages": [{}]}}).encode()
BROKEN_OFF = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"


class OddService:
    """Accepts every call with the fields *said* and the bytes *body*; *polls* are the answers to polls, in turn."""

    def __init__(self, said: Callable[[str, str], bytes], polls: list[bytes]) -> None:
        self.said = said
        self.polls = polls
        self.cut = False
        self.asked: list[str] = []

    async def __call__(self, head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        line, host = head.split(b"\r\n")[0].decode(), head.lower().split(b"host: ")[1].split(b"\r\n")[0].decode()
        self.asked.append(line)
        if line.startswith("POST "):
            said = self.said(f"http://{host}", f"id{len(self.asked)}")
            if self.cut:
                writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 900\r\n%b\r\n\r\n{" % said.rstrip())
                writer.close()
            else:
                writer.write(whole(b"{}", status="202 Accepted", extra=said))
        else:
            answer = self.polls.pop(0) if self.polls else whole(DONE)
            writer.write(answer)
            if answer is BROKEN_OFF:
                writer.close()


def at(url: str) -> bytes:
    return b"Operation-Location: %b\r\n" % url.encode()


@pytest.fixture
def build_odd(build_lab, script):
    async def build(said: Callable[[str, str], bytes], *polls: bytes) -> tuple[Desk, OddService]:
        odd = OddService(said, list(polls))
        upstream = await script(odd)
        lab = await build_lab("", services=(service(upstream.url),), routes=(Route("documents", cache=KEPT),))
        lab.clocks.without_pauses()
        return Desk(lab), odd

    return build


VERSION = "?api-version=2024-11-30"
LOCATIONS = {
    "as it should be": (lambda host, id_: at(f"{host}{RESULT}/{id_}{VERSION}"), f"{RESULT}/id1{VERSION}"),
    "another path of it": (lambda host, id_: at(f"{host}/other/{id_}?v=2"), "/other/id1?v=2"),
    "a path alone": (lambda _, id_: at(f"{RESULT}/{id_}{VERSION}"), f"{RESULT}/id1{VERSION}"),
    "another host": (lambda _, id_: at(f"https://elsewhere.example{RESULT}/{id_}?x"), f"{RESULT}/id1{VERSION}"),
    "a user before the host": (
        lambda host, id_: at(f"{host.replace('//', '//me@')}{RESULT}/{id_}"),
        f"{RESULT}/id1{VERSION}",
    ),
    "twice": (
        lambda host, id_: at(f"{host}{RESULT}/{id_}{VERSION}") + at(f"{host}{RESULT}/{id_}"),
        f"{RESULT}/id1{VERSION}",
    ),
    "blanks": (lambda host, id_: at(f"{host}/a b/{id_} x/{id_}"), f"{RESULT}/id1{VERSION}"),
    "a way up": (lambda host, id_: at(f"{host}/../admin/{id_}"), f"{RESULT}/id1{VERSION}"),
    "location": (
        lambda host, id_: b"Location: %b" % at(f"{host}{RESULT}/{id_}{VERSION}")[20:],
        f"{RESULT}/id1{VERSION}",
    ),
}


@pytest.mark.parametrize("case", LOCATIONS)
async def test_where_it_is(build_odd, case):
    """The region that accepted is asked, at its own address for it or at the usual one, and nowhere else."""
    said, target = LOCATIONS[case]
    desk, odd = await build_odd(said)
    started = await desk.start()
    found = await desk.result(started)

    assert "succeeded" == json.loads(found.body)["status"]
    assert started.headers["operation-location"].startswith(f"{desk.lab.url}/docs{RESULT}/id1?")
    assert "id1" == started.headers["apim-request-id"]
    assert [f"GET {target} HTTP/1.1"] == odd.asked[1:]


@pytest.mark.parametrize("said", [lambda *_: b"", lambda host, _: at(f"{host}/x/"), lambda *_: at("nonsense /?#")])
async def test_nowhere(build_odd, said):
    """A call that was accepted without an address goes back to its caller as it came; others make their own."""
    desk, odd = await build_odd(said)
    replies = await asyncio.gather(*(desk.start() for _ in range(5)))
    await desk.lab.settle()

    assert [202] * 5 == [reply.status for reply in replies]
    assert [b"{}"] * 5 == [reply.body for reply in replies]
    assert 5 == len(odd.asked)
    assert 0 == desk.lab.sidecar.memory.entries


async def test_cut_after_its_head(build_odd):
    """The head of the 202 says all: a body that breaks off loses nothing."""
    desk, odd = await build_odd(LOCATIONS["as it should be"][0])
    odd.cut = True
    started = await desk.start()

    assert 202 == started.status
    assert "succeeded" == json.loads((await desk.result(started)).body)["status"]
    assert 1 == sum(line.startswith("POST") for line in odd.asked)


RUNNING = whole(b'{"status":"RUNNING"}')
PASSING = {
    "429 for long": whole(b"{}", status="429 Too Many Requests", extra=b"Retry-After: 99999999\r\n"),
    "429 at once": whole(b"{}", status="429 Too Many Requests", extra=b"Retry-After: 0\r\n"),
    "429 before": whole(b"{}", status="429 Too Many Requests", extra=b"Retry-After: -5\r\n"),
    "429 at a date": whole(
        b"{}", status="429 Too Many Requests", extra=b"Retry-After: Wed, 21 Oct 2099 07:28:00 GMT\r\n"
    ),
    "408": whole(b"{}", status="408 Request Timeout"),
    "500": whole(b"oops", status="500 Internal Server Error"),
    "503": whole(b"", status="503 Service Unavailable"),
    "a page": whole(b"<html>wait</html>", kind=b"text/html"),
    "nothing": whole(b""),
    "cut": whole(b'{"status":"succ'),
    "accepted": whole(b"", status="202 Accepted"),
    "odd case": RUNNING,
    "broken off": BROKEN_OFF,
}


@pytest.mark.parametrize("case", PASSING)
async def test_passing(build_odd, case):
    """Whatever goes wrong with a few polls, callers hear of none of it."""
    desk, odd = await build_odd(LOCATIONS["as it should be"][0], *[PASSING[case]] * 3, RUNNING)
    slept = desk.lab.clocks.without_pauses()
    started = await desk.start()
    found = await desk.result(started)
    hit = await desk.start()

    assert (200, "succeeded") == (found.status, json.loads(found.body)["status"])
    assert "retry-after" not in found.headers
    assert hit.headers["cache-status"].startswith("sidecar; hit")
    assert all(1.0 <= seconds <= 30.0 for seconds in slept)
    assert 1 == sum(line.startswith("POST") for line in odd.asked)


LASTING = {
    "302": (whole(b"", status="302 Found", extra=b"Location: https://elsewhere.example/\r\n"), 302),
    "401": (whole(b"{}", status="401 Unauthorized"), 401),
    "403": (whole(b"{}", status="403 Forbidden"), 403),
    "404": (whole(b'{"error":{"code":"NotFound"}}', status="404 Not Found"), 404),
    "410": (whole(b"{}", status="410 Gone"), 410),
}


@pytest.mark.parametrize("case", LASTING)
async def test_lasting(build_odd, case):
    """What does not pass is told to the caller that asks, and is never stored; the next call starts anew."""
    answer, status = LASTING[case]
    desk, odd = await build_odd(LOCATIONS["as it should be"][0], *[answer] * 4)
    started = await desk.start()
    found = await desk.poll(started)
    again = await desk.start(headers=IMPATIENT)

    assert status == found.status
    assert "sidecar; fwd=miss" == again.headers["cache-status"]
    assert 2 == sum(line.startswith("POST") for line in odd.asked)


async def test_wrong_for_long(build_odd):
    """A poll whose answers can never be read gets the service's own words, and nothing is stored."""
    page = whole(b"<html>gone</html>", kind=b"text/html")
    desk, _ = await build_odd(LOCATIONS["as it should be"][0], *[page] * 5)
    found = await desk.poll(await desk.start())
    await desk.lab.settle()

    assert (200, b"<html>gone</html>") == (found.status, found.body)
    assert 0 == desk.lab.sidecar.memory.entries


TARGETS = ["pdf", "figures/..", "figures/1.1", "figures/..%2f..%2fadmin", "figures/1.1/../../x"]


@pytest.mark.parametrize("part", TARGETS)
async def test_parts_of_anothers(build_odd, part):
    """Nobody but its caller asks for parts of an operation, however the path is written."""
    desk, odd = await build_odd(LOCATIONS["as it should be"][0])
    started = await desk.start()
    await desk.result(started)
    before = len(odd.asked)
    reply = await desk.poll(started, part=f"/{part}")
    sent: list[Any] = odd.asked[before:]

    assert [f"GET {RESULT}/id1/{part}{VERSION} HTTP/1.1"] == sent
    assert 200 == reply.status
    assert 404 == (await desk.poll(started, part="/pdf", headers=KEY | {"ocp-apim-subscription-key": "k-9"})).status
