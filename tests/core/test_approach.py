"""What a head says: found again only by a head that says the same."""

import base64
import json
from dataclasses import replace
from itertools import permutations

import pytest

from sidecar.core.approach import Approaches, telling
from sidecar.core.headers import fields_of
from sidecar.core.model import Head
from sidecar.core.policy import Bypass
from sidecar.core.principal import Pod
from sidecar.core.recognise import choose_route
from sidecar.core.rules import CacheMode, CacheRule, Match, Mode, Region, Route, Rules, Service, Share, StoredCredential
from sidecar.dialects import DIALECTS
from sidecar.errors import Refused

STORED = StoredCredential("api-key", "/file")
ALWAYS = CacheRule(CacheMode.ALWAYS)


def service(name, dialect, url="https://api.vendor.com", **how):
    return Service(name, DIALECTS[dialect], (Region("r", url, credential=how.pop("credential", None)),), **how)


RULES = Rules(
    services=(
        service("openai", "openai", path="/openai"),
        service("anthropic", "anthropic", path="/anthropic"),
        service("azure", "azure-openai", "https://{resource}.openai.azure.com", path="/azure", resource=True),
        service("gateway", "azure-openai", "https://gateway.internal", path="/gateway"),
        service("generic", "generic", path="/generic"),
        service("ours", "generic", "https://x.cognitiveservices.azure.com", path="/ours"),
        service("apim", "openai", "https://x.azure-api.net:8443/openai", path="/apim"),
        service("stored", "openai", path="/stored", credential=STORED),
    ),
    routes=(
        Route("teams", Match(header={"X-Team": "docs"}), CacheRule(share=Share("header", "x-tenant"))),
        Route("all", cache=ALWAYS),
    ),
)
CHAT = b"/openai/v1/chat/completions"


def head_of(fields=None, target=CHAT, *, method=b"POST", port=7400):
    return Head(method, target, 1, tuple((fields or {}).items()), {b"host": b"127.0.0.1:7400"} | (fields or {}), port)


def approaches(rules=RULES, secret=b"secret"):
    return Approaches(rules, secret, Pod("team", "app", b"process"))


def jwt(issuer="https://login.microsoftonline.com/t/v2.0"):
    parts = ({"alg": "RS256"}, {"iss": issuer, "sub": "app"})
    return b".".join([*(base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=") for p in parts), b"c2ln"])


class Watched(dict):
    """Fields that remember which of them were asked for."""

    def __init__(self, fields):
        super().__init__(fields)
        self.asked = set()

    def get(self, name, default=None):
        self.asked.add(name)
        return super().get(name, default)

    def __getitem__(self, name):
        self.asked.add(name)
        return super().__getitem__(name)

    def __contains__(self, name):
        self.asked.add(name)
        return super().__contains__(name)

    def __iter__(self):
        raise AssertionError("all of the fields are read")

    items = keys = values = __iter__


TARGETS = [
    CHAT,
    b"/openai/v1/files",
    b"/openai/v1/unheard-of",
    b"/anthropic/v1/messages?beta=true",
    b"/azure/contoso/openai/v1/chat/completions",
    b"/gateway/openai/deployments/d/chat/completions?api-version=1&api-key=k",
    b"/generic/x?key=k",
    b"/stored/v1/embeddings",
]
SETS = [
    {},
    {b"authorization": b"Bearer k", b"api-key": b"k2"},
    {b"x-team": b"docs", b"x-tenant": b"a", b"cache-control": b"max-age=1", b"connection": b"close"},
    {b"authorization": b"Bearer " + jwt("https://other"), b"x-sidecar-ttl": b"1", b"x-sidecar-tags": b"a"},
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("fields", SETS, ids=["bare", "keys", "wishes", "token"])
@pytest.mark.parametrize("alone", [False, True], ids=["all services", "this service alone"])
def test_telling_covers_every_field_read(target, fields, alone):
    """No decision reads a header field that approaches are not told apart by."""
    name = target.split(b"/")[1].decode()
    services = tuple(service for service in RULES.services if service.name == name or not alone)
    rules = replace(RULES, services=services)
    head = head_of(fields, target)
    watched = Watched(head.fields)
    head = Head(head.method, head.target, 1, head.pairs, watched, 7400)
    finder = approaches(rules)
    finder._telling = ()  # so that only decisions ask
    try:
        approach = finder.find(head)
    except Refused:
        pass
    else:
        for model in ("", "gpt-4o"):
            choose_route(approach.site, watched, model)
        for route in rules.routes:
            finder.caller(approach, route)

    assert b"host" in watched.asked
    assert watched.asked <= set(telling(rules))


@pytest.mark.parametrize("name", telling(RULES))
def test_told_apart(name):
    """Heads that differ in a telling field never share an approach; an absent one differs from an empty one."""
    finder = approaches()
    found = []
    for value in (None, b"", b"1", b"2"):
        fields = {b"authorization": b"Bearer k"} | ({} if value is None else {name: value})
        if name == b"authorization" and value is None:
            del fields[name]
        found.append(finder.find(head_of(fields)))

    assert 4 == len({id(approach) for approach in found})


def test_found_again():
    """Heads that differ in nothing telling share one approach."""
    finder = approaches()
    first = finder.find(head_of({b"authorization": b"Bearer k"}))
    again = finder.find(head_of({b"authorization": b"Bearer k", b"user-agent": b"x", b"traceparent": b"y"}))

    assert first is again
    assert "<Approaches <Memo 1 values, weight" in repr(finder)


@pytest.mark.parametrize(
    "head", [head_of(method=b"PUT"), head_of(target=CHAT + b"?a"), head_of(port=1)], ids=["method", "target", "port"]
)
def test_line_tells(head):
    """Method, target and port tell, too."""
    finder = approaches()

    assert finder.find(head_of()) is not finder.find(head)


def test_bounded():
    """Approaches with long targets push each other out sooner than short ones."""
    finder = approaches()
    for number in range(1100):
        finder.find(head_of(target=CHAT + b"?%d" % number))

    assert 1024 == len(finder._memo)

    for number in range(200):
        finder.find(head_of(target=CHAT + b"?%d" % number + bytes(16_000).replace(b"\0", b"x")))

    assert len(finder._memo) < 130


@pytest.mark.parametrize(
    ("fields", "target", "status", "code"),
    [
        ({}, b"/nobody", 404, "unknown-service"),
        ({}, b"/azure/evil.com/x", 404, "unknown-resource"),
        ({b"api-key": b"k"}, b"/azure/openai/deployments/d/chat/completions", 404, "unknown-resource"),
        ({b"api-key": b"k"}, CHAT, 421, "misdirected"),
        ({b"authorization": b"k"}, CHAT + b"?api-version=2024-06-01", 421, "misdirected"),
    ],
)
def test_refused(fields, target, status, code):
    """Heads for nobody, or meant for another service, get no further."""
    with pytest.raises(Refused) as caught:
        approaches().find(head_of(fields, target))

    assert (status, code) == (caught.value.status, caught.value.code)


@pytest.mark.parametrize("first", [True, False], ids=["as it comes", "after a head that was found"])
def test_misdirected_message(first):
    """The answer names the right base URL; a head without the key does not hide one with it."""
    finder = approaches(replace(RULES, services=RULES.services[:1]))
    if not first:
        finder.find(head_of())
    with pytest.raises(Refused, match=r"AZURE_OPENAI_ENDPOINT=http://127.0.0.1:7400/azure/RESOURCE"):
        finder.find(head_of({b"api-key": b"k"}))


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        (CHAT, False),
        (b"/openai/v1/unheard-of", False),
        (b"/anthropic/v1/messages", False),
        (b"/generic/x", False),
        (b"/azure/contoso/openai/v1/models", True),
        (b"/gateway/openai/v1/models", True),
        (b"/ours/x", True),
        (b"/apim/v1/models", True),
        (b"/stored/v1/models", True),
    ],
)
@pytest.mark.parametrize(
    "fields",
    [
        {b"authorization": b"Bearer " + jwt()},
        {b"authorization": b"Bearer " + jwt(), b"x-api-key": b"k"},
        {b"authorization": b"Bearer k", b"api-key": jwt()},
    ],
    ids=["alone", "beside a key", "in another field"],
)
def test_microsoft_tokens(target, allowed, fields):
    """A Microsoft-issued token goes to Microsoft's hosts and Azure's API alone, or nowhere; in passthrough as well."""
    for mode in Mode:
        finder = approaches(replace(RULES, mode=mode))
        if allowed:
            finder.find(head_of(fields, target))
        else:
            with pytest.raises(Refused) as caught:
                finder.find(head_of(fields, target))

            assert (421, "foreign-token") == (caught.value.status, caught.value.code)
            assert b".".join(jwt().split(b".")[:2]).decode() not in caught.value.message


@pytest.mark.parametrize(
    ("dialect", "domain", "allowed"),
    [
        ("openai", "microsoft", True),
        ("anthropic", "microsoft", True),
        ("openai", "openai", False),
        ("openai", "", False),
    ],
)
def test_microsoft_tokens_by_domain(dialect, domain, allowed):
    """A region that is said to be of Microsoft's domain takes its tokens, whatever its host: a gateway may."""
    region = Region("r", "https://gateway.internal", credential_domain=domain)
    finder = approaches(replace(RULES, services=(Service("s", DIALECTS[dialect], (region,), path="/s"),)))
    head = head_of({b"authorization": b"Bearer " + jwt()}, b"/s/v1/models")
    if allowed:
        assert finder.find(head).site.regions == (region,)
    else:
        with pytest.raises(Refused, match="credential_domain: microsoft"):
            finder.find(head)


@pytest.mark.parametrize("url", ["https://evil.com/.azure.com", "https://azure.com.evil.com", "https://evilazure.com"])
def test_not_microsofts(url):
    """A host is Microsoft's by its own last labels."""
    finder = approaches(replace(RULES, services=(service("s", "openai", url, path="/s"),)))
    with pytest.raises(Refused):
        finder.find(head_of({b"authorization": b"Bearer " + jwt()}, b"/s/v1/models"))


def test_bypass():
    """What the head alone rules out is known before the body is read."""
    finder = approaches()

    assert finder.find(head_of()).bypass is None
    assert Bypass("no-store") == finder.find(head_of({b"cache-control": b"no-store"})).bypass
    assert Bypass("stateful") == finder.find(head_of(target=b"/openai/v1/files")).bypass


def material(fields=None, target=CHAT, *, route=1, method=b"POST", secret=b"secret"):
    finder = approaches(secret=secret)
    head = head_of(fields, target, method=method)
    return finder.caller(finder.find(head), RULES.routes[route]).prefix


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ({b"authorization": b"Bearer k2"}, CHAT),
        ({b"authorization": b"Bearer k", b"openai-organization": b"o"}, CHAT),
        ({b"authorization": b"Bearer k", b"openai-beta": b"b"}, CHAT),
        ({b"authorization": b"Bearer k", b"openai-beta": b""}, CHAT),
        ({b"authorization": b"Bearer k"}, CHAT + b"?a"),
        ({b"authorization": b"Bearer k"}, b"/openai//v1/chat/completions"),
        ({b"authorization": b"Bearer k"}, b"/openai/v1/embeddings"),
        ({b"authorization": b"Bearer k"}, b"/stored/v1/chat/completions"),
    ],
)
def test_material(fields, target):
    """Who asks, what counts of its fields, the service and the exact path are all in the key."""

    assert material({b"authorization": b"Bearer k"}) != material(fields, target)


def test_material_of_resources():
    """Two resources are two keys; the credential's own place in the query is not in it."""
    fields = {b"api-key": b"k"}
    path = b"/openai/v1/chat/completions"

    assert material(fields, b"/azure/one" + path) != material(fields, b"/azure/two" + path)
    assert material(fields, b"/azure/one" + path) == material({}, b"/azure/ONE" + path + b"?api-key=k")


def test_material_tells_no_secret():
    """Neither key nor tenant can be read off the material, and another process's is another."""
    fields = {b"authorization": b"Bearer sk-secret", b"x-tenant": b"tenant-secret"}
    found = material(fields, route=0) + material(fields) + material({}, b"/generic/x?key=q-secret")

    assert b"secret" not in found
    assert material(fields) != material(fields, secret=b"other")


def test_callers_by_route():
    """One head has a caller for each way of sharing, each worked out once."""
    finder = approaches()
    head = head_of({b"authorization": b"Bearer k", b"x-tenant": b"t"})
    approach = finder.find(head)
    teams, everyone = (finder.caller(approach, route) for route in RULES.routes)

    assert teams.principal.partition != everyone.principal.partition
    assert teams.principal.credential == everyone.principal.credential
    assert teams is finder.caller(approach, RULES.routes[0])


def test_routes_of_one_name():
    """Routes may share a name, and never a principal by it: who shares is what callers are kept by."""
    own, team, everyone = (
        Route("same", Match(model=share.kind), CacheRule(CacheMode.ALWAYS, share=share))
        for share in (Share(), Share("header", "x-tenant"), Share("service"))
    )
    for order in permutations((own, team, everyone)):
        finder = approaches(replace(RULES, routes=order))
        approach = finder.find(head_of({b"authorization": b"Bearer k", b"x-tenant": b"t"}))
        found = {route.cache.share.kind: finder.caller(approach, route) for route in order}

        assert 3 == len({caller.principal.partition for caller in found.values()})
        assert 3 == len({caller.prefix for caller in found.values()})
        assert [False, True, True] == [found[kind].principal.shared for kind in ("principal", "header", "service")]


def test_head_of_an_approach():
    """An approach keeps the first head; of a later one the telling fields are the same."""
    finder = approaches()
    first = head_of({b"authorization": b"Bearer k", b"user-agent": b"one"})
    approach = finder.find(first)
    later = finder.find(head_of({b"authorization": b"Bearer k", b"user-agent": b"two"}))

    assert approach.head is first is later.head
    assert frozenset(telling(RULES)) == finder.telling


def test_caller_where_the_region_has_the_credential():
    """There the workload asks, whoever the caller says it is."""
    finder = approaches()
    found = []
    for key in (b"Bearer 1", b"Bearer 2"):
        head = head_of({b"authorization": key}, b"/stored/v1/embeddings")
        found.append(finder.caller(finder.find(head), RULES.routes[1]).principal)

    assert found[0].partition == found[1].partition
    assert found[0].credential != found[1].credential


def test_unknown_endpoint_has_no_material():
    """What is not looked up has a principal, and no key."""

    assert b"" == material({}, b"/openai/v1/unheard-of")


def test_fields_by_lower_case_name():
    """Names that are told apart are those that the listener makes."""

    assert all(name in fields_of([(name.upper(), b"")]) for name in telling(RULES))
