"""The fake bus: the server over memory, in this process, for tests of agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ._async_client import AsyncClient
from ._errors import make
from ._fake_parts import FakeBusParts
from ._native import NativeFakeBus
from ._options import Credentials
from ._port import AsyncPort

if TYPE_CHECKING:
    from datetime import datetime
    from types import TracebackType
    from typing import Self

    from ._native import Call
    from ._options import Options

T = TypeVar("T")


async def _run(call: Call[T]) -> T:
    # A port for each call: a bus belongs to no event loop, and its clients may live in several.
    port = AsyncPort()
    try:
        return await port.run(call)
    finally:
        port.close()


class AsyncFakeBus(FakeBusParts):
    """A bus for tests: the server itself over memory, in this process, without a port or a file, there in milliseconds.

    Enter it, or call ``start`` and later ``close``; closing it closes the clients that it gave. Its time stands until
    ``advance`` moves it, unless it is made with ``real_clock``; timeouts of clients are real time. ``tenant`` is the tenant
    of its clients, ``starting_at`` where its wall clock stands at first (2026-01-01 otherwise). Every client is taken at
    its word, unless it is made ``with_credentials``: see ``admin_key``. ``settings`` are the server's own by their path,
    such as ``{"delivery.durability_floor": "synced"}``.

    A bus belongs to no event loop: its clients belong to the one that they were asked for in.
    """

    async def start(self) -> Self:
        """Starts the bus and waits until it serves, when it was not started. Raises ``invalid_argument`` for settings that
        the server does not take."""
        if self._held.closed:
            raise make("invalid_state", "the fake bus was closed", "fake_bus.start")
        if self._held.native is None:
            self._held.native = await _run(NativeFakeBus.start(self._given))
        return self

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def client(
        self,
        agent: str,
        *,
        tenant: str | None = None,
        credentials: Credentials | None = None,
        options: Options | None = None,
    ) -> AsyncClient:
        """A connected client of this bus, as an agent of the bus's tenant or of another, which is made by its first use.

        It is a client like any other, and it is closed with the bus when it is still open then. It comes to the bus on
        its agent's own way: see ``network``.
        """
        way = self._way(agent, tenant)
        if credentials is None:
            credentials = Credentials.dev(agent, tenant=self._tenant if tenant is None else tenant)
        client = AsyncClient(self.endpoint, credentials=credentials, options=options)
        client._come_by(way)
        await client.connect()
        self._held.clients = [*(other for other in self._held.clients if not other._closed), client]
        return client

    async def advance(self, seconds: float) -> datetime:
        """Lets time pass on the bus, at once: leases end, attempts come due, messages and tokens expire, and all of that
        has happened when this returns. Answers with the bus's wall clock. Raises ``invalid_state`` on a real clock.

        While the bus does not run, only the machine's time passes.
        """
        return await _run(self._bus("advance").advance(seconds))

    async def kill(self) -> None:
        """Ends the bus as kill -9 ends a server: connections break, and what was not written is gone. What was written
        stays for ``restart``."""
        await _run(self._bus("kill").kill())

    async def stop(self) -> None:
        """Stops the bus in order: clients are told and finish what they have. What it stored stays for ``restart``."""
        await _run(self._bus("stop").stop())

    async def restart(self) -> None:
        """Starts the bus again over what it had stored; kills it first when it runs."""
        await _run(self._bus("restart").restart())

    async def close(self) -> None:
        """Closes the clients that are still open, stops the bus and lets go of all that it stored. May be called twice."""
        held = self._held
        native, held.native, held.closed = held.native, None, True
        clients, held.clients = held.clients, []
        held.networks.clear()
        try:
            for client in clients:
                given = client._give_up()
                if given is not None:
                    core, port = given
                    try:
                        await _run(core.close())
                    finally:
                        port.release()
        finally:
            if native is not None:
                await _run(native.close())
