"""A secret pasted where its file's path belongs: a real process goes on, and shows it to nobody."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from sidecar.settings.pasted import NOWHERE
from tests.scenarios.conftest import CHAT
from tests.scenarios.processes import Running
from tests.scenarios.raw_requests import send

SECRETS = (
    "sk-canary-0a1b2c3d4e5f",  # pragma: allowlist secret
    "correct-horse-battery",
    "hunter2",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",  # pragma: allowlist secret
)


def rules(secret: str, *, fleet: bool) -> dict[str, object]:
    """Every file key with *secret*, but for the anchors without which nothing starts."""
    credential = {"header": "authorization", "prefix": "Bearer ", "file": secret}
    return {
        "admin": {"port": 0, "token_file": secret},
        "state": {"dir": f"/sk-{secret}"},
        "cache": {
            "redis": {"url": "redis://127.0.0.1:9", "password_file": secret, "username_file": secret},
            "secret_file": "cache.key" if fleet else secret,
        },
        "services": {
            "openai": {"regions": [{"name": "here", "url": "http://127.0.0.1:9", "credential": credential}]},
            "azure-openai": {
                "regions": [
                    {
                        "name": "there",
                        "url": "https://a.openai.azure.com",
                        "credential": {"workload_identity": {"client_id": "a", "tenant_id": "b", "token_file": secret}},
                    }
                ]
            },
        },
        "routes": [{"name": "all", "fallback": [{"answer_file": secret}]}],
    }


@pytest.mark.parametrize("fleet", [False, True], ids=["alone", "fleet"])
@pytest.mark.parametrize("secret", SECRETS, ids=["key", "phrase", "word", "slashes"])
async def test_nobody_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str, *, fleet: bool):
    """Neither the log, nor /readyz, nor the API, nor metrics; each names the key."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cache.key").write_text("k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n")
    running = Running(tmp_path, rules(secret, fleet=fleet), AZURE_AUTHORITY_HOST="http://127.0.0.1:9")
    try:
        ports = await running.ports()
        body = json.dumps(CHAT).encode()
        told = b""
        for path in (b"/openai/v1/chat/completions", b"/azure-openai/openai/v1/chat/completions"):
            head = b"POST %b HTTP/1.1\r\nHost: localhost:@\r\nContent-Length: %d\r\n\r\n" % (path, len(body))
            told += await send(ports["listen"], head + body)
        act = (
            b"POST /api/mode HTTP/1.1\r\nHost: localhost:@\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
        )
        mode = b'{"mode":"normal"}'
        refused = await send(ports["admin"], act % len(mode) + b"Authorization: Bearer x\r\n\r\n" + mode)
        ready = await send(ports["health"], b"GET /readyz?verbose HTTP/1.1\r\nHost: localhost:@\r\n\r\n")
        told += await send(ports["admin"], b"GET /api/regions HTTP/1.1\r\nHost: localhost:@\r\n\r\n")
        told += await send(ports["health"], b"GET /metrics HTTP/1.1\r\nHost: localhost:@\r\n\r\n")
        running.child.send_signal(signal.SIGTERM)
        assert 0 == await asyncio.to_thread(running.child.wait, 20)
    finally:
        running.child.kill()
        running.child.wait()
    log = running.log.read_bytes()
    events = running.events

    assert secret.encode() not in log + told + refused + ready
    assert len(log.splitlines()) == len(events)
    assert b"503" in refused.split(b"\r\n")[0]
    assert f"{NOWHERE}admin.token_file".encode() in refused
    assert f"credential {NOWHERE}services.openai.regions[0].credential.file".encode() in ready
    for event in ("credential-unusable", "answer-file-unusable"):
        assert any(event == each["event"] and NOWHERE in json.dumps(each) for each in events)


@pytest.mark.parametrize("secret", SECRETS, ids=["key", "phrase", "word", "slashes"])
async def test_trust_anchors(tmp_path: Path, secret: str):
    """The start that is refused for want of them names the key alone; so does the warning of a seal without secret."""
    running = Running(tmp_path, {"upstream": {"ca_file": secret}, "cache": {"secret_file": secret}})
    try:
        assert 0 != await asyncio.to_thread(running.child.wait, 20)
    finally:
        running.child.kill()
        running.child.wait()
    told = running.log.read_text() + running.output.read_text()

    assert "upstream.ca_file: looks like the secret itself" in told
    assert secret not in told
