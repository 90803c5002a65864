"""Errors of proxies, gateways and networks are known by their words; what people say is not taken for one."""

from __future__ import annotations

import pytest

from sidecar.dialects.infrastructure import MOST_CHARACTERS, complains


@pytest.mark.parametrize(
    "text",
    [
        # Kong
        "An invalid response was received from the upstream server",
        "The upstream server is timing out",
        "failure to get a peer from the ring-balancer",
        "name resolution failed",
        # Envoy, nginx
        "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
        "no healthy upstream",
        "no live upstreams while connecting to upstream",
        # Go
        "dial tcp 10.0.0.1:8080: connect: connection refused",
        'Post "http://x/v1": context deadline exceeded',
        "context canceled",
        "read tcp 10.0.0.1:1->10.0.0.2:2: i/o timeout",
        "dial tcp: lookup whisper on 10.0.0.2:53: no such host",
        "unexpected EOF",
        "EOF",
        "net/http: TLS handshake timeout",
        # Node, Python, Java
        "Error: connect ECONNREFUSED 127.0.0.1:8000",
        "socket hang up",
        "getaddrinfo ENOTFOUND whisper",
        "TypeError: fetch failed",
        "[Errno 104] Connection reset by peer",
        "[Errno 32] Broken pipe",
        "java.net.ConnectException: Connection timed out",
        # gateways and services
        "rate limit exceeded",
        "API rate-limit exceeded.",
        "Too Many Requests",
        "upstream server error",
        "Service unavailable",
        "The service is temporarily unavailable. Please try again later.",
        "Bad gateway: the model has no backend",
        "Internal Server Error\nrequest id 7",
        "Internal error",
        "The request timed out.",
        "gateway timeout",
        "Unauthorized",
        "Access denied",
        "Invalid API key provided",
        "HTTP 503",
        "HTTP/1.1 502",
        "status code: 500",
        "error 429",
        "The server is overloaded",
    ],
)
def test_complaints(text):
    """In any case, with blanks around it."""

    assert complains(text)
    assert complains(f"\n {text.upper()} \n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hello.",
        "The gateway was bad.",
        "Bad gateways are bad.",
        "They refused the connection between the two events.",
        "The fish swim upstream in May.",
        "He limits the rate at which he talks.",
        "The internal affairs office served them.",
        "It was an error of mine, in 1503.",
        "There were 503 people.",
        "Geoffrey and I.",
        "Please unload the truck.",
    ],
)
def test_speech(text):
    """Words that only sound like it."""

    assert not complains(text)


def test_what_is_too_long():
    """Whoever speaks for longer is a person."""
    text = "bad gateway"

    assert complains(text.ljust(MOST_CHARACTERS - 1) + "x")
    assert not complains(text.ljust(MOST_CHARACTERS) + "x")
    assert complains(f"a\n{text}")
    assert not complains(f"a\nb\n{text}")
