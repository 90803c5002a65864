"""What a head says: found again only by a head that says the same."""

import base64
import json
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.cache.policy import Bypass, Reason
from sidecar.core.http.headers import LONGEST_NAME
from sidecar.core.model import Head
from sidecar.core.request.plan import RequestPlans
from sidecar.core.request.principal import Pod
from sidecar.core.request.roles import MOST_NAMES, TOKEN_START
from sidecar.core.request.splits import WINDOW
from sidecar.core.rules import (
    CacheMode,
    CacheRule,
    Match,
    Mode,
    Region,
    Route,
    Rules,
    Service,
    Share,
    StoredCredential,
    TokenRule,
)
from sidecar.core.site.recognise import choose_route
from sidecar.dialects import DIALECTS
from sidecar.errors import Refused

STORED = StoredCredential("api-key", "/file")
ALWAYS = CacheRule(CacheMode.ALWAYS)


def service(name, dialect, url=None, **how):
    url = url or f"https://{name}.gateway.example"
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


def plans(rules=RULES, secret=b"secret"):
    return RequestPlans(rules, secret, Pod("team", "app", b"process"))


def jwt(issuer="https://login.microsoftonline.com/t/v2.0"):
    parts = ({"alg": "RS256"}, {"iss": issuer, "sub": "app"})
    return b".".join([*(base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=") for p in parts), b"c2ln"])


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


NAMES = [
    "authorization", "api-key", "x-litellm-key", "cookie", "openai-organization", "openai-beta", "x-team", "x-tenant",
    "accept", "accept-language", "content-type", "cache-control", "pragma", "origin", "sec-fetch-site", "if-match",
    "range", "traceparent", "user-agent", "x-stainless-lang", "x-portkey-provider", "x-made-up", "x-sidecar-ttl",
    "connection", "content-encoding", "host", "idempotency-key", "dpop", "x-forwarded-for",
]  # fmt: skip
VALUES = st.sampled_from(
    [b"", b"a", b"localhost", b"docs", b"no-store", b"text/plain; charset=utf-7", jwt("https://o")]
)
HEADS = st.dictionaries(st.sampled_from([name.encode() for name in NAMES]), VALUES, max_size=6)


def decided(finder, head):
    """All that the head of a request decides."""
    try:
        plan = finder._consider(head)
    except Refused as refusal:
        return refusal.status, refusal.code
    routes = [choose_route(plan.site, head.fields, model).name for model in ("", "gpt-4o")]
    callers = [finder.caller(plan, route) for route in finder.rules.routes]
    return plan.site.service.name, plan.asked, plan.bypass, routes, callers


@pytest.mark.parametrize("alone", [False, True], ids=["all services", "this service alone"])
@given(HEADS, HEADS, st.sampled_from(TARGETS))
def test_telling_covers_every_field_read(alone, fields, others, target):
    """Heads that differ in nothing telling decide the same, whatever else stands in them."""
    name = target.split(b"/")[1].decode()
    services = tuple(service for service in RULES.services if service.name == name or not alone)
    finder = plans(replace(RULES, services=services))
    ignored = {
        each: value
        for each, value in others.items()
        if not finder.deciding_fields[each] and TOKEN_START not in value + fields.get(each, b"")
    }

    first, second = head_of(fields, target), head_of(fields | ignored, target)

    assert decided(finder, first) == decided(finder, second)


TELLS = ["authorization", "api-key", "x-litellm-key", "x-portkey-provider", "x-made-up", "cookie", "x-tenant", "dpop"]


@pytest.mark.parametrize("name", TELLS)
def test_separating(name):
    """Heads that differ in a telling field never share an approach; an absent one differs from an empty one."""
    finder = plans()
    found = []
    for value in (None, b"", b"1", b"2"):
        fields = {b"authorization": b"Bearer k"} | ({} if value is None else {name.encode(): value})
        if name == "authorization" and value is None:
            del fields[b"authorization"]
        found.append(finder.find(head_of(fields)))

    assert 4 == len({id(plan) for plan in found})


def test_names_are_bounded():
    """Callers choose names, so not all of them are remembered; what is not is worked out each time."""
    finder = plans()
    for number in range(2 * MOST_NAMES):
        assert finder.deciding_fields[b"x-%d" % number]

    assert MOST_NAMES == len(finder.deciding_fields)


def test_long_names_are_not_remembered():
    """A name may be as long as a head: whether it tells is known all the same, and takes no memory."""
    finder = plans()
    before = len(finder.deciding_fields)

    assert finder.deciding_fields[b"x" * LONGEST_NAME]
    assert finder.deciding_fields[b"x" * (LONGEST_NAME + 1)]
    assert finder.deciding_fields[b"x" * 60_000]
    assert before + 1 == len(finder.deciding_fields)


def test_large_heads_weigh():
    """An approach holds the first head like it, noise included, so a large head takes the room of many."""
    finder = plans()
    for number in range(256):
        assert finder.find(head_of({b"traceparent": b"x" * 60_000}, b"/openai/v1/models/m-%d" % number)).excess > 60_000

    assert len(finder._memo) < 40
    assert not finder.find(head_of({b"traceparent": b"x" * 60}, b"/openai/v1/models/m")).excess


def test_found_again():
    """Heads that differ in nothing telling share one approach."""
    finder = plans()
    first = finder.find(head_of({b"authorization": b"Bearer k"}))
    again = finder.find(head_of({b"authorization": b"Bearer k", b"user-agent": b"x", b"traceparent": b"y"}))

    assert first is again
    assert "<Approaches <Memo 1 values, weight" in repr(finder)


@pytest.mark.parametrize(
    "head", [head_of(method=b"PUT"), head_of(target=CHAT + b"?a"), head_of(port=1)], ids=["method", "target", "port"]
)
def test_line_tells(head):
    """Method, target and port tell, too."""
    finder = plans()

    assert finder.find(head_of()) is not finder.find(head)


def test_bounded():
    """Approaches with long targets push each other out sooner than short ones."""
    finder = plans()
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
        plans().find(head_of(fields, target))

    assert (status, code) == (caught.value.status, caught.value.code)


@pytest.mark.parametrize("first", [True, False], ids=["as it comes", "after a head that was found"])
def test_misdirected_message(first):
    """The answer names the right base URL; a head without the key does not hide one with it."""
    finder = plans(replace(RULES, services=RULES.services[:1]))
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
        finder = plans(replace(RULES, mode=mode))
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
    finder = plans(replace(RULES, services=(Service("s", DIALECTS[dialect], (region,), path="/s"),)))
    head = head_of({b"authorization": b"Bearer " + jwt()}, b"/s/v1/models")
    if allowed:
        assert finder.find(head).site.regions == (region,)
    else:
        with pytest.raises(Refused, match="credential_domain: microsoft"):
            finder.find(head)


@pytest.mark.parametrize("takes", [True, False])
def test_microsoft_tokens_by_dialect(takes):
    """A dialect says whether its services take them, whatever it is called."""
    dialect = replace(DIALECTS["generic"], name="azure-of-ours", microsoft_tokens=takes)
    region = Region("r", "https://gateway.internal")
    finder = plans(replace(RULES, services=(Service("s", dialect, (region,), path="/s"),)))
    head = head_of({b"authorization": b"Bearer " + jwt()}, b"/s/v1/models")
    if takes:
        assert finder.find(head).site.regions == (region,)
    else:
        with pytest.raises(Refused, match="not a Microsoft service"):
            finder.find(head)


@pytest.mark.parametrize("url", ["https://evil.com/.azure.com", "https://azure.com.evil.com", "https://evilazure.com"])
def test_not_microsofts(url):
    """A host is Microsoft's by its own last labels."""
    finder = plans(replace(RULES, services=(service("s", "openai", url, path="/s"),)))
    with pytest.raises(Refused):
        finder.find(head_of({b"authorization": b"Bearer " + jwt()}, b"/s/v1/models"))


def test_bypass():
    """What the head alone rules out is known before the body is read."""
    finder = plans()

    assert finder.find(head_of()).bypass is None
    assert Bypass("no-store") == finder.find(head_of({b"cache-control": b"no-store"})).bypass
    assert Bypass("stateful") == finder.find(head_of(target=b"/openai/v1/files")).bypass


def material(fields=None, target=CHAT, *, route=1, method=b"POST", secret=b"secret"):
    finder = plans(secret=secret)
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
        ({b"authorization": b"Bearer k"}, CHAT + b"?"),
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
    finder = plans()
    head = head_of({b"authorization": b"Bearer k", b"x-tenant": b"t"})
    plan = finder.find(head)
    teams, everyone = (finder.caller(plan, route) for route in RULES.routes)

    assert teams.principal.partition != everyone.principal.partition
    assert teams.principal.credential == everyone.principal.credential
    assert teams is finder.caller(plan, RULES.routes[0])


def test_routes_of_one_name():
    """Routes may share a name, and never a principal by it: who shares is what callers are kept by."""
    own, team, everyone = (
        Route("same", Match(model=share.kind), CacheRule(CacheMode.ALWAYS, share=share))
        for share in (Share(), Share("header", "x-tenant"), Share("service"))
    )
    for order in permutations((own, team, everyone)):
        finder = plans(replace(RULES, routes=order))
        plan = finder.find(head_of({b"authorization": b"Bearer k", b"x-tenant": b"t"}))
        found = {route.cache.share.kind: finder.caller(plan, route) for route in order}

        assert 3 == len({caller.principal.partition for caller in found.values()})
        assert 3 == len({caller.prefix for caller in found.values()})
        assert [False, True, True] == [found[kind].principal.shared for kind in ("principal", "header", "service")]


def test_head_of_an_approach():
    """An approach keeps the first head; of a later one the telling fields are the same."""
    finder = plans()
    first = head_of({b"authorization": b"Bearer k", b"user-agent": b"one"})
    plan = finder.find(first)
    later = finder.find(head_of({b"authorization": b"Bearer k", b"user-agent": b"two"}))

    assert plan.head is first is later.head


def test_caller_where_the_region_has_the_credential():
    """There the workload asks, whoever the caller says it is."""
    finder = plans()
    found = []
    for key in (b"Bearer 1", b"Bearer 2"):
        head = head_of({b"authorization": key}, b"/stored/v1/embeddings")
        found.append(finder.caller(finder.find(head), RULES.routes[1]).principal)

    assert found[0].partition == found[1].partition
    assert found[0].credential != found[1].credential


def test_unknown_endpoint_has_no_material():
    """What is not looked up has a principal, and no key."""

    assert b"" == material({}, b"/openai/v1/unheard-of")


# ---- pages of the web ----

NAMED = replace(
    RULES,
    listen=replace(RULES.listen, names=("sidecar.team.svc",)),
    services=(*RULES.services, service("hosted", "openai", hosts=("api.hosted.com",), credential=STORED)),
)


@pytest.mark.parametrize("target", [b"/stored/v1/embeddings", CHAT], ids=["region's credential", "caller's own"])
@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({b"host": b"attacker.example"}, "foreign-host"),
        ({b"host": b"attacker.example:7400"}, "foreign-host"),
        ({b"host": b"127.0.0.1.attacker.example"}, "foreign-host"),
        ({b"host": b"localhost.attacker.example"}, "foreign-host"),
        ({b"host": b"sidecar.team.svc.evil"}, "foreign-host"),
        ({b"origin": b"https://attacker.example"}, "foreign-origin"),
        ({b"origin": b"null"}, "foreign-origin"),
        ({b"origin": b""}, "foreign-origin"),
        ({b"sec-fetch-site": b"cross-site"}, "foreign-origin"),
        ({b"sec-fetch-site": b"same-site"}, "foreign-origin"),
        ({b"sec-fetch-site": b"what-comes-next"}, "foreign-origin"),
    ],
)
def test_web_pages(target, fields, code):
    """A page spends no credential of ours; with the caller's own key its call goes its way, and is not looked up."""
    head = head_of({b"authorization": b"Bearer k", **fields}, target)
    finder = plans(NAMED)
    if target == CHAT:
        assert Bypass(code) == finder.find(head).bypass
        return
    with pytest.raises(Refused) as caught:
        finder.find(head)

    assert ({"foreign-host": 421, "foreign-origin": 403}[code], code) == (caught.value.status, caught.value.code)
    assert "attacker" not in caught.value.message


@pytest.mark.parametrize("target", [b"/stored/v1/embeddings", CHAT], ids=["region's credential", "caller's own"])
@pytest.mark.parametrize(
    "fields",
    [
        {b"host": b"localhost"},
        {b"host": b"LOCALHOST:7400"},
        {b"host": b"127.0.0.1:1"},
        {b"host": b"127.8.8.8"},
        {b"host": b"[::1]:7400"},
        {b"host": b"Sidecar.Team.SVC:80"},
        {b"host": b"127.0.0.1", b"sec-fetch-site": b"none"},
        {b"host": b"127.0.0.1", b"sec-fetch-site": b"same-origin", b"sec-fetch-mode": b"cors"},
    ],
)
def test_names_of_our_own(target, fields):
    """Loopback, the names of the configuration, and what no page has sent."""
    head = head_of({b"authorization": b"Bearer k", **fields}, target)

    assert plans(NAMED).find(head).bypass is None


def test_a_services_own_host():
    """Interception: the host that the application calls is one of ours."""
    head = head_of({b"host": b"api.hosted.com"}, b"/v1/embeddings")

    assert "hosted" == plans(NAMED).find(head).site.service.name


def test_another_address_is_no_name_of_ours():
    """Only loopback is ours without being listed; where a credential would be lent, any other address is refused."""
    fields = {b"authorization": b"Bearer k", b"host": b"10.0.0.9:7400"}

    assert Bypass(Reason.FOREIGN_HOST) == plans().find(head_of(fields)).bypass
    with pytest.raises(Refused, match=r"listen\.names"):
        plans().find(head_of(fields, b"/stored/v1/embeddings"))


# ---- what counts at a gateway ----


@pytest.mark.parametrize("name", [b"x-portkey-provider", b"x-made-up", b"accept-language", b"x-amz-target"])
def test_headers_count_at_a_gateway(name):
    """There each field is in the key, and at the vendor's own host only what the dialect names."""
    key = {b"authorization": b"Bearer k"}
    vendor = replace(RULES, services=(service("openai", "openai", "https://api.openai.com", path="/openai"),))
    for rules, counts in ((RULES, True), (vendor, False)):
        finder = plans(rules)
        one, two, none = (
            finder.caller(finder.find(head_of(key | more)), rules.routes[1]).prefix
            for more in ({name: b"1"}, {name: b"2"}, {})
        )

        assert counts == (3 == len({one, two, none}))
        assert counts or 1 == len({one, two, none})


def test_values_that_count_are_not_in_the_material():
    """A digest stands for each, for some are credentials."""

    assert b"vk-hush" not in material({b"authorization": b"Bearer k", b"x-portkey-virtual-key": b"vk-hush"})


def test_selectors_count_where_all_share():
    """Who shares with everybody still asks the provider that its virtual key chooses."""
    everyone = Route("everyone", cache=CacheRule(CacheMode.ALWAYS, share=Share("service")))
    finder = plans(replace(RULES, routes=(everyone,)))
    found = [
        finder.caller(finder.find(head_of({b"authorization": key, b"x-portkey-virtual-key": virtual})), everyone)
        for key, virtual in ((b"Bearer 1", b"a"), (b"Bearer 2", b"a"), (b"Bearer 2", b"b"))
    ]

    assert found[0].prefix == found[1].prefix != found[2].prefix
    assert 1 == len({caller.principal.partition for caller in found})


def test_a_field_that_splits_every_key():
    """It is found, by its route, and forgotten once calls are alike again."""
    finder = plans()
    for number in range(WINDOW):
        head = head_of({b"authorization": b"Bearer k", b"x-job-id": b"%d" % number, b"x-region": b"eu"})
        finder.caller(finder.find(head), RULES.routes[1])

    assert {"all": ("x-job-id",)} == finder.splits.found

    for number in range(WINDOW):
        head = head_of({b"authorization": b"Bearer k", b"x-region": b"eu"}, CHAT + b"?%d" % number)
        finder.caller(finder.find(head), RULES.routes[1])

    assert {} == finder.splits.found


def test_other_keys_of_issuers():
    """What was verified with keys that hold no longer is worked out anew."""
    calls = []
    rules = replace(
        RULES, services=(service("openai", "openai", path="/openai", tokens=TokenRule(frozenset(), "i", "a", "/f")),)
    )
    finder = RequestPlans(rules, b"secret", Pod(), lambda name, token: calls.append((name, token)))
    head = head_of({b"authorization": b"Bearer " + jwt("https://other")})
    for _ in range(2):
        finder.caller(finder.find(head), rules.routes[1])
    seen = len(calls)
    finder.forget()
    finder.caller(finder.find(head), rules.routes[1])

    assert len(calls) > seen > 0
    assert {("openai", jwt("https://other"))} == set(calls)
