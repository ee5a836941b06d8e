"""Watches: what is there, then every change, each once and in order."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from ._errors import make

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from ._native import Call, NativeWatch
    from ._port import AsyncPort
    from ._types import AgentEvent, ContextEvent

E = TypeVar("E", bound="ContextEvent | AgentEvent")

BATCH = 256
"""Events that cross the border at once."""


class AsyncWatch(Generic[E]):
    """A watch: an iterator over events, and a context manager that ends it.

    Opened when it is entered, or first read. It goes on by itself over broken connections. In another process, or later,
    a watch with ``after=revision`` goes on where this one was.
    """

    def __init__(
        self, port: AsyncPort, start: Callable[[], Call[NativeWatch[E]]], after: int | None
    ) -> None:
        self._port = port
        self._start = start
        self._native: NativeWatch[E] | None = None
        self._here: deque[E] = deque()
        self._revision = after or 0
        self._over = False

    async def open(self) -> Self:
        """Opens it, when it is not open: errors of what is watched, and a ``revision_gap``, come from here."""
        if self._over:
            raise make("stream_closed", "the watch is over", "watch.open")
        if self._native is None:
            self._native = await self._port.run(self._start())
        return self

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        event = await self.next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def next(self, *, timeout: float | None = None) -> E | None:
        """The next event; ``None`` when the watch is over. Giving this up, by a timeout or by cancelling, loses no event.

        Raises ``revision_gap`` when the client was away for longer than changes are kept: the watch is over then.
        """
        while not self._here:
            if self._over:
                return None
            native = self._native or (await self.open())._native
            if native is None:
                return None
            batch = native.take(BATCH)
            if batch is None:
                self._over = True
            elif batch:
                self._here.extend(batch)
            else:
                await self._port.run(native.ready(timeout))
        return self._give()

    def next_here(self) -> E | None:
        """The next event if one is here already. Never waits."""
        if not self._here and self._native is not None and not self._over:
            self._here.extend(self._native.take(BATCH) or ())
        return self._give() if self._here else None

    def _give(self) -> E:
        event = self._here.popleft()
        self._revision = event.revision
        return event

    @property
    def revision(self) -> int:
        """The revision up to which everything was given out; 0 before the state is complete. ``after=`` takes it."""
        return self._revision

    async def close(self) -> None:
        """Ends it. May be called twice."""
        native, self._native, self._over = self._native, None, True
        self._here.clear()
        if native is not None:
            native.close()
