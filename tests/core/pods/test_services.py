"""The services of a configuration as applications reach them: which URL is whose."""

from __future__ import annotations

import pytest

from sidecar.core.pods.services import Reachable, host_in, on_loopback, reachable, urls_in
from sidecar.core.rules import Region, Rules, Service
from sidecar.dialects import DIALECTS

HERE = "http://127.0.0.1:7400"
SERVICES = (
    Reachable("azure-openai", f"{HERE}/azure", ("https://{resource}.openai.azure.com",), azure=True),
    Reachable("azure-eu", f"{HERE}/azure-eu", ("https://eu.openai.azure.com", "https://eu2.openai.azure.com")),
    Reachable("government", f"{HERE}/gov", ("https://{resource}.openai.azure.us",)),
    Reachable("vllm", f"{HERE}/vllm", ("http://vllm.default.svc:8000",)),
    Reachable("gateway", f"{HERE}/gateway", ("https://gw.corp/openai",)),
    Reachable("gateway-team", f"{HERE}/team", ("https://gw.corp/openai/team",)),
    Reachable("gateway-port", f"{HERE}/odd", ("https://gw.corp:8443",)),
    Reachable("documents", "http://127.0.0.1:7401", ("https://di.cognitiveservices.azure.com",)),
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://contoso.openai.azure.com", f"{HERE}/azure/contoso"),
        ("HTTPS://Contoso.OpenAI.Azure.com:443/", f"{HERE}/azure/contoso/"),
        ("https://eu.openai.azure.com/openai", f"{HERE}/azure-eu/openai"),  # by name beats any resource
        ("https://eu2.openai.azure.com?api-version=1", f"{HERE}/azure-eu?api-version=1"),
        ("https://contoso.openai.azure.us/", f"{HERE}/gov/contoso/"),
        ("https://contoso.openai.azure.cn/", None),
        ("https://contoso.privatelink.openai.azure.com", None),
        ("https://openai.azure.com", None),
        ("http://vllm.default.svc:8000/v1", f"{HERE}/vllm/v1"),
        ("http://vllm.default.svc/v1", None),
        ("https://vllm.default.svc:8000/v1", None),
        ("https://gw.corp/openai/v1", f"{HERE}/gateway/v1"),
        ("https://gw.corp/openai", f"{HERE}/gateway"),
        ("https://gw.corp/openai/team/v1", f"{HERE}/team/v1"),  # the longer path
        ("https://gw.corp/openai/teams/v1", f"{HERE}/gateway/teams/v1"),
        ("https://gw.corp/openai-2/v1", None),
        ("https://gw.corp/", None),
        ("https://gw.corp:8443/v1", f"{HERE}/odd/v1"),
        ("https://di.cognitiveservices.azure.com/#x", None),
        ("https://di.cognitiveservices.azure.com:443/", "http://127.0.0.1:7401/"),
        ('{"url": "https://di.cognitiveservices.azure.com/"}', None),
        ("Endpoint=https://di.cognitiveservices.azure.com/;Key=x", None),
        ("https://di.cognitiveservices.azure.com:99999/", None),
    ],
)
def test_whose_it_is(value, expected):
    """Scheme, port and base path count: the sidecar would send the call to another place otherwise."""
    assert expected == on_loopback(value, SERVICES)


@pytest.mark.parametrize(
    ("name", "service"),
    [
        ("AZURE_TRANSLATOR_ENDPOINT", "azure-translator"), ("TRANSLATION_URL", "azure-translator"),
        ("AZURE_LANGUAGE_ENDPOINT", "azure-language"), ("TEXT_ANALYTICS_ENDPOINT", "azure-language"),
        ("VISION_ENDPOINT", "azure-vision"), ("CONTENT_SAFETY_ENDPOINT", "azure-safety"),
        ("azure_speech_endpoint", "azure-speech"), ("AZURE_DOCUMENT_INTELLIGENCE_ENDPOINT", "azure-documents"),
        ("DOCUMENTINTELLIGENCE_ENDPOINT", "azure-documents"), ("FORM_RECOGNIZER_ENDPOINT", "azure-documents"),
        ("CONTENT_UNDERSTANDING_ENDPOINT", "azure-documents"), ("ENDPOINT", "azure-documents"),
    ],
)  # fmt: skip
def test_several_services_of_one_resource(name, service):
    """A resource of Azure answers for all of them at one host: the variable's name tells which is meant."""
    resource = "https://acme.cognitiveservices.azure.com"
    names = [each for each in DIALECTS if each.startswith("azure-") and each != "azure-openai"]
    rules = Rules(
        services=tuple(Service(each, DIALECTS[each], (Region("r", resource),), path=f"/{each}") for each in names),
        routes=(),
    )

    assert f"{HERE}/{service}/" == on_loopback(f"{resource}/", reachable(rules), name)


@pytest.mark.parametrize(
    ("url", "expected"),
    [(f"{HERE}/vllm", True), (f"{HERE}/vllm/v1", True), (f"{HERE}/vllm?x", True), (f"{HERE}/vllm2", False),
     ("http://127.0.0.1:9000/vllm", False), ("", False)],
)  # fmt: skip
def test_what_arrives(url, expected):
    """At this service, not at one whose path begins the same."""
    assert expected is SERVICES[3].has(url)


def test_hosts_are_shown_without_what_may_be_secret():
    """Neither users nor keys."""
    assert "x.example" == host_in("https://x.example/path?key=secret")
    assert "" == host_in("https://user:secret@x.example/")
    assert ["https://a.example/v1?x=1"] == urls_in('{"a": "https://a.example/v1?x=1"}')
