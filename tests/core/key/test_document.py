"""One document has one reading, in whatever form it comes; all else in a body separates."""

from __future__ import annotations

import base64
import json
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.dialect import BodyForm, Documents, Endpoint, Kind, Shape
from sidecar.core.key.canonical import SMALL, observer, read, whole
from sidecar.core.key.document import Document
from sidecar.core.key.embedded import Base64Digest, EmbeddedDocuments
from sidecar.core.key.unsafe import Unsafe
from sidecar.core.model import Facts
from sidecar.dialects.plain import OPAQUE

KEY = b"k" * 32
ENDPOINT = Endpoint(
    "document",
    Kind.OCR,
    BodyForm.DOCUMENT,
    lambda _: Facts(deterministic=True),
    OPAQUE,
    documents=Documents(frozenset({"base64Source"}), frozenset({"urlSource"})),
)
INPUTS = replace(ENDPOINT, documents=Documents(frozenset({"data"}), frozenset({"url"}), frozenset({"inputs"})))
JSON, PDF, FORM = b"application/json", b"application/pdf", b"multipart/form-data; boundary=x"
LARGE = bytes(range(256)) * 4096


def text(document: bytes) -> str:
    return base64.b64encode(document).decode()


def in_json(document: bytes, **members: object) -> bytes:
    return json.dumps({"base64Source": text(document), **members}).encode()


def in_form(document: bytes, head: str = 'name="file"; filename="a.pdf"', more: bytes = b"") -> bytes:
    return b"--x\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n%b--x--\r\n" % (head.encode(), document, more)


def reading_of(body: bytes, content_type: bytes = JSON, endpoint: Endpoint = ENDPOINT, size: int = 0):
    if not size:
        return read(body, endpoint, content_type, KEY)
    passing = observer(endpoint, content_type, KEY)
    for at in range(0, len(body), size):
        passing.feed(body[at : at + size])
    return passing.reading()


def reason(body: bytes, content_type: bytes = JSON, endpoint: Endpoint = ENDPOINT) -> str:
    found = reading_of(body, content_type, endpoint)
    assert not (found.facts.bypass and found.material)
    return found.facts.bypass


FORMS = {
    "octets": lambda document: (document, b"application/octet-stream"),
    "PDF": lambda document: (document, b"application/pdf; x=y"),
    "image": lambda document: (document, b"Image/JPEG"),
    "word": lambda document: (document, b"application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    "base64": lambda document: (in_json(document), JSON),
    "base64 of a gateway": lambda document: (in_json(document), b"application/vnd.x+json; charset=utf-8"),
    "base64 with blanks around": lambda document: (
        b' {\n "base64Source" :\t"%b"\r\n} ' % text(document).encode(), b"Application/JSON;charset=UTF-8"),
    "base64 under an escaped name": lambda document: (
        b'{"base64\\u0053ource":"%b"}' % text(document).encode(), JSON),
    "form": lambda document: (in_form(document), FORM),
    "form with another name": lambda document: (in_form(document, 'name="d"; filename="b.tiff"'), FORM),
}  # fmt: skip


@given(st.binary(max_size=600), st.sampled_from(sorted(FORMS)), st.sampled_from(sorted(FORMS)), st.integers(1, 700))
def test_one_document(document, one, other, size):
    """Its form does not count, nor how it is cut."""
    if b"\r\n--x" in b"\r\n" + document:
        return
    first, second = (FORMS[name](document) for name in (one, other))

    assert not reading_of(*first).facts.bypass
    assert reading_of(*first) == reading_of(*second, size=size)


@pytest.mark.parametrize("size", [1000, 4096, 65_536, 262_144, len(LARGE) * 2])
@pytest.mark.parametrize("form", sorted(FORMS))
def test_one_large_document(form, size):
    """A body of any size is read as a small one."""
    assert len(LARGE) > SMALL
    assert reading_of(LARGE, PDF) == reading_of(*FORMS[form](LARGE), size=size)


MEMBERS = st.dictionaries(
    st.sampled_from(["pages", "locale", "mimeType", "made_up", "A"]),
    st.none() | st.integers(-5, 5) | st.text("ab", max_size=2) | st.lists(st.integers(0, 2), max_size=2),
    max_size=3,
)


@given(st.binary(max_size=8), st.binary(max_size=8), MEMBERS, MEMBERS, st.booleans())
def test_what_separates(one, other, members, others, reverse):
    """Another byte or another member is another question; the order of members is none."""
    written = dict(reversed(others.items())) if reverse else others
    same = one == other and json.dumps(members, sort_keys=True) == json.dumps(others, sort_keys=True)

    assert same == (reading_of(in_json(one, **members)) == reading_of(in_json(other, **written)))


@given(st.binary(max_size=300), MEMBERS, st.integers(1, 400))
def test_small_as_large(document, members, size):
    """Members beside a document count the same, however the body came."""
    body = in_json(document, **members)

    assert reading_of(body) == reading_of(body, size=size)


SEPARATE = [
    (LARGE[:50], b"text/html"),
    (LARGE[:50], b"text/plain"),
    (LARGE[:50], b"application/rtf"),
    (LARGE[:50], b"application/pdf"),
    (in_json(LARGE[:50], pages="1"), JSON),
    (in_json(LARGE[:50], pages=1), JSON),
    (in_json(LARGE[:50], pages=None), JSON),
    (in_form(LARGE[:50], more=b'--x\r\nContent-Disposition: form-data; name="pages"\r\n\r\n1\r\n'), FORM),
    (in_form(LARGE[:50], 'name="file"; filename="a"\r\nContent-Type: text/html', b""), FORM),
    (b'{"urlSource":"https://a.example/d"}', JSON),
    (b'{"urlSource":"https://a.example/e"}', JSON),
    (b'{"urlSource":"https://a.example/d","pages":"1"}', JSON),
]


def test_separate():
    """Text in a type of its own, members, and fields of a form make other questions; only one pair here is the same."""
    found = [reading_of(*each) for each in SEPARATE]

    assert not any(each.facts.bypass for each in found)
    assert len(SEPARATE) - 1 == len({each.material for each in found})
    assert found[0] == found[8]  # the type of a file in a form says what the type of a body says


def test_charset_of_text():
    """Parameters of a type do not count here; a foreign charset is refused by the head."""
    assert reading_of(b"a", b"text/html; charset=utf-8") == reading_of(b"a", b"Text/HTML")


ODD = {
    "another alphabet": (b'{"base64Source":"ab-_"}', Unsafe.INVALID_BASE64),
    "a blank": (b'{"base64Source":"ab cd"}', Unsafe.INVALID_BASE64),
    "a line": (b'{"base64Source":"abcd\\nabcd"}', Unsafe.INVALID_BASE64),
    "an escape": (b'{"base64Source":"ab\\/d"}', Unsafe.INVALID_BASE64),
    "an escaped plus": (b'{"base64Source":"ab\\u002Bd"}', Unsafe.INVALID_BASE64),
    "no padding": (b'{"base64Source":"abc"}', Unsafe.INVALID_BASE64),
    "one letter": (b'{"base64Source":"abcda"}', Unsafe.INVALID_BASE64),
    "more padding": (b'{"base64Source":"abcd===="}', Unsafe.INVALID_BASE64),
    "padding and more": (b'{"base64Source":"ab==abcd"}', Unsafe.INVALID_BASE64),
    "set bits behind the end": (b'{"base64Source":"ab=="}', Unsafe.INVALID_BASE64),
    "a prefix": (b'{"base64Source":"data:application/pdf;base64,abcd"}', Unsafe.INVALID_BASE64),
    "no end": (b'{"base64Source":"abcd', Unsafe.INVALID_JSON),
    "twice": (b'{"base64Source":"abcd","base64Source":"abcd"}', Unsafe.DUPLICATE_KEY),
    "twice by an escape": (b'{"base64Source":"abcd","base64\\u0053ource":"abce"}', Unsafe.DUPLICATE_KEY),
    "a member twice": (b'{"base64Source":"abcd","a":1,"a":2}', Unsafe.DUPLICATE_KEY),
    "two sources": (b'{"base64Source":"abcd","urlSource":"https://a.example"}', Unsafe.AMBIGUOUS_DOCUMENT),
    "a name in another case": (b'{"base64Source":"abcd","UrlSource":"https://a.example"}', Unsafe.AMBIGUOUS_DOCUMENT),
    "only in another case": (b'{"URLSource":"https://a.example"}', Unsafe.AMBIGUOUS_DOCUMENT),
    "none": (b'{"pages":"1"}', Unsafe.NO_DOCUMENT),
    "null": (b'{"base64Source":null}', Unsafe.NO_DOCUMENT),
    "deeper": (b'{"a":{"base64Source":"abcd"}}', Unsafe.NO_DOCUMENT),
    "a number": (b'{"base64Source":1}', "unreadable"),
    "an object": (b'{"urlSource":{"digest":"a"}}', "unreadable"),
    "an array": (b'[{"base64Source":"abcd"}]', Unsafe.NOT_AN_OBJECT),
    "text behind": (b'{"base64Source":"abcd"}x', Unsafe.INVALID_JSON),
    "no JSON": (b"%PDF-1.7", Unsafe.INVALID_JSON),
    "a bracket too few": (b'{"base64Source":"abcd"', Unsafe.INVALID_JSON),
    "a bracket too many": (b']}{"base64Source":"abcd"}', Unsafe.INVALID_JSON),
    "no UTF-8": (b'{"base64Source":"abcd","a":"\xff"}', Unsafe.INVALID_UTF8),
    "nesting": (b'{"base64Source":"abcd","a":%b}' % (b"[" * 200 + b"]" * 200), Unsafe.NESTING),
    "much beside it": (b'{"base64Source":"abcd","a":"%b"}' % (b"a" * 300_000), Unsafe.UNREADABLE_MEMBER),
    "many blanks": (b'{"base64Source":"abcd"%b}' % (b" " * 300_000), Unsafe.UNREADABLE_MEMBER),
}  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 3, 7, 65_536])
@pytest.mark.parametrize("name", ODD)
def test_what_is_not_certain(name, size):
    """What services may read in two ways has a reason and no material, however it is cut."""
    body, expected = ODD[name]
    if size == 1 and len(body) > 10_000:
        size = 1000
    found = reading_of(body, size=size)

    assert (expected, b"") == (found.facts.bypass, found.material)


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b' {"base64Source":"abcd"}', b"", Unsafe.AMBIGUOUS_DOCUMENT),
        (b"\xef\xbb\xbf{", b"", Unsafe.AMBIGUOUS_DOCUMENT),
        (b"%PDF-1.7 {", b"", ""),
        (b"{\\rtf1", b"application/rtf", ""),
        (b"a", b"multipart/mixed; boundary=x", Unsafe.AMBIGUOUS_DOCUMENT),
        (b"a", b"application/pdf, application/json", Unsafe.AMBIGUOUS_DOCUMENT),
        (b"a", b"pdf", Unsafe.AMBIGUOUS_DOCUMENT),
        (b"a", FORM, Unsafe.INVALID_MULTIPART),
        (b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--', FORM, Unsafe.NO_DOCUMENT),
        (in_form(b"a", more=in_form(b"b")[: -len(b"--x--\r\n")]), FORM, Unsafe.AMBIGUOUS_DOCUMENT),
        (in_form(b"a", more=b'--x\r\nContent-Disposition: form-data; name="URLSource"\r\n\r\nhttps://a\r\n'), FORM,
         Unsafe.AMBIGUOUS_DOCUMENT),
    ],
)  # fmt: skip
def test_forms_that_are_not_certain(body, content_type, expected):
    """The content type says the form; what it does not say is not guessed."""
    assert expected == reason(body, content_type)


def inputs(*entries: object, **members: object) -> bytes:
    return json.dumps({"inputs": entries, **members}).encode()


def test_documents_in_arrays():
    """One bare document is that document; several, and what is said of them, count in their order."""
    bare = reading_of(b"abc", PDF)
    one, other = {"data": text(b"abc")}, {"data": text(b"abd")}
    found = [
        reading_of(body, endpoint=INPUTS)
        for body in (
            inputs(one, other), inputs(other, one), inputs(one, one), inputs({**one, "mimeType": "application/pdf"}),
            inputs({**one, "range": "1"}), inputs(one, modelDeployments={}), inputs({"url": "https://a"}, one),
            json.dumps({**one, "inputs": []}).encode(),
        )
    ]  # fmt: skip

    assert bare == reading_of(inputs(one), endpoint=INPUTS) == reading_of(json.dumps(one).encode(), endpoint=INPUTS)
    assert len(found) == len({each.material for each in [*found, bare]}) - 1
    assert reading_of(inputs({"range": "1", **one}), endpoint=INPUTS) == found[4]
    assert [("url-source",) if at == 6 else () for at in range(8)] == [each.facts.needs for each in found]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (inputs({"data": "abcd", "url": "https://a"}), Unsafe.AMBIGUOUS_DOCUMENT),
        (inputs({"data": "abcd"}, data="abcd"), Unsafe.AMBIGUOUS_DOCUMENT),
        (inputs({"Data": "abcd"}), Unsafe.AMBIGUOUS_DOCUMENT),
        (json.dumps({"Inputs": [{"data": "abcd"}], "inputs": [{"data": "abcd"}]}).encode(), Unsafe.AMBIGUOUS_DOCUMENT),
        (inputs({"data": "abc"}), Unsafe.INVALID_BASE64),
        (inputs([{"data": "abcd"}]), Unsafe.NO_DOCUMENT),
        (inputs(), Unsafe.NO_DOCUMENT),
        (inputs({"data": "abcd", "x": {"data": "a b"}}), ""),
        (json.dumps({"inputs": {"data": "abcd"}}).encode(), ""),
    ],
)
def test_arrays_that_are_not_certain(body, expected):
    """As at the top of a body."""
    assert expected == reason(body, endpoint=INPUTS)


def test_urls():
    """A document behind a URL needs a route that allows it; the URL counts without an Azure signature."""
    signed, again, other = (
        reading_of(json.dumps({"urlSource": f"https://a.blob.core.windows.net/c/{name}?{query}"}).encode())
        for name, query in (
            ("d.pdf", "sv=2024-11-04&sp=r&se=2026-01-01T00%3A00Z&sr=b&sig=abc"),
            ("d.pdf", "sv=2024-11-04&sig=def"),
            ("e.pdf", "sv=2024-11-04&sig=abc"),
        )
    )

    assert signed == again
    assert signed.material != other.material
    assert ("url-source",) == signed.facts.needs
    assert b"windows" not in signed.material


def test_members_that_do_not_count():
    """An endpoint's shape drops members here, too; its facts decide."""
    dropping = replace(ENDPOINT, shape=Shape(frozenset({"user"})))
    refusing = replace(ENDPOINT, read=lambda _: Facts(bypass="stateful"))

    assert reading_of(in_json(b"a")).material != reading_of(in_json(b"a", user="x")).material
    assert (
        reading_of(in_json(b"a", pages="1"), endpoint=dropping).material
        == reading_of(in_json(b"a", pages="1", user="x"), endpoint=dropping).material
    )
    assert b"" == reading_of(in_json(b"a"), endpoint=refusing).material


@given(st.binary(max_size=80), st.sampled_from([JSON, PDF, FORM, b"", b"text/html", b"x"]), st.integers(0, 9))
def test_any_bytes(body, content_type, size):
    """Nothing raises."""
    found = reading_of(body, content_type, INPUTS, size)

    assert not (found.facts.bypass and found.material)
    assert found == reading_of(body, content_type, INPUTS)


def test_a_refusal_is_for_the_very_bytes():
    """A service may refuse one form of a document and not another."""
    assert whole(b"a", ENDPOINT) != whole(in_json(b"a"), ENDPOINT)


@pytest.mark.parametrize("form", ["octets", "base64", "form"])
def test_memory(form):
    """A document passes without being held."""
    body, content_type = FORMS[form](LARGE * 8)
    chunks = [body[at : at + 65_536] for at in range(0, len(body), 65_536)]
    passing = observer(ENDPOINT, content_type, KEY)
    tracemalloc.start()
    try:
        for chunk in chunks:
            passing.feed(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert not passing.reading().facts.bypass
    assert peak < 512 * 1024


def test_repr():
    """The state in one line, and nothing of the document."""
    found = EmbeddedDocuments(ENDPOINT.documents, KEY)
    found.feed(in_json(b"secret"))

    assert "<EmbeddedDocuments sound, 1 found>" == repr(found)
    assert "<Base64Digest sound>" == repr(Base64Digest(KEY))
    assert "<Document _InJson>" == repr(Document(ENDPOINT, JSON, KEY))
