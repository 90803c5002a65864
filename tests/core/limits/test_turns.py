"""Whose turn it is: the order of a line, and turns that are bought, brought forward and given back."""

from dataclasses import dataclass

from sidecar.core.limits.rates import BRIMFUL, Pair, Worth
from sidecar.core.limits.turns import Line, Reservation, Reservations, Taken

PRICE = Worth(1.0, 0.01)


@dataclass(eq=False)
class Call:
    name: str
    batch: bool
    charge: int = 10


def test_line():
    """In order, batches last; who is too much is the last of those."""
    line = Line()

    assert (None, None, 0) == (line.first, line.last, len(line))

    a, b, c, d = (Call(name, name.isupper()) for name in "AbCd")
    for call in (a, b, c, d):
        line.join(call)

    assert ["b", "d", "A", "C"] == [call.name for call in line]
    assert (b, c) == (line.first, line.last)
    assert ((2, 20), (4, 40)) == (line.ahead(batch=False), line.ahead(batch=True))
    assert [True, False, True] == [line.remove(call) for call in (c, c, b)]
    assert ((1, 10), (2, 20)) == (line.ahead(batch=False), line.ahead(batch=True))
    assert "<Line 1, 1 of batches>" == repr(line)

    line.remove(a)

    assert d is line.last


def buy(turns, *charges, patience=5.0):
    return [turns.buy(0.0, PRICE, charge, patience) for charge in charges]


def uses(turns):
    used = []
    while turns.next is not None:
        used.append(turns.use())
    return [(turn.charge, turn.requests_at, turn.tokens_at) for turn in used]


def test_buy():
    """One after the other as room comes; what would come too late isn't bought."""
    turns = Reservations()

    assert [0.0, 0.0, 1.0, 2.5, 9.75] == buy(turns, 50, 100, 100, 900, 25)
    assert [(50, 0.0, 0.0), (100, 0.0, 0.0), (100, 1.0, 0.5), (900, 2.0, 2.5)] == uses(turns)


def test_wait_counts_what_is_bought_once():
    """Turns that wait for the line's first are paid for already."""
    turns = Reservations()

    assert [0.0, 0.0, 1.0] == buy(turns, 100, 0, 400)

    uses(turns)
    buy(turns, 100)

    assert 5.0 == turns.wait(0.0, PRICE, 100, 0, 0)
    assert 5.0 == turns.wait(0.0, PRICE, 100, 1, 100)
    assert 7.0 == turns.wait(0.0, PRICE, 100, 2, 300)


def test_refunds_bring_turns_forward():
    """Of tokens alone: who waits for a request's room waits for it; a debt postpones nothing that is paid."""
    turns = Reservations()
    buy(turns, 400, 100, 10)
    turns.use()
    turns.give(0.0, PRICE, 150)

    assert [(100, 0.0, 1.5), (10, 1.0, 1.6)] == uses(turns)

    turns = Reservations()
    buy(turns, 400, 100)
    turns.use()
    turns.give(0.0, PRICE, -100)

    assert [(100, 0.0, 3.0)] == uses(turns)
    assert 5.0 == turns.wait(0.0, PRICE, 100, 0, 0)


def test_hear():
    """What the fleet let in can go, what it reserved has its turn, and its buckets are what is known."""
    turns = Reservations()
    turns.alone = True
    turns.hear(10.0, Taken(2, Pair(1.0, 3.0), True, Pair(-1.0, -3.0)), [1, 2, 3, 4])

    assert not turns.alone
    assert [(1, 10.0, 10.0), (2, 10.0, 10.0), (3, 11.0, 13.0)] == uses(turns)
    assert 3.5 == turns.wait(10.0, PRICE, 50, 0, 0)

    turns.hear(10.0, Taken(0, Pair(9.0, 0.0), False, Pair(-8.0, 2.0)), [1])

    assert turns.next is None


def test_ceiling():
    """Who was alone lets the fleet be no fuller than its own, and brings along its part of a debt."""
    turns = Reservations()
    buy(turns, 500)

    assert BRIMFUL == turns.ceiling(0.0, 4)

    turns.alone = True

    assert Pair(1.0, -0.75) == turns.ceiling(0.0, 4)


def test_repr():
    """Its state is told."""
    turns = Reservations()
    buy(turns, 100)
    turns.alone = True

    assert "<Turns 1 bought, alone <Account <Bucket empty at -1.000> <Bucket empty at -1.000>>>" == repr(turns)
    assert "<Turn of 7 tokens at 4.000>" == repr(Reservation(7, 1.0, Pair(3.0, 2.0)))
