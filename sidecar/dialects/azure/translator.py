"""
The dialect of Azure's Translator, in both forms: version 3, whose body is an array and whose targets are in the URL,
and 2026-06-06, whose body says all.

The rule: an operation is the same at the global host (``/translate``) and below a resource
(``/translator/text/v3.0/translate``), so both have one key, and each region gets the path that it knows. Source: REST
reference of Translator 3.0 and 2026-06-06, and what ``azure-ai-translation-text`` sends.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from msgspec import Raw, Struct, structs

from sidecar.core.dialect import Answers, BodyForm, Completeness, Dialect, Endpoint, Kind, Members, Shape
from sidecar.core.model import Facts, Pairs, Usage
from sidecar.core.rules import host_of
from sidecar.dialects.azure.ai_services import (
    CONTENT_TYPE,
    CUSTOM_MODEL,
    OFFERS,
    RESOURCES,
    STATEFUL,
    bypassed,
    dialect,
    needing,
    objects,
)
from sidecar.dialects.azure.answers import Said, has, is_list, is_number_of, shaped
from sidecar.dialects.azure.query import canonical, values
from sidecar.dialects.plain import NULL

_INPUTS: Final = "inputs"
"""Where a body of the newer form has its texts; a body that is an array stands for this member."""

_PATH: Final = re.compile(
    r"(?:/translator/text(?:/v(\d[\w.-]*))?)?/(translate|transliterate|detect|breaksentence|dictionary/lookup"
    r"|dictionary/examples|languages)",
    re.ASCII | re.IGNORECASE,
)

_ROOT: Final = re.compile(rb"/translator/text/v(\d[\w.-]*)(/[^?]*)", re.ASCII | re.IGNORECASE)

_GENERAL: Final = frozenset({"", "general", "generalnn"})
"""Categories that name no model of one's own."""

_GLOBAL: Final = ("cognitive.microsofttranslator.com", "microsofttranslator.us", "translator.azure.cn")
"""Hosts that are the Translator's own, with nothing before its operations."""


class _Translation(Struct, gc=False):
    text: str


class _Translated(Struct, gc=False):
    translations: list[_Translation]


class _ScriptText(Struct, gc=False):
    text: str


class _DetectedLanguage(Struct, gc=False):
    language: str


class _Sentences(Struct, gc=False):
    sentLen: list[int]  # noqa: N815  as the service writes it


class _DictionaryEntry(Struct, gc=False):
    translations: Raw = NULL
    examples: Raw = NULL


class _TranslatedValue(Said, gc=False, kw_only=True):
    value: list[_Translated]


class _ScriptValue(Said, gc=False, kw_only=True):
    value: list[_ScriptText]


def _translated(found: list[_Translated] | _TranslatedValue, facts: Facts) -> Completeness:
    """For each text as many translations as for every other, and at least one."""
    texts = found if isinstance(found, list) else found.value
    counts = {len(text.translations) for text in texts}
    return has(is_number_of(len(texts), facts) and len(counts) == 1 and 0 not in counts)


def _one_each(found: Sequence[Struct], facts: Facts) -> Completeness:
    return has(is_number_of(len(found), facts))


def _one_value_each(found: _ScriptValue, facts: Facts) -> Completeness:
    return has(is_number_of(len(found.value), facts))


def _entries(found: list[_DictionaryEntry], facts: Facts) -> Completeness:
    return has(
        is_number_of(len(found), facts)
        and all(is_list(entry.translations) or is_list(entry.examples) for entry in found)
    )


def _metered(pairs: Pairs) -> Usage | None:
    """The characters that the service says it has charged for."""
    said = next((value for name, value in pairs if name.lower() == b"x-metered-usage"), b"")
    return Usage(characters=int(said)) if said.isdigit() and len(said) < 16 else None


def _texts(members: Members) -> list[str]:
    """The texts of a call, in either form: version 3 does not look at case in names of members."""
    found = []
    for item in objects(members.get(_INPUTS)):
        text = next((value for name, value in item.items() if name.lower() == "text"), "")
        found.append(text if isinstance(text, str) else "")
    return found


def _plain(members: Members) -> Facts:
    """A call that is charged once for each character. The texts of a large body are not read."""
    if _INPUTS not in members:
        return Facts(deterministic=True)
    texts = _texts(members)
    return Facts(deterministic=True, expects=len(texts), charged=Usage(characters=sum(map(len, texts))))


def _told_by_body(members: Members) -> Facts:
    """A translation in the newer form: each text names its own targets, and the model of each."""
    if _INPUTS not in members:
        return Facts(bypass="unreadable-member")
    characters, needs = 0, False
    for item, text in zip(objects(members.get(_INPUTS)), _texts(members), strict=True):
        targets = objects(item.get("targets"))
        characters += len(text) * len(targets)
        needs = needs or any(map(_is_own, targets))
    facts = structs.replace(_plain(members), charged=Usage(characters=characters))
    return structs.replace(facts, needs=(CUSTOM_MODEL,)) if needs else facts


def _is_own(target: Members) -> bool:
    """Whether a target names a model or a data set of one's own."""
    name = target.get("deploymentName")
    return bool(target.get("adaptiveDatasetId")) or (isinstance(name, str) and name.lower() not in _GENERAL)


def _answers(kinds: tuple[Answers, Answers]) -> dict[bool, Answers]:
    return {number == 1: replace(answers, metered=_metered) for number, answers in enumerate(kinds)}


_TRANSLATED = _answers((shaped(list[_Translated], _translated), shaped(_TranslatedValue, _translated)))
_SCRIPTS = _answers((shaped(list[_ScriptText], _one_each), shaped(_ScriptValue, _one_value_each)))
"""The answers of version 3, and of the newer form."""


def _is_newer(version: str) -> bool:
    return not version.startswith(("3.", "3"))


def _versioned(endpoint: Endpoint, query: bytes) -> Endpoint:
    """
    The operation in its version, which the path or the query names. Where both name the same, the query's is not part
    of the key.
    """
    _, _, rest = endpoint.path.partition("/translator/text/v")
    version, _, operation = rest.partition("/")
    said = values(query, "api-version")
    named = version or (said[0] if len(set(said)) == 1 else "")
    arrange = canonical()
    if named and set(said) <= {named}:
        endpoint = replace(endpoint, path=f"/translator/text/v{named}/{operation}")
        endpoint = replace(endpoint, query=lambda counted: arrange(_without_version(counted)))
    newer = _is_newer(named)
    if operation == "translate":
        answers = _TRANSLATED[newer]
        if newer:
            return replace(endpoint, read=_told_by_body, answers=answers)
        return _told_by_query(replace(endpoint, answers=answers), query)
    return replace(endpoint, answers=_SCRIPTS[newer]) if operation == "transliterate" else endpoint


def _told_by_query(endpoint: Endpoint, query: bytes) -> Endpoint:
    """A translation of version 3: the query names the targets and the category."""
    targets = len(values(query, "to"))

    def read(members: Members) -> Facts:
        facts = _plain(members)
        if facts.charged is None:
            return facts
        return structs.replace(facts, charged=Usage(characters=facts.charged.characters * max(targets, 1)))

    own = any(category.lower() not in _GENERAL for category in values(query, "category"))
    return needing(replace(endpoint, read=read), *([CUSTOM_MODEL] if own else []))


def _without_version(query: bytes) -> bytes:
    return b"&".join(member for member in query.split(b"&") if member.partition(b"=")[0].lower() != b"api-version")


_TRANSLATE: Final = Endpoint(
    "translate",
    Kind.TRANSLATION,
    BodyForm.JSON,
    _plain,
    _TRANSLATED[False],
    Shape(inside={_INPUTS: Shape(fold=True)}),
    generating=False,
    listed=_INPUTS,
    query=canonical(),
    uncounted=CONTENT_TYPE,
    by_query=_versioned,
)

_ENTRIES = replace(shaped(list[_DictionaryEntry], _entries), metered=_metered)

_OPERATIONS: Final = {
    "translate": _TRANSLATE,
    "transliterate": replace(_TRANSLATE, name="transliterate", answers=_SCRIPTS[False]),
    "detect": replace(
        _TRANSLATE, name="detect", answers=replace(shaped(list[_DetectedLanguage], _one_each), metered=_metered)
    ),
    "breaksentence": replace(
        _TRANSLATE, name="sentences", answers=replace(shaped(list[_Sentences], _one_each), metered=_metered)
    ),
    "dictionary/lookup": replace(_TRANSLATE, name="dictionary", answers=_ENTRIES),
    "dictionary/examples": replace(_TRANSLATE, name="dictionary", answers=_ENTRIES),
}

WRITES_RESULTS: Final = bypassed("writes-results")
"""Translations of documents from one storage account into another."""

GLOSSARY: Final = bypassed("glossary")
"""The translation of one document, which glossaries may come with."""


def locate(method: bytes, path: str) -> Endpoint | None:
    """The operation at *path*, or None."""
    if (found := _PATH.fullmatch(path)) is not None:
        operation = found[2].lower()
        if operation == "languages" and method == b"GET":
            return OFFERS
        if operation in _OPERATIONS and method == b"POST":
            return replace(_OPERATIONS[operation], path=f"/translator/text/v{found[1] or ''}/{operation}")
    if path == "/translator/document:translate":
        return GLOSSARY
    if path.startswith("/translator/document"):
        return WRITES_RESULTS
    return STATEFUL if method == b"DELETE" or path.startswith("/translator/") else None


def placed(target: bytes, url: str) -> bytes:
    """
    *target* as the region at *url* knows it: the global hosts have the operations at their root, a resource has them
    below ``/translator/text`` and the version. Other hosts, gateways say, get it as it came.
    """
    host, path = host_of(url), url.partition("://")[2].partition("/")[2]
    if any(host == own or host.endswith(f".{own}") for own in _GLOBAL):
        return _at_root(target)
    if not path and any(host == own or host.endswith(f".{own}") for own in RESOURCES):
        return _below_root(target)
    return target


def _at_root(target: bytes) -> bytes:
    path, mark, query = target.partition(b"?")
    found = _ROOT.fullmatch(path)
    if found is None:
        return target
    if not values(query, "api-version"):
        query = b"api-version=%b" % found[1] + (b"&" + query if query else b"")
        mark = b"?"
    return found[2] + mark + query


def _below_root(target: bytes) -> bytes:
    path, _, query = target.partition(b"?")
    found = _PATH.fullmatch(path.decode("latin-1"))
    version = values(query, "api-version")[:1] or ["3.0"]
    if found is None or path.lower().startswith(b"/translator/") or not re.fullmatch(r"[\w.-]+", version[0], re.ASCII):
        return target
    return f"/translator/text/v{version[0]}".encode() + target


AZURE_TRANSLATOR: Final[Dialect] = dialect(
    "azure-translator",
    locate,
    hosts=_GLOBAL,
    scopes=(b"ocp-apim-subscription-region", b"ocp-apim-resourceid"),
    counting=(b"accept-language",),
    request_id=b"x-requestid",
    placed=placed,
    words=("TRANSLAT",),
)
