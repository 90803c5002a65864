"""
What has been purged, and which older answers may therefore no longer be served, shared or kept.

The rule: no purge that still matters is forgotten. Where purges must be merged for lack of room, the result is a wider
purge, never a narrower one.

There are two counts. *seq* counts the purges that this process has carried out: a flight remembers it when it starts,
and its answer may be kept if no purge of it has come since. A ``Position`` says how far the fleet's log was known: each
entry carries one, so any process can tell whether a purge in the log came later. The numbers of one log only grow. When
another server takes the log over, perhaps without its latest purges, the log gets a new incarnation, which says up to
which number it has the one before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from math import inf
from types import MappingProxyType
from typing import NamedTuple

from sidecar.core.cache.changes import Changes
from sidecar.core.cache.held import Held
from sidecar.core.model import Entry, Key, Position

MOST_SCOPES = 4096
"""The most scopes that are kept apart; the oldest beyond are merged into ``ALL``."""

MOST_LEFT = 32
"""The most lost logs that are remembered, in case they come back."""

MOST_PENDING = 1000
"""The most purges that wait for the log; if there are more, they become one purge of ``ALL``."""

SETTLING_SECONDS = 5.0
"""
The longest time until every process has read a purge from the log; each reads once a second. If the log is lost within
that time, the process that wrote the purge writes it again.
"""

ALWAYS = 2**53
"""The value of ``Due.unless`` for a purge that must be written in any case: it is above every number."""


class ScopeKind(StrEnum):
    """What a purge names."""

    ALL = "all"
    SERVICE = "service"
    ROUTE = "route"
    TAG = "tag"
    KEY = "key"
    PARTITION = "partition"


class Scope(NamedTuple):
    """
    What a purge removes. *value* is the name of a service, a route or a tag, the 32 hexadecimal digits of a key's
    address or of a partition, and ``""`` for all.
    """

    kind: ScopeKind
    value: str = ""


ALL = Scope(ScopeKind.ALL)

_ROUTE = "route "


def mark_of(route: str) -> str:
    """The mark among an answer's tags when *route* serves what another route stored. No tag has a blank."""
    return _ROUTE + route


def scope_of(tag: str) -> Scope:
    """The scope whose purge removes the answers with *tag*, which may be the mark of a route."""
    if tag.startswith(_ROUTE):
        return Scope(ScopeKind.ROUTE, tag.removeprefix(_ROUTE))
    return Scope(ScopeKind.TAG, tag)


def scopes_of(key: Key, entry: Entry) -> tuple[Scope, ...]:
    """The scopes whose purge removes *entry*."""
    return scopes(key, entry.service, entry.route, entry.tags, entry.partition)


def scopes(key: Key, service: str, route: str, tags: tuple[str, ...], partition: bytes) -> tuple[Scope, ...]:
    """The scopes whose purge removes an answer to be stored under *key*."""
    return (
        ALL,
        Scope(ScopeKind.SERVICE, service),
        Scope(ScopeKind.ROUTE, route),
        *map(scope_of, tags),
        Scope(ScopeKind.KEY, key.address.hex()),
        Scope(ScopeKind.PARTITION, partition.hex()),
    )


def taking(purged: Iterable[Scope]) -> Callable[[Key, Held], bool]:
    """A test whether a purge of *purged* removes an entry. For many entries it is cheaper than to list their scopes."""
    values: dict[ScopeKind, set[str]] = {kind: set() for kind in ScopeKind}
    for scope in purged:
        values[scope.kind].add(scope.value)
    everything = bool(values[ScopeKind.ALL])
    services, routes = values[ScopeKind.SERVICE], values[ScopeKind.ROUTE]
    tags = values[ScopeKind.TAG] | set(map(mark_of, routes))
    keys, partitions = values[ScopeKind.KEY], values[ScopeKind.PARTITION]

    def taken(key: Key, held: Held) -> bool:
        entry = held.entry
        return (
            everything
            or entry.service in services
            or entry.route in routes
            or not tags.isdisjoint(entry.tags)
            or not tags.isdisjoint(held.noted)
            or (bool(keys) and key.address.hex() in keys)
            or (bool(partitions) and entry.partition.hex() in partitions)
        )

    return taken


def write_scope(scope: Scope) -> bytes:
    """*scope* as text: equal scopes have equal texts."""
    return f"{scope.kind.value} {scope.value}".encode()


def read_scope(text: bytes) -> Scope:
    """The scope of *text*. A text that cannot be understood (perhaps of a later version) means ``ALL``."""
    try:
        kind, _, value = text.decode().partition(" ")
        return Scope(ScopeKind(kind), value)
    except ValueError:
        return ALL


class Due(NamedTuple):
    """
    A purge that has been carried out here and waits for the log. *seq*: the count at that time. If the log has the same
    scope with a number above *unless*, the purge need not be written again.
    """

    seq: int
    unless: int = ALWAYS


class Tail(NamedTuple):
    """
    What the fleet's log says, read in one step.

    *number* is that of its latest purge. *before* are the incarnations that it continues, each with the number up to
    which it has them. *node* is the run id of the server that holds it, ``""`` if unknown. *purges* are those after the
    known position, or all of them if another log was known. Those written in the same step, which have *number*, are
    left out, except what purges by a tag brought along. Several purges may have one number.
    """

    incarnation: bytes
    number: int
    before: Mapping[bytes, int] = MappingProxyType({})
    node: str = ""
    purges: tuple[tuple[Scope, int], ...] = ()


_NOTHING_SENT: Mapping[Scope, Due] = MappingProxyType({})


class Purges:
    """
    The purges that this process knows. *seq* grows with each purge that it carries out. *until*, by the clock that runs
    on, is how long this knowledge may be used without reading the log; without a log, for ever.

    ``pending`` are purges that still have to be written to the log; until then no entry that they remove is served.
    *changes* are not purges, but make entries invalid in the same way, in this process.
    """

    __slots__ = (
        "_before", "_left", "_local", "_logged", "_node", "_pending", "_settled", "changes", "position", "seq", "until",
    )  # fmt: skip

    def __init__(self, *, most_scopes: int = MOST_SCOPES) -> None:
        self.seq = 0
        self.position = Position()
        self.changes = Changes()
        self.until = inf
        self._local = _Latest(most_scopes)
        self._logged = _Latest(most_scopes)
        self._pending: dict[Scope, Due] = {}
        self._settled: dict[Scope, float] = {}
        self._before: Mapping[bytes, int] = {}
        self._left: dict[bytes, int] = {}  # lost logs, and ``seq`` at that time
        self._node = ""

    def __repr__(self) -> str:
        log = f"log {self.position.incarnation.hex()[:8] or 'unknown'} at {self.position.number}"
        return f"<Purges {self.seq} here, {log}, {len(self._pending)} pending>"

    @property
    def pending(self) -> Mapping[Scope, Due]:
        """The purges that wait for the log, as they are now."""
        return dict(self._pending)

    def purged_since(self, scopes: Iterable[Scope], seq: int) -> bool:
        """Whether one of *scopes* has been purged here after *seq*."""
        return self._local.later(scopes, seq)

    def admits(self, scopes: Iterable[Scope], position: Position) -> bool:
        """
        Whether an entry of *scopes* that carries *position* is valid: it belongs to the log that holds now, and no
        later purge, written or waiting, removes it. If the log is unknown, no entry is valid.
        """
        log, number = position
        if not log or (log != self.position.incarnation and number > self._before.get(log, -1)):
            return False
        scopes = tuple(scopes)
        if self._pending and (ALL in self._pending or not self._pending.keys().isdisjoint(scopes)):
            return False
        return not self._logged.later(scopes, number)

    def allows(self, key: Key, entry: Entry) -> bool:
        """Like ``admits``, for an entry. Most entries are newer than the last purge; their scopes need no look."""
        if entry.target and not self.changes.allows(entry):
            return False
        log, number = entry.position
        if log and log == self.position.incarnation and number >= self.position.number and not self._pending:
            return True
        return self.admits(scopes_of(key, entry), entry.position)

    def apply(self, purged: Iterable[Scope], *, pending: bool = True) -> None:
        """Carry out a purge here, now. *pending*: it still has to be written to the log."""
        purged = tuple(purged)
        self._carry_out(purged)
        if pending:
            for scope in purged:
                self._await_log(scope, Due(self.seq))

    def learn(self, tail: Tail, now: float, sent: Mapping[Scope, Due] = _NOTHING_SENT) -> tuple[Scope, ...]:
        """
        Apply what the log says at *now* (seconds, of any clock that runs on). Those of ``pending`` that were *sent* are
        in it now. Returns what else is purged here.

        If the same server has another log, it was flushed, and everything here is purged. If another server has another
        log, only the log was lost: entries here stay valid. Purges that perhaps not every process has read are written
        again.
        """
        self._settled = {scope: at for scope, at in self._settled.items() if now - at <= SETTLING_SECONDS}
        news = self._change_to(tail) if tail.incarnation != self.position.incarnation else []
        self.position = Position(tail.incarnation, tail.number)
        self._before, self._node = tail.before, tail.node or self._node
        for scope, number in sorted(tail.purges, key=lambda purge: purge[1]):
            if number > self._logged.at(scope):
                news.append(scope)
            self._logged.note(scope, number)
        for scope, due in sent.items():
            self._logged.note(scope, tail.number)
            self._settled[scope] = now
            if self._pending.get(scope) == due:
                del self._pending[scope]
        self._carry_out(news)
        return tuple(news)

    def _change_to(self, tail: Tail) -> list[Scope]:
        """Change to another log. Returns what this change alone purges here."""
        known, news = self.position.incarnation, []
        if (base := self._shared(tail)) is not None:
            news += self._go_on_from(base, {scope for scope, number in tail.purges if number > base})
        else:
            self._logged.clear()
            if known and tail.node and self._node and tail.node != self._node:
                for scope in self._settled:
                    self._await_log(scope, Due(self.seq))
                for name in (*self._before, known):
                    self._leave(name)
            elif known:
                news.append(ALL)
            self._settled.clear()
        if self._missed({tail.incarnation, *tail.before}):
            news.append(ALL)
            self._await_log(ALL, Due(self.seq))
        return news

    def _leave(self, name: bytes) -> None:
        self._left.pop(name, None)
        self._left[name] = self.seq
        if len(self._left) > MOST_LEFT:
            del self._left[next(iter(self._left))]

    def _missed(self, names: Iterable[bytes]) -> bool:
        """Whether one of these logs counted as lost, is back, and does not know the purges since."""
        return any(self._left.pop(name, self.seq) < self.seq for name in names)

    def _shared(self, tail: Tail) -> int | None:
        """Up to which number the known log and this one are the same; None if they have nothing in common."""
        ours = {**self._before, self.position.incarnation: self.position.number}
        theirs = {**tail.before, tail.incarnation: tail.number}
        return max((min(ours[name], theirs[name]) for name in ours.keys() & theirs.keys() if name), default=None)

    def _go_on_from(self, base: int, there: set[Scope]) -> list[Scope]:
        """
        The log may have lost its purges after *base*. Those that are not *there* are written again by this process.

        Returns these, because they must be carried out here now: once they are written, this process takes a purge of
        the same scope in the log for its own, although another process may have written it, for a later purge.
        """
        ours = dict.fromkeys((*self._logged.drop_after(base), *self._pending))
        lost = [scope for scope in ours if scope not in there and ALL not in there]
        for scope in lost:
            if scope not in self._pending:
                self._await_log(scope, Due(self.seq, base))
        return lost

    def _carry_out(self, purged: Iterable[Scope]) -> None:
        for scope in purged:
            self.seq += 1
            self._local.note(scope, self.seq)

    def _await_log(self, scope: Scope, due: Due) -> None:
        full = len(self._pending) >= MOST_PENDING and scope not in self._pending
        if scope == ALL or ALL in self._pending or full:
            self._pending = {ALL: Due(due.seq) if self._pending else due}  # newer than a purge that is being written
        else:
            self._pending[scope] = due


class _Latest:
    """When each scope was last purged, as a count that only grows; beyond *most* scopes the oldest are in ``ALL``."""

    __slots__ = ("_all", "_counts", "_most")

    def __init__(self, most: int) -> None:
        self._counts: OrderedDict[Scope, int] = OrderedDict()
        self._all = 0
        self._most = most

    def note(self, scope: Scope, count: int) -> None:
        if scope == ALL:
            self._counts.clear()
            self._all = count
            return
        self._counts[scope] = count
        self._counts.move_to_end(scope)
        if len(self._counts) > self._most:
            _, self._all = self._counts.popitem(last=False)

    def clear(self) -> None:
        self._counts.clear()
        self._all = 0

    def at(self, scope: Scope) -> int:
        return max(self._all, self._counts.get(scope, 0))

    def later(self, scopes: Iterable[Scope], count: int) -> bool:
        return self._all > count or any(self._counts.get(scope, 0) > count for scope in scopes)

    def drop_after(self, count: int) -> list[Scope]:
        """The scopes purged after *count*; from now on, at *count*."""
        if self._all > count:
            self._counts.clear()
            self._all = count
            return [ALL]
        drop_after = [scope for scope, at in self._counts.items() if at > count]
        self._counts.update(dict.fromkeys(drop_after, count))
        return drop_after
