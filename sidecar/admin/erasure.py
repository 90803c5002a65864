"""
Erasing: what is asked, and the receipt of what was done, where and when.

The rule: a receipt shows no document, no key and no secret. It says *complete* only if every place was reached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sidecar.admin.actions import PurgeRequest, read_erasure
from sidecar.core.durations import as_duration, seconds_of
from sidecar.errors import Refused

WAIT_SECONDS = 30.0
"""How long the other pods may take to confirm, unless the request says."""

SHORTEST_WAIT, LONGEST_WAIT = 1.0, 900.0

COPIES = (
    "Redis' own copies are beyond this command: replicas follow within moments; an append-only file, a snapshot or a "
    "backup holds deleted values until it is rewritten (BGREWRITEAOF, BGSAVE) or expires"
)
"""What every receipt of a fleet says."""


@dataclass(frozen=True, slots=True)
class EraseRequest:
    """
    What to erase: that of a *purge*. The other pods may take *wait* seconds to confirm. *by*: who asks, as the audit
    line has it.
    """

    purge: PurgeRequest
    wait: float
    by: str = ""

    def audit_fields(self) -> Mapping[str, str | float]:
        """The fields of its audit line."""
        return {**self.purge.audit_fields(), "wait": self.wait}


@dataclass(frozen=True, slots=True)
class ErasedPlace:
    """A place, how much was erased there, or would be, and what else is to say; *done*: it was reached."""

    where: str
    erased: int
    done: bool = True
    note: str = ""


@dataclass(frozen=True, slots=True)
class PodReceipt:
    """A pod: how many entries its memory has dropped, and when it confirmed (RFC 3339), or *why* it did not."""

    pod: str
    dropped: int
    confirmed_at: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """
    *what* was erased, as it may be shown; *by* whom, and when it was asked for and finished (RFC 3339, UTC);
    *position*: its purge in the fleet's log, ``""`` if it is not there. *complete*: every place was reached and every
    pod has confirmed. *notes* are for people.
    """

    what: str
    by: str
    asked_at: str
    finished_at: str
    position: str
    complete: bool
    dry_run: bool
    pods: tuple[PodReceipt, ...]
    places: tuple[ErasedPlace, ...]
    notes: tuple[str, ...] = ()

    def audit_fields(self) -> Mapping[str, str | float]:
        """The fields of its audit line."""
        lacking = [each.pod for each in self.pods if not each.confirmed_at]
        return {
            "what": self.what,
            "position": self.position,
            "erased": sum(each.erased for each in self.places) + sum(each.dropped for each in self.pods),
            "pods": len(self.pods),
            "not_confirmed": ", ".join(lacking),
            "complete": self.complete,
        }


class ReceiptDraft:
    """A receipt while the work goes on. *now* is the wall clock."""

    def __init__(self, what: str, by: str, now: Callable[[], float], *, dry_run: bool) -> None:
        self._now = now
        self._what = what
        self._by = by
        self._asked_at = self.time()
        self.dry_run = dry_run
        self.position = ""
        self.complete = True
        self.pods: list[PodReceipt] = []
        self.places: list[ErasedPlace] = []
        self.notes: list[str] = []

    def __repr__(self) -> str:
        return f"<ReceiptDraft {len(self.pods)} pods, {len(self.places)} places>"

    def time(self) -> str:
        """The time now, RFC 3339 in UTC."""
        return datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

    def miss(self, where: str, error: Exception) -> None:
        """A place could not be reached."""
        self.places.append(ErasedPlace(where, 0, done=False, note=f"not reached ({error}); erase again"))
        self.complete = False

    def receipt(self) -> Receipt:
        """The receipt, finished now."""
        confirmed = self.dry_run or all(pod.confirmed_at for pod in self.pods)
        return Receipt(
            self._what, self._by, self._asked_at, self.time(), self.position, self.complete and confirmed,
            self.dry_run, tuple(self.pods), tuple(self.places), tuple(self.notes),
        )  # fmt: skip


def erase_request(body: bytes, *, fleet: bool) -> EraseRequest:
    """As ``purge_request``, with ``"wait": "30s"``. Raises ``Refused``."""
    asked, lasting = read_erasure(body, fleet=fleet)
    wait = WAIT_SECONDS if lasting is None else seconds_of(lasting)
    if wait is None or not SHORTEST_WAIT <= wait <= LONGEST_WAIT:
        bounds = f"{as_duration(SHORTEST_WAIT)} to {as_duration(LONGEST_WAIT)}"
        raise Refused(400, "bad-request", f"how long to wait for other pods (`wait`) is a duration from {bounds}")
    return EraseRequest(asked, wait)
