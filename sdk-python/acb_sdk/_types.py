"""Values: what calls give, and what they may be given. Frozen; times are ``datetime`` in UTC, spans are seconds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeAlias, TypeVar

from ._errors import AcbError, make
from ._value import Value

if TYPE_CHECKING:
    from collections.abc import Awaitable

T_co = TypeVar("T_co", covariant=True)

Durability: TypeAlias = Literal["memory", "written", "synced", "replicated"]
"""How much a message must survive before it is acknowledged."""
Priority: TypeAlias = Literal["critical", "high", "normal", "low"]
MessageKind: TypeAlias = Literal["message", "request", "reply", "event", "signal"]
AgentStatus: TypeAlias = Literal["online", "offline", "unknown"]
AgentPresence: TypeAlias = Literal["active", "suspect", "offline", "unknown", "expired"]
"""How surely an agent is there: ``suspect`` until 30 s after it was heard of last, ``expired`` after a day."""
AgentActivity: TypeAlias = Literal["idle", "busy", "waiting", "blocked"]
ContextScope: TypeAlias = Literal["private", "shared", "group", "public"]
"""Who may see a context: its owner, agents by name, members of groups, all agents of the tenant."""
ContextAccess: TypeAlias = Literal["read", "write"]
DeadLetterPolicy: TypeAlias = Literal["keep", "drop"]
DeliveryState: TypeAlias = Literal["waiting", "leased", "acked", "dead", "expired", "unknown"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time_of(ms: int) -> datetime:
    """A point in time from milliseconds since 1970."""
    return _EPOCH + timedelta(milliseconds=ms)


def ms_of(at: datetime) -> int:
    """Milliseconds since 1970; a time without a zone is local."""
    return (at.astimezone(UTC) - _EPOCH) // timedelta(milliseconds=1)


class Page(Value, Generic[T_co]):
    """One page of a list."""

    items: list[T_co]
    next_token: str | None
    """Asks for the next page; ``None`` on the last."""


class Capability(Value, kw_only=False):
    """Something that an agent can do."""

    name: str
    """Dot tokens, such as ``code.review``."""
    version: str = ""
    """Semantic version."""
    input_schema: str = ""
    """JSON Schema of what it takes."""
    output_schema: str = ""
    """JSON Schema of what it gives."""


class Agent(Value):
    """An agent as the bus knows it."""

    id: str
    type: str
    name: str
    description: str
    version: str
    location: str
    capabilities: list[Capability]
    endpoint: str
    groups: list[str]
    metadata: Mapping[str, str]
    incarnation: int
    """Raised by each registration."""
    status: AgentStatus
    presence: AgentPresence
    activity: AgentActivity | None
    """What it said that it is doing; ``None`` when it says nothing, or its word was too old."""
    activity_until: datetime | None
    registered_at: datetime | None
    updated_at: datetime | None
    last_seen_at: datetime | None
    revision: int
    """The tenant's revision at which it last changed."""


class AgentEvent(Value):
    """What a watch of agents brings."""

    kind: Literal["state", "synced", "changed", "left", "presence", "restarted"]
    """``state``: an agent as it stands when the watch begins. ``synced``: that was all of them. ``changed``: one
    registered, or changed. ``left``: one unregistered, or matches no more. ``presence``: its presence or activity is
    another. ``restarted``: the state begins anew, forget what came."""
    agent_id: str | None
    agent: Agent | None
    """``None`` with ``left``, ``synced`` and ``restarted``."""
    revision: int
    """The revision that was reached with it; 0 before the state is complete."""


class Context(Value, hidden=("payload",)):
    """A context at one revision."""

    id: str
    """A UUIDv7."""
    key: str | None
    type: str
    scope: ContextScope
    groups: list[str]
    shares: Mapping[str, ContextAccess]
    content_type: str
    description: str
    labels: list[str]
    metadata: Mapping[str, str]
    ttl: float | None
    """Life that it was given, in seconds; ``None`` is for ever."""
    version: str
    """Semantic version."""
    owner: str
    rev: int
    """The tenant's revision of this change: what ``if_rev`` takes."""
    size: int
    sha256: str
    """Of the payload, in hex; empty for a marker."""
    streamed: bool
    """Whether the payload is too large for an answer, and comes by ``download``."""
    expires_at: datetime | None
    created_at: datetime | None
    updated_at: datetime | None
    updated_by: str
    deleted: bool
    """Whether this is a marker: the context is gone, and only id, key, type, revision and the last change are told."""
    payload: bytes
    """Empty where it was not asked for, or is streamed."""

    @property
    def text(self) -> str:
        """The payload as text. Raises ``invalid_utf8`` when it is none."""
        try:
            return self.payload.decode()
        except UnicodeDecodeError as error:
            raise make("invalid_utf8", f"the payload is no text: {error}", "context.text") from error

    def json(self) -> Any:
        """The payload read as JSON. Raises ``ValueError`` when it is none."""
        import json

        return json.loads(self.payload)


class SharedContext(Context):
    """What ``contexts.share`` made or found, without payload."""

    existed: bool
    """Whether an earlier attempt of the same call had made it."""


class UpdatedContext(Context):
    """A context as an update left it, without payload."""

    duplicate: bool
    """Whether an earlier attempt with the same idempotency key had made it."""


class ContextPage(Page[Context]):
    """One page of a list of contexts."""

    revision: int
    """The tenant's revision before the first page was read, the same on all pages: ``watch(after=…)`` brings what changed
    since."""


class ContextEvent(Value):
    """What a watch of contexts brings."""

    kind: Literal["state", "synced", "created", "updated", "deleted", "expired", "restarted"]
    """``state``: a context as it stands when the watch begins. ``synced``: that was all of them. ``created``: one was
    made, or came into sight. ``deleted``: one was deleted, or went out of sight. ``restarted``: the state begins anew,
    forget what came."""
    context: Context | None
    """A marker with ``deleted`` and ``expired``; ``None`` with ``synced`` and ``restarted``."""
    revision: int
    """The revision that was reached with it; 0 before the state is complete."""


class Progress(Value):
    """How far a transfer is."""

    done_bytes: int
    """Bytes that are settled: of an upload on the bus's stable storage, of a download written."""
    total_bytes: int | None
    """Size of the whole, where it is known."""
    moved_bytes: int
    """Bytes that this process has sent or received, those that were sent again included."""
    bytes_per_second: float
    """Over the last few seconds; 0 at first."""
    time_left: float | None
    """Seconds that are left at this rate; ``None`` while nobody knows."""


class Uploaded(Value):
    """An upload that became a context."""

    context_id: str
    rev: int
    version: str
    size: int
    sha256: str
    """Of the content, in hex."""
    sent_bytes: int
    """Bytes of chunks that this process sent, those that were sent again included."""
    connections: int
    """Connections that it took."""


class UploadStatus(Value):
    """How far an upload is, as the bus knows it."""

    state: Literal["open", "completing", "complete", "aborted", "expired"]
    received_bytes: int
    """Bytes on the bus's stable storage."""
    total_bytes: int | None
    """Size of the whole, where it is known."""
    context_id: str | None
    """The context that it became, when complete."""


class Downloaded(Value):
    """What was downloaded."""

    context_id: str
    rev: int
    """The revision whose content it is."""
    size: int
    """Of the whole content, in bytes."""
    sha256: str
    """Of the whole content, in hex."""
    received_bytes: int
    """Bytes that came in this process."""
    connections: int
    """Connections that it took."""


class ByteReader(Protocol):
    """A file object in binary mode, or an async one, that is read to its end: empty bytes."""

    def read(self, size: int, /) -> bytes | Awaitable[bytes]:
        """At most so many bytes; none at the end."""
        ...


class ByteWriter(Protocol):
    """A file object in binary mode, or an async one."""

    def write(self, data: bytes, /) -> int | Awaitable[int | None] | None:
        """Takes bytes, and says how many; ``None`` is all."""
        ...


class Group(Value):
    """A named set of agents, which admins keep. Contexts are shared with it."""

    name: str
    description: str
    members: int
    """How many agents are in it."""
    created_at: datetime | None
    created_by: str
    revision: int
    """The tenant's revision of its last change."""


class GroupMember(Value):
    """An agent in a group."""

    agent_id: str
    since: datetime | None


class SubscriptionInfo(Value):
    """A durable subscription with its counts."""

    name: str
    filters: list[str]
    ack_wait: float | None
    retry_schedule: list[float]
    max_attempts: int | None
    max_leased: int | None
    dead_letters_policy: DeadLetterPolicy
    created_at: datetime | None
    created_by: str
    floor_seq: int
    """Everything below this is settled."""
    cursor_seq: int
    """Next to be delivered for the first time."""
    next_seq: int
    """Next of the partition."""
    leased: int
    waiting_retry: int
    consumers: int
    dead_letters: int


class CreatedSubscription(Value):
    """What ``subscriptions.create`` gives."""

    subscription: SubscriptionInfo
    existed: bool
    """Whether it was there before."""


class DeadLetter(Value):
    """A message that a subscription gave up on."""

    id: str
    subscription: str
    message_id: str
    topic: str
    kind: MessageKind
    content_type: str
    correlation_id: str
    attributes: Mapping[str, str]
    payload: bytes | None
    """``None`` in lists; ``dead_letters.get`` has it."""
    payload_bytes: int
    from_agent: str
    reason: str
    """``attempts_exhausted``, ``terminated``, ``connection_lost`` or ``oversize``."""
    last_error: str
    attempts: int
    stored_at: datetime | None
    died_at: datetime | None


class SubscriptionStatus(Value):
    """Where a message stands for one subscription."""

    subscription: str
    state: DeliveryState
    attempts: int
    due_at: datetime | None
    dead_letter_id: str | None


class MessageStatus(Value):
    """Where a message stands."""

    id: str
    topic: str
    from_agent: str
    stored_at: datetime | None
    subscriptions: list[SubscriptionStatus]


class Health(Value):
    """How the server is."""

    serving: bool
    round_trip: float


class Identity(Value):
    """Whom tokens speak for."""

    agent_id: str
    tenant_id: str
    roles: list[str]
    access_expires_at: datetime | None
    refresh_expires_at: datetime | None


class Tokens(Value, hidden=("access_token", "refresh_token")):
    """A pair of tokens. They do not show in ``repr``."""

    access_token: str
    refresh_token: str
    """Works once."""
    identity: Identity


class Tenant(Value):
    """A wall that nothing crosses."""

    id: str
    name: str
    created_at: datetime | None


class EnrolmentKey(Value):
    """An enrolment key's facts, without the key."""

    id: str
    label: str
    agent_pattern: str
    roles: list[str]
    created_at: datetime | None
    expires_at: datetime | None
    revoked: bool


class CreatedKey(Value, hidden=("secret",)):
    """A key that was just made: shown this once."""

    secret: str
    key: EnrolmentKey


class ConnectionEvent(Value):
    """Something that happened to the connection."""

    name: str
    """``connected``, ``suspended``, ``resumed``, ``going_away``, ``slow_down``, ``gap``, ``settlement_refused``,
    ``fenced`` or ``closed``. The list grows."""
    detail: Mapping[str, str | int | float]
    error: AcbError | None
