"""Purges: what a scope takes, and that nothing older than a known purge is ever admitted or kept, whatever befalls."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sidecar.core.cache.held import hold
from sidecar.core.cache.purges import (
    ALL,
    ALWAYS,
    MOST_PENDING,
    SETTLING_SECONDS,
    Due,
    Purges,
    Scope,
    ScopeKind,
    Tail,
    mark_of,
    read_scope,
    scopes,
    scopes_of,
    taking,
    write_scope,
)
from sidecar.core.model import Entry, Form, Key, Position

ONE, OTHER = bytes(16), bytes([7] * 16)
A, B, C = (Scope(ScopeKind.TAG, tag) for tag in "abc")


def key(number: int = 0) -> Key:
    return Key(number.to_bytes(16, "big"), number.to_bytes(32, "big"))


def entry(service="openai", route="chat", tags=(), partition=ONE) -> Entry:
    return Entry(200, (), b"", Form.WHOLE, service, route, "", 0.0, 60.0, tags=tags, partition=partition)


def tail(number, *purged, incarnation=b"one", node="n1", before=None) -> Tail:
    return Tail(incarnation, number, before or {}, node, purged)


def of(scope) -> tuple[Scope, ...]:
    """What an entry that *scope* takes goes by."""
    return (ALL, scope)


@pytest.mark.parametrize(
    ("scope", "taken"),
    [
        pytest.param(ALL, True, id="all"),
        pytest.param(Scope(ScopeKind.SERVICE, "openai"), True, id="its-service"),
        pytest.param(Scope(ScopeKind.SERVICE, "open"), False, id="another-service"),
        pytest.param(Scope(ScopeKind.ROUTE, "chat"), True, id="its-route"),
        pytest.param(Scope(ScopeKind.ROUTE, "openai"), False, id="a-route-called-as-its-service"),
        pytest.param(Scope(ScopeKind.TAG, "ocr"), True, id="one-of-its-tags"),
        pytest.param(Scope(ScopeKind.TAG, "chat"), False, id="a-tag-called-as-its-route"),
        pytest.param(Scope(ScopeKind.ROUTE, "ocr"), False, id="a-route-called-as-its-tag"),
        pytest.param(Scope(ScopeKind.KEY, key(5).address.hex()), True, id="its-key"),
        pytest.param(Scope(ScopeKind.KEY, key(6).address.hex()), False, id="another-key"),
        pytest.param(Scope(ScopeKind.PARTITION, OTHER.hex()), True, id="its-partition"),
        pytest.param(Scope(ScopeKind.PARTITION, ONE.hex()), False, id="another-partition"),
    ],
)
def test_scopes(scope, taken):
    """What a purge takes, said of one entry and asked of many, is the same."""
    kept = entry(tags=("ocr", "x"), partition=OTHER)

    assert taken == (scope in scopes_of(key(5), kept))
    assert taken == taking([scope, Scope(ScopeKind.TAG, "none")])(key(5), hold(kept, 0.0, 0.0))
    assert scopes_of(key(5), kept) == scopes(key(5), "openai", "chat", ("ocr", "x"), OTHER)
    assert not taking([])(key(5), hold(kept, 0.0, 0.0))


@pytest.mark.parametrize(
    ("scope", "taken"),
    [
        pytest.param(Scope(ScopeKind.TAG, "noted"), True, id="a-tag-noted-beside-it"),
        pytest.param(Scope(ScopeKind.ROUTE, "team"), True, id="a-route-noted-beside-it"),
        pytest.param(Scope(ScopeKind.TAG, "team"), False, id="a-tag-called-as-a-noted-route"),
        pytest.param(Scope(ScopeKind.ROUTE, "noted"), False, id="a-route-called-as-a-noted-tag"),
        pytest.param(Scope(ScopeKind.TAG, "other"), False, id="another-tag"),
    ],
)
def test_taking_what_is_noted(scope, taken):
    """A purge by a tag, or by a route, takes what has it noted beside it, too, or among the tags it took over."""
    noted = ("noted", mark_of("team"))

    assert taken == taking([scope])(key(), hold(entry(tags=("own",)), 0.0, 0.0, noted))
    assert taken == taking([scope])(key(), hold(entry(tags=("own", *noted)), 0.0, 0.0))
    assert taken == (scope in scopes_of(key(), entry(tags=("own", *noted))))


SCOPES = st.one_of(
    st.just(ALL),
    st.builds(Scope, st.sampled_from([kind for kind in ScopeKind if kind is not ScopeKind.ALL]), st.text(max_size=9)),
)


@given(SCOPES)
def test_scope_as_text(scope):
    """A scope's text is read as that scope again."""

    assert scope == read_scope(write_scope(scope))


@pytest.mark.parametrize("text", [b"", b"all", b"planet earth", b"\xff\xfe x", b"tags a"])
def test_unknown_scope_is_all(text):
    """What a later version may mean by its scopes is taken for everything."""

    assert read_scope(text).kind is ScopeKind.ALL


def test_purged_since():
    """What started before a purge of one of its scopes may not be kept; what started after it may."""
    purges = Purges()
    before = purges.seq
    purges.apply([A])

    assert purges.purged_since(of(A), before)
    assert not purges.purged_since(of(B), before)
    assert not purges.purged_since(of(A), purges.seq)

    purges.apply([ALL])

    assert purges.purged_since(of(B), before + 1)
    assert not purges.purged_since(of(B), purges.seq)


def test_nothing_is_admitted_of_an_unknown_log():
    """Before the log was read no position is worth anything, not even that of nothing known."""
    purges = Purges()

    assert Position() == purges.position
    assert not purges.admits(of(A), Position())
    assert not purges.admits(of(A), Position(b"one", 9))


def test_admits():
    """An entry is valid while no purge of one of its scopes has a higher number; of another log it never is."""
    purges = Purges()
    news = purges.learn(tail(7, (A, 5), (B, 7)), 0.0)

    assert (A, B) == news
    assert Position(b"one", 7) == purges.position
    assert [False, True, True] == [purges.admits(of(A), Position(b"one", number)) for number in (4, 5, 9)]
    assert [False, True] == [purges.admits((*of(A), B), Position(b"one", number)) for number in (6, 7)]
    assert purges.admits(of(C), Position(b"one", 0))
    assert not purges.admits(of(C), Position(b"two", 100))

    purges.learn(tail(8, (ALL, 8)), 0.0)

    assert not purges.admits(of(C), Position(b"one", 7))


def test_pending_purge_forbids_until_it_is_numbered():
    """A purge that is not in the log yet forbids all entries of its scope; then those that are older."""
    purges = Purges()
    purges.learn(tail(3), 0.0)
    purges.apply([A])
    sent = purges.pending

    assert {A: Due(1)} == sent
    assert not purges.admits(of(A), Position(b"one", 3))
    assert purges.admits(of(B), Position(b"one", 3))
    assert () == purges.learn(tail(5, (B, 4)), 0.0, sent)[1:]
    assert {} == purges.pending
    assert not purges.admits(of(A), Position(b"one", 4))
    assert purges.admits(of(A), Position(b"one", 5))


def test_our_own_purge_is_no_news():
    """What was written from here has been carried out here; an equal purge by others before it has not."""
    purges = Purges()
    purges.learn(tail(3), 0.0)
    purges.apply([A])
    seq = purges.seq

    assert () == purges.learn(tail(4), 0.0, purges.pending)
    assert not purges.purged_since(of(A), seq)

    purges.apply([A])
    seq = purges.seq

    assert (A,) == purges.learn(tail(6, (A, 5)), 0.0, purges.pending)
    assert purges.purged_since(of(A), seq)


@pytest.mark.parametrize("scope", [A, ALL])
@pytest.mark.parametrize("later", [A, B, ALL])
def test_purged_again_while_it_is_being_written(scope, later):
    """A purge that comes while others are being written is not taken for one of them."""
    purges = Purges()
    purges.learn(tail(3), 0.0)
    purges.apply([scope])
    sent = purges.pending
    purges.apply([later])
    purges.learn(tail(4), 0.0, sent)

    assert not purges.admits(of(later), Position(b"one", 4))
    assert purges.pending


def test_no_log_no_pending():
    """Where there is no log, nothing waits for it."""
    purges = Purges()
    purges.apply([A], pending=False)

    assert {} == purges.pending
    assert purges.purged_since(of(A), 0)


def test_scopes_are_folded():
    """Past the bound the oldest are folded into all: what they forbade stays forbidden, and more with it."""
    purges = Purges(most_scopes=3)
    many = [Scope(ScopeKind.TAG, str(number)) for number in range(5)]
    purges.learn(tail(5, *[(scope, number + 1) for number, scope in enumerate(many)]), 0.0)

    assert [False] * 5 == [purges.admits(of(scope), Position(b"one", number)) for number, scope in enumerate(many)]
    assert [False, True] == [purges.admits(of(A), Position(b"one", number)) for number in (1, 2)]
    assert [True] * 5 == [purges.purged_since(of(scope), number) for number, scope in enumerate(many)]
    assert [True, False] == [purges.purged_since(of(A), number) for number in (1, 2)]


def test_pending_is_folded():
    """More than a thousand purges that wait are one of all, also where one comes again; it is written in any case."""
    purges = Purges()
    for number in range(MOST_PENDING):
        purges.apply([Scope(ScopeKind.TAG, str(number))])
    purges.apply([Scope(ScopeKind.TAG, "0")])

    assert MOST_PENDING == len(purges.pending)

    purges.apply([A])
    purges.apply([B])

    assert {ALL: Due(purges.seq, ALWAYS)} == purges.pending


class TestLossOfTheLog:
    """What is left of a log tells what became of it."""

    def known(self) -> Purges:
        purges = Purges()
        purges.learn(tail(6, (B, 5), (C, 6)), 0.0)
        purges.apply([A])
        purges.learn(tail(7), 100.0, purges.pending)
        return purges

    @pytest.mark.parametrize("node", ["n1", ""], ids=["same server", "untold"])
    def test_flushed(self, node):
        """The server has another log: somebody flushed, and everything here is purged."""
        purges = self.known()

        assert (ALL, B) == purges.learn(tail(1, (B, 1), incarnation=b"two", node=node), 101.0)
        assert {} == purges.pending
        assert not purges.admits(of(C), Position(b"one", 7))
        assert purges.admits(of(C), Position(b"two", 1))

    def test_new_server(self):
        """Another server with another log: nothing here is purged; what waited waits, and what may not have spread."""
        purges = self.known()
        purges.apply([C])

        assert () == purges.learn(tail(0, incarnation=b"two", node="n2"), 100.0 + SETTLING_SECONDS)
        assert {A, C} == set(purges.pending)
        assert not purges.admits(of(B), Position(b"one", 7))
        assert purges.admits(of(B), Position(b"two", 0))

    def test_new_server_later(self):
        """What has been in the log for long has been read by everybody."""
        purges = self.known()
        purges.learn(tail(0, incarnation=b"two", node="n2"), 100.1 + SETTLING_SECONDS)

        assert {} == purges.pending

    @pytest.mark.parametrize(
        ("base", "there", "missed"),
        [
            pytest.param(7, (), set(), id="nothing lost"),
            pytest.param(9, (A, C), set(), id="others were further"),
            pytest.param(5, (), {A, C}, id="the last two lost"),
            pytest.param(5, (C,), {A}, id="one written again by others"),
            pytest.param(0, (ALL,), set(), id="all purged since"),
        ],
    )
    def test_failover(self, base, there, missed):
        """
        Another server goes on with the log: what it lost is to be written again, unless it is there already; and it is
        carried out here once more, for an equal purge may be lost with it.
        """
        purges = self.known()
        news = purges.learn(
            tail(
                base + 1, *[(scope, base + 1) for scope in there], incarnation=b"two", node="n2", before={b"one": base}
            ),
            101.0,
        )

        assert sorted([*missed, *there]) == sorted(news)
        assert missed == set(purges.pending)
        assert not missed or {base} == {due.unless for due in purges.pending.values()}
        assert not purges.admits(of(A), Position(b"one", min(base, 6)))

    def test_positions_after_a_failover(self):
        """What was known up to where the log goes on counts; what was known of the part that is lost does not."""
        purges = self.known()
        purges.learn(tail(6, incarnation=b"two", node="n2", before={b"one": 6}), 101.0)

        assert [False, True, True, False] == [purges.admits(of(B), Position(b"one", number)) for number in (4, 5, 6, 7)]
        assert purges.admits(of(B), Position(b"two", 6))
        assert not purges.admits(of(A), Position(b"two", 6))  # it is to be written again

        purges.learn(tail(7, incarnation=b"two", node="n2", before={b"one": 6}), 101.0, purges.pending)

        assert [False, True] == [purges.admits(of(A), Position(b"two", number)) for number in (6, 7)]

    def test_two_failovers_of_which_one_is_lost(self):
        """A log that doesn't go on from the one we knew, but from the one before, lost what came after that."""
        purges = self.known()
        purges.learn(tail(7, incarnation=b"two", node="n2", before={b"one": 7}), 101.0)
        purges.apply([B])
        purges.learn(tail(8, incarnation=b"two", node="n2", before={b"one": 7}), 101.0, purges.pending)
        news = purges.learn(
            tail(6, (B, 5), (C, 6), incarnation=b"three", node="n3", before={b"one": 6}), 102.0 + SETTLING_SECONDS
        )

        assert {A, B} == set(news)
        assert {A: 6, B: 6} == {scope: due.unless for scope, due in purges.pending.items()}
        assert purges.admits(of(C), Position(b"one", 6))
        assert not purges.admits(of(C), Position(b"two", 8))

    def test_all_lost_in_a_failover(self):
        """A lost purge of all forbids everything until it is written again."""
        purges = self.known()
        purges.apply([ALL])
        purges.learn(tail(8), 101.0, purges.pending)
        lost = purges.seq
        purges.learn(tail(7, incarnation=b"two", node="n2", before={b"one": 7}), 101.0)

        assert {ALL: Due(lost, 7)} == purges.pending
        assert not purges.admits(of(B), Position(b"two", 7))

    def test_failover_and_a_purge_that_waits(self):
        """What waits is written in any case, also where the log had an equal one."""
        purges = self.known()
        purges.apply([A])
        waiting = purges.seq
        purges.learn(tail(6, incarnation=b"two", node="n2", before={b"one": 6}), 101.0)

        assert {A: Due(waiting, ALWAYS)} == purges.pending

    @pytest.mark.parametrize("answered", [True, False], ids=["written", "waiting"])
    def test_two_purge_the_same_before_a_failover(self, answered):
        """Who writes it first in the new log has heard of the other's, who finds it there and has nothing to write."""
        old, one, two = Log(), Purges(), Purges()
        for purges in (one, two):
            exchange(purges, old)
        new = old.copy(node=2)
        one.apply([A])
        if answered:
            exchange(one, old)
        seq = one.seq
        two.apply([A])
        exchange(two, old)
        for purges in (one, two, one, two):
            exchange(purges, new)

        assert one.purged_since(of(A), seq)
        assert ({}, {}) == (one.pending, two.pending)
        assert 1 == len(new.purges)


def test_repr():
    """Purges tell their state."""
    purges = Purges()

    assert "<Purges 0 here, log unknown at 0, 0 pending>" == repr(purges)

    purges.learn(tail(3, incarnation=b"\xab" * 16), 0.0)
    purges.apply([A])

    assert "<Purges 1 here, log abababab at 3, 1 pending>" == repr(purges)


class Log:
    """The log as the script keeps it, and which purges have come into it."""

    def __init__(self, incarnation=1, node=1):
        self.incarnation, self.node, self.holder = b"%d" % incarnation, node, node
        self.number = 0
        self.before: dict[bytes, int] = {}
        self.purges: dict[Scope, int] = {}
        self.ids: set[int] = set()

    def copy(self, node):
        other = Log(0, node)
        other.incarnation, other.holder, other.number = self.incarnation, self.holder, self.number
        other.before, other.purges, other.ids = dict(self.before), dict(self.purges), set(self.ids)
        return other

    def exchange(self, known: Position, sent, fresh) -> Tail:
        if self.node != self.holder:
            self.before[self.incarnation] = self.number
            self.incarnation, self.holder = b"%d" % fresh, self.node
        since = min(known.number, self.before.get(known.incarnation, known.number))
        if known.incarnation not in {self.incarnation, *self.before}:
            since = -1
        new = tuple((scope, number) for scope, number in self.purges.items() if number > since)
        written = [scope for scope, due in sent.items() if self.purges.get(scope, 0) <= due.unless]
        for scope in written:
            self.purges[scope] = self.number + 1
        self.number += bool(written)
        if len(self.purges) > 3:
            oldest = sorted(self.purges, key=self.purges.__getitem__)[:2]
            folded = max(self.purges.pop(scope) for scope in oldest)
            self.purges[ALL] = max(folded, self.purges.get(ALL, 0))
        return Tail(self.incarnation, self.number, dict(self.before), str(self.node), new)


def exchange(purges: Purges, log: Log) -> None:
    """One reading and writing of *log*; a new incarnation has the number of its node."""
    sent = purges.pending
    purges.learn(log.exchange(purges.position, sent, log.node), 0.0, sent)


class Process:
    """A process's purges, and which ones it has heard of, and when."""

    def __init__(self):
        self.purges = Purges(most_scopes=3)
        self.heard: dict[int, int] = {}
        self.waiting: set[int] = set()


class Fleet(RuleBasedStateMachine):
    """Two processes and a log that is flushed, replaced, and rolled back, against one who forgets nothing."""

    @initialize()
    def begin(self):
        self.log = Log()
        self.replica = self.log.copy(node=2)
        self.time = self.begun = 0
        self.nodes = 2
        self.made: dict[int, Scope] = {}
        self.processes = [Process() for _ in range(2)]
        self.entries: list[tuple[Scope, Position, int]] = []
        self.flights: list[tuple[Process, Scope, int, int]] = []

    def tick(self) -> int:
        self.time += 1
        return self.time

    who = st.integers(0, 1)
    what = st.sampled_from([A, A, A, B, C, Scope(ScopeKind.TAG, "d"), Scope(ScopeKind.TAG, "e")])

    @rule(who=who, scope=st.one_of(what, what, what, what, st.just(ALL)))
    def purge(self, who, scope):
        process, name = self.processes[who], self.tick()
        process.purges.apply([scope])
        process.heard[name] = name
        process.waiting.add(name)
        self.made[name] = scope

    @rule(who=who, whole=st.sampled_from([True, True, True, False]))
    def exchange(self, who, whole):
        """One reading of the log; where not *whole*, its answer is lost on the way."""
        process, now = self.processes[who], self.tick()
        purges = process.purges
        known, sent = purges.position, purges.pending
        found = set(self.log.ids)
        answer = self.log.exchange(known, sent, now)
        self.log.ids |= process.waiting
        if known.incarnation == answer.incarnation:  # who has been here has written again what was lost
            self.log.ids |= {name for name in process.heard if name > self.begun and not self.covered(name)}
        if whole:
            purges.learn(answer, now * 2.0, sent)
            process.waiting.clear()
            for name in found:
                process.heard.setdefault(name, now)

    def covered(self, name: int) -> bool:
        """Whether the log has a later purge of all that *name* purged: then *name* is not written again."""
        return any(later > name and self.made[later] in (ALL, self.made[name]) for later in self.log.ids)

    @rule()
    def replicate(self):
        self.replica = self.log.copy(node=self.nodes)

    @rule()
    def fail_over(self):
        self.log = self.replica
        self.nodes += 1
        self.replica = self.log.copy(node=self.nodes)

    @rule(same=st.booleans())
    def lose(self, same):
        """The log is flushed, or its server replaced by an empty one."""
        self.nodes += not same
        self.log = Log(self.tick() + 1, self.log.node if same else self.nodes)
        self.nodes += 1
        self.replica = self.log.copy(node=self.nodes)
        self.begun = self.time

    @rule(who=who, scope=what)
    def fetch(self, who, scope):
        process = self.processes[who]
        self.entries.append((scope, process.purges.position, self.time))
        self.flights.append((process, scope, process.purges.seq, self.time))

    @invariant()
    def admitted(self):
        """What a process admits is older than no purge of it that the process has heard of."""
        for process in self.processes:
            for scope, position, started in self.entries:
                if process.purges.admits(of(scope), position):
                    later = [name for name in process.heard if name > started and self.made[name] in of(scope)]

                    assert [] == later

    @invariant()
    def kept(self):
        """What may be kept has been purged by nothing that was heard of since its call."""
        for process, scope, seq, started in self.flights:
            if not process.purges.purged_since(of(scope), seq):
                later = [name for name, at in process.heard.items() if at > started and self.made[name] in of(scope)]

                assert [] == later


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@given(st.data())
def test_allows_what_it_admits(data):
    """Of an entry at hand the short way says what the long one does."""
    log, other = b"\x01" * 16, b"\x02" * 16
    purges = Purges()
    at = data.draw(st.integers(0, 5))
    named = st.sampled_from([ALL, Scope(ScopeKind.SERVICE, "openai"), Scope(ScopeKind.TAG, "x")])
    purged = data.draw(st.lists(st.tuples(named, st.integers(1, 5)), max_size=3)) if at else []
    purges.learn(Tail(log, at, purges=tuple((scope, min(number, at)) for scope, number in purged)), 0.0)
    if data.draw(st.booleans()):
        purges.apply((data.draw(named),))
    position = Position(data.draw(st.sampled_from([log, other, b""])), data.draw(st.integers(0, 6)))
    entry = Entry(200, (), b"", Form.WHOLE, "openai", "chat", "m", 0.0, 60.0, tags=("t",), position=position)
    key = Key(b"a" * 16, b"p" * 32)

    assert purges.admits(scopes_of(key, entry), position) == purges.allows(key, entry)


def test_a_log_that_was_given_up_comes_back():
    """A server fails, an empty one takes its place, something is purged, and the first one is back: it doesn't know."""
    first, second = b"A" * 16, b"B" * 16
    old = Position(first, 5)
    x = Scope(ScopeKind.TAG, "x")
    purges = Purges()
    purges.learn(Tail(first, 5, node="a"), 0.0)
    assert () == purges.learn(Tail(second, 0, node="b"), 10.0)
    purges.apply((x,))
    purges.learn(Tail(second, 1, node="b"), 20.0, purges.pending)

    assert (ALL,) == purges.learn(Tail(first, 5, node="a"), 40.0)
    assert {ALL} == set(purges.pending)
    assert not purges.admits((ALL, x), old)
    purges.learn(Tail(first, 6, node="a", purges=((ALL, 6),)), 41.0, purges.pending)
    assert not purges.admits((ALL, x), old)
    assert purges.admits((ALL, x), Position(first, 6))


def test_a_log_that_was_given_up_and_missed_nothing():
    """Where nothing was purged meanwhile, the first one's entries are as good as they were."""
    first, second = b"A" * 16, b"B" * 16
    purges = Purges()
    purges.learn(Tail(first, 5, node="a"), 0.0)
    purges.learn(Tail(second, 0, node="b"), 10.0)

    assert () == purges.learn(Tail(first, 5, node="a"), 40.0)
    assert purges.admits((ALL,), Position(first, 5))
