"""Reloads: what a process is afterwards."""

from __future__ import annotations

import gc
import sys

import pytest

from sidecar.app.reload import _giving_way


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_interpreter_is_as_before(order):
    """However two readings overlap, and however often: threads and the garbage collector work as they did."""
    before = sys.getswitchinterval(), gc.isenabled()
    for _ in range(50):
        readings = [_giving_way(), _giving_way()]
        for reading in readings:
            reading.__enter__()
        for which in order:
            readings[which].__exit__(None, None, None)

    assert before == (sys.getswitchinterval(), gc.isenabled())
