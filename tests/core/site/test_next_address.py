"""Addresses in answers that a caller asks next lead back to the sidecar, where that is certainly the same place."""

from __future__ import annotations

import pytest

from sidecar.core.model import Head
from sidecar.core.rules import Region, Route, Rules, Service
from sidecar.core.site.next_address import through_here
from sidecar.core.site.recognise import recognise
from sidecar.dialects import DIALECTS

DOCUMENTS = "https://c.cognitiveservices.azure.com"
RESULT = "/documentintelligence/documentModels/m/analyzeResults/1?api-version=2024-11-30"


def moved(
    value, *, name=b"Operation-Location", host=b"127.0.0.1:7401", target=b"/a", at=7401, urls=(DOCUMENTS,), **how
):
    """An address in an answer of one service, as its caller gets it."""
    how = {"dialect": DIALECTS["generic"], "port": 7401} | how
    service = Service("ai", regions=tuple(Region(f"r{n}", url) for n, url in enumerate(urls)), **how)
    site = recognise(Rules((service,), (Route("all"),)), at, host, b"POST", target)
    head = Head(b"POST", target, 1, (), {b"host": host}, at)
    pairs = ((b"X-A", value.encode()), (name, value.encode()))

    kept, (_, found) = through_here(pairs, {name.lower(): value.encode()}, head, site)

    assert pairs[0] == kept
    return found.decode()


@pytest.mark.parametrize(
    ("value", "how", "expected"),
    [
        (DOCUMENTS + RESULT, {}, f"http://127.0.0.1:7401{RESULT}"),
        (DOCUMENTS.upper() + RESULT, {"name": b"operation-location"}, f"http://127.0.0.1:7401{RESULT}"),
        (DOCUMENTS, {"name": b"Location"}, "http://127.0.0.1:7401"),
        (f"{DOCUMENTS}?a=b", {"name": b"Azure-AsyncOperation"}, "http://127.0.0.1:7401?a=b"),
        (DOCUMENTS + RESULT, {"host": b"[::1]:7401"}, f"http://[::1]:7401{RESULT}"),
        (DOCUMENTS + RESULT, {"port": 0, "path": "/documents", "target": b"/documents/a", "host": b"localhost:7400",
                              "at": 7400}, f"http://localhost:7400/documents{RESULT}"),
        (f"{DOCUMENTS}/base/x", {"urls": (f"{DOCUMENTS}/base",)}, "http://127.0.0.1:7401/x"),
        ("https://c.openai.azure.com/openai/operations/1",
         {"dialect": DIALECTS["azure-openai"], "urls": ("https://{resource}.openai.azure.com",), "resource": True,
          "port": 0, "path": "/azure", "target": b"/azure/c/openai/images", "host": b"127.0.0.1:7400", "at": 7400},
         "http://127.0.0.1:7400/azure/c/openai/operations/1"),
        (f"{DOCUMENTS}:443{RESULT}", {}, f"http://127.0.0.1:7401{RESULT}"),
        (f"{DOCUMENTS}:443", {}, "http://127.0.0.1:7401"),
        (RESULT, {"port": 0, "path": "/documents", "target": b"/documents/a", "at": 7400, "host": b"127.0.0.1:7400"},
         f"http://127.0.0.1:7400/documents{RESULT}"),
        ("/base/x", {"urls": (f"{DOCUMENTS}/base",)}, "http://127.0.0.1:7401/x"),
        (f"{DOCUMENTS}/a/..b/...?x=/../y", {}, "http://127.0.0.1:7401/a/..b/...?x=/../y"),
        (DOCUMENTS + RESULT, {"port": 0, "at": 443, "hosts": ("c.cognitiveservices.azure.com",),
                              "host": b"c.cognitiveservices.azure.com"}, DOCUMENTS + RESULT),
    ],
)  # fmt: skip
def test_at_its_region(value, how, expected):
    """By path, by port and by host; with a resource and with a base path."""
    assert expected == moved(value, **how)


@pytest.mark.parametrize(
    ("value", "how"),
    [
        pytest.param("https://elsewhere.example/x", {}, id="another-host"),
        pytest.param(f"{DOCUMENTS}.evil.example/x", {}, id="begins-alike"),
        pytest.param(f"{DOCUMENTS}:8443/x", {}, id="another-port"),
        pytest.param(DOCUMENTS.replace("https", "http") + RESULT, {}, id="another-scheme"),
        pytest.param(f"{DOCUMENTS}/other/x", {"urls": (f"{DOCUMENTS}/base",)}, id="outside-of-the-base-path"),
        pytest.param(RESULT, {}, id="relative"),
        pytest.param("", {}, id="empty"),
        pytest.param("//elsewhere.example/x", {"port": 0, "path": "/documents", "target": b"/documents/a", "at": 7400,
                                               "host": b"127.0.0.1:7400"}, id="another-host-without-scheme"),
        pytest.param(f"{DOCUMENTS}:4430/x", {}, id="begins-with-its-port"),
        pytest.param(f"{DOCUMENTS}:443@evil.example/x", {}, id="a-user"),
        pytest.param(DOCUMENTS + RESULT, {"name": b"Link"}, id="another-field"),
        pytest.param(DOCUMENTS + RESULT, {"urls": (DOCUMENTS, "https://d.example")}, id="two-regions"),
        pytest.param(DOCUMENTS + RESULT, {"host": b"somewhere"}, id="no-address-of-ours"),
    ],
)  # fmt: skip
def test_elsewhere(value, how):
    """Every other address stays, and so it does where another region would be asked."""
    assert value == moved(value, **how)


@pytest.mark.parametrize("dots", ["/..", "/../anthropic", "/a/%2E%2e/x", "/..%2fx", "/.?a=b", "/..\\x"])
@pytest.mark.parametrize("before", [DOCUMENTS, ""], ids=["url", "path"])
def test_another_service(before, dots):
    """A client that follows dots would take the key of this service to another one here; so it goes to the region."""
    how = {"port": 0, "path": "/documents", "target": b"/documents/a", "at": 7400, "host": b"127.0.0.1:7400"}

    assert DOCUMENTS + dots == moved(before + dots, **how)


def test_a_path_outside_of_the_base_path():
    """It is one of the region's, and none of the service's."""
    assert f"{DOCUMENTS}/other/x" == moved("/other/x", urls=(f"{DOCUMENTS}/base",))
