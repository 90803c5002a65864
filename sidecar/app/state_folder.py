"""
The folder of what does not fit into memory.

The rule: a folder that cannot be used is a line in the log, and the system's own folder serves instead.
"""

from __future__ import annotations

import os
from pathlib import Path

from sidecar.core.events import TellEvent


def state_folder(folder: str, tell: TellEvent) -> str:
    """*folder*, made if it is missing; ``""``, for the system's own, if there is none or it cannot be used."""
    if not folder:
        return ""
    try:
        Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        reason = "not writable"
    except OSError as error:
        reason = error.strerror or "not usable"
    tell("state-unusable", level="warning", folder=folder, reason=reason)
    return ""
