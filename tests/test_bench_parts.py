"""Parts of the benchmarks that decide something, or stand for parts of the program."""

import base64
import itertools
import json

import pytest

from sidecar.settings import load
from sidecar.settings.restart import waiting
from tests.bench.documents import FORMS, Upload
from tests.bench.otherwise import PARTS, replace
from tests.bench.soaking import changes, grows, keeps


@pytest.mark.parametrize("part", PARTS)
def test_parts(part, monkeypatch):
    """Each is looked up where it is replaced; otherwise a row would compare the sidecar with itself."""
    owner, name, other = PARTS[part]
    monkeypatch.setattr(owner, name, getattr(owner, name))
    replace(part)

    assert other is getattr(owner, name)


def test_a_part_that_is_gone(monkeypatch):
    """It ends the run."""
    owner, name, _ = PARTS["no-body-memo"]
    monkeypatch.delattr(owner, name)

    with pytest.raises(AttributeError):
        replace("no-body-memo")


@pytest.mark.parametrize(
    ("figure", "before", "after", "grown", "kept"),
    [
        ("rss", 60.0, 63.9, False, False),
        ("rss", 60.0, 64.1, True, True),
        ("rss", 200.0, 209.0, False, False),
        ("rss", 200.0, 211.0, True, True),
        ("tasks", 10.0, 12.0, False, False),
        ("tasks", 10.0, 26.0, False, True),
        ("tasks", 10.0, 27.0, True, True),
        ("descriptors", 100.0, 150.0, False, True),
        ("descriptors", 100.0, 151.0, True, True),
        ("descriptors", 100.0, 50.0, False, False),
    ],
)
def test_flat(figure, before, after, grown, kept):
    """Memory may vary by 5 % or 4 MiB; the others by half or 16 under load, and by 2 at rest."""
    assert (grown, kept) == (grows(before, after, figure), keeps(before, after, figure))


def test_changes_of_the_soak(tmp_path):
    """Each is right, differs from the others, and needs no restart: what the soak changes is really in use."""
    regions = [{"name": "a", "url": "http://127.0.0.1:1"}]
    rules = {
        "version": 1,
        "upstream": {"proxy": "none"},
        "services": {"openai": {"dialect": "openai", "path": "/openai", "regions": regions}},
        "routes": [{"name": "bench", "match": {"service": "openai"}, "cache": {"mode": "always", "ttl": "24h"}}],
        "cache": {
            "redis": {"url": "redis://localhost:1/0", "namespace": "bench", "timeout": "2s"},
            "secret_file": str(tmp_path / "cache.key"),
            "memory": {"max_bytes": "8Mi", "max_entry_bytes": "2Mi"},
        },
    }
    found = []
    for number, change in enumerate(changes(rules, 2, 3, tmp_path / "ca.pem")):
        file = tmp_path / f"{number}.yaml"
        file.write_text(json.dumps(change))
        found.append(load(str(file), environ={}, overrides={}, strict=True))

    assert 5 == len({rules.revision for rules in found})
    assert [] == [each for one, other in itertools.permutations(found, 2) for each in waiting(one, other)]


@pytest.mark.parametrize("size", [1, 3, 1000, 3 * 256 * 1024 + 5])
def test_uploads_are_one_document(size):
    """Each form has the length that its head says, and the same document in it; another seed is another document."""
    bodies = {form: b"".join(Upload(form, size).pieces()) for form in FORMS}

    assert [len(body) for body in bodies.values()] == [Upload(form, size).length() for form in FORMS]
    assert size == len(bodies["bytes"])
    assert bodies["bytes"] == base64.b64decode(json.loads(bodies["base64"])["base64Source"])
    assert bodies["bytes"] in bodies["multipart"]
    assert size == 1 or bodies["bytes"] != b"".join(Upload("bytes", size, 2).pieces())
