"""The clock that runs on."""

from __future__ import annotations

import time

from sidecar.app.clocks import running


def test_running():
    """It never goes back, and is no less than the time for which the machine was awake."""
    readings = [running() for _ in range(100)]

    assert sorted(readings) == readings
    assert running() >= time.monotonic() - 0.001
