"""What a file must hold that answers where nobody else does."""

from __future__ import annotations

import pytest

from sidecar.core.answer.answer_file import LARGEST, fault


@pytest.mark.parametrize(
    "body",
    [b"{}", b' {"a": [1, null, "\xc3\xa9"]}\n', b'"busy"', b"{" + b" " * (LARGEST - 2) + b"}"],
    ids=["object", "blanks", "text", "largest"],
)
def test_fit(body):
    """Any JSON will do, up to a MiB."""
    assert "" == fault(body)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"{" + b" " * (LARGEST - 1) + b"}", "is larger than 1 MiB", id="large"),
        pytest.param(b" \n", "is not JSON", id="blank"),
        pytest.param(b"busy", "is not JSON", id="prose"),
        pytest.param(b'data: {"a": 1}\n\n', "is not JSON", id="events"),
        pytest.param(b'{"a": 1', "is not JSON", id="cut"),
        pytest.param(b"{} {}", "is not JSON", id="two"),
        pytest.param(b"\xef\xbb\xbf{}", "is not JSON", id="byte order mark"),
        pytest.param(b'{"a": "\xff"}', "is not JSON", id="encoding"),
        pytest.param(b"NaN", "is not JSON", id="number"),
        pytest.param(b"[" * 100_000, "is not JSON", id="deep"),
    ],
)
def test_unfit(body, expected):
    """What callers could not read is never given to them."""
    assert expected == fault(body)
