"""What of Azure's AI services is never looked up, or only where a route says so, each with its reason."""

import pytest

from sidecar.core.dialect import Endpoint
from sidecar.dialects.azure.image_analysis import find
from sidecar.dialects.azure.language import AZURE_LANGUAGE
from sidecar.dialects.azure.safety import AZURE_SAFETY
from sidecar.dialects.azure.speech import AZURE_SPEECH
from sidecar.dialects.azure.translator import AZURE_TRANSLATOR

LOCATE = {
    "vision": find,
    "language": AZURE_LANGUAGE.locate,
    "translator": AZURE_TRANSLATOR.locate,
    "safety": AZURE_SAFETY.locate,
    "speech": AZURE_SPEECH.locate,
}

STATEFUL = [
    ("vision", "PUT", "/computervision/models/boxes"),
    ("vision", "GET", "/computervision/models/boxes"),
    ("vision", "POST", "/computervision/models/boxes:train"),
    ("vision", "PUT", "/computervision/datasets/boxes"),
    ("vision", "PUT", "/computervision/retrieval/indexes/films"),
    ("vision", "POST", "/computervision/retrieval/indexes/films:queryByText"),
    ("vision", "POST", "/customvision/v3.0/Prediction/p/classify/iterations/i/image"),
    ("vision", "POST", "/customvision/v3.3/Training/projects"),
    ("vision", "DELETE", "/vision/v3.2/anything"),
    ("language", "POST", "/language/:query-knowledgebases"),
    ("language", "POST", "/language/analyze-text/jobs/j-1:cancel"),
    ("language", "POST", "/language/analyze-conversations/jobs/j-1:cancel"),
    ("language", "POST", "/language/analyze-documents/jobs"),
    ("language", "GET", "/language/analyze-documents/jobs/j-1"),
    ("language", "PATCH", "/language/authoring/analyze-text/projects/p"),
    ("language", "POST", "/language/authoring/analyze-text/projects/p/:train"),
    ("language", "PUT", "/language/authoring/analyze-conversations/projects/p/deployments/d"),
    ("language", "GET", "/language/analyze-text/projects/p"),
    ("language", "POST", "/language/query-knowledgebases/projects/p/feedback"),
    ("language", "PATCH", "/language/query-knowledgebases/projects/p/qnas"),
    ("language", "DELETE", "/language/analyze-text/jobs/j-1"),
    ("translator", "GET", "/translator/text/dictionaries"),
    ("translator", "DELETE", "/translate"),
    ("safety", "PATCH", "/contentsafety/text/blocklists/words"),
    ("safety", "GET", "/contentsafety/text/blocklists"),
    ("safety", "POST", "/contentsafety/text/blocklists/words:addOrUpdateBlocklistItems"),
    ("safety", "POST", "/contentsafety/text/blocklists/words:removeBlocklistItems"),
    ("safety", "GET", "/contentsafety/text/blocklists/words/blocklistItems/1"),
    ("safety", "PUT", "/contentsafety/text/categories/c"),
    ("safety", "POST", "/contentsafety/text/categories/c:build"),
    ("safety", "PATCH", "/contentsafety/text/incidents/i"),
    ("safety", "POST", "/contentsafety/text/incidents/i:deploy"),
    ("safety", "POST", "/contentsafety/text:detectIncidents"),
    ("safety", "POST", "/contentsafety/image:detectIncidents"),
    ("speech", "POST", "/speechtotext/transcriptions:submit"),
    ("speech", "POST", "/speechtotext/v3.2/transcriptions"),
    ("speech", "GET", "/speechtotext/transcriptions/t"),
    ("speech", "GET", "/speechtotext/transcriptions/t/files"),
    ("speech", "PATCH", "/speechtotext/models/m"),
    ("speech", "POST", "/speechtotext/models"),
    ("speech", "POST", "/speechtotext/datasets:upload"),
    ("speech", "POST", "/speechtotext/endpoints"),
    ("speech", "POST", "/speechtotext/evaluations"),
    ("speech", "POST", "/speechtotext/projects"),
    ("speech", "POST", "/speechtotext/webhooks"),
    ("speech", "PUT", "/texttospeech/batchsyntheses/s"),
    ("speech", "PUT", "/avatar/batchsyntheses/s"),
    ("speech", "PUT", "/videotranslation/translations/t"),
    ("speech", "PUT", "/customvoice/personalvoices/p"),
    ("speech", "DELETE", "/speechtotext/transcriptions/t"),
]

DOCUMENTS = [
    ("POST", "/translator/document/batches", "writes-results"),
    ("GET", "/translator/document/batches/b", "writes-results"),
    ("DELETE", "/translator/document/batches/b", "writes-results"),
    ("GET", "/translator/document/formats", "writes-results"),
    ("POST", "/translator/document:translate", "glossary"),
]

SENTENCE = {"analysisInput": {"documents": [{"id": "1", "text": "A box."}]}}
SSML = '<speak version="1.0" xml:lang="en-US"><voice name="en-US-AvaNeural">{}</voice></speak>'

NEEDING = [
    ("vision", "/computervision/imageanalysis:analyze", "model-name=boxes", {}, "custom-model"),
    ("language", "/language/:analyze-text", "", {"kind": "CustomEntityRecognition", **SENTENCE}, "custom-model"),
    ("language", "/language/:analyze-text", "", {"kind": "X", "parameters": {"projectName": "p"}}, "custom-model"),
    ("language", "/language/analyze-text/jobs", "", {"tasks": [{"kind": "Custom"}], **SENTENCE}, "custom-model"),
    ("language", "/language/analyze-text/jobs", "", {"tasks": [{"parameters": {"deploymentName": "d"}}]},
     "custom-model"),
    ("language", "/language/:analyze-conversations", "", {"kind": "Conversation", "parameters": {"projectName": "p"}},
     "custom-model"),
    ("translator", "/translate", "api-version=3.0&to=de&category=acme", {"inputs": []}, "custom-model"),
    ("translator", "/translate", "api-version=3.0&to=de&Category=ACME", {"inputs": []}, "custom-model"),
    ("translator", "/translate", "api-version=2026-06-06",
     {"inputs": [{"text": "A", "targets": [{"language": "de", "deploymentName": "mine"}]}]}, "custom-model"),
    ("translator", "/translate", "api-version=2026-06-06",
     {"inputs": [{"text": "A", "targets": [{"language": "de", "adaptiveDatasetId": "x"}]}]}, "custom-model"),
    ("safety", "/contentsafety/text:analyzeCustomCategory", "", {"text": "A", "categoryName": "c"}, "custom-model"),
    ("safety", "/contentsafety/text:detectGroundedness", "", {"text": "A", "llmResource": {"x": 1}}, "custom-model"),
    ("speech", "/speechtotext/transcriptions:transcribe", "", {"definition": {"audioUrl": "https://x"}}, "url-source"),
    ("speech", "/speechtotext/transcriptions:transcribe", "", {"definition": {"models": {"en": "m"}}}, "custom-model"),
    ("speech", "/speech/recognition/conversation/cognitiveservices/v1", "cid=1", {}, "custom-model"),
    ("speech", "/cognitiveservices/v1", "deploymentId=1", {"text": SSML.format("A")}, "custom-model"),
    ("speech", "/voice/cognitiveservices/v1", "", {"text": SSML.format("A")}, "custom-model"),
    ("speech", "/cognitiveservices/v1", "",
     {"text": SSML.format('<mstts:ttsembedding speakerProfileId="x">A</mstts:ttsembedding>')}, "custom-model"),
    ("speech", "/cognitiveservices/v1", "", {"text": SSML.format('<lexicon uri="https://x/l.xml"/>A')}, "url-source"),
    ("speech", "/cognitiveservices/v1", "", {"text": SSML.format('<audio src = "&#104;ttps://x"/>')}, "url-source"),
    ("speech", "/cognitiveservices/v1", "", {"text": "<!DOCTYPE x [<!ENTITY s 'src'>]>" + SSML}, "url-source"),
]  # fmt: skip


def located(service: str, method: str, path: str, query: str = "") -> Endpoint:
    """The endpoint of a call, as its query makes it."""
    found = LOCATE[service](method.encode(), path)
    assert found is not None
    return found if found.by_query is None else found.by_query(found, query.encode())


@pytest.mark.parametrize(("service", "method", "path"), STATEFUL)
def test_stateful(service, method, path):
    """It creates, changes or reads something that the service keeps."""
    assert "stateful" == located(service, method, path).bypass


@pytest.mark.parametrize(("method", "path", "reason"), DOCUMENTS)
def test_translated_documents(method, path, reason):
    """They are written into a storage account, or translated by glossaries that can be changed."""
    assert reason == located("translator", method, path).bypass


@pytest.mark.parametrize("path", ["text:analyze", "image:analyze", "text:detectGroundedness"])
def test_blocklists(path):
    """Lists that can be changed under their names judge a call in another way tomorrow."""
    found = located("safety", "POST", f"/contentsafety/{path}")

    assert "blocklist" == found.read({"text": "A", "blocklistNames": ["words"]}).bypass
    assert "" == found.read({"text": "A", "blocklistNames": []}).bypass


@pytest.mark.parametrize(("service", "path", "query", "members", "need"), NEEDING)
def test_what_a_route_must_allow(service, path, query, members, need):
    """A model of one's own can be trained again, and what is behind a URL can change."""
    found = located(service, "POST", path, query)

    assert "" == found.bypass
    assert (need,) == found.read(members).needs


@pytest.mark.parametrize("service", sorted(LOCATE))
@pytest.mark.parametrize(
    "path", ["/", "/openai/v1/chat/completions", "/translate;x", "/translate/", "/language", "/sts/v1.0/issueToken"]
)
def test_what_is_not_theirs(service, path):
    """A path that these tables do not know passes through."""
    assert LOCATE[service](b"POST", path) is None
