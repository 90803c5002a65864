"""Where the fleet's Redis is."""

import pytest

from sidecar.redis_link.address import Address, locate


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://cache", Address("single", False, (("cache", 6379),))),
        ("redis://cache:7000/3", Address("single", False, (("cache", 7000),), "", 3)),
        ("rediss://[::1]:7000/", Address("single", True, (("::1", 7000),))),
        ("redis+sentinel://a,b:1/main", Address("sentinel", False, (("a", 26379), ("b", 1)), "main")),
        ("rediss+sentinel://a/main/2", Address("sentinel", True, (("a", 26379),), "main", 2)),
        ("redis+cluster://a:7000,b", Address("cluster", False, (("a", 7000), ("b", 6379)))),
        ("rediss+cluster://a/0", Address("cluster", True, (("a", 6379),))),
    ],
)
def test_urls(url, expected):
    """Six schemes."""

    assert expected == locate(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("http://cache", "scheme", id="scheme"),
        pytest.param("redis://user:pass@cache", "username_file", id="credentials"),
        pytest.param("redis://cache?db=1", "query", id="query"),
        pytest.param("redis://", "HOST", id="no host"),
        pytest.param("redis://cache:port", "HOST:PORT", id="port"),
        pytest.param("redis://a,b", "redis\\+cluster", id="hosts"),
        pytest.param("redis://cache/first", "number", id="database"),
        pytest.param("redis+sentinel://a", "/SERVICE", id="no service"),
        pytest.param("redis+sentinel://a/main/0/1", "number", id="steps"),
        pytest.param("redis+cluster://a/1", "database 0", id="cluster's database"),
    ],
)
def test_urls_that_cannot_be_used(url, expected):
    """The message says what would be right."""
    with pytest.raises(ValueError, match=expected):
        locate(url)
