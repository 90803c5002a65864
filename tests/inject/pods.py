"""
Pods as people write them, drawn at random: few that are wrong, many that are odd.

The rule: an API server would take each of them.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from sidecar.core.pods.settings import DOMAIN, INJECT

names = st.sampled_from(["app", "worker", "migrate", "istio-proxy", "istio-init", "linkerd-proxy", "fetch", "late"])
urls = st.sampled_from([
    "https://api.openai.com/v1", "https://API.OPENAI.COM:443", "https://my-proxy.example/v1", "https://$(HOST)/v1",
    "https://contoso.openai.azure.com/", "http://127.0.0.1:7400/openai/v1", "https://user:key@api.openai.com",
    "$(A)/v1", "https://$(B).openai.azure.com", "", "*", ".corp,10.0.0.0/8", "x", "http://proxy.example:3128",
    "$$(A)", "$(A",
])  # fmt: skip
variable_names = st.sampled_from([
    "A", "B", "HOST", "OPENAI_BASE_URL", "OPENAI_API_BASE", "AZURE_OPENAI_ENDPOINT", "ANTHROPIC_BASE_URL", "NO_PROXY",
    "no_proxy", "HTTPS_PROXY", "http_proxy",
])  # fmt: skip
sources = st.just({"configMapKeyRef": {"name": "c", "key": "k"}}) | st.just({"fieldRef": {"fieldPath": "metadata.uid"}})
variables = st.lists(
    st.fixed_dictionaries({"name": variable_names, "value": urls})
    | st.fixed_dictionaries({"name": variable_names, "valueFrom": sources})
    | st.fixed_dictionaries({"name": variable_names}),
    max_size=5,
)
quantities = st.fixed_dictionaries({}, optional={"cpu": st.sampled_from(["1", "500m"]), "memory": st.just("1Gi")})
containers = st.fixed_dictionaries(
    {"image": st.just("registry.example/app:1")},
    optional={
        "env": st.none() | variables,
        "envFrom": st.lists(st.just({"secretRef": {"name": "s"}}), max_size=1),
        "args": st.lists(st.sampled_from(["run", "--url=https://api.openai.com/v1", "{}"]), max_size=2),
        "ports": st.lists(
            st.fixed_dictionaries(
                {"containerPort": st.sampled_from([80, 8080, 7400])}, optional={"hostPort": st.just(7491)}
            ),
            max_size=1,
        ),
        "resources": st.fixed_dictionaries({}, optional={"limits": quantities, "requests": quantities}),
        "volumeMounts": st.lists(st.just({"name": "data", "mountPath": "/data"}), max_size=1),
    },
)


@st.composite
def several(draw: st.DrawFn, least: int) -> list[dict[str, Any]]:
    """Containers, each with a name of its own."""
    found = draw(st.lists(names, min_size=least, max_size=3, unique=True))
    return [{"name": name, **draw(containers)} for name in found]


tables = st.none() | st.dictionaries(st.sampled_from(["app", "team"]), st.just("x"), max_size=2)
annotations = st.none() | st.dictionaries(
    st.sampled_from([f"{DOMAIN}{word}" for word in ("memory", "cpu-limit", "no-proxy", "skip-containers", "typo")]),
    st.sampled_from(["", "64Mi", "1", "app", ".corp", "yes"]),
    max_size=2,
)
metadata = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("p"),
        "generateName": st.just("p-"),
        "labels": tables | st.just({INJECT: "enabled"}),
        "annotations": annotations,
    },
)


@st.composite
def pods(draw: st.DrawFn) -> dict[str, Any]:
    """A pod, or a template of pods."""
    spec = {
        "containers": draw(several(1)),
        **draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "initContainers": st.none() | several(0),
                    "volumes": st.none() | st.lists(st.just({"name": "data", "emptyDir": {}}), max_size=1),
                    "restartPolicy": st.sampled_from(["Always", "Never"]),
                    "hostNetwork": st.booleans(),
                    "nodeSelector": st.none() | st.just({"kubernetes.io/os": "linux"}),
                    "securityContext": st.just({"runAsUser": 0, "fsGroup": 2000}),
                },
            )
        ),
    }
    taken = {one["name"] for one in spec["containers"]}
    if spec.get("initContainers"):
        spec["initContainers"] = [one for one in spec["initContainers"] if one["name"] not in taken]
    return {**draw(st.fixed_dictionaries({}, optional={"metadata": st.none() | metadata})), "spec": spec}
