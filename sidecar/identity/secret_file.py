"""
The fleet's secrets from a file that something else replaces.

The rule: it is a ``RotatedFile``: while the file is unreadable or wrong, the last good content is used. Its text is
never shown.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.core.key.keyring import LONGEST_FILE, parse
from sidecar.identity.rotated import RotatedFile


class SecretFile:
    """
    The secret file at *path*. *clock* is monotonic seconds; *report* gets the path and the reason if the file cannot be
    used, and again only when the reason changes. May be called from several threads.

    *keyring* returns the secrets; None if the file was never usable.
    """

    def __init__(self, path: str, clock: Callable[[], float], report: Callable[[str], None]) -> None:
        self._file = RotatedFile(path, parse, longest=LONGEST_FILE, clock=clock, report=report)
        self.keyring = self._file.value  # the file's own method, because each look into Redis asks

    def __repr__(self) -> str:
        fault = self._file.fault
        return f"<SecretFile {self._file.path} {self._file.last or 'never read'}{', ' * bool(fault)}{fault}>"
