"""The control server over real sockets."""

from __future__ import annotations

import asyncio
import base64
import json
import socket

import pytest

from sidecar.admin.actions import BODY_BYTES
from sidecar.admin.control import (
    ControlServer,
    ModeRequest,
    ModeResult,
    PurgeRequest,
    PurgeResult,
    RegionRequest,
    RegionResult,
    ReloadRequest,
    ReloadResult,
)
from sidecar.admin.erasure import ErasedPlace, EraseRequest, PodReceipt, Receipt
from sidecar.core.region.regions import Standing
from sidecar.core.rules import Mode
from sidecar.errors import ConfigError, Refused

TOKEN = "correct-horse-battery"  # pragma: allowlist secret
ALL = {"scope": "all"}
WEST = Standing("openai", "", "west", 1, 3, "us", "open", 4.5, 0.0, "stop", None, 1, 7.0, 0, 0.25)
TOLD = {
    "service": "openai", "resource": "", "region": "west", "priority": 1, "weight": 3, "residency": "us",
    "state": "open", "seconds": 4.5, "share": 0.0, "order": "stop", "order_seconds": None, "windows": 1,
    "window_seconds": 7.0, "exhausted": 0, "latency": 0.25,
}  # fmt: skip


class Process:
    """What the server acts on, and what it leaves behind."""

    def __init__(self) -> None:
        self.asked = []
        self.lines = []
        self.reports = []
        self.problem = None

    async def purge(self, request: PurgeRequest) -> PurgeResult:
        self.asked.append(request)
        if self.problem is not None:
            raise self.problem
        return PurgeResult(3, "0a:7" if request.fleet else "", "done" if request.fleet else "local")

    async def erase(self, request: EraseRequest) -> Receipt:
        self.asked.append(request)
        if self.problem is not None:
            raise self.problem
        pods = (PodReceipt("one", 1, "2026-01-01T00:00:00Z"), PodReceipt("two", 0, why="gives no sign of life"))
        return Receipt("every answer", request.by, "a", "b", "0a:7", False, False, pods, (ErasedPlace("Redis", 2),))

    async def mode(self, request: ModeRequest) -> ModeResult:
        self.asked.append(request)
        return ModeResult(request.mode, request.seconds, "pending" if request.fleet else "local")

    async def region(self, request: RegionRequest) -> RegionResult:
        self.asked.append(request)
        if self.problem is not None:
            raise self.problem
        return RegionResult([WEST], "done" if request.fleet else "local")

    async def reload(self, request: ReloadRequest) -> ReloadResult:
        self.asked.append(request)
        if self.problem is not None:
            raise self.problem
        return ReloadResult("abc", "log.sample: 1% → 5%", [], ["listen.port"], [])

    async def regions(self):
        return {"regions": [WEST]}

    async def status(self):
        return {"version": "1", "mode": ModeResult(Mode.NORMAL, None, "local")}

    def audit(self, name, /, *, level="info", **fields):
        self.lines.append({"event": name, "level": level, **fields})

    def server(self, token_file=""):
        return ControlServer(
            purge=self.purge, erase=self.erase, mode=self.mode, region=self.region, reload=self.reload,
            status=self.status, regions=self.regions, audit=self.audit, report=self.reports.append,
            token_file=str(token_file),
        )  # fmt: skip


@pytest.fixture
def process() -> Process:
    return Process()


@pytest.fixture
async def port(process):
    """The port of a server without a token."""
    server = process.server()
    yield await server.start("127.0.0.1", 0)
    await server.stop()


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return path


@pytest.fixture
async def guarded(process, token_file):
    """The port of a server with a token."""
    server = process.server(token_file)
    yield await server.start("127.0.0.1", 0)
    await server.stop()


async def ask(port, target, body=None, *, method="", headers=None, host="127.0.0.1", to="127.0.0.1"):
    """One request on a connection of its own: status, headers, the JSON of the answer."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {
        "Host": f"{host}:{port}", "Content-Type": "application/json", "Content-Length": str(len(data)),
        "Connection": "close", **(headers or {}),
    }  # fmt: skip
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    reader, writer = await asyncio.open_connection(to, port)
    try:
        verb = method or ("GET" if body is None else "POST")
        writer.write("\r\n".join([f"{verb} {target} HTTP/1.1", *lines, "", ""]).encode("latin-1") + data)
        answer = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    head, _, text = answer.partition(b"\r\n\r\n")
    status, *found = head.decode().split("\r\n")
    names = {name.lower(): value for name, value in (line.split(": ", 1) for line in found)}
    return int(status.split()[1]), names, json.loads(text)


def bearer(token=TOKEN):
    return {"Authorization": f"Bearer {token}"}


async def test_status(process, port):
    """What the process tells of itself, in JSON, and for no site of others."""
    status, headers, answer = await ask(port, "/api/status")

    assert (200, {"version": "1", "mode": {"mode": "normal", "seconds": None, "fleet": "local"}}) == (status, answer)
    assert ("application/json", "no-store", "sidecar") == (
        headers["content-type"], headers["cache-control"], headers["server"]
    )  # fmt: skip
    assert not [name for name in headers if name.startswith("access-control")]
    assert [] == process.lines


async def test_a_purge_without_a_token_is_local(process, port):
    """It is said so, and leaves one audit line."""
    status, _, answer = await ask(port, "/api/purge", {"scope": "tag", "value": "ocr", "dry_run": True})

    assert (200, {"entries": 3, "position": "", "fleet": "local"}) == (status, answer)
    assert [PurgeRequest("tag", "ocr", b"", dry_run=True, fleet=False)] == process.asked
    assert [
        {
            "event": "admin-purge", "level": "info", "peer": "127.0.0.1", "token": "", "scope": "tag", "value": "ocr",
            "bytes": 0, "dry_run": True, "entries": 3, "position": "", "fleet": "local", "result": "done",
        }
    ] == process.lines  # fmt: skip


async def test_a_purge_with_the_token_is_the_fleets(process, guarded):
    """Who it was stands in the audit line as a fingerprint."""
    status, _, answer = await ask(guarded, "/api/purge", ALL, headers=bearer())

    assert (200, {"entries": 3, "position": "0a:7", "fleet": "done"}) == (status, answer)
    assert [PurgeRequest("all", "", b"", dry_run=False, fleet=True)] == process.asked
    (line,) = process.lines
    assert ("admin-purge", "done", 8) == (line["event"], line["result"], len(line["token"]))
    assert TOKEN not in repr(line)


async def test_a_purge_by_a_request(process, port):
    """The bytes of an HTTP request arrive as they are; the audit line has only how many."""
    raw = b"POST /x HTTP/1.1\r\nAuthorization: Bearer hunter2\r\n\r\n" + bytes(range(256)) * 3000
    status, _, _ = await ask(port, "/api/purge", {"scope": "request", "value": base64.b64encode(raw).decode()})

    assert 200 == status
    assert [raw] == [asked.request for asked in process.asked]
    assert (len(raw), "") == (process.lines[0]["bytes"], process.lines[0]["value"])


async def test_an_erasure(process, guarded):
    """Its receipt says who asked; its audit line names who has not confirmed."""
    status, _, answer = await ask(guarded, "/api/erase", {**ALL, "wait": "2m"}, headers=bearer())

    ((asked,), (line,)) = process.asked, process.lines

    assert (200, f"token {line['token']} from 127.0.0.1") == (status, answer["by"])
    assert EraseRequest(PurgeRequest("all", "", b"", dry_run=False, fleet=True), 120.0, answer["by"]) == asked
    assert {
        "event": "admin-erase", "level": "info", "peer": "127.0.0.1", "token": line["token"], "scope": "all",
        "value": "", "bytes": 0, "dry_run": False, "wait": 120.0, "what": "every answer", "position": "0a:7",
        "erased": 3, "pods": 2, "not_confirmed": "two", "complete": False, "result": "done",
    } == line  # fmt: skip
    assert TOKEN not in repr(line) + repr(answer)


async def test_an_erasure_without_a_token_is_local(process, port):
    """As a purge; a wait that is none is refused before anything is done."""
    await ask(port, "/api/erase", ALL)
    status, _, answer = await ask(port, "/api/erase", {**ALL, "wait": "1h"})

    assert [(False, 30.0, "127.0.0.1, no token")] == [
        (asked.purge.fleet, asked.wait, asked.by) for asked in process.asked
    ]
    assert (400, "how long to wait for other pods (`wait`) is a duration from 1s to 15m") == (
        status, answer["error"]["message"]
    )  # fmt: skip


async def test_a_mode(process, guarded):
    """With its end, and its own audit line."""
    status, _, answer = await ask(guarded, "/api/mode", {"mode": "cache-off", "for": "30m"}, headers=bearer())

    assert (200, {"mode": "cache-off", "seconds": 1800.0, "fleet": "pending"}) == (status, answer)
    assert [ModeRequest(Mode.CACHE_OFF, 1800.0, fleet=True)] == process.asked
    (line,) = process.lines
    assert ("admin-mode", "cache-off", 1800.0, "pending", "done") == (
        line["event"], line["mode"], line["seconds"], line["fleet"], line["result"]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        pytest.param({}, "token-missing", id="missing"),
        pytest.param(bearer("wrong-horse-battery"), "wrong-token", id="wrong"),
        pytest.param({"Authorization": f"Basic {TOKEN}"}, "token-missing", id="scheme"),
    ],
)
@pytest.mark.parametrize("action", ["purge", "erase", "mode", "regions"])
async def test_nobody_acts_without_the_token(process, guarded, action, headers, code):
    """Not from this machine either; each try is an audit line."""
    status, answered, answer = await ask(guarded, f"/api/{action}", ALL, headers=headers)

    assert (401, code, "Bearer") == (status, answer["error"]["code"], answered["www-authenticate"])
    assert TOKEN not in answer["error"]["message"]
    assert [] == process.asked
    assert [(f"admin-{action.removesuffix('s')}", "warning", "", f"refused: {code}")] == [
        (line["event"], line["level"], line["token"], line["result"]) for line in process.lines
    ]


async def test_regions(process, port):
    """How they stand, in JSON; nobody acts, so there is no audit line."""
    status, headers, answer = await ask(port, "/api/regions")

    assert (200, {"regions": [TOLD]}) == (status, answer)
    assert "no-store" == headers["cache-control"]
    assert [] == process.lines


async def test_a_region(process, guarded):
    """What is done about it comes back as how it stands, and leaves an audit line."""
    asked = {"service": "openai", "region": "west", "action": "stop", "for": "30m"}
    status, _, answer = await ask(guarded, "/api/regions", asked, headers=bearer())

    assert (200, {"regions": [TOLD], "fleet": "done", "why": ""}) == (status, answer)
    assert [RegionRequest("openai", "west", "stop", 1800.0, fleet=True)] == process.asked
    (line,) = process.lines
    assert ("admin-region", "info", "openai", "west", "stop", 1800.0, "done", "done") == tuple(
        line[name] for name in ("event", "level", "service", "region", "action", "seconds", "fleet", "result")
    )


async def test_a_region_without_a_token_is_this_process_alone(process, port):
    """As every action; one that is refused is in the audit, too."""
    asked = {"service": "openai", "region": "west", "action": "auto"}
    _, _, answer = await ask(port, "/api/regions", asked)
    process.problem = Refused(404, "unknown-region", "openai has no region west")
    status, _, refused = await ask(port, "/api/regions", asked)

    assert ("local", 404, "unknown-region") == (answer["fleet"], status, refused["error"]["code"])
    assert [RegionRequest("openai", "west", "auto", None, fleet=False)] * 2 == process.asked
    assert ["done", "refused: unknown-region"] == [line["result"] for line in process.lines]


@pytest.mark.parametrize("target", ["/api/status", "/api/regions"])
async def test_reading_needs_no_token_on_this_machine(guarded, target):
    """As the health server's pages."""
    status, _, _ = await ask(guarded, target)

    assert 200 == status


async def test_a_token_that_changes(process, guarded, token_file):
    """The old one is out and the new one is in from the next request on; without a file nobody is."""
    before, _, _ = await ask(guarded, "/api/purge", ALL, headers=bearer())
    token_file.write_text("another-token-by-now")
    old, _, _ = await ask(guarded, "/api/purge", ALL, headers=bearer())
    new, _, _ = await ask(guarded, "/api/purge", ALL, headers=bearer("another-token-by-now"))
    token_file.unlink()
    gone, _, answer = await ask(guarded, "/api/purge", ALL, headers=bearer("another-token-by-now"))

    assert [200, 401, 200, 503] == [before, old, new, gone]
    assert "No such file" in answer["error"]["message"]
    first, _, second, _ = (line["token"] for line in process.lines)
    assert first != second


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.nip.io", "10.0.0.1", ""])
@pytest.mark.parametrize(
    ("target", "body"), [("/api/status", None), ("/api/regions", None), ("/api/purge", ALL), ("/", None)]
)
async def test_another_host_is_not_served(process, port, host, target, body):
    """A page of another site, whose name leads here, reads and does nothing."""
    status, _, answer = await ask(port, target, body, host=host)

    assert (421, "wrong-host") == (status, answer["error"]["code"])
    assert ([], []) == (process.asked, process.lines)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "[::1]"])
async def test_this_machines_names_are_served(port, host):
    """Whatever people type."""
    status, _, _ = await ask(port, "/api/status", host=host)

    assert 200 == status


@pytest.mark.parametrize("value", ["localhost", "localhost:1", "a, b"])
async def test_the_port_is_part_of_the_host(port, value):
    """As every client sends it."""
    status, _, _ = await ask(port, "/api/status", headers={"Host": value})

    assert 421 == status


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json"]
)
async def test_what_a_form_of_another_site_sends(process, port, kind):
    """Has never the content type of an action; a script that sets it is asked about first, and gets no leave."""
    status, _, answer = await ask(port, "/api/purge", ALL, headers={"Content-Type": kind, "Origin": "https://evil"})

    assert (415, "not-json") == (status, answer["error"]["code"])
    assert [] == process.asked
    assert ["refused: not-json"] == [line["result"] for line in process.lines]

    asked, headers, _ = await ask(port, "/api/purge", method="OPTIONS", headers={"Origin": "https://evil"})

    assert 405 == asked
    assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        pytest.param(b"{", {}, (400, "bad-json"), id="cut-off"),
        pytest.param({"scope": "world"}, {}, (400, "bad-request"), id="scope"),
        pytest.param({"scope": "tag", "value": "x" * 70_000}, {}, (413, "too-large"), id="large"),
        pytest.param(b" " * (BODY_BYTES + 1), {}, (413, "too-large"), id="larger-than-all"),
        pytest.param(b"\x1f\x8b\x08", {"Content-Encoding": "gzip"}, (400, "bad-json"), id="compressed"),
    ],
)
async def test_bodies_that_are_wrong(process, port, body, headers, expected):
    """Refused with a word for programs and a sentence for people, before anything is done."""
    status, _, answer = await ask(port, "/api/purge", body, headers=headers)

    assert expected == (status, answer["error"]["code"])
    assert answer["error"]["message"]
    assert [] == process.asked
    assert 1 == len(process.lines)


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        pytest.param("GET", "/", (404, "not-found"), id="index"),
        pytest.param("GET", "/api/purge", (405, "wrong-method"), id="get-an-action"),
        pytest.param("POST", "/api/status", (405, "wrong-method"), id="post-status"),
        pytest.param("POST", "/api/purge/", (404, "not-found"), id="slash"),
        pytest.param("DELETE", "/api/mode", (405, "wrong-method"), id="delete"),
        pytest.param("PUT", "/api/regions", (405, "wrong-method"), id="put-regions"),
    ],
)
async def test_anything_else(process, port, method, target, expected):
    """Is refused in JSON as well."""
    status, _, answer = await ask(port, target, method=method)

    assert expected == (status, answer["error"]["code"])
    assert [] == process.asked


async def test_a_body_that_does_not_come(process, port, monkeypatch):
    """Is not waited for without end."""
    monkeypatch.setattr("sidecar.admin.control.BODY_SECONDS", 0.01)
    status, _, answer = await ask(port, "/api/purge", b"{", headers={"Content-Length": "2"})

    assert (408, "too-slow") == (status, answer["error"]["code"])
    assert ["refused: too-slow"] == [line["result"] for line in process.lines]


def own_address():
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737); nothing is sent
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return probe.getsockname()[0]


@pytest.mark.parametrize("target", ["/api/status", "/api/regions"])
async def test_others_show_the_token_to_read(process, token_file, target):
    """What the process tells of itself is not for the network."""
    address = own_address()
    server = process.server(token_file)
    port = await server.start("0.0.0.0", 0)
    without, _, answer = await ask(port, target, host=address, to=address)
    with_it, _, _ = await ask(port, target, headers=bearer(), host=address, to=address)
    await server.stop()

    assert (401, "token-missing", 200) == (without, answer["error"]["code"], with_it)


async def test_what_acts_may_refuse(process, port):
    """Its word and sentence reach the caller and the audit line."""
    process.problem = Refused(404, "unknown-request-id", "no call of that id is known any more; purge by --request")
    status, _, answer = await ask(port, "/api/purge", ALL)

    assert (404, {"error": {"code": "unknown-request-id", "message": process.problem.message}}) == (status, answer)
    assert ["refused: unknown-request-id"] == [line["result"] for line in process.lines]


async def test_what_acts_may_fail(process, port):
    """The caller gets an answer, the log the reason, and neither what the error quotes."""
    process.problem = RuntimeError("hunter2")
    status, _, answer = await ask(port, "/api/purge", ALL)

    assert (500, "failed") == (status, answer["error"]["code"])
    assert [process.problem] == process.reports
    assert ["failed: RuntimeError"] == [line["result"] for line in process.lines]
    assert "hunter2" not in repr((answer, process.lines))


async def test_others_reach_no_server_without_a_token(process, token_file):
    """Refused at the start, with the remedy; with a token it is fine."""
    with pytest.raises(ConfigError) as caught:
        await process.server().start("0.0.0.0", 0)

    remedy = "set admin.token_file, or admin.host to 127.0.0.1"
    assert (f"admin.host: whoever reaches 0.0.0.0 could act on this sidecar; {remedy}",) == caught.value.problems

    server = process.server(token_file)
    port = await server.start("0.0.0.0", 0)
    status, _, _ = await ask(port, "/api/purge", ALL, headers=bearer())
    await server.stop()

    assert 200 == status


async def test_stop(process):
    """A stopped server does not listen; stopping again does nothing."""
    server = process.server()
    port = await server.start("127.0.0.1", 0)

    assert f"<ControlServer 127.0.0.1:{port}>" == repr(server)

    await server.stop()
    await server.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)

    assert "<ControlServer stopped>" == repr(server)


async def test_taken_port(process):
    """A taken port is an error of the start, and leaves nothing behind."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        server = process.server()
        with pytest.raises(OSError, match="address already in use"):
            await server.start("127.0.0.1", holder.getsockname()[1])

        assert "<ControlServer stopped>" == repr(server)
