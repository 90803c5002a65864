"""
Who may act on a running sidecar.

The rule: without a token, only callers on this machine may act, and only on this process. With a token, every caller
must send it. If the token cannot be read, nobody may act. No message, log line or answer shows a token.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Sequence
from hashlib import blake2b

from sidecar.errors import Refused
from sidecar.net.plain_file import open_plain

_TOKEN = re.compile(rb"[!-~]{16,1024}\Z")
_SCHEME = b"bearer "


def token_of(data: bytes) -> bytes:
    """The token in a file with this content. Raises ``ValueError`` with what is wrong."""
    text = data.strip()
    if not _TOKEN.match(text):
        raise ValueError(
            "is empty" if not text else "is not one line of 16 to 1024 printable characters without blanks"
        )
    return text


def read_token(path: str) -> bytes:
    """The token in the file *path*. Raises ``ValueError`` with the path and what is wrong."""
    try:
        with open_plain(path) as file:
            return token_of(file.read(4096))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or 'cannot be read'}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def admit(token_file: str, peer: str, authorization: Sequence[str]) -> str:
    """
    Let a caller act. Returns the fingerprint of its token; ``""`` if none is configured and it may act on this process.

    The file is read each time, because actions are rare and it may have changed. Raises ``Refused``.
    """
    if not token_file:
        if is_loopback(peer):
            return ""
        raise Refused(403, "no-token", "no admin.token_file is configured, so only callers of this machine may act")
    try:
        token = read_token(token_file)
    except ValueError as error:
        raise Refused(503, "token-unreadable", f"nobody may act: the file of admin.token_file {error}") from None
    shown = authorization[0].encode("utf-8", "surrogateescape") if len(authorization) == 1 else b""
    if shown[: len(_SCHEME)].lower() != _SCHEME:
        raise Refused(401, "token-missing", "this sidecar has an admin.token_file; send `Authorization: Bearer TOKEN`")
    if not hmac.compare_digest(shown[len(_SCHEME) :].strip(), token):
        raise Refused(401, "wrong-token", "this is not the token in the file of this sidecar's admin.token_file")
    return blake2b(token, digest_size=4, person=b"sidecar token").hexdigest()


def check_host(shown: Sequence[str], listening: str, here: str, port: int) -> None:
    """
    Refuse a request whose Host is not ours: a browser that was led here by an attacker's name sends such a request.

    *listening* is the host of the configuration, *here* the address that took the connection. An address as Host names
    itself, so it cannot lead anywhere else (DNS rebinding needs a name). Raises ``Refused``.
    """
    names = {listening, here, "localhost", "127.0.0.1", "::1"}
    ours = {authority(name, port) for name in names}
    if port == 80:
        ours |= {text.removesuffix(":80") for text in ours}
    if len(shown) != 1 or shown[0].lower() not in ours:
        remedy = f"call it as {authority(listening, port)} or localhost:{port}"
        raise Refused(421, "wrong-host", f"the Host of this request is not this sidecar's; {remedy}")


def is_loopback(host: str) -> bool:
    """Whether *host*, an address or name, can be reached only from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def plain(host: str) -> str:
    """*host* without the form in which a dual-stack listener shows IPv4."""
    return host.removeprefix("::ffff:") if "." in host else host


def authority(host: str, port: int) -> str:
    """*host* and *port* as in a URL (RFC 3986, 3.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
