"""What operators do to labs, and what the labs say afterwards."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp

from sidecar.admin.actions import PurgeRequest, PurgeResult
from sidecar.core.rules import Mode
from tests.redis_servers import RedisServer
from tests.scenarios.answers import said
from tests.scenarios.conftest import CHAT, CHAT_PATH, KEY, TOKEN, Lab
from tests.scenarios.redis_contents import released

ALL = PurgeRequest("all", "", b"", dry_run=False, fleet=True)


async def act(lab: Lab, what: str, body: Any, token: str = TOKEN) -> tuple[int, Any]:
    """Ask *lab*'s control server for *what*."""
    url = f"http://127.0.0.1:{lab.sidecar.admin_port}/api/{what}"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json=body, headers={"authorization": f"Bearer {token}"} if token else {}) as reply,
    ):
        return reply.status, await reply.json()


async def purge(lab: Lab, labs: Sequence[Lab] = (), asked: PurgeRequest = ALL) -> PurgeResult:
    """Purge by way of *lab*, and wait until all *labs* know."""
    before = [other.sidecar.operations.purged for other in labs]
    done = await lab.sidecar.operations.purge(asked)
    for other, count in zip(labs, before, strict=True):
        await other.until(lambda other=other, count=count: other.sidecar.operations.purged > count)
    return done


def valid(lab: Lab, server: RedisServer) -> list[str]:
    """What those entries in Redis say that *lab* would serve."""
    fleet = lab.sidecar.fleet
    found = []
    for name in server.call("KEYS", "*:e"):
        opened = fleet.seal.unseal(name.partition(b"{")[2].partition(b"}")[0], server.call("GET", name))
        if opened is not None and fleet.remote.admits(*opened):
            found.append(said(opened[1].body))
    return found


async def all_say(labs: Sequence[Lab], server: RedisServer) -> set[str]:
    """What each of *labs* says, once nothing is on its way any more, and what is valid in Redis."""
    for lab in labs:
        await lab.until(lambda lab=lab: not lab.sidecar.proxy.refreshes)
        await lab.settle()
    await released(server)
    said_by_all = {text for lab in labs for text in valid(lab, server)}
    for _ in range(2):
        for lab in labs:
            said_by_all.add(said((await lab.ask()).body))
            await lab.settle()
            await released(server)
    return said_by_all | {text for lab in labs for text in valid(lab, server)}


class Gate:
    """Holds the calls of *work* before it begins, or *after* it has ended, until it is opened."""

    def __init__(
        self, work: Callable[..., Any], *, after: bool = False, only: Callable[..., bool] | None = None
    ) -> None:
        self.work = work
        self.after = after
        self.only = only or (lambda *_, **__: True)
        self.open = asyncio.Event()
        self.reached = 0

    async def __call__(self, *args: Any, **named: Any) -> Any:
        if not self.only(*args, **named):
            return await self.work(*args, **named)
        done = await self.work(*args, **named) if self.after else None
        self.reached += 1
        await self.open.wait()
        return done if self.after else await self.work(*args, **named)


RAW = (
    f"POST {CHAT_PATH} HTTP/1.1\r\nhost: localhost\r\nauthorization: {KEY}\r\ncontent-type: application/json\r\n\r\n"
    f"{json.dumps(CHAT)}"
).encode()  # fmt: skip


async def in_mode(labs: list[Lab], mode: Mode) -> None:
    for lab in labs:
        await lab.until(lambda lab=lab: lab.sidecar.operations.mode is mode)
