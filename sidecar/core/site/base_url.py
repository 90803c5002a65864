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

_AUTHORITY = re.compile(r"(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_PORT = re.compile(r":[0-9]*\Z")
_ADDRESS = re.compile(rb"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")


def address(head: Head) -> str:
    """Host and port at which this sidecar was called."""
    # On an intercepted connection, a host without a port is the service's own name, not ours.
    host = head.fields.get(b"host", b"")
    return host.decode("ascii") if _ADDRESS.fullmatch(host) else _OWN_ADDRESS


def reached(head: Head, service: Service) -> str | None:
    """
    The base URL by which the caller of *head* reached *service*, without a resource, in the caller's own words; None
    where its ``Host`` does not say it. A name without a port at a service's own port may be that of the service itself,
    whose connections are led here.
    """
    host = head.fields.get(b"host", b"").decode("latin-1").lower()
    name = _PORT.sub("", host)
    if name in service.hosts:
        return f"{'https' if host.removesuffix(':443') == name else 'http'}://{host}"
    own_port = service.port and service.port == head.port
    if _AUTHORITY.fullmatch(host) is None or (own_port and name == host):
        return None
    return f"http://{host}{'' if own_port else service.path}"


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
