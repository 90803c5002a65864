"""After an erasure, no process of the fleet holds a byte of the document: each of them is searched, and so is Redis."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys

from tests.scenarios.answers import completion, whole
from tests.scenarios.lab import CHAT_PATH, KEY
from tests.scenarios.searched_pods import CANARY, Pod, clear_texts, fleet, raw


def body_of(size: int) -> bytes:
    """A document of about *size* bytes with the canary in it."""
    text = f"{CANARY} {'.' * size} {CANARY}"
    return json.dumps({"model": "gpt-4o", "temperature": 0, "messages": [{"role": "user", "content": text}]}).encode()


def request_of(body: bytes) -> bytes:
    """The request as it goes over the wire, with all fields that count in its key."""
    head = (
        f"POST {CHAT_PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def answer(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
    """The text of the document."""
    writer.write(whole(completion(f"It reads: {CANARY} {'-' * 3000}")))


async def call(pod: Pod, body: bytes, times: int = 2) -> asyncio.StreamWriter:
    """Send *body* some times on one connection, which stays open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", pod.port, limit=1 << 22)
    for _ in range(times):
        writer.write(request_of(body))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
        assert b" 200 " in head.splitlines()[0]
    return writer


async def test_every_process_is_searched(script, redis_server, tmp_path):
    """
    Before, memory and Redis hold it, in several forms; afterwards no object in any process does, and nothing in Redis.
    With glibc told to overwrite what it frees, not even the raw memory of the processes has it any more.
    """
    upstream = await script(answer)
    bodies = [body_of(2000), body_of(700_000)]
    async with fleet(tmp_path, redis_server, upstream.url, 3, MALLOC_PERTURB_="165") as pods:
        calls = [await call(pod, body) for pod in pods for body in bodies]
        before = [bool(raw(pod)) for pod in pods]
        shared = CANARY.encode() in clear_texts(redis_server, tmp_path / "cache.key")
        receipts = [(await pods[0].erase(request_of(body)))[1] for body in bodies]
        left = clear_texts(redis_server, tmp_path / "cache.key")
        async with asyncio.timeout(60):
            while any(map(raw, pods)):  # noqa: ASYNC110  the memory of other processes
                await asyncio.sleep(0.5)
        holders = [await pod.holders(tmp_path) for pod in pods]
        for each in calls:
            each.close()

    assert ([True] * 3, True) == (before, shared)
    assert [True, True] == [receipt["complete"] for receipt in receipts]
    assert {"pod-0", "pod-1", "pod-2"} == {pod["pod"].split(" ")[0] for pod in receipts[0]["pods"]}
    assert CANARY.encode() not in left
    assert [[], [], []] == holders
    assert [] == [str(file) for file in (tmp_path / "state").rglob("*") if file.is_file()]


async def test_the_search_finds(script, redis_server, tmp_path):
    """What a process holds is found by kind: the answer, and the body that is kept to find it faster."""
    upstream = await script(answer)
    async with fleet(tmp_path, redis_server, upstream.url, 1) as [pod]:
        caller = await call(pod, body_of(2000))
        holders = await pod.holders(tmp_path)
        caller.close()

    assert {"sidecar.core.model.Entry bytes", "builtins.tuple bytes"} == set(holders)


async def test_a_stopped_pod(script, redis_server, tmp_path):
    """It is named, and the receipt is not complete. When it goes on, it lets go by itself, and can be asked again."""
    upstream = await script(answer)
    body = body_of(2000)
    async with fleet(tmp_path, redis_server, upstream.url, 3) as pods:
        for pod in pods:
            (await call(pod, body)).close()
        pods[2].child.send_signal(signal.SIGSTOP)
        _, receipt = await pods[0].erase(request_of(body), wait="1s")
        pods[2].child.send_signal(signal.SIGCONT)
        async with asyncio.timeout(60):
            while await pods[2].holders(tmp_path):  # noqa: ASYNC110  as above
                await asyncio.sleep(0.1)
        _, again = await pods[0].erase(request_of(body))

    lacking = [pod["pod"].split(" ")[0] for pod in receipt["pods"] if not pod["confirmed_at"]]

    assert (False, ["pod-2"], True) == (receipt["complete"], lacking, again["complete"])


async def test_the_command(script, redis_server, tmp_path):
    """``sidecar purge --erase --request FILE`` prints the receipt; its exit code says whether it is complete."""
    upstream = await script(answer)
    body = body_of(2000)
    (tmp_path / "request.http").write_bytes(request_of(body))
    async with fleet(tmp_path, redis_server, upstream.url, 2) as pods:
        for pod in pods:
            (await call(pod, body)).close()
        config = tmp_path / "asking.yaml"
        config.write_text(
            (tmp_path / "sidecar.yaml").read_text().replace("admin: {port: 0", f"admin: {{port: {pods[0].admin}")
        )
        command = (sys.executable, "-m", "sidecar", "purge", "--erase", "--request", str(tmp_path / "request.http"))
        asking = await asyncio.create_subprocess_exec(
            *command, "--config", str(config), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await asking.communicate()

    assert 0 == asking.returncode, err.decode()
    assert re.search(r"^Erased: the answer of key [0-9a-f]{8}\.\.\. \(by --request\)$", out.decode(), re.MULTILINE)
    assert re.search(r"^  pod pod-1 \(.{6}\): 1 entry in memory, confirmed 20.*Z$", out.decode(), re.MULTILINE)
    assert out.decode().endswith("complete\n")
    assert CANARY not in out.decode() + err.decode()
