"""The client: a connection to a bus, as one agent, that comes back by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _native
from ._async_contexts import AsyncContexts
from ._async_messages import AsyncMessages
from ._async_nouns import (
    AsyncAdmin,
    AsyncAgents,
    AsyncAuth,
    AsyncDeadLetters,
    AsyncEvents,
    AsyncSubscriptions,
    definition,
)
from ._async_serve import serve_requests
from ._async_subscription import AsyncSubscription
from ._errors import make
from ._options import Options
from ._port import AsyncPort

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime
    from types import TracebackType
    from typing import Self

    from ._native import AsyncMessage, NativeClient, NativeNetwork
    from ._options import Credentials
    from ._types import DeadLetterPolicy, Health, Identity


class AsyncClient:
    """A connection to a bus at ``acb://host:port`` (plain) or ``acbs://host:port`` (TLS 1.3).

    One client per process and agent is enough: all of its calls, publishes and subscriptions share one connection that
    comes back by itself. Enter it, or call ``connect``; leaving it drains, or closes when an exception is on its way.

    A client belongs to the process and, an async one, to the event loop in which it was connected.
    """

    def __init__(
        self,
        endpoint: str = "acb://127.0.0.1:7400",
        *,
        credentials: Credentials | None = None,
        options: Options | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._credentials = credentials
        self._options = options or Options()
        self._held: tuple[NativeClient, AsyncPort] | None = None
        self._closed = False
        self._network: NativeNetwork | None = None

    async def connect(self) -> Self:
        """Connects and logs in, when it is not connected. Raises ``invalid_credentials``, ``unavailable``."""
        if self._held is None:
            if self._closed:
                raise make("client_closed", "the client was closed", "connect")
            port = AsyncPort()
            parts = list(self._credentials.parts) if self._credentials is not None else []
            try:
                connect = _native.connect if self._network is None else self._network.connect
                native = await port.run(connect(self._endpoint, parts, self._options.to_native(), port.runner()))
            except BaseException:
                port.close()
                raise
            self._held = (native, port)
        return self

    async def __aenter__(self) -> Self:
        return await self.connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.drain()
        else:
            await self.close()

    def __repr__(self) -> str:
        who = self._credentials.shown if self._credentials is not None else "nobody"
        state = "closed" if self._closed else "connected" if self._held is not None else "not connected"
        return f"<{type(self).__name__} {self._endpoint} as {who}, {state}>"

    def _come_by(self, network: NativeNetwork) -> None:
        """Connects by a way of a fake bus."""
        self._network = network

    def _give_up(self) -> tuple[NativeClient, AsyncPort] | None:
        """Is closed by a fake bus that ends, which may be outside of the client's loop: closing is the bus's affair."""
        held, self._held, self._closed = self._held, None, True
        return held

    def _native_and_port(self) -> tuple[NativeClient, AsyncPort]:
        if self._held is None:
            code = "client_closed" if self._closed else "invalid_state"
            text = "the client was closed" if self._closed else "the client is not connected"
            raise make(code, text, "client")
        return self._held

    @property
    def agents(self) -> AsyncAgents:
        """Agents: who is on the bus, and what they can do."""
        return AsyncAgents(*self._native_and_port())

    @property
    def messages(self) -> AsyncMessages:
        """Messages out: send, publish, broadcast, request."""
        return AsyncMessages(*self._native_and_port())

    @property
    def contexts(self) -> AsyncContexts:
        """Contexts: what agents share, versioned and governed, of any size."""
        return AsyncContexts(*self._native_and_port())

    @property
    def subscriptions(self) -> AsyncSubscriptions:
        """Durable subscriptions: create, get, list, delete."""
        return AsyncSubscriptions(*self._native_and_port())

    @property
    def dead_letters(self) -> AsyncDeadLetters:
        """Dead letters: list, get, redrive, discard."""
        return AsyncDeadLetters(*self._native_and_port())

    @property
    def auth(self) -> AsyncAuth:
        """The client's own tokens."""
        return AsyncAuth(*self._native_and_port())

    @property
    def admin(self) -> AsyncAdmin:
        """Tenants, keys and secrets; for admins."""
        return AsyncAdmin(*self._native_and_port())

    def subscribe(
        self,
        name: str,
        *,
        max_pending: int | None = None,
        max_pending_bytes: int | None = None,
        timeout: float | None = None,
    ) -> AsyncSubscription:
        """Receives from a durable subscription. Several consumers of one name share it.

        ``max_pending`` messages (64 by default) may be here at once, unacknowledged.
        """
        options = (max_pending, max_pending_bytes, None, timeout)
        return AsyncSubscription(*self._native_and_port(), "durable", [name], options)

    def inbox(
        self,
        *,
        max_pending: int | None = None,
        max_pending_bytes: int | None = None,
        timeout: float | None = None,
    ) -> AsyncSubscription:
        """Receives what is sent to this client's agent, and broadcasts."""
        options = (max_pending, max_pending_bytes, None, timeout)
        return AsyncSubscription(*self._native_and_port(), "inbox", [], options)

    def listen(
        self,
        *filters: str,
        ack_wait: float | None = None,
        retry_schedule: Sequence[float] | None = None,
        max_attempts: int | None = None,
        dead_letters: DeadLetterPolicy | None = None,
        max_leased: int | None = None,
        start: str | int | datetime | None = None,
        max_pending: int | None = None,
        max_pending_bytes: int | None = None,
        timeout: float | None = None,
    ) -> AsyncSubscription:
        """Receives messages of topics as long as the subscription lives (and 10 s after a lost connection)."""
        rules = definition(ack_wait, retry_schedule, max_attempts, dead_letters, max_leased, start)
        options = (max_pending, max_pending_bytes, rules or None, timeout)
        return AsyncSubscription(*self._native_and_port(), "ephemeral", filters, options)

    async def serve(
        self,
        handler: Callable[[AsyncMessage], Awaitable[Any] | Any],
        *,
        subscription: str | None = None,
        topics: Sequence[str] | None = None,
        concurrency: int = 16,
        max_pending: int | None = None,
    ) -> None:
        """Answers requests until the client drains: of the agent's inbox, of a durable subscription, or of topics.

        What the handler returns is the reply (bytes, text, or a mapping as JSON), sent before the request is
        acknowledged. An exception gives the request back with its text as the reason. Messages that want no reply are
        handled too. Leases are renewed while handlers run.
        """
        if subscription is not None:
            source = self.subscribe(subscription, max_pending=max_pending)
        elif topics is not None:
            source = self.listen(*topics, max_pending=max_pending)
        else:
            source = self.inbox(max_pending=max_pending)
        async with source:
            await serve_requests(source, handler, concurrency)

    def events(self) -> AsyncEvents:
        """What happens to the connection from now on."""
        native, port = self._native_and_port()
        return AsyncEvents(port, native.events())

    @property
    def agent_id(self) -> str | None:
        """Id of the agent that this client speaks for, when its credentials name one."""
        return self._native_and_port()[0].agent_id()

    @property
    def identity(self) -> Identity | None:
        """Whom the tokens speak for; ``None`` without tokens."""
        return self._native_and_port()[0].identity()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now. Calls wait for one in any case."""
        return self._held is not None and self._held[0].is_connected()

    async def health(self, *, timeout: float | None = None) -> Health:
        """Asks the server how it is."""
        native, port = self._native_and_port()
        return await port.run(native.health(timeout))

    def stats(self) -> dict[str, int]:
        """Counts of what crossed the border, for those who watch it: wakes, drains, completions, work on its way."""
        return self._native_and_port()[1].stats()

    async def drain(self, *, timeout: float | None = None) -> None:
        """Finishes what is in hand, then closes: subscriptions end, running handlers finish, publishes are flushed, acks
        are sent. May be called twice."""
        if self._held is None:
            self._closed = True
            return
        native, port = self._held
        try:
            await port.run(native.drain(timeout))
        finally:
            await self.close()

    async def close(self) -> None:
        """Stops now: what is unacknowledged is answered with ``client_closed``. May be called twice."""
        held, self._held, self._closed = self._held, None, True
        if held is None:
            return
        native, port = held
        try:
            await port.run(native.close())
        finally:
            port.close()
