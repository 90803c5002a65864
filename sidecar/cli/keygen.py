"""
A new line for the secret file.

The rule: the line is made here and printed by who asked for it; nothing else ever sees it.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable

from sidecar.core.key.keyring import SECRET_BYTES


def line(random: Callable[[int], bytes] = os.urandom) -> str:
    """
    ``id:base64`` without a line break: a new secret under a new id.

    *random* gives as many random bytes as it is asked for. The id is random as well: two secrets of one id would take
    each other's entries for forgeries.
    """
    return f"k-{random(4).hex()}:{b64encode(random(SECRET_BYTES)).decode('ascii')}"
