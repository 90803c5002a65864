"""YAML as a tree that knows its lines, and its traps."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sidecar.settings import yaml_source
from sidecar.settings.yaml_source import MAX_DEPTH, Scalar, Sequence, YamlTable, parse


def plain(node):
    """The tree without its places."""
    match node:
        case YamlTable():
            return {name: plain(entry.node) for name, entry in node.entries.items()}
        case Sequence():
            return [plain(item) for item in node.items]
        case Scalar():
            return None if node.null else node.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mode: off", {"mode": "off"}),
        ("on: yes", {"on": "yes"}),
        ("a: 1:30", {"a": "1:30"}),
        ("a: 0o17\nb: 1_000\nc: 2026-11-01", {"a": "0o17", "b": "1_000", "c": "2026-11-01"}),
        ("a:\nb: ~\nc: null\nd: ''\ne: 'null'", {"a": None, "b": None, "c": None, "d": "", "e": "null"}),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": "1"}, "c": {"b": "1"}}),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}", {"a": {"b": "1", "c": "2"}, "d": {"b": "1", "c": "3"}}),
        ("a: &x {b: 1}\nc: &y {b: 2, d: 3}\ne: {<<: [*x, *y]}",
         {"a": {"b": "1"}, "c": {"b": "2", "d": "3"}, "e": {"b": "1", "d": "3"}}),
        ("# nothing\n---\n", None),
        ("\ufeffa: ü", {"a": "ü"}),
    ],
)  # fmt: skip
def test_reads_what_is_written(text, expected):
    """A value is the text that was written; aliases and merges are worked in."""
    root, problems = parse(text, "f")

    assert [] == problems
    assert expected == plain(root)


@pytest.fixture(params=[loader for loader in ("CSafeLoader", "SafeLoader") if hasattr(yaml, loader)])
def library(request, monkeypatch):
    """Each of the library's parsers in turn, of which one has words of its own, and the other limits of its own."""
    monkeypatch.setattr(yaml_source, "_LOADER", getattr(yaml, request.param))


TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels; no key needs that"
NO_ANCHOR = 'the alias "*b" has no anchor before it; quote a value that starts with *, or define its anchor first'
TWO_ANCHORS = 'the anchor "&x" is said twice, first on line 1; give each anchor a name of its own'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3", ["f:3: a: said twice, first on line 1; keep one"]),
        ("a: {b: 1, b: 2}", ["f:1: a.b: said twice, first on line 1; keep one"]),
        ("a: 1\n[b]: 2", ["f:2: has a list or table as a key; a key is plain text"]),
        ("a: 1\nb: *b\n", [f"f:2: {NO_ANCHOR}"]),
        ("a: *b\nc: &b 1", [f"f:1: {NO_ANCHOR}"]),
        ("a: &x 1\nb:\n  c: &x 2", [f"f:3: {TWO_ANCHORS}"]),
        ("{a: &x 1, b: &x 2}", [f"f:1: {TWO_ANCHORS}"]),
        ("a: 1\n---\nb: 2", ["f:2: holds a second document; keep one document in the file"]),
        ("a: 1\r\nb: 2\r\na: 3\r\n", ["f:3: a: said twice, first on line 1; keep one"]),
        ("a: 1\rb: 2\ra: 3", ["f:3: a: said twice, first on line 1; keep one"]),
        ("a: 1\rb: " + "[" * 1000, [f"f:2: {TOO_DEEP}"]),
        ("a: 1\nb: \0", ['f:2: the control character "\\u0000" is not allowed in YAML; remove it']),
        ("a: !secret x", ['f:1: a: the tag "!secret" has no meaning here; remove it']),
        ("a: &x [*x]", ["f:1: a[0]: contains itself through an alias; write it out"]),
        ("a: &x {<<: *x}", ["f:1: a.<<: contains itself through an alias; write it out",
                            "f:1: a: << merges tables only; name the anchor of one"]),
        ("? <<", ["f:1: << merges tables only; name the anchor of one"]),
        ("a: {<<: 1}", ["f:1: a: << merges tables only; name the anchor of one"]),
        ("\n" + "[" * 100_000, [f"f:2: {TOO_DEEP}"]),
        ("\n" + "[" * 100_000 + "]" * 100_000, [f"f:2: {TOO_DEEP}"]),
        ("\n" + "{" * 100_000, [f"f:2: {TOO_DEEP}"]),
        ("a:\n" + "{b: " * 100_000, [f"f:2: {TOO_DEEP}"]),
        ("[\n" * 100_000, [f"f:{MAX_DEPTH + 1}: {TOO_DEEP}"]),
        ("- " * 100_000 + "x", [f"f:1: {TOO_DEEP}"]),
        ("? " * 100_000, [f"f:1: {TOO_DEEP}"]),
        ("\n".join(" " * level + "a:" for level in range(2000)), [f"f:{MAX_DEPTH + 1}: {TOO_DEEP}"]),
        ("a: \"[{'\" # [\n" + "b: '[{\"'\n" + "c: " + "[" * 1000, [f"f:3: {TOO_DEEP}"]),
        ("a: [\n" + "[b: " * MAX_DEPTH, [f"f:2: {TOO_DEEP}"]),
        ("a: ]\nb: " + "[" * 1000, [f"f:2: {TOO_DEEP}"]),
    ],
)  # fmt: skip
def test_says_what_is_wrong(text, expected, library):
    """Each fault has its line and its remedy, and both are ours."""
    _, problems = parse(text, "f")

    assert expected == [str(problem).replace('"<<"', "<<") for problem in problems]


GENERAL = "check indentation, brackets and quotes here"


@pytest.mark.parametrize(
    ("text", "line", "remedy"),
    [
        ("a: b: c", 1, 'check the indentation, and quote values that hold ": "'),
        ("a: 1\n  b: 2", 2, 'check the indentation, and quote values that hold ": "'),
        ("a:\n\tb: 1", 2, "indent with spaces, and quote values that start with a tab, @, ` or %"),
        ("a: @x", 1, "indent with spaces, and quote values that start with a tab, @, ` or %"),
        ("a: [1", 1, GENERAL),
        ("a: [1\n\n\n", 1, GENERAL),
        ("a:\n  - 'x\n", 2, GENERAL),
        ("a: ]", 1, GENERAL),
        ("a:\n - 1\n-2", 3, GENERAL),
    ],
)
def test_says_what_is_no_yaml(text, line, remedy, library):
    """A parser's words are its own; the line and the remedy are the same with each."""
    root, [problem] = parse(text, "f")

    assert (None, line) == (root, problem.place.line)
    assert str(problem).startswith(f"f:{line}: cannot be read as YAML: ")
    assert str(problem).endswith(f"; {remedy}")


def test_a_parser_without_words(monkeypatch):
    """What a parser says nothing of, not even the place, has a remedy."""

    def refuse(*_, **__):
        raise yaml.MarkedYAMLError

    monkeypatch.setattr(yaml_source.yaml, "parse", refuse)

    [problem] = parse("a: 1", "f")[1]

    assert f"f: cannot be read as YAML: syntax error; {GENERAL}" == str(problem)


def test_a_parser_with_limits_of_its_own(monkeypatch):
    """A parser that gives up before our limit has no say in what was too deep."""

    def refuse(*_, **__):
        raise yaml.YAMLError("exceeded maximum nesting depth")

    monkeypatch.setattr(yaml_source.yaml, "parse", refuse)

    assert [f"f:2: {TOO_DEEP}"] == [str(problem) for problem in parse("a:\n" + "[{b: " * MAX_DEPTH, "f")[1]]


SIGNS = [
    *":[]{},|>'\"#%@`~\\\n\t\ufeffa", " ", "  ", "- ", "? ", "&x ", "*x", "!y ", "<<", "---\n", "...\n", "%YAML 9.9\n",
    "{" * (MAX_DEPTH + 1),
]  # fmt: skip


@given(st.lists(st.sampled_from(SIGNS), max_size=25).map("".join) | st.text(max_size=40), st.booleans())
def test_any_text(text, pure):
    """Nothing raises, and a problem has a line of the text."""
    with pytest.MonkeyPatch.context() as patch:
        if pure:
            patch.setattr(yaml_source, "_LOADER", yaml.SafeLoader)
        root, problems = parse(text, "f")

        assert root is not None or problems or yaml.compose(text, Loader=yaml_source._LOADER) is None
    assert all(0 <= problem.place.line <= len(text.splitlines() or [""]) for problem in problems)


def test_a_key_knows_its_line():
    """Keys and values carry the line on which they stand."""
    root, _ = parse("a:\n  b:\n\n    - 1\n    - 2\n", "f")

    entry = root.entries["a"].node.entries["b"]
    assert 2 == entry.place.line
    assert [4, 5] == [item.place.line for item in entry.node.items]
