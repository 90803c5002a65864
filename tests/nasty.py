"""
Bodies that parsers read differently, or not at all, each with the one reason that we give for it.

The rule: the reason is a fact of the bytes. It stands here, and no library decides it.
"""

from __future__ import annotations

from typing import Final

from sidecar.core.key.json_rule import DEEPEST, LONGEST_INTEGER
from sidecar.core.key.unsafe import Unsafe

NASTY: Final[dict[str, tuple[bytes, Unsafe]]] = {
    # Not UTF-8: before anything else.
    "no utf-8 in a value": (b'{"a":"\xff"}', Unsafe.INVALID_UTF8),
    "no utf-8 in a name": (b'{"\xff":1}', Unsafe.INVALID_UTF8),
    "no utf-8 in a name far down": (b'{"a":[{"b":{"\xff":1}}]}', Unsafe.INVALID_UTF8),
    "no utf-8 behind the end": (b'{"a":1} \xff', Unsafe.INVALID_UTF8),
    "no utf-8 outside of strings": (b'{"a":\xff}', Unsafe.INVALID_UTF8),
    "a character cut at the end": (b'{"a":1}\xe2\x82', Unsafe.INVALID_UTF8),
    "an overlong character": (b'{"a":"\xc0\xaf"}', Unsafe.INVALID_UTF8),
    "a surrogate as bytes": (b'{"a":"\xed\xa0\x80"}', Unsafe.INVALID_UTF8),
    "utf-16": ('{"a":1}'.encode("utf-16"), Unsafe.INVALID_UTF8),
    "no utf-8 behind too many levels": (b"[" * 10_000 + b"\xff", Unsafe.INVALID_UTF8),
    "no utf-8 behind what is no json": (b'{"a":NaN,"a":"\\ud800",}{\xff', Unsafe.INVALID_UTF8),
    "no utf-8 in an array": (b'["\xff"]', Unsafe.INVALID_UTF8),
    # Too deep: before the syntax, whatever else is wrong.
    "too many arrays": (b'{"a":' + b"[" * DEEPEST + b"]" * DEEPEST + b"}", Unsafe.NESTING),
    "too many objects": (b'{"a":' * (DEEPEST + 1) + b"1" + b"}" * (DEEPEST + 1), Unsafe.NESTING),
    "10 000 arrays": (b"[" * 10_000, Unsafe.NESTING),
    "10 000 arrays that close": (b"[" * 10_000 + b"]" * 10_000, Unsafe.NESTING),
    "10 000 objects": (b"{" * 10_000, Unsafe.NESTING),
    "10 000 objects with names": (b'{"a":' * 10_000, Unsafe.NESTING),
    "10 000 arrays in an object": (b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", Unsafe.NESTING),
    "levels behind what is no number": (b'{"a":NaN,"b":' + b"[" * 10_000, Unsafe.NESTING),
    "levels behind a wrong comma": (b'{,"b":' + b"[" * 10_000, Unsafe.NESTING),
    "levels behind the end": (b'{"a":1}' + b"[" * (DEEPEST + 1), Unsafe.NESTING),
    "levels behind crossed brackets": (b'{"a":[}]' + b"{" * (DEEPEST + 1), Unsafe.NESTING),
    "levels in the first of two members": (
        b'{"a":' + b"[" * DEEPEST + b"]" * DEEPEST + b',"a":1}', Unsafe.NESTING,
    ),
    # No object, by its first byte.
    "an array": (b"[]", Unsafe.NOT_AN_OBJECT),
    "an array that is cut": (b"[1,", Unsafe.NOT_AN_OBJECT),
    "a string": (b' "a"', Unsafe.NOT_AN_OBJECT),
    "a number": (b"-1", Unsafe.NOT_AN_OBJECT),
    "null": (b"null", Unsafe.NOT_AN_OBJECT),
    # No JSON.
    "empty": (b"", Unsafe.INVALID_JSON),
    "blanks alone": (b" \t\r\n" * 10, Unsafe.INVALID_JSON),
    "a byte order mark": (b'\xef\xbb\xbf{"a":1}', Unsafe.INVALID_JSON),
    "a NUL in front": (b'\x00{"a":1}', Unsafe.INVALID_JSON),
    "a NUL behind": (b'{"a":1}\x00', Unsafe.INVALID_JSON),
    "a NUL in a string": (b'{"a":"\x00"}', Unsafe.INVALID_JSON),
    "a NUL in a name": (b'{"a\x00":1}', Unsafe.INVALID_JSON),
    "a line end in a string": (b'{"a":"\n"}', Unsafe.INVALID_JSON),
    "a wide blank": ('{"a":\u00a01}'.encode(), Unsafe.INVALID_JSON),
    "a comma behind the last member": (b'{"a":1,}', Unsafe.INVALID_JSON),
    "a comma behind the last item": (b'{"a":[1,]}', Unsafe.INVALID_JSON),
    "two documents": (b'{"a":1}{"a":1}', Unsafe.INVALID_JSON),
    "two lines": (b'{"a":1}\n{"a":1}\n', Unsafe.INVALID_JSON),
    "cut": (b'{"a":"b', Unsafe.INVALID_JSON),
    "cut in an escape": (b'{"a":"\\', Unsafe.INVALID_JSON),
    "a name without quotes": (b"{a:1}", Unsafe.INVALID_JSON),
    "single quotes": (b"{'a':1}", Unsafe.INVALID_JSON),
    "a comment": (b'{"a":1/**/}', Unsafe.INVALID_JSON),
    "two colons": (b'{"a"::1}', Unsafe.INVALID_JSON),
    "three parts": (b'{"a":1:2}', Unsafe.INVALID_JSON),
    "a leading zero": (b'{"a":01}', Unsafe.INVALID_JSON),
    "a plus": (b'{"a":+1}', Unsafe.INVALID_JSON),
    "a point without digits": (b'{"a":1.}', Unsafe.INVALID_JSON),
    "a minus alone": (b'{"a":-}', Unsafe.INVALID_JSON),
    "digits of another script": ('{"a":\u0661}'.encode(), Unsafe.INVALID_JSON),
    "an unknown escape": (b'{"a":"\\x41"}', Unsafe.INVALID_JSON),
    "half an escape": (b'{"a":"\\u12"}', Unsafe.INVALID_JSON),
    "no json behind what is no number": (b'{"a":NaN,"b":}', Unsafe.INVALID_JSON),
    "no json behind a surrogate": (b'{"a":"\\ud800","b":}', Unsafe.INVALID_JSON),
    "no json behind a duplicate": (b'{"a":1,"a":2,}', Unsafe.INVALID_JSON),
    "not a number, alone": (b"NaN", Unsafe.INVALID_JSON),
    "a capital literal": (b'{"a":True}', Unsafe.INVALID_JSON),
    # Numbers that no double holds.
    "not a number": (b'{"a":NaN}', Unsafe.NUMBER_OUT_OF_RANGE),
    "infinity": (b'{"a":[Infinity]}', Unsafe.NUMBER_OUT_OF_RANGE),
    "infinity below zero": (b'{"a":{"b":-Infinity}}', Unsafe.NUMBER_OUT_OF_RANGE),
    "1e400": (b'{"a":1e400}', Unsafe.NUMBER_OUT_OF_RANGE),
    "-1e400": (b'{"a":-1e400}', Unsafe.NUMBER_OUT_OF_RANGE),
    "400 zeros and a point": (b'{"a":1' + b"0" * 400 + b".0}", Unsafe.NUMBER_OUT_OF_RANGE),
    "the integer that is too long": (b'{"a":' + b"1" * (LONGEST_INTEGER + 1) + b"}", Unsafe.NUMBER_OUT_OF_RANGE),
    "the integer below zero that is too long": (
        b'{"a":-' + b"1" * LONGEST_INTEGER + b"}", Unsafe.NUMBER_OUT_OF_RANGE,
    ),
    "no number behind a surrogate": (b'{"a":"\\ud800","a":NaN,"b":-0}', Unsafe.NUMBER_OUT_OF_RANGE),
    # Halves of surrogate pairs.
    "a high surrogate": (b'{"a":"\\ud800"}', Unsafe.LONE_SURROGATE),
    "a low surrogate": (b'{"a":["\\uDC00 "]}', Unsafe.LONE_SURROGATE),
    "a pair the wrong way round": (b'{"a":"\\udc00\\ud800"}', Unsafe.LONE_SURROGATE),
    "two high surrogates": (b'{"a":"\\ud83d\\ud83d\\ude02"}', Unsafe.LONE_SURROGATE),
    "a high surrogate before another escape": (b'{"a":"\\ud83d\\n"}', Unsafe.LONE_SURROGATE),
    "a surrogate in a name": (b'{"\\ud800":1}', Unsafe.LONE_SURROGATE),
    "a surrogate in a name far down": (b'{"a":[{"b":{"\\udfff":1}}]}', Unsafe.LONE_SURROGATE),
    "a surrogate behind an escaped backslash": (b'{"a":"\\\\\\ud800"}', Unsafe.LONE_SURROGATE),
    "a surrogate and a duplicate": (b'{"a":"\\ud800","a":-0}', Unsafe.LONE_SURROGATE),
    # What parsers read, each in its own way.
    "a name twice": (b'{"a":1,"a":1}', Unsafe.DUPLICATE_KEY),
    "a name twice far down": (b'{"a":[[{"b":{"c":1,"d":2,"c":3}}]]}', Unsafe.DUPLICATE_KEY),
    "a name twice in two spellings": (b'{"a":1,"\\u0061":2}', Unsafe.DUPLICATE_KEY),
    "a name of colons twice": (b'{"a::b":1,"a:\\u003ab":2}', Unsafe.DUPLICATE_KEY),
    "an empty name twice": (b'{"":1,"":2}', Unsafe.DUPLICATE_KEY),
    "a name twice behind a zero": (b'{"a":-0,"a":1}', Unsafe.DUPLICATE_KEY),
    "a zero below zero": (b'{"a":-0}', Unsafe.NEGATIVE_ZERO),
    "a zero below zero far down": (b'{"a":[{"b":[ -0 ]}]}', Unsafe.NEGATIVE_ZERO),
}  # fmt: skip
"""By what is wrong: the body, and why we bypass it. Of several faults in one body the first in this order is told."""

ODD: Final[dict[str, bytes]] = {
    "names with two dots": b'{"a.b.c":1,"..":{"x.y.z":2}}',
    "names with two colons": b'{"a::b":1,":":":"}',
    "an empty name": b'{"":{"":""}}',
    "the deepest that is allowed": b'{"a":' + b"[" * (DEEPEST - 1) + b"]" * (DEEPEST - 1) + b"}",
    "brackets in strings": b'{"a":"' + b"[{" * 10_000 + b'"}',
    "quotes and backslashes": b'{"a\\"":"\\\\\\"[\\\\"}',
    "the longest integer": b'{"a":' + b"1" * LONGEST_INTEGER + b"}",
    "the smallest float": b'{"a":[5e-324,1e-400,1.7976931348623157e308,-0.0,-0e1]}',
    "whole pairs": b'{"a":"\\ud83d\\ude02\\\\ud800\\\\\\ud83d\\uDE02","\\uD83D\\uDE02":1}',
    "NUL as an escape": b'{"a":"\\u0000"}',
    "a byte order mark within": '{"\ufeff":"\ufeff"}'.encode(),
    "blanks everywhere": b' \n{ \t"a"\r: [ 1 , 2 ] } \n',
}
"""Bodies that look no better, and that each parser reads in the same way."""
