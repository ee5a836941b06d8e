"""The client core. Compared with the module by a test (mypy's stubtest)."""

from asyncio import Future
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar, final

from ._payload import Payload
from ._types import (
    Agent,
    AgentEvent,
    ConnectionEvent,
    Context,
    ContextEvent,
    ContextPage,
    CreatedKey,
    CreatedSubscription,
    DeadLetter,
    Downloaded,
    Durability,
    EnrolmentKey,
    Group,
    GroupMember,
    Health,
    Identity,
    MessageKind,
    MessageStatus,
    Page,
    Priority,
    Progress,
    SharedContext,
    SubscriptionInfo,
    Tenant,
    Tokens,
    UpdatedContext,
    Uploaded,
)

VERSION: str

T_co = TypeVar("T_co", covariant=True)

@final
class Call(Generic[T_co]):
    """Work that was not started yet."""

    def wait(self) -> T_co: ...
    def __await__(self) -> Generator[Any, Any, T_co]: ...

@final
class Bridge:
    """Between the kit's queue and an event loop."""

    def __new__(cls) -> Bridge: ...
    def fileno(self) -> int: ...
    def start(
        self, call: Call[T_co], create_future: Callable[[], Future[Any]]
    ) -> tuple[T_co | Future[T_co], int | None]: ...
    def cancel(self, token: int) -> None: ...
    def drain(self) -> None: ...
    def close(self) -> None: ...
    def stats(self) -> dict[str, int]: ...

@final
class Published:
    """A message that is stored."""

    @property
    def id(self) -> str | None:
        """Its id, which is its position; ``None`` when it repeats one so old that its position is forgotten."""
    @property
    def seq(self) -> int:
        """Number within its partition."""
    @property
    def epoch(self) -> int:
        """Epoch of its partition."""
    @property
    def durability(self) -> Durability:
        """The level that was reached."""
    @property
    def duplicate(self) -> bool:
        """Whether it had been stored before."""
    def __eq__(self, other: object, /) -> bool: ...

class MessageBase:
    """A message as it was delivered. Reading it copies only what is read."""

    @property
    def id(self) -> str:
        """Its id, which is its position."""
    @property
    def seq(self) -> int:
        """Number within its partition."""
    @property
    def epoch(self) -> int: ...
    @property
    def topic(self) -> str:
        """Where it was sent to."""
    @property
    def payload(self) -> bytes:
        """The content."""
    @property
    def text(self) -> str:
        """The content as text. Raises ``invalid_utf8`` when it is none."""
    def json(self) -> Any:
        """The content read as JSON."""
    @property
    def payload_bytes(self) -> int: ...
    @property
    def kind(self) -> MessageKind: ...
    @property
    def priority(self) -> Priority: ...
    @property
    def correlation_id(self) -> str | None: ...
    @property
    def reply_to(self) -> str | None:
        """Topic that wants the reply."""
    @property
    def idempotency_key(self) -> str | None: ...
    @property
    def order_key(self) -> str | None: ...
    @property
    def content_type(self) -> str | None: ...
    @property
    def trace(self) -> str | None:
        """W3C trace context."""
    @property
    def original_topic(self) -> str | None:
        """The topic it was first published to, on a redriven dead letter."""
    @property
    def context_refs(self) -> list[str]: ...
    @property
    def attributes(self) -> dict[str, str]: ...
    @property
    def from_agent(self) -> str:
        """Agent that sent it. The bus knows it; a sender cannot forge it."""
    @property
    def from_incarnation(self) -> int: ...
    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
    @property
    def redelivered(self) -> bool: ...
    @property
    def stored_at(self) -> datetime | None: ...
    @property
    def expires_at(self) -> datetime | None: ...
    @property
    def is_request(self) -> bool: ...
    @property
    def is_late(self) -> bool:
        """Whether it is a reply that came when nobody waited for it any more."""
    @property
    def ack_wait(self) -> float: ...
    def keep_lease(self) -> KeptLease:
        """Renews its lease until it is settled or the guard is let go."""

@final
class AsyncMessage(MessageBase):
    """A message of an async client.

    ``ack``, ``nack``, ``term``, ``release`` and ``progress`` are queued at the call and sent together with others; awaiting
    them costs nothing and is only for style.
    """

    def ack(self) -> Awaitable[None]:
        """Says that it is done. Raises ``lease_lost``."""
    def nack(self, reason: str, *, delay: float | None = None) -> Awaitable[None]:
        """Says that it failed: it comes again after ``delay`` seconds, or by the subscription's schedule."""
    def term(self, reason: str) -> Awaitable[None]:
        """Says that it must not be tried again: it becomes a dead letter now."""
    def release(self) -> Awaitable[None]:
        """Gives it back untouched, which does not count as an attempt."""
    def progress(self) -> Awaitable[None]:
        """Says that work goes on: the lease starts anew."""
    def ack_confirmed(self, *, timeout: float | None = None) -> Awaitable[None]:
        """Says that it is done, and waits until that is on disk."""
    def reply(
        self,
        payload: Payload,
        *,
        content_type: str | None = None,
        attributes: Mapping[str, str] | None = None,
        durability: Durability | None = None,
        timeout: float | None = None,
    ) -> Awaitable[Published]:
        """Answers it. Raises ``missing_field`` when it wants no reply."""

@final
class Message(MessageBase):
    """A message of a sync client. Settling is queued at the call and sent together with others."""

    def ack(self) -> None:
        """Says that it is done. Raises ``lease_lost``."""
    def nack(self, reason: str, *, delay: float | None = None) -> None:
        """Says that it failed: it comes again after ``delay`` seconds, or by the subscription's schedule."""
    def term(self, reason: str) -> None:
        """Says that it must not be tried again: it becomes a dead letter now."""
    def release(self) -> None:
        """Gives it back untouched, which does not count as an attempt."""
    def progress(self) -> None:
        """Says that work goes on: the lease starts anew."""
    def ack_confirmed(self, *, timeout: float | None = None) -> None:
        """Says that it is done, and waits until that is on disk."""
    def reply(
        self,
        payload: Payload,
        *,
        content_type: str | None = None,
        attributes: Mapping[str, str] | None = None,
        durability: Durability | None = None,
        timeout: float | None = None,
    ) -> Published:
        """Answers it. Raises ``missing_field`` when it wants no reply."""

@final
class KeptLease:
    """A lease that is renewed until it is let go."""

    @property
    def kept(self) -> bool:
        """Whether it is still kept: the message was neither settled nor lost."""
    def let_go(self) -> None:
        """Lets it run out."""

class ReceiptBase:
    """The promise of an acknowledgement. Dropping it changes nothing about the message."""

    @property
    def done(self) -> bool:
        """Whether the answer is there."""

@final
class AsyncReceipt(ReceiptBase):
    """The promise of an acknowledgement. Await it, or its ``result`` with a timeout."""

    def result(self, *, timeout: float | None = None) -> Awaitable[Published]:
        """Waits for the answer: the message's place, or the error."""
    def __await__(self) -> Generator[Any, Any, Published]: ...

@final
class Receipt(ReceiptBase):
    """The promise of an acknowledgement."""

    def result(self, *, timeout: float | None = None) -> Published:
        """Waits for the answer: the message's place, or the error."""

@final
class NativePublisher:
    @property
    def topic(self) -> str: ...
    def try_publish(self, payload: bytes) -> Any: ...
    def publish(self, payload: bytes, seconds: float | None) -> Call[Any]: ...
    def publish_many(self, given: list[bytes], seconds: float | None) -> Call[list[Published]]: ...

@final
class Feed:
    @property
    def name(self) -> str: ...
    @property
    def ack_wait(self) -> float | None: ...
    def take(self, max: int, bytes_max: int) -> list[Any] | None: ...
    def ready(self, seconds: float | None) -> Call[None]: ...
    def set_credits(self, messages: int, bytes: int) -> None: ...
    def keep_leases(self) -> None: ...
    def close(self) -> None: ...

class NativeWatch(Protocol[T_co]):
    """A watch of either kind. Of the stub alone."""

    def take(self, max: int) -> Sequence[T_co] | None: ...
    def ready(self, seconds: float | None) -> Call[None]: ...
    def close(self) -> None: ...

@final
class NativeContextWatch:
    def take(self, max: int) -> list[ContextEvent] | None: ...
    def ready(self, seconds: float | None) -> Call[None]: ...
    def close(self) -> None: ...

@final
class NativeAgentWatch:
    def take(self, max: int) -> list[AgentEvent] | None: ...
    def ready(self, seconds: float | None) -> Call[None]: ...
    def close(self) -> None: ...

@final
class NativeTransfer(Generic[T_co]):
    def news(self) -> Call[None]: ...
    def over(self) -> Call[None]: ...
    def progress(self) -> Progress | None: ...
    def outcome(self) -> T_co | None: ...
    def write(self, piece: bytes) -> Call[bool]: ...
    def end(self) -> None: ...
    def read(self) -> Call[bytes]: ...
    def close(self) -> None: ...

@final
class NativeEvents:
    def next(self, seconds: float | None) -> Call[ConnectionEvent | None]: ...

@final
class NativeClient:
    def is_connected(self) -> bool: ...
    def agent_id(self) -> str | None: ...
    def identity(self) -> Identity | None: ...
    def health(self, seconds: float | None) -> Call[Health]: ...
    def drain(self, seconds: float | None) -> Call[None]: ...
    def close(self) -> Call[None]: ...
    def events(self) -> NativeEvents: ...
    def subscribe(
        self,
        kind: str,
        names: list[str],
        max_pending: int | None,
        max_pending_bytes: int | None,
        given: dict[str, object] | None,
        seconds: float | None,
    ) -> Call[Feed]: ...
    def agents_register(self, id: str, fields: dict[str, object], seconds: float | None) -> Call[Agent]: ...
    def agents_update(self, id: str, fields: dict[str, object], seconds: float | None) -> Call[Agent]: ...
    def agents_get(self, id: str, seconds: float | None) -> Call[Agent]: ...
    def agents_unregister(self, id: str, keep_inbox: bool, seconds: float | None) -> Call[None]: ...
    def agents_heartbeat(self, seconds: float | None) -> Call[float]: ...
    def agents_page(
        self, query: dict[str, object], size: int, token: str, seconds: float | None
    ) -> Call[Page[Agent]]: ...
    def agents_watch(self, query: dict[str, object], seconds: float | None) -> Call[NativeAgentWatch]: ...
    def agents_set_activity(
        self, fields: dict[str, object], ttl: float | None, seconds: float | None
    ) -> Call[None]: ...
    def contexts_share(
        self, key: str, payload: bytes, fields: dict[str, object], seconds: float | None
    ) -> Call[SharedContext]: ...
    def contexts_get(
        self, which: str, at_rev: int | None, payload: bool, seconds: float | None
    ) -> Call[Context]: ...
    def contexts_update(
        self, id: str, payload: bytes | None, fields: dict[str, object], seconds: float | None
    ) -> Call[UpdatedContext]: ...
    def contexts_delete(
        self, id: str, if_rev: int | None, force: bool, seconds: float | None
    ) -> Call[int | None]: ...
    def contexts_renew(self, id: str, ttl: float | None, seconds: float | None) -> Call[datetime | None]: ...
    def contexts_page(
        self, query: dict[str, object], size: int, token: str, seconds: float | None
    ) -> Call[ContextPage]: ...
    def contexts_history(self, id: str, seconds: float | None) -> Call[list[Context]]: ...
    def contexts_watch(self, query: dict[str, object], seconds: float | None) -> Call[NativeContextWatch]: ...
    def contexts_upload(
        self,
        path: str | None,
        content: bytes | None,
        options: dict[str, object],
        tell: bool,
        seconds: float | None,
    ) -> NativeTransfer[Uploaded]: ...
    def contexts_download(
        self, which: str, path: str | None, options: dict[str, object], tell: bool, seconds: float | None
    ) -> NativeTransfer[Downloaded]: ...
    def subscriptions_create(
        self, name: str, filters: list[str], given: dict[str, object], seconds: float | None
    ) -> Call[CreatedSubscription]: ...
    def subscriptions_get(self, name: str, seconds: float | None) -> Call[SubscriptionInfo]: ...
    def subscriptions_page(self, size: int, token: str, seconds: float | None) -> Call[Page[SubscriptionInfo]]: ...
    def subscriptions_delete(self, name: str, seconds: float | None) -> Call[None]: ...
    def dead_letters_page(
        self, subscription: str, size: int, token: str, seconds: float | None
    ) -> Call[Page[DeadLetter]]: ...
    def dead_letters_get(self, id: str, seconds: float | None) -> Call[DeadLetter]: ...
    def dead_letters_redrive(self, id: str, payload: bytes | None, seconds: float | None) -> Call[str]: ...
    def dead_letters_discard(self, id: str, seconds: float | None) -> Call[None]: ...
    def auth_tokens(self) -> Tokens | None: ...
    def auth_refresh(self, seconds: float | None) -> Call[Identity]: ...
    def auth_logout(self, seconds: float | None) -> Call[None]: ...
    def auth_jwks(self, seconds: float | None) -> Call[str]: ...
    def admin_create_tenant(self, id: str, name: str, seconds: float | None) -> Call[Tenant]: ...
    def admin_tenants(self, seconds: float | None) -> Call[list[Tenant]]: ...
    def admin_create_enrolment_key(
        self, label: str, given: dict[str, object], seconds: float | None
    ) -> Call[CreatedKey]: ...
    def admin_enrolment_keys(self, seconds: float | None) -> Call[list[EnrolmentKey]]: ...
    def admin_revoke_enrolment_key(self, id: str, seconds: float | None) -> Call[None]: ...
    def admin_set_agent_secret(self, agent: str, roles: list[str], seconds: float | None) -> Call[str]: ...
    def admin_rotate_signing_key(self, seconds: float | None) -> Call[str]: ...
    def admin_create_group(self, name: str, description: str, seconds: float | None) -> Call[Group]: ...
    def admin_delete_group(self, name: str, seconds: float | None) -> Call[None]: ...
    def admin_groups(self, seconds: float | None) -> Call[list[Group]]: ...
    def admin_add_group_members(self, name: str, agents: list[str], seconds: float | None) -> Call[Group]: ...
    def admin_remove_group_members(
        self, name: str, agents: list[str], seconds: float | None
    ) -> Call[Group]: ...
    def admin_group_members(self, name: str, seconds: float | None) -> Call[list[GroupMember]]: ...
    def messages_put(
        self, way: str, target: str, payload: bytes, given: dict[str, object] | None, seconds: float | None
    ) -> Call[Published]: ...
    def messages_request(
        self, to_topic: bool, target: str, payload: bytes, given: dict[str, object] | None, seconds: float | None
    ) -> Call[Any]: ...
    def messages_status(self, id: str, seconds: float | None) -> Call[MessageStatus]: ...
    def messages_flush(self, seconds: float | None) -> Call[None]: ...
    def messages_unacknowledged(self) -> int: ...
    def messages_publisher(
        self, to_agent: bool, target: str, given: dict[str, object] | None
    ) -> NativePublisher: ...

def connect(
    endpoint: str, given: list[str], options: dict[str, object], runner: object | None
) -> Call[NativeClient]: ...
def drain_logs() -> tuple[list[tuple[int, str, str]], int]: ...
def set_log_level(level: int) -> None: ...
def shutdown(within: float) -> None: ...
def random_key() -> str: ...
