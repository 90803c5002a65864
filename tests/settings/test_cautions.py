"""What a configuration may say, and is better thought over."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.settings import load
from sidecar.settings.pattern_cautions import shadows


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
    path.write_text(f"routes:\n  - {{name: a, match: {{model: a}}}}\n  - name: b\n    cache: {cache}\n")
    rules = load(str(path), environ={}, overrides={}, strict=strict)

    assert directives is next(route for route in rules.routes if route.name == "b").cache.directives
    assert warned == bool(rules.warnings)
    assert all(line.startswith(f"{path}:4: routes[1].cache.directives: ") for line in rules.warnings)


@pytest.fixture
def warned(tmp_path):
    """Writes a configuration; where it is warned of, and what is said, whoever reads it."""

    def warned(text):
        path = tmp_path / "c.yaml"
        path.write_text(text)
        strict, kind = (
            load(str(path), environ={}, overrides={}, strict=strict, here=not strict).warnings
            for strict in (True, False)
        )

        assert strict == kind
        return [tuple(line.removeprefix(f"{path}:").split(": ", 2)) for line in strict]

    return warned


@pytest.mark.parametrize(
    ("dialect", "url", "end"),
    [
        ("openai", "https://gw.example/v1", "/v1"),
        ("openai", "https://gw.example/team/v1/", "/v1"),
        ("anthropic", "https://gw.example/v1", "/v1"),
        ("azure-openai", "https://gw.example/openai", "/openai"),
        ("azure-openai", "https://gw.example/openai/v1", "/openai/v1"),
        ("openai", "https://api.groq.com/openai", ""),
        ("openai", "https://v1", ""),
        ("openai", "https://gw.example/v1/eu", ""),
        ("azure-openai", "https://gw.example", ""),
        ("generic", "https://gw.example/v1", ""),
    ],
)
def test_a_path_that_would_be_sent_twice(dialect, url, end, warned):
    """Where a region's URL ends in what each call begins with, that is told, with what would be sent."""
    found = warned(f"services:\n  a:\n    dialect: {dialect}\n    regions:\n      - {{name: eu, url: '{url}'}}\n")

    assert [("5", "services.a.regions[0].url")] * bool(end) == [line[:2] for line in found]
    assert all(f"ends in {end}," in text and f"sent as {end}{end}/…" in text for _, _, text in found)


@pytest.mark.parametrize(("said", "told"), [("/openai/v1", True), ("/v1", True), ("/openai", False)])
def test_a_prefix_that_belongs_to_the_call(said, told, warned):
    """Below it no operation would be known, and so nothing cached."""
    found = warned(f"services:\n  openai:\n    path: {said}\n")

    assert [("3", "services.openai.path")] * told == [line[:2] for line in found]


@pytest.mark.parametrize(
    ("key", "pattern", "sign"),
    [
        ("path", "/v1/.*", "`.*`"),
        ("path", "/v1/(chat|embeddings)", "`(a|b)`"),
        ("path", "/v1/chat/completions$", "`$`"),
        ("path", r"/v1/models/\d", "a backslash"),
        ("model", "^gpt-4", "`^`"),
        ("model", "gpt-4.+", "`+`"),
        ("model", "gpt-[0-9]+", "`+`"),
        ("path", "*/prebuilt-invoice:analyze", ""),
        ("path", "/v1/*.json", ""),
        ("model", "gpt-4.1*", ""),
        ("model", "gpt-4.[0-9]*", ""),
        ("model", "meta/llama-3(instruct)", ""),
        ("model", "a^b$c", ""),
    ],
)
def test_a_regular_expression(key, pattern, sign, warned):
    """What looks like one is told, with what that sign is in a shell pattern."""
    found = warned(f"routes:\n  - name: a\n    match:\n      {key}: '{pattern}'\n")

    assert [("4", f"routes[0].match.{key}")] * bool(sign) == [line[:2] for line in found]
    assert all(f"looks like a regular expression ({sign})" in text for _, _, text in found)


def test_a_regular_expression_for_a_header(warned):
    """Headers have patterns, too; a media type with a plus sign is none."""
    found = warned("routes:\n  - name: a\n    match: {header: {x-team: 'a.*', accept: 'application/*+json'}}\n")

    assert [("3", "routes[0].match.header.x-team")] == [line[:2] for line in found]


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("gpt-[34", True),
        ("gpt-[34]o[", True),
        ("gpt-[]", True),
        ("gpt-[34]*", False),
        ("a[]]b", False),
        ("a[!]]b", False),
    ],
)
def test_an_open_bracket(pattern, told, warned):
    """It matches only itself, as ``fnmatch`` reads it."""
    found = warned(f"routes:\n  - name: a\n    match: {{model: '{pattern}'}}\n")

    assert told == bool(found)
    assert all(text.startswith("has a `[` that no `]` closes") for _, _, text in found)


ROUTE = "{name: %s, match: {%s}}"


@pytest.mark.parametrize(
    ("earlier", "later", "told"),
    [
        pytest.param("", "service: openai", True, id="no-match"),
        pytest.param("", "", True, id="both-none"),
        pytest.param("service: openai", "service: openai, model: 'gpt-*'", True, id="same-service"),
        pytest.param("service: openai", "service: anthropic", False, id="another-service"),
        pytest.param("service: openai", "model: 'gpt-*'", False, id="any-service"),
        pytest.param("path: '*'", "path: /v1/embeddings", True, id="any-path"),
        pytest.param("path: '/*'", "service: openai", True, id="any-path-with-slash"),
        pytest.param("path: '/v1/*'", "path: '/v1/chat/*'", True, id="wider-path"),
        pytest.param("path: '/v1/chat/*'", "path: '/v1/*'", False, id="narrower-path"),
        pytest.param("path: '*/a'", "path: '/v[12]/a'", False, id="a-set-is-not-looked-into"),
        pytest.param("model: 'GPT-4*'", "model: gpt-4o", True, id="models-whatever-their-case"),
        pytest.param("model: 'gpt-4?'", "model: gpt-4o", False, id="a-question-mark-is-not-looked-into"),
        pytest.param("model: '*'", "", True, id="any-model"),
        pytest.param("header: {x-a: b}", "header: {X-A: b, x-c: d}", True, id="fewer-headers"),
        pytest.param("header: {x-a: b, x-c: d}", "header: {x-a: b}", False, id="more-headers"),
        pytest.param("header: {x-a: '*'}", "header: {x-a: b}", True, id="any-value"),
        pytest.param("header: {x-a: '*'}", "", False, id="a-header-that-need-not-be-there"),
    ],
)
def test_a_route_that_takes_all_of_a_later_ones(earlier, later, told, warned):
    """The later one is told of, with the one that shadows it; each only once."""
    text = "\n".join(["routes:", *(f"  - {ROUTE % pair}" for pair in (("a", earlier), ("b", later)))])
    found = warned(text + "\n")

    assert [("3", "routes[1]")] * told == [line[:2] for line in found]
    assert all("the route a above takes all of them" in text for _, _, text in found)


def test_a_shadowed_route_is_told_once(warned):
    """By the first that takes its calls."""
    lines = "".join(f"  - {ROUTE % (name, '')}\n" for name in "abc")

    assert [("3", "a"), ("4", "a")] == [
        (line, text.partition("the route ")[2][0]) for line, _, text in warned("routes:\n" + lines)
    ]


NAMES = st.text("ab/*", min_size=1, max_size=4)


@given(wide=NAMES, narrow=NAMES, text=st.text("ab/", max_size=6))
def test_no_call_of_a_shadowed_route_is_left(wide, narrow, text):
    """What is said to be covered is: whatever the later pattern matches, the earlier one does."""
    if shadowed({"model": wide}, {"model": narrow}) and fnmatchcase(text, narrow):
        assert fnmatchcase(text, wide)


def shadowed(earlier, later):
    return bool([*shadows({"routes": [{"name": "a", "match": earlier}, {"name": "b", "match": later}]})])
