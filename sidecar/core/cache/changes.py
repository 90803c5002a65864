"""
Which targets of a service were changed by calls, so that older stored answers about them are out of date (RFC 9111,
4.4).

The rule: a change counts in the process that carried the call, for the caller who made it. Unlike a purge, a change is
not written to the fleet's log, because changes may be as frequent as calls; so other processes serve what they have in
memory until its time to live is over.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

from sidecar.core.model import Entry
from sidecar.core.request.principal import counted_query
from sidecar.core.site.recognise import Site

MOST = 4096
"""
The most targets that are remembered. When one is forgotten for lack of room, every entry older than its change is
refused from then on, whatever its target.
"""

SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PROPFIND", b"REPORT", b"SEARCH", b"QUERY"})
"""Methods that change nothing (RFC 9110, 9.2.1, and the registry of methods). Any other may change something."""


def target_of(site: Site, partition: bytes) -> bytes:
    """
    16 bytes that stand for what a call to *site* reads or changes, in *partition*; ``b""`` where the service's methods
    do not tell whether a call changes something.
    """
    dialect = site.service.dialect
    if not dialect.honours:
        return b""
    query = counted_query(site.query, dialect.ignored_query | dialect.credential_query)
    parts = (site.service.name.encode(), site.resource.encode(), site.target.partition(b"?")[0], query)
    material = b"".join([b"%d:%b;" % (len(part), part) for part in parts])
    return blake2b(material, key=partition, digest_size=16, person=b"sidecar target").digest()


class Changes:
    """When a call through this process last changed each target, wall-clock seconds."""

    __slots__ = ("_all", "_latest", "_most")

    def __init__(self, most: int = MOST) -> None:
        self._latest: OrderedDict[bytes, float] = OrderedDict()
        self._all = 0.0
        self._most = most

    def __repr__(self) -> str:
        return f"<Changes of {len(self._latest)} targets>"

    def note(self, target: bytes, at: float) -> None:
        """A call changed *target* *at* that time."""
        self._latest.pop(target, None)
        self._latest[target] = at
        if len(self._latest) > self._most:
            _, oldest = self._latest.popitem(last=False)
            self._all = max(self._all, oldest)

    def allows(self, entry: Entry) -> bool:
        """Whether *entry* is younger than the last change of its target."""
        return not entry.target or entry.at > max(self._all, self._latest.get(entry.target, 0.0))
