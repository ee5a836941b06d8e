"""Sending: to an agent, to a topic, to all; requests; many messages of one shape; where a message stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._options import given
from ._payload import encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ._native import AsyncMessage, AsyncReceipt, NativeClient, NativePublisher, Published
    from ._payload import Payload
    from ._port import AsyncPort
    from ._types import Durability, MessageKind, MessageStatus, Priority


class AsyncPublisher:
    """Publishes many messages of one shape: everything but the payload is decided, checked and laid out once.

    ``publish`` queues a message and gives a receipt at once; it waits only while the client's window is full. Await the
    receipt to know that the message is stored, or ``messages.flush`` to know that all are answered.
    """

    def __init__(self, native: NativePublisher, port: AsyncPort) -> None:
        self._native = native
        self._port = port
        self._try = native.try_publish

    @property
    def topic(self) -> str:
        """Where it publishes to."""
        return self._native.topic

    async def publish(self, payload: Payload, *, timeout: float | None = None) -> AsyncReceipt:
        """Queues a message, waiting for room in the window. Messages are stored in the order in which they were queued."""
        body = payload if type(payload) is bytes else encode(payload)[0]
        # The native side gives receipts of its client's own face.
        receipt: AsyncReceipt | None = self._try(body)
        if receipt is None:
            later: AsyncReceipt = await self._port.run(self._native.publish(body, timeout))
            return later
        return receipt

    async def publish_many(self, payloads: Iterable[Payload], *, timeout: float | None = None) -> list[Published]:
        """Stores many messages in order, and gives what became of them. The first refusal is raised."""
        bodies = [p if type(p) is bytes else encode(p)[0] for p in payloads]
        return await self._port.run(self._native.publish_many(bodies, timeout))


class AsyncMessages:
    """Messages out."""

    def __init__(self, native: NativeClient, port: AsyncPort) -> None:
        self._native = native
        self._port = port

    async def publish(
        self,
        topic: str,
        payload: Payload = None,
        *,
        durability: Durability | None = None,
        attributes: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        priority: Priority | None = None,
        kind: MessageKind | None = None,
        ttl: float | None = None,
        order_key: str | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        content_type: str | None = None,
        trace: str | None = None,
        context_refs: Sequence[str] | None = None,
        expires_at_ms: int | None = None,
        timeout: float | None = None,
    ) -> Published:
        """Stores a message for every subscription that hears its topic: 1 to 32 dot tokens, no wildcards.

        ``durability`` is the level to wait for; by default the server's, ``synced``. A repeat with the same
        ``idempotency_key`` is answered like the first, with ``duplicate`` set. ``ttl`` is seconds.
        """
        body, media_type = encode(payload, content_type)
        options = given(
            durability=durability,
            attributes=dict(attributes) if attributes else None,
            idempotency_key=idempotency_key,
            priority=priority,
            kind=kind,
            ttl=ttl,
            order_key=order_key,
            correlation_id=correlation_id,
            reply_to=reply_to,
            content_type=media_type,
            trace=trace,
            context_refs=list(context_refs) if context_refs else None,
            expires_at_ms=expires_at_ms,
        )
        return await self._port.run(self._native.messages_put("publish", topic, body, options, timeout))

    async def send(
        self,
        agent_id: str,
        payload: Payload = None,
        *,
        durability: Durability | None = None,
        attributes: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        priority: Priority | None = None,
        kind: MessageKind | None = None,
        ttl: float | None = None,
        order_key: str | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        content_type: str | None = None,
        trace: str | None = None,
        context_refs: Sequence[str] | None = None,
        expires_at_ms: int | None = None,
        timeout: float | None = None,
    ) -> Published:
        """Stores a message in one agent's inbox, where it waits until it is acknowledged. Options as ``publish``."""
        body, media_type = encode(payload, content_type)
        options = given(
            durability=durability,
            attributes=dict(attributes) if attributes else None,
            idempotency_key=idempotency_key,
            priority=priority,
            kind=kind,
            ttl=ttl,
            order_key=order_key,
            correlation_id=correlation_id,
            reply_to=reply_to,
            content_type=media_type,
            trace=trace,
            context_refs=list(context_refs) if context_refs else None,
            expires_at_ms=expires_at_ms,
        )
        return await self._port.run(self._native.messages_put("send", agent_id, body, options, timeout))

    async def broadcast(
        self,
        payload: Payload = None,
        *,
        durability: Durability | None = None,
        attributes: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        priority: Priority | None = None,
        kind: MessageKind | None = None,
        ttl: float | None = None,
        order_key: str | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        content_type: str | None = None,
        trace: str | None = None,
        context_refs: Sequence[str] | None = None,
        expires_at_ms: int | None = None,
        timeout: float | None = None,
    ) -> Published:
        """Stores a message for every agent of the tenant. Options as ``publish``."""
        body, media_type = encode(payload, content_type)
        options = given(
            durability=durability,
            attributes=dict(attributes) if attributes else None,
            idempotency_key=idempotency_key,
            priority=priority,
            kind=kind,
            ttl=ttl,
            order_key=order_key,
            correlation_id=correlation_id,
            reply_to=reply_to,
            content_type=media_type,
            trace=trace,
            context_refs=list(context_refs) if context_refs else None,
            expires_at_ms=expires_at_ms,
        )
        return await self._port.run(self._native.messages_put("broadcast", "", body, options, timeout))

    async def request(
        self,
        agent_id: str | None = None,
        payload: Payload = None,
        *,
        topic: str | None = None,
        durability: Durability | None = None,
        attributes: Mapping[str, str] | None = None,
        priority: Priority | None = None,
        content_type: str | None = None,
        trace: str | None = None,
        timeout: float | None = None,
    ) -> AsyncMessage:
        """Asks one agent, or with ``topic`` whoever answers there first, and gives the reply, acknowledged already.

        Raises ``no_responders`` at once when nobody is there, and ``timeout`` (30 s by default) when no reply came: the
        deadline travels with the request, so that nobody works on one that is over. The client must have registered its
        agent.
        """
        body, media_type = encode(payload, content_type)
        options = given(
            durability=durability,
            attributes=dict(attributes) if attributes else None,
            priority=priority,
            content_type=media_type,
            trace=trace,
        )
        target = topic if topic is not None else agent_id or ""
        answer: AsyncMessage = await self._port.run(
            self._native.messages_request(topic is not None, target, body, options, timeout)
        )
        return answer

    async def reply(
        self,
        message: AsyncMessage,
        payload: Payload = None,
        *,
        content_type: str | None = None,
        attributes: Mapping[str, str] | None = None,
        durability: Durability | None = None,
        timeout: float | None = None,
    ) -> Published:
        """Answers a request. The same as ``message.reply``."""
        return await message.reply(
            payload, content_type=content_type, attributes=attributes, durability=durability, timeout=timeout
        )

    def publisher(
        self,
        topic: str | None = None,
        *,
        agent_id: str | None = None,
        durability: Durability | None = None,
        attributes: Mapping[str, str] | None = None,
        priority: Priority | None = None,
        kind: MessageKind | None = None,
        order_key: str | None = None,
        content_type: str | None = None,
    ) -> AsyncPublisher:
        """Prepares many messages to one topic, or to one agent's inbox."""
        options = given(
            durability=durability,
            attributes=dict(attributes) if attributes else None,
            priority=priority,
            kind=kind,
            order_key=order_key,
            content_type=content_type,
        )
        target = agent_id if agent_id is not None else topic or ""
        native = self._native.messages_publisher(agent_id is not None, target, options)
        return AsyncPublisher(native, self._port)

    async def status(self, message_id: str, *, timeout: float | None = None) -> MessageStatus:
        """Where a message stands for each subscription that was to get it. Raises ``message_not_found``."""
        return await self._port.run(self._native.messages_status(message_id, timeout))

    async def flush(self, *, timeout: float | None = None) -> None:
        """Waits until every publish so far is answered."""
        await self._port.run(self._native.messages_flush(timeout))

    @property
    def unacknowledged(self) -> int:
        """Publishes that are not answered yet."""
        return self._native.messages_unacknowledged()
