"""Certificates that the webhook makes for itself."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sidecar.inject.certificates import LIFE, RENEWAL, bundle, is_due, issue

NAMES = ("localhost", "ai-sidecar-webhook.ai-sidecar.svc")
NOW = datetime(2026, 11, 30, tzinfo=UTC)


async def spoken(tmp_path: Path, certificate: bytes, key: bytes, authority: bytes) -> bytes:
    """What comes over TLS from a server with *certificate*, if *authority* alone is trusted."""
    (tmp_path / "crt").write_bytes(certificate)
    (tmp_path / "key").write_bytes(key)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.load_verify_locations(cadata=authority.decode())

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=serving)
    port = server.sockets[0].getsockname()[1]
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="localhost")
        told = await reader.read()
        writer.close()
        return told
    finally:
        server.close()


async def test_it_serves(tmp_path: Path):
    """Whoever trusts its authority takes it, under its name; another authority is not enough, both together are."""
    now = datetime.now(UTC)
    one, other = issue(NAMES, now), issue(NAMES, now)

    assert b"hello" == await spoken(tmp_path, one.certificate, one.key, one.authority)
    assert b"hello" == await spoken(tmp_path, one.certificate, one.key, bundle([other.authority, one.authority], now))

    with pytest.raises(ssl.SSLCertVerificationError):
        await spoken(tmp_path, one.certificate, one.key, other.authority)


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        (timedelta(0), False),
        (LIFE - RENEWAL - timedelta(seconds=1), False),
        (LIFE - RENEWAL + timedelta(seconds=1), True),
        (LIFE + timedelta(days=1), True),
    ],
)
def test_renewal(later: timedelta, expected: bool):
    """It is replaced in its last days, long before its end."""
    assert expected == is_due(issue(NAMES, NOW).certificate, NAMES, NOW + later)


@pytest.mark.parametrize("certificate", [b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAA==\n"])
def test_what_is_no_certificate(certificate: bytes):
    """It is replaced, and is no authority."""
    assert is_due(certificate, NAMES, NOW)
    assert b"" == bundle([certificate], NOW)


def test_other_names():
    """A certificate for other names is replaced; one for more names is not."""
    certificate = issue(NAMES, NOW).certificate

    assert (True, False) == (is_due(certificate, (*NAMES, "x"), NOW), is_due(certificate, NAMES[:1], NOW))


def test_bundles():
    """Each authority once, in order, as long as it is valid."""
    old, new = issue(NAMES, NOW), issue(NAMES, NOW + timedelta(days=60))

    assert new.authority + old.authority == bundle([new.authority, old.authority, new.authority], NOW)
    assert new.authority == bundle([new.authority, old.authority], NOW + LIFE + timedelta(days=1))


def test_no_key_is_shown():
    """Neither of the two."""
    assert "<Issued>" == repr(issue(NAMES, NOW))
