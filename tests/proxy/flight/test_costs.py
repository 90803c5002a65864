"""In whose record a call's cost is booked: once, and never lost while somebody reads."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from sidecar.core.draft import Draft
from sidecar.core.memory_budget import Ledger
from sidecar.core.model import Form, Outcome
from sidecar.errors import Cause, UpstreamFailed
from sidecar.proxy.flight.flight import Flight
from sidecar.proxy.flight.opening import Opening
from sidecar.proxy.flight.reader import Reader

OPENING = Opening(200, (), (), Form.WHOLE)


class Task:
    """A fetch that goes on until it is *over*."""

    over = False

    def done(self):
        return self.over


def draft_of(number=0):
    return Draft(b"%d" % number, 0.0, 0.0, "s", "r", "e", b"POST", Outcome.MISS)


def flight_of():
    return Flight(
        "key",
        limit=1024,
        ledger=Ledger(1024),
        generating=False,
        on_close=lambda _: None,
        on_abandon=lambda _: False,
    )


def joined(flight, count, credential=b""):
    readers = [Reader(flight, credential, draft_of(number)) for number in range(count)]
    return [*readers, *(reader.draft for reader in readers)]


def spend(flight):
    """What the fetch books when the answer's head is there."""
    draft = flight.draft
    draft.attempts += 1
    draft.upstream_seconds += 2.5
    draft.region, draft.upstream_status, draft.upstream_id, draft.reason = "eu", 200, "id", "status"


def told(draft):
    return draft.attempts, draft.upstream_seconds, draft.region, draft.upstream_status, draft.upstream_id, draft.reason


SPENT = (1, 2.5, "eu", 200, "id", "status")


def test_owner_pays():
    """The first to join has the cost in its record; who leaves before it changes nothing."""
    flight = flight_of()
    _, other, own, others = joined(flight, 2)
    spend(flight)
    other.leave()

    assert own is flight.draft
    assert SPENT == told(own)
    assert 0 == others.attempts


@pytest.mark.parametrize("spent", [True, False], ids=["after the head", "before it"])
def test_owner_leaves_early(spent):
    """What an owner that leaves has spent goes to the next in line, and what is spent later too."""
    flight = flight_of()
    owner, _, _, own, heir, third = joined(flight, 3)
    if spent:
        spend(flight)
    owner.leave()
    if not spent:
        spend(flight)

    assert heir is flight.draft
    assert SPENT == told(heir)
    assert (0, 0.0) == (own.attempts, own.upstream_seconds)
    assert 0 == third.attempts


def test_heir_leaves_as_well():
    """The cost goes from heir to heir; the last keeps it."""
    flight = flight_of()
    owner, second, third, _, seconds, thirds = joined(flight, 3)
    spend(flight)
    owner.leave()
    second.leave()

    assert 0 == seconds.attempts
    assert SPENT == told(thirds)

    third.leave()

    assert SPENT == told(thirds)


def test_heir_is_released():
    """An heir that the answer is not for leaves the cost to one that it is for."""
    flight = flight_of()
    owner = Reader(flight, b"mine", draft_of())
    others, mine = draft_of(1), draft_of(2)
    Reader(flight, b"another", others)
    Reader(flight, b"mine", mine)
    spend(flight)
    owner.leave()

    assert SPENT == told(others)

    flight.release(lambda reader: reader.credential == b"mine")

    assert 0 == others.attempts
    assert SPENT == told(mine)
    assert mine is flight.draft


def test_heir_adds_to_its_own():
    """A record that had a call of its own has both."""
    flight = flight_of()
    owner, _, _, heir = joined(flight, 2)
    heir.attempts, heir.upstream_seconds = 1, 1.0
    spend(flight)
    owner.leave()

    assert (2, 3.5) == (heir.attempts, heir.upstream_seconds)


@pytest.mark.parametrize("end", ["finish", "fail", "settle"])
def test_owner_leaves_at_the_end(end):
    """When the cost is final it stays where it is."""
    flight = flight_of()
    owner, _, own, others = joined(flight, 2)
    spend(flight)
    if end == "finish":
        flight.open(OPENING)
        flight.finish()
    elif end == "fail":
        flight.fail(UpstreamFailed(Cause.TRUNCATED))
    else:
        flight.complete = flight.settled = True
    owner.leave()

    assert SPENT == told(own)
    assert 0 == others.attempts
    assert own is flight.draft


def test_owner_leaves_between_the_last_event_and_the_bill():
    """An answer of which the last event has come may still be judged; what that finds is not lost."""
    flight = flight_of()
    owner, _, own, heir = joined(flight, 2)
    spend(flight)
    flight.complete = True
    owner.leave()

    assert heir is flight.draft
    assert 0 == own.attempts


def test_joining_a_flight_for_nobody():
    """When all have left the cost stays with the last of them, whose record waits for it; who joins then has none."""
    flight = flight_of()
    flight.task = Task()
    owner, own = joined(flight, 1)
    spend(flight)
    owner.leave()

    assert owner.owes

    late = draft_of(1)
    reader = Reader(flight, b"", late)
    spend(flight)
    reader.leave()

    assert not reader.owner
    assert not reader.owes
    assert 0 == late.attempts
    assert (2, 5.0) == (own.attempts, own.upstream_seconds)


@pytest.mark.parametrize("end", ["settled", "over", "not begun", "handed on", "no record"])
def test_owes_nothing(end):
    """Nobody waits for a bill that is known, that another has, or that nobody will write."""
    flight = flight_of()
    flight.task = Task() if end != "not begun" else None
    owner = Reader(flight, b"", None if end == "no record" else draft_of())
    if end == "settled":
        flight.settled = True
    elif end == "over":
        flight.task.over = True
    elif end == "handed on":
        Reader(flight, b"", draft_of(1))
    owner.leave()

    assert not owner.owes


def test_readers_without_a_record():
    """Nothing is handed to a reader that has no record."""
    flight = flight_of()
    own, third = draft_of(), draft_of(2)
    owner = Reader(flight, b"", own)
    bare = Reader(flight)
    Reader(flight, b"", third)
    spend(flight)
    bare.leave()

    assert own is flight.draft

    owner.leave()

    assert third is flight.draft
    assert SPENT == told(third)


class Bill(RuleBasedStateMachine):
    """
    Any order of joining, leaving, being released and spending: the records add up to what was spent, and are told only
    when nothing more is spent on them.
    """

    def __init__(self):
        super().__init__()
        self.flight = flight_of()
        self.flight.task = Task()
        self.readers = []
        self.left = []
        self.drafts = []
        self.spent = 0

    @rule(credential=st.sampled_from([b"a", b"b"]))
    def joins(self, credential):
        draft = draft_of(len(self.drafts))
        self.drafts.append(draft)
        self.readers.append(Reader(self.flight, credential, draft))

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def leaves(self, data):
        self.readers.remove(reader := data.draw(st.sampled_from(self.readers)))
        reader.leave()
        self.left.append(reader)
        reader.draft.recorded = not reader.owes

    @precondition(lambda self: self.readers)
    @rule(credential=st.sampled_from([b"a", b"b"]))
    def releases(self, credential):
        self.flight.release(lambda reader: reader.credential == credential)
        for reader in [reader for reader in self.readers if reader.released]:
            self.readers.remove(reader)
            self.left.append(reader)
            reader.draft.recorded = not reader.owes

    @precondition(lambda self: self.flight.draft is not None)
    @rule()
    def spends(self):
        self.spent += 1
        self.flight.draft.attempts += 1

        assert not self.flight.draft.recorded
        assert [self.flight.draft] == [
            reader.draft for reader in (*self.readers, *self.left) if reader.draft is self.flight.draft
        ]

    def teardown(self):
        assert self.spent == sum(draft.attempts for draft in self.drafts)


TestBill = Bill.TestCase
TestBill.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
