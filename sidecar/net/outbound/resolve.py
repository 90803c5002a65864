"""
Looks up host names with c-ares, and remembers the answers.

The rule: no look-up waits for another name's. Each name is asked once at a time, however many callers wait. No caller
waits longer than ``LOOKUP_SECONDS``; if an earlier answer is known, much less. c-ares reads the hosts file and
resolv.conf (servers, search domains, ndots), and follows their changes.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_address
from weakref import WeakSet

import aiodns
from aiohttp.abc import AbstractResolver, ResolveResult
from pycares import AddrInfoResult

from sidecar.core.region.host_names import HostNames, Known

LOOKUP_SECONDS = 4.0
"""How long a caller waits for an answer: less than the usual time for connecting, so that a failure says what it is."""

STALE_SECONDS = 0.5
"""How long a caller waits if an expired answer is known."""

SERVER_SECONDS = 1.0
"""How long a name server is waited for at first; ``TRIES`` times in all, each time longer."""

TRIES = 2

LOOKUPS = 128
"""The most names asked at once; further ones are refused, so that names made up by callers take no memory."""

ABSENT = frozenset({aiodns.error.ARES_ENOTFOUND, aiodns.error.ARES_ENODATA, aiodns.error.ARES_EBADNAME})
"""Errors that mean that a name has no address; any other error says nothing about the name."""

UNKNOWN = "the name has no address"
SILENT = "the name servers gave no answer"
CROWDED = "too many names are being looked up"


class Resolver(AbstractResolver):
    """
    Addresses of names. *nameservers* (``ADDRESS``, ``ADDRESS:PORT``) replace those of resolv.conf; *clock* is monotonic
    seconds.

    *results* counts the lookups by their end: ``found``, ``absent``, ``failed``, ``refused`` (there were too many).
    """

    def __init__(self, nameservers: Sequence[str] = (), *, clock: Callable[[], float]) -> None:
        self._nameservers = nameservers
        self._clock = clock
        self._names = HostNames()
        self._lookups: dict[str, asyncio.Future[Known]] = {}
        self._ares: aiodns.DNSResolver | None = None
        self._running: WeakSet[aiodns.DNSResolver] = WeakSet()
        self._closed = False
        self.results: Counter[str] = Counter()

    def adopt(self, nameservers: Sequence[str]) -> None:
        """
        Ask *nameservers* from now on. If they are others, what the former ones said is forgotten, and so is what they
        may still say.
        """
        if tuple(nameservers) != tuple(self._nameservers):
            self._nameservers = nameservers
            self._names = HostNames()
            self._lookups = {}
            self._ares = None

    def __repr__(self) -> str:
        return f"<Resolver {self._names!r}, {len(self._lookups)} being looked up>"

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses, in aiohttp's form. Raises ``OSError``."""
        found = [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)
            for address in await self.addresses(host)
            if family in {kind := _family(address), socket.AF_UNSPEC}
        ]
        if not found:
            raise _failure(UNKNOWN)
        return found

    async def addresses(self, host: str) -> tuple[str, ...]:
        """The addresses of *host*, at least one, each time another one first. Raises ``OSError``."""
        if _is_address(host):
            return (host,)
        name, names = host.lower(), self._names
        known = names.known(name)
        if known is None or known.until <= self._clock():
            lookup = self._lookups.get(name) or self._ask(name)
            stale = known is not None and bool(known.addresses)
            if lookup is not None:
                await asyncio.wait((lookup,), timeout=STALE_SECONDS if stale else LOOKUP_SECONDS)
            if lookup is not None and lookup.done():
                known = lookup.result()
            else:
                known = names.failed(name, SILENT if lookup is not None else CROWDED, self._clock())
        if not known.addresses:
            raise _failure(known.fault)
        return known.turn()

    def missing(self, host: str, address: str) -> float:
        """For how many seconds the answers for *host* have come without *address*; 0 where they have it."""
        return self._names.missing(host.lower(), address, self._clock())

    async def close(self) -> None:
        """Cancel all look-ups."""
        self._closed = True
        self._ares = None
        for ares in tuple(self._running):
            await ares.close()

    def _ask(self, name: str) -> asyncio.Future[Known] | None:
        """Start looking *name* up; None where too many names are being looked up already."""
        if self._closed:
            raise _failure("the resolver is closed")
        if len(self._lookups) >= LOOKUPS:
            self.results["refused"] += 1
            return None
        loop = asyncio.get_running_loop()
        lookup = self._lookups[name] = loop.create_future()
        ares: aiodns.DNSResolver | None = None
        try:
            ares = self._current()
            asked = ares.getaddrinfo(name, type=socket.SOCK_STREAM)
        except Exception as error:  # noqa: BLE001 - any error of c-ares is a failed look-up
            asked = loop.create_future()
            asked.set_exception(error)
        # The callback keeps this c-ares alive; when its last user is done, it is closed.
        asked.add_done_callback(partial(self._answered, name, lookup, self._names, ares))
        return lookup

    def _current(self) -> aiodns.DNSResolver:
        """
        The current c-ares, whose thread starts with the first name. A new one is made after a name had no address:
        c-ares remembers that for up to an hour, and cannot be told not to.
        """
        if self._ares is None:
            self._ares = aiodns.DNSResolver(self._nameservers or None, timeout=SERVER_SECONDS, tries=TRIES)
            self._running.add(self._ares)
        return self._ares

    def _answered(
        self,
        name: str,
        lookup: asyncio.Future[Known],
        names: HostNames,
        _: aiodns.DNSResolver | None,
        asked: asyncio.Future[AddrInfoResult],
    ) -> None:
        """A look-up has ended: remember the result among *names*, and wake everybody who waits."""
        if self._lookups.get(name) is lookup:
            del self._lookups[name]
        now = self._clock()
        match _outcome(asked):
            case AddrInfoResult(nodes=[_, *_] as nodes, cnames=cnames):
                self.results["found"] += 1
                addresses = tuple(dict.fromkeys(node.addr[0].decode("ascii") for node in nodes))
                ttl = min([*(node.ttl for node in nodes), *(cname.ttl for cname in cnames)])
                known = names.learn(name, addresses, ttl, now)
            case AddrInfoResult():
                known = self._absent(name, names, now)
            case aiodns.error.DNSError(args=(code, *_)) if code in ABSENT:
                known = self._absent(name, names, now)
            case _:
                self.results["failed"] += 1
                known = names.failed(name, SILENT, now)
        lookup.set_result(known)

    def _absent(self, name: str, names: HostNames, now: float) -> Known:
        self.results["absent"] += 1
        self._ares = None
        return names.absent(name, UNKNOWN, now)


def _outcome(asked: asyncio.Future[AddrInfoResult]) -> object:
    """The answer, or why there is none."""
    if asked.cancelled():
        return None
    return asked.exception() or asked.result()


def _failure(why: str) -> OSError:
    """An error like that of the system's own resolver; it says only *why*."""
    return socket.gaierror(socket.EAI_NONAME, why)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
