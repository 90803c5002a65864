"""Who may act, and under which names."""

from __future__ import annotations

import pytest

from sidecar.admin.access import admit, authority, check_host, is_loopback, plain, read_token
from sidecar.errors import Refused

TOKEN = "correct-horse-battery"  # pragma: allowlist secret


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return path


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.0.0.9", "::1"])
def test_without_a_token_this_machine_acts(peer):
    """And shows nothing for it: there is no fingerprint."""
    assert "" == admit("", peer, ())
    assert "" == admit("", peer, ("Bearer anything-at-all-here",))


@pytest.mark.parametrize("peer", ["10.0.0.1", "fe80::1", ""])
def test_without_a_token_nobody_else_acts(peer):
    """Whoever it is."""
    with pytest.raises(Refused) as caught:
        admit("", peer, ())

    assert (403, "no-token") == (caught.value.status, caught.value.code)


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN} "])
@pytest.mark.parametrize("peer", ["127.0.0.1", "10.0.0.1"])
def test_the_token_lets_in(token_file, peer, header):
    """From anywhere; who it was is a fingerprint of 8 hexadecimal digits."""
    fingerprint = admit(str(token_file), peer, (header,))

    assert 8 == len(fingerprint)
    assert int(fingerprint, 16) >= 0
    assert admit(str(token_file), "::1", (f"Bearer {TOKEN}",)) == fingerprint


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        pytest.param((), "token-missing", id="nothing"),
        pytest.param((TOKEN,), "token-missing", id="no-scheme"),
        pytest.param((f"Basic {TOKEN}",), "token-missing", id="another-scheme"),
        pytest.param((f"Bearer {TOKEN}", f"Bearer {TOKEN}"), "token-missing", id="twice"),
        pytest.param(("Bearer ",), "wrong-token", id="empty"),
        pytest.param((f"Bearer {TOKEN[:-1]}",), "wrong-token", id="shorter"),
        pytest.param((f"Bearer {TOKEN}x",), "wrong-token", id="longer"),
        pytest.param((f"Bearer {TOKEN.upper()}",), "wrong-token", id="upper-case"),
        pytest.param(("Bearer \udcff\u00e9",), "wrong-token", id="not-ascii"),
    ],
)
def test_another_token_does_not(token_file, headers, code):
    """This machine's callers need it as well, once there is one."""
    with pytest.raises(Refused) as caught:
        admit(str(token_file), "127.0.0.1", headers)

    assert (401, code) == (caught.value.status, caught.value.code)
    assert TOKEN not in caught.value.message


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "No such file or directory"),
        (b"\n", "is empty"),
        (b"fifteen-letters", "is not one line of 16 to 1024"),
        (b"two-long-enough\nlines-of-a-token", "is not one line"),
        ("t\u00f6ken-of-letters-x".encode(), "is not one line"),
        (b"x" * 1025, "is not one line"),
    ],
    ids=["missing", "empty", "short", "two-lines", "not-ascii", "long"],
)
def test_a_token_that_cannot_be_read_lets_nobody_in(tmp_path, data, reason):
    """The message names the file and the reason."""
    path = tmp_path / "token"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(Refused) as caught:
        admit(str(path), "127.0.0.1", ("Bearer ",))

    assert (503, "token-unreadable") == (caught.value.status, caught.value.code)
    assert f"{path}: {reason}" in caught.value.message


def test_a_rotated_token_counts_at_once(token_file):
    """The file is what it is now."""
    admit(str(token_file), "::1", (f"Bearer {TOKEN}",))
    token_file.write_text("another-token-by-now")
    with pytest.raises(Refused, match="not the token"):
        admit(str(token_file), "::1", (f"Bearer {TOKEN}",))

    assert admit(str(token_file), "::1", ("Bearer another-token-by-now",))
    assert b"another-token-by-now" == read_token(str(token_file))


@pytest.mark.parametrize(
    ("shown", "listening", "here", "port"),
    [
        ("127.0.0.1:7490", "127.0.0.1", "127.0.0.1", 7490),
        ("LocalHost:7490", "127.0.0.1", "127.0.0.1", 7490),
        ("[::1]:7490", "::1", "::1", 7490),
        ("10.1.2.3:7490", "0.0.0.0", "10.1.2.3", 7490),
        ("[fd00::7]:7490", "::", "fd00::7", 7490),
        ("sidecar.internal:7490", "sidecar.internal", "10.1.2.3", 7490),
        ("localhost", "127.0.0.1", "127.0.0.1", 80),
    ],
)
def test_own_names(shown, listening, here, port):
    """The address that listens, the one that was connected to, and this machine's; with the port."""
    check_host((shown,), listening, here, port)

    with pytest.raises(Refused):
        check_host((shown, shown), listening, here, port)


@pytest.mark.parametrize(
    "shown",
    ["evil.example:7490", "evil.example", "127.0.0.1", "127.0.0.1:7491", "10.9.9.9:7490", "", "localhost:7490."],
)
def test_foreign_names(shown):
    """A browser that was led here shows the name that led it."""
    with pytest.raises(Refused) as caught:
        check_host((shown,), "127.0.0.1", "127.0.0.1", 7490)

    assert (421, "wrong-host") == (caught.value.status, caught.value.code)
    assert caught.value.message.endswith("call it as 127.0.0.1:7490 or localhost:7490")


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.1", False), ("localhost.evil.example", False), ("", False)],
)  # fmt: skip
def test_is_loopback(host, expected):
    """What nobody outside this machine reaches."""
    assert expected is is_loopback(host)


def test_how_addresses_are_written():
    """As URLs have them, and without the form of a dual-stack listener."""
    assert ("a:1", "[::1]:1") == (authority("a", 1), authority("::1", 1))
    assert ("10.0.0.1", "::1", "fd00::ffff:1") == (plain("::ffff:10.0.0.1"), plain("::1"), plain("fd00::ffff:1"))
