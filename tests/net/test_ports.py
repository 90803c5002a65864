"""Ports that are taken, and by whom."""

import os
import socket
from contextlib import contextmanager
from pathlib import Path

import pytest

from sidecar.net.ports import holder, is_free, next_free


@contextmanager
def listening(host="127.0.0.1", family=socket.AF_INET):
    """A port that somebody listens on."""
    with socket.socket(family) as server:
        server.bind((host, 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.fixture
def taken():
    with listening() as port:
        yield port


def test_is_free(taken):
    """A port that is listened on is taken, on this host and for all hosts."""

    assert not is_free("127.0.0.1", taken)
    assert not is_free("0.0.0.0", taken)


def test_is_free_again():
    """A port that was let go is free, though connections of it may linger."""
    with listening() as port, socket.create_connection(("127.0.0.1", port)):
        pass

    assert is_free("127.0.0.1", port)


@pytest.mark.parametrize("host", ["203.0.113.7", "fe80::1"])
def test_not_ours(host):
    """An address that is not this machine's cannot be listened on."""

    assert not is_free(host, 0)


def test_next_free(taken):
    """The first port from the given one on that is free and wanted by nobody else."""
    found = next_free("127.0.0.1", taken)

    assert taken < found
    assert is_free("127.0.0.1", found)
    assert found < next_free("127.0.0.1", taken, frozenset({found}))


def test_next_free_gives_up(taken):
    """Where none of the tries is free, any will do."""

    assert 0 == next_free("127.0.0.1", taken, tries=1)
    assert 0 == next_free("127.0.0.1", 65_535, frozenset({65_535}))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux' /proc")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_holder(host):
    """Whoever listens is named with its process."""
    try:
        with listening(host, socket.AF_INET6 if ":" in host else socket.AF_INET) as port:
            name = Path("/proc/self/comm").read_text().strip()

            assert f"{name} (process {os.getpid()})" == holder(port)
    except OSError:
        pytest.skip("no IPv6 on this machine")

    assert "" == holder(port)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux' /proc")
def test_holder_listens(taken):
    """Who is only connected to a port does not hold it."""
    with socket.create_connection(("127.0.0.1", taken)) as client:
        assert "" == holder(client.getsockname()[1])
