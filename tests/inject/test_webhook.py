"""The admission server over real sockets, with TLS, as a process of its own."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import signal
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sidecar.core.pods.settings import Injection, Reachable
from sidecar.errors import ConfigError
from sidecar.inject.metrics import AdmissionMetrics
from sidecar.inject.webhook import LARGE_AT_ONCE, LARGEST, Certificate, Webhook
from tests.core.pods.applied import applied
from tests.redis_servers import free_port

SETTINGS = Injection(
    "image@sha256:1", (Reachable("openai", "http://127.0.0.1:7400/openai", setting="OPENAI_BASE_URL"),)
)
POD = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": f"app-{number}"} for number in range(15)]}}


def review(pod: Any = POD, **more: Any) -> dict[str, Any]:
    request = {"uid": "u", "object": pod, "dryRun": False}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request} | more


def pair(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for localhost, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "tls.crt", folder / "tls.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


@pytest.fixture
async def webhook():
    """A server without TLS, its port, and the bugs it reported."""
    bugs: list[BaseException] = []

    def check(text: str, name: str) -> None:
        if "odd" in text:
            raise ConfigError((f"{name}:1: mode: odd is not a mode",))

    server = Webhook(lambda: SETTINGS, check, bugs.append, metrics=AdmissionMetrics())
    port, health = await server.start("127.0.0.1", 0, 0, tls=None)
    yield port, health, bugs
    await server.stop()


async def post(port: int, path: str, data: bytes, content_type: str = "application/json") -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"http://127.0.0.1:{port}{path}", data=io.BytesIO(data), headers={"content-type": content_type}
        ) as reply,
    ):
        return reply.status, await reply.json()


async def test_a_pod(webhook):
    """It is injected, every container of it; the review is counted."""
    port, health, _ = webhook
    status, answer = await post(port, "/mutate", json.dumps(review()).encode())
    after = applied(POD, json.loads(base64.b64decode(answer["response"]["patch"])))

    assert (200, "u", True) == (status, answer["response"]["uid"], answer["response"]["allowed"])
    assert all("env" in one for one in after["spec"]["containers"])

    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{health}/metrics") as reply:
        text = await reply.text()

    assert 'sidecar_admission_reviews_total{result="injected"} 1.0' in text
    assert 'sidecar_admission_reviews_total{result="failed"} 0.0' in text


async def test_probes(webhook):
    """It lives, and it is ready."""
    _, health, _ = webhook
    for path in ("livez", "readyz"):
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{health}/{path}") as reply:
            assert 200 == reply.status


@pytest.mark.parametrize(
    ("data", "content_type", "status"),
    [
        (b"{}", "text/plain", 415),
        (b"{", "application/json", 400),
        (json.dumps(review())[:-9].encode(), "application/json", 400),
        (json.dumps(review(apiVersion="admission.k8s.io/v1beta1")).encode(), "application/json", 400),
        (b" " * (LARGEST + 1), "application/json", 413),
    ],
    ids=["type", "json", "cut", "version", "size"],
)
async def test_abuse(webhook, data: bytes, content_type: str, status: int):
    """It is answered with what was wrong, and the server goes on."""
    port, _, bugs = webhook

    assert status == (await post(port, "/mutate", data, content_type))[0]
    assert 200 == (await post(port, "/mutate", json.dumps(review()).encode()))[0]
    assert [] == bugs


async def test_a_large_object(webhook):
    """Three megabytes are a review like others."""
    port, _, _ = webhook
    pod = {**POD, "spec": {"containers": [{"name": "app", "args": ["y" * (3 * 1024 * 1024)]}]}}
    status, answer = await post(port, "/mutate", json.dumps(review(pod)).encode())

    assert (200, True) == (status, "patch" in answer["response"])


async def begun(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that announces a large review, and sends one byte of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /mutate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {LARGEST}\r\n\r\n{{"
    writer.write(head.encode())
    await writer.drain()
    return reader, writer


async def test_large_reviews_that_do_not_arrive(webhook, monkeypatch):
    """They hold up no other, and come to an end, so that the next large one has its turn."""
    port, _, bugs = webhook
    slow = [await begun(port) for _ in range(LARGE_AT_ONCE)]

    assert 200 == (await post(port, "/mutate", json.dumps(review()).encode()))[0]

    for _, writer in slow:
        writer.close()
    monkeypatch.setattr("sidecar.inject.webhook.READ_SECONDS", 0.0)
    reader, writer = await begun(port)

    assert b"HTTP/1.1 408 " == await reader.readexactly(13)

    writer.close()
    monkeypatch.undo()
    pod = {**POD, "spec": {"containers": [{"name": "app", "args": ["y" * (1024 * 1024)]}]}}

    assert 200 == (await post(port, "/mutate", json.dumps(review(pod)).encode()))[0]
    assert {ConnectionResetError} == {type(each) for each in bugs}, "which the command does not log"


async def test_configurations(webhook):
    """A wrong ConfigMap is denied, with the place."""
    port, _, _ = webhook
    right, wrong = ({"data": {"sidecar.yaml": text}} for text in ("mode: normal", "mode: odd"))

    assert (await post(port, "/validate", json.dumps(review(right)).encode()))[1]["response"]["allowed"]

    denied = (await post(port, "/validate", json.dumps(review(wrong)).encode()))[1]["response"]

    assert (False, "sidecar.yaml:1: mode: odd is not a mode") == (denied["allowed"], denied["status"]["message"])


def test_a_certificate_that_is_replaced(tmp_path: Path):
    """The new one is loaded, once; a pair that does not fit changes nothing."""
    one = pair(tmp_path, "one")
    certificate = Certificate(*map(str, one))

    assert not certificate.refresh()

    pair(tmp_path, "two")

    assert (True, False) == (certificate.refresh(), certificate.refresh())

    one[1].write_text("no key")
    with pytest.raises(ssl.SSLError):
        certificate.refresh()


def started(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    """The command as a process."""
    with log.open("wb") as output:
        return subprocess.Popen([sys.executable, "-m", "sidecar", "webhook", *arguments], stderr=output)


async def test_the_command(tmp_path: Path):
    """A process: TLS, a review, a wrong ConfigMap by ``check`` itself, a new certificate, and a clean end."""
    cert, key = pair(tmp_path, "one")
    (tmp_path / "sidecar.yaml").write_text("mode: normal\n")
    port, health = free_port(), free_port()
    arguments = ["--image", "me@sha256:3", "--config", str(tmp_path / "sidecar.yaml"), "--host", "127.0.0.1"]
    arguments += ["--port", str(port), "--health-port", str(health), "--tls-cert", str(cert), "--tls-key", str(key)]
    child = started(arguments, tmp_path / "log")
    try:
        trust = ssl.create_default_context(cafile=str(cert))
        async with aiohttp.ClientSession(base_url=f"https://localhost:{port}") as session:
            async with asyncio.timeout(20):
                while True:
                    try:
                        reply = await session.post("/mutate", json=review(), ssl=trust)
                        break
                    except aiohttp.ClientConnectorError:
                        await asyncio.sleep(0.05)
            answer = await reply.json()

            assert b"me@sha256:3" in base64.b64decode(answer["response"]["patch"])

            wrong = {"data": {"sidecar.yaml": "mode: odd\n"}}
            reply = await session.post("/validate", json=review(wrong), ssl=trust)
            told = (await reply.json())["response"]["status"]["message"]

            assert told.startswith("sidecar.yaml:1: mode")

        async with aiohttp.ClientSession() as session:
            reply = await session.get(f"http://127.0.0.1:{health}/metrics")

            assert "sidecar_admission_certificate_expiry_timestamp_seconds 1." in await reply.text()

        pair(tmp_path, "two")
        fresh = ssl.create_default_context(cafile=str(cert))
        async with asyncio.timeout(20), aiohttp.ClientSession(base_url=f"https://localhost:{port}") as session:
            while True:
                try:
                    reply = await session.post("/mutate", json=review(), ssl=fresh)
                    break
                except aiohttp.ClientConnectorCertificateError:
                    await asyncio.sleep(0.1)

            assert 200 == reply.status
    finally:
        child.send_signal(signal.SIGTERM)

    assert 0 == child.wait(20)
    assert b'"stopped"' in (tmp_path / "log").read_bytes()
