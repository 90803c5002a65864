"""
What the webhook asks the cluster about: the version that pods must fit, the architectures of the nodes, and the image
that the webhook itself runs.

The rule: the oldest kubelet decides. One that does not know native sidecars would run ours to its end, which never
comes, and the pod would hang in Init.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from sidecar.core.pods.settings import version_of
from sidecar.inject.api_server import ApiServer, Page

Version = tuple[int, int]
"""Of Kubernetes: 1.29 is ``(1, 29)``."""


class _Served(Struct, frozen=True, rename={"version": "gitVersion"}):
    version: str = ""


class _NodeInfo(Struct, frozen=True, rename={"kubelet": "kubeletVersion", "system": "operatingSystem"}):
    kubelet: str = ""
    architecture: str = ""
    system: str = ""


class _NodeStatus(Struct, frozen=True, rename={"info": "nodeInfo"}):
    info: _NodeInfo = _NodeInfo()


class _Node(Struct, frozen=True):
    status: _NodeStatus = _NodeStatus()


class _NodePage(Page, frozen=True):
    items: Sequence[_Node] | None = None


class ContainerSpec(Struct, frozen=True):
    """A container: its *name* and its *image* as the pod's specification names it."""

    name: str
    image: str = ""


class ContainerStatus(Struct, frozen=True, rename={"resolved": "imageID"}):
    """What kubelet says of a container; *resolved* is the image with its digest, as the container runtime has it."""

    name: str
    resolved: str = ""


class _PodSpec(Struct, frozen=True):
    containers: Sequence[ContainerSpec]


class _PodStatus(Struct, frozen=True, rename={"containers": "containerStatuses"}):
    containers: Sequence[ContainerStatus] | None = None


class OwnPod(Struct, frozen=True):
    """The pod that the webhook runs in."""

    spec: _PodSpec
    status: _PodStatus = _PodStatus()


class Nodes(Struct, frozen=True):
    """The *oldest* version of the nodes' kubelets, None if unknown; the *architectures* of those with Linux."""

    oldest: Version | None
    architectures: frozenset[str]


async def nodes(api: ApiServer) -> Nodes:
    """What the nodes are, all of them. Raises ``ApiServerError``."""
    found, architectures = list[Version | None](), set[str]()
    async for page in api.pages("/api/v1/nodes", _NodePage):
        infos = [node.status.info for node in page.items or ()]
        found.append(oldest(info.kubelet for info in infos))
        architectures |= {info.architecture for info in infos if info.architecture and info.system != "windows"}
    return Nodes(min((each for each in found if each is not None), default=None), frozenset(architectures))


def met(served: Version | None, found: Nodes) -> Version | None:
    """The version that a pod must fit: the oldest of the API server and the nodes. None if none is known."""
    return min((each for each in (served, found.oldest) if each is not None), default=None)


async def served_version(api: ApiServer) -> Version | None:
    """The version of the API server. Raises ``ApiServerError``."""
    return version_of((await api.get("/version", _Served)).version)


def oldest(versions: Iterable[str]) -> Version | None:
    """The oldest of *versions*, such as ``v1.29.3``; None if none can be read."""
    return min((found for text in versions if (found := version_of(text)) is not None), default=None)


async def own_image(api: ApiServer, pod: str, container: str) -> str:
    """The image of *container* in *pod*, with its digest; ``""`` while kubelet is silent. Raises ``ApiServerError``."""
    return image_of(await api.get(f"/api/v1/namespaces/{api.namespace}/pods/{pod}", OwnPod), container)


def image_of(pod: OwnPod, container: str) -> str:
    """
    The image of *container*, or of the pod's first one. An image that no registry has given (``sha256:…`` alone) is
    named as the specification names it, because other nodes cannot pull it by that.
    """
    names = [each.name for each in pod.spec.containers]
    name = container if container in names else names[0]
    resolved = next((each.resolved for each in pod.status.containers or () if each.name == name), "")
    if not resolved:
        return ""
    image = resolved.removeprefix("docker-pullable://")
    return image if "@" in image else next(each.image for each in pod.spec.containers if each.name == name)
