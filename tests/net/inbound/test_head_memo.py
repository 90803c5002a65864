"""Heads that are remembered: what they answer, the strict reader alone would have accepted, with the same plan."""

import asyncio
import re
from collections import defaultdict
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.memory_budget import Ledger
from sidecar.core.rules import Limits
from sidecar.errors import Refused
from sidecar.net.base import Admission, Response
from sidecar.net.inbound.connection import CallerConnection
from sidecar.net.inbound.head_memo import LONGEST_BODY, LONGEST_HEAD, REMEMBERED, STRAYS, HeadMemo
from sidecar.net.inbound.parser import RequestParser
from sidecar.net.inbound.shared import ListenerState


@pytest.fixture(autouse=True, params=[1, STRAYS])
def _strays(request, monkeypatch):
    """Openings as they are chosen in service, and chosen anew by each head that begins in another way."""
    monkeypatch.setattr("sidecar.net.inbound.head_memo.STRAYS", request.param)


TELLS = frozenset({b"authorization", b"cache-control", b"x-team"})
TELLING = defaultdict(bool, dict.fromkeys(TELLS, True))
PORT = 7400

LINES = (
    b"POST /a HTTP/1.1",
    b"Host: h",
    b"Authorization: Bearer a",
    b"Content-Type: application/json",
    b"User-Agent: u",
    b"Content-Length: 3",
)
BODY = b"abc"


def request(*lines: bytes, body: bytes = BODY) -> bytes:
    return b"\r\n".join(lines or LINES) + b"\r\n\r\n" + body


def put(*lines: bytes, at: int = len(LINES)) -> bytes:
    """The usual request with *lines* put in before its line *at*."""
    return request(*LINES[:at], *lines, *LINES[at:])


def swap(at: int, *lines: bytes, body: bytes = BODY) -> bytes:
    """The usual request with *lines* in place of its line *at*."""
    return request(*LINES[:at], *lines, *LINES[at + 1 :], body=body)


class Tape:
    """A transport that keeps what is written to it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.written = b""
        self.closing = False
        self.reading = True

    def get_extra_info(self, name: str) -> object:
        return ("127.0.0.1", self.port) if name == "sockname" else None

    def set_write_buffer_limits(self, high: int) -> None:
        del high

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, parts: tuple[bytes, ...]) -> None:
        self.written += b"".join(parts)

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.closing = True

    def write_eof(self) -> None:
        self.closing = True

    abort = close


class Echo:
    """A line whose plan is all that it reads of a head, and whose answer is what it was asked, all of it."""

    deciding_fields = TELLING

    def __init__(self) -> None:
        self.handed: list[tuple] = []
        self.tried = 0

    def admit(self, head):
        told = [(name, head.fields.get(name)) for name in sorted({*TELLS, b"host", b"content-type", b"connection"})]
        if b"refuse" in head.fields.get(b"x-team", b""):
            raise Refused(403, "not-you", "No.")
        collect = b"stream" not in head.fields.get(b"x-team", b"")
        return Admission(collect, (head.method, head.target, head.port, head.minor, collect, *told))

    def answer(self, request):
        return self._echo(request.plan, request.body if isinstance(request.body, bytes) else b"a stream")

    def try_hit(self, plan, body):
        self.tried += 1
        return self._echo(plan, body)

    def refuse(self, head, error):
        del head
        return Response(error.status, b"content-length: 0\r\n", b"", close=error.close)

    def _echo(self, plan, body):
        self.handed.append((plan, body))
        said = repr((plan, body)).encode()
        return Response(200, b"content-length: %d\r\n" % len(said), said)


class Front:
    """Connections of one listener, one for each port at a time; *strict* never takes a head for familiar."""

    def __init__(self, limits: Limits, *, strict: bool) -> None:
        self.app = Echo()
        self.tapes: list[Tape] = []
        self._open: dict[int, CallerConnection] = {}
        self._shared = ListenerState(
            self.app, limits, Ledger(1 << 20), spawn=None, spools=None, report=self._fail,
            came=lambda _: None, gone=lambda _: None,
        )  # fmt: skip
        if strict:
            self._shared.head_memo.find = lambda *_: None

    async def read(self, data: bytes, port: int = PORT) -> None:
        """One read of the connection to *port*; a new one, where the last is over."""
        connection = self._open.get(port)
        if connection is None or connection._transport.is_closing():
            self.tapes.append(Tape(port))
            connection = self._open[port] = CallerConnection(self._shared)
            connection.connection_made(self.tapes[-1])
        connection.data_received(data)
        await asyncio.sleep(0)  # pieces past the first 64 are read on in a turn of their own
        await asyncio.sleep(0)

    def seen(self) -> tuple:
        """All that callers and the line got to see."""
        return [(tape.written, tape.closing) for tape in self.tapes], self.app.handed

    @staticmethod
    def _fail(error: BaseException) -> None:
        raise error


async def both(reads: list[tuple[bytes, int]], limits: Limits | None = None) -> int:
    """Assert that *reads* mean the same with familiar heads as without; how many requests were recalled."""
    head_memo, strict = (Front(limits or Limits(), strict=strict) for strict in (False, True))
    for data, port in reads:
        await head_memo.read(data, port)
        await strict.read(data, port)

        assert strict.seen() == head_memo.seen()
    return head_memo.app.tried


RECALLED = {
    "the same": (request(), request()),
    "another body": (request(), swap(5, b"Content-Length: 5", body=b"other")),
    "no body": (request(), swap(5, b"Content-Length: 0", body=b"")),
    "length in lower case": (request(), swap(5, b"content-length:3")),
    "new noise": (request(), put(b"traceparent: 00-1", at=1)),
    "noise with odd bytes": (request(), put(b"x-noise:\t\xc3\xa4 \xff \t")),
    "empty noise": (request(), put(b"X:")),
    "noise twice": (request(), put(b"X-B: 1", b"X-B: 2")),
    "body that is a request": (request(), swap(5, b"Content-Length: %d" % len(request()), body=request())),
    "less noise": (request(), request(*LINES[:4], LINES[5])),
    "noise elsewhere": (request(), request(*LINES[:1], *LINES[4:], *LINES[1:4])),
    "joined telling": (put(b"X-Team: a", b"X-Team: b"), put(b"X-Team: a", b"x: y", b"X-Team: b")),
    "absolute target": (swap(0, b"POST http://h/a HTTP/1.1"), swap(0, b"POST http://h/a HTTP/1.1")),
    "h2c offered": (put(b"Connection: Upgrade", b"Upgrade: h2c"), put(b"Connection: Upgrade", b"Upgrade: h2c")),
    "longest body": (
        request(),
        swap(5, b"Content-Length: %d" % LONGEST_BODY, body=bytes(LONGEST_BODY)),
    ),
    "learnt with a body that came later": (swap(5, b"Content-Length: 3"), request()),
}


@pytest.mark.parametrize(("learnt", "sent"), RECALLED.values(), ids=RECALLED)
async def test_recalled(learnt, sent):
    """What differs in nothing that tells is recalled, and answered as the strict reader would have it."""

    assert 1 == await both([(learnt, PORT), (sent, PORT)])


ODD = {
    "another credential": swap(2, b"Authorization: Bearer b"),
    "longer credential": swap(2, b"Authorization: Bearer aa"),
    "credential, one space more": swap(2, b"Authorization:  Bearer a"),
    "credential, space at the end": swap(2, b"Authorization: Bearer a "),
    "credential, name in lower case": swap(2, b"authorization: Bearer a"),
    "credential twice": put(b"Authorization: Bearer a"),
    "two credentials": put(b"Authorization: Bearer b"),
    "no credential": request(*LINES[:2], *LINES[3:]),
    "empty credential": swap(2, b"Authorization:"),
    "folded credential": put(b" b", at=3),
    "folded by a tab": put(b"\tb", at=3),
    "host twice": put(b"Host: h"),
    "another host": swap(1, b"Host: i"),
    "no host": request(LINES[0], *LINES[2:]),
    "telling added": put(b"X-Team: t"),
    "telling added, in capitals": put(b"X-TEAM: t"),
    "telling added, empty": put(b"x-team:"),
    "telling with blank": put(b"x-team : t"),
    "telling refused": put(b"X-Team: refuse"),
    "telling twice": put(b"X-Team: a", b"X-Team: b"),
    "telling twice, turned": put(b"X-Team: b", b"X-Team: a"),
    "streaming": put(b"X-Team: stream"),
    "no cache": put(b"Cache-Control: no-store"),
    "telling in another order": request(LINES[0], LINES[2], LINES[1], *LINES[3:]),
    "content type twice": put(b"content-type: application/json"),
    "another content type": swap(3, b"Content-Type: text/plain"),
    "content encoding": put(b"Content-Encoding: gzip"),
    "keep-alive": put(b"Connection: keep-alive"),
    "close": put(b"Connection: close"),
    "close, in a list": put(b"Connection: x, CLOSE"),
    "connection names telling": put(b"Connection: x-team"),
    "proxy connection": put(b"Proxy-Connection: close"),
    "upgrade": put(b"Upgrade: websocket"),
    "switch": put(b"Connection: Upgrade", b"Upgrade: websocket"),
    "h2c": put(b"Connection: Upgrade", b"Upgrade: h2c"),
    "expect": put(b"Expect: 100-continue"),
    "expect tea": put(b"Expect: tea"),
    "te": put(b"TE: trailers"),
    "chunked": swap(5, b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"),
    "chunked with length": put(b"Transfer-Encoding: chunked"),
    "chunked, as noise": put(b"Transfer-Encoding : chunked"),
    "no length": request(*LINES[:5]),
    "length with plus": swap(5, b"Content-Length: +3"),
    "length with zero": swap(5, b"Content-Length: 03"),
    "length and space": swap(5, b"Content-Length: 3 "),
    "length after two spaces": swap(5, b"Content-Length:  3"),
    "length after a tab": swap(5, b"Content-Length:\t3"),
    "length in capitals": swap(5, b"CONTENT-LENGTH: 3"),
    "list of lengths": swap(5, b"Content-Length: 3, 3"),
    "length in hex": swap(5, b"Content-Length: 0x3"),
    "empty length": swap(5, b"Content-Length:"),
    "two equal lengths": put(b"Content-Length: 3"),
    "two lengths": put(b"Content-Length: 0"),
    "two lengths, one odd": put(b"Content-Length:  3"),
    "two lengths, the other odd": put(b"Content-Length:  1"),
    "no length, empty": swap(5, b"Content-Length: 0", body=b""),
    "zero with a body": swap(5, b"Content-Length: 0"),
    "body too short": swap(5, b"Content-Length: 3", body=b"ab"),
    "body too long": swap(5, b"Content-Length: 3", body=b"abcd"),
    "body and request": request() + request(),
    "body and half a request": request() + request()[:20],
    "http/1.0": swap(0, b"POST /a HTTP/1.0"),
    "http/1.0, kept": request(b"POST /a HTTP/1.0", *LINES[1:5], b"Connection: keep-alive", LINES[5]),
    "http/1.2": swap(0, b"POST /a HTTP/1.2"),
    "lower-case method": swap(0, b"post /a HTTP/1.1"),
    "get": swap(0, b"GET /a HTTP/1.1"),
    "put": swap(0, b"PUT /a HTTP/1.1"),
    "another target": swap(0, b"POST /b HTTP/1.1"),
    "two spaces": swap(0, b"POST  /a HTTP/1.1"),
    "space after": swap(0, b"POST /a HTTP/1.1 "),
    "absolute": swap(0, b"POST http://h/a HTTP/1.1"),
    "absolute, another": swap(0, b"POST http://i/a HTTP/1.1"),
    "empty line before": b"\r\n" + request(),
    "two empty lines before": b"\r\n\r\n" + request(),
    "lf before": b"\n" + request(),
    "cr before": b"\r" + request(),
    "noise before": put(b"X: y", at=0),
    "known noise before": put(LINES[4], at=0),
    "length before": request(LINES[5], *LINES[:5]),
    "host before": request(LINES[1], LINES[0], *LINES[2:]),
    "request line twice": put(LINES[0], at=1),
    "request line as noise": put(b"POST /a HTTP/1.1: x"),
    "no request line": request(*LINES[1:]),
    "empty name": put(b": x"),
    "no colon": put(b"x-noise"),
    "noise with nul": put(b"x: a\0b"),
    "noise with control": put(b"x: a\x01b"),
    "noise with delete": put(b"x: a\x7fb"),
    "noise with cr": put(b"x: a\rAuthorization: Bearer b"),
    "noise with lf": put(b"x: a\nAuthorization: Bearer b"),
    "noise with crcrlf": put(b"x: a\r", b"x: b"),
    "noise ended by lf": request().replace(b"u\r\n", b"u\n"),
    "head ended by lf": request().replace(b"3\r\n\r\n", b"3\n\n"),
    "head ended by lf, then more": request(*LINES, b"x: y\n\nabc", body=b""),
    "folded noise": put(b"x: a", b" b"),
    "name with blank": put(b"x y: a"),
    "name with blank before": put(b" x: a"),
    "name with paren": put(b"x(y): a"),
    "name with raw byte": put(b"x\xe4: a"),
    "length in underscores": put(b"content_length: 3"),
    "length in underscores, in capitals": put(b"CONTENT_LENGTH: 3"),
    "length with a dot": put(b"Content.Length: 3"),
    "coding in underscores": put(b"Transfer_Encoding: chunked"),
    "coding with a blank": put(b"Transfer Encoding: chunked"),
    "longest head": put(b"x: " + b"y" * LONGEST_HEAD),
    "body above": swap(5, b"Content-Length: 65536", body=bytes(65536)),
}


@pytest.mark.parametrize("sent", ODD.values(), ids=ODD)
async def test_not_recalled(sent):
    """
    What is not clearly like the usual request, though it may mean the same, goes the ordinary way. Nor does it teach
    anything by which the usual request would be answered otherwise.
    """
    tried = await both([(request(), PORT), (sent, PORT)])

    assert (sent == ODD["no length, empty"]) == tried
    await both([(sent, PORT), (request(), PORT), (sent, PORT)])


async def test_every_pair():
    """Whatever was learnt from one request, and whatever was seen before that, another is never taken for it."""
    limits, usual = Limits(headers=2048, collect=2048), request()
    deciding_fields = []
    for raw in ODD.values():
        front = Front(limits, strict=False)
        await front.read(raw)
        if front._shared.head_memo._marks:
            deciding_fields.append(raw)

    assert len(deciding_fields) > 20
    for first, second in product(deciding_fields, ODD.values()):
        await both([(usual, PORT), (first, PORT), (second, PORT)], limits)


@pytest.mark.parametrize("limits", [Limits(headers=100), Limits(collect=2)], ids=["headers", "collect"])
async def test_limits_hold(limits):
    """What is too large for the strict reader is too large."""
    lines = (*LINES[:2], LINES[5])
    small = request(*LINES[:2], b"Content-Length: 2", body=b"ab")

    assert 1 == await both([(small, PORT), (small, PORT)], limits)
    await both([(small, PORT), (request(*lines, b"x: %b" % (b"y" * 80)), PORT)], limits)
    await both([(small, PORT), (request(*lines), PORT)], limits)


async def test_ports_are_apart():
    """A plan belongs to the port its head came to."""

    assert 0 == await both([(request(), PORT), (request(), PORT + 1)])
    assert 2 == await both([(request(), port) for port in (PORT, PORT + 1, PORT, PORT + 1)])


def opened(*heads):
    """What has learnt the usual head, and then those that were found: their opening is chosen."""
    head_memo = HeadMemo(TELLING, Limits())
    head_memo.learn(request(body=b""), PORT, "plan")
    for head in (request(), *heads):
        assert head_memo.find(head, PORT) == ("plan", BODY)
    return head_memo


def test_opening_stops_before_the_last_line():
    """A head that is sent again byte for byte is found by its opening and its last line."""
    head_memo = opened(request(), request())

    assert request(*LINES[:-1], body=b"")[:-2] == head_memo._opening
    assert [mark for line in LINES[:-1] if (mark := head_memo._marks[line])] == head_memo._opening_numbers


def test_opening_is_what_heads_share():
    """Lines that differ from head to head end the opening, once enough heads have strayed from it."""
    strays = [put(b"x-trace: %d" % number, at=3) for number in range(STRAYS + 2)]
    head_memo = opened(*strays)

    assert head_memo._opening == b"".join([line + b"\r\n" for line in LINES[:3]])
    assert head_memo.find(put(b"x-trace: another", at=3), PORT) == ("plan", BODY)
    assert head_memo.find(put(b"authorization: Bearer b", at=3), PORT) is None


def test_opening_gives_way_to_other_clients():
    """An opening that few heads share any longer is replaced, not worn down to nothing."""
    other = request(LINES[0], LINES[5], *LINES[1:5])
    head_memo = opened()
    head_memo.learn(other[: -len(BODY)], PORT, "other")
    for _ in range(STRAYS + 1):
        assert head_memo.find(other, PORT) is not None

    assert request(LINES[0], LINES[5], *LINES[1:4], body=b"")[:-2] == head_memo._opening


@pytest.mark.parametrize(
    ("tail", "found"),
    [
        (b"Content-Length: 3\r\n\r\nabc", True),
        (b"Content-Length: 3\r\nx: y\r\n\r\nabc", True),
        (b"x: y\r\nContent-Length: 3\r\n\r\nabc", True),
        (b"Content-Length: 3\r\ncontent-length: 3\r\n\r\nabc", False),
        (b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", False),
        (b"Content-Length: 4\r\n\r\nabc", False),
        (b"Authorization: Bearer a\r\nContent-Length: 3\r\n\r\nabc", False),
        (b"\r\nContent-Length: 3\r\n\r\nabc", False),
        (b"\r\nx: y\r\nContent-Length: 3\r\n\r\nabc", False),
        (b"\r\n", False),
        (b"\r\n\r\n", False),
        (b" folded\r\nContent-Length: 3\r\n\r\nabc", False),
        (b"", False),
    ],
)
def test_after_an_opening(tail, found):
    """What follows an opening is judged as if the whole head had been."""

    assert found == (opened().find(request(*LINES[:-1], body=b"")[:-2] + tail, PORT) is not None)


def test_a_head_that_is_an_opening_and_no_more():
    """Lines that open a longer head may be another head."""
    head_memo = HeadMemo(TELLING, Limits())
    short = request(*LINES[:2], LINES[5])
    long = request(*LINES[:2], LINES[5], b"x: a")
    head_memo.learn(short[: -len(BODY)], PORT, "plan")
    head_memo.learn(long[: -len(BODY)], PORT, "plan")

    assert [("plan", BODY)] * 3 == [head_memo.find(head, PORT) for head in (long, long, short)]


def test_a_length_within_the_opening():
    """It says how long the body is, wherever it stands."""
    head_memo = HeadMemo(TELLING, Limits())
    lines = (LINES[0], LINES[5], *LINES[1:5])
    head_memo.learn(request(*lines, body=b""), PORT, "plan")
    head_memo.find(request(*lines), PORT)

    assert b"Content-Length: 3" in head_memo._opening
    assert head_memo.find(request(*lines), PORT) == ("plan", BODY)
    assert head_memo.find(request(*lines, body=b"abcd"), PORT) is None
    assert head_memo.find(request(*lines[:-1], LINES[5], lines[-1]), PORT) is None


POOL = [*LINES, *{line for raw in ODD.values() if len(raw) < 2048 for line in raw.split(b"\r\n")[:9]}]


@st.composite
def requests(draw):
    """A request that is like the usual one but for a few lines, and its body like what was said but for a few bytes."""
    lines = list(LINES)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(lines)))
        match draw(st.sampled_from(["put", "drop", "swap", "case", "turn"])):
            case "put":
                lines.insert(at, draw(st.sampled_from(POOL)))
            case "drop":
                del lines[at : at + 1]
            case "swap":
                lines[at : at + 1] = [draw(st.sampled_from(POOL))]
            case "case":
                lines[at : at + 1] = [line.swapcase() for line in lines[at : at + 1]]
            case "turn":
                lines[at : at + 2] = reversed(lines[at : at + 2])
    body = draw(st.sampled_from([BODY] * 5 + [b"", b"ab", b"abcd", b"abc\r\n\r\n", request()]))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@given(
    st.lists(st.tuples(st.one_of(st.just(request()), requests(), st.sampled_from(list(ODD.values()))),
                       st.sampled_from([PORT, PORT, PORT + 1])), min_size=2, max_size=8),
    st.lists(st.integers(0, 400), max_size=3),
    st.sampled_from([Limits(), Limits(headers=150, collect=40)]),
)  # fmt: skip
def test_any_sequence(sent, cuts, limits):
    """Any requests in any order, some in parts or several at once: the same with familiar heads and without."""
    reads = []
    for at, (data, port) in enumerate(sent):
        edge = cuts[at] if at < len(cuts) else 0
        reads += [(part, port) for part in (data[:edge], data[edge:]) if part]
    asyncio.run(both(reads, limits))


@pytest.mark.parametrize("where", ["in a name", "first in a name", "in a value"])
def test_every_byte(where):
    """A new line that is passed over is one that the strict reader takes."""
    head_memo = HeadMemo(TELLING, Limits())
    head_memo.learn(request(body=b""), PORT, "plan")
    passed = 0
    for byte in (bytes([number]) for number in range(256)):
        line = {"in a name": b"x%by: z", "first in a name": b"%bx: z", "in a value": b"x: y%bz"}[where] % byte
        if head_memo.find(put(line), PORT) is None:
            continue
        passed += 1
        reader = RequestParser(Limits(), PORT)
        reader.feed(put(line), 0)

        assert len(LINES) == len(reader.head.pairs)
        assert line.split(b":", 1)[0] in dict(reader.head.pairs)
        assert re.split(rb": ?", line, maxsplit=1)[1].rstrip() in dict(reader.head.pairs).values()
    assert passed > 70


NOT_LEARNT = {
    name: ODD[name]
    for name in (
        "telling refused", "close", "close, in a list", "expect", "chunked", "no length", "http/1.0",
        "http/1.0, kept", "get", "put", "no length, empty", "length with zero", "length after two spaces",
        "length in capitals", "empty line before", "two empty lines before", "no host", "host twice", "longest head",
    )
}  # fmt: skip


@pytest.mark.parametrize("sent", NOT_LEARNT.values(), ids=NOT_LEARNT)
async def test_not_learnt(sent):
    """Heads that were refused, or are of requests that are never recalled, are not remembered."""
    front = Front(Limits(), strict=False)
    await front.read(sent)

    assert {} == front._shared.head_memo._heads


async def test_head_in_parts_is_not_learnt():
    """Only a head that came in one read is remembered; one that follows another request in its read may be."""
    front = Front(Limits(), strict=False)
    await front.read(request()[:30])
    await front.read(request()[30:])

    assert {} == front._shared.head_memo._heads
    await front.read(swap(0, b"GET /a HTTP/1.1") + swap(0, b"POST /b HTTP/1.1"))
    (plan,) = front._shared.head_memo._heads.values()
    assert b"/b" == plan.admission.plan[1]


def _sizes(head_memo):
    return len(head_memo._marks), len(head_memo._heads), head_memo._weight


@pytest.mark.parametrize("name", [b"Authorization", b"traceparent"])
def test_memory_is_bounded(name):
    """However many credentials or trace ids come, what is remembered stays within its bounds."""
    head_memo = HeadMemo(TELLING, Limits())
    filler = b"y" * 6000
    for number in range(1500):
        line = b"%b: %d %b" % (name, number, filler)
        head_memo.learn(request(*LINES[:2], line, LINES[5], body=b""), PORT, number)
        held = sum(map(len, head_memo._marks)) + sum(len(key) * 8 for key in head_memo._heads)

        assert held <= head_memo._weight <= REMEMBERED + 5 * LONGEST_HEAD
    assert not any(b": 0 " in line for line in head_memo._marks)
    assert (1499, BODY) == head_memo.find(request(*LINES[:2], line, LINES[5]), PORT)


def test_orders_of_known_lines_are_bounded():
    """The same few lines in ever another order fill no memory either."""
    head_memo = HeadMemo(TELLING, Limits())
    lines = [b"X-Team: a", b"X-Team: b"]
    most = 0
    for number in range(4000):
        order = [lines[number >> bit & 1] for bit in range(12)]
        head_memo.learn(request(*LINES[:2], *order, LINES[5], body=b""), PORT, number)
        most = max(most, _sizes(head_memo)[1])

    assert most <= REMEMBERED // 1536
    assert most > _sizes(head_memo)[1]


def test_the_known_costs_nothing():
    """What is learnt again weighs nothing more, and its plan is the latest."""
    head_memo = HeadMemo(TELLING, Limits())
    head_memo.learn(request(body=b""), PORT, "plan")
    before = _sizes(head_memo)
    head_memo.learn(request(body=b""), PORT, "later")

    assert before == _sizes(head_memo)
    assert ("later", BODY) == head_memo.find(request(), PORT)
    assert repr(head_memo).startswith("<HeadMemo 1 heads, 6 lines, ")
