"""
Where an answer sends its caller next: to poll an operation that has begun, or to ask elsewhere.

The rule: an address at the service's only region becomes the same address at this sidecar, so that the next call comes
here, too. Every other address stays as it is; so do those of a service with several regions, for only the region that
began an operation knows it.
"""

from __future__ import annotations

from sidecar.core.model import Fields, Head, Pairs
from sidecar.core.site.base_url import base, is_addressed
from sidecar.core.site.recognise import Site

ADDRESSES = frozenset({b"operation-location", b"azure-asyncoperation", b"location"})
"""Answer fields that hold an address which the caller asks next."""


def through_here(pairs: Pairs, fields: Fields, head: Head, site: Site) -> Pairs:
    """*pairs*, an answer's *fields* for its caller, with the addresses that belong to *site* at this sidecar."""
    if ADDRESSES.isdisjoint(fields) or len(site.regions) > 1 or not is_addressed(head, site.service):
        return pairs
    here = base(head, site.service) + (f"/{site.resource}" if site.resource else "")
    there = site.regions[0].url
    return tuple(
        (name, _moved(value, there.encode(), here.encode()) if name.lower() in ADDRESSES else value)
        for name, value in pairs
    )


def _moved(value: bytes, there: bytes, here: bytes) -> bytes:
    rest = value[len(there) :]
    lies_there = value[: len(there)].lower() == there.lower() and rest[:1] in {b"", b"/", b"?"}
    return here + rest if lies_there else value
