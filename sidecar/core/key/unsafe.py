"""
Why a request body cannot be used for the cache.

The rule: a closed set. Each word is a bypass reason that callers, logs and metrics see. Such a call is not refused: it
goes upstream byte for byte as it came.
"""

from __future__ import annotations

from enum import StrEnum


class Unsafe(StrEnum):
    """A reason why two different bodies might share a key, or one body might be read in two ways."""

    AMBIGUOUS_DOCUMENT = "ambiguous-document"
    DUPLICATE_KEY = "duplicate-key"
    FILE_ID = "file-id"
    INVALID_BASE64 = "invalid-base64"
    INVALID_JSON = "invalid-json"
    INVALID_MULTIPART = "invalid-multipart"
    INVALID_UTF8 = "invalid-utf8"
    LONE_SURROGATE = "lone-surrogate"
    NEGATIVE_ZERO = "negative-zero"
    NESTING = "nesting"
    NO_DOCUMENT = "no-document"
    NOT_AN_OBJECT = "not-an-object"
    NUMBER_OUT_OF_RANGE = "number-out-of-range"
    UNREADABLE_MEMBER = "unreadable-member"
