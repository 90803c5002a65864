"""``docs/keys.md``: its prose is written by hand, its tables are what the code says."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from sidecar.core.dialect import BodyForm, Endpoint
from sidecar.core.http.headers import SELECTORS, is_secretive
from sidecar.core.request.noise import BALANCERS, NOISE
from sidecar.core.request.token import CHANGING, CHANGING_IN_KUBERNETES, CHANGING_PREFIX, KUBERNETES
from sidecar.dialects import DIALECTS
from tests.core.request.credentials import SECRETIVE

PAGE = Path(__file__).parents[1] / "docs" / "keys.md"
_TABLE = re.compile(r"(<!-- table: ([a-z]+) -->)(.*?)(<!-- end -->)", re.DOTALL)

ENDPOINTS = {
    "openai": [
        ("POST", path)
        for path in (
            "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/responses/input_tokens", "/v1/embeddings",
            "/v1/moderations", "/v1/audio/speech",
        )
    ],
    "anthropic": [("POST", "/v1/messages"), ("POST", "/v1/messages/count_tokens")],
}  # fmt: skip


def codes(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def rows(head: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    written = [f"| {' | '.join(line)} |" for line in (head, *lines)]
    return "\n" + "\n".join([written[0], "|" + "---|" * len(head), *written[1:]]) + "\n"


def credentials() -> str:
    assert all(is_secretive(name.encode()) for name in SECRETIVE)
    return "\n" + codes(sorted(SECRETIVE)) + "\n"


def claims() -> str:
    kubernetes = [f"{KUBERNETES}.{name}" for name in sorted(CHANGING_IN_KUBERNETES)]
    return "\n" + codes([*sorted(CHANGING), f"{CHANGING_PREFIX}*", *kubernetes]) + "\n"


def dialects() -> str:
    return rows(
        ("dialect", "own hosts, and all below them", "fields that count", "scopes"),
        (
            (
                f"`{dialect.name}`",
                codes(dialect.own_hosts) or "none",
                (codes(name.decode() for name in dialect.counting) or "none")
                + (" and every other" * (not dialect.own_hosts)),
                codes(name.decode() for name in dialect.scopes),
            )
            for dialect in DIALECTS.values()
        ),
    )


def noise() -> str:
    return rows(("what for", "fields"), ((kind, codes(names)) for kind, names in NOISE.items()))


def dropped(endpoint: Endpoint) -> Iterable[str]:
    """The members that don't count, those of inner objects with the name of the outer."""
    seen = []
    todo = [("", endpoint.shape)]
    while todo:
        place, shape = todo.pop(0)
        for name in sorted(shape.drop):
            inner = shape.inside.get(name)
            if inner is None or not place:
                seen.append(place + name)
        if place.count(".") < 3:
            todo += [
                (f"{place}{name}.", inner) for name, inner in sorted(shape.inside.items()) if name not in shape.drop
            ]
    return seen


def members() -> str:
    found = []
    for name, calls in ENDPOINTS.items():
        for method, path in calls:
            endpoint = DIALECTS[name].locate(method.encode(), path)
            assert endpoint is not None
            assert endpoint.body is BodyForm.JSON
            found.append((f"`{path}`", codes(dropped(endpoint)) or "none"))
    return rows(("call", "members that don't count"), found)


def queries() -> str:
    """Members of a query that are dropped, by dialect."""
    return rows(
        ("dialect", "credentials", "dropped besides"),
        (
            (
                f"`{dialect.name}`",
                codes(sorted(dialect.credential_query)),
                codes(sorted(dialect.ignored_query)) or "none",
            )
            for dialect in DIALECTS.values()
            if dialect.credential_query or dialect.ignored_query
        ),
    )


TABLES = {
    "credentials": credentials,
    "balancers": lambda: codes(BALANCERS),
    "claims": claims,
    "dialects": dialects,
    "noise": noise,
    "queries": queries,
    "selectors": lambda: codes(sorted(name.decode() for name in SELECTORS)),
    "members": members,
}


def page() -> str:
    """The page with its tables as the code has them."""
    return _TABLE.sub(lambda found: found[1] + TABLES[found[2]]() + found[4], PAGE.read_text())


def test_tables_are_generated():
    """No table says anything else than the code; ``python -m tests.test_keys_page`` writes them."""

    assert page() == PAGE.read_text()
    assert set(TABLES) == {name for _, name, _, _ in _TABLE.findall(PAGE.read_text())}


if __name__ == "__main__":
    PAGE.write_text(page())
