"""The SDKs of Azure's AI services, sync: an answer is fetched once, and is the same from the cache."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from azure.ai.contentsafety import ContentSafetyClient
from azure.ai.contentsafety.models import AnalyzeImageOptions, AnalyzeTextOptions, ImageData
from azure.ai.textanalytics import TextAnalyticsClient
from azure.ai.translation.text import TextTranslationClient
from azure.ai.translation.text.models import TranslateInputItem, TranslationTarget
from azure.ai.vision.imageanalysis import ImageAnalysisClient
from azure.ai.vision.imageanalysis.models import VisualFeatures
from azure.core.credentials import AzureKeyCredential

from sidecar.core.model import Usage
from sidecar.core.rules import CacheRule, Region, Route, Service
from sidecar.dialects import DIALECTS
from tests.scenarios.answers import whole

PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
KEY = AzureKeyCredential("azure-key")


def translate(url: str) -> Any:
    """A text for two targets."""
    targets = [TranslationTarget(language=language) for language in ("de", "fr")]
    with TextTranslationClient(endpoint=url, credential=KEY, region="westeurope") as client:
        return [item.as_dict() for item in client.translate(body=[TranslateInputItem(text="Box", targets=targets)])]


def look(url: str) -> Any:
    """An image by its bytes."""
    with ImageAnalysisClient(url, KEY) as client:
        return client.analyze(PNG, [VisualFeatures.TAGS, VisualFeatures.CAPTION]).as_dict()


def judge_text(url: str) -> Any:
    """A text that might do harm."""
    with ContentSafetyClient(url, KEY) as client:
        return client.analyze_text(AnalyzeTextOptions(text="A" * 1001)).as_dict()


def judge_image(url: str) -> Any:
    """An image that might do harm."""
    with ContentSafetyClient(url, KEY) as client:
        return client.analyze_image(AnalyzeImageOptions(image=ImageData(content=PNG))).as_dict()


def analyse(url: str) -> Any:
    """What two texts speak of."""
    with TextAnalyticsClient(url, KEY) as client:
        return [found.sentiment for found in client.analyze_sentiment(["A box.", "No box."])]


SEVERITIES = {"categoriesAnalysis": [{"category": "Hate", "severity": 0}]}
SCORES = {"positive": 1.0, "neutral": 0.0, "negative": 0.0}

SDKS: dict[str, tuple[str, Callable[[str], Any], Any, str, Usage]] = {
    "translation": (
        "azure-translator", translate,
        {"value": [{"translations": [{"language": "de", "text": "Kiste"}, {"language": "fr", "text": "Boîte"}]}]},
        "/translate", Usage(characters=6),
    ),
    "imageanalysis": (
        "azure-vision", look,
        {"modelVersion": "2023-10-01", "metadata": {"width": 1, "height": 1}, "tagsResult": {"values": []},
         "captionResult": {"text": "A box", "confidence": 0.9}},
        "/computervision/imageanalysis:analyze", Usage(images=2),
    ),
    "contentsafety-text": (
        "azure-safety", judge_text, SEVERITIES, "/contentsafety/text:analyze", Usage(records=2)
    ),
    "contentsafety-image": (
        "azure-safety", judge_image, SEVERITIES, "/contentsafety/image:analyze", Usage(images=1)
    ),
    "textanalytics": (
        "azure-language", analyse,
        {"kind": "SentimentAnalysisResults", "results": {
            "documents": [
                {"id": id_, "sentiment": "positive", "confidenceScores": SCORES, "sentences": [], "warnings": []}
                for id_ in ("0", "1")
            ], "errors": [], "modelVersion": "2024-11-01"}},
        "/language/:analyze-text", Usage(records=2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("sdk", SDKS)
async def test_asked_twice(sdk, build_lab, script):
    """The second call is answered from memory, and what the first was charged is on record."""
    dialect, ask, answer, path, usage = SDKS[sdk]

    async def respond(_head, _body, writer):
        writer.write(whole(json.dumps(answer).encode()))

    upstream = await script(respond)
    service = Service("azure-ai", DIALECTS[dialect], (Region("here", upstream.url),), path="/azure-ai")
    lab = await build_lab(upstream.url, services=(service,), routes=(Route("all", cache=CacheRule()),))

    first = await asyncio.to_thread(ask, f"{lab.url}/azure-ai")
    await lab.settle()
    second = await asyncio.to_thread(ask, f"{lab.url}/azure-ai")
    await lab.settle()

    assert first == second
    assert ["miss", "hit_memory"] == [record.outcome for record in lab.records]
    assert [usage, usage] == [record.usage for record in lab.records]
    assert 1 == upstream.calls
    assert f"POST {path}?".encode() in upstream.seen[0][0]


async def test_what_the_service_says_of_its_charge(build_lab, script):
    """The service's own word counts more than what the request shows."""

    async def respond(_head, _body, writer):
        writer.write(whole(b'[{"translations":[{"text":"Kiste","to":"de"}]}]', extra=b"X-Metered-Usage: 40\r\n"))

    upstream = await script(respond)
    service = Service("translator", DIALECTS["azure-translator"], (Region("here", upstream.url),), path="/translator-1")
    lab = await build_lab(upstream.url, services=(service,), routes=(Route("all", cache=CacheRule()),))
    asked = {"path": "/translator-1/translate?api-version=3.0&to=de", "headers": {"Ocp-Apim-Subscription-Key": "k"}}

    for body in (b'[{"Text":"Box"}]', b'[ {"text": "Box"} ]'):
        reply = await lab.ask(body, **asked)
        await lab.settle()
        assert 200 == reply.status

    assert [Usage(characters=40)] * 2 == [record.usage for record in lab.records]
    assert 1 == upstream.calls
