import openai
import pytest
from msgspec import json
from openai import DefaultHttpxClient, OpenAI

from sidecar.core.model import Head
from sidecar.dialects.openai import endpoints
from sidecar.dialects.openai.dialect import OPENAI

httpx = pytest.importorskip("httpx2", reason="the SDK's own HTTP library")

FILE = ("speech.wav", b"RIFF")


def client(answer):
    transport = httpx.MockTransport(answer)
    return OpenAI(api_key="key", base_url="http://127.0.0.1:7400/v1", max_retries=0, http_client=DefaultHttpxClient(
        transport=transport
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        (b"POST", "/v1/chat/completions", endpoints.CHAT),
        (b"POST", "/v1/completions", endpoints.COMPLETIONS),
        (b"POST", "/v1/responses", endpoints.RESPONSES),
        (b"POST", "/v1/responses/input_tokens", endpoints.INPUT_TOKENS),
        (b"POST", "/v1/embeddings", endpoints.EMBEDDINGS),
        (b"POST", "/v1/moderations", endpoints.MODERATIONS),
        (b"POST", "/v1/audio/transcriptions", endpoints.TRANSCRIPTIONS),
        (b"POST", "/v1/audio/translations", endpoints.TRANSLATIONS),
        (b"POST", "/v1/audio/speech", endpoints.SPEECH),
        (b"GET", "/v1/models", endpoints.MODELS),
        (b"GET", "/v1/models/gpt-4o", endpoints.MODEL),
        (b"GET", "/v1/models/ft:gpt-4o-mini:acme::7p4lURel", endpoints.MODEL),
        (b"POST", "/v1/images/generations", endpoints.IMAGES),
        (b"GET", "/v1/responses/resp_1", endpoints.STATEFUL),
        (b"POST", "/v1/responses/resp_1/cancel", endpoints.STATEFUL),
        (b"GET", "/v1/responses", endpoints.STATEFUL),
        (b"POST", "/v1/responses/x.css", endpoints.STATEFUL),
        (b"DELETE", "/v1/models/ft:gpt-4o-mini:acme::7p4lURel", endpoints.STATEFUL),
        (b"DELETE", "/v1/chat/completions/chatcmpl-1", endpoints.STATEFUL),
        *[
            (method, f"/v1/{family}{rest}", endpoints.STATEFUL)
            for family in (
                "assistants", "threads", "files", "uploads", "batches", "fine_tuning/jobs", "vector_stores",
                "conversations", "realtime/sessions", "live/sessions", "containers", "skills", "evals", "videos",
                "webhook_endpoints", "audio/voices",
            )
            for method, rest in ((b"POST", ""), (b"GET", "/id_1"), (b"DELETE", "/id_1"))
        ],
    ],
)  # fmt: skip
def test_operations_are_known(method, path, expected):
    """Each operation is found by its method and its path."""
    assert expected is OPENAI.locate(method, path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (b"POST", "/v1/chat/completions/"),
        (b"POST", "/v1/chat/completions/x.css"),
        (b"POST", "/v1/chat/completions;x"),
        (b"POST", "/v1/chat/completions%0a"),
        (b"POST", "/v1/chat/completions\n"),
        (b"POST", "/v1/chat/completions#x"),
        (b"POST", "/v1/chat%2fcompletions"),
        (b"POST", "/v1/chat/../chat/completions"),
        (b"POST", "/v1/embeddings/../files"),
        (b"POST", "/v1/Chat/Completions"),
        (b"POST", "/V1/chat/completions"),
        (b"POST", "/chat/completions"),
        (b"POST", "/v1"),
        (b"POST", "/v1/"),
        (b"POST", "/"),
        (b"POST", ""),
        (b"GET", "/v1/chat/completions"),
        (b"HEAD", "/v1/models"),
        (b"GET", "/v1/models/"),
        (b"GET", "/v1/models/.."),
        (b"GET", "/v1/models/a/b"),
        (b"GET", "/v1/models/a%2fb"),
        (b"POST", "/v1/filesystem"),
        (b"POST", "/v1/messages"),
        (b"DELETE", "/files/file_1"),
    ],
)
def test_other_paths_pass_through(method, path):
    """What is not exactly an operation is unknown, however a server behind might read it."""
    assert OPENAI.locate(method, path) is None


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda c: c.chat.completions.create(model="m", messages=[]), "chat"),
        (lambda c: c.completions.create(model="m", prompt=""), "completions"),
        (lambda c: c.responses.create(model="m", input=""), "responses"),
        (lambda c: c.responses.input_tokens.count(model="m", input=""), "input-tokens"),
        (lambda c: c.embeddings.create(model="m", input=""), "embeddings"),
        (lambda c: c.moderations.create(input=""), "moderations"),
        (lambda c: c.audio.transcriptions.create(model="m", file=FILE), "transcriptions"),
        pytest.param(
            lambda c: c.audio.translations.create(model="m", file=FILE),
            "translations",
            marks=pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning"),
        ),
        (lambda c: c.audio.speech.create(model="m", input="", voice="alloy"), "speech"),
        (lambda c: c.models.list(), "models"),
        (lambda c: c.models.retrieve("m"), "models"),
        (lambda c: c.images.generate(prompt="x"), "images"),
        (lambda c: c.files.list(), "stateful"),
        (lambda c: c.responses.retrieve("resp_1"), "stateful"),
    ],
    ids=lambda value: value if isinstance(value, str) else "sdk",
)
def test_what_the_sdk_sends_is_known(call, expected):
    """The paths of the real client are those of the tables."""
    located = []

    def answer(request):
        endpoint = OPENAI.locate(request.method.encode(), request.url.path)
        located.append(endpoint.name)
        return httpx.Response(400, json={"error": {"message": "enough"}})

    with client(answer) as sdk, pytest.raises(openai.BadRequestError):
        call(sdk)

    assert [expected] == located


@pytest.mark.parametrize(
    ("status", "kind", "raised"),
    [
        (400, "invalid_request_error", openai.BadRequestError),
        (401, "authentication_error", openai.AuthenticationError),
        (403, "permission_error", openai.PermissionDeniedError),
        (404, "invalid_request_error", openai.NotFoundError),
        (413, "invalid_request_error", openai.APIStatusError),
        (421, "invalid_request_error", openai.APIStatusError),
        (429, "rate_limit_error", openai.RateLimitError),
        (502, "server_error", openai.InternalServerError),
        (504, "server_error", openai.InternalServerError),
    ],
)
def test_errors_are_what_the_sdk_expects(status, kind, raised):
    """The real client raises its own exception, with our code and sentence in it."""
    body = OPENAI.error(status, "no-region", 'all "regions" refuse')

    def answer(_request):
        return httpx.Response(status, content=body, headers={"content-type": "application/json"})

    with client(answer) as sdk, pytest.raises(raised) as caught:
        sdk.models.list()

    told = {"message": 'all "regions" refuse', "type": kind, "param": None, "code": "no-region"}
    assert ({"error": told}, told) == (json.decode(body), caught.value.body)
    assert ("no-region", kind) == (caught.value.code, caught.value.type)


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda c: c.chat.completions.create(model="m", messages=[], stream=True), id="chat"),
        pytest.param(lambda c: c.completions.create(model="m", prompt="", stream=True), id="completions"),
        pytest.param(lambda c: c.responses.create(model="m", input="", stream=True), id="responses"),
    ],
)
def test_an_error_inside_a_stream_is_raised(ask):
    """Once the head is out, the error event is what makes the real client raise."""
    code = "upstream-disconnected"
    events = OPENAI.error_event(code, "the service broke off")

    def answer(_request):
        return httpx.Response(200, content=events, headers={"content-type": "text/event-stream"})

    with client(answer) as sdk, pytest.raises(openai.APIError, match="the service broke off") as caught:
        list(ask(sdk))

    assert (code, "server_error") == (caught.value.code, caught.value.type)


def head(**fields):
    named = {name.replace("_", "-").encode(): value.encode() for name, value in fields.items()}
    return Head(method=b"POST", target=b"/", minor=1, pairs=tuple(named.items()), fields=named)


CHAT_PATH = "/v1/chat/completions"
AZURE_PATH = "/openai/deployments/gpt/chat/completions"


@pytest.mark.parametrize(
    ("fields", "path", "query"),
    [
        pytest.param({"api_key": "k"}, CHAT_PATH, "", id="api-key"),
        pytest.param({"authorization": "Bearer t"}, CHAT_PATH, "api-version=2024-10-21", id="api-version"),
        pytest.param({"authorization": "Bearer t"}, CHAT_PATH, "a=1&api-version=preview", id="api-version, second"),
        pytest.param({"authorization": "Bearer t"}, AZURE_PATH, "", id="deployments"),
        pytest.param({"api_key": "k"}, AZURE_PATH, "api-version=2024-10-21", id="all three"),
    ],
)
def test_calls_of_azures_form_are_sent_home(fields, path, query):
    """A call meant for Azure is told the base URL under which this sidecar serves Azure."""
    sentence = OPENAI.misdirected(head(host="localhost:7455", **fields), path, query)

    assert "AZURE_OPENAI_ENDPOINT=http://localhost:7455/azure/RESOURCE" in sentence


@pytest.mark.parametrize(
    ("fields", "path", "query"),
    [
        pytest.param({"authorization": "Bearer k"}, CHAT_PATH, "", id="OpenAI's form"),
        pytest.param({"authorization": "Bearer k", "api_key": "k"}, CHAT_PATH, "", id="both headers"),
        pytest.param({}, CHAT_PATH, "", id="no credential"),
        pytest.param({}, CHAT_PATH, "x-api-version=1&q=api-version", id="similar query"),
    ],
)
def test_calls_of_openais_form_are_at_home(fields, path, query):
    """Nothing that OpenAI would answer is turned away."""
    assert OPENAI.misdirected(head(**fields), path, query) is None


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:7400", "127.0.0.1:7400"),
        ("[::1]:8080", "[::1]:8080"),
        ("sidecar.local:80", "sidecar.local:80"),
        ("api.openai.com", "127.0.0.1:7400"),
        ("evil:1/<script>", "127.0.0.1:7400"),
        ("", "127.0.0.1:7400"),
    ],
)
def test_the_base_url_is_the_callers_own(host, expected):
    """The address is the one that the caller used, where it is an address of ours."""
    sentence = OPENAI.misdirected(head(host=host, api_key="k"), CHAT_PATH, "")

    assert f"=http://{expected}/azure/RESOURCE," in sentence


def test_what_belongs_to_the_caller():
    """Organisation and project scope the key; the key works in every region."""
    assert {b"authorization"} == set(OPENAI.credentials)
    assert {b"openai-organization", b"openai-project", b"cookie"} == set(OPENAI.scopes)
    assert {b"openai-beta", b"azureml-model-deployment"} <= set(OPENAI.counting)
    assert OPENAI.one_credential_domain
