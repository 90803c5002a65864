"""
Credentials from files that somebody else rotates.

The rule: a credential is one line of printable ASCII, without the white space around it, as editors and Key Vault add
it; each file is a ``RotatedFile``. The text is never logged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from sidecar.core.rules import KIB, StoredCredential
from sidecar.identity.rotated import RotatedFile

LONGEST = 16 * KIB
"""Bytes of a credential's file; services take no field that is longer."""

_PRINTABLE = re.compile(rb"[!-~](?:[ -~]*[!-~])?\Z")


class CredentialFiles:
    """
    The files of stored credentials. *clock* is monotonic seconds; *report* hears of a file that cannot be used, by its
    path and the reason, and again only when that changes.
    """

    def __init__(self, clock: Callable[[], float], report: Callable[[str], None]) -> None:
        self._clock = clock
        self._report = report
        self._files: dict[str, RotatedFile[bytes]] = {}

    def __repr__(self) -> str:
        return f"<CredentialFiles {len(self._files)} read>"

    def __iter__(self) -> Iterator[RotatedFile[bytes]]:
        return iter(self._files.values())

    def field(self, credential: StoredCredential) -> tuple[bytes, bytes] | None:
        """The header field to send, or None where the file has never been readable."""
        return _field(credential, self._file(credential.file).value())

    def renew(self, credential: StoredCredential, used: bytes) -> tuple[bytes, bytes] | None:
        """The field with another value than *used*, which was refused, or None where the file has no other."""
        found = _field(credential, self._file(credential.file).read_again())
        return None if found is None or found[1] == used else found

    def _file(self, path: str) -> RotatedFile[bytes]:
        file = self._files.get(path)
        if file is None:
            file = RotatedFile(path, parse, longest=LONGEST, clock=self._clock, report=self._report)
            self._files[path] = file
        return file


def _field(credential: StoredCredential, text: bytes | None) -> tuple[bytes, bytes] | None:
    if text is None:
        return None
    return credential.header.encode("latin-1"), credential.prefix.encode("latin-1") + text


def parse(text: bytes) -> bytes | str:
    """The credential that a file holds whose first ``LONGEST`` + 1 bytes are *text*, or in words why it holds none."""
    if len(text) > LONGEST:
        return "is larger than 16 KiB"
    text = text.strip()
    if not text:
        return "is empty"
    return text if _PRINTABLE.match(text) else "is not one line of printable ASCII"
