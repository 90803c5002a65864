"""
``sidecar purge --erase``: what it asks, and the receipt for people.

The rule: the exit code is 0 only if the receipt is complete. A receipt shows no document, no key and no secret.
"""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.admin.erasure import WAIT_SECONDS, Receipt
from sidecar.cli.admin_client import CommandResult, call, purge_body
from sidecar.core.durations import seconds_of
from sidecar.core.rules import Rules

WALK_SECONDS = 900.0
"""How long the sidecar may take to go through Redis, in addition to the wait for the pods."""


def erase(rules: Rules, scope: str, value: str | bytes, *, dry_run: bool, wait: str | None) -> CommandResult:
    """Erase by *scope* and *value*, as ``admin_client.purge`` has them; the other pods may take *wait* (``30s``)."""
    body = {**purge_body(scope, value, dry_run=dry_run), "wait": wait}
    patience = WALK_SECONDS + (WAIT_SECONDS if wait is None else seconds_of(wait) or 0.0)
    done = call(rules, Receipt, "/api/erase", body, patience=patience)
    if isinstance(done, CommandResult):
        return done
    return CommandResult(0 if done.complete else 1, "\n".join(_lines(done)), done.notes)


def _lines(receipt: Receipt) -> Iterator[str]:
    dry_run = receipt.dry_run
    yield f"{'Would erase' if dry_run else 'Erased'}: {receipt.what}"
    number = receipt.position.partition(":")[2]
    place = f"; purge {number} in the fleet's log" if number else ""
    yield f"Asked for {receipt.asked_at} by {receipt.by}{place}"
    for pod in receipt.pods:
        state = f"confirmed {pod.confirmed_at}" if pod.confirmed_at else "NOT CONFIRMED"
        if dry_run:
            state = "counted"
        why = f" ({pod.why})" if pod.why and not dry_run else ""
        yield f"  pod {pod.pod}: {_count(pod.dropped, 'entry', 'entries')} in memory, {state}{why}"
    for each in receipt.places:
        note = f" ({each.note})" if each.note else ""
        yield f"  {each.where}: {_count(each.erased, 'value', 'values') if each.done else 'NOT REACHED'}{note}"
    end = "complete" if receipt.complete else "NOT COMPLETE"
    yield f"Finished {receipt.finished_at}: {'only counted' if dry_run else end}"


def _count(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
