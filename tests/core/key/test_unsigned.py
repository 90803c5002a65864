"""A URL without the signature that gives access to what is behind it."""

import pytest

from sidecar.core.key.unsigned import unsigned

BLOB = "https://a.blob.core.windows.net/c/d%20e.pdf"
SIGNED = "sv=2024-11-04&se=2026-01-01T00%3A00%3A00Z&st=2025-01-01&sr=b&sp=r&spr=https&sip=1.2.3.4&sig=a%2Bb%3D"
DELEGATED = "skoid=o&sktid=t&skt=2025-01-01&ske=2026-01-01&sks=b&skv=2024-11-04"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (BLOB, BLOB),
        (f"{BLOB}?{SIGNED}", BLOB),
        (f"{BLOB}?{DELEGATED}&{SIGNED}", BLOB),
        (f"{BLOB}?versionId=2&{SIGNED}", f"{BLOB}?versionId=2"),
        (f"{BLOB}?snapshot=2025&{SIGNED}&versionId=3", f"{BLOB}?snapshot=2025&versionId=3"),
        (f"{BLOB}?{SIGNED}&rsct=text%2Fhtml", f"{BLOB}?rsct=text%2Fhtml"),
        (f"{BLOB}?{SIGNED}#page=2", f"{BLOB}#page=2"),
    ],
)
def test_a_signature_does_not_count(url, expected):
    """Version and snapshot of a blob do, and all that is no part of the signature."""
    assert expected == unsigned(url)


@pytest.mark.parametrize(
    "url",
    [
        f"{BLOB}?sig=abc",
        f"{BLOB}?sv=2024-11-04",
        f"{BLOB}?sv=2&sig=abc&st=3",
        f"{BLOB}?sv=2024-11-04&sig=&st=3",
        "https://shop.example/a?sp=1&se=2&st=3",
        "https://s3.example/a?X-Amz-Signature=abc&X-Amz-Date=2025",
        "not a URL",
        "",
    ],
)
def test_all_else_counts(url):
    """What is not certainly such a signature counts as it is written."""
    assert url == unsigned(url)
