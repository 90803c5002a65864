"""
What the webhook does again and again beside answering: its certificate, the cluster's version, copies, counts.

The rule: a part that fails is counted, said once, and tried again; it stops neither the others nor the answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from sidecar.core.events import TellEvent
from sidecar.inject.api_server import CONFLICT, ApiServerError

CONFLICT_SECONDS = 0.2
"""The pause after another replica was quicker: what it wrote is to be read."""


async def repeat(
    part: str,
    do: Callable[[], Awaitable[float]],
    *,
    retry: float,
    count: Callable[[str], None],
    tell: TellEvent,
    report: Callable[[BaseException], None],
) -> None:
    """
    *do* it, wait as many seconds as it returns, and so on until cancelled. If the API server refuses, *part* is given
    to *count*, and *retry* seconds pass. *report* gets bugs.
    """
    said = ""
    while True:
        try:
            pause = await do()
            if said:
                tell("cluster-answers", part=part)
            said = ""
        except ApiServerError as error:
            pause = CONFLICT_SECONDS if error.status == CONFLICT else retry
            if error.status != CONFLICT:
                count(part)
                if str(error) != said:
                    said = str(error)
                    tell("cluster-error", level="warning", part=part, message=said)
        except Exception as error:  # noqa: BLE001  a bug in one part must not end the others
            pause = retry
            report(error)
        await asyncio.sleep(pause)
