"""
The form of a dialect: what one AI API's requests and answers mean.

The rule: a dialect is tables and pure functions, without state. It answers questions about an API and decides nothing
about policy. ``dialects/`` holds one folder or file for each API, with one ``Dialect`` value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from sidecar.core.model import Facts, Form, Head, Pairs, Usage, View

Members = Mapping[str, Any]
"""The top-level members of a JSON body, decoded; of a multipart body, its text fields."""


class Kind(StrEnum):
    """The purpose of an endpoint. It selects built-in routes and default lifetimes."""

    CHAT = "chat"
    EMBEDDINGS = "embeddings"
    TRANSCRIPTION = "transcription"
    TRANSLATION = "translation"
    LANGUAGE = "language"
    RERANK = "rerank"
    OCR = "ocr"
    COUNT = "count"
    MODERATION = "moderation"
    SPEECH = "speech"
    MODELS = "models"
    OTHER = "other"


class BodyForm(StrEnum):
    """How an endpoint's request body is written."""

    NONE = "none"
    JSON = "json"
    MULTIPART = "multipart"
    RAW = "raw"
    TEXT = "text"
    """Text that is read as a whole, such as SSML; a dialect finds it as the one member ``text``."""
    DOCUMENT = "document"
    """A document in any form that a service takes: its bytes, base64 or a URL in JSON, or a file in multipart."""


@dataclass(frozen=True, slots=True)
class Shape:
    """
    How one JSON object is brought to canonical form.

    Its members are sorted by name, less those in *drop*. A member named in *inside* is itself such an object, or an
    array of them (other values there are kept as they are). A member named in both is dropped unless it is such an
    object with something left in it. Every other member keeps its order: inside schemas and tool arguments the order
    of members has meaning. *fold*: names of members in any case mean the same to the service.
    """

    drop: frozenset[str] = frozenset()
    fold: bool = False
    inside: Mapping[str, Shape] = field(default_factory=dict)


class Watch(Protocol):
    """
    An observer of one live stream.

    *committed*: an event has passed (pings and comments don't count). *ended*: the terminal
    event has passed. *failed*: the stream itself reported an error. *boundary*: the bytes so far end between events.
    """

    committed: bool
    ended: bool
    failed: bool
    boundary: bool

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes of the stream; never raises."""

    def close(self) -> None:
        """The stream has ended cleanly: what is left is its last event."""


class Narrow(Protocol):
    """Turns the stream as fetched into one caller's view of it, chunk by chunk."""

    def feed(self, chunk: bytes) -> bytes:
        """The bytes that this caller may have so far, possibly none."""

    def close(self) -> bytes:
        """What is left when the stream has ended."""


class Completeness(StrEnum):
    """
    Whether an answer may be kept: the empty string when it may, else the reason why not.

    Whole is only what is known to be complete and of the asked shape. ``misshapen``: it can be read, and is not what
    was asked for. ``unknown-finish``: the word by which it says why it ended is not known to mean a good end.
    ``extra-output``: the service keeps parts of it, and gives them out under an id.
    """

    WHOLE = ""
    TRUNCATED = "truncated"
    UNFINISHED = "unfinished"
    FAILED = "failed"
    CONTENT_FILTER = "content-filter"
    PAUSED = "paused"
    UNREADABLE = "unreadable"
    MISSHAPEN = "misshapen"
    UNKNOWN_FINISH = "unknown-finish"
    PARTS = "extra-output"


class Judged(NamedTuple):
    """
    What a whole answer says of itself: whether it is *complete*, what it cost, which model gave it (``""`` where it
    says nothing), and the word that made it ``unknown-finish``, else ``""``.
    """

    complete: Completeness
    usage: Usage
    model: str
    finish: str


_NO_USAGE = Usage()


def _no_finish(_body: bytes, _form: Form) -> str:
    """For answers that do not say why they ended."""
    return ""


@dataclass(frozen=True, slots=True)
class Answers:
    """
    What an endpoint's successful answers look like, in both forms.

    *complete* judges a whole body by what the request says of it and by its media type (lower case, without
    parameters). *usage* and *model* read it (``Usage()`` and ``""`` where it says nothing). *finish* gives the word
    that made it ``unknown-finish``, else ``""``. *judge*, where it is given, tells all four and reads the body once.
    *convert* gives the bytes of another view, or None where that would
    not be faithful. *watch* observes a live stream; *narrow* gives the filter that turns the live stream into a
    caller's view, None where nothing has to be changed. *streams* tells that the endpoint has a streamed form that
    *convert* knows: then ``stream`` is not part of the key. *documents* tells that a whole answer is a JSON document,
    whatever its type says. *metered* finds in the fields of an answer what the service has charged, None where they do
    not say it.
    """

    complete: Callable[[bytes, Form, Facts, str], Completeness]
    usage: Callable[[bytes, Form], Usage]
    model: Callable[[bytes, Form], str]
    convert: Callable[[bytes, Form, View], bytes | None]
    watch: Callable[[], Watch]
    narrow: Callable[[View], Narrow | None]
    streams: bool = False
    documents: bool = False
    finish: Callable[[bytes, Form], str] = _no_finish
    judge: Callable[[bytes, Form, Facts, str], Judged] | None = None
    metered: Callable[[Pairs], Usage | None] | None = None

    def judged(self, body: bytes, form: Form, facts: Facts, media: str, pairs: Pairs = ()) -> Judged:
        """All that a whole answer, with the fields *pairs*, says of itself, and what its call was charged."""
        if self.judge is not None:
            return self.judge(body, form, facts, media)
        complete = self.complete(body, form, facts, media)
        finish = self.finish(body, form) if complete is Completeness.UNKNOWN_FINISH else ""
        usage = self.usage(body, form)
        if complete is Completeness.WHOLE and usage == _NO_USAGE and facts.charged is not None:
            usage = facts.charged
        if self.metered is not None:
            usage = self.metered(pairs) or usage
        return Judged(complete, usage, self.model(body, form), finish)


class Progress(StrEnum):
    """What a poll's answer says of its operation. ``UNKNOWN``: it cannot be read, or says no state that is known."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class LongOperation:
    """
    A kind of long-running operation: the call that starts it is answered at once (202), and its result is polled.

    *poll*: the target (path and query) of the poll, from the path and the query of the starting call and the id of the
    operation. *progress* reads a poll's whole body. *present*: a poll's whole body as the answer for another id at
    another time (RFC 3339, UTC, whole seconds); the rest of it stays byte for byte. *running*: a poll's body while the
    operation with this id, begun at this time, runs.
    """

    poll: Callable[[str, bytes, str], bytes]
    progress: Callable[[bytes], Progress]
    present: Callable[[bytes, str, str], bytes]
    running: Callable[[str, str], bytes]


class Poll(NamedTuple):
    """
    A path that asks about the operation *id*. *part*: what beside its result is asked for (``pdf``, ``figures/1.1``),
    ``""`` for the result.
    """

    id: str
    part: str = ""

    def __repr__(self) -> str:
        return "<Poll>"  # whoever knows the id may ask for the result


@dataclass(frozen=True, slots=True)
class Documents:
    """
    How a JSON body holds documents: members that are base64 of one (*embedded*), or its URL (*linked*); each may also
    stand in the objects of the arrays *inside*.
    """

    embedded: frozenset[str]
    linked: frozenset[str]
    inside: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """
    One operation of an API.

    *name* is from a closed set, fit for a metric label. *bypass* is a reason for never looking it up, or ``""``.
    *ignored* members neither count nor are read (who the end user is, say). *read* turns the members of a request into
    facts; *model* is the deployment that the path names, else ``""``.
    *generating* tells that an abandoned call goes on costing money, and so is cancelled.
    *listed*: the member that a JSON body stands for if it is an array, ``""`` where it may be none.

    *operation*: what a call starts, None where its answer is its result. *poll*: the operation that a call asks about.
    *documents*: how a JSON body of the form DOCUMENT holds documents. Three members say what counts in the key: *path*,
    in place of the path as it is written (``""``: as it is written); *query*, which gives the part of a query that
    counts (None: all but the dialect's exceptions, in its order); *uncounted*: header fields, in lower case, that do
    not count even at a gateway.

    *by_query*: the same endpoint as the query of a call makes it, where that decides more than what is asked: whether a
    call is ever looked up, or what its route must allow. None: the query decides nothing.
    """

    name: str
    kind: Kind
    body: BodyForm
    read: Callable[[Members], Facts]
    answers: Answers
    shape: Shape = Shape()
    ignored: frozenset[str] = frozenset()
    bypass: str = ""
    model: str = ""
    generating: bool = True
    listed: str = ""
    operation: LongOperation | None = None
    poll: Poll | None = None
    documents: Documents | None = None
    path: str = ""
    query: Callable[[bytes], bytes] | None = None
    uncounted: frozenset[bytes] = frozenset()
    by_query: Callable[[Endpoint, bytes], Endpoint] | None = None

    @property
    def proves(self) -> bool:
        """Whether a whole answer of it proves that the service has accepted the caller's credential."""
        return self.kind is not Kind.MODELS and self.kind is not Kind.OTHER


@dataclass(frozen=True, slots=True)
class Resources:
    """
    Of an API whose base URLs each name a resource of the caller's, which stands first in the path of a call to us.

    *setting*: what an SDK takes that base URL from. *root*: with what a path begins after its resource, in lower case.
    *parts*: how the API's own paths begin or go on; where one of these stands in place of a resource, and no *root*
    after it, the base URL named none.
    """

    setting: str
    root: str
    parts: frozenset[str]


@dataclass(frozen=True, slots=True)
class Dialect:
    """
    One AI API.

    *locate*: the endpoint for a method and a path (after the service's prefix, doubled slashes collapsed, without
    query), or None where the API's tables don't know it: such calls pass through untouched.

    *own_hosts*: the vendor's own hosts, each with all below it; only there *counting* is all that counts of the
    headers, and only there a token that was accepted proves something.

    *credentials*: the request headers that may carry a key, in the order in which the API itself reads them.
    *scopes*: headers that belong to who is asking (organisation, project). *counting*: other headers that change the
    answer and are part of the key. *ignored_query*: query members that don't count; *credential_query*: those that
    carry a credential (never in a key, a log or an entry). *knows_query*: these carry nothing else; where that is not
    known, a digest of each counts, too: to some service ``key`` is the key of a record.

    *error*: the body of an error answer in this API's own form, from status, code and message. *error_event*: the
    bytes of an error inside a stream, ``b""`` where the API has none. *misdirected*: for a call that was meant for
    another service, one sentence with the right base URL, else None. *one_credential_domain*: a key of this API works
    in each of its regions. *honours*: the service speaks HTTP as RFC 9111 has it: its answers mean what they say about
    caching, and its unsafe methods change what others fetch.

    *microsoft_tokens*: whoever speaks this API takes tokens that Microsoft issued; to others they never go.

    *root*: below which everything of the API lies, ``""`` where that is not so; *base*: what of it an SDK's base URL
    has, which is set by *setting*. *implied*: SDKs disagree about that, so the root may be missing in a call's path.
    *roots*: where there is no one *root*, those below which most of it lies, the
    longest first. *placed*: a call's target as the region with that URL knows it, None where all know the same.
    *words*: what is in the names of variables that hold this API's URL, where several APIs have the same hosts.
    *resources*: how base URLs name a resource, None where they name none. *request_id*: the answer's
    field in which an SDK looks for the call's id (lower case), ``b""`` for none.

    *document_paths*: shell patterns that match every path (after the service's prefix) whose calls take documents
    (``Kind.OCR``).
    """

    name: str
    locate: Callable[[bytes, str], Endpoint | None]
    error: Callable[[int, str, str], bytes]
    error_event: Callable[[str, str], bytes]
    misdirected: Callable[[Head, str, str], str | None]
    credentials: tuple[bytes, ...] = (b"authorization",)
    scopes: tuple[bytes, ...] = ()
    counting: tuple[bytes, ...] = ()
    ignored_query: frozenset[str] = frozenset()
    credential_query: frozenset[str] = frozenset()
    knows_query: bool = True
    one_credential_domain: bool = True
    own_hosts: tuple[str, ...] = ()
    honours: bool = False
    root: str = ""
    base: str = ""
    setting: str = ""
    implied: bool = False
    roots: tuple[str, ...] = ()
    resources: Resources | None = None
    microsoft_tokens: bool = False
    placed: Callable[[bytes, str], bytes] | None = None
    words: tuple[str, ...] = ()
    request_id: bytes = b""
    document_paths: tuple[str, ...] = ()

    def is_own(self, host: str) -> bool:
        """Whether *host*, in lower case, is one of the vendor's own."""
        return any(host == own or host.endswith(f".{own}") for own in self.own_hosts)
