"""A call is told that its base URL is wrong where that is certain, and is given the right one."""

import pytest

from sidecar.core.model import Head
from sidecar.core.rules import Region, Route, Rules, Service
from sidecar.core.site.base_url import astray, reached
from sidecar.core.site.recognise import recognise
from sidecar.dialects import DIALECTS

OPENAI, ANTHROPIC = "https://api.openai.com", "https://api.anthropic.com"
AZURE = "https://{resource}.openai.azure.com"


def said_of(target, *, method=b"POST", host=b"localhost:7400", at=7400, dialect="openai", url=OPENAI, **how):
    """What is said of a call to one service."""
    service = Service("ai", DIALECTS[dialect], (Region("r", url),), **{"path": "/ai", **how})
    head = Head(method, target, 1, (), {b"host": host}, at)
    site = recognise(Rules((service,), (Route("all"),)), at, host, method, target)
    return astray(head, site)


@pytest.mark.parametrize(
    ("how", "base"),
    [
        pytest.param({"target": b"/ai/chat/completions"}, "http://localhost:7400/ai/v1", id="by-path"),
        pytest.param({"target": b"/ai/v1/v1/models", "method": b"GET"}, "http://localhost:7400/ai/v1", id="twice"),
        pytest.param({"target": b"/ai//embeddings?x=1"}, "http://localhost:7400/ai/v1", id="doubled-slash-and-query"),
        pytest.param({"target": b"/ai/responses", "host": b"x"}, "http://127.0.0.1:7400/ai/v1", id="host-without-port"),
        pytest.param({"target": b"/embeddings", "at": 7455, "host": b"[::1]:7455", "path": "", "port": 7455},
                     "http://[::1]:7455/v1", id="by-port"),
        pytest.param({"target": b"/embeddings", "host": b"API.openai.com", "hosts": ("api.openai.com",)},
                     "https://api.openai.com/v1", id="by-host"),
    ],
)  # fmt: skip
def test_the_right_one(how, base):
    """It is the caller's own address, with the service's prefix where that is how it came, and the API's root."""
    said = said_of(**how)

    assert said.endswith(f"set OPENAI_BASE_URL={base}.")
    assert ("twice" in said) is (b"/v1/v1/" in how["target"])


@pytest.mark.parametrize(
    "how",
    [
        pytest.param({"target": b"/ai/v1/chat/completions"}, id="right"),
        pytest.param({"target": b"/ai/v1/unheard-of"}, id="unknown-below-the-root"),
        pytest.param({"target": b"/ai/unheard-of"}, id="unknown-with-it-too"),
        pytest.param({"target": b"/ai/v1/v1/unheard-of"}, id="unknown-twice"),
        pytest.param({"target": b"/ai/v1"}, id="root-alone"),
        pytest.param({"target": b"/ai/chat/completions", "method": b"GET"}, id="another-method"),
        pytest.param({"target": b"/ai/anything", "method": b"DELETE"}, id="delete"),
        pytest.param({"target": b"/ai/chat/completions", "url": "https://llm.example"}, id="gateway"),
        pytest.param({"target": b"/ai/chat/completions", "url": f"{OPENAI}/v1"}, id="root-in-the-region"),
        pytest.param({"target": b"/ai/messages", "dialect": "anthropic", "url": OPENAI}, id="not-its-vendor"),
        pytest.param({"target": b"/ai/contoso/chat/completions", "dialect": "azure-openai", "url": AZURE,
                      "resource": True}, id="azure"),
        pytest.param({"target": b"/ai/chat/completions", "dialect": "generic"}, id="generic"),
    ],
)  # fmt: skip
def test_not_certain(how):
    """Everything else goes where it is sent."""

    assert said_of(**how) is None


@pytest.mark.parametrize(
    ("host", "how", "base"),
    [
        pytest.param(b"127.0.0.1:7400", {}, "http://127.0.0.1:7400/ai", id="address"),
        pytest.param(b"[::1]:7400", {}, "http://[::1]:7400/ai", id="ipv6"),
        pytest.param(b"[::1]", {}, "http://[::1]/ai", id="ipv6-at-port-80"),
        pytest.param(b"sidecar", {}, "http://sidecar/ai", id="name-at-port-80"),
        pytest.param(b"my_sidecar:7400", {}, "http://my_sidecar:7400/ai", id="name-as-compose-makes-it"),
        pytest.param(b"localhost:7455", {"port": 7455}, "http://localhost:7455", id="own-port"),
        pytest.param(b"api.example", {"port": 7455}, None, id="led-to-its-own-port"),
        pytest.param(b"API.example", {"hosts": ("api.example",)}, "https://api.example", id="its-own-name"),
        pytest.param(b"api.example:443", {"hosts": ("api.example",)}, "https://api.example:443", id="with-the-port"),
        pytest.param(b"api.example:7400", {"hosts": ("api.example",)}, "http://api.example:7400", id="at-ours"),
        pytest.param(b"", {}, None, id="nothing"),
        pytest.param(b"a b", {}, None, id="nonsense"),
        pytest.param(b"me@here:7400", {}, None, id="a-user"),
    ],
)
def test_as_its_caller_reached_it(host, how, base):
    """An answer that leads its caller on names the address that the caller has used."""
    service = Service("ai", DIALECTS["generic"], (Region("r", OPENAI),), **{"path": "/ai", **how})
    head = Head(b"POST", b"/", 1, (), {b"host": host}, service.port or 7400)

    assert base == reached(head, service)
