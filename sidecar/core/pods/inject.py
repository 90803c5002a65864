"""
Injection as a pure function: a pod and the settings go in, the changed pod comes out, or the reason why it stays.

The rule: nothing of a pod's own is changed but variables of its containers, and each change is written into the status
annotation, from which ``uninject`` takes it back. Injected twice is injected once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct, field, json

from sidecar.core.key.json_rule import UNREADABLE
from sidecar.core.pods.container import CONFIG, SECRET, STATE, TEMPORARY, container, is_guaranteed, volumes
from sidecar.core.pods.environment import EXCEPTIONS, EnvironmentChange, redirect, restore
from sidecar.core.pods.settings import CONTAINER, INJECT, NATIVE_SINCE, SKIP, STATUS, Injection, tuned

MESH = frozenset({"istio-init", "istio-proxy", "istio-validation", "linkerd-init", "linkerd-proxy", "azwi-proxy",
                  "azwi-proxy-init"})  # fmt: skip
"""Containers of other injectors: they get no variables, and ours starts behind them, because they make the network."""

MIRROR = "kubernetes.io/config.mirror"
"""The annotation of a mirror of a static pod."""

LONGEST = 256 * 1024
"""Bytes of all annotations of an object, names included; an API server refuses more."""

SYSTEM = frozenset({"kube-system", "kube-public", "kube-node-lease"})

_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
_IDENTITY = "azure.workload.identity/use"
_VOLUMES = frozenset({CONFIG, SECRET, STATE, TEMPORARY})


class Status(Struct, omit_defaults=True):
    """
    What an injection did, as the status annotation has it. *revision* is that of the webhook; *made* are tables and
    lists that were not there.
    """

    variant: str
    revision: str = ""
    containers: dict[str, EnvironmentChange] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    annotations: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


class Injected(Struct, frozen=True):
    """The *pod* afterwards, what people should know, and the variables by which calls arrive, by container."""

    pod: Mapping[str, Any]
    warnings: list[str]
    variables: dict[str, list[str]]


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
    if (reason := _reason(pod, settings, namespace, owner)) is not None:
        return Kept(pod, reason)
    status = _status(pod)
    if status is not None and _is_stripped(pod):
        why = "another webhook has taken restartPolicy from the init container; the pod would hang there"
        return Kept(uninject(pod), why)
    found = _copied(pod)
    metadata, spec = found["metadata"], found["spec"]
    annotations: dict[str, Any] = {**(metadata.get("annotations") or {})}
    texts = {name: _text(value) for name, value in annotations.items()}
    chosen, warnings = tuned(settings, texts)
    if status is None:
        variant = "native" if settings.version >= NATIVE_SINCE else "classic"
        status = Status(variant, settings.revision, made=_absent(pod))
        _add(spec, chosen, status)
        if status.variant == "classic" and _DEFAULT_CONTAINER not in annotations:
            annotations[_DEFAULT_CONTAINER] = spec["containers"][0]["name"]
            status.annotations.append(_DEFAULT_CONTAINER)
        if settings.identity and _IDENTITY not in (metadata.get("labels") or {}):
            metadata["labels"] = {**(metadata.get("labels") or {}), _IDENTITY: "true"}
            status.labels.append(_IDENTITY)
    skipped = {name.strip() for name in texts.get(SKIP, "").split(",")}
    for one in _own(spec, skipped):
        if one["name"] in status.containers:
            continue
        outcome = redirect(one, chosen.services, texts)
        if outcome.variables != list(one.get("env") or ()):
            one["env"] = outcome.variables
        status.containers[one["name"]] = outcome.change
        status.left += outcome.left
    metadata["annotations"] = {**annotations, STATUS: json.encode(status).decode()}
    if not fits(metadata["annotations"]):
        return Kept(uninject(pod), "with ours its annotations would be longer than an API server takes")
    variables = {name: [*change.rewritten, *change.set] for name, change in status.containers.items()}
    urls = {name: [each for each in names if each not in EXCEPTIONS] for name, names in variables.items()}
    return Injected(found, [*warnings, *status.left], urls)


def uninject(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """*pod* as it was before it was injected; *pod* itself if it was not."""
    status = _status(pod)
    if status is None:
        return pod
    found = _copied(pod)
    metadata, spec = found["metadata"], found["spec"]
    _take_out(spec)
    for one in (*(spec.get("initContainers") or ()), *spec["containers"]):
        change = status.containers.get(one["name"])
        if change is not None and "env" in one:
            one["env"] = restore(one["env"], change)
            if change.bare and not one["env"]:
                del one["env"]
    for name in (STATUS, *status.annotations):
        metadata["annotations"].pop(name, None)
    for name in status.labels:
        metadata["labels"].pop(name, None)
    for table, name in ((metadata, "annotations"), (metadata, "labels"), (spec, "initContainers"), (spec, "volumes"),
                        (found, "metadata")):  # fmt: skip
        if name in status.made and not table.get(name):
            table.pop(name, None)
    return found


def fits(annotations: Mapping[str, Any]) -> bool:
    """Whether an API server takes so many annotations."""
    return sum(len(str(name).encode()) + len(_text(text).encode()) for name, text in annotations.items()) <= LONGEST


def is_injected(pod: Mapping[str, Any]) -> bool:
    """Whether *pod* bears our status annotation."""
    return _status(pod) is not None


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


def _reason(pod: Mapping[str, Any], settings: Injection, namespace: str, owner: str) -> str | None:
    """Why *pod* must not be injected; None if it may."""
    metadata, spec = pod.get("metadata") or {}, pod.get("spec") or {}
    annotations = metadata.get("annotations") or {}
    label = (metadata.get("labels") or {}).get(INJECT)
    selector = spec.get("nodeSelector") or {}
    architecture = selector.get("kubernetes.io/arch", selector.get("beta.kubernetes.io/arch"))
    system = (spec.get("os") or {}).get("name", selector.get("kubernetes.io/os", "linux"))
    taken = _taken(spec, settings.ports)
    checks = (
        (label == "disabled", f"its label {INJECT} says disabled"),
        (label not in {None, "enabled", "disabled"}, f"its label {INJECT} says {label!r}; write enabled or disabled"),
        (not spec.get("containers"), "it has no containers"),
        (namespace in {*SYSTEM, settings.namespace}, f"namespace {namespace} is left alone"),
        (MIRROR in annotations, "it is a mirror of a static pod, which no webhook can change"),
        (spec.get("hostNetwork") is True, "hostNetwork: the sidecar's ports would be those of the node"),
        (system == "windows", "os: windows, and the image is for Linux"),
        (architecture is not None and architecture not in settings.architectures,
         f"architecture {architecture}, for which the image is not built"),
        (owner == "Job" and settings.version < NATIVE_SINCE,
         "a Job on a cluster before 1.29: it would never end beside a container that goes on running"),
        (bool(taken) and not is_injected(pod), f"port {', '.join(map(str, taken))} is the application's, and ours"),
        (not is_injected(pod) and _is_occupied(spec), f"it has a container or a volume called {CONTAINER} already"),
    )  # fmt: skip
    return next((text for holds, text in checks if holds), None)


def _add(spec: dict[str, Any], settings: Injection, status: Status) -> None:
    """Put our container and its volumes into *spec*."""
    native = status.variant == "native"
    ours = container(settings, native=native, guaranteed=is_guaranteed(spec))
    if native:
        others = list(spec.get("initContainers") or ())
        behind = max((at + 1 for at, one in enumerate(others) if one["name"] in MESH), default=0)
        spec["initContainers"] = [*others[:behind], ours, *others[behind:]]
    else:
        spec["containers"] = [*spec["containers"], ours]
    spec["volumes"] = [*(spec.get("volumes") or ()), *volumes()]


def _take_out(spec: dict[str, Any]) -> None:
    """Take our container and its volumes out of *spec*."""
    for kind in ("initContainers", "containers"):
        if kind in spec:
            spec[kind] = [one for one in spec[kind] if one["name"] != CONTAINER]
    if "volumes" in spec:
        spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] not in _VOLUMES]


def _own(spec: Mapping[str, Any], skipped: Iterable[str]) -> Iterable[dict[str, Any]]:
    """The pod's own containers."""
    for one in (*(spec.get("initContainers") or ()), *spec["containers"]):
        if one["name"] != CONTAINER and one["name"] not in MESH and one["name"] not in skipped:
            yield one


def _taken(spec: Mapping[str, Any], ports: Sequence[int]) -> list[int]:
    """Ports of ours that a container of the pod says are its own."""
    said = {
        port.get("containerPort")
        for one in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ()))
        for port in one.get("ports") or ()
        if one.get("name") != CONTAINER
    }
    return [port for port in ports if port in said]


def _is_occupied(spec: Mapping[str, Any]) -> bool:
    return _has_container(spec) or any(volume.get("name") in _VOLUMES for volume in spec.get("volumes") or ())


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


def _text(value: Any) -> str:
    """An annotation of a manifest, where it may be a number or nothing: an API server has texts only."""
    return value if isinstance(value, str) else "" if value is None else str(value)


def _absent(pod: Mapping[str, Any]) -> list[str]:
    """The tables and lists that *pod* does not have."""
    metadata, spec = pod.get("metadata") or {}, pod["spec"]
    found = [name for name in ("annotations", "labels") if name not in metadata]
    found += [name for name in ("initContainers", "volumes") if name not in spec]
    return found if "metadata" in pod else [*found, "metadata"]
