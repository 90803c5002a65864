"""Translator: one key for both forms of a path, what is charged, and which answers are whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json

from sidecar.core.dialect import Completeness, Endpoint
from sidecar.core.key.canonical import read
from sidecar.core.model import Form, Usage
from sidecar.dialects.azure.translator import AZURE_TRANSLATOR, placed

RESOURCE = "https://acme.cognitiveservices.azure.com"
GLOBAL = "https://api-eur.cognitive.microsofttranslator.com"
NEWER = "api-version=2026-06-06"


def located(path: str, query: str) -> Endpoint:
    found = AZURE_TRANSLATOR.locate(b"POST", path)
    assert found is not None
    assert found.by_query is not None
    return found.by_query(found, query.encode())


def place_of(path: str, query: str) -> tuple[str, bytes]:
    """What counts of path and query."""
    found = located(path, query)
    assert found.query is not None
    return found.path, found.query(query.encode())


def material(body: bytes, query: str = "api-version=3.0&to=de") -> tuple[bytes, bytes]:
    reading = read(body, located("/translate", query), b"application/json", b"k")
    assert not reading.facts.bypass, reading.facts.bypass
    return reading.tag, reading.material


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/translate", "api-version=3.0&to=de&to=fr"),
        ("/translate", "to=de&to=fr&api-version=3.0"),
        ("/translator/text/v3.0/translate", "to=de&to=fr"),
        ("/translator/text/v3.0/translate", "to=de&api-version=3.0&to=fr"),
        ("/translator/text/translate", "api-version=3.0&to=de&to=fr"),
        ("/Translate", "to=de&to=fr&api-version=3.0"),
    ],
)
def test_one_operation(path, query):
    """However a client writes its path, and in whatever order its members: it is one question."""
    assert ("/translator/text/v3.0/translate", b"to=de&to=fr") == place_of(path, query)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/translate", "api-version=3.0&to=fr&to=de"),
        ("/translate", "api-version=3.0&to=de"),
        ("/translate", "api-version=3.0&to=de&to=fr&textType=html"),
        ("/translate", f"{NEWER}&to=de&to=fr"),
        ("/translate", "to=de&to=fr"),
        ("/translate", "api-version=3.0&api-version=4.0&to=de&to=fr"),
        ("/translator/text/v3.0/translate", f"{NEWER}&to=de&to=fr"),
        ("/detect", "api-version=3.0&to=de&to=fr"),
    ],
)
def test_other_operations(path, query):
    """Another order of targets, another version or operation is another question."""
    assert ("/translator/text/v3.0/translate", b"to=de&to=fr") != place_of(path, query)


@pytest.mark.parametrize(
    ("target", "url", "expected"),
    [
        ("/translate?api-version=3.0&to=de", RESOURCE, "/translator/text/v3.0/translate?api-version=3.0&to=de"),
        ("/translate?to=de", RESOURCE, "/translator/text/v3.0/translate?to=de"),
        (f"/translate?{NEWER}", RESOURCE, f"/translator/text/v2026-06-06/translate?{NEWER}"),
        ("/translator/text/v3.0/translate?to=de", RESOURCE, "/translator/text/v3.0/translate?to=de"),
        ("/dictionary/lookup?api-version=3.0", RESOURCE, "/translator/text/v3.0/dictionary/lookup?api-version=3.0"),
        ("/translate?api-version=3.0", "https://acme.services.ai.azure.com",
         "/translator/text/v3.0/translate?api-version=3.0"),
        ("/translate?to=de", f"{RESOURCE}/translator/text/v3.0", "/translate?to=de"),
        ("/translate?api-version=3.0", GLOBAL, "/translate?api-version=3.0"),
        ("/translator/text/v3.0/translate?to=de", GLOBAL, "/translate?api-version=3.0&to=de"),
        ("/translator/text/v3.0/translate", GLOBAL, "/translate?api-version=3.0"),
        ("/translator/text/v3.0/translate?api-version=3.0&to=de", GLOBAL, "/translate?api-version=3.0&to=de"),
        ("/translate?api-version=..%2F..%2Fx", RESOURCE, "/translate?api-version=..%2F..%2Fx"),
        ("/translator/document/batches?x", RESOURCE, "/translator/document/batches?x"),
        ("/languages?api-version=3.0", RESOURCE, "/translator/text/v3.0/languages?api-version=3.0"),
        ("/translate?api-version=3.0", "https://gateway.example", "/translate?api-version=3.0"),
        ("/translate?api-version=3.0", "https://microsofttranslator.com.example", "/translate?api-version=3.0"),
    ],
)  # fmt: skip
def test_each_region_gets_the_path_that_it_knows(target, url, expected):
    """SDKs send ``/translate`` to whatever is no ``cognitiveservices``; a resource knows it below its root only."""
    assert expected.encode() == placed(target.encode(), url)
    assert expected.encode() == placed(placed(target.encode(), url), url)


def test_bodies():
    """Names of members are one in any case; the order of texts, and what is in them, counts."""
    one = material(b'[{"Text":"A"},{"Text":"B"}]')

    assert one == material(b' [ {"text": "A"}, {"TEXT":"B"} ]')
    assert len({one, material(b'[{"Text":"B"},{"Text":"A"}]'), material(b'[{"Text":"a"},{"Text":"B"}]'),
                material(b'[{"Text":"A"},{"Text":"B","script":"Latn"}]'),
                material(b'{"inputs":[{"Text":"A"},{"Text":"B"}]}')}) == 5  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [b'[{"Text":"A"}],"inputs":[]', b'[{"Text":"A"}],"more":1', b"[1]]", b'[{"Text":"A","Text":"B"}]', b"[", b"[}"],
)
def test_bodies_that_are_no_array(body):
    """What is an array and more is read by nobody in the same way."""
    found = located("/translate", "api-version=3.0&to=de")

    assert read(body, found, b"", b"k").facts.bypass
    if b'"Text":"A","Text"' not in body:  # of a large body only the outer structure is read
        assert read(body[:1] + b" " * 300_000 + body[1:], found, b"", b"k").facts.bypass


def test_large_bodies():
    """An array above the bound is read while it passes, and its bytes count."""
    texts = [{"Text": "A" * 300_000}]
    found = located("/translate", "api-version=3.0&to=de")
    reading, other = (read(json.encode(each), found, b"", b"k") for each in (texts, [*texts, {"Text": "B"}]))

    assert ("", "") == (reading.facts.bypass, other.facts.bypass)
    assert reading.material != other.material
    assert reading.facts.deterministic
    assert reading.facts.charged is None


def test_large_bodies_that_name_their_models():
    """What cannot be read may name a model of one's own."""
    body = json.encode({"inputs": [{"text": "A" * 300_000, "targets": [{"language": "de"}]}]})

    assert "unreadable-member" == read(body, located("/translate", NEWER), b"", b"k").facts.bypass


@given(st.lists(st.text(), min_size=1, max_size=4), st.lists(st.sampled_from(["de", "fr", "es"]), min_size=1))
def test_characters(texts, targets):
    """Each code point is charged once for each target, in both forms."""
    older = located("/translate", "&".join(["api-version=3.0", *(f"to={each}" for each in targets)]))
    newer = located("/translate", NEWER)
    expected = Usage(characters=sum(map(len, texts)) * len(targets))
    asked = [{"text": text, "targets": [{"language": each} for each in targets]} for text in texts]

    assert expected == older.read({"inputs": [{"Text": text} for text in texts]}).charged
    assert expected == newer.read({"inputs": asked}).charged


@pytest.mark.parametrize(
    ("query", "category"), [("api-version=3.0&to=de&category=general", ""), ("api-version=3.0&to=de&category=", "")]
)
def test_general_categories(query, category):
    """The service's own model needs no permission."""
    del category
    assert () == located("/translate", query).read({"inputs": []}).needs


TWO = b'[{"translations":[{"text":"X","to":"de"}]},{"translations":[{"text":"Y","to":"de"}]}]'


@pytest.mark.parametrize(
    ("query", "body", "expected"),
    [
        ("api-version=3.0&to=de", TWO, Completeness.WHOLE),
        ("api-version=3.0&to=de", b'[{"translations":[{"text":"X"}]}]', Completeness.MISSHAPEN),
        ("api-version=3.0&to=de", TWO.replace(b'{"text":"Y","to":"de"}', b""), Completeness.MISSHAPEN),
        ("api-version=3.0&to=de", TWO[:-1], Completeness.UNREADABLE),
        ("api-version=3.0&to=de", b'{"error":{"code":400036,"message":"no"}}', Completeness.FAILED),
        (NEWER, b'{"value":' + TWO + b"}", Completeness.WHOLE),
        (NEWER, TWO, Completeness.MISSHAPEN),
        (NEWER, b'{"value":[]}', Completeness.MISSHAPEN),
        (NEWER, b'{"error":{"code":"x"},"value":' + TWO + b"}", Completeness.FAILED),
    ],
)
def test_whole_answers(query, body, expected):
    """A translation for each text, in the form of the version that was asked for."""
    found = located("/translate", query)
    facts = found.read({"inputs": [{"text": "A", "targets": [{}]}, {"text": "BC", "targets": [{}]}]})
    judged = found.answers.judged(body, Form.WHOLE, facts, "application/json")

    assert expected is judged.complete
    assert Usage(characters=3 if expected is Completeness.WHOLE else 0) == judged.usage


@pytest.mark.parametrize(("said", "expected"), [(b"7", 7), (b"0", 0), (b"", 3), (b"-1", 3), (b"7.5", 3)])
def test_what_the_service_says(said, expected):
    """It knows best what it has charged; what cannot be read says nothing."""
    found = located("/translate", "api-version=3.0&to=de")
    facts = found.read({"inputs": [{"text": "A"}, {"text": "BC"}]})
    judged = found.answers.judged(TWO, Form.WHOLE, facts, "application/json", ((b"X-Metered-Usage", said),))

    assert Usage(characters=expected) == judged.usage


@pytest.mark.parametrize(
    ("path", "query", "body"),
    [
        ("/detect", "api-version=3.0", b'[{"language":"de","score":1.0},{"language":"en","score":1.0}]'),
        ("/breaksentence", "api-version=3.0", b'[{"sentLen":[1]},{"sentLen":[2]}]'),
        ("/transliterate", "api-version=3.0", b'[{"text":"a","script":"Latn"},{"text":"b","script":"Latn"}]'),
        ("/transliterate", NEWER, b'{"value":[{"text":"a","script":"Latn"},{"text":"b","script":"Latn"}]}'),
        ("/dictionary/lookup", "api-version=3.0", b'[{"translations":[]},{"translations":[]}]'),
        ("/dictionary/examples", "api-version=3.0", b'[{"examples":[]},{"examples":[]}]'),
    ],
)
def test_other_answers(path, query, body):
    """Each operation has its own form, with one result for each text."""
    found = located(path, query)
    facts = found.read({"inputs": [{"Text": "A"}, {"Text": "BC"}]})

    def complete(answer: bytes) -> Completeness:
        return found.answers.judged(answer, Form.WHOLE, facts, "application/json").complete

    assert Completeness.WHOLE is complete(body)
    assert Completeness.WHOLE is not complete(body.replace(b"},{", b"}] [{"))
    assert Completeness.MISSHAPEN is complete(b"[]" if query != NEWER else b'{"value":[]}')
