"""Memory in front of a remote tier."""

from __future__ import annotations

from sidecar.core.model import Entry, Form, Key
from sidecar.core.rules import MemoryRule
from sidecar.store.base import Store
from sidecar.store.memory import Memory
from sidecar.store.tiered import Nowhere, Tiered

KEY = Key(b"a" * 16, b"p" * 32)
ENTRY = Entry(200, (), b"answer", Form.WHOLE, "openai", "chat", "", at=0.0, ttl=60.0)


class Shelf:
    """A remote tier that knows what it was given."""

    def __init__(self, entries: dict[Key, Entry]) -> None:
        self.entries = entries

    async def fetch(self, key: Key) -> Entry | None:
        return self.entries.get(key)


async def test_nothing_behind_memory():
    """Without a remote tier a fetch finds nothing, not even what memory holds."""
    store: Store = Tiered(Memory(MemoryRule()), Nowhere())
    store.put(KEY, ENTRY)

    assert await store.fetch(KEY) is None
    assert ENTRY is store.peek(KEY)


async def test_fetched_is_in_memory():
    """What the remote tier had is found in memory the next time."""
    store = Tiered(Memory(MemoryRule()), Shelf({KEY: ENTRY}))

    assert store.peek(KEY) is None
    assert ENTRY is await store.fetch(KEY)
    assert ENTRY is store.peek(KEY)


async def test_fetched_too_large_for_memory():
    """What does not fit into memory is still fetched."""
    store = Tiered(Memory(MemoryRule(max_entry_bytes=1)), Shelf({KEY: ENTRY}))

    assert ENTRY is await store.fetch(KEY)
    assert store.peek(KEY) is None


def test_drop_and_clear():
    """Both reach memory."""
    store = Tiered(Memory(MemoryRule()), Nowhere())
    store.put(KEY, ENTRY)

    assert store.drop(KEY)
    assert not store.drop(KEY)

    store.put(KEY, ENTRY)
    store.clear()

    assert store.peek(KEY) is None


def test_repr():
    """The store names its tiers."""
    memory = Memory(MemoryRule())

    assert f"<Tiered {memory!r} before Nowhere>" == repr(Tiered(memory, Nowhere()))
