"""Recorded exchanges of the real services: what was whole is still known as whole, by what its request asked for."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from sidecar.core.cache.policy import form_of, media_of
from sidecar.core.key import canonical
from sidecar.core.model import Form
from sidecar.dialects import DIALECTS

DATA = Path(__file__).parents[2] / "../shared/data/streams"
FAILED = {"test_openrouter_stream_error.yaml"}
"""Recordings of an error within a stream."""


def exchanges(path):
    """Of each recorded exchange: its endpoint, what was asked, and the judgement on its answer."""
    for each in yaml.safe_load(path.read_text())["interactions"]:
        asked, answer = each["request"], each["response"]
        url = urlsplit(asked["uri"])
        name = next((name for name in ("anthropic", "azure") if name in url.netloc), "openai")
        dialect = DIALECTS["azure-openai" if name == "azure" else name]
        endpoint = dialect.locate(asked["method"].encode(), url.path.removeprefix("/api"))
        if endpoint is None:
            continue  # an API that is not spoken here
        question = json.dumps(asked["parsed_body"]).encode()
        facts = canonical.read(question, endpoint, b"application/json", b"key").facts
        pairs = tuple((key.encode(), value[0].encode()) for key, value in answer["headers"].items())
        form = form_of({key.lower(): value for key, value in pairs})
        said = answer["body"]["string"] if "body" in answer else json.dumps(answer["parsed_body"])
        yield endpoint.name, facts, endpoint.answers.complete(said.encode(), form, facts, media_of(pairs)), form


def test_recordings():
    """Ten answers are whole, embeddings of two inputs and streams among them; the one that failed is not."""
    if not DATA.exists():
        pytest.skip("the recorded streams are not here")
    found = [(path.name in FAILED, *one) for path in sorted(DATA.glob("*.yaml")) for one in exchanges(path)]

    assert {(False, ""), (True, "failed")} == {(failed, str(judged)) for failed, _, _, judged, _ in found}
    assert 10 == sum(not judged for *_, judged, _ in found)
    assert {"chat", "embeddings", "messages", "responses"} == {name for _, name, *_ in found}
    assert {"chat": 1, "embeddings": 2, "messages": 0, "responses": 0} == {
        name: facts.expects for _, name, facts, *_ in found
    }
    assert {Form.EVENTS, Form.WHOLE} == {form for *_, form in found}
