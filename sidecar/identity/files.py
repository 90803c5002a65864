"""
Credentials from files that something else replaces.

The rule: a credential is one line of printable ASCII, without surrounding white space, which editors and Key Vault add;
each file is a ``RotatedFile``. The text is never logged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator

from sidecar.core.rules import KIB, StoredCredential
from sidecar.identity.rotated import RotatedFile

LONGEST = 16 * KIB
"""The largest credential file, in bytes; services accept no longer field."""

_PRINTABLE = re.compile(rb"[!-~](?:[ -~]*[!-~])?\Z")


class CredentialFiles:
    """
    The files of stored credentials. *clock* is monotonic seconds; *report* gets the path and the reason of a file that
    cannot be used, and again only when the reason changes.
    """

    def __init__(self, clock: Callable[[], float], report: Callable[[str], None]) -> None:
        self._clock = clock
        self._report = report
        self._files: dict[str, RotatedFile[bytes]] = {}

    def __repr__(self) -> str:
        return f"<CredentialFiles {len(self._files)} read>"

    def __iter__(self) -> Iterator[RotatedFile[bytes]]:
        return iter(self._files.values())

    def keep(self, paths: Collection[str]) -> None:
        """Forget all files but those at *paths*."""
        self._files = {path: file for path, file in self._files.items() if path in paths}

    def field(self, credential: StoredCredential) -> tuple[bytes, bytes] | None:
        """The header field to send; None if the file was never readable."""
        return _field(credential, self._file(credential.file).value())

    def renew(self, credential: StoredCredential, used: bytes) -> tuple[bytes, bytes] | None:
        """The field with another value than *used*, which was refused; None if the file has no other."""
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
    """The credential in a file whose first ``LONGEST`` + 1 bytes are *text*, or the reason why it holds none."""
    if len(text) > LONGEST:
        return "is larger than 16 KiB"
    text = text.strip()
    if not text:
        return "is empty"
    return text if _PRINTABLE.match(text) else "is not one line of printable ASCII"
