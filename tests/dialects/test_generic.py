import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json

from sidecar.core.dialect import BodyForm, Kind, Shape
from sidecar.core.model import Facts, Head
from sidecar.dialects import DIALECTS
from sidecar.dialects.generic import GENERIC


def test_dialects_are_found_by_their_configured_name():
    """A configuration names a dialect as the dialect names itself."""
    assert {
        "openai", "azure-openai", "azure-documents", "azure-vision", "azure-language", "azure-translator",
        "azure-safety", "azure-speech", "anthropic", "generic",
    } == set(DIALECTS)  # fmt: skip
    assert all(name == dialect.name for name, dialect in DIALECTS.items())


@given(path=st.text())
def test_every_path_is_the_one_operation(path):
    """No path means anything, so none is unknown."""
    found = GENERIC.locate(b"POST", path)

    assert (Kind.OTHER, BodyForm.RAW, Shape(), "") == (found.kind, found.body, found.shape, found.bypass)
    assert found is GENERIC.locate(b"GET", path)


@pytest.mark.parametrize("method", [b"PUT", b"PATCH", b"DELETE", b"HEAD", b"OPTIONS", b"PROPFIND"])
def test_other_methods_pass_through(method):
    """What changes something, or asks for no content, is not looked up."""
    assert GENERIC.locate(method, "/") is None


@given(members=st.dictionaries(st.text(), st.none() | st.booleans() | st.text()))
def test_nothing_is_read_into_a_call(members):
    """Only an owner who says ``always`` has such calls cached: none is called deterministic."""
    assert Facts() == GENERIC.locate(b"POST", "/").read(members)


def test_errors_have_code_and_message():
    """The error's body is JSON with an ``error`` object; a stream has none that we know."""
    told = {"code": "c", "message": "m"}

    assert {"error": told} == json.decode(GENERIC.error(502, "c", "m"))
    assert not GENERIC.error_event("c", "m")


def test_no_call_is_misdirected():
    """No form of a call is foreign to a service that we know nothing about."""
    head = Head(method=b"POST", target=b"/", minor=1, pairs=(), fields={b"api-key": b"k"})

    assert GENERIC.misdirected(head, "/openai/deployments/gpt/chat/completions", "api-version=1") is None


@pytest.mark.parametrize("name", [b"authorization", b"api-key", b"x-api-key", b"cookie"])
def test_whatever_may_tell_callers_apart_does(name):
    """Every usual place of a credential separates callers, and keys stay in their region."""
    assert name in (*GENERIC.credentials, *GENERIC.scopes)
    assert not GENERIC.one_credential_domain
