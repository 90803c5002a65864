"""Which service, endpoint and routes a request is for."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.dialect import Kind, Resources
from sidecar.core.rules import CacheMode, CacheRule, Match, Region, Route, Rules, Service, StoredCredential
from sidecar.core.site.recognise import Site, Stray, choose_route, recognise
from sidecar.dialects import DIALECTS

OFF = CacheRule(mode=CacheMode.OFF)
CREDENTIAL = StoredCredential("api-key", "/file")
_DOCUMENTS = Resources("DOCUMENTS_ENDPOINT", "/documents/", frozenset({"documents", "models"}))


def service(name, dialect="openai", **how):
    return Service(name, DIALECTS[dialect], how.pop("regions", (Region("r", "https://api"),)), **how)


RULES = Rules(
    services=(
        service("openai", path="/openai", hosts=("api.openai.com",)),
        service("beta", path="/openai/beta"),
        service("anthropic", "anthropic", path="/anthropic", hosts=("api.anthropic.com", "::1")),
        service(
            "azure",
            "azure-openai",
            path="/azure",
            resource=True,
            regions=(
                Region("far", "https://far", priority=9),
                Region("near", "https://{resource}.openai.azure.com", 2, "", CREDENTIAL),
                Region("shared", "https://{resource}.x", priority=5, credential_domain="one"),
            ),
        ),
        service("documents", "generic", port=7401),
    ),
    routes=(
        Route("vip", Match(header={"X-Team": "docs*", "x-b": "?"})),
        Route("gpt", Match(service="openai", path="/v1/chat/*", model="gpt-4o*")),
        Route("chat", Match(kinds=frozenset({Kind.CHAT}))),
        Route("documents", Match(service="documents", path="*:analyze"), OFF),
        Route("default", cache=OFF),
    ),
)


def find(target, host=b"localhost:7400", *, method=b"POST", port=7400, rules=RULES):
    return recognise(rules, port, host, method, target)


@pytest.mark.parametrize(
    ("target", "host", "port", "expected"),
    [
        pytest.param(b"/openai/v1/models", b"localhost", 7400, "openai", id="by path"),
        pytest.param(b"/openai", b"localhost", 7400, "openai", id="the prefix alone"),
        pytest.param(b"/openai?a=/b", b"localhost", 7400, "openai", id="the prefix and a query"),
        pytest.param(b"/openai/beta/v1", b"localhost", 7400, "beta", id="the longest prefix"),
        pytest.param(b"/openai/betamax", b"localhost", 7400, "openai", id="prefixes end at a slash"),
        pytest.param(b"/anthropic/v1", b"api.openai.com", 7400, "openai", id="host beats path"),
        pytest.param(b"/x", b"API.OpenAI.com:443", 7400, "openai", id="host in any case, with a port"),
        pytest.param(b"/x", b"[::1]", 7400, "", id="an address in brackets is another name"),
        pytest.param(b"/x", b"::1", 7400, "", id="no port of a bare address"),
        pytest.param(b"/openai/v1", b"api.openai.com", 7401, "documents", id="own port beats host"),
        pytest.param(b"/openaix", b"localhost", 7400, "", id="longer than the prefix"),
        pytest.param(b"/OpenAI", b"localhost", 7400, "", id="paths have a case"),
        pytest.param(b"//openai/v1", b"localhost", 7400, "", id="doubled slash before the prefix"),
        pytest.param(b"/x", b"api.openai.com.evil.com", 7400, "", id="a longer host"),
        pytest.param(b"/x", b"evil@api.openai.com", 7400, "", id="a host with a user"),
        pytest.param(b"/x", b"\xff", 7400, "", id="a host of any bytes"),
        pytest.param(b"/x", b"", 7400, "", id="no host"),
        pytest.param(b"*", b"localhost", 7400, "", id="the server itself"),
    ],
)
def test_service(target, host, port, expected):
    """Own port, then host, then the longest path prefix."""
    found = find(target, host, port=port)

    assert expected == (found.service.name if isinstance(found, Site) else "")


def test_stray():
    """A request for nobody is told where somebody is."""
    found = find(b"/v1/chat/completions")

    assert isinstance(found, Stray)
    assert (404, "unknown-service") == (found.status, found.code)
    assert "/openai, /openai/beta, /anthropic, /azure/RESOURCE;" in found.message
    assert "documents (port 7401)" in found.message
    assert "(none)" in find(b"/", rules=Rules((), ())).message


@pytest.mark.parametrize(
    ("target", "host", "expected"),
    [
        (b"/openai/v1/models?a=%2F+b", b"", b"/v1/models?a=%2F+b"),
        (b"/openai//v1//models", b"", b"//v1//models"),
        (b"/openai/%6fpenai/../x/./y;z", b"", b"/%6fpenai/../x/./y;z"),
        (b"/openai", b"", b"/"),
        (b"/openai?x", b"", b"/?x"),
        (b"/azure/Contoso-1/openai/v1/models?api-version=1", b"", b"/openai/v1/models?api-version=1"),
        (b"/azure/contoso", b"", b"/"),
        (b"/azure/contoso?x=/y", b"", b"/?x=/y"),
        (b"/azure/contoso//openai", b"", b"//openai"),
        (b"/openai/v1/models", b"api.openai.com", b"/openai/v1/models"),
    ],
)
def test_target(target, host, expected):
    """What goes upstream is the caller's bytes without the service's prefix."""

    assert expected == find(target, host).target


@given(rest=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E)).map(str.encode))
def test_target_is_byte_exact(rest):
    """Whatever follows the prefix is sent as it came; only its matching copy loses doubled slashes."""
    site = find(b"/anthropic/" + rest)

    assert b"/" + rest == site.target
    assert "//" not in site.path
    assert site.query == rest.partition(b"?")[2]


@pytest.mark.parametrize(
    "segment",
    [
        b"evil.com", b"a.b", b"..", b".", b"", b"%65vil", b"a%2eb", b"a%2fb", b"a_b", b"-a", b"a-", b"a:b", b"a@b",
        b"a#b", b"a\\b", b"{resource}", b"x" * 64, b"caf\xe9", b"a;b", b"a\tb", b"[::1]",
    ],
)  # fmt: skip
@pytest.mark.parametrize("rest", [b"", b"/", b"/openai/v1/models", b"?a=b"])
def test_no_resource(segment, rest):
    """What could make another host of the region's URL is no resource."""
    found = find(b"/azure/" + segment + rest)

    assert isinstance(found, Stray)
    assert (404, "unknown-resource") == (found.status, found.code)


@pytest.mark.parametrize("target", [b"/azure", b"/azure?contoso", b"/azure?/contoso/openai"])
def test_resource_missing(target):
    """A query is no path: a resource in it is none."""

    assert "unknown-resource" == find(target).code


@pytest.mark.parametrize("segment", [b"a", b"A1", b"contoso-eu-2", b"x" * 63])
def test_resource(segment):
    """A resource fills the region's URL, in lower case; regions come by priority."""
    name = segment.decode().lower()
    site = find(b"/azure/" + segment + b"/openai/v1/models")

    assert name == site.resource
    assert (
        Region("near", f"https://{name}.openai.azure.com", 2, name, CREDENTIAL),
        Region("shared", f"https://{name}.x", 5, credential_domain="one"),
        Region("far", "https://far", 9),
    ) == site.regions


@pytest.mark.parametrize(
    "rest",
    [
        b"/openai", b"/openai/", b"/openai?api-version=1", b"/openai/deployments/gpt-4o/chat/completions?api-version=1",
        b"/OpenAI/deployments/gpt-4o/extensions/chat/completions", b"/openai//deployments/d/embeddings",
        b"/openai/v1/chat/completions", b"/openai/v1/unheard-of", b"/openai/models", b"/openai/models/gpt-4o",
        b"/openai/files/file-1", b"/openai/responses", b"/openai/realtime", b"/openai/threads/t/runs",
        b"/openai/openaix/deployments/d", b"/v1/chat/completions", b"/v1/models", b"/deployments/d/chat/completions",
        b"/chat/completions", b"/embeddings", b"/responses", b"/models/chat/completions", b"/models", b"/files/f",
        b"/audio/transcriptions", b"/images/generations", b"/anthropic/v1/messages", b"/messages",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", [b"POST", b"GET", b"DELETE"])
def test_resource_forgotten(rest, method):
    """The API's own paths name no resource: the caller's key would go to a stranger's. It is told what to set."""
    found = find(b"/azure" + rest, method=method)

    assert isinstance(found, Stray)
    assert (404, "unknown-resource") == (found.status, found.code)
    assert "AZURE_OPENAI_ENDPOINT=http://127.0.0.1:7400/azure/RESOURCE" in found.message
    assert "https://RESOURCE.openai.azure.com" in found.message


@pytest.mark.parametrize(
    ("target", "method", "resource"),
    [
        (b"/openai/openai/deployments/d/chat/completions", b"POST", "openai"),
        (b"/openai/OpenAI/unheard-of", b"POST", "openai"),
        (b"/openai/openai/files/f", b"DELETE", "openai"),
        (b"/openai/models/chat/completions", b"POST", "openai"),
        (b"/chat/openai/v1/responses", b"POST", "chat"),
        (b"/models/models/embeddings", b"POST", "models"),
        (b"/openai-eu/v1/unheard-of", b"POST", "openai-eu"),
        (b"/contoso/anything/at/all", b"POST", "contoso"),
    ],
)
def test_resource_of_such_a_name(target, method, resource):
    """A resource may be called like a part of the API's paths: then the API's path follows it."""

    assert resource == find(b"/azure" + target, method=method).resource


@pytest.mark.parametrize(
    ("resources", "target", "message"),
    [
        pytest.param(
            _DOCUMENTS, b"/documents/models/m:analyze", "set DOCUMENTS_ENDPOINT=http", id="a part of its paths"
        ),
        pytest.param(_DOCUMENTS, b"", "set DOCUMENTS_ENDPOINT=http", id="nothing"),
        pytest.param(_DOCUMENTS, b"/documents/documents/models", "", id="one of that name"),
        pytest.param(_DOCUMENTS, b"/openai/v1/models", "", id="a part of another API's paths"),
        pytest.param(None, b"/documents/models/m:analyze", "", id="a dialect that knows of none"),
        pytest.param(None, b"", "set the base URL http", id="nothing, for such a dialect"),
    ],
)
def test_resources_by_dialect(resources, target, message):
    """What stands for a forgotten resource, and which setting lacks it, says the dialect, whatever it is called."""
    dialect = replace(DIALECTS["generic"], name="azure-of-ours", locate=lambda *_: None, resources=resources)
    regions = (Region("r", "https://{resource}.x"),)
    found = find(b"/s" + target, rules=replace(RULES, services=(Service("s", dialect, regions, "/s", resource=True),)))

    assert message in (found.message if isinstance(found, Stray) else "")
    assert isinstance(found, Stray) == bool(message)


def test_resource_of_another_api():
    """What an API's paths are like is known of Azure OpenAI alone; elsewhere any name may be a resource's."""
    there = service("gateway", path="/gateway", resource=True, regions=(Region("r", "https://{resource}.example"),))

    assert "chat" == find(b"/gateway/chat/health", rules=Rules((there,), RULES.routes)).resource


@pytest.mark.parametrize(
    ("how", "port", "expected"),
    [
        ({"path": "/gateway"}, 7555, "set the base URL http://127.0.0.1:7555/gateway/RESOURCE, "),
        ({"port": 7401}, 7401, "set the base URL http://127.0.0.1:7401/RESOURCE, "),
        ({"path": "/gateway"}, 0, "set the base URL http://127.0.0.1:7400/gateway/RESOURCE, "),
        (
            {"path": "/gateway", "dialect": "azure-openai"},
            7400,
            "set AZURE_OPENAI_ENDPOINT=http://127.0.0.1:7400/gateway/RESOURCE, ",
        ),
    ],
    ids=["by path", "own port", "port unknown", "azure"],
)
def test_what_to_set(how, port, expected):
    """Where no resource is named, the service's own base URL is."""
    there = service("gateway", resource=True, regions=(Region("r", "https://{resource}.example"),), **how)
    found = find(how.get("path", "").encode() + b"/v1.0", port=port, rules=Rules((there,), RULES.routes))

    assert "unknown-resource" == found.code
    assert expected in found.message
    assert "where RESOURCE is that of https://RESOURCE.example: " in found.message


@pytest.mark.parametrize(
    ("target", "method", "expected"),
    [
        (b"/openai/v1/chat/completions", b"POST", ("chat", ["vip", "gpt", "chat", "default"], True)),
        (b"/openai//v1//chat/completions", b"POST", ("chat", ["vip", "gpt", "chat", "default"], True)),
        (b"/openai/v1/chat/completions", b"GET", ("", ["vip", "gpt", "default"], False)),
        (b"/openai/v1/embeddings", b"POST", ("embeddings", ["vip", "default"], True)),
        (b"/openai/v1/files", b"GET", ("stateful", ["vip", "default"], False)),
        (b"/anthropic/v1/messages", b"POST", ("messages", ["vip", "chat", "default"], True)),
        (b"/openai/../v1/chat/completions", b"POST", ("", ["vip", "default"], False)),
    ],
)
def test_endpoint_and_routes(target, method, expected):
    """The routes that may still take a call, and whether one of them caches; the rest is for its body to say."""
    site = find(target, method=method)
    name = site.endpoint.name if site.endpoint is not None else ""

    assert expected == (name, [route.name for route in site.routes], site.cacheable)


def test_cacheable_needs_a_caching_route():
    """Where every route is off, nothing is read for a look-up."""
    rules = Rules(RULES.services, (Route("off", cache=OFF),))

    assert not find(b"/openai/v1/chat/completions", rules=rules).cacheable


@pytest.mark.parametrize(
    ("fields", "model", "expected"),
    [
        ({}, "gpt-4o-mini", "gpt"),
        ({}, "gpt-4", "chat"),
        ({}, "", "chat"),
        ({b"x-team": b"docs-eu", b"x-b": b"1"}, "gpt-4o", "vip"),
        ({b"x-team": b"docs"}, "gpt-4o", "gpt"),
        ({b"x-team": b"Docs", b"x-b": b"1"}, "gpt-4o", "gpt"),
        ({b"x-team": b"docs", b"x-b": b"\xe9"}, "gpt-4o", "vip"),
    ],
)
def test_choose_route(fields, model, expected):
    """The first route whose header and model patterns all match."""
    site = find(b"/openai/v1/chat/completions")

    assert expected == choose_route(site, fields, model).name


def test_choose_route_by_presence():
    """A field that is not there matches no pattern, not even ``*``."""
    rules = Rules(RULES.services, (Route("with", Match(header={"x-a": "*"})), Route("default")))
    site = find(b"/openai/v1/models", rules=rules)

    assert "default" == choose_route(site, {}, "").name
    assert "with" == choose_route(site, {b"x-a": b""}, "").name


def test_choose_route_where_none_matches():
    """The last route takes what no other took."""
    rules = Rules(RULES.services, (Route("a", Match(model="x")), Route("b", Match(model="y"))))

    assert "b" == choose_route(find(b"/openai/v1/models", rules=rules), {}, "z").name


@pytest.mark.parametrize(
    ("rest", "method", "expected", "endpoint"),
    [
        (b"/messages", b"POST", b"/v1/messages", "messages"),
        (b"/messages?beta=true", b"POST", b"/v1/messages?beta=true", "messages"),
        (b"//messages", b"POST", b"/v1//messages", "messages"),
        (b"/messages/count_tokens", b"POST", b"/v1/messages/count_tokens", "count_tokens"),
        (b"/messages/batches", b"POST", b"/v1/messages/batches", "batches"),
        (b"/models/claude-sonnet-4-6", b"GET", b"/v1/models/claude-sonnet-4-6", "models"),
        (b"/v1/messages", b"POST", b"/v1/messages", "messages"),
        (b"/v1/v1/messages", b"POST", b"/v1/v1/messages", None),
        (b"/messages", b"GET", b"/messages", None),
        (b"/unheard-of", b"POST", b"/unheard-of", None),
        (b"/files/f", b"DELETE", b"/files/f", None),
        (b"", b"POST", b"/", None),
    ],
)
def test_implied_root(rest, method, expected, endpoint):
    """SDKs of Anthropic's API do not all send its root: a path that lacks it is the path with it."""
    one = service("anthropic", "anthropic", path="/anthropic", regions=(Region("r", "https://api.anthropic.com"),))
    site = recognise(Rules((one,), RULES.routes), 7400, b"localhost", method, b"/anthropic" + rest)

    assert expected == site.target
    assert endpoint == (site.endpoint and site.endpoint.name)
    assert site.path == expected.partition(b"?")[0].decode().replace("//", "/")


@pytest.mark.parametrize(
    ("dialect", "url"),
    [
        ("anthropic", "https://gateway.example"),
        ("anthropic", "https://api.anthropic.com/v1"),
        ("openai", "https://api.openai.com"),
        ("generic", "https://api.anthropic.com"),
    ],
)
def test_no_root_is_implied(dialect, url):
    """Behind a gateway a path may have a meaning of its own; and SDKs of other APIs all send the root."""
    one = service("ai", dialect, path="/ai", regions=(Region("r", url),))
    sites = [
        recognise(Rules((one,), RULES.routes), 7400, b"", b"POST", b"/ai" + path)
        for path in (b"/messages", b"/embeddings")
    ]

    assert [b"/messages", b"/embeddings"] == [site.target for site in sites]
