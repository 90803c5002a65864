"""What is known of a long-running operation: how it is written, who may ask about it, and where it is polled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from sidecar.core.dialect import Poll
from sidecar.core.key.fingerprint import key_of_id
from sidecar.core.model import Entry, Form, Head
from sidecar.core.request.operation import (
    LIES,
    OperationOrigin,
    accepted_pairs,
    address_of,
    from_entry,
    origin_in,
    origin_of,
    to_entry,
)
from sidecar.core.request.plan import RequestPlans
from sidecar.core.request.principal import Pod, Principal
from sidecar.core.rules import CacheMode, CacheRule, Region, Route, Rules, Service
from sidecar.dialects import DIALECTS
from sidecar.store.envelope import pack, unpack
from tests.core.request.operations import AT, PATH, QUERY, RESULTS, STARTED

OPERATION = DIALECTS["azure-documents"].locate(b"POST", PATH).operation


@given(
    id_=st.text("0123456789abcdef-", min_size=1, max_size=40),
    path=st.text(max_size=40),
    query=st.binary(max_size=40),
    known=st.booleans(),
    tags=st.lists(st.text("abc", min_size=1, max_size=5), max_size=5).map(tuple),
)
def test_written_and_read(id_, path, query, known, tags):
    """Nothing is lost on the way through an envelope."""
    started = structs.replace(STARTED, id=id_, key=key_of_id(id_), path=path, query=query, known=known, tags=tags)

    assert started == from_entry(*unpack(pack(started.key, to_entry(started))))


def test_other_entries():
    """An answer is no operation, whatever it holds, and an operation of another form is none either."""
    entry = to_entry(STARTED)

    assert from_entry(STARTED.key, structs.replace(entry, status=200)) is None
    assert from_entry(STARTED.key, structs.replace(entry, body=b"\x93\x01\x02\x03")) is None
    assert from_entry(STARTED.key, structs.replace(entry, body=b"")) is None


def principal(partition):
    return Principal(partition=partition * 16, credential=b"c" * 16)


@pytest.mark.parametrize(
    ("shared", "own", "may"),
    [
        (b"p", b"x", True),  # another caller that shares the route's answers
        (b"x", b"o", True),  # the caller itself, whose poll lacks the header by which the route shares
        (b"x", b"x", False),
        (b"o", b"p", False),
    ],
)
def test_who_may_ask(shared, own, may):
    """The partition of the call, as its route shares or as its caller's own."""
    assert may is STARTED.permits(principal(shared), principal(own))


def region(url):
    return Region("weu", url)


HERE = "https://weu.cognitiveservices.azure.com"


@pytest.mark.parametrize(
    ("fields", "url", "expected"),
    [
        ({b"operation-location": HERE.encode() + AT}, HERE, AT),
        ({b"operation-location": HERE.upper().encode() + AT}, HERE, AT),
        ({b"location": HERE.encode() + AT}, HERE, AT),
        ({b"operation-location": HERE.encode() + b"/base" + AT}, HERE + "/base", AT),
        # at another host, in another folder, or without a host: the id alone counts, and the poll stays at the region
        ({b"operation-location": b"https://evil.example" + AT}, HERE, AT),
        ({b"operation-location": b"https://evil.example/x/7f"}, HERE, AT),
        ({b"operation-location": HERE.encode() + b".evil.example" + AT}, HERE, AT),
        ({b"operation-location": b"https://user@evil.example/7f"}, HERE, AT),
        ({b"operation-location": HERE.encode() + b"/elsewhere/7f"}, HERE + "/base", AT),
        ({b"operation-location": AT}, HERE, AT),
        ({}, HERE, None),
        ({b"operation-location": b""}, HERE, None),
        ({b"operation-location": HERE.encode()}, HERE, None),
        ({b"operation-location": HERE.encode() + b"/results/"}, HERE, None),
        ({b"operation-location": HERE.encode() + b"/results/a%2Fb"}, HERE, None),
        ({b"operation-location": HERE.encode() + b"/results/" + b"a" * 129}, HERE, None),
        ({b"operation-location": b"https://[::1/7f"}, HERE, None),
        ({b"operation-location": b"\xff/7f"}, HERE, None),
    ],
)
def test_where_it_is_polled(fields, url, expected):
    """At the region that has answered, and nowhere else."""
    found = origin_of(fields, region(url), OPERATION, PATH, QUERY)

    assert expected == (None if found is None else found.target)
    assert found is None or ("weu", "7f") == (found.region, found.id)


def plan_of(target, host=b"127.0.0.1:7400", **service):
    documents = Service("documents", DIALECTS["azure-documents"], (region(HERE),), **{"path": "/docs", **service})
    rules = Rules(services=(documents,), routes=(Route("all", cache=CacheRule(CacheMode.ALWAYS)),))
    fields = {b"host": host, b"ocp-apim-subscription-key": b"k"}
    head = Head(b"POST", target, 1, tuple(fields.items()), fields, 7400)
    return head, RequestPlans(rules, b"s" * 32, Pod()).find(head).site


@pytest.mark.parametrize(
    ("target", "where", "expected"),
    [
        (b"/docs" + PATH.encode() + b"?" + QUERY, {}, b"http://127.0.0.1:7400/docs"),
        (b"/docs/" + PATH.encode() + b"?" + QUERY, {}, b"http://127.0.0.1:7400/docs"),
        (PATH.encode() + b"?" + QUERY, {"port": 7400, "path": ""}, b"http://127.0.0.1:7400"),
        (PATH.encode() + b"?" + QUERY, {"hosts": ("contoso.cognitiveservices.azure.com",), "path": ""},
         b"https://contoso.cognitiveservices.azure.com"),
    ],
    ids=["path", "doubled-slash", "port", "host"],
)  # fmt: skip
def test_where_its_caller_asks(target, where, expected):
    """At the address at which the caller has reached us."""
    host = where.get("hosts", ("127.0.0.1:7400",))[0].encode()
    head, site = plan_of(target, host, **where)

    assert expected + RESULTS + b"9?api-version=2024-11-30" == address_of(head, site, OPERATION, "9")


def test_head_of_the_answer():
    """The service's own fields, but those that belong to its operation; no ``Retry-After``."""
    said = (
        (b"Operation-Location", b"https://there/7f"), (b"apim-request-id", b"7f"), (b"Retry-After", b"5"),
        (b"x-ms-region", b"West Europe"), (b"Content-Length", b"0"),
    )  # fmt: skip

    assert accepted_pairs(b"http://here/9", "9", said) == (
        (b"operation-location", b"http://here/9"), (b"apim-request-id", b"9"), (b"x-ms-region", b"West Europe"),
    )  # fmt: skip


def test_origin_of_a_stored_result():
    """A stored result says where its service has it; others don't."""
    entry = Entry(200, ((LIES, AT),), b"{}", Form.WHOLE, "documents", "all", "", 0.0, 1.0, region="weu")

    assert OperationOrigin("weu", "7f", AT) == origin_in(entry)
    assert OperationOrigin("", "", b"") == origin_in(structs.replace(entry, headers=()))


def test_shown():
    """An id is a key to a result: what is shown of an operation does not have it."""
    shown = f"{STARTED!r} {STARTED.origin!r} {Poll('7f-8a')!r} {structs.replace(STARTED, id='7f-8a')!r}"

    assert "7f" not in shown
