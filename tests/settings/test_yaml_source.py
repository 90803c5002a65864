"""YAML as a tree that knows its lines, and its traps."""

from __future__ import annotations

import pytest

from sidecar.settings.yaml_source import MAX_DEPTH, Members, Scalar, Sequence, parse


def plain(node):
    """The tree without its places."""
    match node:
        case Members():
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3", ["f:3: a: said twice, first on line 1; keep one"]),
        ("a: {b: 1, b: 2}", ["f:1: a.b: said twice, first on line 1; keep one"]),
        ("a: 1\n[b]: 2", ["f:2: has a list or table as a key; a key is plain text"]),
        ("a: *b", [("f:1: cannot be read as YAML: found undefined alias; "
                   "quote a value that starts with *, or define its anchor first")]),
        ("a: b: c", [("f:1: cannot be read as YAML: mapping values are not allowed in this context; "
                     'check the indentation, and quote values that hold ": "')]),
        ("a:\n\tb: 1", [("f:2: cannot be read as YAML: found character that cannot start any token; "
                        "indent with spaces, and quote values that start with a tab, @, ` or %")]),
        ("a: 1\n---\nb: 2", ["f:2: cannot be read as YAML: but found another document; keep one document in the file"]),
        ("a: [1", [("f:1: cannot be read as YAML: did not find expected ',' or ']'; "
                   "check indentation, brackets and quotes here")]),
        ("a: 1\nb: \0", ['f:2: the control character "\\u0000" is not allowed in YAML; remove it']),
        ("a: !secret x", ['f:1: a: the tag "!secret" has no meaning here; remove it']),
        ("a: &x [*x]", ["f:1: a[0]: contains itself through an alias; write it out"]),
        ("a: &x {<<: *x}", ["f:1: a.<<: contains itself through an alias; write it out",
                            "f:1: a: << merges tables only; name the anchor of one"]),
        ("a: {<<: 1}", ["f:1: a: << merges tables only; name the anchor of one"]),
        ("\n" + "[" * 100_000, [f"f:2: nested deeper than {MAX_DEPTH} levels; no key needs that"]),
    ],
)  # fmt: skip
def test_says_what_is_wrong(text, expected):
    """Each fault has its line and its remedy."""
    _, problems = parse(text, "f")

    assert expected == [str(problem).replace('"<<"', "<<") for problem in problems]


def test_a_key_knows_its_line():
    """Keys and values carry the line on which they stand."""
    root, _ = parse("a:\n  b:\n\n    - 1\n    - 2\n", "f")

    entry = root.entries["a"].node.entries["b"]
    assert 2 == entry.place.line
    assert [4, 5] == [item.place.line for item in entry.node.items]
