"""
What the stand-in reads in a document: pages of lines of words, with their places.

The rule: the bytes decide everything, and the text that is in them comes out of them. Each page ends with a line that
holds a digest of all bytes, so no two documents have the same result.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from typing import Final

_PDF_PAGE: Final = re.compile(rb"/Type\s*/Page\b(?!s)")
_PDF_TEXT: Final = re.compile(rb"\(((?:[^()\\]|\\.)*+)(\)\s*+Tj)?+")
"""A string, and whether it is drawn; what is no drawn string is passed over, and not read twice."""

_PDF_SPECIAL: Final = re.compile(r"[()\\]")
_ESCAPED: Final = r"\\\g<0>"
_PDF_SHEET: Final = "/MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >>"
_READABLE: Final = re.compile(rb"[ -~]{4,}")
_RANGE: Final = re.compile(r"(\d+)(?:-(\d+))?\Z")

MARK = "Canned by the demo provider:"
"""How the last line of each page begins."""

_LINES = 40
"""How many lines are read on a page that is no PDF's."""


def digest_of(data: bytes) -> str:
    """By what the stand-in knows a document: a digest of its bytes."""
    return sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class PageWord:
    """A word, and where it begins in the text of all pages."""

    text: str
    offset: int


@dataclass(frozen=True, slots=True)
class PageLine:
    """A line, and where it begins in the text of all pages."""

    text: str
    offset: int

    @property
    def words(self) -> list[PageWord]:
        """Its words."""
        return [PageWord(found.group(), self.offset + found.start()) for found in re.finditer(r"\S+", self.text)]


@dataclass(frozen=True, slots=True)
class ReadPage:
    """A page: its number in the document, from 1, and its lines."""

    number: int
    lines: tuple[PageLine, ...]

    @property
    def offset(self) -> int:
        """Where it begins in the text of all pages."""
        return self.lines[0].offset

    @property
    def length(self) -> int:
        """Its text's length."""
        return self.lines[-1].offset + len(self.lines[-1].text) - self.offset


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """A document as it was read: a digest of its bytes, its text, and its pages."""

    digest: str
    content: str
    pages: tuple[ReadPage, ...]


def read_document(data: bytes, wanted: str = "", between: str = "\n") -> ReadDocument:
    """
    Read *data*; of its pages those that *wanted* names (``1-3,5``; all where it is empty). *between* stands between the
    lines of the text. Raises ``ValueError`` where no page is wanted.
    """
    digest = digest_of(data)
    texts = [[*lines, f"{MARK} {digest[:16]}-{number}"] for number, lines in enumerate(_texts(data), 1)]
    numbers = [number for number in range(1, len(texts) + 1) if not wanted or number in _numbers(wanted, len(texts))]
    if not numbers:
        raise ValueError("no such page")
    lines = [line for number in numbers for line in texts[number - 1]]
    offsets = iter(accumulate((len(line) + len(between) for line in lines), initial=0))
    pages = tuple(
        ReadPage(number, tuple(PageLine(line, next(offsets)) for line in texts[number - 1])) for number in numbers
    )
    return ReadDocument(digest, between.join(lines), pages)


def _texts(data: bytes) -> Sequence[list[str]]:
    """The lines of each page: those that a PDF draws, else what is readable."""
    if count := len(_PDF_PAGE.findall(data)):
        streams = [piece.partition(b"stream")[2] for piece in data.split(b"endstream")[:-1]]
        drawn = [[text for text, drawn in _PDF_TEXT.findall(stream) if drawn] for stream in streams[:count]]
        found = [[re.sub(rb"\\(.)", rb"\1", text) for text in texts] for texts in drawn]
        return [[text.decode("latin-1") for text in texts] for texts in found + [[]] * (count - len(found))]
    return [[text.decode().strip() for text in _READABLE.findall(data[:4096])[:_LINES]]]


def _numbers(wanted: str, count: int) -> frozenset[int]:
    """The pages that *wanted* names. Raises ``ValueError`` where it cannot be read."""
    numbers: set[int] = set()
    for part in wanted.split(","):
        found = _RANGE.match(part.strip())
        if found is None:
            raise ValueError("no range of pages")
        first, last = int(found[1]), int(found[2] or found[1])
        numbers.update(range(first, min(last, count) + 1))
    return frozenset(numbers)


def pdf(pages: Iterable[Sequence[str]]) -> bytes:
    """A PDF that draws these lines, a sequence for each page; viewers can open it."""
    drawn = [
        "BT /F1 11 Tf 14 TL 72 720 Td\n"
        + "\n".join(f"({_PDF_SPECIAL.sub(_ESCAPED, line)}) Tj T*" for line in lines)
        + "\nET"
        for lines in pages
    ]
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(drawn)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {len(drawn)} /Kids [{kids}] >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(drawn):
        objects += [
            f"<< /Type /Page /Parent 2 0 R /Contents {5 + 2 * number} 0 R {_PDF_SHEET} >>",
            f"<< /Length {len(text)} >>\nstream\n{text}\nendstream",
        ]
    parts = ["%PDF-1.4\n", *(f"{number} 0 obj\n{text}\nendobj\n" for number, text in enumerate(objects, 1))]
    *starts, end = accumulate(map(len, parts))
    table = "".join(f"{start:010} 00000 n \n" for start in starts)
    parts.append(
        f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
        f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{end}\n%%EOF\n"
    )
    return "".join(parts).encode("latin-1", "replace")
