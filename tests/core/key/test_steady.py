"""A reader of bodies that goes wrong says so when it is asked, and not where the body arrives."""

import pytest

from sidecar.core.key import canonical
from sidecar.core.key.json_scanner import Scanner
from sidecar.core.key.steady import SteadyObserver
from sidecar.dialects import DIALECTS

ENDPOINT = DIALECTS["openai"].locate(b"POST", "/v1/chat/completions")
BODY = b'{"model":"m","messages":[{"role":"user","content":"%b"}]}' % (b"x" * canonical.SMALL)


def steady():
    return SteadyObserver(ENDPOINT, b"application/json", b"key")


def test_reads_as_the_observer_does():
    """Nothing is added to what the body says."""
    found = steady()
    for at in range(0, len(BODY), 65_536):
        found.feed(BODY[at : at + 65_536])

    assert canonical.read(BODY, ENDPOINT, b"application/json", b"key") == found.reading()
    assert "<SteadyObserver>" == repr(found)


@pytest.mark.parametrize("where", ["making", "feeding"])
def test_an_error_waits(monkeypatch, where):
    """Whatever goes wrong, the body arrives; what went wrong first is told when the reading is asked for."""
    fed = []

    def fail(*args):
        fed.append(args)
        raise RuntimeError("a bug")

    if where == "making":
        monkeypatch.setattr(canonical, "observer", fail)
    else:
        monkeypatch.setattr(Scanner, "feed", fail)
    found = steady()
    found.feed(b"{")
    found.feed(b"}")

    assert 1 == len(fed)
    assert "<SteadyObserver failed>" == repr(found)
    with pytest.raises(RuntimeError, match="a bug"):
        found.reading()
