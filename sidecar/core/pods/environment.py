"""
How a container's environment sends its calls to the sidecar.

The rule: a variable is changed only if its value is literal and known to be a service's base URL. What somebody else
may supply (``envFrom``, ``valueFrom``) is left alone, and said. Every change can be taken back, and done twice is done
once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from sidecar.core.pods.arrival import foreign, looks_like_base, mentions
from sidecar.core.pods.services import Reachable, host_in, on_loopback
from sidecar.core.pods.settings import NO_PROXY

Variable = Mapping[str, Any]

DIRECT = ("127.0.0.1", "localhost", "::1", "169.254.169.254")
"""Addresses that no proxy may get: loopback, where the calls go in clear, and the machine's identity endpoint."""

AZURE = re.compile(r"AZURE_OPENAI_|OPENAI_API_VERSION\Z")
"""Variables that only Azure's clients read. Where one of them is, ``OPENAI_BASE_URL`` would be in the way."""

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
EXCEPTIONS = ("NO_PROXY", "no_proxy")

LONGEST_VALUE = 8 * 1024
"""Characters to which one value is expanded; no URL is longer."""

MOST_EXPANDED = 256 * 1024
"""
Characters to which all values of a container are expanded together. A few short ones that name each other make
gigabytes, and a pod may hold what it wants before an API server has judged it.
"""

_REFERENCE = re.compile(r"\$(\$|\(([^()]*)\))")
_OURS = ("http://127.0.0.1:", "http://[::1]:")


class EnvironmentChange(Struct, frozen=True, omit_defaults=True):
    """
    What was done to one container: variables that were *set* and were not there, and the values that others had before
    they were *rewritten*. *unset* are those of them that had no value, *nulls* those that had an empty one: both mean
    ``""``. *bare*: it had no table of variables at all; *null*: it had an empty value there.
    """

    set: list[str] = field(default_factory=list)
    rewritten: dict[str, str] = field(default_factory=dict)
    bare: bool = False
    null: bool = False
    unset: list[str] = field(default_factory=list)
    nulls: list[str] = field(default_factory=list)


class Redirected(Struct, frozen=True):
    """
    The variables of a container afterwards, what was done, what people should know (*left*), and the addresses by which
    calls arrive, by variable.
    """

    variables: Sequence[Variable]
    change: EnvironmentChange
    left: list[str]
    arrivals: dict[str, str]


def redirect(
    container: Mapping[str, Any],
    services: Sequence[Reachable],
    annotations: Mapping[str, str],
    before: EnvironmentChange | None = None,
) -> Redirected:
    """Send the calls of *container* to *services*. *before*: what was done to it already."""
    found = before or EnvironmentChange(bare="env" not in container, null=container.get("env", ()) is None)
    change = replace(found, set=[*found.set], rewritten={**found.rewritten}, unset=[*found.unset], nulls=[*found.nulls])
    work = _Environment(container, change)
    work.rewrite(services)
    for service in services:
        if service.setting:
            work.set_base_url(service, services)
    work.except_loopback(annotations.get(NO_PROXY))
    literals = work.literals()
    arrivals = {name: text for name, text in literals.items() if any(each.has(text) for each in services)}
    work.left += foreign(work.name, {name: literals[name] for name in literals if not _is_of_proxy(name)}, services)
    work.left += mentions(container, literals, services)
    return Redirected(work.variables, work.change, work.left, arrivals)


def restore(variables: Iterable[Variable], change: EnvironmentChange) -> list[Variable]:
    """The variables as they were before *change*. What others have changed since then is theirs, and stays."""
    found = list(variables)
    last = {variable["name"]: at for at, variable in enumerate(found)}
    kept = []
    for at, variable in enumerate(found):
        name = variable["name"]
        if last[name] != at or not _is_ours(variable) or (name not in change.set and name not in change.rewritten):
            kept.append(variable)
        elif name in change.unset:
            kept.append({key: value for key, value in variable.items() if key != "value"})
        elif name in change.rewritten:
            kept.append({**variable, "value": None if name in change.nulls else change.rewritten[name]})
    return kept


def _is_of_proxy(name: str) -> bool:
    return name.upper() in {*PROXIES, "NO_PROXY"}


def _is_ours(variable: Variable) -> bool:
    value = variable.get("value")
    return isinstance(value, str) and (variable["name"] in EXCEPTIONS or value.startswith(_OURS))


class _Environment:
    """The variables of one container on their way. Of several that share a name, Kubernetes takes the last."""

    def __init__(self, container: Mapping[str, Any], change: EnvironmentChange) -> None:
        self.name = str(container.get("name", ""))
        self.variables = [dict(variable) for variable in container.get("env") or ()]
        self.change = change
        self.left: list[str] = []
        self._from_tables = bool(container.get("envFrom"))

    def __repr__(self) -> str:
        return f"<_Environment of {self.name}>"

    def literals(self) -> dict[str, str]:
        """The values that are known here, with what they take from each other."""
        expansion = _Expansion()
        for variable in self.variables:
            expansion.learn(variable["name"], _literal(variable))
        return expansion.known

    def rewrite(self, services: Sequence[Reachable]) -> None:
        """Give each literal URL of a service its address on loopback."""
        last = self._last()
        expansion = _Expansion()
        for variable in self.variables:
            name = variable["name"]
            text = expansion.learn(name, _literal(variable))
            if text is None or last[name] is not variable or _is_of_proxy(name):
                continue
            if (here := on_loopback(text, services, name)) is not None:
                self._replace(variable, here.replace("$", "$$"))
                expansion.known[name] = here

    def set_base_url(self, service: Reachable, services: Sequence[Reachable]) -> None:
        """
        Set the base URL of *service*, if nobody else may have meant another one; and take it back if that has changed
        since it was set.
        """
        name, last = service.setting, self._last()
        where, address = f"{self.name}: {name}", f"{service.base}{service.behind}"
        literals = self.literals()
        is_ours = name in self.change.set and literals.get(name) == address
        if name in last and not is_ours:
            if name not in literals:
                self.left.append(f"{where} stays as it is: it comes from elsewhere; set it to {address} there")
            elif not host_in(literals[name]):
                self.left.append(f"{where} stays as it is, and is no URL; leave it out, or set it to {address}")
            return
        if obstacle := self._obstacle(service, services, literals):
            self.left.append(f"{where} is not set: {obstacle}")
            if is_ours:
                self._remove(last[name])
        elif not is_ours:
            self._add(name, address)

    def _obstacle(self, service: Reachable, services: Sequence[Reachable], literals: Mapping[str, str]) -> str:
        """Why the base URL of *service* must not be set; ``""`` if it may."""
        name, names = service.setting, self._last().keys()
        vendor = name.partition("_")[0] + "_"
        others = [each for each in names if each != name and each.startswith(vendor) and looks_like_base(each)]
        rival = next((each for each in others if each not in literals or not _is_here(literals[each], service)), "")
        if rival:
            return f"{rival} may name another place for the same calls"
        if self._from_tables:
            return f"envFrom may supply it; set it to {service.base}{service.behind} there"
        if name == "OPENAI_BASE_URL" and (azure := _azure(names, literals, services)):
            return f"beside {azure} the Azure client of Node.js refuses it"
        return ""

    def except_loopback(self, asked: str | None) -> None:
        """Keep calls to loopback away from an egress proxy: that proxy would get key and prompt in clear."""
        last = self._last()
        for name in EXCEPTIONS:
            value = _literal(last[name]) if name in last else None
            if value is not None and (extended := _extended(value, asked)) != value:
                self._replace(last[name], extended)
        proxies = [last[name] for word in PROXIES for name in (word, word.lower()) if name in last]
        missing = [name for name in EXCEPTIONS if name not in last]
        literals = [value for value in map(_literal, proxies) if value is not None]
        literal = bool(literals)
        supplied = [name for name in EXCEPTIONS if name in last and _literal(last[name]) is None]
        if missing and (asked is not None or (literal and not supplied and not self._from_tables)):
            others = next((value for name in EXCEPTIONS if name in last and (value := _literal(last[name]))), "")
            for name in missing:
                self._add(name, _extended(others, asked))
            missing = []
        elsewhere = self._from_tables or len(proxies) > len(literals)
        if asked is None and ((missing and elsewhere) or (literal and supplied)):
            self.left.append(
                f"{self.name}: proxy variables may come from elsewhere; if they do, annotate the pod with {NO_PROXY}, "
                "else SDKs send key and prompt to that proxy"
            )
        if asked is not None and supplied:
            self.left.append(f"{self.name}: {supplied[0]} comes from elsewhere; add {','.join(DIRECT)} there")

    def _last(self) -> dict[str, dict[str, Any]]:
        return {variable["name"]: variable for variable in self.variables}

    def _add(self, name: str, value: str) -> None:
        self.variables.append({"name": name, "value": value})
        self.change.set.append(name)

    def _replace(self, variable: dict[str, Any], value: str) -> None:
        name = variable["name"]
        before = variable.get("value")
        for names in (self.change.set, self.change.unset, self.change.nulls):
            if name in names:  # somebody has given it another value since
                names.remove(name)
        if before is None:
            (self.change.nulls if "value" in variable else self.change.unset).append(name)
        self.change.rewritten[name] = before or ""
        variable["value"] = value

    def _remove(self, variable: dict[str, Any]) -> None:
        """Take back a *variable* that was set."""
        self.variables = [each for each in self.variables if each is not variable]
        self.change.set.remove(variable["name"])


def _azure(names: Iterable[str], literals: Mapping[str, str], services: Sequence[Reachable]) -> str:
    """The first variable which shows that the container calls Azure: by its name, or by the service in its value."""
    azure = [service for service in services if service.azure]
    return next(
        (name for name in names if AZURE.match(name) or any(one.has(literals.get(name, "")) for one in azure)), ""
    )


def _is_here(text: str, service: Reachable) -> bool:
    return service.has(text) or not host_in(text)


def _literal(variable: Variable) -> str | None:
    """The value as it stands; an API server leaves out an empty one. None if it comes from elsewhere, or is no text."""
    value = variable.get("value", "")
    if variable.get("valueFrom") is not None or not isinstance(value, str | None):
        return None
    return value or ""


class _Expansion:
    """The values that are *known* so far, with what they take from those before them."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self._room = MOST_EXPANDED

    def __repr__(self) -> str:
        return f"<_Expansion {len(self.known)} known>"

    def learn(self, name: str, value: str | None) -> str | None:
        """*value* with what Kubernetes fills in for ``$(NAME)``, from now on the one of *name*; None if unknown."""
        text = value if value is None or "$" not in value else self._expanded(value)
        if text is None:
            self.known.pop(name, None)
        else:
            self.known[name] = text
        return text

    def _expanded(self, value: str) -> str | None:
        parts: list[str] = []
        end, most = 0, min(LONGEST_VALUE, self._room)
        for found in _REFERENCE.finditer(value):
            if found[1] != "$" and found[2] not in self.known:
                return None
            parts += [value[end : found.start()], "$" if found[1] == "$" else self.known[found[2]]]
            most -= len(parts[-1]) + len(parts[-2])
            end = found.end()
            if most < 0:
                return None
        text = "".join([*parts, value[end:]])
        if len(text) > min(LONGEST_VALUE, self._room):
            return None
        self._room -= len(text)
        return text


def _extended(value: str, asked: str | None) -> str:
    """A list of exceptions with ours, and those that an annotation *asked* for."""
    present = _words(value)
    if present == ["*"]:  # everything goes without a proxy; beside others an asterisk means nothing
        return value
    return ",".join(dict.fromkeys([*present, *_words(asked or ""), *DIRECT]))


def _words(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]
