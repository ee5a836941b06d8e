"""Receiving: messages one by one, in batches, or by a handler."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from ._async_handlers import run_handlers
from ._errors import AcbError, make

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType
    from typing import Self

    from ._native import AsyncMessage, Feed, NativeClient
    from ._port import AsyncPort

# Messages and bytes that cross the border at once.
BATCH = 256
BATCH_BYTES = 4 << 20


class AsyncSubscription:
    """A subscription: an iterator over messages, and a context manager that leaves it in good order.

    Opened when it is entered, or first read. Leaving it sends what was settled; messages that are not settled go back to
    the bus at once, uncounted. So does whatever is here unread.
    """

    def __init__(
        self,
        native: NativeClient,
        port: AsyncPort,
        kind: str,
        names: Sequence[str],
        options: tuple[int | None, int | None, dict[str, object] | None, float | None],
    ) -> None:
        self._native = native
        self._port = port
        self._kind = kind
        self._names = list(names)
        self._options = options
        self._feed: Feed | None = None
        self._here: deque[AsyncMessage] = deque()
        self._over = False

    async def open(self) -> Self:
        """Opens it, when it is not open: errors of its definition or of its name come from here."""
        if self._feed is None:
            self._here.clear()
            self._feed = await self._port.run(self._native.subscribe(self._kind, self._names, *self._options))
            self._over = False
        return self

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AsyncMessage:
        if self._here:
            return self._here.popleft()
        message = await self.next()
        if message is None:
            raise StopAsyncIteration
        return message

    async def next(self, *, timeout: float | None = None) -> AsyncMessage | None:
        """The next message; ``None`` when the subscription is over.

        An error that has a ``gap`` is one of this call alone: the subscription goes on after it. Giving this up, by a
        timeout or by cancelling, loses no message.
        """
        if not self._here:
            self._here.extend(await self._batch(BATCH, timeout))
        return self._here.popleft() if self._here else None

    def next_here(self) -> AsyncMessage | None:
        """The next message if one is here already. Never waits."""
        if not self._here and self._feed is not None:
            self._here.extend(self._feed.take(BATCH, BATCH_BYTES) or ())
        return self._here.popleft() if self._here else None

    async def next_batch(self, max_messages: int = BATCH, *, timeout: float | None = None) -> list[AsyncMessage]:
        """Waits for a message, then gives up to so many that are here. Empty when the subscription is over."""
        if self._here:
            return [self._here.popleft() for _ in range(min(max_messages, len(self._here)))]
        return await self._batch(max_messages, timeout)

    async def _batch(self, most: int, timeout: float | None) -> list[AsyncMessage]:
        if self._over:
            return []
        feed = self._feed or (await self.open())._feed
        while feed is not None and feed is self._feed:
            batch = feed.take(most, BATCH_BYTES)
            if batch:
                return batch
            if batch is None:
                break
            await self._port.run(feed.ready(timeout))
        self._over = True
        return []

    async def for_each(
        self, handler: Callable[[AsyncMessage], Awaitable[Any]], *, concurrency: int = 1
    ) -> None:
        """Handles messages, at most ``concurrency`` at once, until the subscription is over.

        A message is acknowledged when its handler returns, and given back with the exception as its reason when it
        raises, unless the handler settled it. Leases are renewed while handlers run and while messages wait here for
        their turn. Handlers that run when the client drains are finished first.
        """
        await run_handlers(await self.open(), handler, concurrency)

    @property
    def name(self) -> str:
        """Its name; empty for one of filters."""
        return self._opened().name

    @property
    def ack_wait(self) -> float:
        """How long a consumer has for one message, in seconds."""
        return self._opened().ack_wait or 0.0

    def set_max_pending(self, messages: int, max_bytes: int = 8 << 20) -> None:
        """Changes how much may be here at once, unacknowledged."""
        self._opened().set_credits(messages, max_bytes)

    def keep_leases(self) -> None:
        """Renews the leases of messages that wait here, from now on: for those who handle them by themselves."""
        self._opened().keep_leases()

    def _opened(self) -> Feed:
        if self._feed is None:
            raise make("invalid_state", "the subscription is not open", "subscription")
        return self._feed

    async def close(self) -> None:
        """Leaves. May be called twice."""
        feed, self._feed, self._over = self._feed, None, True
        self._here.clear()
        if feed is not None:
            feed.close()


__all__ = ["AcbError", "AsyncSubscription"]
