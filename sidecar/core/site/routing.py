"""
Which model answers a call.

The rule: the model changes the answer, so it is chosen before the key is made, and never at random.
"""

from __future__ import annotations

from sidecar.core.dialect import Endpoint
from sidecar.core.model import Facts


def choose_model(endpoint: Endpoint, facts: Facts) -> str:
    """The model that answers. A deployment in the path beats ``model`` in the body (Azure OpenAI, classic form)."""
    return endpoint.model or facts.model
