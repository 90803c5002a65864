"""
The types that a configuration is turned into: frozen rules that the program reads.

The rule: only types, with the defaults that hold if a configuration says nothing. ``settings`` builds them and has
already refused what makes no sense. Nothing below ``app`` knows YAML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from sidecar.core.dialect import Dialect

KIB = 1024
MIB = 1024 * KIB


class Mode(StrEnum):
    """The mode of the whole process."""

    NORMAL = "normal"
    CACHE_OFF = "cache-off"
    PASSTHROUGH = "passthrough"


class CacheMode(StrEnum):
    """Which answers of a route are cached; see ``cache.mode`` in ``docs/configuration.md``."""

    OFF = "off"
    OBSERVE = "observe"
    DETERMINISTIC = "deterministic"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Share:
    """Who may read whose answers: ``principal``, ``service``, or ``header`` with the header's lower-case *name*."""

    kind: str = "principal"
    name: str = ""


@dataclass(frozen=True, slots=True)
class StoredCredential:
    """A credential that the region supplies: the text of a file, behind *prefix*, sent as *header* (lower-case)."""

    header: str
    file: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class AzureIdentity:
    """
    A token that Azure gives this workload, sent as ``authorization: Bearer``, or to Redis as a password. *kind* is
    ``managed`` (asked from the machine's endpoint) or ``workload`` (exchanged for a service account's token). If it is
    ``""``, *username*, for Redis alone, is the object id that the token names; the others are those of the environment.
    """

    kind: str
    client_id: str = ""
    tenant_id: str = ""
    token_file: str = ""
    scope: str = "https://cognitiveservices.azure.com/.default"
    username: str = ""


@dataclass(frozen=True, slots=True)
class Region:
    """
    One place where a service answers. *url* has scheme, host, optional port and base path, without trailing slash;
    ``{resource}`` in it is filled from the path (the built-in Azure service).

    The lowest *priority* goes first; regions of one priority share by *weight*. *residency* is a tag that routes may
    ask for. *deployments*: the region's own names of models.
    """

    name: str
    url: str
    priority: int = 1
    credential_domain: str = ""
    credential: StoredCredential | AzureIdentity | None = None
    weight: int = 1
    residency: str = ""
    deployments: Mapping[str, str] = field(default_factory=dict)


def host_of(url: str) -> str:
    """The host in a region's *url*, in lower case, without its port."""
    authority = url.partition("://")[2].partition("/")[0].lower()
    return authority.rpartition("]")[0].lstrip("[") if authority.startswith("[") else authority.partition(":")[0]


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """
    When a region's breaker opens: after *consecutive_unanswered* calls in a row without an answer, after
    *consecutive_errors* errors in a row, or if *failure_rate* of its last *window* calls failed, from *minimum_calls*
    on; the same with *slow_rate* and calls slower than *slow_call* seconds (0: no call counts as slow).

    *open* is how long it stays open at first, seconds; *shared*: the fleet judges together. The only region that a call
    may go to is refused only after *window* calls in a row had no answer.
    """

    consecutive_unanswered: int = 3
    consecutive_errors: int = 5
    failure_rate: float = 0.5
    window: int = 20
    minimum_calls: int = 10
    open: float = 5.0
    slow_call: float = 0.0
    slow_rate: float = 0.5
    shared: bool = False


@dataclass(frozen=True, slots=True)
class HeaderRule:
    """Request fields (lower-case names) that count in the keys of a service besides the usual ones, or do not."""

    count: frozenset[bytes] = frozenset()
    ignore: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class TokenRule:
    """
    What is known of the tokens (RFC 7519) that callers of a service send. *ignore_claims* change from token to token
    although the caller is the same. Tokens of *issuer* for *audience* are verified here, with the keys of *jwks_file*
    (RFC 7517); if that is ``""``, none are.
    """

    ignore_claims: frozenset[str] = frozenset()
    issuer: str = ""
    audience: str = ""
    jwks_file: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """
    An AI service that the application calls, found by host, path prefix or own port.

    *path* is its prefix without trailing slash (``/openai``), ``""`` for none; *resource* tells that the path's next
    segment names a resource of the service (``/azure/RESOURCE``). *port* 0 means the shared port. *balance*: how
    regions of one priority share calls, ``weight`` or ``latency`` (the quicker of two drawn). *credential_headers* are
    fields (lower-case names) that carry credentials, beside those that look so.
    """

    name: str
    dialect: Dialect
    regions: tuple[Region, ...]
    path: str = ""
    hosts: tuple[str, ...] = ()
    port: int = 0
    resource: bool = False
    breaker: BreakerRule = BreakerRule()
    balance: str = "weight"
    headers: HeaderRule = HeaderRule()
    credential_headers: frozenset[bytes] = frozenset()
    tokens: TokenRule = TokenRule()

    @property
    def own(self) -> bool:
        """Whether each of its regions is the vendor itself; elsewhere a gateway may stand in between."""
        return all(self.dialect.is_own(host_of(region.url)) for region in self.regions)


@dataclass(frozen=True, slots=True)
class CacheRule:
    """
    A route's cache rule; times in seconds. *ttl* None means the default of the endpoint's kind.
    *stale_while_revalidate* and *stale_if_error* are how long an answer may serve after its *ttl*, while a new one is
    fetched or if none can be had. *directives*: whether what answers say about caching counts; None: as the service's
    dialect defines. *custom_models*, *urls* (``off``, ``unsigned``): whether calls that name such are looked up.
    """

    mode: CacheMode = CacheMode.DETERMINISTIC
    ttl: float | None = None
    share: Share = Share()
    tags: tuple[str, ...] = ()
    trust_seed: bool = False
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    directives: bool | None = None
    custom_models: bool = False
    urls: str = "off"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """
    Seconds. *first_byte* is from the request sent to the answer's head (*stream_first_byte* where a stream was asked
    for); *idle* between two reads. There is no total.
    """

    connect: float = 5.0
    first_byte: float = 600.0
    stream_first_byte: float = 300.0
    idle: float = 300.0


@dataclass(frozen=True, slots=True)
class Match:
    """Which calls a route takes. Empty members match everything. *path* and *model* are shell patterns (fnmatch)."""

    service: str = ""
    path: str = ""
    model: str = ""
    header: Mapping[str, str] = field(default_factory=dict)
    kinds: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RouteLimits:
    """
    How much of the services a route's calls may use; 0 for no limit. *concurrency* is for this process, with at most
    *queue* calls waiting for their turn. The rates are for the fleet, or, if it cannot be asked, this process's share
    of *replicas*. *adaptive*: the concurrency follows what the service can take.
    """

    concurrency: int = 0
    tokens_per_minute: int = 0
    requests_per_minute: int = 0
    queue: int = 100
    replicas: int = 1
    adaptive: bool = False


NO_LIMITS = RouteLimits()


@dataclass(frozen=True, slots=True)
class RetryRule:
    """
    *on_timeout*: a generating call that a region did not answer in time is sent to another one. *hedge*: a call that
    takes longer than 95 % of its route's calls is sent a second time, and the first answer counts.
    """

    on_timeout: bool = False
    hedge: bool = False


@dataclass(frozen=True, slots=True)
class FallbackRule:
    """What answers if no region does: ``stale`` entries, another ``model``, or the file ``answer_file``."""

    kind: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """
    A named group of calls, and the rules for them. The first match wins. *allow*: tags of residency, one of which a
    region must have; if empty, any region.
    """

    name: str
    match: Match = Match()
    cache: CacheRule = CacheRule()
    timeouts: Timeouts = Timeouts()
    owner: str = ""
    allow: frozenset[str] = frozenset()
    limits: RouteLimits = NO_LIMITS
    retry: RetryRule = RetryRule()
    fallback: tuple[FallbackRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Listen:
    """An address to listen on. *names* are further values of ``Host``, in lower case, that mean this sidecar."""

    host: str = "127.0.0.1"
    port: int = 7400
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """
    Bounds of this process, in bytes and seconds.

    *inflight_memory*: one ledger for bodies and flights. *collect*: a body up to this size is collected for a look-up
    (in an unlinked file if memory is full). *head_seconds*, *body_seconds*: how long a head may take from its first
    byte, and how long a body may stand still. *idle_seconds*: how long a kept-alive connection may be silent.
    *reader_seconds*: how long the sidecar waits for a caller that does not read. *drain_seconds*: grace after SIGTERM.
    """

    inflight_memory: int = 32 * MIB
    collect: int = 512 * MIB
    request_line: int = 16 * KIB
    headers: int = 64 * KIB
    trailers: int = 16 * KIB
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: float = 600.0
    reader_seconds: float = 30.0
    drain_seconds: float = 25.0


@dataclass(frozen=True, slots=True)
class MemoryRule:
    """The memory tier: *eviction* is ``s3-fifo`` or ``lru``; *max_entries* 0 means no limit besides the bytes."""

    max_bytes: int = 64 * MIB
    max_entry_bytes: int = 4 * MIB
    max_entries: int = 0
    eviction: str = "s3-fifo"


@dataclass(frozen=True, slots=True)
class RedisRule:
    """
    The fleet's tier; times in seconds.

    *url*: ``redis rediss redis+sentinel rediss+sentinel redis+cluster rediss+cluster``, without credentials; a
    Sentinel's path is ``/SERVICE`` or ``/SERVICE/DATABASE``, several hosts are separated by commas. *timeout*: all
    commands of one call together. *lease_wait*: how long a streaming call waits for another pod's answer. *warm*: how
    many entries, at most, are read at the start. Files, ``""`` for none, are read again when they change; *credential*
    takes the place of user and password.
    """

    url: str
    timeout: float = 0.05
    namespace: str = "sidecar"
    max_connections: int = 8
    lease_wait: float = 1.0
    warm: int = 0
    username_file: str = ""
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    credential: AzureIdentity | None = None


@dataclass(frozen=True, slots=True)
class SealRule:
    """
    How entries stand in the fleet's tier. *secret_file* has one or two lines ``id:base64 of 32 bytes``, the first
    writes, all read; *compress_above* in bytes.
    """

    secret_file: str = ""
    encrypt: bool = True
    compress_above: int = KIB


@dataclass(frozen=True, slots=True)
class UpstreamRule:
    """
    *proxy*: ``environment``, ``none`` or a URL. *ca_file*: extra trust anchors, ``""`` for the system's alone.
    *nameservers*: who is asked for addresses, none for those of resolv.conf.
    """

    proxy: str = "environment"
    ca_file: str = ""
    nameservers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LogRule:
    """Which calls the log shows besides errors and slow ones: the share *sample*, drawn *by* ``call`` or ``key``."""

    sample: float = 0.01
    by: str = "call"


@dataclass(frozen=True, slots=True)
class Rules:
    """
    A whole configuration. *source* is the file that it was read from, or a description if there is none; *revision* a
    digest of what it was built from; *warnings* one line each.
    """

    services: tuple[Service, ...]
    routes: tuple[Route, ...]
    mode: Mode = Mode.NORMAL
    listen: Listen = Listen()
    log: LogRule = LogRule()
    health: Listen = Listen(port=7491)
    admin: Listen = Listen(port=7490)
    admin_token_file: str = ""
    state_dir: str = ""
    limits: Limits = Limits()
    memory: MemoryRule = MemoryRule()
    redis: RedisRule | None = None
    seal: SealRule = SealRule()
    upstream: UpstreamRule = UpstreamRule()
    source: str = ""
    revision: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def lease_wait(self) -> float:
        """How long a streaming call waits for another process's answer, seconds; 0 without a fleet."""
        return self.redis.lease_wait if self.redis is not None else 0.0
