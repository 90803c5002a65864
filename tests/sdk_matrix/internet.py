"""
A stand-in for the internet, as a sidecar behind an egress proxy sees it: real host names, answered on loopback.

The rule: it can be reached only by CONNECT to its port, and its certificates are trusted only by whoever is given its
authority. So what arrives here came through the sidecar.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Internet:
    """*hosts* are answered by what listens at these ports of loopback. *certificate* is what a caller has to trust."""

    def __init__(self, hosts: Mapping[str, int], folder: Path) -> None:
        self.certificate = folder / "internet.pem"
        self.port = 0
        self._hosts = hosts
        self._key = folder / "internet.key"
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        _certify(sorted(self._hosts), self.certificate, self._key)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the port."""
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, authority = head.split()[:2]
            host, _, port = authority.rpartition(":")
            if (method, port) != ("CONNECT", "443") or host not in self._hosts:
                writer.write(b"HTTP/1.1 502 No Such Host\r\nContent-Length: 0\r\n\r\n")
            else:
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
                tls.load_cert_chain(self.certificate, self._key)
                await writer.start_tls(tls)
                backend = await asyncio.open_connection("127.0.0.1", self._hosts[host])
                await asyncio.gather(_pipe(reader, backend[1]), _pipe(backend[0], writer))
        writer.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError, ssl.SSLError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


def _certify(names: list[str], certificate: Path, key: Path) -> None:
    """A certificate for *names* that is its own authority, and its key."""
    secret = ec.generate_private_key(ec.SECP256R1())
    subject, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "internet")]), datetime.now(UTC)
    found = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(secret, hashes.SHA256())
    )  # fmt: skip
    certificate.write_bytes(found.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        secret.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
