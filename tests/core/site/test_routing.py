"""Which model answers."""

import pytest

from sidecar.core.model import Facts
from sidecar.core.site.routing import choose_model
from sidecar.dialects import DIALECTS


@pytest.mark.parametrize(
    ("dialect", "path", "asked", "expected"),
    [
        ("openai", "/v1/chat/completions", "gpt-4o", "gpt-4o"),
        ("openai", "/v1/chat/completions", "", ""),
        ("azure-openai", "/openai/deployments/mine/chat/completions", "gpt-4o", "mine"),
        ("azure-openai", "/openai/v1/chat/completions", "mine", "mine"),
    ],
)
def test_choose_model(dialect, path, asked, expected):
    """The deployment in the path, else the model that was asked for."""
    endpoint = DIALECTS[dialect].locate(b"POST", path)

    assert expected == choose_model(endpoint, Facts(model=asked))
