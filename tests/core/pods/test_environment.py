"""How the environment of a container sends its calls to the sidecar, and back."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.core.pods.environment import DIRECT, on_loopback, redirect, restore
from sidecar.core.pods.settings import NO_PROXY, Reachable

HERE = "http://127.0.0.1:7400"
SERVICES = (
    Reachable("openai", f"{HERE}/openai", ("https://api.openai.com",), "OPENAI_BASE_URL", "/v1"),
    Reachable("anthropic", f"{HERE}/anthropic", ("https://api.anthropic.com",), "ANTHROPIC_BASE_URL"),
    Reachable("azure-openai", f"{HERE}/azure", ("https://{resource}.openai.azure.com",), azure=True),
    Reachable("azure-eu", f"{HERE}/azure-eu", ("https://eu.openai.azure.com",), azure=True),
    Reachable("documents", "http://127.0.0.1:7401", ("https://di.cognitiveservices.azure.com",)),
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
        ("CHAT_ENDPOINT", "https://eu.openai.azure.com", f"{HERE}/azure-eu"),
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
        (env(NO_PROXY="a"), ".corp", {"NO_PROXY": f"a,.corp,{ALL_DIRECT}", "no_proxy": f"a,.corp,{ALL_DIRECT}"}),
        (env(), "", {"NO_PROXY": ALL_DIRECT, "no_proxy": ALL_DIRECT}),
        ([{"name": "NO_PROXY", "value": 1}], "", {"NO_PROXY": 1, "no_proxy": ALL_DIRECT}),
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


def left(one: dict[str, Any], **annotations: str) -> list[str]:
    """What people should know of a container."""
    return redirect(one, SERVICES, annotations).left


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (env(RESOURCE="c", X="https://$(RESOURCE).openai.azure.com/"), {"X": f"{HERE}/azure/c/"}),
        (env(BASE="https://api.openai.com", OPENAI_BASE_URL="$(BASE)/v1"), {"BASE": f"{HERE}/openai"}),
        (env(X="https://$(LATER).openai.azure.com/", LATER="c"), {}),
        (env(X="https://$$(A).openai.azure.com"), {}),
        (env(https_proxy="https://api.openai.com", HTTPS_PROXY="https://api.openai.com"), {}),
        (env(NO_PROXY="https://api.openai.com"), {"NO_PROXY": f"https://api.openai.com,{ALL_DIRECT}"}),
        ([*env(OPENAI_BASE_URL="https://first.example"), *env(OPENAI_BASE_URL="https://api.openai.com/v1")],
         {"OPENAI_BASE_URL": f"{HERE}/openai/v1"}),
        ([*env(OPENAI_BASE_URL="https://api.openai.com/v1"), *env(OPENAI_BASE_URL="https://last.example")], {}),
        (env(OPENAI_API_BASE="https://api.openai.com/v1"), {"OPENAI_API_BASE": f"{HERE}/openai/v1"}),
        (env(AZURE_OPENAI_BASE_URL="https://c.openai.azure.com/openai/v1/"),
         {"AZURE_OPENAI_BASE_URL": f"{HERE}/azure/c/openai/v1/"}),
    ],
)  # fmt: skip
def test_what_kubernetes_makes_of_values(variables, expected):
    """It fills in what stands before, and of equal names the last holds; so only that is rewritten."""
    outcome = redirect(container(variables), SERVICES, {})
    changed = [new for old, new in zip(variables, outcome.variables, strict=False) if old != new]

    assert expected == {each["name"]: each["value"] for each in changed}
    assert variables == restore(outcome.variables, outcome.change)


@pytest.mark.parametrize(
    ("variables", "is_set"),
    [
        (env(), True),
        (env(OPENAI_API_KEY="x", OPENAI_ORG_ID="y"), True),
        (env(OPENAI_API_BASE="https://api.openai.com/v1"), True),
        (env(OPENAI_API_BASE="https://my-proxy.corp/v1"), False),
        (env(OPENAI_ENDPOINT="https://my-proxy.corp/v1"), False),
        (env(AZURE_OPENAI_API_KEY="x"), False),
        ([{"name": "OPENAI_API_BASE", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}], False),
        ([{"name": "OPENAI_API_KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}], True),
    ],
)
def test_another_place_for_the_same_calls(variables, is_set):
    """A library that reads both would send its calls, with the key of that place, to the vendor."""
    assert is_set is ("OPENAI_BASE_URL" in after(container(variables)))
    assert is_set is not any(
        line.startswith("app: OPENAI_BASE_URL is not set: ") for line in left(container(variables))
    )


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (
            container(env(OPENAI_BASE_URL="https://my-proxy.corp/v1")),
            "OPENAI_BASE_URL goes elsewhere: to my-proxy.corp,",
        ),
        (container(env(X="http://api.openai.com/v1")), "to api.openai.com, by another scheme, port or path"),
        (container(env(LLM_URL="http://vllm.svc:8000/v1")), "LLM_URL goes elsewhere: to vllm.svc,"),
        (container(env(X="https://c.cognitiveservices.azure.cn/")), "to c.cognitiveservices.azure.cn,"),
        (container(env(X="https://c.openai.azure.us/?key=hunter2")), "X goes elsewhere: to c.openai.azure.us,"),
        (container(env(X='{"url": "https://api.openai.com/v1"}')), "a URL of api.openai.com stands in the variable X,"),
        (container(command=["run", "--url=https://api.openai.com"]), "a URL of api.openai.com stands in its command,"),
        (container(args=["https://api.openai.com", 3]), "a URL of api.openai.com stands in its args,"),
        (
            container(env(ANTHROPIC_BASE_URL="https://$(HOST)/")),
            "ANTHROPIC_BASE_URL stays as it is: it comes from else",
        ),
        (container(env(ANTHROPIC_BASE_URL="")), "ANTHROPIC_BASE_URL stays as it is, and is no URL"),
        (container(env(DATABASE_URL="https://db.example/x")), ""),
        (container(env(HTTPS_PROXY="https://api.openai.com", NO_PROXY="x", no_proxy="x")), ""),
        (container(env(OPENAI_BASE_URL=f"{HERE}/openai/v1", ANTHROPIC_BASE_URL=f"{HERE}/anthropic")), ""),
        (container(args=["--url", "https://other.example"]), ""),
    ],
)
def test_what_will_not_arrive(one, expected):
    """It is said, with the host and nothing else of the value."""
    found = left(one)

    assert bool(expected) == bool(found)
    assert any(expected in line for line in found) or not expected
    assert not any("hunter2" in line for line in found)


def test_addresses():
    """By which variable calls arrive, and where: also by those that were so already, or are made of others."""
    one = container(env(BASE="https://api.openai.com", LLM="$(BASE)/v1", ANTHROPIC_BASE_URL=f"{HERE}/anthropic"))

    assert {
        "BASE": f"{HERE}/openai", "LLM": f"{HERE}/openai/v1", "OPENAI_BASE_URL": f"{HERE}/openai/v1",
        "ANTHROPIC_BASE_URL": f"{HERE}/anthropic",
    } == redirect(one, SERVICES, {}).arrivals  # fmt: skip


@pytest.mark.parametrize(
    ("variables", "more", "asked", "expected", "warned"),
    [
        (env(NO_PROXY="*"), {}, None, {"NO_PROXY": "*"}, False),
        (env(HTTPS_PROXY="http://p", NO_PROXY="*"), {}, None, {"NO_PROXY": "*", "no_proxy": "*"}, False),
        (env(NO_PROXY="*,a"), {}, None, {"NO_PROXY": f"*,a,{ALL_DIRECT}"}, False),
        (env(HTTPS_PROXY="http://p"), {"envFrom": [{}]}, None, {}, True),
        ([*env(HTTPS_PROXY="http://p"), {"name": "NO_PROXY", "valueFrom": {}}], {}, None, {}, True),
        ([*env(NO_PROXY="a"), {"name": "HTTPS_PROXY", "valueFrom": {}}], {}, None,
         {"NO_PROXY": f"a,{ALL_DIRECT}"}, True),
        ([*env(NO_PROXY="a", no_proxy="a"), {"name": "HTTPS_PROXY", "valueFrom": {}}], {}, None,
         {"NO_PROXY": f"a,{ALL_DIRECT}", "no_proxy": f"a,{ALL_DIRECT}"}, False),
        ([*env(http_proxy="http://p"), {"name": "HTTPS_PROXY", "valueFrom": {}}], {}, None,
         {"NO_PROXY": ALL_DIRECT, "no_proxy": ALL_DIRECT}, False),
        ([{"name": "NO_PROXY", "valueFrom": {}}], {}, None, {}, False),
        ([{"name": "NO_PROXY", "valueFrom": {}}], {}, ".c", {"no_proxy": f".c,{ALL_DIRECT}"}, True),
        (env(HTTPS_PROXY="http://p"), {"envFrom": [{}]}, ".c",
         {"NO_PROXY": f".c,{ALL_DIRECT}", "no_proxy": f".c,{ALL_DIRECT}"}, False),
    ],
)  # fmt: skip
def test_exceptions_of_others(variables, more, asked, expected, warned):
    """One spelling must not hide what somebody else supplies in the other; and an asterisk is only alone what it is."""
    one = container(variables, **more)
    annotations = {} if asked is None else {NO_PROXY: asked}
    found = after(one, **annotations)

    assert expected == {name: found[name] for name in ("NO_PROXY", "no_proxy") if name in found}
    assert warned == any("PROXY" in line or "proxy" in line for line in left(one, **annotations))


def test_what_others_change_afterwards():
    """The second call takes their URL up; taking back leaves what is theirs."""
    first = redirect(container(env(OPENAI_BASE_URL="https://api.openai.com/v1")), SERVICES, {})
    changed = [{**each} for each in first.variables]
    changed[0]["value"] = "https://api.openai.com/v2"
    changed[1]["value"] = "https://my-proxy.corp"
    second = redirect(container(changed), SERVICES, {}, first.change)

    assert [f"{HERE}/openai/v2", "https://my-proxy.corp"] == [each["value"] for each in second.variables]
    assert changed == restore(second.variables, second.change)
    assert any("ANTHROPIC_BASE_URL goes elsewhere" in line for line in second.left)
    assert {"OPENAI_BASE_URL": "https://api.openai.com/v1"} == first.change.rewritten, "the first change is as it was"


def test_twice_is_once():
    """The second call finds nothing to do, and knows the same."""
    one = container(env(LLM="https://api.openai.com", HTTPS_PROXY="http://p", NO_PROXY="x"), envFrom=[{}])
    first = redirect(one, SERVICES, {})
    second = redirect({**one, "env": first.variables}, SERVICES, {}, first.change)

    assert first == second


@pytest.mark.parametrize("empty", [{}, {"value": None}, {"value": ""}], ids=["left-out", "null", "empty"])
@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_an_empty_exception_is_one(name, empty):
    """An API server leaves out empty values; keys must not go to the proxy for that. Taken back, each is as it was."""
    one = container([*env(HTTPS_PROXY="http://p"), {"name": name, **empty}])
    outcome = redirect(one, SERVICES, {})
    values = {each["name"]: each["value"] for each in outcome.variables}

    assert (ALL_DIRECT, ALL_DIRECT) == (values["NO_PROXY"], values["no_proxy"])
    assert one["env"] == restore(outcome.variables, outcome.change)
    assert outcome == redirect({**one, "env": outcome.variables}, SERVICES, {}, outcome.change)


@pytest.mark.parametrize("empty", [{}, {"value": None}], ids=["left-out", "null"])
def test_an_empty_value_that_others_set_afterwards(empty):
    """Then it is theirs, and taken back it has their value."""
    one = container([*env(HTTPS_PROXY="http://p"), {"name": "NO_PROXY", **empty}])
    first = redirect(one, SERVICES, {})
    theirs = [*env(HTTPS_PROXY="http://p", NO_PROXY=".corp"), *first.variables[2:]]
    second = redirect({**one, "env": theirs}, SERVICES, {}, first.change)

    assert env(HTTPS_PROXY="http://p", NO_PROXY=".corp") == restore(second.variables, second.change)


@pytest.mark.parametrize(
    "added",
    [
        {"env": env(AZURE_OPENAI_ENDPOINT="https://contoso.openai.azure.com")},
        {"env": [{"name": "AZURE_OPENAI_API_KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
        {"env": env(OPENAI_API_BASE="https://mine.example/v1")},
        {"env": [], "envFrom": [{"secretRef": {"name": "s"}}]},
    ],
    ids=["azure", "azure-key", "rival", "envFrom"],
)
def test_what_must_not_be_set_any_more(added):
    """Another webhook adds what our base URL stands in the way of: the next call takes it back, and says why."""
    first = redirect(container(), SERVICES, {})
    one = {**container(), **added, "env": [*first.variables, *added["env"]]}
    second = redirect(one, SERVICES, {}, first.change)

    assert "OPENAI_BASE_URL" in {each["name"] for each in first.variables}
    assert "OPENAI_BASE_URL" not in {each["name"] for each in second.variables}
    assert any("OPENAI_BASE_URL is not set" in line for line in second.left)
    assert added["env"] == restore(second.variables, second.change)
    assert second == redirect({**one, "env": second.variables}, SERVICES, {}, second.change)


def test_values_that_grow():
    """A few variables that name each other would be terabytes; what grows so is no URL, and stays as it is."""
    tower = [("A0", "x" * 10), *((f"A{at}", f"$(A{at - 1})" * 10) for at in range(1, 13))]
    wide = [("B", "x" * 8000), *((f"B{at}", "$(B)") for at in range(1000))]
    variables = env(**dict([*tower, *wide]), LLM="https://api.openai.com/v1")
    outcome = redirect(container(variables), SERVICES, {})

    assert variables[:-1] == outcome.variables[: len(variables) - 1]
    assert f"{HERE}/openai/v1" == outcome.variables[len(variables) - 1]["value"]


def test_a_rewritten_value_is_not_expanded_again():
    """Two dollar signs are one for the container, before and after."""
    variables = env(X="secret", LLM="https://api.openai.com/v1/$$(X)")

    assert f"{HERE}/openai/v1/$$(X)" == after(container(variables))["LLM"]
