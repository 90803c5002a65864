"""The commands that talk to a running sidecar, against a control server that runs."""

from __future__ import annotations

import asyncio
import io
import socket
import threading
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest

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
from sidecar.cli.main import main
from sidecar.core.region.regions import Standing
from sidecar.core.rules import Mode
from sidecar.errors import Refused

TOKEN = "correct-horse-battery"  # pragma: allowlist secret
KEY = "0123456789abcdef" * 2
NO_REDIS = "this process only: it has no Redis in use to tell the fleet by; see cache.redis and cache.secret_file"
NO_TOKEN = "this process only: for the whole fleet, set admin.token_file in every pod's configuration"
PENDING = "pending: Redis is away, so the other pods do not know yet; this process tells them when it answers again"


def standing(region, *, resource="", state="closed", seconds=0.0, share=1.0, order="", order_seconds=None, **more):
    """A row of the table."""
    told = {
        "priority": 1, "weight": 1, "residency": "", "windows": 0, "window_seconds": 0.0, "exhausted": 0,
        "latency": None,
    } | more  # fmt: skip
    return Standing(
        "openai", resource, region, state=state, seconds=seconds, share=share, order=order,
        order_seconds=order_seconds, **told,
    )  # fmt: skip


class Process:
    """What a control server acts on: *fleet* is what becomes of an action that the whole fleet is to know."""

    def __init__(self) -> None:
        self.asked = []
        self.fleet = "done"
        self.why = ""
        self.entries = 3
        self.problem = None
        self.standing = ModeResult(Mode.NORMAL, None, "local")
        self.table = [standing("us")]
        self.receipt = Receipt(
            "the answer of key 01234567...", "token 1f2e3d4c from 127.0.0.1", "2026-12-01T08:00:00Z",
            "2026-12-01T08:00:02Z", "0a:17", True, False, (PodReceipt("web-1", 1, "2026-12-01T08:00:01Z"),),
            (ErasedPlace("Redis", 2, note="3 values were left alone"),), ("copies",),
        )  # fmt: skip

    async def purge(self, request: PurgeRequest) -> PurgeResult:
        self.asked.append(request)
        if self.problem is not None:
            raise self.problem
        return PurgeResult(self.entries, "", self.fleet if request.fleet else "local")

    async def erase(self, request: EraseRequest) -> Receipt:
        self.asked.append(request)
        if self.problem is not None:
            raise self.problem
        return self.receipt

    async def mode(self, request: ModeRequest) -> ModeResult:
        self.asked.append(request)
        return ModeResult(request.mode, request.seconds, self.fleet if request.fleet else "local")

    async def region(self, request: RegionRequest) -> RegionResult:
        self.asked.append(request)
        if self.problem is not None:
            raise self.problem
        return RegionResult(self.table, self.fleet if request.fleet else "local", self.why)

    async def reload(self, request: ReloadRequest) -> ReloadResult:
        self.asked.append(request)
        return ReloadResult("abc", "nothing that counts", [], [], [])

    async def regions(self):
        return {"regions": self.table}

    async def status(self):
        return {"mode": self.standing}


@contextmanager
def serving(process, token_file):
    """A control server in a loop of its own, in a thread of its own; its port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = ControlServer(
        purge=process.purge, erase=process.erase, mode=process.mode, region=process.region, reload=process.reload,
            status=process.status, regions=process.regions,
        audit=lambda *_, **__: None, report=lambda _: None, token_file=token_file,
    )  # fmt: skip

    def run(work):
        return asyncio.run_coroutine_threadsafe(work, loop).result(10)

    try:
        yield run(server.start("127.0.0.1", 0))
    finally:
        run(server.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """No variable of the surroundings counts, and an egress proxy least of all."""
    monkeypatch.setattr("sidecar.cli.main.os.environ", {})
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


@pytest.fixture
def process() -> Process:
    return Process()


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return path


@pytest.fixture
def configure(tmp_path):
    """Writes the configuration of an admin address; the option that names it."""

    def configure(port, token_file="", host="127.0.0.1"):
        token = f", token_file: {token_file}" if token_file else ""
        (tmp_path / "c.yaml").write_text(f"admin: {{host: {host}, port: {port}{token}}}\n")
        return ["--config", str(tmp_path / "c.yaml")]

    return configure


@pytest.fixture
def fleet(process, token_file, configure):
    """A server with a token; the option that leads there."""
    with serving(process, str(token_file)) as port:
        yield configure(port, token_file)


@pytest.fixture
def alone(process, configure):
    """A server without a token; the option that leads there."""
    with serving(process, "") as port:
        yield configure(port)


def run(capsys, *arguments):
    """Exit code, what was printed, and the notes beside it."""
    code = main(list(arguments))
    out, err = capsys.readouterr()
    return code, out.rstrip("\n"), [line.removeprefix("sidecar: ") for line in err.splitlines()]


@pytest.mark.parametrize(
    ("options", "scope", "value"),
    [
        pytest.param(["--route", "chat"], "route", "chat", id="route"),
        pytest.param(["--tag", "ocr"], "tag", "ocr", id="tag"),
        pytest.param(["--service", "openai"], "service", "openai", id="service"),
        pytest.param(["--key", KEY], "key", KEY, id="key"),
        pytest.param(["--request-id", "ab-1"], "request-id", "ab-1", id="request-id"),
        pytest.param(["--partition", KEY], "partition", KEY, id="partition"),
        pytest.param(["--all", "--yes"], "all", "", id="all"),
    ],
)
def test_purge_the_fleet(process, fleet, capsys, options, scope, value):
    """Each scope arrives, with the token, and is told as done everywhere."""
    code, out, notes = run(capsys, "purge", *options, *fleet)

    assert (0, "purged in the whole fleet; 3 entries of this process", []) == (code, out, notes)
    assert [PurgeRequest(scope, value, b"", dry_run=False, fleet=True)] == process.asked


@pytest.mark.parametrize("source", ["file", "-"])
def test_purge_by_a_request(process, fleet, capsys, tmp_path, monkeypatch, source):
    """Its bytes arrive as they are, from a file or standard input."""
    raw = b"POST /openai/v1/x HTTP/1.1\r\n\r\n" + bytes(range(256)) * 300
    (tmp_path / "r.http").write_bytes(raw)
    monkeypatch.setattr("sidecar.cli.main.sys.stdin", SimpleNamespace(buffer=io.BytesIO(raw)))
    code, _, _ = run(capsys, "purge", "--request", source if source == "-" else str(tmp_path / "r.http"), *fleet)

    assert 0 == code
    assert [PurgeRequest("request", "", raw, dry_run=False, fleet=True)] == process.asked


def test_purge_by_a_request_that_is_too_large(process, fleet, capsys, tmp_path):
    """The server's limit comes back as words."""
    (tmp_path / "r.http").write_bytes(bytes(16 * 1024 * 1024 + 1))
    code, out, notes = run(capsys, "purge", "--request", str(tmp_path / "r.http"), *fleet)

    assert (2, "") == (code, out)
    assert notes[0].startswith("refused: this is more than an action takes")
    assert [] == process.asked


def test_erasing(process, fleet, capsys):
    """A receipt: what, by whom, where and when."""
    code, out, notes = run(capsys, "purge", "--key", KEY, "--erase", "--wait", "2m", *fleet)

    assert (0, ["copies"]) == (code, notes)
    assert [
        "Erased: the answer of key 01234567...",
        "Asked for 2026-12-01T08:00:00Z by token 1f2e3d4c from 127.0.0.1; purge 17 in the fleet's log",
        "  pod web-1: 1 entry in memory, confirmed 2026-12-01T08:00:01Z",
        "  Redis: 2 values (3 values were left alone)",
        "Finished 2026-12-01T08:00:02Z: complete",
    ] == out.splitlines()
    assert [(PurgeRequest("key", KEY, b"", dry_run=False, fleet=True), 120.0)] == [
        (asked.purge, asked.wait) for asked in process.asked
    ]


def test_erasing_that_is_not_complete(process, fleet, capsys):
    """Who has not confirmed and what was not reached is named, and the exit code is 1."""
    silent = PodReceipt("web-2 (f01864)", 0, why="gives no sign of life")
    unreached = ErasedPlace("Redis", 0, done=False, note="not reached (open); erase again")
    process.receipt = replace(process.receipt, complete=False, pods=(silent,), places=(unreached,))
    code, out, _ = run(capsys, "purge", "--all", "--yes", "--erase", *fleet)

    assert 1 == code
    assert [
        "  pod web-2 (f01864): 0 entries in memory, NOT CONFIRMED (gives no sign of life)",
        "  Redis: NOT REACHED (not reached (open); erase again)",
        "Finished 2026-12-01T08:00:02Z: NOT COMPLETE",
    ] == out.splitlines()[2:]


def test_erasing_only_counted(process, fleet, capsys):
    """A dry run confirms nothing, and says so."""
    counted = PodReceipt("web-1", 1, why="only counted")
    process.receipt = replace(process.receipt, dry_run=True, position="", pods=(counted,), notes=())
    code, out, _ = run(capsys, "purge", "--all", "--dry-run", "--erase", *fleet)

    assert (0, "Would erase: the answer of key 01234567...") == (code, out.splitlines()[0])
    assert "  pod web-1: 1 entry in memory, counted" in out.splitlines()
    assert out.endswith("Finished 2026-12-01T08:00:02Z: only counted")


@pytest.mark.parametrize("options", [["--wait", "30s"], ["--erase", "--wait", "soon"]], ids=["alone", "no-duration"])
def test_a_wait_that_is_none(process, fleet, capsys, options):
    """It belongs to --erase and is a duration; else nothing is asked."""
    code, _, notes = run(capsys, "purge", "--tag", "ocr", *options, *fleet)

    assert (2, [], ["--wait belongs to --erase, and is a duration, such as 30s or 2m"]) == (code, process.asked, notes)


def test_purge_dry_run(process, fleet, capsys):
    """Only counted, and for that --all needs no leave."""
    process.entries = 1
    code, out, notes = run(capsys, "purge", "--all", "--dry-run", *fleet)

    assert (0, "would purge 1 entry of this process", []) == (code, out, notes)
    assert [True] == [asked.dry_run for asked in process.asked]


@pytest.mark.parametrize(("fate", "note"), [("pending", PENDING), ("local", NO_REDIS)])
def test_purge_that_the_fleet_does_not_know(process, fleet, capsys, fate, note):
    """What was done is told, and what was not, and why."""
    process.fleet = fate
    code, out, notes = run(capsys, "purge", "--tag", "ocr", *fleet)

    assert (0, "purged 3 entries of this process", [note]) == (code, out, notes)


def test_purge_without_a_token(process, alone, capsys):
    """This process alone, and how it would be all."""
    code, out, notes = run(capsys, "purge", "--tag", "ocr", *alone)

    assert (0, "purged 3 entries of this process", [NO_TOKEN]) == (code, out, notes)
    assert [False] == [asked.fleet for asked in process.asked]


@pytest.mark.parametrize("counting", [[], ["--dry-run"]], ids=["purge", "count"])
@pytest.mark.parametrize(
    ("scope", "name", "unknown"),
    [
        ("route", "chatt", "route chatt (did you mean chat?)"),
        ("service", "opnai", "service opnai (did you mean openai?)"),
        ("service", "zzz", "service zzz"),
    ],
    ids=["route", "service", "nothing-near"],
)
def test_a_name_that_the_configuration_does_not_know(process, fleet, capsys, scope, name, unknown, counting):
    """A slip, as a rule: nothing is purged, and what was probably meant is named."""
    code, out, notes = run(capsys, "purge", f"--{scope}", name, *counting, *fleet)

    assert (2, "", []) == (code, out, process.asked)
    told = f"the configuration has no {unknown}; nothing was purged. A former {scope}'s answers are purged with --yes"
    assert [told] == notes


def test_a_former_name(process, fleet, capsys):
    """Entries outlast the route that kept them, and go by its name where somebody insists."""
    code, _, notes = run(capsys, "purge", "--route", "chatt", "--yes", *fleet)

    assert (0, ["the configuration has no route chatt (did you mean chat?)"]) == (code, notes)
    assert ["chatt"] == [asked.value for asked in process.asked]


def test_any_tag(process, fleet, capsys):
    """Callers make up tags, so none is unknown."""
    assert 0 == run(capsys, "purge", "--tag", "chatt", *fleet)[0]
    assert ["chatt"] == [asked.value for asked in process.asked]


def test_what_the_sidecar_refuses(process, fleet, capsys):
    """In its words; exit code 1."""
    process.problem = Refused(404, "unknown-request-id", "no call of that id is known any more; purge by --request")
    code, out, notes = run(capsys, "purge", "--request-id", "x", *fleet)

    assert (1, "", ["refused: no call of that id is known any more; purge by --request"]) == (code, out, notes)


def test_a_wrong_value(fleet, capsys):
    """Told before anything is done."""
    code, _, notes = run(capsys, "purge", "--key", "xyz", *fleet)

    assert (2, ["refused: the value of a key is 32 hexadecimal digits"]) == (code, notes)


def test_a_wrong_token(process, fleet, capsys, configure, tmp_path):
    """Names the file whose token it was, and never the token."""
    other = tmp_path / "other"
    other.write_text("wrong-horse-battery")
    port = (tmp_path / "c.yaml").read_text().partition("port: ")[2].partition(",")[0]
    code, out, notes = run(capsys, "purge", "--tag", "x", *configure(port, other))

    assert (1, "") == (code, out)
    assert [f"the sidecar has another token than {other}; use the file that is mounted there"] == notes
    assert [] == process.asked


def test_no_token_where_one_is_asked_for(fleet, capsys, configure, tmp_path):
    """Names the key that is missing."""
    port = (tmp_path / "c.yaml").read_text().partition("port: ")[2].partition(",")[0]
    code, _, notes = run(capsys, "mode", "normal", *configure(port))

    assert 1 == code
    assert [
        "the sidecar asks for its token; name its file with admin.token_file in the configuration used here"
    ] == notes


def test_a_token_that_cannot_be_read(capsys, configure, tmp_path):
    """Nothing is sent."""
    code, _, notes = run(capsys, "mode", *configure(7490, tmp_path / "none"))

    assert 1 == code
    assert [
        f"there is no token to show: {tmp_path}/none: No such file or directory; run this as who may read the file"
    ] == notes


def test_nothing_listens(capsys, configure):
    """Which address, and what to check."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else has it
        port = taken.getsockname()[1]
        code, out, notes = run(capsys, "purge", "--tag", "x", *configure(port))

    assert (1, "") == (code, out)
    place = f"127.0.0.1:{port}, the admin address of this configuration"
    assert [f"nothing listens on {place}; is the sidecar running, and with the same configuration?"] == notes


def test_any_free_port_is_none(capsys, configure):
    """A port that nobody knows cannot be called."""
    code, _, notes = run(capsys, "mode", *configure(0))

    assert (2, ["admin.port is 0, any free port, so it is not known where to call; give it a number"]) == (code, notes)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 500 No\r\n\r\n{}",
        b"",
    ],
    ids=["another-protocol", "prose", "other-json", "other-error", "hangs-up"],
)
def test_something_else_listens(capsys, configure, answer):
    """Told as such, without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        code, out, notes = run(capsys, "mode", *configure(port))
        thread.join()

    assert (1, "") == (code, out)
    assert 1 == len(notes)
    assert f"127.0.0.1:{port}" in notes[0]
    assert notes[0].endswith("check admin.host and admin.port")


def test_a_listener_on_every_address_is_called_on_this_machine(process, token_file, configure, capsys):
    """0.0.0.0 is nowhere to call."""
    with serving(process, str(token_file)) as port:
        code, out, _ = run(capsys, "mode", *configure(port, token_file, host="0.0.0.0"))

    assert (0, "normal") == (code, out)


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        (ModeResult(Mode.NORMAL, None, "local"), "normal"),
        (ModeResult(Mode.CACHE_OFF, 1800.0, "done"), "cache-off for 30m more"),
        (ModeResult(Mode.CACHE_OFF, 89.6, "done"), "cache-off for 1m 30s more"),
        (ModeResult(Mode.PASSTHROUGH, 7261.0, "done"), "passthrough for 2h 1m more"),
        (ModeResult(Mode.PASSTHROUGH, 0.2, "done"), "passthrough for 0s more"),
        (ModeResult(Mode.PASSTHROUGH, 30 * 86400.0, "done"), "passthrough for 30d more"),
        (ModeResult(Mode.PASSTHROUGH, 50 * 3600.0 + 61.0, "done"), "passthrough for 2d 2h more"),
    ],
    ids=["normal", "minutes", "seconds", "hours", "ending", "a month", "days"],
)
def test_show_the_mode(process, alone, capsys, standing, expected):
    """In force, and how much longer."""
    process.standing = standing
    code, out, notes = run(capsys, "mode", *alone)

    assert (0, expected, []) == (code, out, notes)
    assert [] == process.asked


@pytest.mark.parametrize(
    ("fate", "options", "out", "notes"),
    [
        pytest.param("done", ["normal"], "normal in the whole fleet", [], id="normal"),
        pytest.param(
            "done", ["cache-off", "--for", "30m"], "cache-off for 30m more in the whole fleet", [], id="lasting"
        ),
        pytest.param("pending", ["passthrough"], "passthrough in this process", [PENDING], id="pending"),
        pytest.param("local", ["normal"], "normal in this process", [NO_REDIS], id="no-redis"),
    ],
)
def test_change_the_mode(process, fleet, capsys, fate, options, out, notes):
    """With its end, and as far as the fleet knows."""
    process.fleet = fate

    assert (0, out, notes) == run(capsys, "mode", *options, *fleet)
    assert [(Mode(options[0]), 1800.0 if "--for" in options else None, True)] == [
        (asked.mode, asked.seconds, asked.fleet) for asked in process.asked
    ]


def test_change_the_mode_of_this_process(process, alone, capsys):
    """Without a token, as with a purge."""
    assert (0, "cache-off in this process", [NO_TOKEN]) == run(capsys, "mode", "cache-off", *alone)
    assert [False] == [asked.fleet for asked in process.asked]


def test_show_the_regions(process, alone, capsys):
    """A line each under a line of names; as many words in each, whatever there is to tell."""
    process.table = [
        standing("us", priority=1, weight=3, residency="us", share=0.1, latency=0.8123),
        standing("eu", state="open", seconds=4.2, share=0.0, windows=2, window_seconds=59.0, exhausted=1),
        standing("asia", state="open", share=0.0, order="stop", order_seconds=1799.6),
        standing("any", resource="contoso", order="force"),
    ]
    code, out, notes = run(capsys, "region", "ls", *alone)
    lines = out.splitlines()

    assert (0, [], []) == (code, notes, process.asked)
    assert [
        [
            "SERVICE",
            "REGION",
            "PRIORITY",
            "WEIGHT",
            "RESIDENCY",
            "STATE",
            "SHARE",
            "UNTIL",
            "ORDER",
            "WINDOWS",
            "EXHAUSTED",
            "LATENCY",
        ],
        ["openai", "us", "1", "3", "us", "closed", "10%", "-", "-", "-", "-", "0.812s"],
        ["openai", "eu", "1", "1", "-", "open", "0%", "4s", "-", "2:59s", "1", "-"],
        ["openai", "asia", "1", "1", "-", "open", "0%", "-", "stop:30m", "-", "-", "-"],
        ["openai/contoso", "any", "1", "1", "-", "closed", "100%", "-", "force", "-", "-", "-"],
    ] == [line.split() for line in lines]
    column = lines[0].index("STATE")
    assert [True] * 4 == [line[column:].startswith(("open", "closed")) for line in lines[1:]]
    assert [] == [line for line in lines if line != line.rstrip()]


def test_show_no_regions(process, alone, capsys):
    """The names of the columns, for who reads them by name."""
    process.table = []
    code, out, _ = run(capsys, "region", "ls", *alone)

    assert (0, 1) == (code, len(out.splitlines()))


@pytest.mark.parametrize(
    ("options", "table", "asked", "out"),
    [
        pytest.param(
            ["stop", "openai", "us", "--for", "30m"],
            [standing("us", state="open", share=0.0, order="stop", order_seconds=1800.0)],
            ("stop", 1800.0),
            "openai us: open, by order stop for 30m more; in the whole fleet",
            id="stop",
        ),
        pytest.param(
            ["force", "openai", "us"],
            [standing("us", order="force")],
            ("force", None),
            "openai us: closed, by order force; in the whole fleet",
            id="force",
        ),
        pytest.param(
            ["auto", "openai", "us"],
            [standing("us", state="half-open"), standing("us", resource="b"), standing("us", resource="c")],
            ("auto", None),
            "openai us: closed, half-open; in the whole fleet",
            id="auto",
        ),
        pytest.param(
            ["stop", "openai", "us"],
            [],
            ("stop", None),
            "openai us: not called yet; in the whole fleet",
            id="not-called",
        ),
    ],
)
def test_order_a_region(process, fleet, capsys, options, table, asked, out):
    """It arrives with the token, and how the region stands then is told."""
    process.table = table

    assert (0, out, []) == run(capsys, "region", *options, *fleet)
    assert [RegionRequest("openai", "us", *asked, fleet=True)] == process.asked


@pytest.mark.parametrize(("former", "word"), [("open", "stop"), ("close", "force")])
def test_order_a_region_in_a_former_word(process, fleet, capsys, former, word):
    """What the last version called it is done, and the new word is told."""
    process.table = [standing("us", order=word)]
    code, out, notes = run(capsys, "region", former, "openai", "us", "--for", "30m", *fleet)

    assert (0, f"openai us: closed, by order {word}; in the whole fleet") == (code, out)
    assert [f"`region {former}` is called `region {word}` now; the next version does not know the old word"] == notes
    assert [RegionRequest("openai", "us", word, 1800.0, fleet=True)] == process.asked


@pytest.mark.parametrize(("served", "note"), [("fleet", NO_REDIS), ("alone", NO_TOKEN)])
def test_order_a_region_of_this_process(process, capsys, request, served, note):
    """As far as the fleet knows, and why no farther."""
    process.fleet = "local"
    process.table = [standing("us", order="force")]
    option = request.getfixturevalue(served)

    told = "openai us: closed, by order force; in this process"
    assert (0, told, [note]) == run(capsys, "region", "force", "openai", "us", *option)


def test_order_that_redis_will_not_have(process, fleet, capsys):
    """What is missing is named, and no other reason."""
    process.fleet, process.why = "local", "Redis forbids TIME to this user; grant +time"
    process.table = [standing("us", order="force")]

    assert (
        0,
        "openai us: closed, by order force; in this process",
        ["this process only: Redis forbids TIME to this user; grant +time"],
    ) == run(capsys, "region", "force", "openai", "us", *fleet)


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (Refused(404, "unknown-service", "there is no service opnai; did you mean openai?"), 2),
        (Refused(404, "unknown-region", "openai has no region uss; did you mean us?"), 2),
        (Refused(503, "fleet-away", "Redis does not answer; try again"), 1),
    ],
    ids=["service", "region", "away"],
)
def test_order_that_is_refused(process, fleet, capsys, problem, code):
    """In the sidecar's words; a slip is wrong usage."""
    process.problem = problem

    assert (code, "", [f"refused: {problem.message}"]) == run(capsys, "region", "stop", "opnai", "uss", *fleet)


def test_regions_where_nothing_listens(capsys, configure):
    """As every command that calls a sidecar."""
    codes = [run(capsys, "region", *words, *configure(0))[0] for words in (["ls"], ["stop", "a", "b"])]

    assert [2, 2] == codes


@pytest.mark.parametrize(
    ("command", "end"),
    [(["mode"], "until it is changed again"), (["region", "stop"], "until `auto` ends it")],
    ids=["mode", "region"],
)
def test_help_tells_the_end(capsys, command, end):
    """What holds without ``--for`` ends by itself in the fleet, and in a single process only where somebody ends it."""
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    text = " ".join(capsys.readouterr().out.split())

    assert f"without: 30d in the fleet, and in a single process {end}" in text
