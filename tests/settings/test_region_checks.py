"""What is wrong between regions, and between routes and regions."""

from __future__ import annotations

import pytest

from sidecar.errors import ConfigError
from sidecar.settings import load


def check(tmp_path, text):
    """The problems that the file *text* has."""
    path = tmp_path / "c.yaml"
    path.write_text(text)
    try:
        load(str(path), environ={}, overrides={}, strict=True)
    except ConfigError as error:
        return [line.removeprefix(f"{tmp_path}/c.yaml:") for line in error.problems]
    return []


def openai(*regions, more=""):
    """A service of OpenAI's dialect with *regions*, one a line from line 4 on, in alphabetical order."""
    lines = [f"      - {{name: {'abc'[at]}, url: 'https://{'abc'[at]}', {said}}}" for at, said in enumerate(regions)]
    return "\n".join(["services:", "  openai:", f"    regions: {'' if lines else '[]'}", *lines, more])


def azure(*regions):
    """As ``openai``, of a dialect whose keys belong to one resource."""
    return openai(*regions, more="    dialect: azure-openai")


FILE = "credential: {header: x, file: /f}"
AT = "services.openai.regions"
STRANGER = (
    "a Microsoft-issued token never goes to another vendor's host; correct the url, or where it is a gateway taking "
    "such tokens, say credential_domain: microsoft"
)


def never_used(path, first="a"):
    return (
        f"{path}: is never used, because callers' credentials go to the domain of {first} only; give it a credential, "
        "or both the same credential_domain"
    )


@pytest.mark.parametrize(
    ("url", "said", "expected"),
    [
        ("https://{resource}.a", FILE, [(f"4: {AT}[0].credential: would go to whatever {{resource}} a caller names; "
                                        "give each resource a url of its own")]),
        ("https://{resource}.openai.azure.com", "weight: 1", []),
        ("http://a.openai.azure.com", "credential: {managed_identity: {}}",
         [f"4: {AT}[0].url: a token would go there in clear; use https"]),
        ("http://127.0.0.1:1", "credential: {managed_identity: {}}", []),
        ("http://localhost", "credential: {workload_identity: {}}", []),
        ("https://a.openai.azure.com", "credential: {managed_identity: {}}", []),
        ("http://a", FILE, []),
    ],
    ids=str,
)  # fmt: skip
def test_credentials_of_ours(tmp_path, url, said, expected):
    """A credential of ours goes to hosts of our choice only, and a token never in clear."""
    text = openai(said, more="    dialect: azure-openai").replace("https://a", url)

    assert expected == check(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(openai("weight: 0", "weight: 1"), [], id="some-weight"),
        pytest.param(
            openai("weight: 0", "weight: 1, priority: 2"),
            [f"4: {AT}[0].weight: leaves priority 1 without any weight; give one of its regions at least 1"],
            id="no-weight-alone",
        ),
        pytest.param(
            openai("priority: 1", "priority: 2, weight: 0", "priority: 2, weight: 0"),
            [f"5: {AT}[1].weight: leaves priority 2 without any weight; give one of its regions at least 1"],
            id="no-weight-together",
        ),
        pytest.param(
            openai("weight: 1001"), [f'4: {AT}[0].weight: "1001" is not a number; use 0 to 1000'], id="weight"
        ),
        pytest.param(openai("priority: 1", "priority: 2"), [], id="keys-that-work-everywhere"),
        pytest.param(azure("priority: 1"), [], id="one-resource"),
        pytest.param(azure("priority: 1", "priority: 2"), [never_used(f"5: {AT}[1]")], id="other-resource"),
        pytest.param(
            azure("priority: 2", "priority: 1", "priority: 1"),
            [never_used(f"4: {AT}[0]", "b"), never_used(f"6: {AT}[2]", "b")],
            id="first-by-priority",
        ),
        pytest.param(azure(FILE, "priority: 2"), [], id="first-that-needs-the-callers"),
        pytest.param(azure("priority: 1", FILE), [], id="other-has-its-own"),
        pytest.param(azure("credential_domain: d", "credential_domain: d"), [], id="one-domain"),
        pytest.param(
            openai("credential_domain: d", "priority: 2"), [never_used(f"5: {AT}[1]")], id="domain-of-the-first-alone"
        ),
        pytest.param(
            azure("credential: hunter2", "priority: 2"),
            [(f"4: {AT}[0].credential: is not a table of keys; its keys are file, header, managed_identity, prefix, "
             "workload_identity")],
            id="nothing-follows-from-a-credential-said-wrong",
        ),
        pytest.param(
            azure("credential_domain: 'a b'", "credential_domain: d"),
            [(f'4: {AT}[0].credential_domain: "a b" is not a name; use up to 63 letters, digits, dots, hyphens and '
             "underscores")],
            id="nothing-follows-from-a-domain-said-wrong",
        ),
        pytest.param("services:\n  x:\n    regions: [{name: a, url: 'https://a'}, {name: b, url: 'https://b'}]",
                     ["2: services.x: has no dialect; give one"], id="nothing-follows-without-a-dialect"),
    ],
)  # fmt: skip
def test_regions_that_no_call_reaches(tmp_path, text, expected):
    """Each is named, with what would give it calls."""
    assert expected == check(tmp_path, text)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (f"'https://a', {FILE}", []),
        ("'https://a.openai.azure.com', credential: {managed_identity: {}}", []),
        ("'https://a.cognitiveservices.azure.com', credential: {workload_identity: {}}", []),
        ("'http://127.0.0.1:8080', credential: {managed_identity: {}}", []),
        ("'http://localhost:8080', credential: {managed_identity: {}}", []),
        ("'https://a', credential_domain: microsoft, credential: {managed_identity: {}}", []),
        ("'https://api.openai.com', credential: {managed_identity: {}}", [f".managed_identity: {STRANGER}"]),
        ("'https://azure.com.example', credential: {workload_identity: }", [f".workload_identity: {STRANGER}"]),
        ("'https://a.azure.com', credential: {}",
         [": says none of header, managed_identity, workload_identity; give one"]),
        ("'https://a.azure.com', credential: {managed_identity: {}, workload_identity: {}}",
         [": says managed_identity, and workload_identity; keep one"]),
        ("'https://a.azure.com', credential: {managed_identity: {}, header: x, file: /f}",
         [": says header and file, and managed_identity; keep one"]),
        ("'https://a.azure.com', credential: {prefix: 'Bearer '}", [": has no header; give one",
         ": has no file; give one"]),
        ("'https://a.azure.com', credential: {managed_identity: {client_secret: hunter2}}",
         [".managed_identity.client_secret: secrets don't belong here; remove it: an identity of Azure needs none"]),
        ("'https://a.azure.com', credential: {workload_identity: {token: hunter2}}",
         [(".workload_identity.token: secrets don't belong here; write it into a mounted file and name that in "
          "token_file")]),
        ("'https://a.azure.com', credential: {workload_identity: {client_id: 'hunter2~'}}",
         [(".workload_identity.client_id: is not an id; use one such as 00000000-0000-0000-0000-000000000000, and no "
          "secret")]),
        ("'https://a.azure.com', credential: {client_secret: hunter2, managed_identity: {}}",
         [(".client_secret: secrets don't belong here; remove it, and use credential.workload_identity, which needs "
          "none")]),
        ("'https://a.azure.com', credential: {managed_identity: yes}",
         [".managed_identity: is not a table of keys; its keys are client_id, scope"]),
    ],
    ids=[
        "file", "azure", "documents", "loopback", "localhost", "gateway", "other-vendor", "look-alike", "none", "two",
        "two-kinds", "half", "client-secret", "token", "secret-as-id", "secret-beside", "no-table",
    ],
)  # fmt: skip
def test_credentials(tmp_path, said, expected):
    """One form each, no secret, and no token for strangers."""
    text = f"services: {{openai: {{regions: [{{name: a, url: {said}}}]}}}}"

    assert [f"1: {AT}[0].credential{what}" for what in expected] == check(tmp_path, text)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("{consecutive_unanswered: 0}", ['consecutive_unanswered: "0" is not a number; use 1 to 100']),
        ("{consecutive_errors: 101}", ['consecutive_errors: "101" is not a number; use 1 to 100']),
        ("{failure_rate: 0%}", ["failure_rate: 0% is out of bounds; use more than 0% and at most 100%"]),
        ("{slow_rate: 101%}", ["slow_rate: 101% is out of bounds; use more than 0% and at most 100%"]),
        ("{failure_rate: 50}", ['failure_rate: "50" is not a percentage; write 50%']),
        ("{open: 0s}", ["open: 0s is out of bounds; use 1ms to 1h"]),
        ("{window: 5, minimum_calls: 6}", ["minimum_calls: is more than window; use at most 5, or raise window"]),
        ("{minimum_calls: 21}", ["minimum_calls: is more than window; use at most 20, or raise window"]),
        ("{window: x, minimum_calls: 21}", ['window: "x" is not a number; use 1 to 1000']),
        ("{window: 5}", []),
        ("{shared: false}", []),
        ("{shared: true}",
         ["shared: needs cache.redis, through which the fleet shares it; set that, or remove the key"]),
    ],
)  # fmt: skip
def test_breakers(tmp_path, said, expected):
    """Zero thresholds and those above all calls are refused, and a breaker that nothing could share."""
    text = f"services: {{openai: {{breaker: {said}}}}}"

    assert [f"1: services.openai.breaker.{what}" for what in expected] == check(tmp_path, text)


def test_a_shared_breaker_beside_a_redis_said_wrong(tmp_path):
    """One problem, not two."""
    text = "services: {openai: {breaker: {shared: true}}}\ncache: {secret_file: /s, redis: {url: 'http://a'}}"

    assert ["cache.redis.url"] == [line.split(": ")[1] for line in check(tmp_path, text)]


RESIDENT = """
services:
  openai: {regions: [{name: us, url: 'https://us', residency: usa}, {name: eu, url: 'https://eu', priority: 2}]}
  search: {dialect: generic, regions: [{name: only, url: 'https://only'}]}
  docs: {dialect: azure-openai, regions: [{name: weu, url: 'https://weu', residency: europe}]}
routes:
"""


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        ("allow: [usa], match: {service: openai}", []),
        ("allow: [eu], match: {service: openai}", []),
        ("allow: [usa, europe]", []),
        ("allow: [only], match: {service: search}", []),
        ("allow: [erope], match: {service: docs}", ['no region has the residency "erope"; did you mean europe?']),
        ("allow: [us], match: {service: openai}", ['no region has the residency "us"; did you mean usa?']),
        ("allow: [zz], match: {service: openai}",
         ['no region has the residency "zz"; use one of eu, europe, only, usa']),
        ("allow: [zz, eu], match: {service: openai}",
         ['no region has the residency "zz"; use one of eu, europe, only, usa']),
        ("allow: [europe], match: {service: openai}",
         ["leaves route r no region of the service openai; add one of eu, usa"]),
        ("allow: [europe], match: {service: anthropic}",
         ["leaves route r no region of the service anthropic; say residency in its regions"]),
        ("allow: [usa]", ["leaves route r no region of the service docs; add one of europe"]),
        ("allow: [only]", ["leaves route r no region of the service docs; add one of europe",
                           "leaves route r no region of the service openai; add one of eu, usa"]),
        ("allow: [eu], match: {service: nobody}", []),
        ("allow: []", ["is empty; give at least 1"]),
        ("allow: ", ["is empty; give at least 1"]),
        ("allow: eu", ["is not a list; write its items as [a, b] or on lines that start with a hyphen"]),
    ],
    ids=[
        "tag", "name-where-no-tag-is-said", "every-tagged-service", "name-of-one", "typo", "name-beside-a-tag",
        "unknown", "one-unknown", "other-service", "built-in", "one-service-left-out", "two-left-out",
        "no-such-service", "empty", "nothing", "word",
    ],
)  # fmt: skip
def test_residency(tmp_path, route, expected):
    """A route that could never send, or names what is not there."""
    found = [line for line in check(tmp_path, f"{RESIDENT}  - {{name: r, {route}}}") if ".match." not in line]

    assert [f"7: routes[0].allow: {what}" for what in expected] == found


def test_residency_without_any_regions(tmp_path):
    """Nothing to suggest then."""
    assert ['1: routes[0].allow: no region has the residency "eu"; say it of one'] == check(
        tmp_path, "routes: [{name: r, allow: [eu]}]"
    )


def test_residency_beside_a_region_without_a_name(tmp_path):
    """It has no tag either."""
    text = "services: {openai: {regions: [{url: 'https://a'}, {name: b, url: 'https://b', residency: c}]}}\n"

    assert ["1: services.openai.regions[0]: has no name; give one"] == check(
        tmp_path, f"{text}routes: [{{name: r, allow: [c], match: {{service: openai}}}}]"
    )


def test_nothing_follows_from_a_residency_said_wrong(tmp_path):
    """One problem, not two."""
    text = RESIDENT.replace("residency: usa", "residency: 'u s a'") + "  - {name: r, allow: [usa]}"

    assert ["services.openai.regions[0].residency"] == [line.split(": ")[1] for line in check(tmp_path, text)]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("limits: {concurrency: off, tokens_per_minute: 0, requests_per_minute: off, adaptive: true}", []),
        ("limits: {tokens_per_minute: 200K}", ['limits.tokens_per_minute: "200K" is not a count; write 200k']),
        ("limits: {replicas: 0}", ['limits.replicas: "0" is not a number; use 1 to 100000']),
        ("retry: {hedge: maybe}", ['retry.hedge: "maybe" is neither true nor false; use one of them']),
        ("fallback: []", []),
        ("fallback: [stale, {model: m}, {answer_file: /f}]", []),
        ("fallback: [stael]", ['fallback[0]: "stael" is not a fallback; did you mean stale?']),
        ("fallback: [{model: a, answer_file: /b}]", ["fallback[0]: says model, and answer_file; keep one"]),
        ("fallback: [{}]", ["fallback[0]: says none of model, answer_file; give one"]),
        ("fallback: [~]",
         ["fallback[0]: has no value; give one (`stale`) or remove the key"]),
        ("fallback: [[stale]]", ["fallback[0]: is not a table of keys; its keys are answer_file, model"]),
        ("fallback: [{model: 'a*'}]", ['fallback[0].model: "a*" is a pattern; name one model, as callers name it']),
        ("fallback: stale",
         ["fallback: is not a list; write its items as [a, b] or on lines that start with a hyphen"]),
    ],
)  # fmt: skip
def test_routes(tmp_path, said, expected):
    """What a route says of limits, retries and fallbacks."""
    assert [f"1: routes[0].{what}" for what in expected] == check(tmp_path, f"routes: [{{name: r, {said}}}]")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("{gpt-4o: gpt4o-us, gpt-4o-mini: gpt4o-us}", []),
        ("{'gpt-4o*': a}", ['.gpt-4o*: "gpt-4o*" is a pattern; name one model, as callers name it']),
        ("{gpt-4o: 'a b'}",
         ['.gpt-4o: "a b" is not the name of a deployment; write 1 to 256 visible ASCII characters']),
        ("{gpt-4o: }", [".gpt-4o: has no value; give one (deployment name) or remove the key"]),
        ("[gpt-4o]", [": is not a table of keys; give each a name of its own"]),
    ],
)  # fmt: skip
def test_deployments(tmp_path, said, expected):
    """Models and deployments are names."""
    found = check(tmp_path, openai(f"deployments: {said}"))

    assert [f"4: {AT}[0].deployments{what}" for what in expected] == found
