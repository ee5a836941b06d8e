"""How a face waits: an event loop for the async one, the calling thread for the sync one. Everything else is the same."""

from __future__ import annotations

import atexit
import weakref
from typing import TYPE_CHECKING, TypeVar, cast

from . import _logging, _native
from ._errors import make

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

_SHUTDOWN_WITHIN = 2.0
# Before the interpreter goes: the core's threads end, and nothing of ours runs any more.
atexit.register(_native.shutdown, _SHUTDOWN_WITHIN)


class _Shared:
    """The one bridge of an event loop, and how many clients use it."""

    __slots__ = ("__weakref__", "bridge", "users")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.bridge = _native.Bridge()
        self.users = 0
        loop.add_reader(self.bridge.fileno(), self.bridge.drain)


_bridges: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Shared] = weakref.WeakKeyDictionary()


class AsyncPort:
    """Waits in the event loop in which it was made: one descriptor a loop, one drain a wake."""

    __slots__ = ("_bridge", "_create_future", "_loop", "_open", "_running")

    def __init__(self) -> None:
        import asyncio

        self._running = asyncio.get_running_loop
        self._loop = self._running()
        self._create_future = self._loop.create_future
        shared = _bridges.get(self._loop)
        if shared is None:
            shared = _bridges[self._loop] = _Shared(self._loop)
        shared.users += 1
        self._bridge = shared.bridge
        self._open = True
        _logging.attach()

    async def run(self, call: _native.Call[T]) -> T:
        """Starts work and awaits it. Cancelling the task gives it up in the core too."""
        if self._running() is not self._loop:
            text = "an async client is used in the event loop in which it was connected, and in no other"
            raise make("invalid_state", text, "run")
        value, token = self._bridge.start(call, self._create_future)
        if token is None:
            return cast("T", value)
        try:
            return await cast("asyncio.Future[T]", value)
        except BaseException:
            # Cancelled, in one way or another; after any other end there is nothing to give up.
            self._bridge.cancel(token)
            raise

    async def blocking(self, call: Callable[..., Awaitable[T] | T], *arguments: object) -> T:
        """Calls what may block (a file object's method) on a thread, so that the loop goes on; awaits what is async."""
        import asyncio
        import inspect

        if inspect.iscoroutinefunction(call):
            return cast("T", await call(*arguments))
        result = await asyncio.to_thread(call, *arguments)
        return cast("T", await result if inspect.isawaitable(result) else result)

    def runner(self) -> object | None:
        """What makes the coroutine of a call that is awaited by itself."""
        return self.run

    def close(self) -> None:
        """Lets the loop's bridge go; the last of its clients takes it down. May be called twice."""
        if not self._open:
            return
        self._open = False
        shared = _bridges.get(self._loop)
        if shared is None or shared.bridge is not self._bridge:
            return
        shared.users -= 1
        if shared.users == 0:
            del _bridges[self._loop]
            if self._loop.is_closed():
                self._bridge.close()
            else:
                self._loop.remove_reader(self._bridge.fileno())
                # What has come is theirs; who waits for more would wait for ever.
                self._bridge.drain()
                for future in self._bridge.close():
                    if not future.done():
                        future.set_exception(make("client_closed", "the client was closed", "close"))
        _logging.flush()

    def release(self) -> None:
        """Closes from wherever: a loop that runs on another thread does it itself."""
        try:
            here = self._running()
        except RuntimeError:
            here = None
        if here is not self._loop and self._loop.is_running():
            self._loop.call_soon_threadsafe(self.close)
        else:
            self.close()

    def stats(self) -> dict[str, int]:
        """Counts of the loop's bridge since it was made."""
        return self._bridge.stats()


class Port:
    """Waits on the calling thread, with the interpreter released; Ctrl-C is seen within 50 ms."""

    __slots__ = ()

    def __init__(self) -> None:
        _logging.attach()

    def run(self, call: _native.Call[T]) -> T:
        """Waits for work. An exception of a signal gives it up in the core too."""
        try:
            return call.wait()
        finally:
            _logging.flush()

    def blocking(self, call: Callable[..., Awaitable[T] | T], *arguments: object) -> T:
        """Calls what may block: this thread is there for it."""
        return cast("T", call(*arguments))

    def runner(self) -> object | None:
        """A sync client's calls are not awaited."""
        return None

    def close(self) -> None:
        """There is nothing to let go."""

    def release(self) -> None:
        """As little as ``close``."""

    def stats(self) -> dict[str, int]:
        """A sync client has no queue: nothing to count."""
        return {}
