"""
A file that something else replaces: a Secret's volume, Key Vault's, a key that a script writes.

The rule: the file is checked at most once a second, and read again when it has changed. While it is missing, unreadable
or wrong, the last good content is used. Its text is never shown.

Kubernetes replaces such files as a whole, through a link (``..data``). So this checks the file behind the link, never
the link itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

from sidecar.net.plain_file import open_plain

T = TypeVar("T")

RECHECK_SECONDS = 1.0

_Stamp = tuple[int, int, int, int, int]


class RotatedFile(Generic[T]):
    """
    The file at *path*, and the result of *parse* on its first *longest* + 1 bytes: a value, or a ``str`` that says what
    is wrong. *clock* is monotonic seconds; *report* gets the path and the reason of a file that cannot be used, and
    again only when the reason changes. May be called from several threads.

    *last* is the last good value; *fault* says why the file cannot be read now, ``""`` if it can.
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
        """The file's value; None if it was never usable."""
        with self._lock:
            now = self._clock()
            if now - self._checked >= RECHECK_SECONDS:
                self._look(now)
            return self.last

    def read_again(self) -> T | None:
        """Like ``value``, but checks the file now, because the last value turned out to be useless."""
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
        """Read the file; returns the fault in words, or ``""``."""
        with open_plain(self.path) as file:
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
