"""What is a transcription, and what is sound; the errors of proxies are neither."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.dialect import Completeness
from sidecar.core.model import Facts, Form
from sidecar.dialects.openai.audio import SPEECH, TRANSCRIPTION

ENVOY = b"upstream connect error or disconnect/reset before headers. reset reason: connection termination"
PAGE = b"<html>\r\n<head><title>502 Bad Gateway</title></head></html>"
SRT = b"1\n00:00:00,000 --> 00:00:02,500\nHello.\n\n"
VTT = b"WEBVTT\n\n00:00.000 --> 00:02.500\nHello.\n"


@pytest.mark.parametrize(
    ("wanted", "body", "expected"),
    [
        ("", b'{"text":"Hello"}', ""),
        ("json", b'{"text":"","usage":{"type":"duration","seconds":9}}', ""),
        ("verbose_json", b'{"task":"transcribe","text":"Hello","segments":[]}', ""),
        ("diarized_json", b'{"text":"Hello","segments":[]}', ""),
        ("json", b'{"text":"Hello","error":null}', ""),
        ("json", b'{"text":"Hello","error":{}}', "failed"),
        ("json", b'{"text":"Hello","base_resp":{"status_code":1004}}', "failed"),
        ("json", b'{"text":"Hello","success":false}', "failed"),
        ("json", b'{"text":"bad gateway"}', ""),
        ("json", b'{"text":"Hello","x":"\xff"}', "unreadable"),
        ("json", b'{"text":null}', "misshapen"),
        ("json", b'{"text":["Hello"]}', "misshapen"),
        ("json", b"{}", "misshapen"),
        ("json", b"[]", "misshapen"),
        ("json", b'{"error":{"message":"x"}}', "failed"),
        ("json", b'{"text":"Hel', "unreadable"),
        ("json", b"Hello", "misshapen"),
        ("", ENVOY, "misshapen"),
        ("", PAGE, "misshapen"),
        ("", b"", "misshapen"),
        ("text", b"Hello.\n", ""),
        ("text", b"\n", ""),
        ("text", b"The gateway was bad.", ""),
        ("text", b"Bad gateways are bad.", ""),
        ("text", "\ufeffGrüße".encode(), ""),
        ("text", b"", "truncated"),
        ("text", ENVOY, "misshapen"),
        ("text", b"upstream request timeout", "misshapen"),
        ("text", b"no healthy upstream", "misshapen"),
        ("text", b"Bad gateway", "misshapen"),
        ("text", b"502 Bad Gateway\n", "misshapen"),
        ("text", b"Service Unavailable", "misshapen"),
        ("text", b"Gateway Timeout.", "misshapen"),
        ("text", b"Internal Server Error", "misshapen"),
        ("text", b"404 page not found\n", "misshapen"),
        ("text", b"error code: 502", "misshapen"),
        ("text", b"RBAC: access denied", "misshapen"),
        ("text", b"An invalid response was received from the upstream server\n", "misshapen"),
        ("text", b"socket hang up" + b"." * 300, ""),
        ("text", b"\xff dial tcp: lookup x: no such host", "misshapen"),
        ("text", PAGE, "misshapen"),
        ("text", b" <!DOCTYPE html><title>x</title>", "misshapen"),
        ("text", b'{"error":{"message":"x"}}', "failed"),
        ("text", b'{"text":"Hello"}', "misshapen"),
        ("text", b'{"text":"Hel', "unreadable"),
        ("srt", SRT, ""),
        ("srt", b"\xef\xbb\xbf" + SRT.replace(b"\n", b"\r\n"), ""),
        ("srt", b"\n", ""),
        ("srt", b"", "truncated"),
        ("srt", VTT, "misshapen"),
        ("srt", ENVOY, "misshapen"),
        ("srt", b"502 Bad Gateway\n", "misshapen"),
        ("vtt", VTT, ""),
        ("vtt", b"WEBVTT", ""),
        ("vtt", b"WEBVTTX", "misshapen"),
        ("vtt", SRT, "misshapen"),
        ("vtt", PAGE, "misshapen"),
        ("vtt", b"", "truncated"),
        ("lrc", b"[00:01.00]Hello", "unreadable"),
        ("not yet invented", b"Hello", "misshapen"),
    ],
)  # fmt: skip
def test_transcription(wanted, body, expected):
    """Text is a transcription only in the form that was asked for, and where no proxy is known to say it."""
    found = TRANSCRIPTION.complete(body, Form.WHOLE, Facts(format=wanted), "text/plain")

    assert Completeness(expected) is found


@pytest.mark.parametrize(
    ("media", "body", "expected"),
    [
        ("audio/mpeg", b"ID3", ""),
        ("audio/pcm", b"{\x00", ""),
        ("audio/wav", b"RIFF", ""),
        ("application/octet-stream", b"\x00", ""),
        ("application/ogg", b"OggS", ""),
        ("audio/mpeg", b"", "truncated"),
        ("application/json", b'{"error":{"message":"x"}}', "failed"),
        ("application/json", b"{}", "misshapen"),
        ("application/json", b"{", "unreadable"),
        ("text/html", PAGE, "misshapen"),
        ("text/plain", b"Bad gateway", "misshapen"),
        ("text/plain", b'{"error":"x"}', "failed"),
        ("", b"ID3", "misshapen"),
        ("image/png", b"\x89PNG", "misshapen"),
    ],
)
def test_speech(media, body, expected):
    """Sound is what calls itself that."""
    found = SPEECH.complete(body, Form.WHOLE, Facts(), media)

    assert Completeness(expected) is found


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["text", "error"]), inner, max_size=2),
    max_leaves=6,
)


@given(JSON, st.sampled_from(["", "json", "verbose_json", "text", "srt", "vtt", "x"]))
def test_whole_is_only_what_has_the_shape(value, wanted):
    """No other JSON document is a transcription, and none at all where text was asked for."""
    found = TRANSCRIPTION.complete(json.dumps(value).encode(), Form.WHOLE, Facts(format=wanted), "application/json")

    if wanted in {"", "json", "verbose_json"}:
        has_text = isinstance(value, dict) and isinstance(value.get("text"), str) and value.get("error") is None
        assert has_text == (found is Completeness.WHOLE)
    elif isinstance(value, dict | list) or wanted != "text":
        assert found is not Completeness.WHOLE


@pytest.mark.parametrize("answers", [TRANSCRIPTION, SPEECH])
def test_streams(answers):
    """What ends a stream of these is not known."""

    assert Completeness.UNREADABLE is answers.complete(b"data: {}\n\n", Form.EVENTS, Facts(), "text/event-stream")
