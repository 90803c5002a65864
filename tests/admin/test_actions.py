"""What can be asked, and how it is refused where it is wrong."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.admin.actions import (
    BODY_BYTES,
    REQUEST_BYTES,
    SMALL_BYTES,
    ModeRequest,
    PurgeRequest,
    RegionRequest,
    mode_request,
    purge_request,
    region_request,
)
from sidecar.core.rules import Mode
from sidecar.errors import Refused

ADDRESS = "0123456789abcdef" * 2


def text(**members):
    return json.dumps(members).encode()


def encoded(data):
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(text(scope="all"), PurgeRequest("all", "", b"", False, True), id="all"),
        pytest.param(
            text(scope="route", value="r", dry_run=True), PurgeRequest("route", "r", b"", True, True), id="route"
        ),
        pytest.param(text(scope="tag", value="a/b:c"), PurgeRequest("tag", "a/b:c", b"", False, True), id="tag"),
        pytest.param(text(scope="service", value="s"), PurgeRequest("service", "s", b"", False, True), id="service"),
        pytest.param(
            text(scope="key", value=ADDRESS.upper()), PurgeRequest("key", ADDRESS, b"", False, True), id="key"
        ),
        pytest.param(
            text(scope="partition", value=ADDRESS), PurgeRequest("partition", ADDRESS, b"", False, True), id="partition"
        ),
        pytest.param(
            text(scope="request-id", value="ab-1"), PurgeRequest("request-id", "ab-1", b"", False, True), id="id"
        ),
        pytest.param(
            text(scope="request", value=encoded(b"GET / HTTP/1.1\r\n")),
            PurgeRequest("request", "", b"GET / HTTP/1.1\r\n", False, True),
            id="request",
        ),
    ],
)
def test_purges(body, expected):
    """Each scope and its value."""
    assert expected == purge_request(body, fleet=True)


@pytest.mark.parametrize(
    ("body", "status", "code", "message"),
    [
        pytest.param(b"", 400, "bad-json", "is not JSON", id="nothing"),
        pytest.param(b"{", 400, "bad-json", "is not JSON", id="cut-off"),
        pytest.param(b'{"scope": "\xff"}', 400, "bad-json", "is not JSON", id="not-utf-8"),
        pytest.param(b'{"scope": 1, "value":', 400, "bad-json", "is not JSON", id="cut-off-behind-a-wrong-member"),
        pytest.param(b'{"scope": "all", "value": "\\ud800"}', 400, "bad-json", "is not JSON", id="half-a-pair"),
        pytest.param(b'{"value": ' + b"[" * 10_000, 400, "bad-json", "is not JSON", id="far-too-deep"),
        pytest.param(b"[" * 10_000, 400, "bad-json", "is not JSON", id="far-too-deep-list"),
        pytest.param(b"[]", 400, "bad-request", "is no object", id="list"),
        pytest.param(b"{}", 400, "bad-request", "`scope`", id="no-scope"),
        pytest.param(text(scope="world"), 400, "bad-request", "$.scope", id="unknown-scope"),
        pytest.param(text(scope="all", dryrun=True), 400, "bad-request", "`dryrun`", id="unknown-member"),
        pytest.param(text(scope="all", dry_run=1), 400, "bad-request", "$.dry_run", id="number-for-boolean"),
        pytest.param(text(scope="all", value="x"), 400, "bad-request", "all has no value", id="all-with-value"),
        pytest.param(text(scope="tag"), 400, "bad-request", "the value of a tag", id="no-value"),
        pytest.param(text(scope="tag", value="a b"), 400, "bad-request", "the value of a tag", id="blank"),
        pytest.param(text(scope="route", value="x" * 257), 400, "bad-request", "the value of a route", id="long"),
        pytest.param(text(scope="key", value=ADDRESS[1:]), 400, "bad-request", "32 hexadecimal", id="short-key"),
        pytest.param(text(scope="key", value=ADDRESS + "\n"), 400, "bad-request", "32 hexadecimal", id="line-break"),
        pytest.param(text(scope="request", value="!"), 400, "bad-request", "not base64", id="not-base64"),
        pytest.param(text(scope="request", value="\u00e9"), 400, "bad-request", "not base64", id="not-ascii"),
        pytest.param(text(scope="request"), 400, "bad-request", "is empty", id="no-request"),
        pytest.param(
            text(scope="request", value=encoded(bytes(REQUEST_BYTES + 1))),
            413,
            "too-large",
            "16 MiB",
            id="large-request",
        ),
        pytest.param(text(scope="tag", value="x" * SMALL_BYTES), 413, "too-large", "64 KiB", id="large-value"),
    ],
)
def test_purges_that_are_wrong(body, status, code, message):
    """The message names the member."""
    with pytest.raises(Refused) as caught:
        purge_request(body, fleet=False)

    assert (status, code) == (caught.value.status, caught.value.code)
    assert message in caught.value.message


def test_the_largest_request_fits():
    """In JSON it is larger by a third, and no more than a body may be."""
    body = text(scope="request", value=encoded(bytes(REQUEST_BYTES)))

    assert len(body) <= BODY_BYTES
    assert REQUEST_BYTES == len(purge_request(body, fleet=False).request)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (text(mode="normal"), ModeRequest(Mode.NORMAL, None, True)),
        (text(mode="cache-off", **{"for": "30m"}), ModeRequest(Mode.CACHE_OFF, 1800.0, True)),
        (text(mode="passthrough", **{"for": None}), ModeRequest(Mode.PASSTHROUGH, None, True)),
    ],
    ids=["normal", "lasting", "null"],
)
def test_modes(body, expected):
    """A mode, and how long."""
    assert expected == mode_request(body, fleet=True)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"x", "bad-json"),
        (text(mode="fast"), "bad-request"),
        (text(mode="normal", **{"for": 30}), "bad-request"),
        (text(mode="normal", **{"for": "30"}), "bad-request"),
        (text(mode="normal", **{"for": "0s"}), "bad-request"),
        (text(mode="normal", **{"for": "31d"}), "bad-request"),
        (text(mode="normal", until="x"), "bad-request"),
        (b" " * SMALL_BYTES + text(mode="normal"), "too-large"),
    ],
    ids=["prose", "unknown", "number", "no-unit", "nothing", "long", "unknown-member", "large"],
)
def test_modes_that_are_wrong(body, code):
    """Refused before anything is done."""
    with pytest.raises(Refused) as caught:
        mode_request(body, fleet=True)

    assert code == caught.value.code


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"action": "stop", "for": "30m"}, ("stop", 1800.0)),
        ({"action": "force"}, ("force", None)),
        ({"action": "auto", "for": None}, ("auto", None)),
        ({"action": "open", "for": "30m"}, ("stop", 1800.0)),
        ({"action": "close"}, ("force", None)),
    ],
    ids=["stop", "force", "auto", "formerly open", "formerly close"],
)
def test_regions(members, expected):
    """A region of a service, what is to be done, and for how long; the last version's words mean what they meant."""
    asked = region_request(text(service="openai", region="eu-1", **members), fleet=True)

    assert RegionRequest("openai", "eu-1", *expected, fleet=True) == asked


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"service": "openai", "action": "stop"}, "`region`"),
        ({"service": "openai", "region": "eu"}, "`action`"),
        ({"service": "openai", "region": "eu", "action": "half-open"}, "$.action"),
        ({"service": "", "region": "eu", "action": "stop"}, "the name of a service"),
        ({"service": "openai", "region": "e u", "action": "stop"}, "the name of a region"),
        ({"service": "openai", "region": "eu", "action": "stop", "for": "31d"}, "is a duration from 1s to 30d"),
        ({"service": "openai", "region": "eu", "action": "stop", "for": "500ms"}, "is a duration from 1s to 30d"),
        ({"service": "openai", "region": "eu", "action": "auto", "for": "1h"}, "auto takes an order back"),
        ({"service": "openai", "region": "eu", "action": "stop", "until": "x"}, "`until`"),
    ],
    ids=["no-region", "no-action", "unknown", "nameless", "blank", "long", "short", "auto-lasting", "unknown-member"],
)
def test_regions_that_are_wrong(members, message):
    """Refused before anything is done, with the member that is wrong."""
    with pytest.raises(Refused) as caught:
        region_request(text(**members), fleet=True)

    assert (400, "bad-request") == (caught.value.status, caught.value.code)
    assert message in caught.value.message


def test_a_region_in_too_many_words():
    """As with every action."""
    body = b" " * SMALL_BYTES + text(service="openai", region="eu", action="stop")
    with pytest.raises(Refused) as caught:
        region_request(body, fleet=True)

    assert (413, "too-large") == (caught.value.status, caught.value.code)


@given(st.binary(max_size=60), st.sampled_from([purge_request, mode_request, region_request]))
def test_any_body_is_read_or_refused(body, read):
    """Whatever comes, nothing else than a refusal comes of it."""
    statuses = set()
    try:
        read(body, fleet=False)
    except Refused as refused:
        statuses.add(refused.status)

    assert statuses <= {400, 413}
