"""What a configuration may say, and is better thought over."""

from __future__ import annotations

import pytest

from sidecar.settings import load


@pytest.mark.parametrize(
    ("cache", "directives", "warned"),
    [
        ("{share: service, directives: ignore}", False, True),
        ("{share: 'header:x-team', directives: ignore}", False, True),
        ("{share: principal, directives: ignore}", False, False),
        ("{directives: ignore}", False, False),
        ("{share: service, directives: honour}", True, False),
        ("{share: service}", None, False),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_ignored_and_shared(strict, cache, directives, warned, tmp_path):
    """A route that shares and ignores what answers say is warned of, and never refused."""
    path = tmp_path / "c.yaml"
    path.write_text(f"routes:\n  - name: a\n  - name: b\n    cache: {cache}\n")
    rules = load(str(path), environ={}, overrides={}, strict=strict)

    assert directives is next(route for route in rules.routes if route.name == "b").cache.directives
    assert warned == bool(rules.warnings)
    assert all(line.startswith(f"{path}:4: routes[1].cache.directives: ") for line in rules.warnings)
