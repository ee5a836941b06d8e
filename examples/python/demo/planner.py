"""The planner: finds workers by what they can do, publishes each file as work, and gathers what comes back.

Findings come at least once. A file answered twice is recognised by its name; two answers that do not agree are an error. A
file that nobody answered for must stand in the dead letters, or the planner goes on waiting. When all is done it writes its
table, and answers whoever asks for the result.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import pathlib
from collections import Counter
from typing import Any

import acb_sdk
import team

NOBODY = "nobody"
"""Who answered for a file that was given up."""
WORKERS_WITHIN = 20.0
"""How long the planner looks for workers, in seconds."""
LOOK_EVERY = 0.05
DEAD_EVERY = 0.5
"""How often it looks for dead letters."""
TELL_EVERY = 20
"""The planner tells how far it is after so many answers."""
TICK = 0.02
"""So often files are sent."""


class Plan:
    def __init__(self, bus: acb_sdk.AsyncClient, works: list[dict[str, str]]) -> None:
        self.bus = bus
        self.works = works
        self.table: dict[str, dict[str, Any]] = {}
        self.repeats = 0
        self.complete = asyncio.Event()

    async def send_all(self, rate: int) -> None:
        """Sends so many files a second. Publishes go out in this order, and are not waited for one by one."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        async with asyncio.TaskGroup() as sending:
            for number, work in enumerate(self.works):
                while number > (loop.time() - start) * rate:
                    await asyncio.sleep(TICK)
                sending.create_task(self.send(number, work))

    async def send(self, number: int, work: dict[str, str]) -> None:
        content = pathlib.Path(work["path"]).read_bytes()
        attributes = {team.FILE: work["name"], team.NUMBER: str(number)}
        await self.bus.messages.publish(team.WORK, content, attributes=attributes)

    async def gather(self, inbox: acb_sdk.AsyncSubscription) -> None:
        """Takes what comes: findings, and requests for the result."""
        async for message in inbox:
            if message.reply_to is not None:
                await message.reply(self.result())
            else:
                answer = message.json()
                await self.settle(answer["file"], message.from_agent, {"found": answer["finding"]})
            try:
                await message.ack()
            except acb_sdk.ConflictError as error:
                # A lease ends with the server that gave it: the message comes again, and is known by then.
                if error.code != "lease_lost":
                    raise

    async def settle(self, file: str, by: str, outcome: dict[str, Any]) -> None:
        first = self.table.get(file)
        if first is not None:
            if first != outcome:
                raise ValueError(f"two answers for {file} do not agree: {first} and {outcome}")
            self.repeats += 1
            return
        team.tell("answered", file=file, by=by)
        self.table[file] = outcome
        if len(self.table) % TELL_EVERY == 0 or len(self.table) == len(self.works):
            await team.progress(self.bus, team.PLANNER, len(self.table), len(self.works))
        if len(self.table) == len(self.works):
            self.complete.set()

    async def look_at_the_dead(self) -> None:
        """Files that the bus gave up on are answered for too: with the reason."""
        while True:
            async for letter in self.bus.dead_letters.list(team.SURVEY):
                file = letter.attributes.get(team.FILE, "")
                if file in self.table:
                    continue
                team.say(f"sees a dead letter: {file}")
                team.say(f"  {letter.reason} after {letter.attempts} attempts: it {letter.last_error}")
                team.say(f"  kept as {letter.id}, whole, until somebody redrives or discards it")
                await self.settle(file, NOBODY, {"unreadable": letter.last_error})
            await asyncio.sleep(DEAD_EVERY)

    def result(self) -> dict[str, Any]:
        """What the planner answers to whoever asks: how far it is, and files and lines by language."""
        files: Counter[str] = Counter()
        lines: Counter[str] = Counter()
        for outcome in self.table.values():
            if found := outcome.get("found"):
                files[found["language"]] += 1
                lines[found["language"]] += found["lines"]
        return {
            "complete": self.complete.is_set(),
            "files": len(self.table),
            "unreadable": len(self.table) - files.total(),
            "languages": {language: [count, lines[language]] for language, count in files.items()},
        }


async def discover(bus: acb_sdk.AsyncClient, wanted: int) -> list[str]:
    while True:
        found = [agent.id async for agent in bus.agents.discover(capabilities=[team.CAPABILITY], status="online")]
        if len(found) >= wanted:
            return found
        await asyncio.sleep(LOOK_EVERY)


def works_of(path: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines()]


async def main(arguments: argparse.Namespace) -> None:
    works = works_of(arguments.works)
    async with team.client(arguments.url, team.PLANNER) as bus:
        planner = await bus.agents.register(team.PLANNER, type="planner")
        # The streams that follow show that it is alive; before them a heartbeat does.
        await bus.agents.heartbeat()
        async with bus.inbox() as inbox, asyncio.TaskGroup() as tasks:
            team.tell("ready")
            tasks.create_task(team.tell_of_connection(bus))
            team.say(f"registered, incarnation {planner.incarnation}; looking for agents that can {team.CAPABILITY}")
            async with asyncio.timeout(WORKERS_WITHIN):
                workers = await discover(bus, arguments.workers)
            team.say(f"found {len(workers)}: {', '.join(workers)}")
            team.say(f"sends {len(works):,} files to {team.WORK}, {arguments.rate} a second")
            plan = Plan(bus, works)
            gathering = tasks.create_task(plan.gather(inbox))
            looking = tasks.create_task(plan.look_at_the_dead())
            try:
                async with asyncio.timeout(arguments.within):
                    await plan.send_all(arguments.rate)
                    await plan.complete.wait()
            except TimeoutError:
                missing = len(works) - len(plan.table)
                raise TimeoutError(
                    f"{missing} of {len(works)} files were not answered for within {arguments.within} s"
                ) from None
            team.say("every file is answered for")
            looking.cancel()
            pathlib.Path(arguments.table).write_text(json.dumps(plan.table), encoding="utf-8")
            team.tell("finished", repeats=plan.repeats)
            # It answers until it is ended.
            await gathering


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--works", required=True, help="the files: one JSON object a line, name and path")
    parser.add_argument("--workers", type=int, required=True, help="workers to wait for")
    parser.add_argument("--rate", type=int, required=True, help="files to send in a second")
    parser.add_argument("--within", type=float, required=True, help="seconds after which it gives up")
    parser.add_argument("--table", required=True, help="where the table is written")
    team.run(main(parser.parse_args()))
