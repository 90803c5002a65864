"""
The fleet's secrets from a file that somebody else rotates.

The rule: the file is read again when it has changed, looked at no more than once a second; what was read last serves
while the file can't be read or makes no sense. Nothing of the text is ever told.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock

from sidecar.core.keyring import LONGEST_FILE, Keyring, parse

RECHECK_SECONDS = 1.0


class SecretFile:
    """
    The secret file at *path*. *clock* is monotonic seconds; *report* hears why the file can't be used, by its path and
    the reason, and again only when that changes. May be asked from several threads.
    """

    def __init__(self, path: str, clock: Callable[[], float], report: Callable[[str], None]) -> None:
        self._path = path
        self._clock = clock
        self._report = report
        self._lock = Lock()
        self._checked = float("-inf")
        self._stamp = (0, 0, 0)
        self._keyring: Keyring | None = None
        self._fault = ""

    def __repr__(self) -> str:
        return f"<SecretFile {self._path} {self._keyring or 'never read'}{', ' * bool(self._fault)}{self._fault}>"

    def keyring(self) -> Keyring | None:
        """The secrets, or None where the file has never been usable."""
        with self._lock:
            now = self._clock()
            if now - self._checked >= RECHECK_SECONDS:
                self._checked = now
                self._look()
            return self._keyring

    def _look(self) -> None:
        fault = ""
        try:
            status = Path(self._path).stat()
            found = (status.st_ino, status.st_mtime_ns, status.st_size)
            if found != self._stamp:
                with Path(self._path).open("rb") as file:
                    read = parse(file.read(LONGEST_FILE + 1))  # a line or two, on a local file system
                if isinstance(read, str):
                    fault = read
                else:
                    self._stamp, self._keyring = found, read
        except OSError as error:
            fault = error.strerror or type(error).__name__
        if fault and fault != self._fault:
            self._report(f"{self._path}: {fault}")
        self._fault = fault
