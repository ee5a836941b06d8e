"""The fake bus of a scenario, when the program with its clients has it too."""

from __future__ import annotations

from datetime import UTC, datetime

from shapes import Args, BadScenarioError, ms

import acb_sdk
from acb_sdk.testing import AsyncFakeBus

# Where clients of the fake bus in this program are told to connect.
FAKE = "fake"


class AsyncBusActor:
    """The fake bus of this program."""

    def __init__(self, settings: dict[str, str]) -> None:
        self.bus = AsyncFakeBus(settings=settings)

    async def call(self, verb: str, args: Args) -> Args:
        """Does what a verb says, and tells the time."""
        await self.bus.start()
        if verb == "advance":
            await self.bus.advance(args["seconds"])
        elif verb == "set_wall":
            self.bus.set_wall(datetime.fromtimestamp(args["wall_ms"] / 1000, UTC))
        elif verb == "kill":
            await self.bus.kill()
        elif verb == "stop":
            await self.bus.stop()
        elif verb == "restart":
            await self.bus.restart()
        elif verb == "network":
            line = self.bus.network(args["agent"], tenant=args["tenant"])
            if args["act"] == "cut_after":
                line.cut_after(args["way"], args["bytes"])
            else:
                getattr(line, args["act"])()
        else:
            raise BadScenarioError(f"the bus has nothing for {verb}")
        return {"wall_ms": ms(self.bus.now())}


async def connected(
    fake: AsyncBusActor | None,
    endpoint: str,
    who: tuple[str, str],
    credentials: acb_sdk.Credentials,
    options: acb_sdk.Options | None = None,
) -> acb_sdk.AsyncClient:
    """A client of a bus anywhere, or of the one that is here; who it is: tenant and agent."""
    if fake is not None and endpoint == FAKE:
        return await fake.bus.client(who[1], tenant=who[0], credentials=credentials, options=options)
    return await acb_sdk.AsyncClient(endpoint, credentials=credentials, options=options).connect()
