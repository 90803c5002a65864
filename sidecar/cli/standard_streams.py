"""
The standard descriptors: 0, 1 and 2.

The rule: they are open before anything else is opened. If the parent process has closed one, the next socket would get
its number, and log lines would be written into it.
"""

from __future__ import annotations

import os
import sys

_MODES = ("r", "w", "w")


def open_standard_streams() -> None:
    """Open closed standard descriptors onto the null device, and Python's own files on them."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number: all below are open
            assert opened == descriptor, "only one thread runs as yet"
            os.set_inheritable(descriptor, True)
    files = (sys.stdin, sys.stdout, sys.stderr)
    if None not in files:
        return
    sys.stdin, sys.stdout, sys.stderr = (
        file or open(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        for number, (file, mode) in enumerate(zip(files, _MODES, strict=True))
    )
