"""
Where an answer sends its caller next: to poll an operation that has begun, or to ask elsewhere.

The rule: an address at the service's only region becomes the same address at this sidecar, so that the next call comes
here, too. Every other address stays as it is; so do those of a service with several regions, for only the region that
began an operation knows it. No answer leads its caller, and the caller's key, to another service at this sidecar.
"""

from __future__ import annotations

import re

from sidecar.core.http.headers import ADDRESSES
from sidecar.core.model import Fields, Head, Pairs
from sidecar.core.site.base_url import reached
from sidecar.core.site.recognise import Site


def through_here(pairs: Pairs, fields: Fields, head: Head, site: Site) -> Pairs:
    """*pairs*, an answer's *fields* for its caller, with the addresses that belong to *site* at this sidecar."""
    if ADDRESSES.isdisjoint(fields) or len(site.regions) > 1 or (base := reached(head, site.service)) is None:
        return pairs
    here = base + (f"/{site.resource}" if site.resource else "")
    there = site.regions[0].url
    return tuple(
        (name, _moved(value, there.encode(), here.encode()) if name.lower() in ADDRESSES else value)
        for name, value in pairs
    )


_ORIGIN = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_DEFAULT_PORTS = {b"http": b":80", b"https": b":443"}
_CLIMBS = re.compile(rb"(?:[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?:[/\\?#]|%2f|%5c|\Z)", re.IGNORECASE)
"""Segments by which a client leaves the path below which a service lies here."""


def _moved(value: bytes, there: bytes, here: bytes) -> bytes:
    """*value* below *here*, if it lies below *there*. A path is one at *there*, which at *here* would be another's."""
    found = _ORIGIN.match(there)
    assert found is not None, "a region has a URL"
    origin = found[0]
    if value[:1] == b"/" and value[1:2] not in {b"/", b"\\"}:
        if not (_path(there) or _path(here)):
            return value  # the same path
        value = origin + value
    elif (port := _DEFAULT_PORTS[origin.partition(b":")[0].lower()]) and value.lower().startswith(
        origin.lower() + port
    ):
        without = value[: len(origin)] + value[len(origin) + len(port) :]
        value = without if without[len(origin) :][:1] in {b"", b"/", b"?"} else value
    rest = value[len(there) :]
    lies_there = value[: len(there)].lower() == there.lower() and rest[:1] in {b"", b"/", b"?"}
    return here + rest if lies_there and _CLIMBS.search(rest.partition(b"?")[0]) is None else value


def _path(url: bytes) -> bytes:
    return url.partition(b"://")[2].partition(b"/")[2]
