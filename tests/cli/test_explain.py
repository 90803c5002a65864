"""``sidecar explain``: that it says what the line would decide, and never shows a credential."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from itertools import takewhile

import pytest

from sidecar.cli.explain import explain
from sidecar.core.key.fingerprint import fleet_secret
from sidecar.core.reasons import REASONS
from sidecar.core.request.plan import RequestPlans
from sidecar.core.request.principal import Pod
from sidecar.core.rules import CacheRule, RedisRule, Region, Route
from sidecar.net.request_file import read_request
from sidecar.settings import load

HEAD = "POST /openai/v1/chat/completions HTTP/1.1\nHost: 127.0.0.1:7400\nAuthorization: Bearer sk-secret\n"

CHAT = '{"model": "gpt-4o", "temperature": 0, "messages": [{"role": "user", "content": "Hello"}]}'

ROUTES = """
version: 1
services:
  openai: {regions: [{name: us, url: "https://us.example"}, {name: eu, url: "https://eu.example", priority: 2}]}
routes:
  - {name: watched, match: {header: {x-team: docs}}, cache: {mode: observe}}
  - {name: shared, match: {model: "gpt-4o*"}, cache: {mode: always, ttl: 12h, share: service}}
"""


@pytest.fixture
def rules():
    """The built-in settings."""
    return load(os.devnull, environ={}, overrides={}, strict=True)


@pytest.fixture
def routed(tmp_path):
    """Settings with regions and routes of their own."""
    path = tmp_path / "c.yaml"
    path.write_text(ROUTES)
    return load(str(path), environ={}, overrides={}, strict=True)


def request(body=CHAT, head=HEAD):
    return f"{head}\n{body}".encode()


def parts(rules, raw):
    """What is said of a readable request, by name."""
    text, good = explain(rules, raw)

    assert good
    assert "sk-secret" not in text

    return dict(re.findall(r"^(\w+): +(.*)$", text, re.MULTILINE)) | {"text": text}


def test_look_up(rules):
    """Everything that leads to a key, and the key."""
    said = parts(rules, request())

    assert "openai (dialect openai)" == said["service"]
    assert "chat" == said["endpoint"]
    assert "chat (mode deterministic, share principal)" == said["route"]
    assert "gpt-4o" == said["model"]
    assert "no" == said["stream"]
    assert "look-up" == said["decision"]
    assert "3600 s" == said["ttl"]
    assert "default https://api.openai.com (priority 1, weight 1, the caller's own credential)" == said["candidates"]
    assert not {"limits", "retry", "fallback"} & said.keys()
    assert re.match(r"[0-9a-f]{32} ", said["key"])
    assert '"content":"Hello"' in said["text"]


def test_routes_and_regions(routed):
    """A configured route with its lifetime and sharing, and the regions in their order."""
    said = parts(routed, request())

    assert "shared (mode always, share service)" == said["route"]
    assert "43200 s" == said["ttl"]
    assert "reads stored answers only once the service has accepted its credential" == said["caller"]
    assert """
candidates:  us https://us.example (priority 1, weight 1, the caller's own credential)
             eu https://eu.example (priority 2, weight 1, the caller's own credential)""" in said["text"]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(request(CHAT.replace("0", "1")), "bypass (not-deterministic)", id="sampled"),
        pytest.param(
            request(head=HEAD + "Cache-Control: no-store\n"), "bypass (no-store); the body is not read", id="no-store"
        ),
        pytest.param(
            request(head=HEAD.replace("chat/completions", "nothing/known")),
            "bypass (unknown-endpoint); the body is not read",
            id="unknown-endpoint",
        ),
        pytest.param(
            request(head=HEAD.replace("chat/completions", "moderations")),
            "bypass (route-off); the body is not read",
            id="route-off",
        ),
    ],
)  # fmt: skip
def test_bypass(rules, raw, expected):
    """A call that is passed through, and why; there is no key then."""
    said = parts(rules, raw)

    assert expected == said["decision"]
    assert "key" not in said


def listed(said, name):
    """The reasons that the lines of *name* give a sentence for, in their order; each is the table's."""
    first, _, rest = said["text"].partition(f"\n{name + ':':<12} ")[2].partition("\n")
    lines = [first, *takewhile(lambda line: line.startswith(" " * 13), rest.split("\n"))]
    return [tuple(line.strip().split(": ", 1)) for line in lines if line]


RESPONSE = '{"model": "gpt-4o", "input": "Hello", "temperature": 0%s}'
RESPONSES = HEAD.replace("chat/completions", "responses")


@pytest.mark.parametrize(
    ("raw", "reasons"),
    [
        pytest.param(request(RESPONSE % "", RESPONSES), ["store"], id="store"),
        pytest.param(
            request(RESPONSE % ', "previous_response_id": "r", "tools": [{"type": "web_search"}]', RESPONSES),
            ["previous-response-id", "server-tools", "store"],
            id="several-in-the-body",
        ),
        pytest.param(
            request(CHAT.replace("0", "1"), HEAD + "Cache-Control: no-store\nRange: bytes=0-1\n"),
            ["no-store", "range", "not-deterministic"],
            id="head-and-body",
        ),
        pytest.param(
            request(CHAT.replace("0", "1"), HEAD + "Content-Encoding: gzip\n"), ["content-encoded"], id="a-body-unread"
        ),
        pytest.param(
            request(CHAT, HEAD.replace("Authorization: Bearer sk-secret", "Content-Encoding: gzip")),
            ["content-encoded", "no-credential"],
            id="a-body-unread-of-nobody",
        ),
        pytest.param(
            request('{"a": -0, "a": 1}', HEAD.replace("Authorization: Bearer sk-secret\n", "")),
            ["duplicate-key", "no-credential", "negative-zero"],
            id="all-faults-of-the-json",
        ),
        pytest.param(
            request(head=HEAD.replace("chat/completions", "files") + "Range: bytes=0-1\n"),
            ["stateful", "range"],
            id="an-operation-that-is-never-looked-up",
        ),
        pytest.param(
            request(head=HEAD.replace("127.0.0.1:7400", "evil.example") + "Origin: https://evil.example\n"),
            ["foreign-host", "foreign-origin"],
            id="led-here-by-a-web-page",
        ),
    ],
)
def test_all_reasons(rules, raw, reasons):
    """Not the first alone, which the caller is told: all, each with the table's sentence and its remedy."""
    said = parts(rules, raw)

    assert said["decision"].startswith(f"bypass ({reasons[0]})")
    assert [(reason, REASONS[reason].meaning) for reason in reasons] == listed(said, "why")
    assert [(reason, REASONS[reason].remedy) for reason in reasons] == listed(said, "for a hit")
    assert "hit" not in said


def test_the_remedy_of_a_response_that_is_stored(rules):
    """What the caller has in hand is named; then it is looked up."""
    raw = request(RESPONSE % "", RESPONSES)

    assert ("store", "Send `store: false`.") in listed(parts(rules, raw), "for a hit")
    assert "look-up" == parts(rules, request(RESPONSE % ', "store": false', RESPONSES))["decision"]


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("", "a call with this key, within 3600 s of a whole answer to one"),
        ("x-sidecar-ttl: 60s\n", "a call with this key, within 60 s of a whole answer to one"),
        ("Cache-Control: no-cache\n", "never, because the caller wants a new answer (`no-cache`); leave that out"),
        (
            "Cache-Control: max-age=0\n",
            "never, because the caller takes no stored answer (`max-age=0`); leave that out",
        ),
    ],
    ids=["as it is", "sooner", "no-cache", "max-age"],
)
def test_what_makes_it_a_hit(rules, field, expected):
    """Of a call that is looked up it is said, too, when it hits."""
    assert expected == parts(rules, request(head=HEAD + field))["hit"]


def test_what_makes_a_shared_answer_a_hit(routed):
    """Where callers share, each has to be known to the service."""
    said = parts(routed, request())

    assert said["hit"].endswith(", once the service has accepted the caller's credential")


def test_reasons_of_a_call_that_is_only_measured(routed):
    """The mode is the reason."""
    said = parts(routed, request(head=HEAD + "X-Team: docs\n"))

    assert [("observe", REASONS["observe"].meaning)] == listed(said, "why")
    assert "hit" not in said


def test_observe(routed):
    """A call that is only measured."""
    said = parts(routed, request(head=HEAD + "X-Team: docs\n"))

    assert "observe: never served, only measured" == said["decision"]


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        pytest.param(HEAD.replace("/openai/", "/nobody/"), "404 unknown-service: ", id="unknown-service"),
        pytest.param(HEAD.replace("Authorization: Bearer", "api-key:"), "421 misdirected: ", id="misdirected"),
    ],
)
def test_refused(rules, head, expected):
    """A call that gets an answer of our own."""

    assert parts(rules, request(head=head))["answer"].startswith(expected)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(request().replace(b"\n", b"\r\n"), id="lines-end-in-crlf"),
        pytest.param(b"\n\r\n" + request(), id="empty-lines-before-it"),
        pytest.param(request() + b"\n", id="line-feed-at-its-end"),
        pytest.param(request(head=HEAD + "Content-Length: 7\n"), id="wrong-length"),
        pytest.param(request(head=HEAD + "Transfer-Encoding: chunked\n"), id="said-to-be-chunked"),
        pytest.param(request(CHAT.replace(", ", ",\n  ")), id="spread-over-lines"),
        pytest.param(request(head=HEAD.replace("Host", "User-Agent: x\nHost")), id="other-headers"),
    ],
)
def test_ways_to_write_it_down(rules, raw):
    """However a request is written into a file, it is the same call."""

    assert parts(rules, request())["key"] == parts(rules, raw)["key"]


def test_other_meaning_other_key(rules):
    """Two calls that mean different things have different keys."""

    assert parts(rules, request())["key"] != parts(rules, request(CHAT.replace("Hello", "Bye")))["key"]


@pytest.mark.parametrize("end", [b"", b"\n"], ids=["as-sent", "line-feed-at-its-end"])
def test_multipart(rules, end):
    """The lines of a multipart body end in CRLF and stay so."""
    head = (
        HEAD.replace("chat/completions", "audio/transcriptions") + "Content-Type: multipart/form-data; boundary=cut\n"
    )
    body = (
        '--cut\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
        '--cut\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nsound\r\n--cut--\r\n'
    )
    said = parts(rules, request(body, head) + end)

    assert "look-up" == said["decision"]
    assert "whisper-1" == said["model"]


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"What is in the box?\n", id="prose"),
        pytest.param(b"POST /openai/v1/chat/completions\n\n{}", id="no-version"),
        pytest.param(b"\x16\x03\x01\x00\xa5", id="tls"),
    ],
)
def test_not_a_request(rules, raw):
    """Something else gets told what is expected."""
    text, good = explain(rules, raw)

    assert good is False
    assert "POST /openai/v1/chat/completions HTTP/1.1" in text


def test_the_fleets_keys(rules):
    """With Redis the key and the partition are those of every process of the namespace: what a purge can name."""
    fleet = replace(rules, redis=RedisRule("redis://cache", namespace="team-a"))
    other = replace(rules, redis=RedisRule("redis://cache", namespace="team-b"))
    said = [parts(one, request()) for one in (fleet, fleet, other)]

    assert said[0] == said[1]
    assert said[0]["key"] != said[2]["key"]
    assert re.fullmatch(r"[0-9a-f]{32} \(version \d+\)", said[0]["key"])
    assert re.fullmatch(r"[0-9a-f]{32}", said[0]["partition"])


def test_stale_windows(rules):
    """How long an answer serves past its time is said where the route allows it."""
    cache = CacheRule(stale_while_revalidate=60.0, stale_if_error=600.0)
    said = parts(replace(rules, routes=(Route("chat", cache=cache),)), request())

    assert "60 s while revalidated, 600 s if that fails" == said["stale"]


FLEET = """
services:
  openai:
    regions:
      - {name: far, url: "https://far.example", priority: 3, credential: {header: x, file: /f}}
      - {name: us, url: "https://us.example", weight: 3, residency: usa, deployments: {gpt-4o: us-4o}}
      - {name: eu, url: "https://eu.example", priority: 2, residency: europe}
      - {name: weu, url: "https://weu.azure.com", weight: 0, residency: europe, credential: {managed_identity: {}}}
      - {name: neu, url: "https://neu.azure.com", residency: europe, credential: {workload_identity: }}
routes:
  - name: home
    match: {service: openai, header: {x-team: docs}}
    allow: [europe]
    limits: {concurrency: 32, tokens_per_minute: 200k, requests_per_minute: 600, queue: 5, adaptive: true}
    retry: {on_timeout: true, hedge: on}
    fallback: [stale, {model: gpt-4o-mini}, {answer_file: busy.json}]
"""


@pytest.fixture
def spread(tmp_path):
    """Settings with regions of every kind, and a route that allows some of them."""
    path = tmp_path / "c.yaml"
    path.write_text(FLEET)
    return load(str(path), environ={}, overrides={}, strict=True)


def test_regions_of_every_kind(spread):
    """In the order in which they are asked: whose credential goes there, and what the model is called there."""
    text = parts(spread, request())["text"]

    assert text.endswith("""
candidates:  us https://us.example (priority 1, weight 3, residency usa, the caller's own credential, deployment us-4o)
             neu https://neu.azure.com (priority 1, weight 1, residency europe, workload identity)
             weu https://weu.azure.com (priority 1, weight 0, residency europe, managed identity)
             eu https://eu.example (priority 2, weight 1, residency europe, the caller's own credential)
             far https://far.example (priority 3, weight 1, a credential from a file)""")


def test_regions_that_a_route_leaves_out(spread):
    """With the reason; and what else holds for its calls."""
    text = parts(spread, request(head=HEAD + "X-Team: docs\n"))["text"]

    assert text.endswith("""
candidates:  neu https://neu.azure.com (priority 1, weight 1, residency europe, workload identity)
             weu https://weu.azure.com (priority 1, weight 0, residency europe, managed identity)
             eu https://eu.example (priority 2, weight 1, residency europe, the caller's own credential)
left out:    us: residency usa, and the route allows europe
             far: residency (none), and the route allows europe
limits:      32 at once, adaptive concurrency, 200000 tokens a minute, 600 requests a minute, 5 may wait
retry:       after a timeout, hedged
fallback:    stale, model gpt-4o-mini, answer file busy.json""")


def test_regions_of_a_call_whose_body_is_not_read(spread):
    """They are those of its route, too; its model is not known."""
    text = parts(spread, request(head=HEAD.replace("chat/completions", "nothing/known")))["text"]

    assert "us https://us.example (priority 1, weight 3, residency usa, the caller's own credential)\n" in text


def test_a_region_of_another_domain(rules):
    """A caller's credential stays in its domain; where nothing else is left there is no candidate."""
    regions = (Region("a", "https://a", credential_domain="x"), Region("b", "https://b", 2, "y", residency="eu"))
    service = replace(rules.services[0], regions=regions)
    one = replace(rules, services=(service,))
    none = replace(one, routes=(Route("r", allow=frozenset({"eu"})),))

    assert (
        "left out:    b: credential domain y, to which the caller's own credential does not go"
        in parts(one, request())["text"]
    )
    assert "(none)" == parts(none, request())["candidates"]


def test_a_caller_who_wants_no_fallback(spread):
    """Its word counts."""
    said = parts(spread, request(head=HEAD + "X-Team: docs\nX-Sidecar-Fallback: None\n"))

    assert "none, as the caller says" == said["fallback"]


# ---- as the line decides it ----

PRIVATE = """
services:
  openai:
    regions:
      - {name: us, url: "https://us.example", residency: us, deployments: {gpt-4o: us-4o}}
      - {name: eu, url: "https://eu.example", priority: 2, residency: eu}
routes:
  - {name: private, match: {service: openai, model: "gpt-4o-eu*"}, allow: [eu]}
"""

PRIVATE_CHAT = CHAT.replace("gpt-4o", "gpt-4o-eu-1")


@pytest.fixture
def load_text(tmp_path):
    """Settings from their text, as `run` reads them."""

    def load_text(text):
        path = tmp_path / "c.yaml"
        path.write_text(text)
        return load(str(path), environ={}, overrides={}, strict=False)

    return load_text


@pytest.mark.parametrize(
    ("head", "body", "decision"),
    [
        pytest.param(HEAD, PRIVATE_CHAT, "look-up", id="looked-up"),
        pytest.param(HEAD + "Cache-Control: no-store\n", PRIVATE_CHAT, "bypass (no-store)", id="no-store"),
        pytest.param(HEAD + "Content-Encoding: gzip\n", PRIVATE_CHAT, "bypass (content-encoded)", id="coded"),
        pytest.param(HEAD, '{"model"', "bypass (invalid-json)", id="unreadable"),
    ],
)
def test_a_route_by_model(head, body, decision, load_text):
    """
    Where a route goes by models the body is read, whatever the head says; a model that is not known goes nowhere that
    its route might forbid.
    """
    said = parts(load_text(PRIVATE), request(body, head))

    assert decision == said["decision"]
    assert said["candidates"].startswith("eu https://eu.example ")
    assert "us: residency us, and the route allows eu" in said["text"]
    assert ("gpt-4o-eu-1" == said["model"]) == said["route"].startswith("private ")


@pytest.mark.parametrize("mode", ["cache-off", "passthrough"])
def test_deployments_in_another_mode(mode, load_text):
    """What is not looked up is renamed all the same."""
    said = parts(load_text(f"mode: {mode}{PRIVATE}"), request())

    assert f"bypass ({mode})" == said["decision"]
    assert "deployment us-4o" in said["candidates"]


def test_no_region_in_common(load_text):
    """A call whose model is not known, and whose routes allow nothing in common, is refused; so is its explanation."""
    rules = load_text(PRIVATE + '  - {name: home, match: {service: openai, model: "gpt-4o-us*"}, allow: [us]}\n')
    said = parts(rules, request('{"model"'))

    assert "(none)" == said["candidates"]
    assert said["answer"].startswith("403 no-region-allowed: The model that this call is for cannot be told")


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(
            request(
                '{"model": "gpt-4o", "input": "x", "previous_response_id": "resp_1"}',
                HEAD.replace("chat/completions", "responses"),
            ),
            id="by-its-body",
        ),
        pytest.param(
            request("", HEAD.replace("POST", "GET").replace("chat/completions", "files/file-1")), id="by-its-path"
        ),
    ],
)
def test_what_one_region_has_stored(raw, routed):
    """A call for that goes to the first region, and to no other."""
    text = parts(routed, raw)["text"]

    assert (
        """
candidates:  us https://us.example (priority 1, weight 1, the caller's own credential)
left out:    eu: the call names what one region has stored, so it goes to the first one only"""
        in text
    )


def test_a_token_of_microsoft(load_text):
    """It goes to Microsoft only, so a region of another vendor is left out."""
    token = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL3N0cy53aW5kb3dzLm5ldC90Iiwic3ViIjoieCJ9.e"
    rules = load_text(
        "services: {openai: {regions: ["
        "{name: gate, url: 'https://a.azure-api.net', credential_domain: x},"
        "{name: us, url: 'https://us.example', credential_domain: x, priority: 2}]}}"
    )
    said = parts(rules, request(head=HEAD.replace("sk-secret", token)))

    assert said["candidates"].startswith("gate ")
    assert "us: Microsoft issued the caller's token, which goes to no other vendor" in said["text"]


def test_a_name_that_cannot_be_put_in(load_text):
    """A region that calls the model otherwise gets no form: only paths and JSON bodies are changed."""
    head = (
        HEAD.replace("chat/completions", "audio/transcriptions") + "Content-Type: multipart/form-data; boundary=cut\n"
    )
    body = '--cut\r\nContent-Disposition: form-data; name="model"\r\n\r\ngpt-4o\r\n--cut--\r\n'
    region = '{name: us, url: "https://us.example", deployments: {gpt-4o: us-4o}}'
    said = parts(load_text(PRIVATE), request(body, head))
    alone = parts(load_text(f"services: {{openai: {{regions: [{region}]}}}}"), request(body, head))

    assert said["candidates"].startswith("eu ")
    assert "us: the model is us-4o there, which cannot be put into this call" in said["text"]
    assert "(none)" == alone["candidates"]
    assert alone["answer"].startswith("400 cannot-rename: ")


OWN_PORT = """
services:
  documents: {dialect: azure-openai, port: 7401, regions: [{name: weu, url: "https://weu.example"}]}
"""


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        pytest.param("127.0.0.1:7401", "documents (dialect azure-openai)", id="its-own"),
        pytest.param("[::1]:7401", "documents (dialect azure-openai)", id="its-own-of-another-address"),
        pytest.param("127.0.0.1:7400", None, id="the-shared-one"),
        pytest.param("127.0.0.1", None, id="none"),
    ],
)
def test_a_port_of_its_own(host, expected, load_text):
    """A request that was sent to a service's own port is for that service; its Host says so."""
    head = HEAD.replace("/openai/v1/", "/openai/deployments/d/").replace("127.0.0.1:7400", host)

    assert expected == parts(load_text(OWN_PORT), request(head=head)).get("service")


def test_where_ports_of_their_own_are(load_text):
    """Who asks at the shared port for what has one of its own is told that."""
    said = parts(load_text(OWN_PORT), request(head=HEAD.replace("/openai/", "/nobody/")))

    assert "documents (port 7401)" in said["answer"]


WORKLOAD = """
cache: {redis: {url: "redis://cache", namespace: team-a}, secret_file: /secret}
services:
  openai: {regions: [{name: us, url: "https://us.example", credential: {header: authorization, file: /f}}]}
"""

NAMED = {"SIDECAR_POD_NAMESPACE": "team", "SIDECAR_SERVICE_ACCOUNT": "app"}


def test_the_pods_own(load_text):
    """Where the pod is who asks, its partition is that of the environment: the one under which it stores."""
    rules = load_text(WORKLOAD)
    text, _ = explain(rules, request(), NAMED)
    other, _ = explain(rules, request(), {**NAMED, "SIDECAR_SERVICE_ACCOUNT": "another"})
    plans = RequestPlans(rules, fleet_secret("team-a"), Pod("team", "app", b"a process"))
    plan = plans.find(read_request(request())[0])
    partition = plan.identities.caller(plan, plan.site.routes[0]).principal.partition

    assert f"partition:   {partition.hex()}\n" in text
    assert text != other
    assert "purge by `--request`, not by it" not in text


def test_a_pod_without_a_name(load_text):
    """Then key and partition are of one process alone, and nobody is led to purge by them."""
    text, _ = explain(load_text(WORKLOAD), request(), {})

    assert "partition:   of each process alone" in text
    assert "SIDECAR_POD_NAMESPACE and SIDECAR_SERVICE_ACCOUNT" in text
    assert re.search(r"^key: .*; purge by `--request`, not by it", text, re.MULTILINE)


def test_a_fixed_secret(rules):
    """Without Redis the secret is each process's own, so its keys are, too."""

    assert "purge by `--request`, not by it" in parts(rules, request())["key"]


def test_warnings(load_text):
    """What the configuration warns of comes first, also where the request is none: it may be all that is wrong."""
    rules = load_text("routes:\n  - {name: typo, match: {service: openai}, cahce: {mode: always}}\n")
    found, _ = explain(rules, request())
    none, _ = explain(rules, b"")

    assert 1 == len(rules.warnings)
    assert found.startswith(f"warning:     {rules.warnings[0]}\n")
    assert none.startswith(f"warning:     {rules.warnings[0]}\n")
    assert "cahce" in found


DOCUMENTS = """
version: 1
services:
  documents: {dialect: azure-documents, regions: [{name: we, url: "https://x.cognitiveservices.azure.com"}]}
routes:
  - {name: all, match: {service: documents}, cache: {CACHE}}
"""
ANALYZE = (
    "POST /documents//documentintelligence/documentModels/{model}:analyze?api-version=2024-11-30{query} HTTP/1.1\n"
)


@pytest.fixture
def document(tmp_path):
    """What is said of the analysis of a document."""

    def document(body, *, model="prebuilt-read", query="", cache="", media="application/json"):
        path = tmp_path / "c.yaml"
        path.write_text(DOCUMENTS.replace("CACHE", cache))
        rules = load(str(path), environ={}, overrides={}, strict=True)
        head = ANALYZE.format(model=model, query=query)
        head += f"Host: 127.0.0.1:7400\nOcp-Apim-Subscription-Key: sk-secret\nContent-Type: {media}\n"
        return parts(rules, request(body, head))

    return document


def test_a_document(document):
    """It is looked up, and in each form it has the same key."""
    one = document('{"base64Source": "JVBERg=="}', query="&features=b,a")
    other = document("%PDF", query="&features=a&features=b&_overload=x", media="application/pdf")

    assert ("document-analysis", "prebuilt-read", "look-up") == (one["endpoint"], one["model"], one["decision"])
    assert one["key"] == other["key"]
    assert "document, " in one["canonical"]
    assert re.search(r"count: +\(none\)", one["text"])
    assert "content-type" in one["text"].partition("  ignored:")[2].partition("\n")[0]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"model": "own"}, ["custom-model"]),
        ({"model": "own", "cache": "custom_models: true"}, []),
        ({"body": '{"urlSource": "https://a.example/d?code=s3cret"}'}, ["url-source"]),
        ({"body": '{"urlSource": "https://a.example/d?code=s3cret"}', "cache": "urls: unsigned"}, []),
        ({"body": '{"urlSource": "https://a.example"}', "model": "own", "cache": "urls: off"},
         ["custom-model", "url-source"]),
        ({"query": "&output=pdf"}, ["extra-output"]),
        ({"body": '{"base64Source": "a b"}'}, ["invalid-base64"]),
        ({"body": '{"base64Source": "abcd", "urlSource": "https://a.example"}'}, ["ambiguous-document"]),
        ({"body": "{}"}, ["no-document"]),
    ],
)  # fmt: skip
def test_why_a_document_is_not_looked_up(document, how, expected):
    """Each reason stands there with what would make it a hit, and no URL with what it may hold."""
    said = document(**{"body": '{"base64Source": "abcd"}', **how})

    assert (f"bypass ({expected[0]})" if expected else "look-up") in said["decision"]
    assert "s3cret" not in said["text"]
    for reason in expected:
        assert f"{reason}: {REASONS[reason].meaning}" in said["text"]
        assert f"{reason}: {REASONS[reason].remedy}" in said["text"]
