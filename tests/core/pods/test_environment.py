"""How the environment of a container sends its calls to the sidecar, and back."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.core.pods.environment import DIRECT, on_loopback, redirect, restore
from sidecar.core.pods.settings import NO_PROXY, Reachable

HERE = "http://127.0.0.1:7400"
SERVICES = (
    Reachable("openai", f"{HERE}/openai", frozenset({"api.openai.com"})),
    Reachable("anthropic", f"{HERE}/anthropic", frozenset({"api.anthropic.com"})),
    Reachable("azure-openai", f"{HERE}/azure", suffixes=(".openai.azure.com",)),
    Reachable("documents", "http://127.0.0.1:7401", frozenset({"di.cognitiveservices.azure.com"})),
)
ALL_DIRECT = ",".join(DIRECT)


def env(**values: str) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def container(variables: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": "app", **({} if variables is None else {"env": variables}), **more}


def after(one: dict[str, Any], **annotations: str) -> dict[str, str]:
    """The plain values of the variables of a container once it is redirected."""
    return {each["name"]: each["value"] for each in redirect(one, SERVICES, annotations).variables if "value" in each}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://api.openai.com/v1", f"{HERE}/openai/v1"),
        ("https://API.OpenAI.com/v1/", f"{HERE}/openai/v1/"),
        ("https://api.openai.com:443/v1", f"{HERE}/openai/v1"),
        ("https://api.anthropic.com", f"{HERE}/anthropic"),
        ("https://contoso.openai.azure.com", f"{HERE}/azure/contoso"),
        ("https://contoso.openai.azure.com/openai/v1/", f"{HERE}/azure/contoso/openai/v1/"),
        ("https://di.cognitiveservices.azure.com/", "http://127.0.0.1:7401/"),
        ("https://x.example/v1", None),
        ("https://api.openai.com.evil.example/v1", None),
        ("https://a.b.openai.azure.com", None),
        ("https://.openai.azure.com", None),
        ("http://api.openai.com/v1", None),
        ("https://user:secret@api.openai.com/v1", None),
        ("https://$(RESOURCE).openai.azure.com", None),
        ("https://api.openai.com:8443/v1", None),
        ("https://[", None),
        ("api.openai.com", None),
        ("", None),
    ],
)
def test_urls(value, expected):
    """A service's own URL is found again on loopback, path and all; anything else is left."""
    assert expected == on_loopback(value, SERVICES)


def test_variables_that_are_set():
    """Known variables that are absent; nothing else."""
    assert {"OPENAI_BASE_URL": f"{HERE}/openai/v1", "ANTHROPIC_BASE_URL": f"{HERE}/anthropic"} == after(container())


def test_a_literal_value_is_rewritten():
    """Whatever the variable is called; others stay."""
    one = container(
        env(LLM="https://api.openai.com/v1", DOCUMENTS="https://di.cognitiveservices.azure.com/", OTHER="x")
    )
    found = after(one)

    assert (f"{HERE}/openai/v1", "http://127.0.0.1:7401/", "x") == (found["LLM"], found["DOCUMENTS"], found["OTHER"])


@pytest.mark.parametrize(
    ("variable", "value", "after_it"),
    [
        ("AZURE_OPENAI_ENDPOINT", "https://c.openai.azure.com", f"{HERE}/azure/c"),
        ("AZURE_OPENAI_API_KEY", "k", "k"),
        ("OPENAI_API_VERSION", "2024-10-21", "2024-10-21"),
        ("CHAT_ENDPOINT", "https://c.openai.azure.com/", f"{HERE}/azure/c/"),
        ("CHAT_ENDPOINT", f"{HERE}/azure/c", f"{HERE}/azure/c"),
    ],
)
def test_azure_beside_openai(variable, value, after_it):
    """
    The Azure client of Node.js refuses a base URL beside an endpoint, so none is set where a name or a resource shows
    that the container calls Azure, and that is said.
    """
    outcome = redirect(container(env(**{variable: value})), SERVICES, {})
    names = [each["name"] for each in outcome.variables]

    assert [variable, "ANTHROPIC_BASE_URL"] == names
    assert after_it == outcome.variables[0]["value"]
    assert any("OPENAI_BASE_URL" in line and variable in line and "Node.js" in line for line in outcome.left)


@pytest.mark.parametrize("value", ["https://api.anthropic.com", "https://di.cognitiveservices.azure.com"])
def test_others_beside_openai(value):
    """Only Azure OpenAI is in its way; another service is not."""
    assert f"{HERE}/openai/v1" == after(container(env(LLM=value)))["OPENAI_BASE_URL"]


def test_what_others_may_supply():
    """``envFrom`` and ``valueFrom`` are left alone, and named with what to write there."""
    secret = {"name": "OPENAI_BASE_URL", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    by_value = redirect(container([secret]), SERVICES, {})
    by_table = redirect(container(None, envFrom=[{"configMapRef": {"name": "c"}}]), SERVICES, {})

    assert secret in by_value.variables
    assert any("OPENAI_BASE_URL" in line for line in by_value.left)
    assert [] == list(by_table.variables)
    assert any(f"{HERE}/openai/v1" in line for line in by_table.left)


@pytest.mark.parametrize(
    ("variables", "annotation", "expected"),
    [
        (env(), None, {}),
        (env(HTTPS_PROXY="http://p:3128"), None, {"NO_PROXY": ALL_DIRECT, "no_proxy": ALL_DIRECT}),
        (env(NO_PROXY=".corp"), None, {"NO_PROXY": f".corp,{ALL_DIRECT}"}),
        (env(no_proxy=f"{ALL_DIRECT},x"), None, {"no_proxy": f"{ALL_DIRECT},x"}),
        (env(https_proxy="http://p", NO_PROXY="a, b"), None,
         {"NO_PROXY": f"a,b,{ALL_DIRECT}", "no_proxy": f"a,b,{ALL_DIRECT}"}),
        (env(), ".corp", {"NO_PROXY": f".corp,{ALL_DIRECT}", "no_proxy": f".corp,{ALL_DIRECT}"}),
    ],
)  # fmt: skip
def test_proxies(variables, annotation, expected):
    """Loopback and the identity endpoint are kept away from a proxy; what is there already is kept."""
    found = after(container(variables), **({} if annotation is None else {NO_PROXY: annotation}))

    assert expected == {name: found[name] for name in ("NO_PROXY", "no_proxy") if name in found}


def test_proxies_from_elsewhere():
    """Then it is only said, unless an annotation tells what to write."""
    one = container(None, envFrom=[{"configMapRef": {"name": "c"}}])

    assert any(NO_PROXY in line for line in redirect(one, SERVICES, {}).left)
    assert not any(NO_PROXY in line for line in redirect(one, SERVICES, {NO_PROXY: "x"}).left)


@pytest.mark.parametrize(
    "one",
    [
        container(),
        container([]),
        container(env(LLM="https://api.openai.com/v1", HTTPS_PROXY="http://p", NO_PROXY="x")),
        container([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
    ],
)
def test_there_and_back(one):
    """What was done is taken back, and nothing else."""
    outcome = redirect(one, SERVICES, {})

    assert list(one.get("env") or ()) == restore(outcome.variables, outcome.change)
