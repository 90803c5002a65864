"""
Opens files that others put in place: configurations, secrets, certificates, answers.

The rule: only a plain file is opened. Opening a pipe waits for its writer, and reading it takes its content away from
whoever it is meant for.
"""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import BinaryIO


def open_plain(path: str | Path) -> BinaryIO:
    """Open the file at *path* for reading. Raises ``OSError``, also if it is not a plain file."""
    file = Path(path)
    mode = file.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # the system itself refuses a folder
        raise OSError(errno.EINVAL, "is not a plain file")
    return file.open("rb")
