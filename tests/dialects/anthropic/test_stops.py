"""Which ends of a message are good, in both forms alike."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.dialect import Completeness
from sidecar.core.http.sse import frame
from sidecar.core.model import Facts, Form
from sidecar.dialects.anthropic.messages import ANSWERS

GOOD = {"end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal", "model_context_window_exceeded"}
PAUSED = {"pause_turn", "compaction"}


def streamed(*reasons):
    events = [("message_start", {"message": {"type": "message", "content": [], "stop_reason": None}})]
    events += [("message_delta", {"delta": {"stop_reason": reason}}) for reason in reasons]
    events.append(("message_stop", {}))
    return b"".join(frame(json.dumps({"type": name, **more}).encode(), name) for name, more in events)


def both(reason):
    """The judgement on a message that stopped so, whole and streamed, and the word that it tells."""
    document = json.dumps({"type": "message", "content": [], "stop_reason": reason}).encode()
    stream = streamed(reason)
    forms = ((document, Form.WHOLE), (stream, Form.EVENTS))
    found = [ANSWERS.complete(body, form, Facts(), "") for body, form in forms]
    words = [ANSWERS.finish(body, form) for body, form in forms]

    assert found[0] is found[1]
    assert words[0] == words[1]

    return found[0], words[0]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("end_turn", ""),
        ("max_tokens", ""),
        ("stop_sequence", ""),
        ("tool_use", ""),
        ("refusal", ""),
        ("model_context_window_exceeded", ""),
        ("pause_turn", "paused"),
        ("compaction", "paused"),
        (None, "unfinished"),
        ("", "unknown-finish"),
        ("error", "unknown-finish"),
        ("abort", "unknown-finish"),
        ("guardrail_intervened", "unknown-finish"),
        ("content_filtered", "unknown-finish"),
        ("stop", "unknown-finish"),
        ("not yet invented", "unknown-finish"),
    ],
)
def test_stop_reason(reason, expected):
    """The API's own words and no others; a paused message goes on in the next request."""
    found, word = both(reason)

    assert Completeness(expected) is found
    assert (reason if expected == "unknown-finish" else "") == word


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        ((None, "end_turn"), ""),
        (("", "end_turn"), ""),
        (("end_turn", None), ""),
        (("end_turn", ""), ""),
        ((None, None), "unfinished"),
        (("error", "end_turn"), "unknown-finish"),
        (("end_turn", "error"), "unknown-finish"),
        (("pause_turn", "end_turn"), "paused"),
        ((), "unfinished"),
    ],
    ids=str,
)
def test_reasons_that_follow_each_other(reasons, expected):
    """A later delta that says nothing takes nothing back, and one good reason makes no other good."""

    assert Completeness(expected) is ANSWERS.complete(streamed(*reasons), Form.EVENTS, Facts(), "")


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"error": {"message": "x"}}, "failed"),
        ({"type": "error", "error": {"type": "overloaded_error"}}, "failed"),
        ({"type": "message", "content": [], "stop_reason": "end_turn", "error": {"message": "x"}}, "failed"),
        ({"type": "message", "content": [], "stop_reason": "end_turn", "error": None}, ""),
        ({}, "unreadable"),
    ],
    ids=str,
)
def test_errors(document, expected):
    """An error beside or in place of a message makes it none, in the form of any gateway."""

    assert Completeness(expected) is ANSWERS.complete(json.dumps(document).encode(), Form.WHOLE, Facts(), "")


@given(st.text().filter(lambda word: word not in GOOD | PAUSED))
def test_invented(word):
    """Whatever word comes that is not the API's, the message is not whole, and the word is told."""

    assert (Completeness.UNKNOWN_FINISH, word) == both(word)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["message", "end_turn", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "content", "stop_reason", "error", "usage", "model"]), inner, max_size=6
        )
    ),
    max_leaves=12,
)
ALMOST = st.fixed_dictionaries({}, optional=dict.fromkeys(("type", "content", "stop_reason", "error"), JSON))


@given(JSON | ALMOST)
def test_whole_is_only_what_has_the_shape(value):
    """No other JSON document is a whole message."""
    found = ANSWERS.complete(json.dumps(value).encode(), Form.WHOLE, Facts(), "")

    assert found is not Completeness.WHOLE or (
        value["type"] == "message"
        and isinstance(value["content"], list)
        and value["stop_reason"] in GOOD
        and value.get("error") is None
    )
