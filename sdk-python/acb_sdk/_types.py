"""Values: what calls give, and what they may be given. Frozen; times are ``datetime`` in UTC, spans are seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Generic, Literal, TypeAlias, TypeVar

from ._errors import AcbError

T_co = TypeVar("T_co", covariant=True)

Durability: TypeAlias = Literal["memory", "written", "synced", "replicated"]
"""How much a message must survive before it is acknowledged."""
Priority: TypeAlias = Literal["critical", "high", "normal", "low"]
MessageKind: TypeAlias = Literal["message", "request", "reply", "event", "signal"]
AgentStatus: TypeAlias = Literal["online", "offline", "unknown"]
DeadLetterPolicy: TypeAlias = Literal["keep", "drop"]
DeliveryState: TypeAlias = Literal["waiting", "leased", "acked", "dead", "expired", "unknown"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time_of(ms: int) -> datetime:
    """A point in time from milliseconds since 1970."""
    return _EPOCH + timedelta(milliseconds=ms)


def ms_of(at: datetime) -> int:
    """Milliseconds since 1970; a time without a zone is local."""
    return (at.astimezone(UTC) - _EPOCH) // timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T_co]):
    """One page of a list."""

    items: list[T_co]
    next_token: str | None
    """Asks for the next page; ``None`` on the last."""


@dataclass(frozen=True, slots=True)
class Capability:
    """Something that an agent can do."""

    name: str
    """Dot tokens, such as ``code.review``."""
    version: str = ""
    """Semantic version."""
    input_schema: str = ""
    """JSON Schema of what it takes."""
    output_schema: str = ""
    """JSON Schema of what it gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
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
    registered_at: datetime | None
    updated_at: datetime | None
    last_seen_at: datetime | None
    revision: int
    """The tenant's revision at which it last changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionInfo:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedSubscription:
    """What ``subscriptions.create`` gives."""

    subscription: SubscriptionInfo
    existed: bool
    """Whether it was there before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionStatus:
    """Where a message stands for one subscription."""

    subscription: str
    state: DeliveryState
    attempts: int
    due_at: datetime | None
    dead_letter_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageStatus:
    """Where a message stands."""

    id: str
    topic: str
    from_agent: str
    stored_at: datetime | None
    subscriptions: list[SubscriptionStatus]


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How the server is."""

    serving: bool
    round_trip: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whom tokens speak for."""

    agent_id: str
    tenant_id: str
    roles: list[str]
    access_expires_at: datetime | None
    refresh_expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """A pair of tokens. They do not show in ``repr``."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    """Works once."""
    identity: Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A wall that nothing crosses."""

    id: str
    name: str
    created_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentKey:
    """An enrolment key's facts, without the key."""

    id: str
    label: str
    agent_pattern: str
    roles: list[str]
    created_at: datetime | None
    expires_at: datetime | None
    revoked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedKey:
    """A key that was just made: shown this once."""

    secret: str = field(repr=False)
    key: EnrolmentKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionEvent:
    """Something that happened to the connection."""

    name: str
    """``connected``, ``suspended``, ``resumed``, ``going_away``, ``slow_down``, ``gap``, ``settlement_refused``,
    ``fenced`` or ``closed``. The list grows."""
    detail: Mapping[str, str | int | float]
    error: AcbError | None
