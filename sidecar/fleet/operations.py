"""
The fleet's long-running operations in Redis: by id for their callers, and by key for others who ask the same.

The rule: an operation is written as a sealed envelope, as answers are, with a time to live; nobody waits long for it,
and a process that cannot write or read it goes on with what it knows itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from sidecar.core.key.keyring import Keyring
from sidecar.core.key.keyring import name as name_of
from sidecar.core.model import Entry, Key
from sidecar.core.request.operation import LIFE_SECONDS, Started, from_entry, to_entry
from sidecar.errors import FleetAway
from sidecar.redis_link.link import RedisLink, TimeBudget
from sidecar.redis_link.names import RedisNames

RUNNING_SECONDS = 3600.0
"""How long others may join an operation whose end nobody has noted: its process is gone."""

STORED_SECONDS = 10.0
"""How long others may join an operation whose result is stored: until every write of that has reached Redis."""

LARGEST = 64 * 1024
"""Bytes of an operation, at most, and of its envelope: what a head may have, and some room."""


_SEALED = b"operation "

IsGone = Callable[[Key, Entry], bool]
"""Whether what is stored like this entry, under this key, is to be erased."""


class Envelopes(Protocol):
    """Seals and opens entries; see ``store/seal``."""

    def seal(self, name: bytes, key: Key, entry: Entry) -> bytes:
        """The envelope of *entry*, to be stored under *name*."""

    def unseal(self, name: bytes, data: bytes) -> tuple[Key, Entry] | None:
        """The entry in the envelope *data*, which was stored under *name*, and its key."""


class FleetOperations:
    """
    The operations of the fleet of *names*. *keyring* is asked anew for each name; *admits* says whether purges allow
    an entry; *timeout* is the time for one command, seconds; *report* gets bugs.
    """

    def __init__(
        self,
        link: RedisLink,
        names: RedisNames,
        envelopes: Envelopes,
        keyring: Callable[[], Keyring],
        *,
        admits: Callable[[Key, Entry], bool],
        timeout: float,
        report: Callable[[BaseException], None],
    ) -> None:
        self._link = link
        self._names = names
        self._envelopes = envelopes
        self._keyring = keyring
        self._admits = admits
        self.timeout = timeout
        self._report = report

    def __repr__(self) -> str:
        return f"<FleetOperations over {self._link!r}>"

    async def put(self, started: Started) -> None:
        """Let the fleet know an operation by its id."""
        name = self._names.operation_name(started.id)
        await self._write(self._names.operation(name), name, started, LIFE_SECONDS)

    async def find(self, id_: str) -> Started | None:
        """The operation of that id."""
        name = self._names.operation_name(id_)
        found = await self._read(self._names.operation(name), name)
        if found is None:
            return None
        started = from_entry(*found)
        return started if started is not None and started.id == id_ else None

    async def forget(self, id_: str) -> None:
        """No process answers for that id any more."""
        where = self._names.operation(self._names.operation_name(id_))
        await self._run(lambda client: client.delete(where), "delete")

    async def erase_key(self, key: Key) -> None:
        """After a purge of *key*: delete its result from the fleet's store, and that its operation runs."""
        for secret in self._keyring().keys:
            name = name_of(secret, key)
            both = self._names.entry(name), self._names.running(name)  # in one slot
            await self._run(partial(_delete, both), "delete")

    async def announce(self, started: Started) -> bool:
        """Let callers of the same key join the operation. False: the fleet does not know it."""
        name = name_of(self._keyring().first, started.key)
        return await self._write(self._names.running(name), name, started, RUNNING_SECONDS)

    async def running(self, key: Key) -> Started | None:
        """The operation that runs for *key*, if no purge has come since it was started."""
        name = name_of(self._keyring().first, key)
        found = await self._read(self._names.running(name), name)
        if found is None or found[0].proof != key.proof or not self._admits(*found):
            return None
        return from_entry(*found)

    async def ended(self, key: Key, *, stored: bool) -> None:
        """It runs no longer. If its result is *stored*, callers may still join it until the store has it for sure."""
        where = self._names.running(name_of(self._keyring().first, key))
        if stored:
            await self._run(lambda client: client.pexpire(where, round(STORED_SECONDS * 1000)), "expire")
        else:
            await self._run(lambda client: client.delete(where), "delete")

    async def erase(self, where: bytes, name: bytes, gone: IsGone, *, dry_run: bool) -> bool | None:
        """
        Delete the operation at *where* if it is *gone*, or only say whether it is; None if it cannot be opened. Raises
        ``FleetAway``.
        """
        data = await self._link.run(lambda client: client.get(where), TimeBudget(self.timeout), op="get")
        if data is None:
            return False
        opened = self._envelopes.unseal(_SEALED + name, data) if type(data) is bytes and len(data) <= LARGEST else None
        if opened is None:
            return None
        if not gone(*opened):
            return False
        if not dry_run:
            await self._link.run(lambda client: client.delete(where), TimeBudget(self.timeout), op="delete")
        return True

    async def _write(self, where: bytes, name: bytes, started: Started, seconds: float) -> bool:
        entry = to_entry(started)
        if entry.size > LARGEST // 2:
            return False
        try:
            sealed = self._envelopes.seal(_SEALED + name, started.key, entry)
        except Exception as error:  # noqa: BLE001  a bug here must cost the caller no more than the fleet's help
            self._report(error)
            return False
        written = await self._run(lambda client: client.psetex(where, round(seconds * 1000), sealed), "set")
        return bool(written)

    async def _read(self, where: bytes, name: bytes) -> tuple[Key, Entry] | None:
        data = await self._run(lambda client: client.get(where), "get")
        if type(data) is not bytes or len(data) > LARGEST:
            return None
        try:
            return self._envelopes.unseal(_SEALED + name, data)
        except Exception as error:  # noqa: BLE001  as in _write
            self._report(error)
            return None

    async def _run(self, command: Callable[[Any], Any], op: str) -> Any:
        try:
            return await self._link.run(command, TimeBudget(self.timeout), op=op)
        except FleetAway:
            return None
        except Exception as error:  # noqa: BLE001  as in _write
            self._report(error)
            return None


def _delete(keys: tuple[bytes, ...], client: Any) -> Any:
    return client.delete(*keys)
