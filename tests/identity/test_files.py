"""Credentials from files that somebody else rotates."""

import os

import pytest

from sidecar.core.rules import StoredCredential
from sidecar.identity.files import CredentialFiles


@pytest.fixture
def files(clock, reports):
    return CredentialFiles(clock, reports.append)


def ask(files, volume, prefix="Bearer "):
    return files.field(StoredCredential("authorization", str(volume.path), prefix))


def test_field(files, volume, reports):
    """The file's text, less the white space around it, behind the prefix."""
    volume.rotate(b"  key one\r\n")

    assert (b"authorization", b"Bearer key one") == ask(files, volume)
    assert (b"authorization", b"key one") == ask(files, volume, "")
    assert [] == reports
    assert "key" not in repr(files)


def test_rotation(files, volume, clock):
    """A swap is seen at the next look, which comes after a second."""
    volume.rotate(b"one")
    ask(files, volume)
    volume.rotate(b"two")
    clock.now += 0.99

    assert b"Bearer one" == ask(files, volume)[1]

    clock.now += 0.02

    assert b"Bearer two" == ask(files, volume)[1]


def test_looked_at_once_a_second(files, volume, clock, reports):
    """However often it is asked, the file is looked at once a second; also where it cannot be read."""
    volume.rotate(b"one")
    ask(files, volume)
    volume.path.unlink()
    for _ in range(5):
        clock.now += 0.1

        assert b"Bearer one" == ask(files, volume)[1]

    assert [] == reports

    clock.now += 1

    assert b"Bearer one" == ask(files, volume)[1]
    assert 1 == len(reports)


def test_never_readable(files, volume, clock, reports):
    """A file that was never there gives nothing, is told once, and serves as soon as it is there."""
    for _ in range(3):
        assert ask(files, volume) is None

        clock.now += 2

    assert [f"{volume.path}: No such file or directory"] == reports

    volume.rotate(b"one")

    assert b"Bearer one" == ask(files, volume)[1]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"one\ntwo", "is not one line of printable ASCII"),
        (b"one\x00", "is not one line of printable ASCII"),
        (b"one\x7f", "is not one line of printable ASCII"),
        ("clé".encode(), "is not one line of printable ASCII"),
    ],
)
def test_unusable_text(files, volume, clock, reports, text, fault):
    """What cannot stand in a header, such as a file half written, leaves the last credential in use."""
    volume.rotate(b"one")
    ask(files, volume)
    for _ in range(2):
        volume.rotate(text)
        clock.now += 2

        assert b"Bearer one" == ask(files, volume)[1]

    assert [f"{volume.path}: {fault}"] == reports
    volume.rotate(b"two")
    clock.now += 2

    assert b"Bearer two" == ask(files, volume)[1]


def test_faults_are_told_anew(files, volume, clock, reports):
    """A fault is told once while it lasts, another one or the same later on again."""
    for text in (b"", b"", b"a\nb", b"fine", b""):
        volume.rotate(text)
        ask(files, volume)
        clock.now += 2

    assert ["is empty", "is not one line of printable ASCII", "is empty"] == [
        line.removeprefix(f"{volume.path}: ") for line in reports
    ]


def test_written_in_place(files, volume, clock):
    """A file that was written over in place, of the same length, is read again."""
    volume.rotate(b"one")
    ask(files, volume)
    (volume.folder / "..data" / "key").write_bytes(b"two")
    os.utime(volume.path, ns=(1, 1))
    clock.now += 2

    assert b"Bearer two" == ask(files, volume)[1]


def test_came_back_as_it_was(files, volume, clock, reports):
    """A file that was away for a while and comes back unchanged is no fault any more."""
    volume.rotate(b"one")
    ask(files, volume)
    away = volume.folder / "away"
    for source, target in ((volume.path, away), (away, volume.path)):
        source.rename(target)
        clock.now += 2

        assert b"Bearer one" == ask(files, volume)[1]

    assert 1 == len(reports)


def test_renewed_at_once(files, volume):
    """After a refusal the file is looked at now, not after a second; what is no other text is no answer."""
    volume.rotate(b"one")
    credential = StoredCredential("api-key", str(volume.path))
    used = files.field(credential)[1]

    assert files.renew(credential, used) is None

    volume.rotate(b"two")

    assert (b"api-key", b"two") == files.renew(credential, used)
    assert (b"api-key", b"two") == files.renew(credential, used)
    assert files.renew(credential, b"two") is None


def test_renewed_with_the_prefix(files, volume):
    """The value that was refused is the whole value, prefix and all."""
    volume.rotate(b"one")
    credential = StoredCredential("authorization", str(volume.path), "Bearer ")

    assert files.renew(credential, b"Bearer one") is None
    assert (b"authorization", b"Bearer one") == files.renew(credential, b"one")


def test_renewed_while_the_file_is_away(files, volume, reports):
    """In the middle of a swap there is nothing newer, and the old text serves on."""
    volume.rotate(b"one")
    credential = StoredCredential("api-key", str(volume.path))
    files.field(credential)
    (volume.folder / "..data").unlink()

    assert files.renew(credential, b"one") is None
    assert (b"api-key", b"one") == files.field(credential)
    assert [f"{volume.path}: No such file or directory"] == reports


def test_too_long(files, volume, reports):
    """Something that is no credential is not sent to anybody."""
    volume.rotate(b"k" * (16 * 1024 + 1))

    assert ask(files, volume) is None
    assert [f"{volume.path}: is larger than 16 KiB"] == reports


@pytest.mark.parametrize("text", [b"one", b"one\n", b"one\n\n", b"one\r\n", b" one"], ids=repr)
def test_white_space_around(files, volume, text):
    """What editors and Key Vault put around a credential is none of it."""
    volume.rotate(text)

    assert b"Bearer one" == ask(files, volume)[1]


def test_files_apart(files, tmp_path):
    """Each file has its own text; two headers may share one."""
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)

    assert [(b"x-api-key", b"a"), (b"api-key", b"b"), (b"api-key", b"a")] == [
        files.field(StoredCredential(header, str(tmp_path / name)))
        for header, name in (("x-api-key", "a"), ("api-key", "b"), ("api-key", "a"))
    ]
    assert "<CredentialFiles 2 read>" == repr(files)
