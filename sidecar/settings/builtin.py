"""
The services and routes that exist without any configuration.

The rule: a configured service of the same name replaces the built-in one. The built-in routes come after the configured
ones, and the last one takes everything, so every call has a route.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sidecar.core.dialect import Kind
from sidecar.core.rules import CacheMode, CacheRule, Match, Region, Route, Service
from sidecar.dialects import DIALECTS

_OFF = CacheRule(mode=CacheMode.OFF)

SERVICES: Mapping[str, Service] = MappingProxyType(
    {
        "openai": Service(
            name="openai",
            dialect=DIALECTS["openai"],
            regions=(Region("default", "https://api.openai.com", credential_domain="openai"),),
            path="/openai",
            hosts=("api.openai.com",),
        ),
        "anthropic": Service(
            name="anthropic",
            dialect=DIALECTS["anthropic"],
            regions=(Region("default", "https://api.anthropic.com", credential_domain="anthropic"),),
            path="/anthropic",
            hosts=("api.anthropic.com",),
        ),
        "azure-openai": Service(
            name="azure-openai",
            dialect=DIALECTS["azure-openai"],
            regions=(Region("default", "https://{resource}.openai.azure.com"),),
            path="/azure",
            resource=True,
        ),
    }
)

ROUTES = (
    Route("chat", Match(kinds=frozenset({Kind.CHAT}))),
    Route("embeddings", Match(kinds=frozenset({Kind.EMBEDDINGS, Kind.RERANK}))),
    Route("documents", Match(kinds=frozenset({Kind.OCR, Kind.TRANSCRIPTION, Kind.TRANSLATION, Kind.LANGUAGE}))),
    Route("counts", Match(kinds=frozenset({Kind.COUNT}))),
    Route("other", Match(kinds=frozenset({Kind.MODERATION, Kind.MODELS, Kind.SPEECH, Kind.OTHER})), _OFF),
    Route("default", cache=_OFF),
)
