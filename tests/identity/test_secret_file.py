"""The fleet's secrets from a file that somebody else rotates."""

from base64 import b64encode

import pytest

from sidecar.identity.secret_file import SecretFile

OLD = b"old:" + b64encode(b"o" * 32)
NEW = b"new:" + b64encode(b"n" * 32)


@pytest.fixture
def file(volume, clock, reports):
    return SecretFile(str(volume.path), clock, reports.append)


def ids(file):
    return [key.id for key in file.keyring().keys]


def test_read(file, volume, reports):
    """A file's secrets, in its order."""
    volume.rotate(NEW, OLD)

    assert ["new", "old"] == ids(file)
    assert [] == reports


def test_rotation(file, volume, clock):
    """Add, roll, remove: each swap is seen at the next look, which comes after a second."""
    seen = []
    for lines in ([OLD], [OLD, NEW], [NEW, OLD], [NEW]):
        volume.rotate(*lines)
        clock.now += 0.99
        before = ids(file) if seen else []

        assert (seen[-1] if seen else []) == before

        clock.now += 0.02
        seen.append(ids(file))

    assert [["old"], ["old", "new"], ["new", "old"], ["new"]] == seen


def test_same_object(file, volume, clock):
    """While the file stays as it is, the keyring is the same object: nothing is derived anew."""
    volume.rotate(OLD)
    first = file.keyring()
    clock.now += 2

    assert first is file.keyring()


def test_never_usable(file, volume, clock, reports):
    """A file that was never there gives nothing, is told once, and serves as soon as it is there."""
    for _ in range(3):
        assert file.keyring() is None

        clock.now += 2

    assert [f"{volume.path}: No such file or directory"] == reports

    volume.rotate(OLD)

    assert ["old"] == ids(file)


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ([], "holds no secret; `sidecar keygen` prints a line for it"),
        ([NEW[:20]], "line 1 holds 12 bytes behind the colon instead of 32; `sidecar keygen` prints a line"),
        ([NEW, NEW], "line 2 has the id of a line before it; a new secret needs a new id"),
        ([b"#" * 20000], "is larger than 16 KiB; a secret file has one or two lines id:base64"),
    ],
    ids=["empty", "half written", "twice", "something else"],
)
def test_unusable(file, volume, clock, reports, lines, fault):
    """What makes no sense is told once and leaves the last secrets in use, until it is put right."""
    volume.rotate(OLD)
    file.keyring()
    for _ in range(2):
        volume.rotate(*lines)
        clock.now += 2

        assert ["old"] == ids(file)

    assert [f"{volume.path}: {fault}"] == reports

    volume.rotate(NEW)
    clock.now += 2

    assert ["new"] == ids(file)
    assert 1 == len(reports)


def test_gone_for_a_while(file, volume, clock, reports):
    """The last secrets serve while the file is away; each time it goes, that is told."""
    volume.rotate(OLD)
    file.keyring()
    away = volume.folder / "away"
    for source, target in ((volume.path, away), (away, volume.path)) * 2:
        source.rename(target)
        clock.now += 2

        assert ["old"] == ids(file)

    assert [f"{volume.path}: No such file or directory"] * 2 == reports


def test_a_folder(tmp_path, clock, reports):
    """A path that is no file is told as the system tells it."""

    assert SecretFile(str(tmp_path), clock, reports.append).keyring() is None
    assert [f"{tmp_path}: Is a directory"] == reports


def test_nothing_is_shown(file, volume, clock, reports):
    """Neither what is printed nor what is told shows a secret."""
    assert f"<SecretFile {volume.path} never read>" == repr(file)

    volume.rotate(OLD)
    file.keyring()

    assert f"<SecretFile {volume.path} <Keyring old>>" == repr(file)

    volume.rotate(NEW[:-5])
    clock.now += 2
    file.keyring()

    assert f"<SecretFile {volume.path} <Keyring old>, line 1 has no valid base64 behind the colon>" == repr(file)
    assert NEW[4:10].decode() not in repr((file, reports))
