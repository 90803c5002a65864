"""A file that somebody else rotates."""

import os

import pytest

from sidecar.identity.rotated import RotatedFile


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


@pytest.fixture
def parsed():
    """Every text that was parsed."""
    return []


@pytest.fixture
def file(path, clock, parsed):
    def parse(text):
        parsed.append(text)
        return "is bad" if text.startswith(b"bad") else text

    return RotatedFile(str(path), parse, longest=10, clock=clock, report=lambda _: None)


def test_read_once(file, path, clock, parsed):
    """What has not changed is not read again, and is the same object."""
    path.write_bytes(b"one")
    first = file.value()
    for _ in range(3):
        clock.now += 2

        assert first is file.value()

    assert [b"one"] == parsed


def test_stands_behind_links(file, path, clock, tmp_path):
    """It is the file behind the links that counts: theirs, and that of the folder, is not looked at."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(name.encode())
    (tmp_path / "..data").symlink_to("one")
    path.symlink_to("..data/file")

    assert b"one" == file.value()

    (tmp_path / "..new").symlink_to("two")
    os.replace(tmp_path / "..new", tmp_path / "..data")  # noqa: PTH105 - the swap as the driver does it
    clock.now += 1

    assert b"two" == file.value()


def test_same_size_and_time(file, path, clock):
    """A copy that keeps the time of the old file, and its size, is another text all the same."""
    path.write_bytes(b"one")
    os.utime(path, ns=(1, 1))
    file.value()
    new = path.with_name("new")
    new.write_bytes(b"two")
    os.utime(new, ns=(1, 1))
    new.rename(path)
    clock.now += 1

    assert b"two" == file.value()


def test_bad_text_is_looked_at_again(file, path, clock, parsed):
    """What makes no sense is no version of the file: it is read until it does."""
    path.write_bytes(b"bad")

    assert file.value() is None
    assert "is bad" == file.fault

    clock.now += 1
    file.value()

    assert [b"bad", b"bad"] == parsed


def test_longest(file, path, parsed):
    """A byte more than there may be is read, so that the parser can tell."""
    path.write_bytes(b"0123456789abc")
    file.value()

    assert [b"0123456789a"] == parsed


def test_again(file, path, clock, parsed):
    """Asked for anew, it is looked at now; and read, changed or not, unless that was within the last second."""
    path.write_bytes(b"one")
    file.value()
    file.read_again()

    assert [b"one"] == parsed

    clock.now += 1
    file.read_again()
    file.read_again()

    assert [b"one", b"one"] == parsed

    path.write_bytes(b"another")
    file.read_again()

    assert b"another" == file.last


def test_repr(file, path, clock):
    """It tells the state, and nothing of the text."""
    assert f"<RotatedFile {path} never read>" == repr(file)

    path.write_bytes(b"one")
    file.value()

    assert f"<RotatedFile {path} read>" == repr(file)

    path.unlink()
    file.read_again()

    assert f"<RotatedFile {path} read, No such file or directory>" == repr(file)


def test_a_pipe_is_not_read(file, path, parsed):
    """It would wait for whoever writes there, and all calls with it."""
    os.mkfifo(path)

    assert file.value() is None
    assert "is not a plain file" == file.fault
    assert [] == parsed
