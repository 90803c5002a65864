"""
Credentials from files that somebody else rotates.

The rule: a file is read again when it has changed, looked at no more than once a second; what was read last serves
while the file cannot be read or holds nothing that could be a credential. The text is never logged.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from sidecar.core.rules import StoredCredential

RECHECK_SECONDS = 1.0

_PRINTABLE = re.compile(rb"[!-~](?:[ -~]*[!-~])?\Z")


class CredentialFiles:
    """
    The files of stored credentials. *clock* is monotonic seconds; *report* hears of a file that cannot be used, by its
    path and the reason, and again only when that changes.
    """

    def __init__(self, clock: Callable[[], float], report: Callable[[str], None]) -> None:
        self._clock = clock
        self._report = report
        self._read: dict[str, tuple[float, tuple[int, int, int], bytes]] = {}
        self._faults: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<CredentialFiles {len(self._read)} read>"

    def field(self, credential: StoredCredential) -> tuple[bytes, bytes] | None:
        """The header field to send, or None where the file has never been readable."""
        text = self._text(credential.file)
        if not text:
            return None
        return credential.header.encode("latin-1"), credential.prefix.encode("latin-1") + text

    def _text(self, path: str) -> bytes:
        now = self._clock()
        checked, stamp, text = self._read.get(path, (float("-inf"), (0, 0, 0), b""))
        if now - checked < RECHECK_SECONDS:
            return text
        fault = ""
        try:
            status = Path(path).stat()
            found = (status.st_ino, status.st_mtime_ns, status.st_size)
            if found != stamp or path in self._faults:
                new = Path(path).read_bytes().strip()  # a few bytes, on a local file system
                if _PRINTABLE.match(new):
                    stamp, text = found, new
                else:
                    fault = "is not one line of printable ASCII" if new else "is empty"
        except OSError as error:
            fault = error.strerror or type(error).__name__
        self._read[path] = (now, stamp, text)
        self._note(path, fault)
        return text

    def _note(self, path: str, fault: str) -> None:
        if fault and self._faults.get(path) != fault:
            self._report(f"{path}: {fault}")
        if fault:
            self._faults[path] = fault
        else:
            self._faults.pop(path, None)
