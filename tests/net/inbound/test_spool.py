"""Bodies on disk."""

import asyncio
import os

import pytest

from sidecar.errors import ClientGone, Refused
from sidecar.net.inbound.spool import CHUNK, Spools


@pytest.fixture
def spools(tmp_path):
    spools = Spools(str(tmp_path))
    yield spools
    spools.close()


async def _read(spool):
    return b"".join([chunk async for chunk in spool.chunks()])


async def test_reads_what_was_written(spools, tmp_path):
    """A body comes back in order, as often as it is asked for, and leaves no name in the folder."""
    spool = spools.create()
    body = os.urandom(CHUNK * 2 + 5)
    await spool.append([body[:7], body[7:9]])
    await spool.append([body[9:]])

    assert len(body) == spool.size
    assert body == await _read(spool)
    assert body == await _read(spool)
    assert [CHUNK, CHUNK, 5] == [len(chunk) async for chunk in spool.chunks()]
    assert [] == list(tmp_path.iterdir())
    spool.close()


async def test_empty(spools):
    """A file nothing was written to is an empty body, and closing it twice is harmless."""
    spool = spools.create()

    assert b"" == await _read(spool)
    spool.close()
    spool.close()


async def test_closed_under_a_reader(spools):
    """Who reads on after the request is over is told so."""
    spool = spools.create()
    await spool.append([bytes(CHUNK * 2)])
    chunks = spool.chunks()
    await anext(chunks)
    reading = asyncio.ensure_future(anext(chunks))
    await asyncio.sleep(0)
    spool.close()

    assert CHUNK == len(await reading)
    with pytest.raises(ClientGone):
        await anext(spool.chunks())


async def test_shared(spools):
    """A file stays until everybody who shares it has closed it, and is given back then."""
    spool = spools.create()
    await spool.append([b"abc"])
    spool.share()
    file = spool._file
    spool.close()

    assert b"abc" == await _read(spool)
    assert "<SpoolFile 3 bytes>" == repr(spool)
    spool.close()
    spool.close()
    with pytest.raises(ClientGone):
        await _read(spool)
    await asyncio.get_running_loop().run_in_executor(spools._thread, lambda: None)
    assert file.closed
    assert "<SpoolFile 3 bytes closed>" == repr(spool)


async def test_no_folder(tmp_path):
    """A folder that cannot be written fails the write and loses nothing."""
    spools = Spools(str(tmp_path / "missing"))
    spool = spools.create()
    with pytest.raises(OSError, match="missing"):
        await spool.append([b"abc"])

    assert 0 == spool.size
    spool.close()
    spools.close()


async def test_disk_that_loses(spools):
    """A body that the disk has lost is an error, never a shorter body."""
    spool = spools.create()
    await spool.append([b"0123456789"])
    os.ftruncate(spool._file.fileno(), 0)
    with pytest.raises(Refused) as raised:
        await _read(spool)

    assert (503, "spool-lost") == (raised.value.status, raised.value.code)
    spool.close()
