"""
A long-running operation that was started through here: what must be known of it to answer whoever asks about it.

The rule: an operation is known by an id of 128 bits and is answered only to its own caller. What is known of it has the
form of an entry, so that it is sealed, purged and erased as an answer is; but no call is answered with that entry.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from sidecar.core.cache.policy import Freshness
from sidecar.core.dialect import LongOperation
from sidecar.core.key.json_rule import UNREADABLE
from sidecar.core.model import Entry, Fields, Form, Head, Key, Pairs, Position
from sidecar.core.request.principal import Principal
from sidecar.core.rules import Region, Share
from sidecar.core.site.base_url import base, reached
from sidecar.core.site.recognise import Site

LIFE_SECONDS = 24 * 3600.0
"""How long an operation is known: as long as the services keep its result."""

ACCEPTED = 202

ALONE = Share()
"""How a caller shares that shares with nobody."""

LIES = b"operation-location"
"""The field of a stored result that says at which target its region has it. No caller sees it."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_ADDRESS = (b"operation-location", b"location")
_NEXT = re.compile(rb",[ \t]*(?=https?://|/)", re.IGNORECASE)
"""Between two addresses, where a service has written the field twice."""

_PLAIN = re.compile(r"(?!.*/\.\.?(?:[/?]|\Z))[!-~]+")
"""A target that can be asked for as it is, and that does not lead up to another one."""

_OWN = frozenset({*_ADDRESS, b"apim-request-id", b"content-length", b"retry-after", b"age"})


class OperationOrigin(Struct, frozen=True, gc=False):
    """The service's own operation: its *region*, its *id*, and the *target* at which that region is polled."""

    region: str
    id: str
    target: bytes

    def __repr__(self) -> str:
        return f"<OperationOrigin in {self.region}>"  # whoever knows the id may ask for the result


class Started(Struct, frozen=True, gc=False):
    """
    One operation under one *id*.

    *key* is that of the call that started it. *partition* and *owner* are that caller's: as its route shares, and as
    if it shared with nobody; *share* is how the route shares. *path* and *query* are those of the call. *known*: its
    result may stand in the store under *key*. *credential* is that of the call, which the service has accepted: it was
    answered, or found a stored result. The rest is what its result is stored with.
    """

    id: str
    key: Key
    partition: bytes
    owner: bytes
    share: Share
    service: str
    resource: str
    path: str
    query: bytes
    route: str
    model: str
    origin: OperationOrigin
    at: float
    fresh: Freshness
    tags: tuple[str, ...] = ()
    position: Position = Position()
    known: bool = True
    credential: bytes = b""

    def __repr__(self) -> str:
        return f"<Started {self.path} of {self.service}>"  # as that of its origin

    def permits(self, shared: Principal, own: Principal) -> bool:
        """
        Whether the caller that is *shared* on the operation's route, and *own* by itself, may ask about it. Its token
        may be another than that which started the operation: tokens change while one runs.
        """
        return shared.partition == self.partition or own.partition == self.owner


class _Rest(Struct, frozen=True, array_like=True):
    """What of ``Started`` has no place of its own in an entry."""

    id: str
    owner: bytes
    share: tuple[str, str]
    resource: str
    path: str
    query: bytes
    origin: tuple[str, bytes]
    known: bool
    credential: bytes = b""


_REST = msgspec.msgpack.Decoder(_Rest)
_ENCODER = msgspec.msgpack.Encoder()


def to_entry(started: Started) -> Entry:
    """*started* in the form of an entry, which stands under its key."""
    origin, share, fresh = started.origin, started.share, started.fresh
    rest = _Rest(
        started.id,
        started.owner,
        (share.kind, share.name),
        started.resource,
        started.path,
        started.query,
        (origin.id, origin.target),
        started.known,
        started.credential,
    )
    return Entry(
        status=ACCEPTED,
        headers=(),
        body=_ENCODER.encode(rest),
        form=Form.WHOLE,
        service=started.service,
        route=started.route,
        model=started.model,
        at=started.at,
        ttl=fresh.ttl,
        stale_while_revalidate=fresh.while_revalidate,
        stale_if_error=fresh.if_error,
        region=origin.region,
        tags=started.tags,
        partition=started.partition,
        position=started.position,
    )


def from_entry(key: Key, entry: Entry) -> Started | None:
    """What ``to_entry`` wrote; None for any other entry."""
    if entry.status != ACCEPTED:
        return None
    try:
        rest = _REST.decode(entry.body)
    except UNREADABLE:
        return None
    return Started(
        id=rest.id,
        key=key,
        partition=entry.partition,
        owner=rest.owner,
        share=Share(*rest.share),
        service=entry.service,
        resource=rest.resource,
        path=rest.path,
        query=rest.query,
        route=entry.route,
        model=entry.model,
        origin=OperationOrigin(entry.region, *rest.origin),
        at=entry.at,
        fresh=Freshness(entry.ttl, entry.stale_while_revalidate, entry.stale_if_error),
        tags=entry.tags,
        position=entry.position,
        known=rest.known,
        credential=rest.credential,
    )


def origin_of(
    fields: Fields, region: Region, operation: LongOperation, path: str, query: bytes
) -> OperationOrigin | None:
    """
    The operation that a 202 with *fields* from *region* names; None if it names none. *path* and *query* are those of
    the call that started it.

    Only this region is ever polled, with the credential that it has accepted: an address at another host gives nothing
    but the id. Nor does one that no request can name, or that leads up by dots.
    """
    said = _NEXT.split(next((fields[name] for name in _ADDRESS if name in fields), b""))[0]
    try:
        address, there = urlsplit(said.decode("ascii")), urlsplit(region.url)
    except ValueError:
        return None
    found = address.path.rpartition("/")[2]
    if _ID.fullmatch(found) is None:
        return None
    root = there.path.rstrip("/")
    lies_there = address.netloc.lower() == there.netloc.lower() and address.path.startswith(f"{root}/")
    target = address.path.removeprefix(root) + (f"?{address.query}" if address.query else "")
    if not lies_there or _PLAIN.fullmatch(target) is None:
        return OperationOrigin(region.name, found, operation.poll(path, query, found))
    return OperationOrigin(region.name, found, target.encode())


def origin_in(entry: Entry) -> OperationOrigin:
    """Where the service has the result in *entry*; an origin without a region if the entry does not say."""
    target = next((value for name, value in entry.headers if name == LIES), b"")
    found = target.partition(b"?")[0].rpartition(b"/")[2].decode("latin-1")
    return OperationOrigin(entry.region if target else "", found, target)


def address_of(head: Head, site: Site, operation: LongOperation, id_: str) -> bytes:
    """Where the caller of *head*, a call to *site* that starts an *operation*, asks about it by its *id_*."""
    resource = f"/{site.resource}" if site.resource else ""
    return ((reached(head, site.service) or base(head, site.service)) + resource).encode() + operation.poll(
        site.path, site.query, id_
    )


def accepted_pairs(address: bytes, id_: str, said: Pairs = ()) -> Pairs:
    """
    The head of the answer to a call that starts an operation: as the services write it, without ``Retry-After``, for
    SDKs poll at once. *said*: what the service itself answered this caller.
    """
    kept = tuple([pair for pair in said if pair[0].lower() not in _OWN])
    return ((b"operation-location", address), (b"apim-request-id", id_.encode()), *kept)
