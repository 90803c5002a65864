"""Which purges each process has carried out: what it says in Redis, and what others take for confirmed."""

from __future__ import annotations

import os

import pytest

from sidecar.core.key.keyring import Keyring, SecretKey
from sidecar.core.model import Position
from sidecar.core.rules import SealRule
from sidecar.errors import FleetAway
from sidecar.fleet.confirmation import Confirmation, Confirmations, Confirmed
from sidecar.redis_link.names import RedisNames
from sidecar.store.seal import Seal
from tests.fleet.pods import NAMES, ODD_REPLIES, Pods, answering

LOG, OTHER = b"\x0a" * 16, b"\x0b" * 16


def seal(secret: bytes = b"s") -> Seal:
    keyring = Keyring((SecretKey.derive("a", secret * 32),))
    return Seal(lambda: keyring, SealRule(), random=os.urandom, limit=1000)


@pytest.fixture
async def pods(redis_server):
    async with Pods(redis_server) as pods:
        yield pods


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (Position(LOG, 7), True),
        (Position(LOG, 8), True),
        (Position(LOG, 6), False),
        (Position(OTHER, 9), False),
        (Position(), False),
    ],
)
def test_covers(said, expected):
    """Places in two different logs cannot be compared."""
    assert expected == Confirmation("web-1", said, 0).covers(Position(LOG, 7))


@pytest.mark.parametrize("name", ["web-1", "a name with blanks", "ä" * 100, "x" * 300])
def test_notes(name):
    """What is written is read; the name is cut where it is too long."""
    said = Confirmation(name, Position(LOG, 2**53), 12)
    notes = Confirmed(NAMES, seal())

    assert said._replace(name=name[:256]) == notes.read(notes.write(said))


def test_notes_that_say_nothing():
    """Of another secret, of another namespace, of another kind, of no kind: none confirms anything."""
    notes, said = Confirmed(NAMES, seal()), Confirmation("web-1", Position(LOG, 7), 0)
    foreign = [
        Confirmed(NAMES, seal(b"t")).write(said),
        Confirmed(RedisNames("team-b"), seal()).write(said),
        seal().seal_note(b"confirmed team-a: nonsense"),
        seal().seal_note(b"purge team-a: all "),
        b"",
        b"SCN",
    ]

    assert [None] * len(foreign) == [notes.read(note) for note in foreign]


async def test_peers(pods):
    """Those that count at present, with what they say; who signs off is gone, with its note."""
    sealed = Confirmed(NAMES, seal())
    said = [Confirmation(f"web-{number}", Position(LOG, number), number) for number in (1, 2)]
    one, two = (pods.presence(each.dropped, note=lambda each=each: sealed.write(each)) for each in said)
    silent = pods.presence(3)
    for each in (one, two, silent):
        await each.beat()
    confirmations = Confirmations(one, NAMES, seal())
    peers = await confirmations.peers()
    await two.close()
    later = await confirmations.peers()

    assert [*said, None] == [peers[each.member].says for each in (one, two, silent)]
    assert all(0 <= peer.quiet_seconds < 10 for peer in peers.values())
    assert (one.member, {one.member, silent.member}) == (confirmations.own, set(later))
    assert 1 == len(pods.server.call("KEYS", "team-a:{pods}:*")) - 1  # beside the revisions


@pytest.mark.parametrize("reply", [each for name, each in ODD_REPLIES.items()], ids=ODD_REPLIES)
async def test_odd_replies(pods, reply):
    """No script of ours answers so: whoever asks hears that Redis cannot be used."""
    async with answering([reply]) as url:
        with pytest.raises(FleetAway):
            await Confirmations(pods.presence(1, link=pods.link(url)), NAMES, seal()).peers()
