"""What labs have written to Redis, and what of it is still held."""

from __future__ import annotations

import asyncio

from tests.scenarios.answers import said


async def written(server, count=1):
    """Wait until *count* entries are in Redis."""
    async with asyncio.timeout(60):
        while len([key for key in server.call("KEYS", "*") if key.endswith(b":e")]) < count:  # noqa: ASYNC110  a server that others write to
            await asyncio.sleep(0.005)


async def released(server):
    """Wait until no lease is held. The second for which a failed fetch leaves its mark passes at once."""
    async with asyncio.timeout(60):
        while leases := server.call("KEYS", "*:l"):
            for lease in leases:
                if server.call("GET", lease) == b"-":
                    server.call("PEXPIRE", lease, 1)
            await asyncio.sleep(0.005)


async def noted(lab, server, count=1):
    """Wait until *lab* has nothing more to note, and *count* tags are in Redis."""
    lab.sidecar.fleet.log.nudge()
    await lab.until(lambda: not len(lab.sidecar.fleet.log._tagged))
    await lab.until(lambda: len(server.call("KEYS", "*{log}:t:*")) == count)


def all_keys(lab):
    return [key for page in lab.sidecar.memory.walk() for key, _ in page]


async def texts(lab, *calls):
    """What *lab* says to *calls*, one after the other."""
    return [said((await lab.ask(**call)).body) for call in calls]
