"""A body that arrives and may be sent twice: what is kept of it, and for how long."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.memory_budget import Ledger
from sidecar.upstream.replay import KEPT_FOR_RESEND, Rewindable
from tests.scripted import Body


async def all_of(rewindable):
    return [chunk async for chunk in rewindable.chunks()]


@pytest.mark.parametrize("takes", [0, 1, 2, 3, 4])
async def test_sent_again(takes):
    """However much of a body had gone out, the second sending has it from its start to its end; and the third."""
    ledger = Ledger(1000)
    rewindable = Rewindable(Body(b"one", b"two", b"", b"three"), ledger)
    first = rewindable.chunks()
    for _ in range(takes):
        await anext(first)
    await first.aclose()

    assert not rewindable.ended
    assert [b"one", b"two", b"", b"three"] == await all_of(rewindable) == await all_of(rewindable)
    assert (True, False, 11) == (rewindable.ended, rewindable.spent, ledger.held)

    rewindable.forget()

    assert (True, 0) == (rewindable.spent, ledger.held)


@pytest.mark.parametrize(
    ("sizes", "memory", "expected"),
    [
        pytest.param([KEPT_FOR_RESEND], 1 << 20, False, id="all of it fits"),
        pytest.param([KEPT_FOR_RESEND, 1], 1 << 20, True, id="a byte too many"),
        pytest.param([KEPT_FOR_RESEND + 1], 1 << 20, True, id="one chunk too large"),
        pytest.param([100, 100], 200, False, id="the ledger just has it"),
        pytest.param([100, 100], 199, True, id="the ledger refuses"),
        pytest.param([100, 100, 50], 199, True, id="once spent it stays so"),
    ],
)
async def test_too_much(sizes, memory, expected):
    """Past 256 KiB, or where the ledger refuses, a body can be sent once; and goes out whole all the same."""
    ledger = Ledger(memory)
    rewindable = Rewindable(Body(*map(bytes, sizes)), ledger)

    assert sizes == [len(chunk) for chunk in await all_of(rewindable)]
    assert expected == rewindable.spent
    assert (0 if expected else sum(sizes)) == ledger.held


async def test_let_go_of_in_the_middle():
    """What is kept is in the ledger until it is let go of; what comes after that passes through."""
    ledger = Ledger(1000)
    rewindable = Rewindable(Body(b"one", b"two", b"three"), ledger)
    chunks = rewindable.chunks()
    got = [await anext(chunks), await anext(chunks)]

    assert (6, False) == (ledger.held, rewindable.spent)

    rewindable.forget()

    assert (0, True) == (ledger.held, rewindable.spent)
    assert [b"one", b"two", b"three"] == got + [chunk async for chunk in chunks]
    assert 0 == ledger.held


async def test_let_go_of_in_the_middle_of_a_resend():
    """An answer that begins while the body is sent again does not tear a hole into it."""
    rewindable = Rewindable(Body(b"one", b"two", b"three", b"four"), Ledger(1000))
    first = rewindable.chunks()
    for _ in range(3):
        await anext(first)
    await first.aclose()
    second = rewindable.chunks()
    got = [await anext(second)]
    rewindable.forget()

    assert [b"one", b"two", b"three", b"four"] == got + [chunk async for chunk in second]


@pytest.mark.parametrize("takes", [1, 2, 3])
@pytest.mark.parametrize("memory", [0, 1000], ids=["no room", "let go of"])
async def test_no_second_beginning(takes, memory):
    """A body whose beginning is gone is not sent again without it: whoever tries that hears of it."""
    rewindable = Rewindable(Body(b"one", b"two"), Ledger(memory))
    first = rewindable.chunks()
    for _ in range(takes):
        await anext(first, None)
    await first.aclose()
    rewindable.forget()
    with pytest.raises(RuntimeError, match="beginning"):
        await all_of(rewindable)


async def test_let_go_of_before_it_begins():
    """An answer that comes before the first byte of the body, or of a second sending, does not tear a hole into it."""
    chunks = [b"one", b"two", b"three"]
    rewindable = Rewindable(Body(*chunks), Ledger(1000))
    first = rewindable.chunks()
    rewindable.forget()

    assert chunks == [chunk async for chunk in first]

    rewindable = Rewindable(Body(*chunks), Ledger(1000))
    first = rewindable.chunks()
    got = [await anext(first), await anext(first)]
    await first.aclose()
    second = rewindable.chunks()
    rewindable.forget()

    assert chunks[:2] == got
    assert chunks == [chunk async for chunk in second]


async def test_cancelled_read():
    """A read that was cancelled has taken nothing."""
    rewindable = Rewindable(Body(b"one", b"two"), Ledger(1000))
    first = rewindable.chunks()
    await anext(first)
    read = asyncio.ensure_future(anext(first))
    await asyncio.sleep(0)
    read.cancel()
    with pytest.raises(asyncio.CancelledError):
        await read

    assert [b"one", b"two"] == await all_of(rewindable)


async def test_broken_body():
    """What a body raises comes through, and it has not ended."""
    rewindable = Rewindable(Body(b"one", error=ValueError()), Ledger(1000))
    with pytest.raises(ValueError):
        await all_of(rewindable)

    assert not rewindable.ended


@given(chunks=st.lists(st.binary(max_size=40), max_size=8), cut=st.integers(0, 8), memory=st.integers(0, 300))
async def test_rewound_anywhere(chunks, cut, memory):
    """Wherever the first sending is cut, the second is the body whole, or the body is spent; the ledger balances."""
    ledger = Ledger(memory)
    rewindable = Rewindable(Body(*chunks), ledger)
    first = rewindable.chunks()
    for _, chunk in zip(range(cut), chunks, strict=False):
        assert chunk == await anext(first)

    await first.aclose()

    assert rewindable.spent == (sum(map(len, chunks[:cut])) > memory)
    if not rewindable.spent:
        assert chunks == await all_of(rewindable)
    else:
        with pytest.raises(RuntimeError):
            await all_of(rewindable)

    rewindable.forget()

    assert 0 == ledger.held
