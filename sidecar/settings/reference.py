"""
The configuration reference, ``docs/configuration.md``, written from the schema.

The rule: no text about a key is written here. The schema describes the keys, and the core's rules have the defaults.
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

`--config` names the file, or a folder that holds exactly one `*.yaml` or `*.yml` (a mounted ConfigMap). Without it, the
file in `/etc/sidecar` is read if there is one; otherwise the built-in settings hold.

- **Values.** Durations are written `50ms`, `30s`, `15m`, `12h` or `30d`; sizes `512Ki`, `64Mi`, `1Gi` or in bytes;
  counts `600`, `200k` or `1.5M`; percentages `50%`. An unquoted `off` is `false` to a YAML 1.1 parser: both mean off.
- **Patterns** are shell patterns: `*`, `?` and `[abc]`. Patterns for paths and headers distinguish upper and lower
  case, patterns for models do not.
- **YAML.** Anchors, aliases and merges (`<<`) work. A key that is written twice is a problem.
- **Secrets** are refused. They belong into mounted files, which are read again when they change. If a secret itself
  seems to stand in the place of a file's path, `sidecar check` reports it, and `sidecar run` warns and goes on as if
  the file were missing. No message shows the secret. A file in the working directory is written `./NAME`, because a
  single word may be a password.
- **Mounted files.** `sidecar check` also reads the files that exist: secrets, credentials, certificates, answers. A
  missing file is no problem for it.

`sidecar run` accepts more than `sidecar check`, because pods of several versions share one ConfigMap:

- An unknown key is a warning. Inside a route it switches that route's cache off, inside a service the cache of all its
  calls, under `cache` the whole cache.
- Without `cache.secret_file`, Redis is not used, with a warning.
- A file that exists and is unfit is a warning.
- Anything else that is wrong is refused, and so is an `upstream.ca_file` that is missing or unfit. With
  `--on-bad-config passthrough`, a refused configuration means plain forwarding to the built-in services. What variables
  set then still holds, except variables that are wrong themselves.
"""

_ROUTES_HEAD = """\
## Built-in routes

They come after the configured ones. A configured route may have the name of a built-in one; both then count as one in
metrics.

| route | endpoints | `cache.mode` |
|---|---|---|
"""

_TTL_HEAD = """\
## How long an answer is fresh

If a route sets no `ttl`, the kind of endpoint decides:

| kind | `ttl` |
|---|---|
"""

_DIRECTIVES = """\
## What answers say about caching

`cache.directives` decides what an answer's `Cache-Control`, `Expires`, `Age` and `Vary` mean. All of this is about
answers with status 200; others are never kept.

- **`honour`**, the default for services of dialect {honouring}: RFC 9111 holds.
  - An answer with `no-store` or `no-cache` is not kept, nor is one that is stale when it comes. Only its own caller
    gets it.
  - Other answers are kept for the route's `ttl`, or for less if the answer says so: by `s-maxage`, else `max-age`, else
    `Expires`, minus its `Age`. An answer that gives only its `Age` is kept for the route's `ttl` minus that.
  - With `must-revalidate`, `proxy-revalidate` or `s-maxage` an answer never serves stale.
  - A `private` answer serves only callers of its own principal. If the route shares, it is not kept; only waiting
    callers with the same credential get it, too.
- **Without the key**, for services of other dialects: the route alone decides what is kept and for how long, because
  these APIs say `no-store` or `no-cache` on every answer. But if the route shares, an answer with `no-store` or
  `private` is treated like a `private` one above.
- **`ignore`**: the route alone decides, whatever the answer says.

Unless a route says `ignore`, an answer with `Vary` serves only requests with the same values in the fields that it
names (or without them, if the first request had none). A new answer replaces one for other values. An answer with
`Vary: *` is not kept. If something is said twice, the more restrictive value counts, and a value that cannot be read
counts as the most restrictive one. `public` changes nothing: `cache.share` says whether callers share.
`must-understand` does not lift a `no-store`.

For services of dialect {honouring}, a successful call that may have changed something (`PUT`, `PATCH`, `DELETE`, or a
`POST` that is not looked up) removes the stored answers of its target (path and query) for its caller. This holds at
once in this process. In Redis it removes the answers that this process had in memory. Other processes keep what they
have in memory until its `ttl` is over, so give a short one to routes whose answers change by such calls.

Requests may say `max-age`, `min-fresh`, `no-cache` (also as `Pragma` if there is no `Cache-Control`), `no-store` and
`only-if-cached`. A `max-age` that cannot be read is 0. `max-stale` changes nothing: the route says whether a stale
answer may serve. `x-sidecar-tags` takes up to 32 tags, separated by commas. A call with more is neither looked up nor
kept (`no-store`), because a purge by a tag that was left out would miss its answer.
"""

_VARIABLES_HEAD = """\
## Environment variables

A variable sets one key. It beats the file, and an option of the command beats it. An empty variable sets nothing.
Variables that Kubernetes makes for a Service named `sidecar` are recognised and ignored. Each has a twin that begins
with `SIDECAR_DEFAULT_`, such as `SIDECAR_DEFAULT_CACHE_MEMORY_MAX_BYTES`: it holds only where the file says nothing.

| variable | key |
|---|---|
"""

_POD = """\
| `SIDECAR_POD_NAMESPACE`, `SIDECAR_SERVICE_ACCOUNT` | to whom answers belong if a region supplies the credential |
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
