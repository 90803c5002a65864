"""
The dialect of Azure OpenAI in its three forms: a deployment in the path, ``/openai/v1/`` as at OpenAI, and the model
inference API (``/models/``).

The rule: where the path names a deployment, that is the model, whatever the body says; in the body the deployment's
name stands as ``model``. ``api-version`` is in the query, which counts as a whole. Source: the REST reference of Azure
OpenAI, and what ``AzureOpenAI`` of the ``openai`` SDK and ``azure-ai-inference`` do.
"""

from __future__ import annotations

import re
from dataclasses import replace

from msgspec import json, structs

from sidecar.core.dialect import Dialect, Endpoint, Members, Resources
from sidecar.core.model import Facts, Head
from sidecar.dialects.openai.endpoints import CHAT, EMBEDDINGS, find

_CLASSIC = "/openai/"

_V1 = "/openai/v1/"

_DEPLOYMENT = re.compile(r"/openai/deployments/([A-Za-z0-9][\w.-]*)/([a-z/]+)", re.ASCII)

_DEPLOYED = frozenset({
    "chat/completions", "completions", "embeddings", "audio/transcriptions", "audio/translations", "audio/speech",
    "images/generations", "images/edits",
})  # fmt: skip
"""Operations that the classic form has below a deployment, and nowhere else."""


def locate(method: bytes, path: str) -> Endpoint | None:
    """The operation at *path*, or None."""
    if path.startswith(_V1):
        return find(method, path.removeprefix(_V1))
    if (found := _DEPLOYMENT.fullmatch(path)) is not None and found[2] in _DEPLOYED:
        endpoint = find(method, found[2])
        return None if endpoint is None else _deployed(endpoint, found[1])
    if path.startswith(_CLASSIC):
        rest = path.removeprefix(_CLASSIC)
        return None if rest in _DEPLOYED else find(method, rest)
    return _INFERENCE.get((method, path))


def error(status: int, code: str, message: str) -> bytes:
    """The body of an error answer. Azure's has no type: the status says it."""
    del status
    return json.encode({"error": {"code": code, "message": message}})


def error_event(code: str, message: str) -> bytes:
    """An error inside a stream: once the head is sent, SDKs raise only on such an event."""
    return b"data: " + error(500, code, message) + b"\n\n"


def misdirected(head: Head, path: str, query: str) -> str | None:
    """None: a resource of Azure serves more than these tables know."""
    del head, path, query
    return None


def _deployed(endpoint: Endpoint, deployment: str) -> Endpoint:
    def read(members: Members) -> Facts:
        facts = endpoint.read({name: value for name, value in members.items() if name != "model"})
        return structs.replace(facts, model=deployment)

    return replace(endpoint, model=deployment, read=read)


def _chat_without_injection(members: Members) -> Facts:
    """The model inference API refuses members that it does not know, unless a header says otherwise."""
    return structs.replace(CHAT.read(members), inject_usage=False)


_INFERENCE = {
    (b"POST", "/models/chat/completions"): replace(CHAT, read=_chat_without_injection),
    (b"POST", "/models/embeddings"): EMBEDDINGS,
}

_PARTS = frozenset({
    "openai", "anthropic", "v1", "deployments", "models", "chat", "completions", "embeddings", "responses", "messages",
    "files", "uploads", "batches", "assistants", "threads", "audio", "images", "moderations", "containers",
    "conversations", "realtime", "evals", "videos",
})  # fmt: skip

AZURE_OPENAI = Dialect(
    name="azure-openai",
    locate=locate,
    error=error,
    error_event=error_event,
    misdirected=misdirected,
    credentials=(b"api-key", b"authorization", b"ocp-apim-subscription-key"),
    scopes=(b"cookie",),
    # extra-parameters: what becomes of unknown members; x-policy-id: which content filter judges the call;
    # azureml-model-deployment: which deployment behind an endpoint answers.
    counting=(b"openai-beta", b"extra-parameters", b"x-policy-id", b"azureml-model-deployment"),
    request_id=b"x-request-id",
    credential_query=frozenset({"api-key", "subscription-key"}),
    one_credential_domain=False,
    microsoft_tokens=True,
    roots=("/openai/v1", "/openai"),
    resources=Resources(setting="AZURE_OPENAI_ENDPOINT", root="/openai/", parts=_PARTS),
    # azure-api.net is not in the list: what is there is a customer's own gateway.
    own_hosts=tuple(
        f"{service}.azure.{cloud}"
        for service in ("openai", "cognitiveservices", "services.ai")
        for cloud in ("com", "us", "cn")
    ),
)
