"""What the stand-in reads in a document comes out of its bytes, with places that fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.demo.documents.pages import MARK, pdf, read_document

TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=30)
PAGES = st.lists(st.lists(TEXT, max_size=4), min_size=1, max_size=4)


@given(pages=PAGES)
def test_a_pdf_is_read_as_it_was_written(pages):
    """Every page and every line of it, and a last line that only these bytes have."""
    document = read_document(pdf(pages))

    assert pages == [[line.text for line in page.lines[:-1]] for page in document.pages]
    for number, page in enumerate(document.pages, 1):
        assert f"{MARK} {document.digest[:16]}-{number}" == page.lines[-1].text


@given(data=st.binary(max_size=200), between=st.sampled_from(["\n", "\n\n"]))
def test_places(data, between):
    """Each line and each word stands in the text where it says."""
    document = read_document(data, between=between)

    for page in document.pages:
        assert document.content[page.offset :][: page.length] == between.join(line.text for line in page.lines)
        for line in page.lines:
            assert document.content[line.offset :].startswith(line.text)
            for word in line.words:
                assert document.content[word.offset :].startswith(word.text)


@given(first=st.binary(max_size=50), second=st.binary(max_size=50))
def test_other_bytes_are_another_result(first, second):
    """Two documents have the same text if they are the same."""

    assert (first == second) == (read_document(first).content == read_document(second).content)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("", [1, 2, 3, 4]), ("2", [2]), ("1-3", [1, 2, 3]), ("4,1-2", [1, 2, 4]), ("3-99", [3, 4])],
    ids=str,
)
def test_wanted_pages(wanted, expected):
    """Only these are read; they keep their numbers."""

    assert expected == [page.number for page in read_document(pdf([[]] * 4), wanted).pages]


@pytest.mark.parametrize("wanted", ["9", "x", "1-x", "1,,2", "-"], ids=str)
def test_no_such_pages(wanted):
    """A range that names no page, or is none, is refused."""
    with pytest.raises(ValueError):
        read_document(pdf([[]]), wanted)
