"""
Where the fleet's Redis is: what a URL names.

The rule: nothing of Redis' library is needed here, so that a configuration can be checked without it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

HostLookup = Callable[[str], Awaitable[Sequence[str]]]
"""``await lookup(host)``: its addresses. Raises ``OSError``."""

SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")


class Address(NamedTuple):
    """
    What a URL names. *kind*: ``single``, ``sentinel`` or ``cluster``; *hosts* has one entry for ``single``. *service*
    is what Sentinels call it.
    """

    kind: str
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    service: str = ""
    database: int = 0


def locate(url: str) -> Address:
    """
    The address that *url* names: ``redis://HOST[:PORT][/DATABASE]``, ``redis+cluster://HOST[:PORT],...``,
    ``redis+sentinel://HOST[:PORT],.../SERVICE[/DATABASE]``; ``rediss`` for TLS.

    Raises ``ValueError``, whose message says what is wrong and what would be right.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError(f"the scheme is one of {' '.join(SCHEMES)}")
    if "@" in parts.netloc:
        raise ValueError("credentials don't belong in the URL: name files with username_file and password_file")
    if parts.query or parts.fragment:
        raise ValueError("a URL of Redis has no query and no fragment")
    family, _, kind = parts.scheme.partition("+")
    hosts = tuple(_host(host, 26379 if kind == "sentinel" else 6379) for host in parts.netloc.split(","))
    if len(hosts) > 1 and not kind:
        raise ValueError("several hosts need redis+sentinel or redis+cluster")
    path = parts.path.strip("/").split("/") if parts.path.strip("/") else []
    service = ""
    if kind == "sentinel":
        if not path:
            raise ValueError("the path of a Sentinel URL is /SERVICE or /SERVICE/DATABASE")
        service = path.pop(0)
    if len(path) > 1 or any(not step.isdecimal() or not step.isascii() for step in path):
        raise ValueError("the database is one number: /0")
    database = int(path[0]) if path else 0
    if kind == "cluster" and database:
        raise ValueError("a Cluster has database 0 alone")
    return Address(kind or "single", family == "rediss", hosts, service, database)


def _host(text: str, port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname or "", parts.port or port
    except ValueError:
        host = ""
    if not host:
        raise ValueError(f"{text!r} is not HOST or HOST:PORT")
    return host, port
