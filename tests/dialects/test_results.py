"""What makes an answer that is computed whole: all that was asked for, once for each input."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.model import Facts, Form
from sidecar.dialects import DIALECTS
from sidecar.dialects.results import COUNT, EMBEDDINGS, MODEL, MODELS, MODERATIONS


def judge(answers, value, expects=0, form=Form.WHOLE):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return str(answers.complete(body, form, Facts(expects=expects), "application/json"))


def vectors(*found, **members):
    return {"object": "list", "data": [{"index": n, "embedding": one} for n, one in enumerate(found)], **members}


NO_ANSWERS = [
    pytest.param({}, "misshapen", id="nothing"),
    pytest.param([], "misshapen", id="an array"),
    pytest.param(None, "misshapen", id="null"),
    pytest.param("upstream connect error or disconnect/reset before headers", "misshapen", id="a string"),
    pytest.param({"error": {"message": "x"}}, "failed", id="an error"),
    pytest.param({"error": "x"}, "failed", id="an error in words"),
    pytest.param(
        {
            "data": [{"id": "m", "embedding": [1]}],
            "results": [{"flagged": True}],
            "id": "m",
            "input_tokens": 1,
            "base_resp": {"status_code": 1004},
        },
        "failed",
        id="failed, says MiniMax",
    ),
    pytest.param(
        {
            "data": [{"id": "m", "embedding": [1]}],
            "results": [{"flagged": True}],
            "id": "m",
            "input_tokens": 1,
            "success": False,
        },
        "failed",
        id="no success",
    ),
    pytest.param(
        b'{"data":[{"id":"m","embedding":[1]}],"results":[{"flagged":true}],"id":"m","input_tokens":1,"x":"\xff"}',
        "unreadable",
        id="no UTF-8",
    ),
    pytest.param({"detail": "Not Found"}, "misshapen", id="a detail"),
    pytest.param(b"", "misshapen", id="empty"),
    pytest.param(b"Bad gateway", "misshapen", id="text"),
    pytest.param(b"<html>502</html>", "misshapen", id="a page"),
    pytest.param(b'{"data":[{"embedding":[1', "unreadable", id="cut"),
    pytest.param(b"[" * 100_000, "unreadable", id="deep"),
]


NAMES = {"e": EMBEDDINGS, "m": MODERATIONS, "models": MODELS, "model": MODEL, "count": COUNT}


def named(value):
    """The id of a parameter, the same in every process."""
    return next((name for name, one in NAMES.items() if one is value), str(value))


@pytest.mark.parametrize("answers", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize(("value", "expected"), NO_ANSWERS)
def test_no_answer(answers, value, expected):
    """What any gateway says with a 200 is none, whatever was asked."""

    assert expected == judge(answers, value)
    assert "unreadable" == judge(answers, vectors([1]), form=Form.EVENTS)


@pytest.mark.parametrize(
    ("value", "expects", "expected"),
    [
        (vectors([0.1, -2e-3]), 1, ""),
        (vectors([1]), 0, ""),
        (vectors("AAAA"), 1, ""),
        (vectors("AAA=", "A-_A"), 2, ""),
        (vectors([-1], [2], [3]), 3, ""),
        ({"data": [{"embedding": [1]}]}, 1, ""),
        ({"data": [{"index": 1, "embedding": [1]}, {"index": 0, "embedding": [2]}]}, 2, ""),
        ({"data": [{"embedding": [1]}, {"index": 1, "embedding": [2]}]}, 2, ""),
        (b'{"data":[{"index":0,"embedding":[ 1 ,\n2.5E+1 ]}]}', 1, ""),
        (b'{"data":[{"index":0,"embedding":"AA\\/A"}]}', 1, ""),
        (vectors([1], error=None), 1, ""),
        (vectors(), 0, "misshapen"),
        (vectors(), 1, "misshapen"),
        (vectors([1]), 2, "misshapen"),
        (vectors([1], [2]), 1, "misshapen"),
        (vectors(None), 1, "misshapen"),
        (vectors([]), 1, "misshapen"),
        (vectors(""), 1, "misshapen"),
        (vectors("not base64!"), 1, "misshapen"),
        (vectors([1], None), 2, "misshapen"),
        (vectors([None]), 1, "misshapen"),
        (vectors([1, None]), 1, "misshapen"),
        (vectors([[1]]), 1, "misshapen"),
        (vectors(["1"]), 1, "misshapen"),
        (vectors({"int8": [1]}), 1, "misshapen"),
        (vectors(True), 1, "misshapen"),
        ({"data": [{"index": 0}]}, 1, "misshapen"),
        ({"data": [{"index": 1, "embedding": [1]}]}, 1, "misshapen"),
        ({"data": [{"index": 0, "embedding": [1]}] * 2}, 2, "misshapen"),
        ({"data": [{"index": "0", "embedding": [1]}]}, 1, "misshapen"),
        ({"data": None}, 1, "misshapen"),
        ({"data": {"embedding": [1]}}, 1, "misshapen"),
        (vectors([1], error={"message": "x"}), 1, "failed"),
    ],
    ids=str,
)  # fmt: skip
def test_embeddings(value, expects, expected):
    """A vector for each input, numbered from 0: numbers, or the base64 of them."""

    assert expected == judge(EMBEDDINGS, value, expects)


@pytest.mark.parametrize(
    ("value", "expects", "expected"),
    [
        ({"results": [{"flagged": False, "categories": {}}]}, 1, ""),
        ({"results": [{"categories": {"hate": False}}, {"flagged": True}]}, 2, ""),
        ({"results": [{"flagged": True}]}, 0, ""),
        ({"results": []}, 0, "misshapen"),
        ({"results": [{}]}, 1, "misshapen"),
        ({"results": [{"flagged": None}]}, 1, "misshapen"),
        ({"results": [{"flagged": True}]}, 2, "misshapen"),
        ({"results": [{"flagged": True}] * 2}, 1, "misshapen"),
        ({"results": [{"flagged": "no"}]}, 1, "misshapen"),
        ({"results": None}, 1, "misshapen"),
    ],
    ids=str,
)
def test_moderations(value, expects, expected):
    """A judgement for each input."""

    assert expected == judge(MODERATIONS, value, expects)


@pytest.mark.parametrize(
    ("answers", "value", "expected"),
    [
        (MODELS, {"object": "list", "data": [{"id": "gpt-4o"}]}, ""),
        (MODELS, {"data": [{"type": "model", "id": "claude"}], "has_more": False}, ""),
        (MODELS, {"object": "list", "data": []}, "misshapen"),
        (MODELS, {"data": [{"id": ""}]}, "misshapen"),
        (MODELS, {"data": [{"name": "x"}]}, "misshapen"),
        (MODELS, {"data": ["gpt-4o"]}, "misshapen"),
        (MODELS, {"id": "gpt-4o"}, "misshapen"),
        (MODEL, {"id": "gpt-4o", "object": "model"}, ""),
        (MODEL, {"id": ""}, "misshapen"),
        (MODEL, {"data": [{"id": "gpt-4o"}]}, "misshapen"),
        (MODEL, {"id": "x", "error": {}}, "failed"),
        (COUNT, {"input_tokens": 11}, ""),
        (COUNT, {"object": "response.input_tokens", "input_tokens": 0}, ""),
        (COUNT, {"input_tokens": None}, "misshapen"),
        (COUNT, {"input_tokens": "11"}, "misshapen"),
        (COUNT, {"input_tokens": True}, "misshapen"),
        (COUNT, {"input_tokens": -1}, "misshapen"),
        (COUNT, {"input_tokens": 1.5}, "misshapen"),
    ],
    ids=named,
)
def test_models_and_counts(answers, value, expected):
    """A list has models in it, a model its id, a count a number of tokens."""

    assert expected == judge(answers, value)


@pytest.mark.parametrize(
    ("dialect", "method", "path", "expected"),
    [
        ("openai", b"POST", "/v1/embeddings", EMBEDDINGS),
        ("azure-openai", b"POST", "/openai/deployments/e/embeddings", EMBEDDINGS),
        ("azure-openai", b"POST", "/models/embeddings", EMBEDDINGS),
        ("openai", b"POST", "/v1/moderations", MODERATIONS),
        ("openai", b"POST", "/v1/responses/input_tokens", COUNT),
        ("anthropic", b"POST", "/v1/messages/count_tokens", COUNT),
        ("openai", b"GET", "/v1/models", MODELS),
        ("openai", b"GET", "/v1/models/gpt-4o", MODEL),
        ("anthropic", b"GET", "/v1/models", MODELS),
        ("anthropic", b"GET", "/v1/models/claude-opus-5", MODEL),
    ],
)
def test_whose(dialect, method, path, expected):
    """Each operation is judged by its own shape."""

    assert expected is DIALECTS[dialect].locate(method, path).answers


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from(["", "AAAA", "x y"]) | st.floats(0, 1),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from([
            "data", "index", "embedding", "error", "results", "flagged", "id", "input_tokens", "categories",
        ]),
        inner, max_size=4,
    ),
    max_leaves=20,
)  # fmt: skip


def is_number(value, *kinds):
    return isinstance(value, kinds) and not isinstance(value, bool)


def are_vectors(value):
    """The shape, once more and in other words."""
    data = value.get("data")
    if not isinstance(data, list) or not data or not all(isinstance(one, dict) for one in data):
        return False
    numbers = [one.get("index", 0) for one in data]
    return sorted(numbers) == list(range(len(data))) and all(
        one.get("embedding") == "AAAA"
        or (
            isinstance(one.get("embedding"), list)
            and one["embedding"]
            and all(is_number(number, int, float) for number in one["embedding"])
        )
        for one in data
    )


SHAPES = {
    "embeddings": (EMBEDDINGS, are_vectors),
    "moderations": (MODERATIONS, lambda value: bool(value.get("results")) and all(
        isinstance(one.get("flagged"), bool) or isinstance(one.get("categories"), dict) for one in value["results"])),
    "model": (MODEL, lambda value: isinstance(value.get("id"), str) and value["id"]),
    "count": (COUNT, lambda value: is_number(value.get("input_tokens"), int) and value["input_tokens"] >= 0),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@given(
    value=JSON
    | st.fixed_dictionaries({}, optional=dict.fromkeys(("data", "results", "id", "input_tokens", "error"), JSON))
)
def test_whole_is_only_what_has_the_shape(shape, value):
    """No other JSON document is a whole answer."""
    answers, is_shape = SHAPES[shape]

    assert judge(answers, value) or (isinstance(value, dict) and value.get("error") is None and is_shape(value))


@given(st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1), min_size=1, max_size=4))
def test_vectors_of_any_numbers(found):
    """Every list of numbers is a vector, however they are written."""

    assert "" == judge(EMBEDDINGS, vectors(*found), len(found))
    assert "misshapen" == judge(EMBEDDINGS, vectors(*found), len(found) + 1)
