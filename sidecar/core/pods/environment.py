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

_REFERENCE = re.compile(r"\$(\$|\(([^()]*)\))")
_OURS = ("http://127.0.0.1:", "http://[::1]:")


class EnvironmentChange(Struct, frozen=True, omit_defaults=True):
    """
    What was done to one container: variables that were *set* and were not there, and the values that others had before
    they were *rewritten*. *bare*: it had no table of variables at all; *null*: it had an empty value there.
    """

    set: list[str] = field(default_factory=list)
    rewritten: dict[str, str] = field(default_factory=dict)
    bare: bool = False
    null: bool = False


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
    work = _Environment(container, replace(found, set=[*found.set], rewritten={**found.rewritten}))
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
        elif name in change.rewritten:
            kept.append({**variable, "value": change.rewritten[name]})
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
        known: dict[str, str] = {}
        for variable in self.variables:
            text = _expanded(variable.get("value", "" if "valueFrom" not in variable else None), known)
            if text is None:
                known.pop(variable["name"], None)
            else:
                known[variable["name"]] = text
        return known

    def rewrite(self, services: Sequence[Reachable]) -> None:
        """Give each literal URL of a service its address on loopback."""
        last = self._last()
        known: dict[str, str] = {}
        for variable in self.variables:
            name = variable["name"]
            text = _expanded(variable.get("value"), known)
            if text is None:
                known.pop(name, None)
                continue
            if last[name] is variable and not _is_of_proxy(name) and (here := on_loopback(text, services)) is not None:
                self._replace(variable, here)
                text = here
            known[name] = text

    def set_base_url(self, service: Reachable, services: Sequence[Reachable]) -> None:
        """Set the base URL of *service*, if nobody else may have meant another one."""
        name, last = service.setting, self._last()
        where, address = f"{self.name}: {name}", f"{service.base}{service.behind}"
        vendor = name.partition("_")[0] + "_"
        literals = self.literals()
        if name in last:
            if name not in literals:
                self.left.append(f"{where} stays as it is: it comes from elsewhere; set it to {address} there")
            elif not host_in(literals[name]):
                self.left.append(f"{where} stays as it is, and is no URL; leave it out, or set it to {address}")
            return
        others = [each for each in last if each.startswith(vendor) and looks_like_base(each)]
        rival = next((each for each in others if each not in literals or not _is_here(literals[each], service)), "")
        if rival:
            self.left.append(f"{where} is not set: {rival} may name another place for the same calls")
        elif self._from_tables:
            self.left.append(f"{where} is not set: envFrom may supply it; set it to {address} there")
        elif name == "OPENAI_BASE_URL" and (azure := _azure(last, literals, services)):
            self.left.append(f"{where} is not set: beside {azure} the Azure client of Node.js refuses it")
        else:
            self._add(name, address)

    def except_loopback(self, asked: str | None) -> None:
        """Keep calls to loopback away from an egress proxy: that proxy would get key and prompt in clear."""
        last = self._last()
        for name in EXCEPTIONS:
            value = last.get(name, {}).get("value")
            if isinstance(value, str) and (extended := _extended(value, asked)) != value:
                self._replace(last[name], extended)
        proxies = [last[name] for word in PROXIES for name in (word, word.lower()) if name in last]
        missing = [name for name in EXCEPTIONS if name not in last]
        literal = any("valueFrom" not in variable for variable in proxies)
        supplied = [name for name in EXCEPTIONS if "valueFrom" in last.get(name, {})]
        if missing and (asked is not None or (literal and not supplied and not self._from_tables)):
            values = [last.get(name, {}).get("value") for name in EXCEPTIONS]
            others = next((value for value in values if isinstance(value, str)), "")
            for name in missing:
                self._add(name, _extended(others, asked))
            missing = []
        elsewhere = self._from_tables or len(proxies) > sum("valueFrom" not in variable for variable in proxies)
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
        if name in self.change.set:  # somebody has given it another value since
            self.change.set.remove(name)
        self.change.rewritten[name] = variable["value"]
        variable["value"] = value


def _azure(names: Iterable[str], literals: Mapping[str, str], services: Sequence[Reachable]) -> str:
    """The first variable which shows that the container calls Azure: by its name, or by the service in its value."""
    azure = [service for service in services if service.azure]
    return next(
        (name for name in names if AZURE.match(name) or any(one.has(literals.get(name, "")) for one in azure)), ""
    )


def _is_here(text: str, service: Reachable) -> bool:
    return service.has(text) or not host_in(text)


def _expanded(value: Any, known: Mapping[str, str]) -> str | None:
    """*value* with what Kubernetes fills in for ``$(NAME)``; None if that is not known here."""
    if not isinstance(value, str) or "$" not in value:
        return value if isinstance(value, str) else None
    parts: list[str] = []
    end = 0
    for found in _REFERENCE.finditer(value):
        if found[1] != "$" and found[2] not in known:
            return None
        parts += [value[end : found.start()], "$" if found[1] == "$" else known[found[2]]]
        end = found.end()
    return "".join([*parts, value[end:]])


def _extended(value: str, asked: str | None) -> str:
    """A list of exceptions with ours, and those that an annotation *asked* for."""
    present = _words(value)
    if present == ["*"]:  # everything goes without a proxy; beside others an asterisk means nothing
        return value
    return ",".join(dict.fromkeys([*present, *_words(asked or ""), *DIRECT]))


def _words(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]
