"""What Azure is asked for a token, and what its answers mean."""

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from sidecar.core.rules import AzureIdentity
from sidecar.identity.access_tokens import Denial, GrantedToken
from sidecar.identity.azure import Question, asker, describe, managed, read, workload

MANAGED = AzureIdentity("managed")
NOW = 1_700_000_000.0


def asked(question):
    """Address without query, and the query."""
    parts = urlsplit(question.url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}", parse_qs(parts.query)


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "azure-identity-token"
    path.write_text("assertion-1\n")
    return path


@pytest.fixture
def environ(token_file):
    """As the workload identity webhook sets it."""
    return {
        "AZURE_CLIENT_ID": "client",
        "AZURE_TENANT_ID": "tenant",
        "AZURE_AUTHORITY_HOST": "https://login.example/",
        "AZURE_FEDERATED_TOKEN_FILE": str(token_file),
    }


def test_machine():
    """The machine's endpoint is asked for a resource, which is a scope without its end, past every proxy."""
    question = managed(MANAGED, {})

    assert (
        "http://169.254.169.254/metadata/identity/oauth2/token",
        {"api-version": ["2018-02-01"], "resource": ["https://cognitiveservices.azure.com"]},
    ) == asked(question)
    assert ("GET", {"Metadata": "true"}, b"", False) == (
        question.method,
        question.headers,
        question.body,
        question.proxy,
    )


@pytest.mark.parametrize(
    ("identity", "environ", "client"),
    [
        (AzureIdentity("managed", client_id="rule"), {}, ["rule"]),
        (MANAGED, {"AZURE_CLIENT_ID": "environment"}, ["environment"]),
        (AzureIdentity("managed", client_id="rule"), {"AZURE_CLIENT_ID": "environment"}, ["rule"]),
        (AzureIdentity("managed", client_id="a&b=c"), {}, ["a&b=c"]),
        (MANAGED, {}, None),
    ],
    ids=["rule", "environment", "both", "strange", "the system's"],
)
def test_machine_client(identity, environ, client):
    """Which identity of the machine: the rule's, the environment's, the system's."""
    _, query = asked(managed(identity, environ))

    assert client == query.get("client_id")


def test_machine_elsewhere():
    """The endpoint may be another one, and the resource too."""
    environ = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://10.0.0.1:2579/"}
    address, query = asked(managed(AzureIdentity("managed", scope="api://mine"), environ))

    assert "http://10.0.0.1:2579/metadata/identity/oauth2/token" == address
    assert ["api://mine"] == query["resource"]


def test_app_service():
    """App Service and Container Apps name an endpoint and a secret of their own."""
    environ = {"IDENTITY_ENDPOINT": "http://127.0.0.1:41/msi/token", "IDENTITY_HEADER": "hush"}
    question = managed(MANAGED, environ)

    assert (
        "http://127.0.0.1:41/msi/token",
        {"api-version": ["2019-08-01"], "resource": ["https://cognitiveservices.azure.com"]},
    ) == asked(question)
    assert {"X-IDENTITY-HEADER": "hush"} == question.headers
    assert "hush" not in repr(question)


@pytest.mark.parametrize("endpoint", ["ftp://host", "http://", "http://host:x", "http://host?a=b", "http://u:p@host"])
def test_unusable_endpoint(endpoint):
    """What is no address is told, and not asked."""

    assert Denial("the identity endpoint that the environment names is no http address") == managed(
        MANAGED, {"AZURE_POD_IDENTITY_AUTHORITY_HOST": endpoint}
    )


def test_exchange(environ):
    """The service account's token is exchanged, through a proxy where there is one."""
    question = workload(AzureIdentity("workload"), environ)

    assert ("POST", "https://login.example/tenant/oauth2/v2.0/token", True) == (
        question.method,
        question.url,
        question.proxy,
    )
    assert {
        "client_id": ["client"],
        "scope": ["https://cognitiveservices.azure.com/.default"],
        "grant_type": ["client_credentials"],
        "client_assertion_type": ["urn:ietf:params:oauth:client-assertion-type:jwt-bearer"],
        "client_assertion": ["assertion-1"],
    } == parse_qs(question.body.decode(), strict_parsing=True)
    assert "assertion" not in repr(question)


def test_exchange_reads_the_file_each_time(environ, token_file):
    """The service account's token lives for an hour, and is read anew for each exchange."""
    bodies = []
    for text in ("assertion-1", "assertion-2"):
        token_file.write_text(text)
        bodies.append(parse_qs(workload(AzureIdentity("workload"), environ).body.decode())["client_assertion"])

    assert [["assertion-1"], ["assertion-2"]] == bodies


def test_exchange_rule_before_environment(environ, tmp_path):
    """What the rule says holds before the environment."""
    (tmp_path / "mine").write_text("my-assertion")
    identity = AzureIdentity("workload", client_id="mine", tenant_id="my-tenant", token_file=str(tmp_path / "mine"))
    question = workload(identity, environ)
    form = parse_qs(question.body.decode())

    assert "https://login.example/my-tenant/oauth2/v2.0/token" == question.url
    assert (["mine"], ["my-assertion"]) == (form["client_id"], form["client_assertion"])


@pytest.mark.parametrize(
    ("authority", "url"),
    [
        ("", "https://login.microsoftonline.com/tenant/oauth2/v2.0/token"),
        ("login.example", "https://login.example/tenant/oauth2/v2.0/token"),
        ("https://login.example", "https://login.example/tenant/oauth2/v2.0/token"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080/tenant/oauth2/v2.0/token"),
        ("http://login.example", None),
        ("https://user:password@login.example", None),
        ("https://login.example/#", "https://login.example/#/tenant/oauth2/v2.0/token"),
    ],
)
def test_authority(environ, authority, url):
    """An assertion goes out by TLS, or stays on this machine."""
    question = workload(AzureIdentity("workload"), {**environ, "AZURE_AUTHORITY_HOST": authority})

    assert (question.url if isinstance(question, Question) else None) == url


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"AZURE_CLIENT_ID": ""}, "AZURE_CLIENT_ID not set"),
        (
            {"AZURE_TENANT_ID": "", "AZURE_FEDERATED_TOKEN_FILE": ""},
            "AZURE_TENANT_ID, AZURE_FEDERATED_TOKEN_FILE not set",
        ),
        ({"AZURE_TENANT_ID": "../../x"}, "AZURE_TENANT_ID is no tenant"),
    ],
    ids=["client", "tenant and file", "strange tenant"],
)
def test_exchange_lacks(environ, changed, reason):
    """What lacks or cannot be is told, and won't pass by itself."""
    denial = workload(AzureIdentity("workload"), {**environ, **changed})

    assert reason == denial.reason.partition(";")[0]
    assert not denial.passing


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "No such file or directory"),
        (b"", "is no token"),
        (b"two words", "is no token"),
        (b"\xff\xfe", "is no token"),
        (b"a" * 20000, "is no token"),
    ],
    ids=["away", "empty", "words", "binary", "long"],
)
def test_unusable_assertion(environ, token_file, text, reason):
    """A file that is away or half written is soon there: it passes by itself."""
    token_file.unlink()
    if text is not None:
        token_file.write_bytes(text)

    assert Denial(f"{token_file}: {reason}", passing=True) == workload(AzureIdentity("workload"), environ)


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        ({"expires_in": "3599"}, 3599.0),
        ({"expires_in": 3599}, 3599.0),
        ({"expires_in": 3599.5, "expires_on": "1"}, 3599.5),
        ({"expires_on": str(int(NOW) + 60)}, 60.0),
        ({"expires_on": int(NOW) + 60}, 60.0),
        ({"expires_in": "", "expires_on": str(int(NOW) + 60)}, 60.0),
        ({"expires_in": "1000000000"}, 86400.0),
        ({"expires_in": "60", "token_type": None}, 60.0),
        ({"expires_in": "60", "token_type": "bearer", "resource": "r", "not_before": "0"}, 60.0),
    ],
    ids=str,
)
def test_grant(answer, seconds):
    """Numbers may be strings; a life's length is better than a date, for it needs no clock of ours."""
    body = json.dumps({"access_token": "eyJ.a-b_c", **answer}).encode()

    assert GrantedToken(b"eyJ.a-b_c", seconds) == read(200, {}, body, NOW)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "answered what is no token"),
        (b"\xff\xff", "answered what is no token"),
        (b"<html>", "answered what is no token"),
        (b"[]", "answered what is no token"),
        (b"{}", "answered what is no token"),
        (b'{"access_token": 5, "expires_in": 60}', "answered what is no token"),
        (b'{"access_token": "t", "expires_in": []}', "answered what is no token"),
        (b'{"access_token": "", "expires_in": 60}', "answered a token that cannot be sent"),
        (b'{"access_token": "t t", "expires_in": 60}', "answered a token that cannot be sent"),
        (b'{"access_token": "t\\r\\nx: y", "expires_in": 60}', "answered a token that cannot be sent"),
        (b'{"access_token": "t\\n", "expires_in": 60}', "answered a token that cannot be sent"),
        (b'{"access_token": "t\xc3\xa9", "expires_in": 60}', "answered a token that cannot be sent"),
        (b'{"access_token": "%b", "expires_in": 60}' % (b"t" * 20000), "answered a token that cannot be sent"),
        (b'{"access_token": "t"}', "answered a token without its life's length"),
        (b'{"access_token": "t", "expires_in": "soon"}', "answered a token without its life's length"),
        (b'{"access_token": "t", "expires_in": "-5"}', "answered a token without its life's length"),
        (b'{"access_token": "t", "expires_in": 0}', "answered a token that has expired"),
        (b'{"access_token": "t", "expires_in": -5}', "answered a token that has expired"),
        (b'{"access_token": "t", "expires_on": "1000"}', "answered a token that has expired"),
        (b'{"access_token": "t", "expires_in": 60, "token_type": "pop"}', "answered a token that is no bearer's"),
    ],
    ids=repr,
)
def test_garbage(body, reason):
    """What is no token, or cannot stand in a header, is none."""

    assert reason == read(200, {}, body, NOW).reason


@pytest.mark.parametrize(
    ("status", "passing"),
    [
        *[(status, True) for status in (404, 410, 429, 500, 503, 599)],
        *[(status, False) for status in (204, 302, 400, 401, 403)],
    ],
)
def test_status(status, passing):
    """Which failures pass by themselves."""

    assert Denial(f"answered {status}", passing) == read(status, {}, b"", NOW)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"error": "invalid_request", "error_description": "Identity not found"}, "answered 400 invalid_request"),
        (
            {"error": "invalid_client", "error_description": "AADSTS700016: Application 'x' was not found"},
            "answered 400 invalid_client AADSTS700016",
        ),
        ({"error": "eyJ.secret", "error_description": "AADSTSsecret secret"}, "answered 400"),
        ({"error": {"code": "x"}, "error_description": 5}, "answered 400"),
        (["invalid_client"], "answered 400"),
    ],
    ids=["machine", "authority", "quotes", "other form", "list"],
)
def test_code(body, reason):
    """An error's code is told, and not a word besides."""

    assert reason == read(400, {}, json.dumps(body).encode(), NOW).reason


@pytest.mark.parametrize(("text", "wait"), [("7", 7.0), ("soon", 0.0), ("-1", 0.0), ("", 0.0)])
def test_retry_after(text, wait):
    """An endpoint may say when it wants to be asked again."""

    assert wait == read(429, {"retry-after": text}, b"", NOW).wait


async def test_asker(environ):
    """One request; a failure is told with the host, and nothing of the request."""
    seen = []

    async def fetch(method, url, headers, body, *, seconds, proxy):
        seen.append((method, url, proxy))
        if len(seen) == 1:
            raise ConnectionError("Connection refused")
        return 500, {}, b""

    ask = asker(AzureIdentity("workload"), environ=environ, fetch=fetch, now=lambda: NOW)

    assert Denial("login.example: Connection refused", passing=True) == await ask()
    assert Denial("login.example answered 500", passing=True) == await ask()
    assert [("POST", "https://login.example/tenant/oauth2/v2.0/token", True)] * 2 == seen


async def test_asker_without_a_question():
    """Where nothing can be asked, nothing is."""
    ask = asker(AzureIdentity("workload"), environ={}, fetch=None, now=lambda: NOW)

    assert not (await ask()).passing


def test_describe(environ):
    """People know an identity by its client id."""

    assert "managed identity of the system" == describe(MANAGED, {})
    assert "workload identity client" == describe(AzureIdentity("workload"), environ)
