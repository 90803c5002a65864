"""
The fleet's secrets from a file that somebody else rotates.

The rule: it is a ``RotatedFile``: what was read last serves while the file can't be read or makes no sense, and nothing
of the text is ever told.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.core.key.keyring import LONGEST_FILE, Keyring, parse
from sidecar.identity.rotated import RotatedFile


class SecretFile:
    """
    The secret file at *path*. *clock* is monotonic seconds; *report* hears why the file can't be used, by its path and
    the reason, and again only when that changes. May be asked from several threads.
    """

    def __init__(self, path: str, clock: Callable[[], float], report: Callable[[str], None]) -> None:
        self._file = RotatedFile(path, parse, longest=LONGEST_FILE, clock=clock, report=report)

    def __repr__(self) -> str:
        fault = self._file.fault
        return f"<SecretFile {self._file.path} {self._file.last or 'never read'}{', ' * bool(fault)}{fault}>"

    def keyring(self) -> Keyring | None:
        """The secrets, or None where the file has never been usable."""
        return self._file.value()
