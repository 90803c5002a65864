"""
Makes a new line for the secret file.

The rule: the line is made here and printed by the command; nothing else sees it.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable

from sidecar.core.key.keyring import SECRET_BYTES


def line(random: Callable[[int], bytes] = os.urandom) -> str:
    """
    ``id:base64`` without a line break: a new secret under a new id.

    *random* gives as many random bytes as it is asked for. The id is random as well: two secrets with one id would
    count each other's entries as forged.
    """
    return f"k-{random(4).hex()}:{b64encode(random(SECRET_BYTES)).decode('ascii')}"
