"""What both faces of a fake bus share: what was decided before it starts, what it holds, and what never waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from ._errors import make
from ._types import ms_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from typing import Self

    from ._async_client import AsyncClient
    from ._client import Client
    from ._native import NativeFakeBus, NativeNetwork

Way: TypeAlias = Literal["up", "down"]
"""Which way bytes go: ``up`` from a client to the bus, ``down`` from the bus to a client."""

_ENDPOINT = "acb://fake"


class Network:
    """The way on which the clients of one agent come to a fake bus, with the faults that the test commands.

    Faults are levels: they hold for every connection of the agent until ``mend`` takes them back, so that a test is never
    too early or too late with them. ``cut`` alone is an event: it ends the connections that are there.
    """

    def __init__(self, native: NativeNetwork) -> None:
        self._native = native

    def cut(self) -> None:
        """Ends the connections that are there, at once and without a word. New ones are let in."""
        self._native.cut()

    def cut_after(self, way: Way, size: int) -> None:
        """Ends the connections when so many more bytes have gone one way: in the middle of a frame, if they end there."""
        self._native.cut_after(way, size)

    def part(self) -> None:
        """Ends the connections that are there and refuses new ones, until ``mend``."""
        self._native.part()

    def hold(self) -> None:
        """Nothing moves either way, and nothing is lost, until ``mend``."""
        self._native.hold()

    def mend(self) -> None:
        """Takes every fault back."""
        self._native.mend()


class Held:
    """What a bus holds. Both faces may have the same: that is how a fixture that knows no event loop gives an async bus."""

    __slots__ = ("clients", "closed", "native", "networks")

    def __init__(self) -> None:
        self.native: NativeFakeBus | None = None
        self.closed = False
        self.networks: dict[tuple[str, str], Network] = {}
        self.clients: list[AsyncClient | Client] = []


class FakeBusParts:
    """A fake bus without that which waits."""

    def __init__(
        self,
        *,
        tenant: str = "default",
        real_clock: bool = False,
        starting_at: datetime | None = None,
        with_credentials: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._tenant = tenant
        self._given: dict[str, object] = {
            "tenant": tenant,
            "real_clock": real_clock,
            "starting_at_ms": None if starting_at is None else ms_of(starting_at),
            "with_credentials": with_credentials,
            "settings": None if settings is None else dict(settings),
        }
        self._held = Held()

    @classmethod
    def _of(cls, other: FakeBusParts) -> Self:
        """A face of a bus that is there."""
        bus = cls(tenant=other._tenant)
        bus._held = other._held
        return bus

    def __repr__(self) -> str:
        state = "closed" if self._held.closed else "running" if self.is_running else "not running"
        return f"<{type(self).__name__} of tenant {self._tenant}, {state}>"

    def _bus(self, operation: str) -> NativeFakeBus:
        if self._held.native is None:
            text = "the fake bus was closed" if self._held.closed else "the fake bus is not started: enter it, or start()"
            raise make("invalid_state", text, f"fake_bus.{operation}")
        return self._held.native

    def _way(self, agent: str, tenant: str | None) -> NativeNetwork:
        return self.network(agent, tenant=tenant)._native

    @property
    def endpoint(self) -> str:
        """What clients of this bus call their endpoint. Nobody listens there."""
        return _ENDPOINT

    @property
    def is_running(self) -> bool:
        """Whether the bus runs: started, and not killed, stopped or closed since."""
        return self._held.native is not None and self._held.native.is_running()

    @property
    def admin_key(self) -> str | None:
        """The first admin key of a bus that was made ``with_credentials``; ``None`` of others."""
        return self._bus("admin_key").admin_key()

    def network(self, agent: str, *, tenant: str | None = None) -> Network:
        """The way on which this agent's clients come to the bus, those that are made later too."""
        name = (self._tenant if tenant is None else tenant, agent)
        bus = self._bus("network")
        if name not in self._held.networks:
            self._held.networks[name] = Network(bus.network())
        return self._held.networks[name]

    def cut(self, agent: str, *, tenant: str | None = None) -> None:
        """Ends an agent's connections, at once and without a word; its clients come back. It is ``network(agent).cut()``."""
        self.network(agent, tenant=tenant).cut()

    def now(self) -> datetime:
        """The bus's wall clock."""
        return self._bus("now").now()

    def set_wall(self, at: datetime) -> None:
        """Sets the bus's wall clock, forward or back, as somebody at the machine may: no time passes by it."""
        self._bus("set_wall").set_wall(ms_of(at))

    def metrics(self) -> str:
        """What the bus counts, as Prometheus reads it. Raises ``invalid_state`` when it does not run."""
        return self._bus("metrics").metrics()
