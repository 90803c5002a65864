"""
The rows about documents: what a large upload costs in memory and in time, in each of its forms.

The rule: documents are random bytes, so nothing about them is known beforehand. Times are compared with those of the
bare relay, which forwards the same bytes to the same stand-in, round by round.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import product
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from tests.bench.lab import Lab, Pace, Row, Sidecar, at, spread
from tests.bench.load import Caller
from tests.bench.machine import LOAD_CORE, SERVER_CORE, free_port, on_core

MIB = 1024 * 1024

LARGE, HUGE_RISE = 300 * MIB, 32
"""Bytes of the large document, and how much resident memory may grow for it, MiB."""

MANY, MEDIUM, INFLIGHT = 200, 5 * MIB, 32 * MIB
"""Uploads at once, bytes of each, and ``limits.inflight_memory``."""

HASHED, MOST_HASHING = {16 * MIB: 25, 64 * MIB: 9}, 1.3
"""
Bytes of the documents that are hashed, with the rounds for each, and the bar: hashing one to what a bare relay takes
for it. The first fits into memory, as every one does at the relay; the other goes to disk.
"""

STALLING, AT_ONCE, LONGEST_STALL_MS = (16 * MIB, 64 * MIB, LARGE), 4, 20
"""Bytes of documents that are sent at once, how many at once, and how long the loop may stand still, ms."""

_PATH = "/documentintelligence/documentModels/prebuilt-read:analyze?api-version=2024-11-30"
_PIECE = 3 * 256 * 1024
_BOUNDARY = "bench-boundary"


@dataclass(frozen=True, slots=True)
class Upload:
    """A document of *size* bytes in one *form*. *seed*, 1 to 255: which document it is."""

    form: str
    size: int
    seed: int = 1

    @property
    def media(self) -> str:
        """Its content type."""
        kinds = {"bytes": "application/pdf", "base64": "application/json"}
        return kinds.get(self.form, f"multipart/form-data; boundary={_BOUNDARY}")

    def around(self) -> tuple[bytes, bytes]:
        """What stands before and after the document."""
        if self.form == "base64":
            return b'{"base64Source": "', b'"}'
        if self.form == "multipart":
            head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="f"; filename="a.pdf"\r\n\r\n'
            return head.encode(), f"\r\n--{_BOUNDARY}--\r\n".encode()
        return b"", b""

    def pieces(self) -> Iterator[bytes]:
        """The body."""
        before, after = self.around()
        yield before
        piece = (_NOISE * 2)[self.seed * 1024 :][:_PIECE]
        left = self.size
        while left > 0:
            part = piece[:left]
            yield base64.b64encode(part) if self.form == "base64" else part
            left -= len(part)
        yield after

    def length(self) -> int:
        """Bytes of the body."""
        before, after = self.around()
        return len(before) + len(after) + (4 * -(-self.size // 3) if self.form == "base64" else self.size)


FORMS = ("bytes", "base64", "multipart")
_NOISE = os.urandom(_PIECE)


def send(port: int, upload: Upload, pieces: Sequence[bytes] | None = None) -> tuple[float, dict[str, str]]:
    """Send an upload; seconds from its first byte to the answer's head, and the fields of that."""
    head = (
        f"POST {_PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOcp-Apim-Subscription-Key: bench\r\n"
        f"Content-Type: {upload.media}\r\nContent-Length: {upload.length()}\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        began = time.perf_counter()
        connection.sendall(head)
        for piece in upload.pieces() if pieces is None else pieces:
            connection.sendall(piece)
        answer = b""
        while b"\r\n\r\n" not in answer:
            if not (received := connection.recv(65536)):
                raise RuntimeError("the connection broke")
            answer += received
        seconds = time.perf_counter() - began
    status, *lines = answer.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    if " 202 " not in status:
        raise RuntimeError(f"{status} instead of 202 for {upload}")
    return seconds, {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


class DocumentSite(AbstractContextManager["DocumentSite"]):
    """
    A sidecar with a service of documents at *port*, before a stand-in at *upstream* that keeps no bodies. *inside* as
    for ``Sidecar``.
    """

    def __init__(self, lab: Lab, inside: tuple[str, Path] | None = None) -> None:
        self.port, self.upstream = free_port(), free_port()
        self._analyses = lab.program("analyses", LOAD_CORE, self.upstream)
        documents = f"{{dialect: azure-documents, port: {self.port}, regions: [{at('here', self.upstream)}]}}"
        more = f"limits: {{inflight_memory: {INFLIGHT // MIB}Mi}}"
        service = f"\n  documents: {documents}"
        self.sidecar = Sidecar(lab.folder(), lab.upstream_port, inside, service=service, more=more)

    def __exit__(self, kind: object, *_: object) -> None:
        self.sidecar.__exit__(kind)
        self._analyses.stop()

    def analysed(self) -> int:
        """How many uploads have reached the service."""
        with Caller(self.upstream) as caller:
            return int(caller.get("/count"))

    def fetch(self, answer: Mapping[str, str]) -> bool:
        """Whether the operation that *answer* has begun succeeds."""
        address = urlsplit(answer["operation-location"])
        for _ in range(60):
            status, body = _get(self.port, f"{address.path}?{address.query}")
            if status == 200 and json.loads(body)["status"] == "succeeded":
                return True
            if status != 200:
                return False
        return False


def large(lab: Lab, pace: Pace) -> list[Row]:
    """A document of 300 MB, once in each form: by how much it raises resident memory, and that it is one document."""
    size = LARGE // 4 if pace.quick else LARGE
    rows = []
    for form in FORMS:
        with DocumentSite(lab) as site, on_core(LOAD_CORE):
            send(site.port, Upload(form, MIB))  # what is loaded by the first document
            before = site.sidecar.process.memory()
            seconds, answer = send(site.port, Upload(form, size))
            rise = site.sidecar.process.memory()["peak"] - before["rss"]
            fetched = site.fetch(answer)
            again = [send(site.port, Upload(other, size))[1]["cache-status"] for other in FORMS]
            at_last = site.sidecar.process.memory()["peak"] - before["rss"]
            hits, asked = sum("; hit" in status for status in again), site.analysed()
        rows.append(
            Row(
                "documents-large", f"{size // MIB} MiB as {form}: resident memory, + MiB", f"{rise:.1f}",
                f"and all forms again {at_last:.1f}", bar=f"< {HUGE_RISE}", reached=max(rise, at_last) < HUGE_RISE,
                required=True, details={"before": before, "asked": asked},
                note=f"{seconds:.1f} s; result {'there' if fetched else 'MISSING'}; all forms again: {hits} of 3 hits",
            )
        )  # fmt: skip
        rows.append(
            Row("documents-large", f"{form}: analyses, hits of all forms again", f"{asked - 1}, {hits}", bar="1, 3",
                reached=fetched and (asked, hits) == (2, 3), required=True)
        )  # fmt: skip
    return rows


def many(lab: Lab, pace: Pace) -> list[Row]:
    """200 uploads of 5 MB at once, each document twice: what is held for them, and that each is analysed once."""
    count = MANY // 10 if pace.quick else MANY
    with DocumentSite(lab) as site, on_core(LOAD_CORE):
        send(site.port, Upload("bytes", MIB))
        before = site.sidecar.process.memory()
        held: list[float] = []
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                held.append(site.sidecar.metric("inflight_memory_bytes"))
                time.sleep(0.02)

        watcher = threading.Thread(target=watch)
        watcher.start()
        uploads = [Upload(FORMS[number % 3], MEDIUM, 2 + number // 2) for number in range(count)]
        with ThreadPoolExecutor(count) as threads:
            answers = list(threads.map(lambda upload: send(site.port, upload)[1], uploads))
            fetched = sum(threads.map(site.fetch, answers))
        done.set()
        watcher.join()
        after, asked = site.sidecar.process.memory(), site.analysed() - 1
    return [
        Row(
            "documents-many", f"{count} uploads of {MEDIUM // MIB} MiB at once: most bytes in flight, MiB",
            f"{max(held) / MIB:.1f}", f"limit {INFLIGHT / MIB:.0f}", bar=f"<= {INFLIGHT // MIB}",
            reached=max(held) <= INFLIGHT, required=True,
            note=f"{len(held)} samples",
        ),
        Row("documents-many", "resident memory, MiB: before, at most, after",
            f"{before['rss']:.0f}, {after['peak']:.0f}, {after['rss']:.0f}"),
        Row("documents-many", "results, analyses", f"{fetched}, {asked}", bar=f"{count}, {count // 2}",
            reached=(fetched, asked) == (count, count // 2), required=True),
    ]  # fmt: skip


def hashing(lab: Lab, pace: Pace) -> list[Row]:
    """What it takes to read and hash a document that is known, and one that is not, to what a bare relay takes."""
    rounds = {size: 5 if pace.quick else count for size, count in HASHED.items()}
    return [_hashed(lab, form, size, count) for size, count in rounds.items() for form in FORMS]


def _hashed(lab: Lab, form: str, size: int, rounds: int) -> Row:
    """One size in one form, round by round: through the relay, through the sidecar known, and unknown."""
    port = free_port()
    known = Upload(form, size)
    pieces = list(known.pieces())
    times: dict[str, list[float]] = {"relay": [], "hit": [], "miss": []}
    with DocumentSite(lab) as site, on_core(LOAD_CORE), lab.program("relay", SERVER_CORE, port, site.upstream):
        site.fetch(send(site.port, known, pieces)[1])
        for number in range(rounds):
            times["relay"].append(send(port, known, pieces)[0])
            seconds, answer = send(site.port, known, pieces)
            if "; hit" not in answer["cache-status"]:
                raise RuntimeError(f"no hit: {answer['cache-status']}")
            times["hit"].append(seconds)
            fresh = Upload(form, size, 2 + number)
            seconds, answer = send(site.port, fresh, list(fresh.pieces()))
            times["miss"].append(seconds)
            site.fetch(answer)
    relay, hit, miss = (times[name] for name in ("relay", "hit", "miss"))
    ratio, missed = median(hit) / median(relay), median(miss) / median(relay)
    return Row(
        "documents-hashing", f"{size // MIB} MiB as {form}, known: read and hash, ms",
        spread([value * 1000 for value in hit]), spread([value * 1000 for value in relay]), ratio,
        bar=f"<= {MOST_HASHING}", reached=ratio <= MOST_HASHING, required=True,
        details={name: [round(value * 1000) for value in values] for name, values in times.items()},
        note=f"{size // MIB} MiB as {form}, unknown, so sent: {median(miss) * 1000:.0f} ms, {missed:.2f}",
    )  # fmt: skip


def stall(lab: Lab, pace: Pace) -> list[Row]:
    """
    How long the loop stands still while four large documents come at once, unknown and then known; and while the same
    bytes go past the sidecar to the stand-in.
    """
    file = lab.folder()
    spans: list[tuple[str, str, float, float]] = []
    with DocumentSite(lab, ("gaps", file)) as site, on_core(LOAD_CORE), ThreadPoolExecutor(AT_ONCE) as threads:
        site.fetch(send(site.port, Upload("bytes", MIB))[1])
        for form, size in product(FORMS, STALLING[:2] if pace.quick else STALLING):
            uploads = [Upload(form, size, 2 + number) for number in range(AT_ONCE)]
            for way, port in (("past", site.upstream), ("through", site.port), ("through", site.port)):
                began = time.monotonic()
                answers = list(threads.map(send, [port] * AT_ONCE, uploads))
                if way == "through" and not all(threads.map(site.fetch, [answer for _, answer in answers])):
                    raise RuntimeError(f"no result for {size // MIB} MiB as {form}")
                spans.append((form, way, began, time.monotonic()))
    gaps = [(at, length, spent) for at, length, spent in json.loads(file.read_text())]
    stalls: dict[tuple[str, str], list[float]] = {(form, way): [0.0] for form, way, *_ in spans}
    busy: dict[str, list[float]] = {form: [0.0] for form in FORMS}
    for form, way, began, ended in spans:
        found = [(length, spent) for at, length, spent in gaps if began <= at <= ended]
        stalls[form, way] += [length for length, _ in found]
        busy[form] += [spent for _, spent in found if way == "through"]
    return [
        Row("documents-stall", f"{AT_ONCE} large documents at once as {form}: longest stall, ms",
            f"{max(stalls[form, 'through']):.1f}", f"past us {max(stalls[form, 'past']):.1f}",
            bar=f"<= {LONGEST_STALL_MS}", reached=max(stalls[form, "through"]) <= LONGEST_STALL_MS,
            note=f"{form}: at most {max(busy[form]):.1f} ms of a stall were processor time of the loop's thread",
            details={way: sorted(stalls[form, way], reverse=True)[:20] for way in ("past", "through")})
        for form in FORMS
    ]  # fmt: skip


def _get(port: int, target: str) -> tuple[int, bytes]:
    """A poll, by a connection of its own."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", target, headers={"Ocp-Apim-Subscription-Key": "bench"})
        answer = connection.getresponse()
        return answer.status, answer.read()


ROWS: Mapping[str, Callable[[Lab, Pace], list[Row]]] = {
    "documents-large": large,
    "documents-many": many,
    "documents-hashing": hashing,
    "documents-stall": stall,
}
