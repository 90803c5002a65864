"""
The configuration reference, ``docs/configuration.md``, written from the schema.

The rule: nothing about a key is said here; what a key is stands in the schema, the defaults in the core's rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from sidecar.core.cache.policy import DEFAULT_TTL, OTHER_TTL
from sidecar.core.durations import as_duration
from sidecar.core.rules import Route
from sidecar.dialects import DIALECTS
from sidecar.settings.builtin import ROUTES, SERVICES
from sidecar.settings.overrides import VARIABLES
from sidecar.settings.schema import SCHEMA
from sidecar.settings.shapes import Either, Items, Named, Setting, SettingShape, Table, ValueForm

_HEAD = """\
# Configuration

One YAML file, every key optional. `sidecar check FILE` reports every problem at once, with file, line and path.

`--config` names the file, or a folder that holds exactly one `*.yaml` or `*.yml` (a mounted ConfigMap). Without it
`/etc/sidecar` is read where that holds one, else the built-in settings hold.

Durations are written `50ms`, `30s`, `15m`, `12h` or `30d`; sizes `512Ki`, `64Mi`, `1Gi` or in bytes; counts `600`,
`200k` or `1.5M`; percentages `50%`. Patterns are shell patterns: `*`, `?` and `[abc]`; those of paths and headers tell
upper and lower case apart, those of models don't. An unquoted `off` is `false` to a YAML 1.1 parser: both mean off.
Anchors, aliases and merges (`<<`) work; a key said twice is a problem. Secrets are refused: they stand in mounted
files, which are read again when they change. Where a file's path belongs and the secret itself seems to stand,
`sidecar check` says so, and `sidecar run` warns and goes on as without that file; nobody shows it. A file in the
working directory is named as `./NAME`: a word that stands alone may be a password. `sidecar check` reads the files that
are there, too: secrets, credentials, certificates, answers. Those that are elsewhere are no problem for it.

`sidecar run` lives with keys that it doesn't know, for pods of several versions share one ConfigMap: each is a warning;
inside a route it switches that route's cache off, inside a service the cache of all its calls, under `cache` the whole
cache. Without `cache.secret_file` it leaves Redis alone, with a warning. A file that is there and unfit is a warning,
too. Anything else that is wrong is refused, and so is an `upstream.ca_file` that is missing or unfit. With
`--on-bad-config passthrough` a refusal means plain forwarding to the built-in services; what variables set holds then,
too, but for those that are wrong themselves.
"""

_ROUTES_HEAD = """\
## Built-in routes

They follow the configured ones. A configured route may have the name of a built-in one; both then count as one in
metrics.

| route | endpoints | `cache.mode` |
|---|---|---|
"""

_TTL_HEAD = """\
## How long an answer is fresh

Where a route says no `ttl`, by kind of endpoint:

| kind | `ttl` |
|---|---|
"""

_DIRECTIVES = """\
## What answers say about caching

`cache.directives` decides what an answer's `Cache-Control`, `Expires`, `Age` and `Vary` mean. All of this is about
answers with status 200; others are never kept.

- **`honour`**, the default for services of dialect {honouring}: RFC 9111 holds. An answer with `no-store` or `no-cache`
  isn't kept, nor is one that is stale when it comes; only its own caller gets it. Others are kept for the route's
  `ttl`, or for less where the answer says so: by `s-maxage`, else `max-age`, else `Expires`, less its `Age`; an answer
  that says only its `Age` is kept for the route's `ttl` less that. With
  `must-revalidate`, `proxy-revalidate` or `s-maxage` an answer never serves stale. A `private` one serves only callers
  of its own principal: where the route shares, it isn't kept, and only callers with the same credential who wait for
  it get it, too.
- **Without the key**, services of other dialects: the route alone decides what is kept and for how long, for these APIs
  say `no-store` or `no-cache` of every answer. But where the route shares, an answer with `no-store` or `private` is
  treated as a `private` one is above.
- **`ignore`**: the route alone decides, whatever the answer says.

Unless a route says `ignore`, an answer with `Vary` serves only requests that have the same values in the fields it
names, or lack them as the first request did. A new answer replaces one that is for other values. An answer with
`Vary: *` isn't kept. Of what is said twice the more restrictive counts, and a value that cannot be read counts as the
most restrictive one. `public` changes nothing: `cache.share` says whether callers share. `must-understand` doesn't lift
a `no-store`.

For services of dialect {honouring}, a call that succeeds and may have changed something (`PUT`, `PATCH`, `DELETE`, or a
`POST` that isn't looked up) removes what is kept of its target, that is its path and query, for its caller. This holds
at once in this process. In Redis it removes the answers that this process had in memory. Other processes keep what
they have in memory until its `ttl` is over, so give a short one to routes whose answers change by such calls.

Of what a request asks, `max-age`, `min-fresh`, `no-cache` (also as `Pragma` where there is no `Cache-Control`),
`no-store` and `only-if-cached` hold. A `max-age` that cannot be read is 0. `max-stale` changes nothing: the route says
whether a stale answer may serve. `x-sidecar-tags` takes up to 32 tags, with commas between; a call with more of them is
neither looked up nor kept (`no-store`), for a purge by one that was left out would miss its answer.
"""

_VARIABLES_HEAD = """\
## Environment variables

A variable sets one key; it beats the file, and a command's option beats it. An empty one sets nothing. Variables that
Kubernetes makes for a Service named `sidecar` are recognised and left alone.

| variable | key |
|---|---|
"""

_POD = """\
| `SIDECAR_POD_NAMESPACE`, `SIDECAR_SERVICE_ACCOUNT` | whose answers are whose where a region supplies the credential |
"""


def reference() -> str:
    """The whole page, Markdown."""
    return "\n".join([_HEAD, *_sections(SCHEMA, ""), _services(), _routes(), _ttl(), _directives(), _variables()])


def _sections(table: Table, path: str) -> Iterator[str]:
    """One section for each table, in the order of the schema."""
    inner = [(_path(path, name, key.value), key, found) for name, key in table.keys.items() if (found := _table(key))]
    yield _section(table, path)
    for where, key, found in inner:
        assert isinstance(found, Table)
        yield f"## `{where}`\n\n{_sentence(key.about)}\n"
        yield from _sections(found, where)


def _section(table: Table, path: str) -> str:
    lines = [] if path else ["## The whole\n"]
    lines += ["| key | form | default | what |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {_form(key)} | {_default(key)} | {key.about} |" for name, key in table.keys.items()]
    if table.ways:
        ways = " · ".join(", ".join(f"`{name}`" for name in alternative) for alternative in table.ways)
        lines.append(f"\nExactly one of: {ways}.")
    if table.later:
        names = ", ".join(f"`{name}`" for name in sorted(table.later))
        lines.append(f"\nNot supported by this version: {names}.")
    return "\n".join(lines) + "\n"


def _path(path: str, name: str, value: SettingShape) -> str:
    suffix = ".NAME" if isinstance(value, Named) else "[]" if isinstance(value, Items) else ""
    return (f"{path}.{name}" if path else name) + suffix


def _table(key: Setting) -> Table | None:
    value = key.value.value if isinstance(key.value, Named | Items) else key.value
    value = value.table if isinstance(value, Either) else value
    return value if isinstance(value, Table) else None


def _form(key: Setting) -> str:
    value = key.value
    if isinstance(value, ValueForm):
        return value.name
    if isinstance(value, Table):
        return "table"
    if isinstance(value, Either):
        return f"{value.single.name} · table"
    if isinstance(value.value, Either):
        return f"list of {value.value.single.name} · tables"
    inner = value.value.name if isinstance(value.value, ValueForm) else "table"
    return f"list of {inner}s" if isinstance(value, Items) else f"table of {inner}s by {value.key.name}"


def _default(key: Setting) -> str:
    if key.required:
        return "required"
    return f"`{key.default}`" if re.fullmatch(r"[\w.:%-]+", key.default) else key.default


def _sentence(about: str) -> str:
    return f"{about[0].upper()}{about[1:]}."


def _services() -> str:
    rows = [
        f"| `{name}` | `{service.dialect.name}` | `{service.path}{'/RESOURCE' if service.resource else ''}` "
        f"| {_codes(service.hosts)} | {_codes(region.url for region in service.regions)} |"
        for name, service in SERVICES.items()
    ]
    head = "## Built-in services\n\nA service of the same name replaces its built-in; the others stay.\n"
    return "\n".join([head, "| service | dialect | path | hosts | answers at |", "|---|---|---|---|---|", *rows, ""])


def _routes() -> str:
    rows = [f"| `{route.name}` | {_kinds(route)} | `{route.cache.mode}` |" for route in ROUTES]
    return _ROUTES_HEAD + "\n".join(rows) + "\n"


def _kinds(route: Route) -> str:
    return ", ".join(sorted(route.match.kinds)) or "everything else"


def _ttl() -> str:
    rows = [f"| {kind} | `{as_duration(seconds)}` |" for kind, seconds in sorted(DEFAULT_TTL.items())]
    return _TTL_HEAD + "\n".join([*rows, f"| any other | `{as_duration(OTHER_TTL)}` |", ""])


def _directives() -> str:
    honouring = [f"`{name}`" for name, dialect in DIALECTS.items() if dialect.honours]
    return _DIRECTIVES.format(honouring=" and ".join(honouring))


def _variables() -> str:
    rows = [f"| `{name}` | `{'.'.join(path)}` |" for name, path in VARIABLES.items()]
    return _VARIABLES_HEAD + "\n".join(rows) + "\n" + _POD


def _codes(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)
