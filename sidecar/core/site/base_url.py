"""
The base URL at which a caller reaches a service, for errors that say where a call belongs.

The rule: a call is told that its base URL is wrong only if that is certain: its service is the vendor itself, whose
tables do not know the path, but know it with the API's root added, or removed once.
"""

from __future__ import annotations

import re

from sidecar.core.model import Head
from sidecar.core.rules import Service
from sidecar.core.site.recognise import Site

_OWN_ADDRESS = "127.0.0.1:7400"

_ADDRESS = re.compile(rb"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")


def address(head: Head) -> str:
    """Host and port at which this sidecar was called."""
    # On an intercepted connection, a host without a port is the service's own name, not ours.
    host = head.fields.get(b"host", b"")
    return host.decode("ascii") if _ADDRESS.fullmatch(host) else _OWN_ADDRESS


def astray(head: Head, site: Site) -> str | None:
    """One sentence with the right base URL, if the call's base URL lacks the API's root or has it twice."""
    service, method, path = site.service, head.method, site.path
    dialect = service.dialect
    root = dialect.root
    if site.endpoint is not None or not root or method == b"DELETE":
        return None  # the tables would accept any DELETE
    twice = path.startswith(f"{root}{root}/")
    if path.startswith(f"{root}/") and not twice:
        return None
    meant = path.removeprefix(root) if twice else f"{root}{path}"
    if dialect.locate(method, meant) is None or not service.own or any(map(_has_path, _urls(service))):
        return None
    return (
        f"The path of this call {'has' if twice else 'lacks'} {root}{' twice' if twice else ''}: "
        f"set {dialect.setting}={_base(head, service)}{dialect.base}."
    )


def _base(head: Head, service: Service) -> str:
    name = head.fields.get(b"host", b"").decode("latin-1").lower()
    if name in service.hosts:
        return f"https://{name}"
    own_port = service.port and service.port == head.port
    return f"http://{address(head)}{'' if own_port else service.path}"


def _urls(service: Service) -> list[str]:
    return [region.url for region in service.regions]


def _has_path(url: str) -> bool:
    return bool(url.partition("://")[2].partition("/")[2])
