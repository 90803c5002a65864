"""Replies that are none."""

from __future__ import annotations

from hypothesis import strategies as st

from sidecar.redis_link.replies import DEEPEST, LONGEST_LINE, MOST_ELEMENTS

MOST = 1_000_000

GARBLED = {
    "a thousand million elements": b"*1000000000\r\n",
    "within an array": b"*2\r\n:1\r\n*1000000000\r\n",
    "many arrays of many": b"*100000\r\n*100000\r\n",
    "one too many": b"*%d\r\n" % (MOST_ELEMENTS + 1),
    "a long string": b"$10000000000\r\n",
    "strings that are long together": b"*2\r\n$%d\r\n%b\r\n$%d\r\n" % (MOST // 2, bytes(MOST // 2), MOST // 2),
    "deep": b"*1\r\n" * (DEEPEST + 1),
    "an endless status": b"+" + b"x" * LONGEST_LINE,
    "an endless header": b"*" + b"1" * LONGEST_LINE,
    "a length of many digits": b"$" + b"9" * 5000 + b"\r\n",
    "a length that is none": b"$x\r\n",
    "no length": b"*\r\n",
    "a map": b"%1\r\n+a\r\n+b\r\n",
    "a set": b"~1\r\n+a\r\n",
    "a push": b">1\r\n+a\r\n",
    "an attribute": b"|1\r\n+a\r\n+b\r\n:1\r\n",
    "a nil of RESP3": b"_\r\n",
    "a truth value": b"#t\r\n",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "an empty line": b"\r\n",
}


def replies() -> st.SearchStrategy[bytes]:
    """Replies as Redis has them."""
    lines = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=9).map(
        lambda text: text.encode("latin-1")
    )
    leaves = st.one_of(
        st.binary(max_size=300).map(lambda data: b"$%d\r\n%b\r\n" % (len(data), data)),
        st.integers(-(2**63), 2**63 - 1).map(lambda number: b":%d\r\n" % number),
        lines.map(lambda text: b"+" + text + b"\r\n"),
        lines.map(lambda text: b"-" + text + b"\r\n"),
        st.sampled_from([b"$-1\r\n", b"*-1\r\n", b"*0\r\n", b"$0\r\n\r\n"]),
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=5).map(lambda items: b"*%d\r\n" % len(items) + b"".join(items)),
        max_leaves=20,
    )
