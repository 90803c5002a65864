"""A secret where its file's path belongs: ``check`` says so for every file key, and nobody ever shows it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import ConfigError
from sidecar.settings import forms, forwarding, load
from sidecar.settings.pasted import NOWHERE
from sidecar.settings.problems import dotted
from sidecar.settings.schema import SCHEMA
from sidecar.settings.shapes import Either, Items, Named, SettingShape, Table, ValueForm

SECRET = "sk-canary-0a1b2c3d4e5f"  # pragma: allowlist secret
SECRETS = [
    SECRET,
    "correct-horse-battery",
    "k1:3q2+7wABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhs=",  # pragma: allowlist secret
    "eyJhbGciOiJub25lIn0.eyJzdWIiOiJjYW5hcnkifQ.c2ln",  # pragma: allowlist secret
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",  # pragma: allowlist secret
    "/wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",  # pragma: allowlist secret
    "p@ssw0rd/with/slash",
    "hunter2",
]
WORD = "letmein"
"""May be a file's name, but as well a password; a folder's name where a folder is made."""

Step = str | int


def file_keys(value: SettingShape = SCHEMA, path: tuple[Step, ...] = ()) -> Iterator[tuple[Step, ...]]:
    """The path of every key that names a file, in the whole schema."""
    match value:
        case ValueForm():
            if value.file:
                yield path
        case Table():
            for name, key in value.keys.items():
                yield from file_keys(key.value, (*path, name))
        case Named():
            yield from file_keys(value.value, (*path, "openai"))
        case Items():
            yield from file_keys(value.value, (*path, 0))
        case Either():
            yield from file_keys(value.table, path)


KEYS = list(file_keys())

AROUND: dict[tuple[Step, ...], dict[str, Any]] = {
    ("cache", "redis", "*"): {
        "cache": {"redis": {"url": "rediss://cache", "cert_file": "/c.pem"}, "secret_file": "/k.key"}
    },
    ("cache", "redis", "credential", "workload_identity", "token_file"): {
        "cache": {"redis": {"url": "rediss://cache", "credential": {"workload_identity": {}}}, "secret_file": "/k.key"}
    },
    ("services", "openai", "regions", 0, "credential", "file"): {
        "services": {"openai": {"regions": [{"name": "a", "url": "https://a", "credential": {"header": "x-key"}}]}}
    },
    ("services", "openai", "regions", 0, "credential", "workload_identity", "token_file"): {
        "services": {
            "openai": {
                "regions": [{"name": "a", "url": "https://a.azure.com", "credential": {"workload_identity": {}}}]
            }
        }
    },
    ("services", "openai", "tokens", "jwks_file"): {
        "services": {"openai": {"tokens": {"issuer": "https://issuer", "audience": "us"}}}
    },
    ("routes", 0, "fallback", 0, "answer_file"): {"routes": [{"name": "r", "fallback": [{}]}]},
}
"""What has to be said besides."""


def config(path: tuple[Step, ...], text: str) -> dict[str, Any]:
    """A configuration with *text* at *path*."""
    around = AROUND.get(path) or AROUND.get((*path[:-1], "*")) or {}
    whole: Any = json.loads(json.dumps(around))
    node = whole
    for step, following in pairwise(path):
        node = node[step] if isinstance(step, int) else node.setdefault(step, [] if following == 0 else {})
    node[path[-1]] = text
    return whole


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def write(said: dict[str, Any]) -> str:
        file = tmp_path.parent / f"{os.getpid()}.yaml"  # a folder of a test has the test's name, and so the secret
        file.write_text(json.dumps(said))
        return str(file)

    return write


def test_the_keys():
    """Every key whose name says that it is a file's has the form of one, and the other way round."""
    assert {dotted(path) for path in KEYS} == {
        "admin.token_file",
        "cache.redis.ca_file",
        "cache.redis.cert_file",
        "cache.redis.credential.workload_identity.token_file",
        "cache.redis.key_file",
        "cache.redis.password_file",
        "cache.redis.username_file",
        "cache.secret_file",
        "routes[0].fallback[0].answer_file",
        "services.openai.regions[0].credential.file",
        "services.openai.regions[0].credential.workload_identity.token_file",
        "services.openai.tokens.jwks_file",
        "state.dir",
        "upstream.ca_file",
    }
    assert [forms.FILE] == [form for form in vars(forms).values() if isinstance(form, ValueForm) and form.file]


def named_like_files(table: SettingShape, path: str = "") -> Iterator[tuple[str, SettingShape]]:
    """The single values whose keys sound like files'."""
    match table:
        case Table():
            for name, key in table.keys.items():
                if isinstance(key.value, ValueForm) and (name.endswith(("file", "dir", "path_to")) or name == "file"):
                    yield f"{path}.{name}", key.value
                yield from named_like_files(key.value, f"{path}.{name}")
        case Named() | Items():
            yield from named_like_files(table.value, path)
        case Either():
            yield from named_like_files(table.table, path)


def test_no_file_key_has_another_form():
    """A new one that took a plain text would be shown."""
    assert {} == {
        name: form.name for name, form in named_like_files(SCHEMA) if not isinstance(form, ValueForm) or not form.file
    }


@pytest.mark.parametrize("secret", [*SECRETS, WORD])
@pytest.mark.parametrize("path", KEYS, ids=dotted)
def test_check(write, path: tuple[Step, ...], secret: str):
    """One problem, with file, line, key and remedy, and without the secret."""
    file = write(config(path, secret))
    if (secret, dotted(path)) == (WORD, "state.dir"):
        return
    with pytest.raises(ConfigError) as caught:
        load(file, environ={}, overrides={}, strict=True)

    [said] = [problem for problem in caught.value.problems if "looks like" in problem]
    start = f"{file}:1: {dotted(path)}: looks like the secret itself, and not like the path of a file; "
    assert said.startswith(start + "write the secret into a file and name that here")
    assert secret not in str(caught.value)


@pytest.mark.parametrize("here", [False, True], ids=["elsewhere", "here"])
@pytest.mark.parametrize("secret", [*SECRETS, WORD])
@pytest.mark.parametrize("path", KEYS, ids=dotted)
def test_run(write, path: tuple[Step, ...], secret: str, here: bool):
    """It goes on with a warning; no rule has the secret, so nothing that is told by the rules can show it."""
    file = write(config(path, secret))
    key = dotted(path)
    if here and key == "upstream.ca_file":
        with pytest.raises(ConfigError) as caught:
            load(file, environ={}, overrides={}, strict=False, here=True)
        assert secret not in str(caught.value)
        return
    rules = load(file, environ={}, overrides={}, strict=False, here=here)
    told = json.dumps(asdict(rules), default=repr)
    warned = [line for line in rules.warnings if key in line and "looks like" in line]

    assert not any(secret in line for line in rules.warnings)
    if (secret, key) == (WORD, "state.dir"):
        assert not warned
    else:
        assert warned
        assert NOWHERE + key in told
        assert secret not in told


@pytest.mark.parametrize("name", ["SIDECAR_ADMIN_TOKEN_FILE", "SIDECAR_CACHE_SECRET_FILE", "SIDECAR_STATE_DIR"])
def test_variables(write, name: str):
    """A variable sets a key, and is named."""
    rules = load(write({}), environ={name: SECRET}, overrides={}, strict=False)
    [said] = [line for line in rules.warnings if "looks like" in line]

    assert said.startswith(f"environment {name}: ")
    assert SECRET not in json.dumps(asdict(rules), default=repr)
    rules = forwarding(environ={name: SECRET}, overrides={})
    assert any("looks like" in line for line in rules.warnings)
    assert SECRET not in json.dumps(asdict(rules), default=repr)


@pytest.mark.parametrize("path", KEYS, ids=dotted)
def test_a_file_that_is_here(write, tmp_path: Path, path: tuple[Step, ...]):
    """Whatever it is called: it is a path, and is used."""
    (tmp_path / SECRET).mkdir()
    file = write(config(path, SECRET))
    rules = load(file, environ={}, overrides={}, strict=False)

    assert SECRET in json.dumps(asdict(rules), default=repr)
    assert not any("looks like" in line for line in rules.warnings)
