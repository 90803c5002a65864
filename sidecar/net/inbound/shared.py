"""
What all connections of one listener share: collaborators, limits, and the coarse time.

The rule: the path of a request reads no clock and starts no timer. The listener's sweep sets *now* and *date* about
twice a second, which is exact enough for deadlines of seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sidecar.core.memory_budget import Ledger
from sidecar.core.rules import Limits
from sidecar.net.base import Application
from sidecar.net.inbound.head_memo import HeadMemo
from sidecar.net.inbound.spool import Spools
from sidecar.tasks import Spawn


class ListenerState:
    """
    *now* is monotonic seconds, *date* the line of the ``date`` field; *draining*: connections are not kept. *head_memo*
    holds known heads. *report* gets unexpected exceptions; *came* and *gone* are called when a connection opens and
    closes.
    """

    __slots__ = (
        "app",
        "came",
        "date",
        "draining",
        "gone",
        "head_memo",
        "ledger",
        "limits",
        "now",
        "report",
        "spawn",
        "spools",
    )

    def __init__(
        self,
        app: Application,
        limits: Limits,
        ledger: Ledger,
        *,
        spawn: Spawn,
        spools: Spools,
        report: Callable[[BaseException], object],
        came: Callable[[Any], None],
        gone: Callable[[Any], None],
    ) -> None:
        self.app = app
        self.limits = limits
        self.head_memo = HeadMemo(app.deciding_fields, limits)
        self.ledger = ledger
        self.spawn = spawn
        self.spools = spools
        self.report = report
        self.came = came
        self.gone = gone
        self.now = 0.0
        self.date = b""
        self.draining = False

    def forget(self) -> None:
        """
        Begin with an empty memo of heads. The former one, which open connections still have, is emptied, and may still
        learn a plan that is no longer valid.
        """
        self.head_memo.forget()
        self.head_memo = HeadMemo(self.app.deciding_fields, self.limits)

    def __repr__(self) -> str:
        return f"<ListenerState {self.ledger!r}{' draining' if self.draining else ''}>"
