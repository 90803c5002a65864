"""
The rows about credentials that change under load: a file that is swapped, tokens that expire.

The rule: the region refuses a credential from the moment it is no longer good, as harshly as it can be: an old key
as soon as the new one is in the file, a token in the second in which it expires.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from tests.bench.lab import Lab, Pace, Region, Row, Sidecar, at
from tests.bench.machine import LOAD_CORE, free_port
from tests.bench.open_loop import Call, Callers, fresh, on_load_core, p99, press, tally

_RATE = 200
_EVERY = 2.0  # seconds between two swaps
_LIFE = 4  # seconds of a token


def identity(lab: Lab, pace: Pace) -> list[Row]:
    """200 calls a second: their credential's file is swapped every 2 s; then their tokens hold for 4 s."""
    seconds = 9.0 if pace.quick else 40.0
    return [_swapped(lab, seconds), _expired(lab, seconds)]


def _swapped(lab: Lab, seconds: float) -> Row:
    folder = lab.folder()
    folder.mkdir()
    _swap(folder, "key-0")
    credential = f'{{header: authorization, prefix: "Bearer ", file: "{folder}/key"}}'
    with lab.region() as region, Sidecar(lab.folder(), at("a", region.port, credential=credential)) as sidecar:
        region.be(keys="key-0")
        swaps = int(seconds / _EVERY) - 1

        async def rotate() -> None:
            for number in range(swaps):
                await asyncio.sleep(_EVERY)
                await asyncio.to_thread(region.be, keys=f"key-{number},key-{number + 1}")
                _swap(folder, f"key-{number + 1}")
                await asyncio.to_thread(region.be, keys=f"key-{number + 1}")

        calls = on_load_core(_under_load(sidecar, seconds, rotate))
        return _row(f"{swaps} swaps of a credential's file: failed calls", calls, region)


def _expired(lab: Lab, seconds: float) -> Row:
    port = free_port()
    endpoint = lab.program("identity_endpoint", LOAD_CORE, port, _LIFE)
    with (
        endpoint,
        lab.region() as region,
        Sidecar(
            lab.folder(),
            at("a", region.port, credential="{managed_identity: {}}"),
            environ={"AZURE_POD_IDENTITY_AUTHORITY_HOST": f"http://127.0.0.1:{port}"},
        ) as sidecar,
    ):
        region.be(expiring=1)
        calls = on_load_core(_under_load(sidecar, seconds))
        return _row(f"tokens of {_LIFE} s, for {seconds:.0f} s: failed calls", calls, region)


def _row(what: str, calls: Sequence[Call], region: Region) -> Row:
    failed = [call for call in calls if not call.good]
    refused = region.calls("unauthorized")
    answers = tally(calls, lambda call: call.status)
    details = {"calls": len(calls), "answers": answers, "refused": refused, "p99": p99(calls)}
    longest = max(call.seconds for call in calls)
    note = f"{what}: {len(calls)} calls, {refused} refused upstream and repeated, the longest took {longest:.2f} s"
    return Row("identity", what, str(len(failed)), bar="0", reached=not failed, details=details,
               note=f"{note}; {answers}" if failed else note)  # fmt: skip


async def _nothing() -> None:
    """Beside the load, nothing is done."""


async def _under_load(
    sidecar: Sidecar, seconds: float, beside: Callable[[], Awaitable[None]] = _nothing
) -> Sequence[Call]:
    """The calls of so many seconds, and what is done *beside* them."""
    callers = Callers(sidecar.port)
    calls, _ = await asyncio.gather(press(callers, [fresh()], rate=_RATE, seconds=seconds), beside())
    callers.close()
    return calls


def _swap(folder: Path, key: str) -> None:
    """Put *key* into the file ``key`` of *folder* as the Secrets Store CSI driver does: by a link to another folder."""
    data = folder / f"..{key}"
    data.mkdir()
    (data / "key").write_text(f"{key}\n")
    link = folder / "..new"
    link.symlink_to(data.name)
    link.rename(folder / "..data")
    if not (folder / "key").exists():
        (folder / "key").symlink_to("..data/key")
