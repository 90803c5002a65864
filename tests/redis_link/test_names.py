"""What the fleet's keys in Redis are called."""

import pytest

from sidecar.redis_link.names import RedisNames

NAME = b"Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4"


def slot_part(key):
    """What a Cluster hashes of *key* (Redis Cluster specification, hash tags)."""
    opened = key.find(b"{")
    closed = key.find(b"}", opened + 1)
    return key[opened + 1 : closed] if 0 <= opened < closed - 1 else key


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("log_meta", b"team-a:{log}:meta"),
        ("log_purges", b"team-a:{log}:purges"),
        ("log_mode", b"team-a:{log}:mode"),
        ("news", b"team-a:news"),
    ],
)
def test_everything_stands_under_the_namespace(attribute, expected):
    """The namespace is in clear: ACL patterns need it."""

    assert expected == getattr(RedisNames("team-a"), attribute)


def test_an_entry_and_its_leases_are_neighbours():
    """A Cluster keeps them in one slot, so that one script may use both."""
    names = RedisNames("team-a")
    entry, lease, second = names.entry(NAME), names.lease(NAME), names.second(NAME)

    assert b"team-a:{%b}:e" % NAME == entry
    assert b"team-a:{%b}:l" % NAME == lease
    assert b"team-a:{%b}:s" % NAME == second
    assert NAME == slot_part(entry) == slot_part(lease) == slot_part(second)
    assert [entry, lease, second] == names.neighbours(NAME)


def test_the_log_is_in_one_slot():
    """Its script uses all of its keys."""
    names = RedisNames("team-a")

    assert {b"log"} == {slot_part(key) for key in (names.log_meta, names.log_purges, names.log_mode)}
