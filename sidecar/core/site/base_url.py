"""
The base URL at which a caller reaches a service, for errors and answers that say where a call belongs.

The rule: a call is told that its base URL is wrong only if that is certain; ``api_root`` decides it.
"""

from __future__ import annotations

import re

from sidecar.core.model import Head
from sidecar.core.rules import Service
from sidecar.core.site.api_root import meant
from sidecar.core.site.recognise import Site

_OWN_ADDRESS = "127.0.0.1:7400"

_ADDRESS = re.compile(rb"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")


def address(head: Head) -> str:
    """Host and port at which this sidecar was called."""
    # On an intercepted connection, a host without a port is the service's own name, not ours.
    host = head.fields.get(b"host", b"")
    return host.decode("ascii") if _ADDRESS.fullmatch(host) else _OWN_ADDRESS


def is_addressed(head: Head, service: Service) -> bool:
    """Whether *head* says at which address its caller reached *service*."""
    host = head.fields.get(b"host", b"")
    return _ADDRESS.fullmatch(host) is not None or host.decode("latin-1").lower() in service.hosts


def astray(head: Head, site: Site) -> str | None:
    """One sentence with the right base URL, if the call's base URL lacks the API's root or has it twice."""
    service, path = site.service, site.path
    dialect = service.dialect
    if site.endpoint is not None or (right := meant(service, head.method, path)) is None:
        return None
    twice = len(right) < len(path)
    return (
        f"The path of this call {'has' if twice else 'lacks'} {dialect.root}{' twice' if twice else ''}: "
        f"set {dialect.setting}={base(head, service)}{dialect.base}."
    )


def base(head: Head, service: Service) -> str:
    """The base URL of *service* as the caller of *head* reaches it, without the API's root and a resource."""
    name = head.fields.get(b"host", b"").decode("latin-1").lower()
    if name in service.hosts:
        return f"https://{name}"
    own_port = service.port and service.port == head.port
    return f"http://{address(head)}{'' if own_port else service.path}"
