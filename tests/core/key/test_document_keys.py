"""Keys of documents: what changes a result separates two calls; in which form they were written does not."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.key.canonical import observer, read
from sidecar.core.key.fingerprint import seal
from sidecar.core.model import Head, Key
from sidecar.core.request.plan import RequestPlans
from sidecar.core.request.principal import Pod
from sidecar.core.rules import CacheMode, CacheRule, HeaderRule, Region, Route, Rules, Service
from sidecar.core.site.recognise import choose_route
from sidecar.core.site.routing import choose_model
from sidecar.dialects import DIALECTS

SECRET = b"s" * 32
WAYS = {"vendor": "https://x.cognitiveservices.azure.com", "gateway": "https://gateway.example"}
SERVICES = (
    *(Service(name, DIALECTS["azure-documents"], (Region("r", url),), path=f"/{name}") for name, url in WAYS.items()),
    Service(
        "telling", DIALECTS["azure-documents"], (Region("r", WAYS["gateway"]),), path="/telling",
        headers=HeaderRule(count=frozenset({b"content-type"})),
    ),
    Service("vision", DIALECTS["azure-vision"], (Region("r", WAYS["vendor"]),), path="/vision-way"),
)  # fmt: skip
FINDER = RequestPlans(Rules(SERVICES, (Route("all", cache=CacheRule(CacheMode.ALWAYS)),)), SECRET, Pod())

QUESTION = {
    "root": "documentintelligence", "model": "prebuilt-read", "api-version": "2024-11-30", "pages": "1-2,5",
    "features": ("barcodes", "formulas"), "queryFields": ("Total", "Due"), "locale": "de",
    "outputContentFormat": "text", "stringIndexType": "textElements", "made-up": "1", "document": b"%PDF-1.7\n",
}  # fmt: skip
"""All that a call asks; everything else is a way to write it."""

OTHERS = {
    "root": "formrecognizer", "model": "prebuilt-layout", "api-version": "2024-07-31-preview", "pages": "1,2,5",
    "features": ("barcodes",), "queryFields": ("Total", "due"), "locale": "de-DE", "outputContentFormat": "markdown",
    "stringIndexType": "utf16CodeUnit", "made-up": "2", "document": b"%PDF-1.7\r",
}  # fmt: skip

FORMS = st.fixed_dictionaries({
    "service": st.sampled_from(sorted(WAYS)),
    "body": st.sampled_from(["base64", "octets", "pdf", "form"]),
    "size": st.integers(0, 40),
    "slashes": st.sampled_from(["/", "//", "///"]),
    "extra": st.lists(st.sampled_from(["_overload=analyzeDocument", ""]), max_size=2),
    "repeated": st.booleans(),
    "escaped": st.booleans(),
    "seed": st.randoms(use_true_random=False),
    "fields": st.dictionaries(
        st.sampled_from(["user-agent", "x-ms-client-request-id", "traceparent", "accept", "x-ms-useragent", "date"]),
        st.text("ab1", min_size=1, max_size=3), max_size=3,
    ),
})  # fmt: skip
"""How a call may be written."""


def members_of(question, form):
    names = ("api-version", "pages", "locale", "outputContentFormat", "stringIndexType", "made-up")
    members = [f"{name}={question[name]}" for name in names if question[name]]
    for name in ("features", "queryFields"):
        shuffled = [*question[name]]
        form["seed"].shuffle(shuffled)
        if form["repeated"]:
            members += [f"{name}={each}" for each in shuffled]
        elif shuffled:
            members.append(f"{name}={('%2C' if form['escaped'] else ',').join(shuffled)}")
    members += form["extra"]
    form["seed"].shuffle(members)
    return "&".join(members)


def body_of(document, kind):
    if kind == "base64":
        return json.dumps({"base64Source": base64.b64encode(document).decode()}).encode(), b"application/json"
    if kind == "form":
        head = b'Content-Disposition: form-data; name="f"; filename="a.pdf"\r\nContent-Type: application/pdf'
        return b"--x\r\n%b\r\n\r\n%b\r\n--x--" % (head, document), b"multipart/form-data; boundary=x"
    return document, b"application/pdf" if kind == "pdf" else b"application/octet-stream"


def key_of(service: str, target: str, body: bytes, fields: dict[bytes, bytes], size: int = 0) -> Key:
    """The key of a call; one without a key is an error of the test."""
    given_ = {b"host": b"localhost", b"ocp-apim-subscription-key": b"k", **fields}
    plan = FINDER.find(Head(b"POST", f"/{service}{target}".encode(), 1, tuple(given_.items()), given_, 7400))
    assert plan.bypass is None, plan.bypass
    endpoint, content_type = plan.site.endpoint, given_.get(b"content-type", b"")
    if size:
        passing = observer(endpoint, content_type, SECRET)
        for at in range(0, len(body), size):
            passing.feed(body[at : at + size])
        reading = passing.reading()
    else:
        reading = read(body, endpoint, content_type, SECRET)
    assert not reading.facts.bypass, reading.facts.bypass
    model = choose_model(endpoint, reading.facts)
    route = choose_route(plan.site, given_, model)
    return seal(SECRET, FINDER.caller(plan, route).prefix, model, reading)


def key_in(question, form, service=None) -> Key:
    body, content_type = body_of(question["document"], form["body"])
    slashes = form["slashes"]
    target = f"{slashes}{question['root']}{slashes}documentModels/{question['model']}:analyze"
    fields = {
        b"content-type": content_type,
        **{name.encode(): value.encode() for name, value in form["fields"].items()},
    }
    return key_of(service or form["service"], f"{target}?{members_of(question, form)}", body, fields, form["size"])


@given(FORMS, FORMS)
def test_forms_do_not_count(one, other):
    """However a question is written, in URL, body and noise, it has one key at a service."""
    assert key_in(QUESTION, one, "gateway") == key_in(QUESTION, other, "gateway")


@pytest.mark.parametrize("name", OTHERS)
@given(one=FORMS, other=FORMS, gone=st.booleans())
def test_questions_count(name, one, other, gone):
    """Another model, version, byte, page range or member is another question, in whatever form."""
    gone = gone and name not in {"root", "model", "document"}
    different = {**QUESTION, name: type(QUESTION[name])() if gone else OTHERS[name]}

    assert key_in(QUESTION, one, "vendor") != key_in(different, other, "vendor")


def test_header_fields():
    """The content type shows in the body, so it does not count, unless the configuration says so; others count."""
    target = "/documentintelligence/documentModels/prebuilt-read:analyze"

    def keys(service, name):
        return {key_of(service, target, b"%PDF", {name: value}) for value in (b"application/pdf", b"image/png")}

    assert (1, 1, 2) == tuple(len(keys(service, b"content-type")) for service in ("vendor", "gateway", "telling"))
    assert (1, 2, 2) == tuple(len(keys(service, b"x-made-up")) for service in ("vendor", "gateway", "telling"))


def test_a_key_in_the_query():
    """It is the caller's: it tells callers apart, and is no part of the question."""
    target = "/documentintelligence/documentModels/prebuilt-read:analyze?api-version=1"
    fields = {b"content-type": b"application/pdf"}
    one, same, other = (
        key_of("vendor", target + more, b"%PDF", fields)
        for more in ("&subscription-key=a", "&Subscription-Key=a", "&subscription-key=b")
    )

    assert one == same != other


def test_read():
    """The same of Vision's Read."""
    target = "/vision/v3.2/read/analyze?language=de&readingOrder=natural"
    turned = "//vision//v3.2/read/analyze?readingOrder=natural&language=de"
    keys = [
        key_of("vision-way", path, b"%PDF", {b"content-type": media})
        for path, media in (
            (target, b"image/png"),
            (turned, b"application/octet-stream"),
            (f"{target}&model-version=latest", b"image/png"),
        )
    ]  # fmt: skip

    assert keys[0] == keys[1] != keys[2]
