"""Requests that people keep in files: which port they came to."""

from __future__ import annotations

import pytest

from sidecar.net.request_file import read_request

OWN = frozenset({7401, 7402})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param("Host: 127.0.0.1:7401", 7401, id="its-own"),
        pytest.param("Host: [::1]:7402", 7402, id="its-own-of-another-address"),
        pytest.param("host:sidecar:7401 ", 7401, id="however-it-is-written"),
        pytest.param("Host: 127.0.0.1:7400", 7400, id="the-shared-one"),
        pytest.param("Host: 127.0.0.1:9999", 7400, id="nobodys"),
        pytest.param("Host: 127.0.0.1:77401", 7400, id="no-port"),
        pytest.param("Host: 7401", 7400, id="a-name"),
        pytest.param("Host: api.example.com", 7400, id="without-a-port"),
        pytest.param("X: y", 7400, id="without-a-host"),
    ],
)
def test_port(fields, expected):
    """A service's own port, where Host names one, else the one that is given."""
    head, _ = read_request(f"GET /x HTTP/1.1\n{fields}\n\n".encode(), 7400, OWN)

    assert expected == head.port


@pytest.mark.parametrize(
    ("length", "body", "expected"),
    [
        pytest.param("Content-Length: 6\n", b"%%EOF\n", b"%%EOF\n", id="as-long-as-it-says"),
        pytest.param("content-length:6 \n", b"%%EOF\n", b"%%EOF\n", id="however-it-is-written"),
        pytest.param("Content-Length: 5\n", b"%%EOF\n", b"%%EOF", id="an-editors-line-feed"),
        pytest.param("", b"%%EOF\n", b"%%EOF", id="without-a-length"),
        pytest.param("", b"%%EOF\r\n", b"%%EOF\r\n", id="no-editors"),
        pytest.param("Content-Length: 9\n", b"%%EOF", b"%%EOF", id="a-wrong-length"),
    ],
)
def test_a_line_feed_at_the_end(length, body, expected):
    """It belongs to a body that is as long as its head says; otherwise an editor has put it there."""
    _, found = read_request(f"POST /x HTTP/1.1\n{length}\n".encode() + body)

    assert expected == found
