"""
A file that somebody else rotates: a Secret's volume, Key Vault's, a key that a script writes over.

The rule: it is read again when it has changed, looked at no more than once a second; what was read last serves while
the file is away, cannot be read or makes no sense. Nothing of the text is ever told.

Kubernetes swaps such files as a whole, by a link that they stand behind (``..data``); so it is what the path leads to
that is looked at, and never the link.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")

RECHECK_SECONDS = 1.0

_Stamp = tuple[int, int, int, int, int]


class RotatedFile(Generic[T]):
    """
    The file at *path*, and what *parse* makes of its first *longest* + 1 bytes: a value, or a ``str`` that says why it
    makes no sense. *clock* is monotonic seconds; *report* hears why the file cannot be used, by its path and the
    reason, and again only when that changes. May be asked from several threads.

    *last* is what was read last, *fault* why it cannot be read now, ``""`` where it can.
    """

    def __init__(
        self,
        path: str,
        parse: Callable[[bytes], T | str],
        *,
        longest: int,
        clock: Callable[[], float],
        report: Callable[[str], None],
    ) -> None:
        self.path = path
        self.fault = ""
        self._parse = parse
        self._longest = longest
        self._clock = clock
        self._report = report
        self._lock = Lock()
        self._checked = self._read = float("-inf")
        self._stamp: _Stamp | None = None
        self.last: T | None = None

    def __repr__(self) -> str:
        state = "never read" if self.last is None else "read"
        return f"<RotatedFile {self.path} {state}{', ' * bool(self.fault)}{self.fault}>"

    def value(self) -> T | None:
        """What the file says, or None where it has never been usable."""
        with self._lock:
            now = self._clock()
            if now - self._checked >= RECHECK_SECONDS:
                self._look(now)
            return self.last

    def read_again(self) -> T | None:
        """As ``value``, looked at now: what was read turned out to be of no use any more."""
        with self._lock:
            now = self._clock()
            self._look(now, anyway=now - self._read >= RECHECK_SECONDS)
            return self.last

    def _look(self, now: float, *, anyway: bool = False) -> None:
        self._checked = now
        fault = ""
        try:
            if anyway or _stamp(Path(self.path).stat()) != self._stamp:
                fault = self._load(now)
        except OSError as error:
            fault = error.strerror or type(error).__name__
        if fault and fault != self.fault:
            self._report(f"{self.path}: {fault}")
        self.fault = fault

    def _load(self, now: float) -> str:
        """Read it; a fault in words, or ``""``."""
        with Path(self.path).open("rb") as file:
            stamp = _stamp(
                os.fstat(file.fileno())
            )  # of this very file: it may have been swapped since it was looked at
            parsed = self._parse(file.read(self._longest + 1))  # a line or two, on a local file system
        if isinstance(parsed, str):
            return parsed
        self._read, self._stamp, self.last = now, stamp, parsed
        return ""


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
