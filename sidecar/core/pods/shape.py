"""
What injection reads of a pod, and of which types it must be.

The rule: whatever does not have this shape is left alone with one reason, so nothing behind this needs to doubt. An
API server refuses such pods itself; manifests in files and callers of the webhook may hold anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from sidecar.core.key.json_rule import UNREADABLE

Name = Annotated[str, Meta(min_length=1)]


class NamedShape(Struct, rename="camel"):
    """Something that has a name."""

    name: Name


class VariableShape(NamedShape, rename="camel"):
    """A variable of a container."""

    value: str | None = None


class PortShape(Struct, rename="camel"):
    """A port of a container."""

    container_port: int | str | None = None
    protocol: str | None = "TCP"


class ResourcesShape(Struct, rename="camel"):
    """Requests and limits."""

    requests: dict[str, Any] | None = None
    limits: dict[str, Any] | None = None


class ContainerShape(Struct, rename="camel"):
    """A container of either kind."""

    name: Name
    env: list[VariableShape] | None = None
    env_from: list[Any] | None = None
    command: list[Any] | None = None
    args: list[Any] | None = None
    ports: list[PortShape] | None = None
    resources: ResourcesShape | None = None
    liveness_probe: dict[str, Any] | None = None
    readiness_probe: dict[str, Any] | None = None
    startup_probe: dict[str, Any] | None = None


class RequirementShape(Struct, rename="camel"):
    """What a label of a node must be."""

    key: str
    operator: str
    values: list[str] | None = None


class TermShape(Struct, rename="camel"):
    """One of the alternatives of an affinity."""

    match_expressions: list[RequirementShape] | None = None


class NodesShape(Struct, rename="camel"):
    """The alternatives of an affinity."""

    node_selector_terms: list[TermShape] | None = None


class NodeAffinityShape(Struct, rename="camel"):
    """The affinity to nodes."""

    required_during_scheduling_ignored_during_execution: NodesShape | None = None


class AffinityShape(Struct, rename="camel"):
    """The affinities of a pod."""

    node_affinity: NodeAffinityShape | None = None


class SystemShape(Struct, rename="camel"):
    """The operating system of a pod."""

    name: str | None = None


class SecurityShape(Struct, rename="camel"):
    """The security context of a pod."""

    windows_options: Any = None


class SpecShape(Struct, rename="camel"):
    """The specification of a pod."""

    containers: list[ContainerShape] | None = None
    init_containers: list[ContainerShape] | None = None
    volumes: list[NamedShape] | None = None
    node_selector: dict[str, str | None] | None = None
    affinity: AffinityShape | None = None
    os: SystemShape | None = None
    resources: ResourcesShape | None = None
    security_context: SecurityShape | None = None
    host_network: bool | None = None
    restart_policy: str | None = None

    def all_containers(self) -> Iterator[ContainerShape]:
        """The containers of both kinds."""
        yield from self.init_containers or ()
        yield from self.containers or ()

    def requirements(self) -> Iterator[RequirementShape]:
        """What a node must fulfil by the pod's affinity, in any of the alternatives."""
        affinity = self.affinity.node_affinity if self.affinity is not None else None
        nodes = affinity.required_during_scheduling_ignored_during_execution if affinity is not None else None
        for term in (nodes.node_selector_terms if nodes is not None else None) or ():
            yield from term.match_expressions or ()


class MetadataShape(Struct, rename="camel"):
    """The metadata of a pod."""

    annotations: dict[str, Any] | None = None
    labels: dict[str, Any] | None = None


class PodShape(Struct, rename="camel"):
    """A pod, or a pod template."""

    spec: SpecShape
    metadata: MetadataShape | None = None


def shape_of(pod: Any) -> PodShape | str:
    """The shape of *pod*, or what is wrong with it."""
    try:
        return msgspec.convert(pod, PodShape)
    except UNREADABLE as error:
        return str(error)
