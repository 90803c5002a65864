"""A bug in what reads requests and answers for the cache costs no call: each goes on as it came, the bug is told."""

from __future__ import annotations

import json

import pytest

from sidecar.core.key import canonical
from sidecar.core.key.json_scanner import Scanner
from sidecar.core.key.multipart import Multipart
from sidecar.proxy import receive as receiver
from tests.scenarios.conftest import CHAT, completion, said, whole

LARGE = {**CHAT, "messages": [{"role": "user", "content": "x" * 400_000}]}
PARTS = (
    b'--B\r\ncontent-disposition: form-data; name="file"; filename="a.mp3"\r\n\r\n' + b"x" * 400_000 + b"\r\n--B--\r\n"
)
MULTIPART = {"content-type": "multipart/form-data; boundary=B"}


def fail(*_):
    raise RuntimeError("the text of a prompt")


@pytest.mark.parametrize(
    ("owner", "name", "body", "path", "headers"),
    [
        pytest.param(canonical, "_read_json", CHAT, "chat/completions", {}, id="whole"),
        pytest.param(Scanner, "feed", LARGE, "chat/completions", {}, id="while it arrives"),
        pytest.param(Multipart, "feed", PARTS, "audio/transcriptions", MULTIPART, id="parts"),
        pytest.param(canonical, "observer", LARGE, "chat/completions", {}, id="before it arrives"),
    ],
)
async def test_reader_fails(build_lab, script, monkeypatch, owner, name, body, path, headers):
    """Each time, the service gets the call, whole; the reason and the log say that nothing was looked up, and why."""
    bodies = []

    async def handler(_head, sent, writer):
        bodies.append(sent)
        writer.write(whole(completion("hi")))

    upstream = await script(handler)
    lab = await build_lab(upstream.url)
    monkeypatch.setattr(owner, name, fail)
    for _ in range(3):
        reply = await lab.ask(body, path=f"/openai/v1/{path}", headers=headers)

        assert 200 == reply.status
        assert "hi" == said(reply.body)
        assert "sidecar; fwd=bypass; detail=reader-failed" == reply.headers["cache-status"]

    bugs = [line for line in lab.logs if b'"bug"' in line]
    lab.logs.clear()

    assert 3 == len(bodies)
    assert all(sent == body if isinstance(body, bytes) else json.loads(sent) == body for sent in bodies)
    assert bugs
    assert not any(b"prompt" in line for line in bugs)


@pytest.mark.parametrize("size", [2, 400_000])
async def test_judge_fails(build_lab, script, monkeypatch, size):
    """An answer that cannot be judged is the caller's all the same; it is not kept."""

    async def handler(_head, _sent, writer):
        writer.write(whole(completion("x" * size)))

    upstream = await script(handler)
    lab = await build_lab(upstream.url)
    monkeypatch.setattr(receiver, "retain", fail)
    for _ in range(2):
        reply = await lab.ask()

        assert 200 == reply.status
        assert "x" * size == said(reply.body)

    bugs = [line for line in lab.logs if b'"bug"' in line]
    lab.logs.clear()

    assert 2 == upstream.calls == len(bugs)
    assert ["reader-failed"] * 2 == [record.reason for record in lab.records]


@pytest.mark.parametrize("name", [["x"], {}, {"a": 1}, 7, True], ids=str)
async def test_name_of_another_type(lab, name):
    """A function whose name is no text is the service's to refuse."""
    reply = await lab.ask({**CHAT, "tools": [{"type": "function", "function": {"name": name}}]})

    assert "sidecar; fwd=bypass; detail=server-tools" == reply.headers["cache-status"]
    assert reply.status != 500
