"""Injection: what a pod becomes, when it stays as it is, and how it becomes what it was."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from sidecar.core.pods.inject import Injected, Kept, inject, is_injected, uninject
from sidecar.core.pods.patch import diff
from sidecar.core.pods.settings import (
    CONTAINER,
    DOMAIN,
    INJECT,
    SKIP,
    STATUS,
    Injection,
    Reachable,
    amount,
    tuned,
    version_of,
)
from sidecar.settings import load

SERVICES = (Reachable("openai", "http://127.0.0.1:7400/openai", ("https://api.openai.com",), "OPENAI_BASE_URL", "/v1"),)
NATIVE = Injection("image@sha256:1", SERVICES)
CLASSIC = Injection("image@sha256:1", SERVICES, version=(1, 27))


def pod(*containers: dict[str, Any], labels: dict[str, str] | None = None, annotations: dict[str, str] | None = None,
        **spec: Any) -> dict[str, Any]:  # fmt: skip
    metadata: dict[str, Any] = {"name": "p"}
    metadata |= {} if labels is None else {"labels": labels}
    metadata |= {} if annotations is None else {"annotations": annotations}
    return {"metadata": metadata, "spec": {"containers": list(containers) or [{"name": "app", "image": "app"}], **spec}}


def injected_anew(one: dict[str, Any]) -> dict[str, Any]:
    """The pod after an injection that cannot bring back what it was."""
    outcome = inject(one, NATIVE)
    assert isinstance(outcome, Injected), outcome
    return dict(outcome.pod)


def injected(one: dict[str, Any], settings: Injection = NATIVE, **more: str) -> dict[str, Any]:
    """The pod afterwards. What it was is untouched, and comes back."""
    before = deepcopy(one)
    outcome = inject(one, settings, **more)
    assert isinstance(outcome, Injected), outcome
    assert before == one
    assert before == uninject(outcome.pod)
    again = inject(outcome.pod, settings, **more)
    assert isinstance(again, Injected)
    assert outcome.pod == again.pod
    return dict(outcome.pod)


def names(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["name"] for entry in entries]


def test_native():
    """Ours is the first of the init containers, and goes on running."""
    found = injected(pod(initContainers=[{"name": "migrate"}, {"name": "seed"}]))
    first, *others = found["spec"]["initContainers"]

    assert ([CONTAINER, "migrate", "seed"], "Always") == (names([first, *others]), first["restartPolicy"])
    assert ["app"] == names(found["spec"]["containers"])
    assert "http://127.0.0.1:7400/openai/v1" == found["spec"]["containers"][0]["env"][0]["value"]
    assert all("env" in one for one in others), "init containers may call, too"


def test_classic():
    """
    On older clusters kubelet starts the containers in their order, and each when the hook of the one before has ended:
    ours is the first one, and its hook waits. ``kubectl exec`` still goes to the application's.
    """
    found = injected(pod({"name": "app"}, {"name": "istio-proxy"}), CLASSIC)
    ours = found["spec"]["containers"][0]

    assert [CONTAINER, "app", "istio-proxy"] == names(found["spec"]["containers"])
    assert "restartPolicy" not in ours
    assert ["sidecar", "wait"] == ours["lifecycle"]["postStart"]["exec"]["command"][:2]
    assert "app" == found["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"]


def test_classic_behind_a_mesh():
    """A mesh's container that holds the others back stays the first one."""
    found = injected(pod({"name": "istio-proxy"}, {"name": "app"}, {"name": "linkerd-proxy"}), CLASSIC)

    assert ["istio-proxy", CONTAINER, "app", "linkerd-proxy"] == names(found["spec"]["containers"])
    assert "app" == found["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"]


def test_behind_a_mesh():
    """A mesh makes the pod's network, so ours starts behind it; its containers get no variables."""
    mesh = [{"name": "istio-init"}, {"name": "istio-proxy", "restartPolicy": "Always"}, {"name": "migrate"}]
    found = injected(pod(initContainers=mesh))

    assert ["istio-init", "istio-proxy", CONTAINER, "migrate"] == names(found["spec"]["initContainers"])
    assert "env" not in found["spec"]["initContainers"][0]


def test_nothing_of_ours_stops_a_pod():
    """What is mounted may be missing, and what cannot be read is forwarded."""
    found = injected(pod())
    [ours] = found["spec"]["initContainers"]
    mounted = {volume["name"]: volume for volume in found["spec"]["volumes"]}

    assert ours["args"][-2:] == ["--on-bad-config", "passthrough"]
    assert {mount["name"] for mount in ours["volumeMounts"]} == mounted.keys()
    assert all(
        volume.get("configMap", volume.get("secret", {"optional": True}))["optional"] for volume in mounted.values()
    )
    assert "readinessProbe" not in ours


def test_restricted():
    """It fits the restricted Pod Security Standard."""
    [ours] = injected(pod())["spec"]["initContainers"]
    context = ours["securityContext"]

    assert (True, False, True, ["ALL"], "RuntimeDefault") == (
        context["runAsNonRoot"], context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"],
        context["capabilities"]["drop"], context["seccompProfile"]["type"],
    )  # fmt: skip


REASONS = {
    "disabled": (pod(labels={INJECT: "disabled"}), "disabled"),
    "a label that says no": (pod(labels={INJECT: "false"}), "says 'false'; write enabled or disabled"),
    "hostNetwork": (pod(hostNetwork=True), "hostNetwork"),
    "mirror": (pod(annotations={"kubernetes.io/config.mirror": "x"}), "mirror"),
    "windows": (pod(os={"name": "windows"}), "windows"),
    "windows by selector": (pod(nodeSelector={"kubernetes.io/os": "windows"}), "windows"),
    "architecture": (pod(nodeSelector={"kubernetes.io/arch": "s390x"}), "s390x"),
    "a port": (pod({"name": "app", "ports": [{"containerPort": 7490}]}), "7490"),
    "a container": (pod({"name": CONTAINER}), CONTAINER),
    "a volume": (pod(volumes=[{"name": f"{CONTAINER}-config", "emptyDir": {}}]), CONTAINER),
    "no containers": ({"metadata": {}, "spec": {}}, "no containers"),
    "no room": (pod(annotations={"x": "y" * (256 * 1024 - 50)}), "longer than an API server takes"),
}


@pytest.mark.parametrize(("one", "expected"), REASONS.values(), ids=REASONS)
def test_reasons(one, expected):
    """Why a pod is not injected; it stays as it is."""
    outcome = inject(one, NATIVE)

    assert isinstance(outcome, Kept)
    assert one is outcome.pod
    assert expected in outcome.reason


ONLY_AMD64 = {"nodeSelector": {"kubernetes.io/arch": "amd64"}}
AFFINE = {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
    {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}]},
]}}}}  # fmt: skip


@pytest.mark.parametrize(
    ("built", "present", "spec", "expected"),
    [
        ({"amd64", "arm64"}, {"amd64", "arm64"}, {}, ""),
        ({"amd64", "arm64"}, {"amd64", "s390x"}, {}, "s390x"),
        ({"amd64"}, {"amd64", "arm64"}, {}, "arm64"),
        ({"amd64"}, {"amd64", "arm64"}, ONLY_AMD64, ""),
        ({"amd64"}, {"amd64", "arm64"}, AFFINE, ""),
        ({"amd64"}, set(), {}, ""),
    ],
    ids=["both", "a-third", "image-of-one", "selects", "affine", "unknown"],
)
def test_nodes_of_other_architectures(built: set[str], present: set[str], spec: dict[str, Any], expected: str):
    """A pod that may go where the image does not run is kept; who selects fitting nodes is injected."""
    settings = replace(NATIVE, architectures=frozenset(built), node_architectures=frozenset(present))
    outcome = inject(pod(**spec), settings)

    assert bool(expected) == isinstance(outcome, Kept)
    assert expected in getattr(outcome, "reason", "")


@pytest.mark.parametrize("namespace", ["kube-system", "kube-public", "kube-node-lease", "ai-sidecar"])
def test_namespaces(namespace: str):
    """Those of the system, and our own, are left alone."""
    assert isinstance(inject(pod(), NATIVE, namespace=namespace), Kept)
    assert isinstance(inject(pod(), NATIVE, namespace=f"{namespace}-x"), Injected)


def test_jobs():
    """They end beside a native sidecar, and would not beside a classic one."""
    assert isinstance(inject(pod(), CLASSIC, owner="Job"), Kept)
    assert isinstance(inject(pod(), NATIVE, owner="Job"), Injected)


def test_a_container_that_comes_later():
    """Another webhook adds it after us: called again, we give it its variables, and change nothing else."""
    once = injected(pod())
    later = deepcopy(once)
    later["spec"]["containers"].append({"name": "late"})
    outcome = inject(later, NATIVE)

    assert isinstance(outcome, Injected)
    paths = [operation["path"] for operation in diff(later, outcome.pod)]

    assert ["/metadata/annotations/ai-sidecar.dev~1status", "/spec/containers/1/env"] == sorted(paths)
    assert pod({"name": "app", "image": "app"}, {"name": "late"}) == uninject(outcome.pod)


def test_restart_policy_that_was_stripped():
    """The pod would hang in its init container, so ours is taken out again."""
    once = injected(pod(initContainers=[{"name": "migrate"}]))
    stripped = deepcopy(once)
    del stripped["spec"]["initContainers"][0]["restartPolicy"]
    outcome = inject(stripped, NATIVE)

    assert isinstance(outcome, Kept)
    assert "restartPolicy" in outcome.reason
    assert pod(initContainers=[{"name": "migrate"}]) == outcome.pod


def test_a_native_sidecar_on_old_nodes():
    """What was injected for newer nodes becomes classic there; a Job has none, because it would never end."""
    before = pod(initContainers=[{"name": "migrate", "image": "app"}])
    once = inject(before, NATIVE).pod

    assert inject(once, CLASSIC) == inject(before, CLASSIC)
    assert inject(once, CLASSIC, owner="Job") == inject(before, CLASSIC, owner="Job")
    assert isinstance(inject(once, CLASSIC, owner="Job"), Kept)


EXACT = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (EXACT, True),
        ({"limits": EXACT["limits"]}, True),
        ({"requests": EXACT["requests"]}, False),
        ({**EXACT, "requests": {"cpu": "500m", "memory": "1Gi"}}, False),
        ({}, False),
    ],
)
def test_guaranteed(resources, expected):
    """A pod of the quality Guaranteed stays one: our requests are our limits."""
    [ours] = injected(pod({"name": "app", "resources": resources}))["spec"]["initContainers"]

    assert expected == (ours["resources"]["requests"] == ours["resources"]["limits"])
    assert expected == ("cpu" in ours["resources"]["limits"])


def test_annotations_tune():
    """Quantities of ours, and containers that get nothing."""
    asked = {f"{DOMAIN}memory": "64Mi", f"{DOMAIN}cpu-limit": "200m", SKIP: "other, third"}
    found = injected(pod({"name": "app"}, {"name": "other"}, {"name": "third"}, annotations=asked))
    [ours] = found["spec"]["initContainers"]

    assert ("64Mi", "200m") == (
        next(each["value"] for each in ours["env"] if each["name"] == "SIDECAR_CACHE_MEMORY_MAX_BYTES"),
        ours["resources"]["limits"]["cpu"],
    )
    assert [True, False, False] == ["env" in one for one in found["spec"]["containers"]]


@pytest.mark.parametrize("value", ["", "yes", "64 Mi", "-1", "64Mib"])
def test_annotations_that_are_wrong(value: str):
    """A warning, and the default."""
    settings, warnings = tuned(NATIVE, {f"{DOMAIN}memory": value})

    assert ("", 1) == (settings.memory, len(warnings))
    assert isinstance(inject(pod(annotations={f"{DOMAIN}memory": value}), NATIVE), Injected)


@pytest.mark.parametrize(
    ("word", "value", "expected"),
    [
        ("memory", "4Mi", "4Mi"), ("memory", "1Mi", ""), ("memory", "16m", ""), ("memory", "1.5Mi", ""),
        ("cpu-limit", "50m", "50m"), ("cpu-limit", "0.5", "0.5"), ("cpu-limit", "1m", ""), ("cpu-limit", "64Mi", ""),
        ("memory-limit", "96Mi", "96Mi"), ("memory-limit", "8Mi", "256Mi"), ("memory-limit", "1Gi", "1Gi"),
        ("cpu-request", "0", "50m"), ("cpu-request", "2", "2"),
    ],
)  # fmt: skip
def test_annotations_within_bounds(word, value, expected):
    """What a sidecar could not start with, or could not read, is not used, and people are told."""
    settings, warnings = tuned(NATIVE, {f"{DOMAIN}{word}": value})

    assert expected == getattr(settings, word.replace("-", "_"))
    assert (value != expected) == bool(warnings)


def test_a_start_in_a_guaranteed_pod():
    """Its limit is its request, and no request makes the limit so small that the start takes minutes."""
    own = {"cpu": "1", "memory": "1Gi"}
    app = {"name": "app", "resources": {"limits": own, "requests": {"cpu": "1000m", "memory": "1024Mi"}}}
    found = injected(pod(app, annotations={f"{DOMAIN}cpu-request": "1m"}))
    slow = injected(pod(app, initContainers=[{"name": "first"}]))

    assert {"cpu": "50m", "memory": "256Mi"} == found["spec"]["initContainers"][0]["resources"]["limits"]
    assert {"memory": "256Mi"} == slow["spec"]["initContainers"][0]["resources"]["limits"]


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [({"memory": "128Mi"}, "128Mi"), ({"memory": "129Mi"}, ""), ({"memory": "999Gi"}, ""),
     ({"memory": "1Gi", "memory-limit": "2Gi"}, "1Gi"), ({"memory": "64Mi", "memory-limit": "96Mi"}, ""),
     ({"memory": "256Gi", "memory-limit": "999Gi"}, "256Gi"), ({"memory": "257Gi", "memory-limit": "999Gi"}, "")],
)  # fmt: skip
def test_a_cache_within_the_container(annotations, expected):
    """It does not outgrow the memory limit: the rest of the process needs some."""
    settings, warnings = tuned(NATIVE, {DOMAIN + name: value for name, value in annotations.items()})

    assert (expected, expected != annotations["memory"]) == (settings.memory, bool(warnings))
    if expected:
        read = load(None, environ={"SIDECAR_CACHE_MEMORY_MAX_BYTES": expected}, overrides={}, strict=True)

        assert read.memory.max_bytes == amount(expected), "no configuration is wrong for an annotation"


def test_a_status_of_another_pod():
    """A status that was copied without our container is no injection: the pod gets the container."""
    found = injected_anew(pod(annotations={STATUS: '{"variant":"native"}'}))

    assert [CONTAINER] == [one["name"] for one in found["spec"]["initContainers"]]
    assert STATUS in found["metadata"]["annotations"]


@pytest.mark.parametrize("value", [1, None, 0.5, True])
def test_annotations_that_are_no_texts(value):
    """Manifests have such; an API server does not take them, and that is not ours to say."""
    found = injected(pod(annotations={f"{DOMAIN}cpu-limit": value, SKIP: value}))

    assert value is found["metadata"]["annotations"][SKIP]


@pytest.mark.parametrize("what", ["cpu", "memory"])
def test_no_request_above_its_limit(what):
    """The API server would refuse the pod."""
    limit, request = ("100m", "1") if what == "cpu" else ("128Mi", "1Gi")
    annotations = {f"{DOMAIN}{what}-limit": limit, f"{DOMAIN}{what}-request": request}
    found = injected(pod(annotations=annotations))
    [ours] = [one for one in found["spec"]["initContainers"] if one["name"] == CONTAINER]

    assert limit == ours["resources"]["limits"][what] == ours["resources"]["requests"][what]
    assert 1 == len(tuned(NATIVE, annotations)[1])


def test_an_annotation_that_nobody_knows():
    """It may be a slip of the pen; the known ones are named, and what we write ourselves is no slip."""
    [warning] = tuned(NATIVE, {f"{DOMAIN}memroy": "1Gi", STATUS: "{}", "other.example/memory": "x"})[1]

    assert warning.startswith(f"{DOMAIN}memroy: no such annotation; after {DOMAIN} there are ")
    assert "memory-limit, " in warning
    assert len(warning) <= 250
    assert [f"{INJECT} is a label, and does nothing as an annotation"] == tuned(NATIVE, {INJECT: "enabled"})[1]


def test_workload_identity():
    """Where regions use it, the pod gets its label, unless it has one."""
    settings = Injection("image", SERVICES, identity=True)
    label = "azure.workload.identity/use"

    assert "true" == injected(pod(), settings)["metadata"]["labels"][label]
    assert "false" == injected(pod(labels={label: "false"}), settings)["metadata"]["labels"][label]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"variant": 1}'])
def test_a_status_that_cannot_be_read(text: str):
    """It is nobody's injection: nothing is taken back by it, and nothing breaks."""
    one = pod(annotations={STATUS: text})

    assert not is_injected(one)
    assert one == uninject(one)


@pytest.mark.parametrize(("text", "expected"), [("v1.29.3-eks", (1, 29)), ("1.34", (1, 34)), ("x", None), ("", None)])
def test_versions(text, expected):
    """As API servers say it."""
    assert expected == version_of(text)


def test_a_template_without_metadata():
    """As CronJobs may have it."""
    bare = {"spec": {"containers": [{"name": "app"}]}}

    assert is_injected(injected(bare))


@pytest.mark.parametrize(
    ("grace", "drain", "expected"),
    [
        (None, 25.0, None), (30, 25.0, None), (600, 25.0, None), (29, 25.0, "24s"), (10, 25.0, "5s"), (4, 25.0, "2s"),
        (1, 25.0, "0s"), (0, 25.0, "0s"), (None, 60.0, "25s"), (65, 60.0, None), (10, 2.0, None), (6, 2.0, "3s"),
        ("10", 25.0, None), (True, 25.0, None), (-1, 25.0, None), (2.5, 25.0, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("settings", [NATIVE, CLASSIC], ids=["native", "classic"])
def test_grace(settings, grace, drain, expected):
    """Our drain ends before the pod's grace period does; where it does so anyway, the configuration's holds."""
    more = {} if grace is None else {"terminationGracePeriodSeconds": grace}
    spec = injected(pod(**more), replace(settings, drain=drain))["spec"]
    [ours] = [
        one for kind in ("initContainers", "containers") for one in spec.get(kind, ()) if one["name"] == CONTAINER
    ]
    found = {variable["name"]: variable.get("value") for variable in ours["env"]}

    assert expected == found.get("SIDECAR_LIMITS_DRAIN")


MESHES = {
    "classic Istio": ([{"name": "istio-init"}], [{"name": "istio-proxy"}]),
    "Istio's CNI": ([{"name": "istio-validation"}], [{"name": "istio-proxy"}]),
    "native Istio": ([{"name": "istio-init"}, {"name": "istio-proxy", "restartPolicy": "Always"}], []),
    "classic Linkerd": ([{"name": "linkerd-init"}], [{"name": "linkerd-proxy"}]),
}


@pytest.mark.parametrize(("first", "beside"), MESHES.values(), ids=MESHES)
def test_probes_behind_a_mesh(first, beside):
    """A mesh takes what kubelet sends from outside, so kubelet asks in the container: else the pod hangs in Init."""
    both = injected(pod({"name": "app"}, *beside, initContainers=[*first, {"name": "migrate"}]))
    [ours] = [one for one in both["spec"]["initContainers"] if one["name"] == CONTAINER]

    assert [*names(first), CONTAINER, "migrate"] == names(both["spec"]["initContainers"])
    assert {"exec"} == {key for key in (*ours["startupProbe"], *ours["livenessProbe"]) if key in {"exec", "httpGet"}}


def test_a_mesh_that_comes_later():
    """It was not there at the first call; at the second the probes change, and the place does not."""
    later = deepcopy(injected(pod()))
    later["spec"]["initContainers"].append({"name": "istio-init"})
    later["spec"]["containers"].append({"name": "istio-proxy"})
    outcome = inject(later, NATIVE)

    assert isinstance(outcome, Injected)

    [ours, other] = outcome.pod["spec"]["initContainers"]

    assert (CONTAINER, "istio-init", True) == (ours["name"], other["name"], "exec" in ours["startupProbe"])


def test_workload_identity_is_no_mesh():
    """Its proxy takes only what goes to the identity endpoint."""
    [_, ours] = injected(pod(initContainers=[{"name": "azwi-proxy-init"}]))["spec"]["initContainers"]

    assert "httpGet" in ours["startupProbe"]


def test_something_that_comes_before_us():
    """An init container that another webhook puts before ours may call, too; so ours goes first again."""
    later = deepcopy(injected(pod(initContainers=[{"name": "migrate"}])))
    later["spec"]["initContainers"].insert(0, {"name": "fetch"})
    outcome = inject(later, NATIVE)

    assert isinstance(outcome, Injected)
    assert [CONTAINER, "fetch", "migrate"] == names(outcome.pod["spec"]["initContainers"])
    assert {"OPENAI_BASE_URL": "http://127.0.0.1:7400/openai/v1"} == outcome.arrivals["fetch"]


def test_what_starts_before_a_classic_sidecar():
    """Its calls would be refused, and the pod would hang; so they go where they went, and that is said."""
    outcome = inject(pod(initContainers=[{"name": "migrate"}]), CLASSIC)

    assert isinstance(outcome, Injected)
    assert [{"name": "migrate"}] == outcome.pod["spec"]["initContainers"]
    assert ["app"] == list(outcome.arrivals)
    assert any(line.startswith("migrate: starts before the sidecar") for line in outcome.warnings)


def test_the_first_container_that_is_the_applications():
    """A mesh may stand first; ``kubectl exec`` goes to the application all the same."""
    found = injected(pod({"name": "istio-proxy"}, {"name": "app"}), CLASSIC)

    assert "app" == found["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"]


@pytest.mark.parametrize(
    ("metadata", "spec", "container"),
    [
        (None, {}, {}), ({"annotations": None}, {}, {}), ({"labels": None, "annotations": {}}, {}, {}),
        ({}, {"volumes": None, "initContainers": None}, {}), ({}, {"volumes": [], "initContainers": []}, {}),
        ({}, {}, {"env": None}), ({}, {}, {"env": []}), ({}, {}, {"env": None, "envFrom": None, "ports": None}),
        ({}, {"nodeSelector": None, "affinity": None, "os": None, "securityContext": None}, {"resources": None}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("settings", [NATIVE, CLASSIC, Injection("image", SERVICES, identity=True)])
def test_what_is_empty_or_null(metadata, spec, container, settings):
    """Manifests have such; each comes back as it was."""
    injected({"metadata": metadata, "spec": {"containers": [{"name": "app", **container}], **spec}}, settings)


def test_resources_of_the_pod_as_a_whole():
    """Those of its containers must fit in, else the API server refuses the pod; ours has none."""
    whole = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
    outcome = inject(pod(resources=whole), NATIVE)

    assert isinstance(outcome, Injected)
    assert "resources" not in outcome.pod["spec"]["initContainers"][0]
    assert any("shares" in line for line in outcome.warnings)
    assert "resources" in injected(pod(resources={}))["spec"]["initContainers"][0]


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [(None, ("SIDECAR_DEFAULT_CACHE_MEMORY_MAX_BYTES", "16Mi")), ("64Mi", ("SIDECAR_CACHE_MEMORY_MAX_BYTES", "64Mi")),
     ("much", ("SIDECAR_DEFAULT_CACHE_MEMORY_MAX_BYTES", "16Mi"))],
)  # fmt: skip
def test_the_memory_tier(annotation, expected):
    """The ConfigMap beats our default, and an annotation beats the ConfigMap."""
    one = pod(annotations=None if annotation is None else {f"{DOMAIN}memory": annotation})
    [ours] = injected(one)["spec"]["initContainers"]
    found = [(each["name"], each["value"]) for each in ours["env"] if "MEMORY" in each["name"]]

    assert [expected] == found


def test_a_container_to_skip_that_is_not_there():
    """A slip of the pen: the container that was meant gets its variables, and people are told."""
    outcome = inject(pod(annotations={SKIP: "ap"}), NATIVE)

    assert isinstance(outcome, Injected)
    assert f"{SKIP}: there is no container ap" in outcome.warnings


@pytest.mark.parametrize("status", ['{"variant":"native","later":1,"volumes":["ai-sidecar-ca","ai-sidecar-config"]}',
                                    '{"variant":"native"}'])  # fmt: skip
def test_an_injection_by_another_version(status):
    """What it says of itself is taken back, and what it does not say is what was always done."""
    volumes = [{"name": name} for name in ("data", "ai-sidecar-ca", "ai-sidecar-config")]
    one = pod(annotations={STATUS: status}, initContainers=[{"name": CONTAINER}], volumes=volumes)
    kept = ["data"] if "volumes" in status else ["data", "ai-sidecar-ca"]

    assert kept == names(uninject(one)["spec"]["volumes"])
    assert [] == uninject(one)["spec"]["initContainers"]
