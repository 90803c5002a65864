"""How many results a request of the OpenAI family asks for."""

import pytest

from sidecar.core.key import canonical
from sidecar.dialects.openai import counts as openai_counts
from sidecar.dialects.openai import facts as openai_facts
from sidecar.dialects.openai.endpoints import CHAT, COMPLETIONS, EMBEDDINGS

MUCH = "x" * 70_000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("hi", 1),
        ("", 1),
        (["hi"], 1),
        (["hi", "ho", ""], 3),
        ([1, 2, 3], 1),
        ([[1, 2], [3]], 2),
        ([], 0),
        ([[]], 0),
        ([[1], []], 0),
        ([1, "hi"], 0),
        ([[1], "hi"], 0),
        ([["hi"]], 0),
        ([True, False], 0),
        ([1.5], 0),
        ([None], 0),
        ([{"text": "hi"}], 0),
        ({"text": "hi"}, 0),
        (None, 0),
        (7, 0),
    ],
    ids=str,
)
def test_inputs(value, expected):
    """An array of tokens is one input; an array of strings or of token arrays is as many as it has."""

    assert expected == openai_counts.inputs(value)
    assert expected == openai_facts.embeddings({"input": value}).expects


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, 1),
        ({"n": None}, 1),
        ({"n": 1}, 1),
        ({"n": 3}, 3),
        ({"n": 0}, 0),
        ({"n": -1}, 0),
        ({"n": "3"}, 0),
        ({"n": 3.0}, 0),
        ({"n": True}, 0),
    ],
    ids=str,
)
def test_choices(members, expected):
    """As many as ``n`` says; what no service could read alike is not known."""

    assert expected == openai_facts.chat(members).expects


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"prompt": "hi"}, 1),
        ({"prompt": "hi", "n": 2}, 2),
        ({"prompt": ["hi", "ho"]}, 2),
        ({"prompt": ["hi", "ho"], "n": 3}, 6),
        ({"prompt": ["hi", "ho"], "n": 2, "best_of": 5}, 4),
        ({"prompt": [1, 2, 3], "n": 2}, 2),
        ({"prompt": [[1], [2]]}, 2),
        ({"prompt": [1, "hi"]}, 0),
        ({"n": 2}, 0),
        ({"prompt": "hi", "n": "2"}, 0),
        ({"prompt": "hi", "prompt_embeds": "AAAA"}, 0),
    ],
    ids=str,
)
def test_completions(members, expected):
    """``n`` for each prompt, however many were tried for the best."""

    assert expected == openai_facts.completions(members).expects


@pytest.mark.parametrize(
    ("endpoint", "body", "expected"),
    [
        (EMBEDDINGS, b'{"model":"m","input":["hi","ho"]}', 2),
        (EMBEDDINGS, b'{"model":"m","input":[%b"%b"]}' % (b'"%b",' % MUCH.encode() * 4, b"hi"), 0),
        (COMPLETIONS, b'{"model":"m","n":2,"prompt":"%b"}' % (MUCH.encode() * 5), 0),
        (CHAT, b'{"model":"m","n":2,"messages":[{"role":"user","content":"%b"}]}' % (MUCH.encode() * 5), 2),
    ],
    ids=["small", "inputs", "prompt", "messages"],
)
def test_large_bodies(endpoint, body, expected):
    """Of a large body only short members are known, and so is the number only by them."""

    assert expected == canonical.read(body, endpoint, b"application/json", b"k").facts.expects
