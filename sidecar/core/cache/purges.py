"""
What has been purged, and so what of an earlier time may no longer be served, shared or kept.

The rule: nothing here forgets a purge that still matters; where something has to be folded for room, it becomes a
wider purge, never a narrower one.

Time is told in two ways. *seq* counts the purges that this process has carried out: a flight remembers it when it
starts, and what it brings may be kept if no purge of it has come since. A ``Position`` tells how far the fleet's log
was known: an entry carries it, and any process can tell whether a purge in the log came later. Numbers of one log
only grow; when another server takes it over, perhaps without its latest purges, what goes on there is another
incarnation, which says up to which number it has the one before.
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
"""Scopes that are told apart; the oldest beyond are folded into ``ALL``."""

MOST_LEFT = 32
"""Lost logs that are remembered, in case they come back."""

MOST_PENDING = 1000
"""Purges that wait for the log; more of them are one of ``ALL``."""

SETTLING_SECONDS = 5.0
"""
How long a purge may need, once in the log, until every process has read it there: each reads once a second. When the
log is lost within that time, whoever wrote the purge writes it again.
"""

ALWAYS = 2**53
"""As ``Due.unless``: above every number."""


class ScopeKind(StrEnum):
    """What a purge goes by."""

    ALL = "all"
    SERVICE = "service"
    ROUTE = "route"
    TAG = "tag"
    KEY = "key"
    PARTITION = "partition"


class Scope(NamedTuple):
    """
    What a purge takes. *value* is the name of a service, a route or a tag, the 32 hexadecimal digits of a key's
    address or of a partition, and ``""`` for all.
    """

    kind: ScopeKind
    value: str = ""


ALL = Scope(ScopeKind.ALL)

_ROUTE = "route "


def mark_of(route: str) -> str:
    """What stands among an answer's tags once *route* has served it that another route stored. No tag has a blank."""
    return _ROUTE + route


def scope_of(tag: str) -> Scope:
    """The scope whose purge takes the answers with *tag*, which may be the mark of a route."""
    if tag.startswith(_ROUTE):
        return Scope(ScopeKind.ROUTE, tag.removeprefix(_ROUTE))
    return Scope(ScopeKind.TAG, tag)


def scopes_of(key: Key, entry: Entry) -> tuple[Scope, ...]:
    """The scopes whose purge takes *entry*."""
    return scopes(key, entry.service, entry.route, entry.tags, entry.partition)


def scopes(key: Key, service: str, route: str, tags: tuple[str, ...], partition: bytes) -> tuple[Scope, ...]:
    """The scopes whose purge takes an answer to be stored under *key*."""
    return (
        ALL,
        Scope(ScopeKind.SERVICE, service),
        Scope(ScopeKind.ROUTE, route),
        *map(scope_of, tags),
        Scope(ScopeKind.KEY, key.address.hex()),
        Scope(ScopeKind.PARTITION, partition.hex()),
    )


def taking(purged: Iterable[Scope]) -> Callable[[Key, Held], bool]:
    """Whether a purge of *purged* takes what is held: for many entries, cheaper than the scopes of each."""
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
    """The scope of *text*. What cannot be understood, of a later version perhaps, means ``ALL``."""
    try:
        kind, _, value = text.decode().partition(" ")
        return Scope(ScopeKind(kind), value)
    except ValueError:
        return ALL


class Due(NamedTuple):
    """
    A purge that is carried out here and waits for the log. *seq* is when; *unless* a number in the log above which the
    same scope stands there already, so that the purge need not be written again.
    """

    seq: int
    unless: int = ALWAYS


class Tail(NamedTuple):
    """
    What the fleet's log says, read in one step.

    *number* is that of its latest purge. *before* are the incarnations that it goes on from, each with the number up to
    which it has it. *node* is the run id of the server that holds it, ``""`` where that is not told. *purges* are those
    after what was known, or all where another log was, without those that were written in this same step and have
    *number* now, but with what those by a tag brought with them; one number may be that of several.
    """

    incarnation: bytes
    number: int
    before: Mapping[bytes, int] = MappingProxyType({})
    node: str = ""
    purges: tuple[tuple[Scope, int], ...] = ()


_NOTHING_SENT: Mapping[Scope, Due] = MappingProxyType({})


class Purges:
    """
    The purges that this process knows of. *seq* grows with each that it carries out. *until*, by the clock that runs
    on, is how long what is known here may be gone by without the log being read; without a log for ever.

    ``pending`` are those that the log should have and hasn't: no entry of theirs is admitted meanwhile. *changes* are
    no purges, but make entries invalid in the same way, here.
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
        self._left: dict[bytes, int] = {}  # logs that were lost with their server, and ``seq`` at that time
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
        Whether an entry of *scopes* that carries *position* is valid: it is of the log that holds now, and no purge of
        it came later, nor waits to be written. Of an unknown log nothing is.
        """
        log, number = position
        if not log or (log != self.position.incarnation and number > self._before.get(log, -1)):
            return False
        scopes = tuple(scopes)
        if self._pending and (ALL in self._pending or not self._pending.keys().isdisjoint(scopes)):
            return False
        return not self._logged.later(scopes, number)

    def allows(self, key: Key, entry: Entry) -> bool:
        """As ``admits``, of an entry. Most were asked for after the last purge, and need no look at their scopes."""
        if not self.changes.allows(entry):
            return False
        log, number = entry.position
        if log and log == self.position.incarnation and number >= self.position.number and not self._pending:
            return True
        return self.admits(scopes_of(key, entry), entry.position)

    def apply(self, purged: Iterable[Scope], *, pending: bool = True) -> None:
        """Something is purged now, here; *pending*: and the log should have it."""
        purged = tuple(purged)
        self._carry_out(purged)
        if pending:
            for scope in purged:
                self._await_log(scope, Due(self.seq))

    def learn(self, tail: Tail, now: float, sent: Mapping[Scope, Due] = _NOTHING_SENT) -> tuple[Scope, ...]:
        """
        Take in what the log says at *now* (seconds, of any clock that runs on); those of ``pending`` that were *sent*
        are in it now. Returns what else that purges here.

        A log that is gone from the server that had it was flushed, and so is everything here. Another server with
        another log has merely lost everything: what is here stays, but for what may not have reached everybody.
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
        """There is another log. Returns what that alone purges here."""
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
        """Whether one of these logs was given up for lost, is back, and does not know of purges since."""
        return any(self._left.pop(name, self.seq) < self.seq for name in names)

    def _shared(self, tail: Tail) -> int | None:
        """Up to which number the log that we know and this one are the same; None: they have nothing in common."""
        ours = {**self._before, self.position.incarnation: self.position.number}
        theirs = {**tail.before, tail.incarnation: tail.number}
        return max((min(ours[name], theirs[name]) for name in ours.keys() & theirs.keys() if name), default=None)

    def _go_on_from(self, base: int, there: set[Scope]) -> list[Scope]:
        """
        The log may have lost what came after *base*: that is to be written again, unless it is *there* once more.

        Returns what is written from here, and so is no news here when it is read: somebody may have purged the same
        later, and takes what we write for his own. What was lost came before this; whatever it took is purged by now.
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
            self._pending = {ALL: Due(due.seq) if self._pending else due}  # newer than one that is being written
        else:
            self._pending[scope] = due


class _Latest:
    """When each scope was purged last, in counts that only grow; beyond *most* scopes the oldest are in ``ALL``."""

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
