"""What each header field is to a service: nothing that may choose the answer is overlooked, noise splits nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.http.headers import HOP_BY_HOP, LONGEST_NAME, OURS, REWRITTEN, is_secretive
from sidecar.core.request.noise import NOISE, is_noise, without_balancers
from sidecar.core.request.roles import MOST_NAMES, Role, Roles, foreign_charset, has_token
from sidecar.core.rules import HeaderRule, Region, Service
from sidecar.dialects import DIALECTS

VENDORS = {
    "openai": ("https://api.openai.com", "https://us.api.openai.com", "https://eu.api.openai.com/v1"),
    "anthropic": ("https://api.anthropic.com",),
    "azure-openai": (
        "https://{resource}.openai.azure.com", "https://x.cognitiveservices.azure.com",
        "https://x.services.ai.azure.com", "https://x.openai.azure.us", "https://x.openai.azure.cn",
    ),
    "azure-documents": (
        "https://x.cognitiveservices.azure.com", "https://x.services.ai.azure.com",
        "https://westeurope.api.cognitive.microsoft.com", "https://x.cognitiveservices.azure.us",
    ),
    "azure-vision": ("https://x.cognitiveservices.azure.com", "https://x.cognitiveservices.azure.cn"),
    "azure-language": ("https://x.cognitiveservices.azure.com", "https://westeurope.api.cognitive.microsoft.com"),
    "azure-translator": ("https://api-eur.cognitive.microsofttranslator.com", "https://x.cognitiveservices.azure.us"),
    "azure-safety": ("https://x.cognitiveservices.azure.cn", "https://x.services.ai.azure.com"),
    "azure-speech": ("https://westeurope.stt.speech.microsoft.com", "https://westeurope.tts.speech.azure.us"),
}  # fmt: skip
GATEWAYS = (
    "https://gateway.example", "https://x.azure-api.net", "https://api.openai.com.evil.example",
    "https://evilapi.openai.com.", "http://127.0.0.1:8080", "https://openrouter.ai/api", "https://notapi.openai.co",
)  # fmt: skip
NAMES = sorted({name for names in NOISE.values() for name in names})


def roles(dialect="openai", url="https://gateway.example", *more, **how):
    regions = tuple(Region(str(n), each) for n, each in enumerate((url, *more)))
    return Roles(Service("s", DIALECTS[dialect], regions, **how))


@pytest.mark.parametrize(("dialect", "url"), [(name, url) for name, urls in VENDORS.items() for url in urls])
def test_a_vendors_own_hosts(dialect, url):
    """There the dialect's own list says what counts."""
    found = roles(dialect, url)

    assert found.own
    assert all(found.of(name) is Role.COUNTS for name in DIALECTS[dialect].counting)
    assert Role.NOISE is found.of(b"x-portkey-provider")


@pytest.mark.parametrize("url", GATEWAYS)
@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_anywhere_else(dialect, url):
    """One region elsewhere is enough for every field to count."""
    for found in (roles(dialect, url), roles(dialect, VENDORS.get(dialect, GATEWAYS)[0], url)):
        assert not found.own
        assert Role.COUNTS is found.of(b"x-portkey-provider")


@pytest.mark.parametrize(
    "name",
    [
        "x-portkey-provider", "x-portkey-config", "helicone-target-url", "extra-parameters", "x-amz-target",
        "soapaction", "mcp-session-id", "x-tenant", "accept-language", "x-litellm-tags", "x-forwarded-user",
        "x-forwarded-client-cert", "x-user-id", "x-made-up", "openai-beta", "anthropic-version", "content-type",
        "x-ms-region", "api-version",
    ],
)  # fmt: skip
@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_what_gateways_choose_by(name, dialect):
    """At a gateway it is part of the question."""

    assert Role.COUNTS is roles(dialect).of(name.encode())
    assert ((name.encode(), b"v"),) == roles(dialect).counted({name.encode(): b"v"})


@pytest.mark.parametrize("dialect", sorted(set(DIALECTS) - {"generic"}))
@pytest.mark.parametrize("name", NAMES)
def test_noise(name, dialect):
    """What is documented to say nothing never counts, at a vendor and at a gateway."""
    field = name.replace("*", "anything").encode()

    assert is_noise(field)
    assert Role.NOISE is roles(dialect).of(field)
    assert Role.NOISE is roles(dialect, VENDORS[dialect][0]).of(field)


def test_what_is_generic_has_an_accept():
    """Of services that nobody here knows the form of the answer is the caller's choice."""

    assert Role.COUNTS is roles("generic").of(b"accept")


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP | OURS | REWRITTEN))
def test_what_never_reaches_the_service(name):
    """Fields of the connection, and those that speak to the sidecar, are no part of any question."""

    assert Role.COUNTS is not roles("generic").of(name)


def test_no_noise_is_secret():
    """The two lists have nothing in common, whatever stands behind a prefix."""

    assert [] == [name for name in NAMES if is_secretive(name.rstrip("*").encode())]


def test_what_an_owner_adjusts():
    """A service's owner may have a field count, or not; a credential that is to count does both."""
    rule = HeaderRule(count=frozenset({b"traceparent", b"x-litellm-key"}), ignore=frozenset({b"x-job-id"}))
    for url in ("https://gateway.example", "https://api.openai.com"):
        found = roles("openai", url, headers=rule)

        assert Role.COUNTS is found.of(b"traceparent")
        assert Role.NOISE is found.of(b"x-job-id")
        assert Role.CREDENTIAL is found.of(b"x-litellm-key")
        assert [b"x-litellm-key"] == [name for name, _ in found.counted({b"x-litellm-key": b"k", b"x-job-id": b"1"})]


@pytest.mark.parametrize("name", [b"x-portkey-virtual-key", b"x-bf-vk"])
def test_a_selector_is_both(name):
    """A credential that chooses the provider counts beside whose it is, at a gateway."""

    assert ((name, b"v"),) == roles().counted({name: b"v"})
    assert ((name, b"v"),) == roles().credentials({name: b"v"})
    assert () == roles("openai", "https://api.openai.com").counted({name: b"v"})


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        (b"multipart/form-data; boundary=a", b"multipart/form-data; boundary=b", True),
        (b"application/json", b"Application/JSON; charset=utf-8", True),
        (b"audio/l16; rate=16000", b"audio/l16; rate=8000", False),
        (b"audio/l16; rate=16000; channels=1", b"audio/l16;channels=1;rate=16000", True),
        (b"text/plain", b"text/html", False),
        (b"text/plain; a b", b"text/plain; a c", False),
        (b"text/plain; format=Flowed", b"text/plain; format=flowed", False),
        (b"a/b; x=y;", b"a/b; x=z;", False),
        (b"a/b; x=1; x=2", b"a/b; x=2; x=1", False),
        (b"a/b; x=1; X=2", b"a/b; X=2; x=1", False),
        (b"a/b; boundary=1; boundary=2", b"a/b; boundary=2; boundary=1", False),
        (b'a/b ;\tx = 1\t; y = "2 ; z" ', b'A/B;y="2 ; z";x=1', True),
        (b"a/b; x=" + b"a" * 1000 + b"; y=b", b"a/b; y=b; x=" + b"a" * 1000, True),
        (b"a/b; x=" + b"a" * 1100 + b"; y=b", b"a/b; y=b; x=" + b"a" * 1100, False),
    ],
)
def test_content_types(one, two, same):
    """The media type counts and what describes it; neither the border of parts nor the name of UTF-8 does."""
    found = [roles("generic").counted({b"content-type": value}) for value in (one, two)]

    assert same == (found[0] == found[1])


@pytest.mark.parametrize(
    ("value", "foreign"),
    [
        (b"", False),
        (b"application/json", False),
        (b"application/json; charset=utf-8", False),
        (b'application/json;charset="UTF-8"', False),
        (b"text/plain; charset=us-ascii", False),
        (b"application/json; charset=utf-7", True),
        (b"application/json; CHARSET=latin-1", True),
        (b"application/json; charset=utf-16le", True),
        (b"application/json; charset=utf-8; charset=utf-7", True),
        (b"application/json; charset*=utf-8''utf-7", True),
        (b"application/json; charset = utf-7", True),
        (b"application/json; x=charset", True),
        (b"application/json charset=utf-7", True),
    ],
)
def test_charsets(value, foreign):
    """Only a body in UTF-8 means what its bytes say; whatever can't be read as that is another."""

    assert foreign == foreign_charset(value)


TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (TOKEN, True), (f"Bearer {TOKEN}", True), (f"a={TOKEN}; b", True), (TOKEN + "..x", True),
        (TOKEN.rpartition(".")[0], False), ("eyJ", False), (f"x{TOKEN}", False), ("a.b.c", False),
        ("eyJhbGciOiJub25lIn0.e30.", True),
    ],
)  # fmt: skip
def test_tokens_are_seen(value, expected):
    """In whatever stands around them."""

    assert expected == has_token(value.encode())


@pytest.mark.parametrize("name", [b"x-made-up", b"x-user"])
def test_a_token_is_the_callers(name):
    """A field that is nothing but a token says who asks, and no more; one that an owner has named counts as well."""
    token = b"eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2ln"
    beside, named = {name: b"eu " + token}, roles(headers=HeaderRule(count=frozenset({name})))

    for value in (token, b"Bearer " + token):
        assert () == roles().counted({name: value})
        assert ((name, value),) == roles().credentials({name: value})
        assert ((name, value),) == named.counted({name: value})
    assert tuple(beside.items()) == roles().counted(beside)


@pytest.mark.parametrize(
    ("value", "counts"),
    [
        (b"respond-async", None), (b"Respond-Async; wait=3", None), (b"return=minimal", b"return=minimal"),
        (b"respond-async, wait=5", b"wait=5"), (b"wait=5,respond-async", b"wait=5"),
    ],
)  # fmt: skip
def test_preferences(value, counts):
    """All of them count but the one that speaks to the sidecar."""
    expected = () if counts is None else ((b"prefer", counts),)

    assert expected == roles().counted({b"prefer": value})


def test_names_are_bounded():
    """Callers choose names, so not all of them are remembered."""
    found = roles()
    for number in range(2 * MOST_NAMES):
        assert Role.COUNTS is found.of(b"x-%d" % number)

    assert f"<Roles at a gateway, {MOST_NAMES} names>" == repr(found)


def test_long_names_are_not_remembered():
    """A name may be as long as a head: it has its role, and takes no memory."""
    found = roles()
    for size in (LONGEST_NAME, LONGEST_NAME + 1, 60_000):
        assert Role.CREDENTIAL is found.of(b"a" * (size - 4) + b"-key")
        assert Role.COUNTS is found.of(b"a" * size)

    assert "<Roles at a gateway, 2 names>" == repr(found)


@given(
    st.lists(st.sampled_from(["a=1", "__cf_bm=x", "b=2", "AWSALB=y", "c"]), max_size=5), st.sampled_from(["; ", ";"])
)
def test_cookies(parts, separator):
    """What is left keeps its order."""
    kept = [part for part in parts if part not in {"__cf_bm=x", "AWSALB=y"}]

    assert "; ".join(kept).encode() == without_balancers(separator.join(parts).encode())
