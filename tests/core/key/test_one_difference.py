"""One difference between two requests: what counts never shares, what is noise never splits."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.dialect import BodyForm
from sidecar.core.key.canonical import read
from sidecar.core.key.fingerprint import seal
from sidecar.core.model import Head, Key
from sidecar.core.request.noise import BALANCERS, NOISE, is_noise
from sidecar.core.request.plan import RequestPlans
from sidecar.core.request.principal import Pod
from sidecar.core.request.token import CHANGING
from sidecar.core.rules import CacheMode, CacheRule, Region, Route, Rules, Service
from sidecar.core.site.recognise import choose_route
from sidecar.dialects import DIALECTS
from tests.core.request.credentials import SECRETIVE, jwt

SECRET = b"s" * 32
VENDORS = {"openai": "https://api.openai.com", "azure-openai": "https://x.openai.azure.com"}
SERVICES = tuple(
    Service(f"{name}-{where}", dialect, (Region("r", url),), path=f"/{name}-{where}")
    for name, dialect in DIALECTS.items()
    for where, url in (("gateway", "https://gateway.example"), ("vendor", VENDORS.get(name, "")))
    if url
)
RULES = Rules(services=SERVICES, routes=(Route("all", cache=CacheRule(CacheMode.ALWAYS)),))
FINDER = RequestPlans(RULES, SECRET, Pod())
GATEWAYS = [service.name for service in SERVICES if not service.own]
OF_OPENAI = ["openai-gateway", "openai-vendor", "azure-openai-gateway"]
PATHS = {
    "anthropic": "/v1/messages",
    "azure-openai": "/openai/v1/chat/completions",
    "azure-documents": "/documentintelligence/documentModels/prebuilt-read:analyze",
    "azure-vision": "/vision/v3.2/read/analyze",
    "azure-language": "/language/:analyze-text",
    "azure-translator": "/translator/text/v3.0/translate",
    "azure-safety": "/contentsafety/text:analyze",
    "azure-speech": "/speech/recognition/conversation/cognitiveservices/v1",
}
AS_WRITTEN = [name for name in GATEWAYS if not name.startswith("azure-") or name.startswith("azure-openai")]
"""At these every byte of a query counts."""
ASKED = {"model": "m", "temperature": 0, "max_tokens": 9, "messages": [{"role": "user", "content": "What is it?"}]}
READ_BY_US = {
    "host", "connection", "content-length", "expect", "transfer-encoding", "te", "trailer", "upgrade", "keep-alive",
    "proxy-connection", "proxy-authenticate", "http2-settings", "content-encoding", "origin", "sec-fetch-site",
    "cache-control", "pragma", "prefer", "x-sidecar-ttl", "x-sidecar-tags",
}  # fmt: skip
"""Noise that speaks to the sidecar or of the connection: whether it splits is not the key's to say."""

SILENT = sorted({name.replace("*", "x") for names in NOISE.values() for name in names} - READ_BY_US)
VALUE = st.text("abcdefghij0123456789-", min_size=1, max_size=12).map(str.encode)
FIELD = st.from_regex(r"\Ax-[a-z]{3,12}\Z").filter(lambda name: not is_noise(name.encode()))


def key_of(service: str, fields: dict[bytes, bytes], query: bytes = b"", body: object = ASKED) -> Key:
    """The key of a call to *service*; a call without one is an error of the test."""
    path = PATHS.get(service.rpartition("-")[0], "/v1/chat/completions")
    target = f"/{service}{path}".encode() + (b"?" + query if query else b"")
    given_ = {b"host": b"localhost", b"authorization": b"Bearer sk-1", **fields}
    head = Head(b"POST", target, 1, tuple(given_.items()), given_, 7400)
    plan = FINDER.find(head)
    assert plan.bypass is None, plan.bypass
    endpoint = plan.site.endpoint
    content_type = b"application/octet-stream" if endpoint.body is BodyForm.DOCUMENT else b""
    reading = read(json.dumps(body).encode(), endpoint, content_type, SECRET)
    assert not reading.facts.bypass, reading.facts.bypass
    route = choose_route(plan.site, given_, reading.facts.model)
    return seal(SECRET, FINDER.caller(plan, route).prefix, reading.facts.model, reading)


@given(st.sampled_from(GATEWAYS), FIELD.map(str.encode), VALUE, VALUE)
def test_a_field_that_counts(service, name, one, two):
    """Behind a gateway another value, or none, is another question."""
    keys = {key_of(service, fields) for fields in ({name: one}, {name: two}, {})}

    assert (2 if one == two else 3) == len(keys)


@given(st.sampled_from([service.name for service in SERVICES]), st.sampled_from(SECRETIVE), VALUE, VALUE)
def test_a_credential(service, name, one, two):
    """Another credential, or none, is somebody else, anywhere."""
    keys = {key_of(service, fields) for fields in ({name.encode(): one}, {name.encode(): two}, {})}

    assert (2 if one == two else 3) == len(keys)


@given(st.sampled_from([service.name for service in SERVICES]), st.sampled_from(SILENT), VALUE)
def test_noise(service, name, value):
    """No documented noise splits; of the generic dialect the form of the answer is no noise."""
    if name == "accept" and service.startswith("generic"):
        return

    assert key_of(service, {}) == key_of(service, {name.encode(): value})


@given(st.sampled_from([service.name for service in SERVICES]), st.sampled_from(BALANCERS), VALUE)
def test_cookies_of_balancers(service, name, value):
    """They split nobody; any other cookie does."""
    cookie = name.rstrip("*").encode() + b"=" + value

    assert key_of(service, {}) == key_of(service, {b"cookie": cookie})
    assert key_of(service, {}) != key_of(service, {b"cookie": b"session=" + value})


@given(
    st.sampled_from(["openai-vendor", "azure-openai-vendor"]),
    st.sampled_from(["org_id", "act", "azp", "aud", "roles", "scp", "tid", "sub", "iss", "x"])
    | st.sampled_from(sorted(CHANGING)),
    st.text("abc", min_size=1, max_size=3),
    st.text("abc", min_size=1, max_size=3),
)
def test_a_claim(service, name, one, two):
    """A claim that counts makes two callers; one that changes from token to token makes none."""
    if name in {"exp", "iat", "nbf", "auth_time"}:
        one, two = len(one), len(two)
    keys = {key_of(service, {b"authorization": b"Bearer " + jwt(**{name: value})}) for value in (one, two)}

    assert (1 if name in CHANGING or one == two else 2) == len(keys)


@given(st.sampled_from(AS_WRITTEN), st.text("abA=&%61;+/?", max_size=8), st.text("abA=&%61;+/?", max_size=8))
def test_a_query(service, one, two):
    """Whatever differs in it, it is another question."""

    assert (one == two) == (key_of(service, {}, one.encode()) == key_of(service, {}, two.encode()))


@given(
    st.sampled_from(OF_OPENAI),
    st.sampled_from(["model", "temperature", "seed", "top_p", "stop", "tools_x", "made_up", "n"]),
    st.integers(2, 9),
    st.integers(2, 9),
)
def test_a_member(service, name, one, two):
    """Every member that isn't named as noise counts, and so do unknown ones."""
    values = {"model": str, "stop": str}.get(name, int)
    keys = {key_of(service, {}, body=ASKED | {name: values(value)}) for value in (one, two)}

    assert (1 if one == two else 2) == len(keys)
