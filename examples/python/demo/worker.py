"""A worker: takes files from the shared subscription, surveys them, and sends what it finds to the planner.

Workers in Rust (`worker.rs`) and in Python share one subscription, and nobody can tell from an answer which one gave it. A
file is acknowledged only after its answer is safely with the bus: a worker may die at any moment.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import acb_sdk
import findings
import team
from survey import UnreadableError, survey

AT_ONCE = 4
"""Files that a worker handles at once."""
CREDITS = 8
"""Files that may be with a worker at once, those that wait for their turn included."""
HANDS_FULL_WITHIN = 0.2
"""How long a worker that was told to stop waits for its hands to be full."""
TELL_EVERY = 20
"""A worker tells how far it is after so many files."""


class Worker:
    def __init__(self, bus: acb_sdk.AsyncClient, name: str, merge_every: int) -> None:
        self.bus = bus
        self.name = name
        self.merge_every = merge_every
        # Findings that are not in the shared context yet.
        self.unmerged: list[findings.Numbered] = []
        self.done = 0
        self.held: list[str] = []

    async def handle(self, message: acb_sdk.AsyncMessage) -> None:
        file = message.attributes.get(team.FILE, "")
        if team.frozen.is_set():
            await self.hold(file)
        try:
            finding = survey(file, message.payload)
        except UnreadableError as why:
            team.say(f"cannot survey {file}, attempt {message.attempt}")
            # The reason in these words and no others: the last one stands with the dead letter.
            await message.nack(str(why))
            return
        number = int(message.attributes.get(team.NUMBER, ""))
        await self.bus.messages.send(team.PLANNER, {"file": file, "finding": finding})
        await self.share(number, finding)
        self.done += 1
        if self.done % TELL_EVERY == 0:
            await team.progress(self.bus, self.name, self.done)

    async def share(self, number: int, finding: dict[str, Any]) -> None:
        """Puts a finding aside, and merges what is there once it is enough."""
        self.unmerged.append((number, finding))
        if len(self.unmerged) < self.merge_every:
            return
        batch, self.unmerged = self.unmerged, []
        try:
            races = await findings.merge(self.bus, batch)
        except acb_sdk.AcbError:
            self.unmerged.extend(batch)
            raise
        team.tell("merged", races=races)

    async def hold(self, file: str) -> None:
        """Keeps a file and does nothing with it. The first one says a moment later what is in hand; the end comes from
        outside."""
        self.held.append(file)
        if len(self.held) == 1:
            await asyncio.sleep(HANDS_FULL_WITHIN)
            team.tell("holding", files=self.held)
        await asyncio.Event().wait()


async def main(url: str, name: str, merge_every: int) -> None:
    async with team.client(url, name) as bus:
        await bus.agents.register(name, type="surveyor", capabilities=[team.CAPABILITY])
        watch = asyncio.create_task(team.tell_of_connection(bus))
        async with bus.subscribe(team.SURVEY, max_pending=CREDITS) as work:
            team.tell("ready")
            # What a handler raises goes back to the bus as the reason, and the file comes again later.
            await work.for_each(Worker(bus, name, merge_every).handle, concurrency=AT_ONCE)
        watch.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--merge-every", type=int, required=True, help="findings to merge at once into what is shared")
    arguments = parser.parse_args()
    team.run(main(arguments.url, arguments.name, arguments.merge_every))
