"""What ``check`` says of the files that a configuration names, and what ``run`` leaves to those who use them."""

from __future__ import annotations

import pytest

from sidecar.errors import ConfigError
from sidecar.keygen import line
from sidecar.settings import load

TOKEN = "0123456789abcdef"  # pragma: allowlist secret


@pytest.fixture
def configured(tmp_path):
    """A configuration that names the two files; its path, and theirs."""
    secret, token = tmp_path / "secret", tmp_path / "token"
    path = tmp_path / "c.yaml"
    path.write_text(
        f"admin:\n  token_file: {token}\ncache:\n  secret_file: {secret}\n  redis: {{url: 'redis://cache'}}\n"
    )
    return str(path), secret, token


def faults(path):
    with pytest.raises(ConfigError) as caught:
        load(path, environ={}, overrides={}, strict=True)
    return [text.removeprefix(path) for text in caught.value.problems]


def test_files_that_are_fit(configured):
    """Nothing to say."""
    path, secret, token = configured
    secret.write_text(f"{line()}\n{line()}\n")
    token.write_text(TOKEN + "\n")

    assert load(path, environ={}, overrides={}, strict=True).redis


def test_files_that_are_elsewhere(configured):
    """A configuration is checked far from the pods that mount its files."""
    assert load(configured[0], environ={}, overrides={}, strict=True).redis


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "hunter2",
            ":4: cache.secret_file: its file cannot be used: line 1 is not of the form id:base64; write it with",
        ),
        ("", ":4: cache.secret_file: its file cannot be used: holds no secret; `sidecar keygen` prints a line for it"),
        ("a:aHVudGVyMg==", ":4: cache.secret_file: its file cannot be used: line 1 holds 7 bytes behind the colon"),
    ],
    ids=["prose", "empty", "short"],
)
def test_an_unfit_secret(configured, text, expected):
    """The line of the configuration, the reason, the remedy, and nothing of the secret."""
    path, secret, _ = configured
    secret.write_text(text)
    found = faults(path)

    assert 1 == len(found)
    assert found[0].startswith(expected)
    assert "hunter2" not in found[0]
    assert "; " in found[0]
    assert load(path, environ={}, overrides={}, strict=False).redis


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ":2: admin.token_file: its file cannot be used: is empty; write one there"),
        (
            "hunter2",
            (
                ":2: admin.token_file: its file cannot be used: is not one line of 16 to 1024 printable characters "
                "without blanks; write one there"
            ),
        ),
    ],
    ids=["empty", "short"],
)
def test_an_unfit_token(configured, text, expected):
    """As with the secret."""
    path, _, token = configured
    token.write_text(text)

    assert [expected] == faults(path)
    assert load(path, environ={}, overrides={}, strict=False).admin_token_file


def test_everything_at_once(configured):
    """Files count among the problems of a configuration, in the order of its lines."""
    path, secret, token = configured
    secret.write_text("x")
    token.write_text("y")

    assert [":2", ":4"] == [text[:2] for text in faults(path)]
