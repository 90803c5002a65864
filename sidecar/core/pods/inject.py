"""
Injection as a pure function: a pod and the settings go in, the changed pod comes out, or the reason why it stays.

The rule: nothing of a pod's own is changed but variables of its containers, and each change is written into the status
annotation, from which ``uninject`` takes it back. Injected twice is injected once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct, field, json

from sidecar.core.key.json_rule import UNREADABLE
from sidecar.core.pods.container import VOLUMES, container, has_resources, probes, volumes
from sidecar.core.pods.environment import EnvironmentChange, redirect, restore
from sidecar.core.pods.reasons import reason, refusal
from sidecar.core.pods.settings import CONTAINER, NATIVE_SINCE, SKIP, STATUS, Injection, fitting, tuned
from sidecar.core.pods.shape import shape_of

CAPTURING = frozenset({
    "istio-init", "istio-proxy", "istio-validation", "linkerd-init", "linkerd-network-validator", "linkerd-proxy",
})  # fmt: skip
"""Containers of meshes, which take the pod's connections: what kubelet asks comes through them, or not at all."""

MESH = CAPTURING | {"azwi-proxy", "azwi-proxy-init"}
"""
Containers of other injectors: they get no variables, and ours starts behind those that stand first, for they make the
network.
"""

LONGEST = 256 * 1024
"""Bytes of all annotations of an object, names included; an API server refuses more."""

_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
_IDENTITY = "azure.workload.identity/use"
_TABLES = (("metadata", "annotations"), ("metadata", "labels"), ("spec", "initContainers"), ("spec", "volumes"))


class Status(Struct, omit_defaults=True):
    """
    What an injection did, as the status annotation has it. *revision* is that of the webhook; *made* are tables and
    lists that were not there, *nulls* those that had no value. Other versions of this program read it, too: members
    are only ever added.
    """

    variant: str
    revision: str = ""
    containers: dict[str, EnvironmentChange] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    annotations: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    nulls: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


class Injected(Struct, frozen=True):
    """
    The *pod* afterwards, what people should know, and for each container the variables by which its calls arrive, with
    their addresses.
    """

    pod: Mapping[str, Any]
    warnings: list[str]
    arrivals: dict[str, dict[str, str]]


class Kept(Struct, frozen=True):
    """
    The pod is not injected, for this *reason*. *pod* is as it was; or, where an injection of before must be taken back,
    as it was before that.
    """

    pod: Mapping[str, Any]
    reason: str


def inject(pod: Mapping[str, Any], settings: Injection, *, namespace: str = "", owner: str = "") -> Injected | Kept:
    """
    Inject *pod* (an object with ``metadata`` and ``spec``, also a pod template), which lies in *namespace* and belongs
    to an *owner* of that kind (``Job``), if known.
    """
    shape = shape_of(pod)
    if isinstance(shape, str):
        return Kept(pod, f"it does not have the form of a pod: {shape}")
    if (why := refusal(shape)) is not None:
        return Kept(pod, why)
    status = _status(pod)
    if status is not None and status.variant == "native" and settings.version < NATIVE_SINCE and not _is_stripped(pod):
        # injected for newer nodes, offline for instance; here it would hang
        return inject(uninject(pod), settings, namespace=namespace, owner=owner)
    why = reason(shape, settings, namespace=namespace, owner=owner, injected=status is not None)
    if status is not None and why is None and _is_stripped(pod):
        why = "another webhook has taken restartPolicy from the init container; the pod would hang there"
    if why is not None:
        return Kept(uninject(pod), why)
    found = _copied(pod)
    metadata, spec = found["metadata"], found["spec"]
    annotations: dict[str, Any] = {**(metadata.get("annotations") or {})}
    texts, long = fitting({name: _text(value) for name, value in annotations.items()})
    chosen, warnings = tuned(settings, texts)
    if status is None:
        variant = "native" if settings.version >= NATIVE_SINCE else "classic"
        status = Status(variant, settings.revision, made=_absent(pod), nulls=_null(pod))
        _add(spec, chosen, status)
        if status.variant == "classic" and _DEFAULT_CONTAINER not in annotations:
            annotations[_DEFAULT_CONTAINER] = _first(spec)
            status.annotations.append(_DEFAULT_CONTAINER)
        if settings.identity and _IDENTITY not in (metadata.get("labels") or {}):
            metadata["labels"] = {**(metadata.get("labels") or {}), _IDENTITY: "true"}
            status.labels.append(_IDENTITY)
    _place(spec, chosen)
    arrivals = _redirect(spec, chosen, status, texts)
    metadata["annotations"] = {**annotations, STATUS: json.encode(status).decode()}
    if not fits(metadata["annotations"]):
        return Kept(uninject(pod), "with ours its annotations would be longer than an API server takes")
    return Injected(found, [*long, *warnings, *status.left], arrivals)


def uninject(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """*pod* as it was before it was injected; *pod* itself if it was not."""
    if isinstance(shape_of(pod), str) or (status := _status(pod)) is None:
        return pod
    found = _copied(pod)
    metadata, spec = found["metadata"], found["spec"]
    _take_out(spec, frozenset(status.volumes) or VOLUMES)
    for one in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        change = status.containers.get(one["name"])
        if change is not None and "env" in one:
            one["env"] = restore(one["env"] or (), change)
            _as_before(one, "env", gone=change.bare, null=change.null)
    for name in (STATUS, *status.annotations):
        metadata["annotations"].pop(name, None)
    for name in status.labels:
        (metadata.get("labels") or {}).pop(name, None)
    for table, name in ((metadata, "annotations"), (metadata, "labels"), (spec, "initContainers"), (spec, "volumes"),
                        (found, "metadata")):  # fmt: skip
        _as_before(table, name, gone=name in status.made, null=name in status.nulls)
    return found


def fits(annotations: Mapping[str, Any]) -> bool:
    """Whether an API server takes so many annotations."""
    return sum(len(str(name).encode()) + len(_text(text).encode()) for name, text in annotations.items()) <= LONGEST


def is_injected(pod: Mapping[str, Any]) -> bool:
    """Whether *pod* bears our status annotation, and has our container."""
    return not isinstance(shape_of(pod), str) and _status(pod) is not None


def _copied(pod: Mapping[str, Any]) -> dict[str, Any]:
    """*pod* with its own copy of each table that may be changed. All else is shared: it may be megabytes."""
    metadata, spec = dict(pod.get("metadata") or {}), dict(pod["spec"])
    for name in ("annotations", "labels"):
        if metadata.get(name):
            metadata[name] = dict(metadata[name])
    for kind in ("initContainers", "containers"):
        if spec.get(kind):
            spec[kind] = [dict(one) for one in spec[kind]]
    return {**pod, "metadata": metadata, "spec": spec}


def _add(spec: dict[str, Any], settings: Injection, status: Status) -> None:
    """Put our container and its volumes into *spec*."""
    native = status.variant == "native"
    kind = "initContainers" if native else "containers"
    spec[kind] = [*(spec.get(kind) or ()), container(settings, spec, native=native)]
    status.volumes = [volume["name"] for volume in volumes()]
    spec["volumes"] = [*(spec.get("volumes") or ()), *volumes()]


def _first(spec: Mapping[str, Any]) -> str:
    """The container that ``kubectl exec`` and ``kubectl logs`` should mean: the first one that is nobody's sidecar."""
    names: list[str] = [one["name"] for one in spec["containers"] if one["name"] != CONTAINER]
    return next((name for name in names if name not in MESH), names[0])


def _place(spec: dict[str, Any], settings: Injection) -> None:
    """
    See that our container stands before all that may need it, and can be asked. Other webhooks come between two calls,
    and may have put something before it. Kubelet starts init containers in their order, and containers, too: each when
    the hook of the one before has ended.
    """
    for kind in ("initContainers", "containers"):
        starting = list(spec.get(kind) or ())
        at = next((at for at, one in enumerate(starting) if one["name"] == CONTAINER), 0)
        if any(one["name"] not in MESH for one in starting[:at]):
            others = [*starting[:at], *starting[at + 1 :]]
            behind = next(place for place, one in enumerate(others) if one["name"] not in MESH)
            spec[kind] = [*others[:behind], starting[at], *others[behind:]]
    all_of_them = (*(spec.get("initContainers") or ()), *spec["containers"])
    if any(one["name"] in CAPTURING for one in all_of_them):
        for one in all_of_them:
            if one["name"] == CONTAINER:
                one.update(probes(settings.health_port, behind_mesh=True))


def _redirect(
    spec: Mapping[str, Any], settings: Injection, status: Status, texts: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """Give the pod's own containers their variables, and write into *status* what was done."""
    skipped = {name.strip() for name in texts.get(SKIP, "").split(",")} - {""}
    early, others = list(_own(spec.get("initContainers") or ())), list(_own(spec["containers"]))
    arrivals: dict[str, dict[str, str]] = {}
    status.left = []
    if has_resources(spec):
        status.left.append("the pod as a whole has resources, which the sidecar shares; see that they suffice for both")
    for name in sorted(skipped - {one["name"] for one in (*early, *others)}):
        status.left.append(f"{SKIP}: there is no container {name}")
    for one in early if status.variant == "classic" else ():
        status.left.append(f"{one['name']}: starts before the sidecar on clusters before 1.29; its calls do not arrive")
    for one in (*(early if status.variant == "native" else ()), *others):
        if one["name"] in skipped:
            continue
        outcome = redirect(one, settings.services, texts, status.containers.get(one["name"]))
        if outcome.variables != list(one.get("env") or ()):
            one["env"] = outcome.variables
        status.containers[one["name"]] = outcome.change
        status.left += outcome.left
        arrivals[one["name"]] = outcome.arrivals
    return arrivals


def _take_out(spec: dict[str, Any], ours: frozenset[str]) -> None:
    """Take our container, and the volumes *ours*, out of *spec*."""
    for kind in ("initContainers", "containers"):
        if spec.get(kind):
            spec[kind] = [one for one in spec[kind] if one["name"] != CONTAINER]
    if spec.get("volumes"):
        spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] not in ours]


def _own(containers: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """The pod's own containers, of one kind."""
    return (one for one in containers if one["name"] != CONTAINER and one["name"] not in MESH)


def _has_container(spec: Mapping[str, Any]) -> bool:
    return any(
        one.get("name") == CONTAINER for kind in ("initContainers", "containers") for one in spec.get(kind) or ()
    )


def _is_stripped(pod: Mapping[str, Any]) -> bool:
    """Whether our init container would run to its end before the others start: which it never does."""
    for one in pod["spec"].get("initContainers") or ():
        if one["name"] == CONTAINER:
            return bool(one.get("restartPolicy") != "Always")
    return False


def _status(pod: Mapping[str, Any]) -> Status | None:
    """
    What an earlier injection wrote; None if there is none, or if it cannot be read. A status without our container was
    copied from another pod.
    """
    text = ((pod.get("metadata") or {}).get("annotations") or {}).get(STATUS)
    if not isinstance(text, str) or not _has_container(pod["spec"]):
        return None
    try:
        return json.decode(text.encode(), type=Status)
    except UNREADABLE:
        return None


def _as_before(table: dict[str, Any], name: str, *, gone: bool, null: bool) -> None:
    """Make what is empty now as it was before it was made: *gone*, or without a value."""
    if not table.get(name) and gone:
        table.pop(name, None)
    elif not table.get(name) and null:
        table[name] = None


def _text(value: Any) -> str:
    """An annotation of a manifest, where it may be a number or nothing: an API server has texts only."""
    return value if isinstance(value, str) else "" if value is None else str(value)


def _absent(pod: Mapping[str, Any]) -> list[str]:
    """The tables and lists that *pod* does not have."""
    absent = [name for table, name in _TABLES if name not in (pod.get(table) or {})]
    return absent if "metadata" in pod else [*absent, "metadata"]


def _null(pod: Mapping[str, Any]) -> list[str]:
    """The tables and lists of *pod* that have no value."""
    found = [name for table, name in _TABLES if (pod.get(table) or {}).get(name, "") is None]
    return [*found, "metadata"] if pod.get("metadata", "") is None else found


def _table(document: dict[str, Any], name: str) -> dict[str, Any]:
    """The table *name* of *document*, which is made if it is not there."""
    found: dict[str, Any] = document.get(name) or {}
    document[name] = found
    return found
