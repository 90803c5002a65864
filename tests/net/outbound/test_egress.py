"""Which proxy a call leaves through."""

import pytest

from sidecar.net.outbound.egress import choose, excluded, is_loopback

PROXY = "http://proxy.corp:3128"


def nobody(_host, _port):
    return False


def way(url="https://api.openai.com", *, proxy="environment", own=nobody, **environ):
    return choose(url, proxy=proxy, environ=environ, own=own)


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        pytest.param("https://a.example", {}, "", id="nothing-set"),
        pytest.param("https://a.example", {"HTTPS_PROXY": PROXY}, PROXY, id="https-upper"),
        pytest.param("https://a.example", {"https_proxy": PROXY}, PROXY, id="https-lower"),
        pytest.param("https://a.example", {"HTTP_PROXY": PROXY}, "", id="http-variable-not-for-https"),
        pytest.param("http://a.example", {"HTTP_PROXY": PROXY}, PROXY, id="http-variable-for-http"),
        pytest.param("http://a.example", {"HTTPS_PROXY": PROXY}, "", id="https-variable-not-for-http"),
        pytest.param("https://a.example", {"ALL_PROXY": PROXY}, PROXY, id="all"),
        pytest.param("https://a.example", {"ALL_PROXY": "http://b:1", "HTTPS_PROXY": PROXY}, PROXY, id="scheme-first"),
        pytest.param("https://a.example", {"https_proxy": PROXY, "HTTPS_PROXY": "http://b:1"}, PROXY, id="lower-first"),
        pytest.param("https://a.example", {"https_proxy": "", "HTTPS_PROXY": PROXY}, PROXY, id="empty-is-unset"),
        pytest.param("https://a.example", {"https_proxy": "proxy.corp:3128"}, PROXY, id="no-scheme"),
        pytest.param("https://a.example", {"https_proxy": "https://p"}, "https://p:443", id="default-port"),
        pytest.param("https://a.example", {"https_proxy": "http://[fd00::1]:8"}, "http://[fd00::1]:8", id="ipv6"),
        pytest.param("https://a.example", {"https_proxy": PROXY, "NO_PROXY": "a.example"}, "", id="no-proxy"),
        pytest.param("https://a.example", {"https_proxy": PROXY, "no_proxy": "*"}, "", id="no-proxy-all"),
        pytest.param("http://127.0.0.1:8", {"http_proxy": PROXY}, "", id="loopback"),
        pytest.param("http://[::1]:8", {"http_proxy": PROXY}, "", id="loopback-v6"),
        pytest.param("http://localhost:8", {"http_proxy": PROXY}, "", id="localhost"),
    ],
)
def test_environment(url, environ, expected):
    """The environment's variables are read as curl reads them."""
    assert expected == way(url, **environ).proxy


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "expected"),
    [
        pytest.param("", "a.example", 443, False, id="empty"),
        pytest.param("*", "a.example", 443, True, id="all"),
        pytest.param("a.example", "a.example", 443, True, id="exact"),
        pytest.param("A.Example", "a.eXample", 443, True, id="case"),
        pytest.param("a.example", "a.example.", 443, True, id="root-dot"),
        pytest.param("a.example", "b.a.example", 443, True, id="below"),
        pytest.param("a.example", "ba.example", 443, False, id="not-a-label"),
        pytest.param(".example", "a.example", 443, True, id="suffix"),
        pytest.param("*.example", "a.example", 443, True, id="star-suffix"),
        pytest.param(".example", "anexample", 443, False, id="suffix-not-a-label"),
        pytest.param("x, ,a.example", "a.example", 443, True, id="comma"),
        pytest.param("x a.example", "a.example", 443, True, id="blank"),
        pytest.param("a.example:443", "a.example", 443, True, id="port"),
        pytest.param("a.example:80", "a.example", 443, False, id="other-port"),
        pytest.param("10.0.0.0/8", "10.1.2.3", 443, True, id="block"),
        pytest.param("10.0.0.0/8", "11.1.2.3", 443, False, id="outside-block"),
        pytest.param("10.0.0.0/8", "a.example", 443, False, id="block-and-name"),
        pytest.param("fd00::/8", "fd12::1", 443, True, id="v6-block"),
        pytest.param("10.0.0.0/99,a.example", "a.example", 443, True, id="broken-block-is-skipped"),
        pytest.param("10.1.2.3", "10.1.2.3", 443, True, id="address"),
        pytest.param("10.1.2.3", "110.1.2.3", 443, False, id="another-address"),
        pytest.param("10.1.2.3:80", "10.1.2.3", 443, False, id="address-other-port"),
        pytest.param("[fd00::1]:443", "fd00:0::1", 443, True, id="v6-port"),
        pytest.param("fd00::1", "fd00::1", 443, True, id="v6"),
        pytest.param(".", "a.example", 443, False, id="dot"),
    ],
)
def test_no_proxy(no_proxy, host, port, expected):
    """Each form of an entry of no_proxy."""
    assert expected is excluded(host, port, no_proxy)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("api.LOCALHOST.", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("a", False),
    ],
)
def test_loopback(host, expected):
    """A host that is this machine by its spelling."""
    assert expected is is_loopback(host)


def test_configuration_wins():
    """A configured proxy holds for everything, loopback included; ``none`` for nothing."""
    assert "http://c:8" == way("http://127.0.0.1", proxy="http://c:8", http_proxy=PROXY, no_proxy="*").proxy
    assert "" == way(proxy="none", https_proxy=PROXY).proxy


def test_credentials():
    """A proxy's user and password become Basic credentials, and appear nowhere else."""
    egress = way(https_proxy="http://us%40er:p%3Ass@proxy.corp:3128")

    assert ("http://proxy.corp:3128", "Basic dXNAZXI6cDpzcw==") == (egress.proxy, egress.authorization)
    assert "<Egress http://proxy.corp:3128: the proxy of https_proxy>" == repr(egress)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("socks5://u:secret@p:1080", "socks5 proxies are not supported"),
        ("http://p:99999", "it is no URL"),
        ("http://[::1", "it is no URL"),
        ("http://:3128", "it names no host"),
        ("http://u:secret@127.0.0.1:7400", "127.0.0.1:7400 is this sidecar itself"),
    ],
)
def test_ignored(value, reason):
    """A proxy that cannot be used is ignored, with a reason that keeps its credentials secret."""
    egress = way(https_proxy=value, own=lambda host, port: (host, port) == ("127.0.0.1", 7400))

    assert ("", f"the proxy of https_proxy is ignored: {reason}") == (egress.proxy, egress.reason)
