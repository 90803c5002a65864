import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json
from openai import AzureOpenAI, DefaultHttpxClient, OpenAI

from sidecar.core.model import Facts, Head, View
from sidecar.dialects.azure.openai import AZURE_OPENAI
from sidecar.dialects.openai import endpoints

httpx = pytest.importorskip("httpx2", reason="the SDK's own HTTP library")

DEPLOYED = "/openai/deployments/team-gpt_4.1"


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        (b"POST", "/openai/v1/chat/completions", endpoints.CHAT),
        (b"POST", "/openai/v1/completions", endpoints.COMPLETIONS),
        (b"POST", "/openai/v1/responses", endpoints.RESPONSES),
        (b"POST", "/openai/v1/embeddings", endpoints.EMBEDDINGS),
        (b"GET", "/openai/v1/models/gpt-4o", endpoints.MODEL),
        (b"GET", "/openai/v1/responses/resp_1", endpoints.STATEFUL),
        (b"POST", "/openai/responses", endpoints.RESPONSES),
        (b"GET", "/openai/models", endpoints.MODELS),
        (b"POST", "/openai/files", endpoints.STATEFUL),
        (b"GET", "/openai/batches/batch_1", endpoints.STATEFUL),
        (b"POST", "/openai/threads/thread_1/runs", endpoints.STATEFUL),
        (b"DELETE", "/openai/deployments/gpt", endpoints.STATEFUL),
        (b"POST", "/models/embeddings", endpoints.EMBEDDINGS),
    ],
)
def test_operations_without_a_deployment(method, path, expected):
    """Where the body names the deployment, the operations are OpenAI's own."""
    assert expected is AZURE_OPENAI.locate(method, path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/chat/completions", endpoints.CHAT),
        ("/completions", endpoints.COMPLETIONS),
        ("/embeddings", endpoints.EMBEDDINGS),
        ("/audio/transcriptions", endpoints.TRANSCRIPTIONS),
        ("/audio/translations", endpoints.TRANSLATIONS),
        ("/audio/speech", endpoints.SPEECH),
        ("/images/generations", endpoints.IMAGES),
        ("/images/edits", endpoints.IMAGES),
    ],
)
def test_operations_of_a_deployment(path, expected):
    """A deployment's operation is OpenAI's, with the deployment for a model."""
    found = AZURE_OPENAI.locate(b"POST", DEPLOYED + path)

    assert ("team-gpt_4.1", expected.name, expected.bypass) == (found.model, found.name, found.bypass)
    assert (expected.shape, expected.answers, expected.kind) == (found.shape, found.answers, found.kind)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (b"GET", DEPLOYED + "/chat/completions"),
        (b"POST", DEPLOYED + "/chat/completions/"),
        (b"POST", DEPLOYED + "/chat/completions/x.css"),
        (b"POST", DEPLOYED + "/chat/completions;x"),
        (b"POST", DEPLOYED + "/chat/completions%0a"),
        (b"POST", DEPLOYED + "/chat/completions\n"),
        (b"POST", DEPLOYED + "/extensions/chat/completions"),
        (b"POST", DEPLOYED + "/responses"),
        (b"POST", DEPLOYED + "/files"),
        (b"POST", "/openai/deployments/a%2fb/chat/completions"),
        (b"POST", "/openai/deployments/../chat/completions"),
        (b"POST", "/openai/deployments//chat/completions"),
        (b"POST", "/openai/deployments/\u0661/chat/completions"),
        (b"POST", "/openai/deployments/a/b/chat/completions"),
        (b"GET", "/openai/deployments"),
        (b"POST", "/openai/chat/completions"),
        (b"POST", "/openai/embeddings"),
        (b"POST", "/openai/v1"),
        (b"POST", "/openai/v2/chat/completions"),
        (b"POST", "/v1/chat/completions"),
        (b"POST", "/anthropic/v1/messages"),
        (b"POST", "/models/chat/completions/x"),
        (b"GET", "/models/info"),
        (b"POST", "/"),
    ],
)
def test_other_paths_pass_through(method, path):
    """What is not exactly an operation is unknown."""
    assert AZURE_OPENAI.locate(method, path) is None


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        pytest.param({"messages": []}, Facts("gpt", expects=1), id="no model in the body"),
        pytest.param(
            {"model": "gpt-4o", "temperature": 0}, Facts("gpt", deterministic=True, expects=1), id="another model there"
        ),
        pytest.param({"model": None}, Facts("gpt", expects=1), id="null there"),
        pytest.param({"model": "gpt-4o-search-preview"}, Facts("gpt", expects=1), id="its name means nothing"),
        pytest.param(
            {"model": "m", "stream": True},
            Facts("gpt", View(stream=True, usage=False), inject_usage=True, expects=1),
            id="stream",
        ),
        pytest.param({"data_sources": [{}]}, Facts("gpt", bypass="server-tools", expects=1), id="on your data"),
        pytest.param({"stream": "yes"}, Facts("gpt", bypass="unreadable", expects=1), id="unreadable"),
    ],
)
def test_the_deployment_is_the_model(members, expected):
    """The deployment in the path decides, whatever model the body names."""
    endpoint = AZURE_OPENAI.locate(b"POST", "/openai/deployments/gpt/chat/completions")

    assert expected == endpoint.read(members)


def test_the_bodys_model_still_counts():
    """What the body says of the model stays in the key, as every member does."""
    endpoint = AZURE_OPENAI.locate(b"POST", "/openai/deployments/gpt/chat/completions")

    assert "model" not in endpoint.shape.drop


def test_nothing_is_injected_where_unknown_members_are_refused():
    """The model inference API is never sent a member that its caller did not."""
    endpoint = AZURE_OPENAI.locate(b"POST", "/models/chat/completions")

    assert Facts("m", View(stream=True, usage=False), expects=1) == endpoint.read({"model": "m", "stream": True})


@given(members=st.dictionaries(st.text(), st.none() | st.lists(st.integers()) | st.text()))
def test_reading_never_raises(members):
    """Whatever JSON object comes, the deployment is its model."""
    endpoint = AZURE_OPENAI.locate(b"POST", "/openai/deployments/gpt/embeddings")

    assert endpoint.model == endpoint.read(members).model


def classic(answer):
    return AzureOpenAI(
        api_key="key",
        api_version="2024-10-21",
        azure_endpoint="http://127.0.0.1:7400",
        max_retries=0,
        http_client=DefaultHttpxClient(transport=httpx.MockTransport(answer)),
    )


def version_1(answer):
    return OpenAI(
        api_key="key",
        base_url="http://127.0.0.1:7400/openai/v1",
        max_retries=0,
        http_client=DefaultHttpxClient(transport=httpx.MockTransport(answer)),
    )


CALLS = {
    "chat": lambda c: c.chat.completions.create(model="gpt", messages=[]),
    "completions": lambda c: c.completions.create(model="gpt", prompt=""),
    "embeddings": lambda c: c.embeddings.create(model="gpt", input=""),
    "transcriptions": lambda c: c.audio.transcriptions.create(model="gpt", file=("a.wav", b"RIFF")),
    "responses": lambda c: c.responses.create(model="gpt", input=""),
    "models": lambda c: c.models.list(),
    "stateful": lambda c: c.files.list(),
}


@pytest.mark.parametrize("expected", CALLS)
@pytest.mark.parametrize("connect", [classic, version_1], ids=lambda connect: connect.__name__)
def test_what_the_sdk_sends_is_known(connect, expected):
    """The paths of the real clients are those of the tables, in both forms."""
    located = []

    def answer(request):
        located.append(AZURE_OPENAI.locate(request.method.encode(), request.url.path).name)
        return httpx.Response(400, json={"error": {"message": "enough"}})

    with connect(answer) as sdk, pytest.raises(openai.BadRequestError):
        CALLS[expected](sdk)

    assert [expected] == located


@pytest.mark.parametrize(
    ("status", "raised"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (503, openai.InternalServerError),
    ],
)
def test_errors_are_what_the_sdk_expects(status, raised):
    """The real client raises its own exception, with our code and sentence in it."""
    body = AZURE_OPENAI.error(status, "no-region", "all refuse")

    def answer(_request):
        return httpx.Response(status, content=body, headers={"content-type": "application/json"})

    with classic(answer) as sdk, pytest.raises(raised) as caught:
        sdk.models.list()

    told = {"code": "no-region", "message": "all refuse"}
    assert ({"error": told}, told, "no-region") == (json.decode(body), caught.value.body, caught.value.code)


def test_an_error_inside_a_stream_is_raised():
    """Once the head is out, the error event is what makes the real client raise."""
    events = AZURE_OPENAI.error_event("upstream-disconnected", "the service broke off")

    def answer(_request):
        return httpx.Response(200, content=events, headers={"content-type": "text/event-stream"})

    with classic(answer) as sdk, pytest.raises(openai.APIError, match="the service broke off"):
        list(sdk.chat.completions.create(model="m", messages=[], stream=True))


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({b"x-api-key": b"k"}, "/anthropic/v1/messages"),
        ({b"authorization": b"Bearer k"}, "/v1/chat/completions"),
        ({}, "/"),
    ],
)
def test_nothing_is_turned_away(fields, path):
    """A resource of Azure serves more than the tables know."""
    head = Head(method=b"POST", target=path.encode(), minor=1, pairs=(), fields=fields)

    assert AZURE_OPENAI.misdirected(head, path, "") is None


def test_what_belongs_to_the_caller():
    """A key belongs to one resource, in a header or in the query; both are credentials."""
    assert {b"api-key", b"authorization"} <= set(AZURE_OPENAI.credentials)
    assert "subscription-key" in AZURE_OPENAI.credential_query
    assert b"cookie" in AZURE_OPENAI.scopes
    assert {b"openai-beta", b"extra-parameters", b"azureml-model-deployment"} <= set(AZURE_OPENAI.counting)
    assert "api-version" not in AZURE_OPENAI.ignored_query
    assert not AZURE_OPENAI.one_credential_domain
