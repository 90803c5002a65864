"""What the webhook asks its cluster: the version that pods must fit, and its own image."""

from __future__ import annotations

import pytest

from sidecar.inject.api_server import PAGE, ApiServerError
from sidecar.inject.facts import met, nodes, own_image, served_version

REPOSITORY = "registry.example/ai-sidecar"


def node(kubelet: str) -> dict[str, object]:
    return {"status": {"nodeInfo": {"kubeletVersion": kubelet}}}


@pytest.mark.parametrize(
    ("served", "kubelets", "expected"),
    [
        ("v1.30.2", ["v1.30.1", "v1.28.9-eks-1"], (1, 28)),
        ("v1.29.0+k3s1", [], (1, 29)),
        ("v1.29.0", ["v1.31.0"], (1, 29)),
        ("v1.31.0", ["", "unknown"], (1, 31)),
        ("v1.34.1", ["v1.34.0"] * PAGE + ["v1.27.3"], (1, 27)),
    ],
    ids=["behind", "no-nodes", "ahead", "unreadable", "second-page"],
)
async def test_the_oldest_decides(small_api, served: str, kubelets: list[str], expected: tuple[int, int]):
    """Of the API server and of all kubelets."""
    server, api = small_api
    server.put("/version", {"gitVersion": served})
    for number, kubelet in enumerate(kubelets):
        server.put(f"/api/v1/nodes/n{number:04}", node(kubelet))

    assert expected == met(await served_version(api), await nodes(api))


async def test_architectures(small_api):
    """Those of the nodes that run Linux."""
    server, api = small_api
    for number, (system, architecture) in enumerate(
        [("linux", "amd64"), ("windows", "arm"), ("", "s390x"), ("linux", "")]
    ):
        info = {"operatingSystem": system, "architecture": architecture}
        server.put(f"/api/v1/nodes/n{number}", {"status": {"nodeInfo": info}})

    assert {"amd64", "s390x"} == (await nodes(api)).architectures


async def test_nodes_may_not_be_seen(small_api):
    """That is an error; the API server's own version can still be asked for."""
    server, api = small_api
    server.put("/version", {"gitVersion": "v1.30.2"})
    server.refused["/api/v1/nodes"] = 403
    with pytest.raises(ApiServerError):
        await nodes(api)

    assert (1, 30) == await served_version(api)


@pytest.mark.parametrize(
    ("resolved", "expected"),
    [
        (f"{REPOSITORY}@sha256:12", f"{REPOSITORY}@sha256:12"),
        (f"docker-pullable://{REPOSITORY}@sha256:12", f"{REPOSITORY}@sha256:12"),
        ("docker://sha256:12", f"{REPOSITORY}:1"),
        ("sha256:12", f"{REPOSITORY}:1"),
        ("", ""),
    ],
    ids=["containerd", "docker", "docker-local", "local", "not-yet"],
)
async def test_the_own_image(small_api, resolved: str, expected: str):
    """By digest as the node pulled it; as it was named where no registry knows it; nothing while kubelet is silent."""
    server, api = small_api
    mesh = {"name": "istio-proxy", "image": "mesh"}
    containers = [mesh, {"name": "ai-sidecar-webhook", "image": f"{REPOSITORY}:1"}]
    statuses = [
        {"name": "istio-proxy", "imageID": "mesh@sha256:1"},
        {"name": "ai-sidecar-webhook", "imageID": resolved},
    ]
    pod = {"spec": {"containers": containers}, "status": {"containerStatuses": statuses}}
    server.put("/api/v1/namespaces/ai-sidecar/pods/me", pod)

    assert expected == await own_image(api, "me", "ai-sidecar-webhook")


async def test_a_pod_that_has_no_status(small_api):
    """It is asked again."""
    server, api = small_api
    server.put("/api/v1/namespaces/ai-sidecar/pods/me", {"spec": {"containers": [{"name": "any", "image": "x"}]}})

    assert "" == await own_image(api, "me", "ai-sidecar-webhook")
