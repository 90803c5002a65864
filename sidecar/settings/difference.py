"""
What is different between two configurations, key by key, and what that means for stored answers.

The rule: rules are compared, not texts: a comment, an order of keys or a default that is written out changes nothing.
Keys are named as they stand in the file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from itertools import takewhile
from typing import Any, NamedTuple, TypeVar

from sidecar.core.cache.policy import DEFAULT_TTL
from sidecar.core.dialect import Dialect
from sidecar.core.durations import as_duration
from sidecar.core.pasted import holds_key
from sidecar.core.request.plan import separation
from sidecar.core.rules import (
    AzureIdentity,
    CacheMode,
    CacheRule,
    FallbackRule,
    Match,
    Mode,
    Region,
    Route,
    Rules,
    Service,
    Share,
    StoredCredential,
)
from sidecar.settings.overlap import may_overlap
from sidecar.settings.problems import HIDDEN
from sidecar.settings.quantities import as_percent, as_size

LONGEST_SUMMARY = 300
"""Characters of a summary: it stands in one line of a log."""

PRESENT = "present"

Block = TypeVar("Block", Service, Route, Region)

_NOT_COMPARED = frozenset({"source", "revision", "warnings", "name"})
_SIZES = frozenset({"max_bytes", "max_entry_bytes", "compress_above"})
_SHARES = frozenset({"sample", "failure_rate", "slow_rate"})
_PLACES = {
    "admin_token_file": "admin.token_file",
    "state_dir": "state.dir",
    "memory": "cache.memory",
    "redis": "cache.redis",
    "seal": "cache",
}
_NAMED_OTHERWISE = {"trust_seed": "seed"}
_OFF = frozenset({CacheMode.OFF, CacheMode.OBSERVE})


class SettingChange(NamedTuple):
    """A key whose value is another; ``""`` before or after if there is none. A whole entry is ``PRESENT`` or not."""

    path: str
    before: str
    after: str

    def __str__(self) -> str:
        if PRESENT in self[1:]:
            return f"{self.path}: {'removed' if self.before else 'added'}"
        return f"{self.path}: {self.before or '(none)'} → {self.after or '(none)'}"


class Effect(NamedTuple):
    """
    What a change means for the stored answers of a route: *back* if they serve again, else they no longer do. *whole*:
    all of them, else those that *text* says.
    """

    route: str
    back: bool
    text: str
    whole: bool = True

    def __str__(self) -> str:
        return f"routes.{self.route}: {self.text}"


def changes(before: Rules, after: Rules) -> list[SettingChange]:
    """Every key that differs, in the order of the rules."""
    before, after = _without_equals(before, after), _without_equals(after, before)
    was, become = dict(_leaves(before)), dict(_leaves(after))
    found = [
        SettingChange(
            path, *(HIDDEN if holds_key(leaves.get(path, "")) else leaves.get(path, "") for leaves in (was, become))
        )
        for path in dict.fromkeys((*was, *become))
        if was.get(path, "") != become.get(path, "")
    ]
    whole = tuple(f"{change.path}." for change in found if PRESENT in change[1:])
    return [change for change in found if not change.path.startswith(whole)] + list(_moved(before, after))


def _moved(before: Rules, after: Rules) -> Iterator[SettingChange]:
    """The services whose regions stand in another order: the first one says where a caller's own credential goes."""
    services = _by_name(after.services)
    for service in before.services:
        if (same := services.get(service.name)) is not None:
            names = [[region.name for region in each.regions] for each in (service, same)]
            if names[0] != names[1] and sorted(names[0]) == sorted(names[1]):
                yield SettingChange(f"services.{service.name}.regions", *map(", ".join, names))


def summary(before: Rules, after: Rules, files: Iterable[str] = ()) -> str:
    """
    The differences in one line: services and routes counted, other keys with both values, and the *files* that have
    other content.
    """
    found = changes(before, after)
    parts = [
        part
        for kind, old, new in (
            ("services", _by_name(before.services), _by_name(after.services)),
            ("routes", _by_name(before.routes), _by_name(after.routes)),
        )
        if (part := _counted(kind, [*old], [*new], found))
    ]
    parts += [str(change) for change in found if change.path.split(".")[0] not in {"services", "routes"}]
    parts += [f"content of {name}" for name in files]
    line = ""
    for at, part in enumerate(parts):
        if line and len(line) + len(part) > LONGEST_SUMMARY:
            return f"{line}; and {len(parts) - at} more"
        line = f"{line}; {part}" if line else part
    return line or "nothing that counts"


def effects(before: Rules, after: Rules) -> list[Effect]:
    """For each route that has stored answers which no longer serve, or serve again, why."""
    was, become = (_by_name(rules.routes) for rules in (before, after))
    services = {service.name: service for service in after.services}
    found = [effect for name in was.keys() & become.keys() for effect in _of_route(name, was[name], become[name])]
    known = {"", *(service.name for service in before.services)}
    for service in before.services:
        text, shared = _of_service(service, services.get(service.name))
        taken = [name for name, route in was.items()
                 if text and route.match.service in {"", service.name} and route.cache.mode not in _OFF]  # fmt: skip
        found += [Effect(name, False, f"service {service.name} {text}") for name in taken
                  if shared or was[name].cache.share.kind == "principal"]  # fmt: skip
    found += [Effect(name, False, "is gone; its calls match another route, whose rules hold for its answers")
              for name in was.keys() - become.keys() if was[name].cache.mode not in _OFF]  # fmt: skip
    for name in was.keys() & become.keys():
        if others := _overtaking(name, was, become, known):
            text = f"{', '.join(others)} may take its calls from now on, and the rules of that hold for their answers"
            found.append(Effect(name, False, text))
    if (before.mode is Mode.NORMAL) != (after.mode is Mode.NORMAL):
        back = after.mode is Mode.NORMAL
        text = "its answers serve again" if back else f"mode {after.mode}: no stored answer serves while it lasts"
        found += [Effect(name, back, text) for name in become if name in was]
    order = {name: at for at, name in enumerate((*become, *was))}
    return sorted(found, key=lambda effect: order[effect.route])


def _of_service(before: Service, after: Service | None) -> tuple[str, bool]:
    """What takes answers away from the routes of a service, ``""`` for nothing; and whether from shared ones, too."""
    if after is None:
        return "is gone; its answers serve nobody", True
    if _identity(before) != _identity(after):
        return "tells callers or questions apart in another way; its answers are asked anew", True
    if _is_lent(before) != _is_lent(after):
        whose = "its own credentials" if _is_lent(after) else "those of its callers"
        return f"is called with {whose} from now on; its answers are asked anew", False
    return "", False


def _overtaking(
    name: str, before: Mapping[str, Route], after: Mapping[str, Route], services: Collection[str]
) -> list[str]:
    """
    The routes that did not stand before route *name* as they are, may take its calls, and cache in another way.
    *services* are those with stored answers.
    """
    route = after[name]
    ahead, others = (dict(takewhile(lambda each: each[0] != name, routes.items())) for routes in (before, after))
    if route.cache.mode in _OFF or Match() in (each.match for each in ahead.values()):
        return []  # it has no answers: it caches none, or one before it took all calls
    return [
        each
        for each, other in others.items()
        if other.match.service in services
        and (each not in ahead or ahead[each].match != other.match)
        and replace(other.cache, tags=()) != replace(route.cache, tags=())
        and may_overlap(other.match, route.match)
    ]


def as_entries(count: int, *, whole: bool) -> str:
    """A number of stored answers; not *whole*: some of them may be meant."""
    return f"{'' if whole else 'at most '}{count} {'entry' if count == 1 else 'entries'}"


def _without_equals(rules: Rules, others: Rules) -> Rules:
    """*rules* without the services and routes that are the same in *others*: most are, of hundreds."""
    services, routes = _by_name(others.services), _by_name(others.routes)
    return replace(
        rules,
        services=tuple(each for name, each in _by_name(rules.services).items() if services.get(name) != each),
        routes=tuple(each for name, each in _by_name(rules.routes).items() if routes.get(name) != each),
    )


def _of_route(name: str, before: Route, after: Route) -> Iterator[Effect]:
    was, become = before.cache, after.cache
    off = become.mode in _OFF
    if off != (was.mode in _OFF):
        change = f"cache.mode {was.mode} → {become.mode}"
        means = "no stored answer serves while it is off" if off else "answers that are still fresh serve again"
        yield Effect(name, not off, f"{change}: {means}")
    if off or was.mode in _OFF:
        return
    if was.share != become.share:
        yield Effect(name, False, f"cache.share {_text(was.share)} → {_text(become.share)}: its answers are asked anew")
    if was.mode is CacheMode.ALWAYS and become.mode is CacheMode.DETERMINISTIC:
        text = "cache.mode always → deterministic: answers to calls that are not deterministic do not serve"
        yield Effect(name, False, text, whole=False)
    if was.trust_seed and not become.trust_seed and become.mode is CacheMode.DETERMINISTIC:
        text = "cache.seed: answers to calls that are deterministic by their seed alone do not serve"
        yield Effect(name, False, text, whole=False)
    if was.custom_models and not become.custom_models:
        text = "cache.custom_models true → false: answers of models of your own do not serve"
        yield Effect(name, False, text, whole=False)
    if was.urls != become.urls == "off":
        text = f"cache.urls {was.urls} → off: answers to calls that name a document by its URL do not serve"
        yield Effect(name, False, text, whole=False)
    yield from _of_times(name, was, become)
    if before.match != after.match:
        text = "match: it takes other calls; the answers of those that it no longer takes follow another route"
        yield Effect(name, False, text, whole=False)


def _of_times(name: str, was: CacheRule, become: CacheRule) -> Iterator[Effect]:
    span = f"cache.ttl {_said(was.ttl)} → {_said(become.ttl)}"
    if _ttl(become.ttl) < _ttl(was.ttl):
        yield Effect(name, False, f"{span}: answers that are older do not serve", whole=False)
    elif _ttl(become.ttl) > _ttl(was.ttl):
        text = f"{span}: answers live longer from now on; stored ones keep the time that they were stored with"
        yield Effect(name, True, text, whole=False)
    for key in ("stale_while_revalidate", "stale_if_error"):
        less, more = getattr(become, key), getattr(was, key)
        if less < more:
            span = f"cache.{key} {as_duration(more)} → {as_duration(less)}"
            yield Effect(name, False, f"{span}: answers that are past their ttl by more do not serve", whole=False)


def _ttl(seconds: float | None) -> float:
    """A TTL for comparison; without one, that of the kind counts, which is at least the shortest of them."""
    return min(DEFAULT_TTL.values()) if seconds is None else seconds


def _said(seconds: float | None) -> str:
    return "by kind" if seconds is None else as_duration(seconds)


def _identity(service: Service) -> tuple[object, ...]:
    """What makes another question of the same call, or another caller."""
    return service.dialect.name, service.own, separation(service)


def _is_lent(service: Service) -> bool:
    """Whether each region has a credential of its own: then the pod is who asks, and not its callers."""
    return all(region.credential is not None for region in service.regions)


def _counted(kind: str, before: list[str], after: list[str], found: Iterable[SettingChange]) -> str:
    paths = [f"{change.path}." for change in found]
    common = {name for name in set(before) & set(after) if any(p.startswith(f"{kind}.{name}.") for p in paths)}
    marks = (("+", len(set(after) - set(before))), ("-", len(set(before) - set(after))), ("~", len(common)))
    said = " ".join(f"{mark}{count}" for mark, count in marks if count)
    kept_before, kept_after = (
        [name for name in names if name in set(before) & set(after)] for names in (before, after)
    )
    if kept_before != kept_after:
        said = f"{said}, in another order" if said else "in another order"
    return f"{kind}: {said}" if said else ""


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Each single value below *value*, with its key as it stands in a file."""
    if isinstance(value, Rules | Service | Route) or (is_dataclass(value) and not _is_single(value)):
        kind: Any = type(value)
        for name in _names(kind):
            yield from _leaves(getattr(value, name), _joined(path, name))
    elif isinstance(value, tuple) and value and isinstance(value[0], Service | Route | Region):
        for name, entry in _by_name(value).items():
            yield f"{path}.{name}", PRESENT
            yield from _leaves(entry, f"{path}.{name}")
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from _leaves(each, f"{path}.{name}")
    elif isinstance(value, AzureIdentity):
        yield from ((f"{path}.{value.kind}_identity.{key}", text) for key, text in _said_of(value) if key != "kind")
    elif isinstance(value, StoredCredential):
        yield from ((f"{path}.{key}", text) for key, text in _said_of(value))
    elif value not in (None, "", (), frozenset()) and not _is_no_port(value, path):
        yield path, _text(value, path)


def _said_of(credential: StoredCredential | AzureIdentity) -> Iterator[tuple[str, str]]:
    """The keys of a *credential*. It shows where the secret stands, never what it is."""
    kind: Any = type(credential)
    for name in _names(kind):
        if text := getattr(credential, name):
            yield name, text


@cache
def _names(kind: Any) -> tuple[str, ...]:
    """The compared members of a dataclass."""
    return tuple(each.name for each in fields(kind) if each.name not in _NOT_COMPARED)


def _by_name(entries: Iterable[Block]) -> dict[str, Block]:
    """*entries* by their names. A route that has the name of a built-in one stands before that."""
    found: dict[str, Block] = {}
    for entry in entries:
        found[f"{entry.name} (built in)" if entry.name in found else entry.name] = entry
    return found


def _is_no_port(value: Any, path: str) -> bool:
    """A service without a port of its own has the number 0 there."""
    return value == 0 and path.startswith("services.") and path.endswith(".port")


def _is_single(value: Any) -> bool:
    return isinstance(value, Dialect | Share | StoredCredential | AzureIdentity | FallbackRule)


def _joined(path: str, name: str) -> str:
    if not path:
        return _PLACES.get(name, name)
    name = _NAMED_OTHERWISE.get(name, name)
    return f"{path}.{name.removesuffix('_seconds') if path == 'limits' else name}"


def _text(value: Any, path: str = "") -> str:
    """A value as a configuration would say it."""
    name = path.rpartition(".")[2]
    if isinstance(value, tuple | frozenset):
        texts = [_text(each) for each in value]
        return ", ".join(texts if isinstance(value, tuple) else sorted(texts))
    if isinstance(value, float):
        return as_percent(value) if name in _SHARES else as_duration(value)
    if type(value) is int and (name in _SIZES or path.startswith("limits.")):
        return as_size(value)
    match value:
        case Share():
            return f"header:{value.name}" if value.kind == "header" else value.kind
        case FallbackRule():
            return f"{value.kind} {value.value}".rstrip()
        case Dialect():
            return value.name
        case bytes():
            return value.decode("latin-1")
        case _:
            return str(value).lower() if isinstance(value, bool) else str(value)
