"""Tokens of one principal, rotated and forged."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any

AZURE_PATH = "/azure/contoso/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"

SUBJECT = {"iss": "https://sts.windows.net/t1/", "tid": "t1", "sub": "job"}


def token(**claims: Any) -> str:
    """An unsigned token: the sidecar verifies nothing, the service does."""
    parts = ({"alg": "none"}, claims)
    head, middle = (urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)
    return f"{head}.{middle}.c2lnbmF0dXJl"


def bearer(value: str) -> dict[str, str]:
    """The header of a caller with this token or key."""
    return {"authorization": f"Bearer {value}"}


FIRST, ROTATED = (token(**SUBJECT, jti=number) for number in (1, 2))

FORGED = token(**SUBJECT, jti="forged")
