"""
Which rooms a call passes, traced, against the table in CONTRIBUTING; and how many calls of Python it costs.

A room is *passed* where its code goes on into another room. A question that is answered at once (a look into memory, a
counter) is asked in passing, and so is whatever ``core`` and ``dialects`` decide. Code that goes on after a wait is
where it was: it enters nothing.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from inspect import CO_COROUTINE
from pathlib import Path
from types import FrameType
from typing import Any, Self

import pytest

import sidecar
from sidecar.core.model import Outcome
from tests.scenarios.conftest import CHAT, Lab
from tests.scenarios.redis_contents import written
from tests.scenarios.regions import Way, route, running, service

ROOT = str(Path(sidecar.__file__).parent) + "/"
DEMO = ROOT + "demo/"
TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
EVERYWHERE = {"core", "dialects", "errors.py", "tasks.py", "demo"}
"""What every room asks and nobody passes; and the stand-in provider, which is no part of the way."""

MOST = {"a streamed miss": 600, "a hit in Redis": 220, "a bypass": 200}
"""The most calls that are allowed for a kind, whatever the table says."""

STREAM = CHAT | {"stream": True}
NO_STORE = {"Cache-Control": "no-store"}


def room_of(code: Any) -> str:
    """The room in which *code* stands, ``""`` outside all of them."""
    if not code.co_filename.startswith(ROOT):
        return ""
    first, *rest = code.co_filename[len(ROOT) :].split("/")
    name = f"{first}/{rest[0]}" if first == "net" and len(rest) > 1 else first
    return "" if name in EVERYWHERE else name


class Trace:
    """
    Follows the calls of this thread. *visits*: the rooms in the order in which they were passed; *calls*: how often a
    function of ours was entered, or a coroutine of ours went on after a wait.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.visits: list[str] = []
        self._stack: list[tuple[FrameType, str]] = []  # rooms entered and not left
        self._known: set[FrameType] = set()  # those that may wait, and go on later

    def __enter__(self) -> Self:
        sys.setprofile(self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _heard(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            self.calls += frame.f_code.co_filename.startswith(ROOT) and not frame.f_code.co_filename.startswith(DEMO)
            room, resumed = room_of(frame.f_code), frame in self._known
            if frame.f_code.co_flags & CO_COROUTINE:
                self._known.add(frame)
            if room and (not self._stack or self._stack[-1][1] != room):
                if self._stack and not resumed and self.visits[-1:] != [self._stack[-1][1]]:
                    self.visits.append(self._stack[-1][1])
                self._stack.append((frame, room))
        elif event == "return" and self._stack and self._stack[-1][0] is frame:
            self._stack.pop()

    @property
    def rooms(self) -> list[str]:
        """The rooms in the order in which each was first passed."""
        return list(dict.fromkeys(self.visits))

    @property
    def changes(self) -> int:
        """How often one room was passed after another."""
        return len(self.visits) - 1


def check(name: str, trace: Trace) -> None:
    """What CONTRIBUTING says of a kind of call holds: its rooms in order, the most changes, the most calls."""
    found = re.search(rf"^\| {name} \| (.+?) \| (\d+) \| (\d+) \|", TEXT, re.MULTILINE)
    assert found is not None, name
    assert [room.strip(" `") for room in found[1].split(">")] == trace.rooms
    assert trace.changes <= int(found[2])
    assert trace.calls <= int(found[3]) <= MOST.get(name, int(found[3]))


async def traced(lab: Lab, body: Any, *, headers: dict[str, str] | None = None) -> Trace:
    """Trace a call of *lab* whose like has been made before."""
    with Trace() as trace:
        await lab.ask(body, headers=headers)
        await lab.settle()
    return trace


async def memory_hit(lab: Lab) -> Trace:
    await lab.ask(CHAT)
    await lab.ask(CHAT)
    return await traced(lab, CHAT)


async def streamed_miss(lab: Lab) -> Trace:
    await lab.ask(STREAM | {"seed": 1})
    return await traced(lab, STREAM | {"seed": 2})


async def bypass(lab: Lab) -> Trace:
    await lab.ask(CHAT, headers=NO_STORE)
    return await traced(lab, CHAT, headers=NO_STORE)


@pytest.mark.parametrize(
    ("name", "make", "outcome"),
    [
        ("a hit in memory", memory_hit, Outcome.HIT_MEMORY),
        ("a streamed miss", streamed_miss, Outcome.MISS),
        ("a bypass", bypass, Outcome.BYPASS),
    ],
)
async def test_rooms(name: str, make: Callable[[Lab], Any], outcome: Outcome, lab: Lab):
    """The rooms are those of the table, in its order, and there is no more running to and fro than it says."""
    trace = await make(lab)

    assert outcome is lab.records[-1].outcome
    check(name, trace)


async def test_rooms_of_a_hit_in_redis(build_fleet, provider, redis_server):
    """As above."""
    one, two = await build_fleet(f"http://127.0.0.1:{provider.port}")
    for seed in (1, 2):
        await one.ask(CHAT | {"seed": seed})
    await written(redis_server, 2)
    for _ in range(2):  # a hit in Redis opens the connection; one in memory makes the beginning of such heads known
        await two.ask(CHAT | {"seed": 1})
    trace = await traced(two, CHAT | {"seed": 2})

    assert Outcome.HIT_REDIS is two.records[-1].outcome
    check("a hit in Redis", trace)


async def test_rooms_of_a_failover(build_lab):
    """As above."""
    async with running("a", "b") as (a, b):
        lab = await build_lab("", services=service(a.rule(), b.rule(priority=2)), routes=route())
        await lab.ask(CHAT | {"seed": 1})
        await a.become(Way.DOWN)
        trace = await traced(lab, CHAT | {"seed": 2})

        assert (Outcome.MISS, "b") == (lab.records[-1].outcome, lab.records[-1].region)
        check("a failover", trace)
