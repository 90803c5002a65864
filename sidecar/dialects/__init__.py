"""
A dialect is tables and pure functions that fill the shape of ``core/dialect``; each vendor has a folder.

Services carry the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sidecar.core.dialect import Dialect
from sidecar.dialects.anthropic.dialect import ANTHROPIC
from sidecar.dialects.azure.documents import AZURE_DOCUMENTS
from sidecar.dialects.azure.language import AZURE_LANGUAGE
from sidecar.dialects.azure.openai import AZURE_OPENAI
from sidecar.dialects.azure.safety import AZURE_SAFETY
from sidecar.dialects.azure.speech import AZURE_SPEECH
from sidecar.dialects.azure.translator import AZURE_TRANSLATOR
from sidecar.dialects.azure.vision import AZURE_VISION
from sidecar.dialects.generic import GENERIC
from sidecar.dialects.openai.dialect import OPENAI

DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {
        dialect.name: dialect
        for dialect in (
            OPENAI,
            AZURE_OPENAI,
            AZURE_DOCUMENTS,
            AZURE_VISION,
            AZURE_LANGUAGE,
            AZURE_TRANSLATOR,
            AZURE_SAFETY,
            AZURE_SPEECH,
            ANTHROPIC,
            GENERIC,
        )
    }
)
"""Every dialect by the name that a configuration gives it."""
