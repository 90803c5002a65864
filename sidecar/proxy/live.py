"""
A stream while it comes: what watches it, when readers may have it, and whether it has come to its end.

The rule: a stream that breaks off never looks whole.
"""

from __future__ import annotations

from sidecar.core.dialect import Endpoint, Watch
from sidecar.core.model import Form
from sidecar.errors import Cause, UpstreamFailed
from sidecar.proxy.flight.flight import Flight
from sidecar.upstream.commit import COMMIT_BYTES, CommittedResponse


def watch_of(endpoint: Endpoint, answer: CommittedResponse) -> Watch:
    """The watch of a stream: the one by which it was committed, if there is one."""
    return answer.watch or endpoint.answers.watch()


def check_end(watch: Watch) -> None:
    """Raises ``UpstreamFailed`` if a stream has ended in its middle."""
    watch.close()
    if not (watch.ended or watch.failed):
        raise UpstreamFailed(Cause.TRUNCATED, "the stream ended without its last event", answered=True)


def is_committed(flight: Flight, form: Form, watch: Watch | None) -> bool:
    """Whether readers may receive what has come. After that a failure breaks their answers."""
    if flight.windowed:
        return True
    if watch is not None:
        return watch.committed
    return form is Form.EVENTS or flight.size > COMMIT_BYTES
