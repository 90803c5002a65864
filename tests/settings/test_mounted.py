"""What ``check`` says of the files that a configuration names, and what ``run`` makes of them."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sidecar.cli.keygen import line
from sidecar.errors import ConfigError
from sidecar.settings import load

TOKEN = "0123456789abcdef"  # pragma: allowlist secret
CLEAR = serialization.NoEncryption()

CONFIG = """\
admin: {token_file: ./token}
upstream: {ca_file: ./anchors}
cache:
  secret_file: ./secret
  redis:
    url: rediss://cache
    username_file: ./user
    password_file: ./password
    ca_file: ./authority
    cert_file: ./certificate
    key_file: ./key
services:
  openai:
    regions:
      - {name: a, url: "https://a", credential: {header: x-key, file: ./credential}}
      - name: b
        url: https://b.azure.com
        credential: {workload_identity: {token_file: ./assertion}}
routes:
  - name: r
    fallback:
      - stale
      - answer_file: ./answer
"""
PATHS = {
    "token": ":1: admin.token_file",
    "anchors": ":2: upstream.ca_file",
    "secret": ":4: cache.secret_file",
    "user": ":7: cache.redis.username_file",
    "password": ":8: cache.redis.password_file",
    "authority": ":9: cache.redis.ca_file",
    "certificate": ":10: cache.redis.cert_file",
    "key": ":11: cache.redis.key_file",
    "credential": ":15: services.openai.regions[0].credential.file",
    "assertion": ":18: services.openai.regions[1].credential.workload_identity.token_file",
    "answer": ":23: routes[0].fallback[1].answer_file",
}
REMEDIES = {
    "token": "write one there",
    "anchors": "put certificates there, in PEM",
    "secret": "write it with `sidecar keygen > FILE`",
    "user": "write it there, on one line",
    "password": "write it there, on one line",
    "authority": "put certificates there, in PEM",
    "certificate": "put certificates there, in PEM",
    "key": "put the certificate's private key there, in PEM and without a password",
    "credential": "write it there, on one line",
    "assertion": "write it there, on one line",
    "answer": "write a whole answer of the service there, as JSON",
}


def pair(encryption=CLEAR):
    """A certificate and its private key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    form = serialization.PrivateFormat.PKCS8
    return made, key.private_bytes(serialization.Encoding.PEM, form, encryption)


CERTIFICATE, KEY = pair()
LOCKED = pair(serialization.BestAvailableEncryption(b"hunter2"))
FIT = {
    "token": TOKEN.encode(),
    "anchors": CERTIFICATE,
    "secret": f"{line()}\n{line()}\n".encode(),
    "user": b"sidecar\n",
    "password": "hunter2 é".encode(),
    "authority": CERTIFICATE,
    "certificate": CERTIFICATE,
    "key": KEY,
    "credential": b"hunter2\n",
    "assertion": b"hunter2.hunter2.hunter2",
    "answer": b'{"choices": []}\n',
}


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A configuration that names every kind of file, in the present folder; none of them is there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(CONFIG)
    return str(tmp_path / "c.yaml")


def put(files):
    for name, content in files.items():
        Path(name).write_bytes(content)


def rules(path, *, strict=True, here=False, **environ):
    return load(path, environ=environ, overrides={}, strict=strict, here=here)


def faults(path, **more):
    with pytest.raises(ConfigError) as caught:
        rules(path, **more)
    return [text.removeprefix(path) for text in caught.value.problems]


def test_files_that_are_fit(path):
    """Nothing to say."""
    put(FIT)

    assert () == rules(path).warnings
    assert () == rules(path, strict=False, here=True).warnings


def test_files_that_are_elsewhere(path):
    """A configuration is checked far from the pods that mount its files."""
    assert () == rules(path).warnings
    assert () == rules(path, strict=False).warnings


@pytest.mark.parametrize("name", FIT)
def test_a_folder(path, name):
    """A folder is no file, which ``run`` warns of and ``check`` refuses, with place and remedy."""
    put(FIT)
    Path(name).unlink()
    Path(name).mkdir()
    expected = f"{PATHS[name]}: ./{name} cannot be used: is a folder; {REMEDIES[name]}"

    assert [expected] == faults(path)
    assert (path + expected,) == rules(path, strict=False).warnings


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("token", b"", "is empty"),
        ("token", b"hunter2", "is not one line of 16 to 1024 printable characters without blanks"),
        ("secret", b"", "holds no secret; `sidecar keygen` prints a line for it"),
        ("secret", b"hunter2", "line 1 is not of the form id:base64"),
        (
            "secret",
            b"a:aHVudGVyMg==",
            "line 1 holds 7 bytes behind the colon instead of 32; `sidecar keygen` prints a line",
        ),
        ("credential", b" \n", "is empty"),
        ("credential", b"hunter2\nhunter2\n", "is not one line of printable ASCII"),
        ("credential", b"x" * 20_000, "is larger than 16 KiB"),
        ("assertion", b"", "is empty"),
        ("assertion", b"hunter2\nhunter2", "is not one line"),
        ("user", b"\n", "is empty"),
        ("password", b"hunter2\nhunter2", "is not one line"),
        ("password", b"hunter2\xff", "is not UTF-8"),
        ("anchors", b"", "holds no certificate"),
        ("anchors", b"hunter2", "holds no certificate"),
        ("anchors", KEY, "holds no certificate"),
        ("authority", b"hunter2", "holds no certificate"),
        ("certificate", KEY, "holds no certificate"),
        ("key", b"", "holds no private key"),
        ("key", CERTIFICATE, "holds no private key"),
        ("key", pair()[1], "is not the key of the certificate"),
        ("answer", b"", "is empty"),
        ("answer", b"We are busy: hunter2", "is not JSON"),
        ("answer", b"{" + b" " * 1024 * 1024 + b"}", "is larger than 1 MiB"),
    ],
)
def test_an_unfit_file(path, name, content, expected):
    """The line of the configuration, the reason, the remedy, and nothing of what stands there."""
    put(FIT | {name: content})
    said = f"{PATHS[name]}: ./{name} cannot be used: {expected}"
    said += "" if "; " in expected else f"; {REMEDIES[name]}"

    assert [said] == faults(path)
    assert "hunter2" not in said
    assert (path + said,) == rules(path, strict=False).warnings


def test_what_needs_a_password(path):
    """Nobody is there to type one, neither for ``check`` nor in a pod."""
    put(FIT | {"certificate": LOCKED[0], "key": LOCKED[1]})

    assert [f"{PATHS['key']}: ./key cannot be used: needs a password; {REMEDIES['key']}"] == faults(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (CERTIFICATE + KEY, ()),
        (
            CERTIFICATE,
            (
                (
                    f"{PATHS['certificate']}: ./certificate cannot be used: holds no private key; put a certificate "
                    "and its private key there, in PEM and without a password"
                ),
            ),
        ),
    ],
    ids=["both", "one"],
)
def test_a_key_beside_its_certificate(path, content, expected):
    """Where no file of its own is named, the key stands in the certificate's."""
    put({"certificate": content})
    Path(path).write_text(CONFIG.replace("    key_file: ./key\n", ""))

    assert tuple(path + line for line in expected) == rules(path, strict=False).warnings


@pytest.mark.parametrize("name", ["key", "certificate"])
def test_half_of_a_pair(path, name):
    """A key whose certificate is elsewhere can't be judged, nor the other way round."""
    put(FIT)
    Path(name).unlink()

    assert () == rules(path).warnings


def test_a_pipe_is_not_waited_for(path):
    """What is no plain file is not read: it could keep us for ever."""
    os.mkfifo("secret")

    assert [f"{PATHS['secret']}: ./secret cannot be used: is not a plain file; {REMEDIES['secret']}"] == faults(path)


def test_a_file_in_a_variable(path):
    """The variable is named instead of the file's line, and only what holds is looked at."""
    put({"token": b"x", "credential": b"", "other": b"y"})

    ours, variables = faults(path, SIDECAR_ADMIN_TOKEN_FILE="other")

    assert ours.startswith(PATHS["credential"])
    assert variables.startswith("environment SIDECAR_ADMIN_TOKEN_FILE: admin.token_file: other cannot be used: is not ")


def test_everything_at_once(path):
    """Files count among the problems of a configuration, in the order of its lines."""
    put(dict.fromkeys(FIT, b"\xff"))
    Path(path).write_text(f"{CONFIG}mode: fast\n")

    assert [*(PATHS[name] for name in FIT if name != "key"), ":24: mode"] == [
        ":".join(text.split(":")[:3]) for text in faults(path)
    ]


def test_items_that_were_refused(path):
    """A file stands where it was said, also behind an item of its list that makes no sense."""
    put({"answer": b"x"})
    Path(path).write_text(CONFIG.replace("- stale", "- stael"))

    assert [":22: routes[0].fallback[0]", PATHS["answer"]] == [":".join(text.split(":")[:3]) for text in faults(path)]


def test_bare_words(path):
    """A word that stands alone may be a password: what isn't here is named with its folder, or not used."""
    Path(path).write_text(CONFIG.replace("./", ""))

    assert list(PATHS.values()) == [said.partition(": looks like the secret itself")[0] for said in faults(path)]


# What a process can't start without.


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "No such file or directory"), (b"hunter2", "holds no certificate")],
    ids=["missing", "unfit"],
)
def test_trust_anchors_here(path, content, expected):
    """Who runs by a configuration needs the anchors that it names; others may be elsewhere."""
    if content is not None:
        put({"anchors": content})
    said = f"{PATHS['anchors']}: ./anchors cannot be used: {expected}; put certificates there, in PEM"

    assert [said] == faults(path, strict=False, here=True)
    assert ((path + said,) if content else ()) == rules(path, strict=False).warnings


def test_trust_anchors_in_a_variable(path):
    """The variable is what is named."""
    put({"anchors": CERTIFICATE})

    (said,) = faults(path, strict=False, here=True, SIDECAR_UPSTREAM_CA_FILE="./none")

    assert said.startswith(
        "environment SIDECAR_UPSTREAM_CA_FILE: upstream.ca_file: ./none cannot be used: No such file "
    )


def test_a_path_that_is_none(path):
    """A path that no system knows is a problem like any other."""
    Path(path).write_text('upstream: {ca_file: "a\\0b"}\nadmin: {token_file: "a\\0b"}')
    (said,) = faults(path, strict=False, here=True)

    assert said.startswith(":1: upstream.ca_file: looks like the secret itself, and not like the path of a file; ")


def test_a_token_that_is_missing_where_it_starts(tmp_path):
    """Nobody could act on it: a warning at the start, and none for a check far from there."""
    path = tmp_path / "c.yaml"
    path.write_text(f"admin: {{token_file: {tmp_path}/token}}\n")
    warning = f"{path}:1: admin.token_file: {tmp_path}/token cannot be used: No such file or directory"

    assert (f"{warning}; write one there",) == rules(str(path), strict=False, here=True).warnings
    assert ((), ()) == (rules(str(path)).warnings, rules(str(path), strict=False).warnings)
