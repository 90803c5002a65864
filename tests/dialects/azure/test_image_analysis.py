"""Image Analysis and Content Safety: images in any form, a charge for each feature, and whole answers."""

import base64

import pytest
from msgspec import json

from sidecar.core.dialect import Completeness
from sidecar.core.key.canonical import read
from sidecar.core.model import Form, Usage
from sidecar.dialects.azure.safety import AZURE_SAFETY
from sidecar.dialects.azure.vision import AZURE_VISION

ANALYZE = "/computervision/imageanalysis:analyze"
SAFE = "/contentsafety/{}"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
WHOLE = {
    "modelVersion": "2023-10-01", "metadata": {"width": 1, "height": 1}, "captionResult": {"text": "A box"},
    "tagsResult": {"values": []},
}  # fmt: skip


def located(path, query=b"", dialect=AZURE_VISION):
    found = dialect.locate(b"POST", path)
    assert found is not None
    return found if found.by_query is None else found.by_query(found, query)


def test_order_of_features():
    """Features have no order, however the list is written; what else is asked for counts."""
    arrange = located(ANALYZE).query

    assert arrange(b"features=tags,caption&api-version=1") == arrange(b"api-version=1&features=caption%2Ctags")
    assert arrange(b"features=tags") != arrange(b"features=caption")
    assert arrange(b"smartcrops-aspect-ratios=1,2") != arrange(b"smartcrops-aspect-ratios=2,1")


def test_one_image():
    """An image is its bytes; by its URL it needs a route that says so."""
    bare = read(PNG, located(ANALYZE), b"image/png", b"k")
    other = read(PNG, located(ANALYZE), b"application/octet-stream", b"k")
    linked = read(b'{"url":"https://x.example/a.png"}', located(ANALYZE), b"application/json", b"k")

    assert ("", ()) == (bare.facts.bypass, bare.facts.needs)
    assert bare.material == other.material != linked.material
    assert ("url-source",) == linked.facts.needs


@pytest.mark.parametrize(
    ("path", "query", "images"),
    [
        (ANALYZE, b"features=tags,caption", 2), (ANALYZE, b"features=tags&features=caption", 2), (ANALYZE, b"", 1),
        (ANALYZE, b"model-name=boxes", 1), ("/vision/v3.2/analyze", b"visualFeatures=Tags,Faces&details=Landmarks", 3),
        ("/vision/v3.2/describe", b"", 1),
    ],
)  # fmt: skip
def test_charges(path, query, images):
    """Each feature is charged for."""
    assert Usage(images=images) == located(path, query).read({}).charged


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, Completeness.WHOLE),
        ({"tagsResult": None}, Completeness.MISSHAPEN),
        ({"metadata": None}, Completeness.MISSHAPEN),
        ({"error": {"code": "x"}}, Completeness.FAILED),
    ],
)
def test_whole_answers(changed, expected):
    """A result for each feature."""
    found = located(ANALYZE, b"features=tags,caption")
    body = json.encode({**WHOLE, **changed})

    assert expected is found.answers.judged(body, Form.WHOLE, found.read({}), "application/json").complete


@pytest.mark.parametrize(
    ("path", "body", "media"),
    [
        ("/vision/v3.2/tag", b'{"tags":[],"requestId":"r","metadata":{"width":1},"modelVersion":"2021"}', ""),
        ("/vision/v3.2/ocr", b'{"language":"en","regions":[]}', ""),
        ("/vision/v3.2/models/landmarks/analyze", b'{"result":{},"metadata":{"width":1}}', ""),
        ("/computervision/retrieval:vectorizeImage", b'{"modelVersion":"2023","vector":[1.0,2.0]}', ""),
        ("/computervision/retrieval:vectorizeText", b'{"modelVersion":"2023","vector":[1.0,2.0]}', ""),
        ("/vision/v3.2/generateThumbnail", PNG, "image/png"),
        ("/computervision/imageanalysis:segment", PNG, "image/png"),
    ],
)
def test_other_answers(path, body, media):
    """Each operation has its own form; something else is not kept."""
    found = located(path)

    def complete(answer: bytes, kind: str) -> Completeness:
        return found.answers.judged(answer, Form.WHOLE, found.read({}), kind).complete

    assert Completeness.WHOLE is complete(body, media or "application/json")
    assert Completeness.MISSHAPEN is complete(b'{"made":"up"}', "application/json")
    assert Completeness.WHOLE is not complete(b"", media or "application/json")


def test_one_image_to_judge():
    """In JSON an image is its bytes as well; one in a blob needs a route that says so."""
    found = located(SAFE.format("image:analyze"), dialect=AZURE_SAFETY)

    def asked(**image: str):
        return read(json.encode({"image": image}), found, b"application/json", b"k")

    held, other = asked(content=base64.b64encode(PNG).decode()), asked(content=base64.b64encode(PNG + b"x").decode())

    assert ("", (), Usage(images=1)) == (held.facts.bypass, held.facts.needs, held.facts.charged)
    assert held.material != other.material
    assert ("url-source",) == asked(blobUrl="https://x.blob.core.windows.net/c/a.png").facts.needs


@pytest.mark.parametrize(
    ("operation", "asked", "records", "body"),
    [
        ("text:analyze", {"text": "A" * 1001}, 2, {"categoriesAnalysis": [{"category": "Hate", "severity": 0}]}),
        ("text:shieldPrompt", {"userPrompt": "A", "documents": ["B", "C"]}, 3,
         {"userPromptAnalysis": {"attackDetected": False}, "documentsAnalysis": []}),
        ("text:detectProtectedMaterial", {"text": "A"}, 1, {"protectedMaterialAnalysis": {"detected": False}}),
        ("text:detectGroundedness", {"text": "A"}, 1, {"ungroundedDetected": False}),
    ],
)  # fmt: skip
def test_judgements(operation, asked, records, body):
    """What is judged, what it costs, and what the answer must hold."""
    found = located(SAFE.format(operation), dialect=AZURE_SAFETY)
    facts = found.read(asked)

    def judged(answer: object):
        return found.answers.judged(json.encode(answer), Form.WHOLE, facts, "application/json")

    assert (Completeness.WHOLE, Usage(records=records)) == (judged(body).complete, judged(body).usage)
    assert Completeness.MISSHAPEN is judged({}).complete
    assert Completeness.FAILED is judged({**body, "error": {"code": "x"}}).complete
