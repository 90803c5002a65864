"""
``sidecar wait``: until the sidecar beside this container is ready; then, if a command was given, that runs instead.

The rule: nothing of ours stops an application. When the time is over the command runs all the same, and that is said.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable

from sidecar.admin.access import authority
from sidecar.core.rules import Rules

PAUSE_SECONDS = 0.1
ANSWER_SECONDS = 1.0

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  where to call what listens there


def wait(rules: Rules, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> str:
    """Wait until the sidecar of *rules* is ready, at most *seconds*. Returns ``""``, or why it is not."""
    host = _WILDCARDS.get(rules.health.host, rules.health.host)
    until = clock() + seconds
    while True:
        why = _not_ready(host, rules.health.port)
        if not why or clock() >= until:
            return why and f"no sidecar is ready at {authority(host, rules.health.port)}: {why}"
        time.sleep(PAUSE_SECONDS)


def _not_ready(host: str, port: int) -> str:
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return getattr(error, "strerror", None) or type(error).__name__
    finally:
        connection.close()
    return "" if status == 200 else f"it answers {status}"
