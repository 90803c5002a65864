"""
Which model answers a call.

The rule: the model changes the answer, so it is settled before the key; it is never drawn at random.
"""

from __future__ import annotations

from sidecar.core.dialect import Endpoint
from sidecar.core.model import Facts


def choose_model(endpoint: Endpoint, facts: Facts) -> str:
    """The deployment that the path names beats whatever ``model`` the body holds (Azure OpenAI, classic form)."""
    return endpoint.model or facts.model
