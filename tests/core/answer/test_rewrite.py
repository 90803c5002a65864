"""Calling a model by another name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.answer.rewrite import deployed, with_model

NEW = b'"new"'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b'{"model":"old"}', b'{"model":"new"}', id="alone"),
        pytest.param(b'{"model":"old","n":1}', b'{"model":"new","n":1}', id="first"),
        pytest.param(b'{"n":1.50, "model":"old"}', b'{"n":1.50, "model":"new"}', id="last"),
        pytest.param(
            b' \r\n\t{ "a" : [ 1 ] ,\n"model"\t:  "old" , "b":null } \n',
            b' \r\n\t{ "a" : [ 1 ] ,\n"model"\t:  "new" , "b":null } \n',
            id="white space",
        ),
        pytest.param(b'\xef\xbb\xbf {"model":"old"}', b'\xef\xbb\xbf {"model":"new"}', id="byte order mark"),
        pytest.param(b'{"mod\\u0065l":"old"}', b'{"mod\\u0065l":"new"}', id="the name escaped"),
        pytest.param(b'{"model":"o\\"l\\\\d"}', b'{"model":"new"}', id="the value escaped"),
        pytest.param(b'{"model":""}', b'{"model":"new"}', id="empty"),
        pytest.param(b'{"model":null}', b'{"model":"new"}', id="null"),
        pytest.param(b'{"model":{"model":"x"}}', b'{"model":"new"}', id="an object"),
        pytest.param(
            b'{"a":{"model":"x"},"b":[{"model":"y"}],"model":"old","c":{"model":"z"}}',
            b'{"a":{"model":"x"},"b":[{"model":"y"}],"model":"new","c":{"model":"z"}}',
            id="the name further down",
        ),
        pytest.param(
            b'{"a":"\\",\\"model\\":\\"x","model":"old"}',
            b'{"a":"\\",\\"model\\":\\"x","model":"new"}',
            id="in a string",
        ),
        pytest.param(b'{"a":"model","model":"old"}', b'{"a":"model","model":"new"}', id="as a value"),
        pytest.param(
            b'{"a":-0,"b":1e999,"c":123456789012345678901234567890,"model":"old"}',
            b'{"a":-0,"b":1e999,"c":123456789012345678901234567890,"model":"new"}',
            id="numbers that nobody can hold",
        ),
        pytest.param(b'{"a":"\xff","model":"old"}', b'{"a":"\xff","model":"new"}', id="no text in another value"),
        pytest.param(b'{"\xff":1,"model":"old"}', None, id="no text in a name"),
        pytest.param(b'{"model":"old","model":"x"}', None, id="twice"),
        pytest.param(b'{"model":"old","model":"old"}', None, id="twice the same"),
        pytest.param(b'{"model":"old","mod\\u0065l":"old"}', None, id="twice, once escaped"),
        pytest.param(b'{"a":1,"a":12,"model":"old"}', None, id="another name twice"),
        pytest.param(b'{"a":12,"a":1,"model":"old"}', None, id="another name twice, the shorter last"),
        pytest.param(b'{"a":1,"model":"old","a":1}', None, id="another name twice, around"),
        pytest.param(b'{"Model":"old"}', None, id="another case"),
        pytest.param(b'{"a":{"model":"old"}}', None, id="only further down"),
        pytest.param(b"{}", None, id="no members"),
        pytest.param(b'[{"model":"old"}]', None, id="an array"),
        pytest.param(b'"model"', None, id="a string"),
        pytest.param(b'{"model":"old"', None, id="broken"),
        pytest.param(b'{"model":"old"}x', None, id="something behind it"),
        pytest.param(b'{"model":"old"}{"model":"old"}', None, id="two objects"),
        pytest.param(b'{"model":"old",}', None, id="a comma too many"),
        pytest.param(b'{"model":"old","a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None, id="deep nesting"),
        pytest.param(b"", None, id="nothing"),
        pytest.param(b"\xef\xbb\xbf", None, id="a mark alone"),
        pytest.param(b"\xff", None, id="no text"),
    ],
)
def test_with_model(body, expected):
    """One value is another; nothing else is touched, and where it isn't certain nothing is replaced."""

    assert expected == with_model(body, "new")


@pytest.mark.parametrize("model", ["new", "", 'a"b\\c', "größe", "a/b:c@1", "\n"])
def test_any_model(model):
    """The new name is written as JSON, whatever is in it."""

    assert {"model": model, "n": 1} == json.loads(with_model(b'{"model":"old","n":1}', model))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["model", "a", '"']) | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    before=st.dictionaries(st.text(max_size=6), VALUES, max_size=4),
    after=st.dictionaries(st.text(max_size=6), VALUES, max_size=4),
    old=VALUES,
    new=st.text(max_size=6),
    indent=st.none() | st.integers(0, 2),
    ascii_only=st.booleans(),
)
def test_means_the_same_with_another_model(before, after, old, new, indent, ascii_only):
    """It reads as before with the model replaced, and the bytes on both sides are the caller's."""
    asked = {name: value for name, value in before.items() if name != "model"}
    asked["model"] = old
    asked |= {name: value for name, value in after.items() if name not in asked}
    body = json.dumps(asked, indent=indent, ensure_ascii=ascii_only).encode()
    found = with_model(body, new)

    assert found is not None
    assert list({**asked, "model": new}.items()) == list(json.loads(found).items())

    written = json.dumps(old, indent=indent, ensure_ascii=ascii_only).replace("\n", "\n" + " " * (indent or 0)).encode()
    replaced = json.dumps(new, ensure_ascii=False).encode()

    assert any(
        body[:at] + replaced + body[at + len(written) :] == found
        for at in range(len(body))
        if body.startswith(written, at)
    )


@given(st.binary(max_size=40) | st.text('{}[]",:model\\u0065 1', max_size=40).map(str.encode))
def test_never_raises(body):
    """Whatever the bytes: an object with another model, or nothing."""
    found = with_model(body, "new")

    assert found is None or NEW in found


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/openai/deployments/old/chat/completions?api-version=2024-10-21",
         b"/openai/deployments/new/chat/completions?api-version=2024-10-21"),
        (b"/openai/deployments/old", b"/openai/deployments/new"),
        (b"/openai/deployments/old?a=/deployments/old", b"/openai/deployments/new?a=/deployments/old"),
        (b"//openai//deployments//old//chat", b"//openai//deployments//new//chat"),
        (b"/openai/deployments/%6Fld/chat", b"/openai/deployments/new/chat"),
        (b"/openai/deployments/old/deployments/old", b"/openai/deployments/new/deployments/old"),
        (b"/deployments/old/x", b"/deployments/new/x"),
        (b"/openai/deployments/older/chat", None),
        (b"/openai/deployments/Old/chat", None),
        (b"/openai/deployments/", None),
        (b"/openai/deployments//?x", None),
        (b"/openai/deployments", None),
        (b"/openai/mydeployments/old/chat", None),
        (b"/openai/v1/chat/completions", None),
        (b"/openai/v1/chat?x=/deployments/old/y", None),
        (b"", None),
    ],
)  # fmt: skip
def test_deployed(target, expected):
    """The deployment in the path, and nothing else of the target."""

    assert expected == deployed(target, "old", "new")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("gpt-4o_x.1~", "gpt-4o_x.1~", b"/deployments/gpt-4o_x.1~/x"),
        ("a b", "c/d?e#f%g", b"/deployments/c%2Fd%3Fe%23f%25g/x"),
        ("größe", "größe", b"/deployments/gr%C3%B6%C3%9Fe/x"),
    ],
)
def test_deployed_is_encoded(old, new, expected):
    """What cannot stand in a path is percent-encoded (RFC 3986, 2.1), in the old name as in the new one."""
    from_old = deployed(b"/deployments/first/x", "first", old)

    assert expected == deployed(from_old, old, new)
